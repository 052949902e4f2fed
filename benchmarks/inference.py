"""How fast a model answers, with its views made on the device, beside the plain way."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from lesions.config import Config
from lesions.data.metadata import COLUMNS
from lesions.inference.predict import probabilities
from lesions.inference.views import views_of
from lesions.models.classifier import LesionClassifier
from lesions.timing import cpu_seconds, in_turns, times_as_fast, wall_seconds


def measure_inference(config: Config, accelerator: Accelerator, repeats: int, batch: int) -> dict:
    """Seconds a batch over the config's views, both ways in turns, random weights.

    The plain way: a pass over float32 (B, 3, S, S) for each view, each view flipped, normalised and
    sent to the device anew, in float32. Ours: uint8 sent once, the views made there, the
    accelerator's precision, channels_last.
    """
    size, views = config.data.image_size, config.predict.views
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), np.uint8))
    metadata = torch.from_numpy(rng.random((batch, len(COLUMNS[config.data.metadata])), np.float32))
    device = accelerator.device
    plain = LesionClassifier(config.model, metadata.shape[1], weights=False).eval().to(device)
    model = deepcopy(plain).to(memory_format=torch.channels_last)
    clock = cpu_seconds if device.type == "cpu" else wall_seconds

    def timed(answer: Callable[[], Tensor]) -> float:
        with torch.no_grad():
            return clock(lambda: answer().cpu())  # which waits for the device

    seconds = in_turns(
        {
            "plain": lambda: timed(lambda: _plain(plain, images, metadata, views)),
            "ours": lambda: timed(lambda: _ours(model, images, metadata, views, accelerator)),
        },
        repeats + 1,
    )
    seconds = {name: values[1:] for name, values in seconds.items()}  # the first turn warms up
    return {
        "backbone": config.model.backbone,
        "image_size": size,
        "batch": batch,
        "views": views,
        "precision": str(accelerator.mixed_precision),
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        **times_as_fast(seconds["plain"], seconds["ours"]),
    }


def _plain(model: LesionClassifier, images: Tensor, metadata: Tensor, views: int) -> Tensor:
    device, mean, std = model.mean.device, model.mean.cpu(), model.std.cpu()
    probs = []
    for view in views_of(images, views):
        image = ((view - mean) / std).permute(0, 3, 1, 2).contiguous().to(device)
        features = model.backbone(image)
        if model.metadata is not None:
            features = torch.cat([features, model.metadata(metadata.to(device))], dim=1)
        probs.append(probabilities(model.head(features)))
    return torch.stack(probs).mean(dim=0)


def _ours(
    model: LesionClassifier, images: Tensor, metadata: Tensor, views: int, accelerator: Accelerator
) -> Tensor:
    image, known = images.to(accelerator.device), metadata.to(accelerator.device)
    probs = []
    for view in views_of(image, views):
        with accelerator.autocast():
            probs.append(probabilities(model(view, known)))
    return torch.stack(probs).mean(dim=0)
