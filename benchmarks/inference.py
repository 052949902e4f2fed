"""Inference over views made on the device, against one normalised float32 pass a view, in turns.

    python benchmarks/inference.py                   # effnet_b1, 16 images of 256 pixels

The plain way flips and normalises each view on the CPU and sends it to the device anew, in float32.
Ours sends uint8 once and makes the views there, in the accelerator's precision and the backbone's
memory format. Random weights.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from step import drawn_batch, plain_logits
from timing import cpu_seconds, in_turns, times_as_fast, wall_seconds

from lesions.cli import build_parser, run
from lesions.config import Config, load_config
from lesions.inference.accelerator import build_accelerator
from lesions.inference.predict import probabilities, views_of
from lesions.models.backbone import memory_format
from lesions.models.classifier import LesionClassifier
from lesions.provenance import Results


def plain_way(model: LesionClassifier, images: Tensor, metadata: Tensor, views: int) -> Tensor:
    device, mean, std = model.mean.device, model.mean.cpu(), model.std.cpu()
    probs = []
    for view in views_of(images, views):
        image = ((view - mean) / std).permute(0, 3, 1, 2).contiguous().to(device)
        probs.append(probabilities(plain_logits(model, image, metadata.to(device))))
    return torch.stack(probs).mean(dim=0)


def our_way(
    model: LesionClassifier, images: Tensor, metadata: Tensor, views: int, accelerator: Accelerator
) -> Tensor:
    image, known = images.to(accelerator.device), metadata.to(accelerator.device)
    probs = []
    for view in views_of(image, views):
        with accelerator.autocast():
            probs.append(probabilities(model(view, known)))
    return torch.stack(probs).mean(dim=0)


def measure_inference(
    config: Config, accelerator: Accelerator, repeats: int, batch: int
) -> dict[str, Any]:
    """Seconds a batch over the config's views, both ways in turns, and that they answer alike."""
    drawn, views, device = drawn_batch(config, batch), config.predict.views, accelerator.device
    images, metadata = drawn["image"], drawn["metadata"]
    plain = LesionClassifier(config.model, metadata.shape[1], weights=False).eval().to(device)
    model = deepcopy(plain).to(memory_format=memory_format(config.model.backbone))
    clock = cpu_seconds if device.type == "cpu" else wall_seconds
    answers: dict[str, Tensor] = {}

    def way(name: str, answer: Callable[[], Tensor]) -> Callable[[], float]:
        def work() -> None:
            with torch.no_grad():
                answers[name] = answer().float().cpu()  # which waits for the device

        return lambda: clock(work)

    ways = {
        "plain": way("plain", lambda: plain_way(plain, images, metadata, views)),
        "ours": way("ours", lambda: our_way(model, images, metadata, views, accelerator)),
    }
    seconds = {name: times[1:] for name, times in in_turns(ways, repeats + 1).items()}  # warm-up
    return {
        "backbone": config.model.backbone,
        "image_size": config.data.image_size,
        "batch": batch,
        "views": views,
        "precision": str(accelerator.mixed_precision),
        "largest_difference": float((answers["plain"] - answers["ours"]).abs().max()),
        "seconds": {name: float(np.median(times)) for name, times in seconds.items()},
        **times_as_fast(seconds["plain"], seconds["ours"]),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--config", default="effnet_b1", help="default effnet_b1")
    parser.add_argument("--batch", type=int, default=16, help="images (default 16)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    results = Results(parser, "inference.json")
    args = parser.parse_args(arguments)
    results.check(args)
    config = load_config(args.config, ["model.pretrained=false", *args.set])
    accelerator = build_accelerator(config.train.precision)
    found = measure_inference(config, accelerator, args.repeats, args.batch)
    print(
        f"{found['backbone']} at {found['image_size']} px, {found['precision']}, {found['views']}"
        f" views: {found['ratio']:.2f} times as fast ({found['low']:.2f} to {found['high']:.2f});"
        f" largest difference of a probability {found['largest_difference']:.2g}"
    )
    results.write(found)
    return 0


if __name__ == "__main__":
    run(main)
