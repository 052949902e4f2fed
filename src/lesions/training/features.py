"""The features of a backbone that does not learn, computed once for all epochs, folds and heads."""

import hashlib
import os

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from lesions.config import Config
from lesions.data.loading import build_loader, eval_batches
from lesions.data.table import prepared
from lesions.inference.predict import views_of
from lesions.models.classifier import LesionClassifier
from lesions.training.fold import FoldData


@torch.no_grad()
def cached_features(
    model: LesionClassifier, data: FoldData, config: Config, accelerator: Accelerator
) -> np.ndarray:
    """The pooled features of every view of the training rows, by table row: uint8 (N, views, 4 F).

    They are float32 as bytes, which the loader of images carries and `model.see` reads. The file
    is named after the weights, the pixels and the views that it is of.
    """
    views, model = config.predict.views, model.to(accelerator.device).eval()
    of = [views, data.hashes["image_cache"], data.hashes["table_hash"]]
    digest = hashlib.sha256(repr(of).encode())
    for tensor in model.backbone.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    name = f"{config.model.backbone}_{config.data.image_size}"
    path = prepared(config.dataset) / "features" / name / f"{digest.hexdigest()[:12]}.npy"
    with accelerator.main_process_first():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            shape = len(data.table), views, model.backbone.head_hidden_size
            features = np.lib.format.open_memmap(part, "w+", np.float32, shape)
            rows = np.flatnonzero(data.table["split"] == "train")
            batches = eval_batches(rows, min(64, config.predict.batch_size))
            for batch in tqdm(
                build_loader(data.dataset, batches, 0), name, unit="batch", disable=None
            ):
                image = batch["image"].to(accelerator.device)
                with accelerator.autocast():
                    seen = [model.see(view).float() for view in views_of(image, views)]
                features[batch["row"].numpy()] = torch.stack(seen, dim=1).cpu().numpy()
            features.flush()
            part.replace(path)
    return np.load(path, mmap_mode="r").view(np.uint8)
