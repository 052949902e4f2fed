"""Networks as a config says, without training; with weights of a formula, whatever torch draws."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lesions.config import Config
from lesions.data.metadata import COLUMNS
from lesions.inference.checkpoint import save_model
from lesions.models.classifier import LesionClassifier

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def built(
    backbone: str, model: dict[str, Any], classes: Sequence[str] = (), **data: Any
) -> tuple[LesionClassifier, dict[str, Any]]:
    """A network in evaluation, the same each time, and the header of its checkpoint."""
    config = Config.model_validate(
        {
            "dataset": "demo",
            "data": {"image_size": 32, "metadata": "clinical", **data},
            "model": {"backbone": backbone, "pretrained": False, **model},
            "loss": {"kind": "cross_entropy" if classes else "bce"},
        }
    )
    torch.manual_seed(0)
    columns = len(COLUMNS[config.data.metadata])
    network = LesionClassifier(config.model, columns, outputs=max(1, len(classes)), weights=False)
    return network.eval(), {
        "run": "built", "fold": 0, "task": data.get("task", "melanoma"), "classes": list(classes),
        "config": config.model_dump(), "versions": {}, "table_hash": "", "fold_hash": "",
        "neutral": {"log_images_per_patient": 1.0, "log_bytes": 12.0},
    }  # fmt: skip


def batch(columns: int = 0, size: int = 64, count: int = 2) -> tuple[Tensor, Tensor]:
    """Drawn images uint8 (count, size, size, 3) and metadata (count, columns)."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return images, torch.rand(count, columns, generator=generator)


def formula_run(
    folder: Path, classes: tuple[str, ...] = (), folds: int = 1, fold_hash: str = "", **data: str
) -> Path:
    """A run whose weights are sines, whatever torch's random numbers are; of an older version."""
    model, header = built("mobilenetv3_small_050", {}, classes, **data)
    weights = {}
    for name, tensor in model.state_dict().items():
        size = max(1, tensor[0].numel()) if tensor.ndim > 1 else 25
        values = np.sin(np.arange(tensor.numel()) * 0.7 + len(name)) * 2 / size**0.5
        values += float(name.endswith(("running_var", "weight")) and tensor.ndim == 1)
        weights[name] = torch.from_numpy(values).reshape(tensor.shape).to(tensor.dtype)
    for fold in range(folds):
        own = {"run": folder.name, "fold": fold, "fold_hash": fold_hash}
        save_model(folder / f"fold{fold}.safetensors", weights, header | own)
    return folder
