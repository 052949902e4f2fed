"""How fast a training step is, against the plain loop that most solutions have."""

import time
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from lesions.config import Config
from lesions.data.loading import LesionDataset
from lesions.data.metadata import COLUMNS
from lesions.models.classifier import LesionClassifier
from lesions.training.loss import build_loss
from lesions.training.steps import Stepper
from lesions.training.stop import StopRequest


def measure_step(config: Config, accelerator: Accelerator, repeats: int) -> dict:
    """Seconds of both ways' steps on the same drawn batch, in turns, and their ratio.

    The plain way: float32 images in (B, 3, S, S), float32 arithmetic, no moving average. Ours is
    the fold loop's own step, gradient clipping and averaging included. Both get `config`'s network
    from random weights. The ratios are of wall time, one a turn, after a turn to warm up.
    """
    size, batch = config.data.image_size, config.train.micro_batch
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    metadata = rng.random((batch, len(COLUMNS[config.data.metadata])), np.float32)
    target = (np.arange(batch) % 4 == 0).astype(np.float32)
    ways = {"plain": _plain(config, images, metadata, target)}
    ways["ours"] = _ours(config, images, metadata, target, accelerator)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, step in ways.items():
            begun = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    ratios = np.divide(seconds["plain"], seconds["ours"])
    return {
        "backbone": config.model.backbone,
        "image_size": size,
        "batch": batch,
        "precision": str(accelerator.mixed_precision),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "ratio": float(np.median(ratios)),
        "low": float(ratios.min()),
        "high": float(ratios.max()),
    }


def _plain(
    config: Config, images: np.ndarray, metadata: np.ndarray, target: np.ndarray
) -> Callable[[], None]:
    model = LesionClassifier(config.model, metadata.shape[1], weights=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), config.train.lr)
    scaled = (torch.from_numpy(images) - model.mean) / model.std
    image = scaled.permute(0, 3, 1, 2).contiguous()

    def logits() -> Tensor:
        features = model.backbone(image)
        if model.metadata is not None:
            features = torch.cat([features, model.metadata(torch.from_numpy(metadata))], dim=1)
        return model.head(features).squeeze(1)

    def step() -> None:
        F.binary_cross_entropy_with_logits(logits(), torch.from_numpy(target)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _ours(
    config: Config, images: np.ndarray, metadata: np.ndarray, target: np.ndarray,
    accelerator: Accelerator,
) -> Callable[[], None]:  # fmt: skip
    dataset = LesionDataset(images, metadata, target)
    model = LesionClassifier(config.model, metadata.shape[1], weights=False)
    loss = build_loss(config.loss, target)
    stepper = Stepper(config.train, 0, model, dataset, loss, accelerator, epoch_steps=1000)
    batch = {
        "image": torch.from_numpy(images),
        "metadata": torch.from_numpy(metadata),
        "target": torch.from_numpy(target),
        "row": torch.arange(len(images)),
    }
    never = StopRequest()

    def step() -> None:
        stepper.step([batch], lambda: never.flags(0, accelerator.device))

    return step
