"""A run whose weights are a formula: no training, no random numbers of a torch version."""

from pathlib import Path

import numpy as np
import torch

from lesions.config import Config
from lesions.inference.checkpoint import save_model
from lesions.models.classifier import LesionClassifier

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def formula_run(
    folder: Path, classes: tuple[str, ...] = (), folds: int = 1, fold_hash: str = "", **data: str
) -> Path:
    """A run whose weights are sines, whatever torch's random numbers are; of an older version."""
    config = Config.model_validate(
        {
            "dataset": "demo",
            "data": {"image_size": 32, "metadata": "clinical", **data},
            "model": {"backbone": "mobilenetv3_small_050", "pretrained": False},
            "loss": {"kind": "cross_entropy" if classes else "bce"},
        }
    )
    model = LesionClassifier(config.model, columns=9, outputs=max(1, len(classes)), weights=False)
    weights = {}
    for name, tensor in model.state_dict().items():
        size = max(1, tensor[0].numel()) if tensor.ndim > 1 else 25
        values = np.sin(np.arange(tensor.numel()) * 0.7 + len(name)) * 2 / size**0.5
        values += float(name.endswith(("running_var", "weight")) and tensor.ndim == 1)
        weights[name] = torch.from_numpy(values).reshape(tensor.shape).to(tensor.dtype)
    for fold in range(folds):
        header = {
            "run": folder.name, "fold": fold, "task": data.get("task", "melanoma"),
            "classes": list(classes), "config": config.model_dump(), "versions": {},
            "table_hash": "", "fold_hash": fold_hash,
            "neutral": {"log_images_per_patient": 1.0, "log_bytes": 12.0},
        }  # fmt: skip
        save_model(folder / f"fold{fold}.safetensors", weights, header)
    return folder
