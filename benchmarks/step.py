"""A training step and inference of a config against the plain eager float32 way, in turns.

    python benchmarks/step.py                        # effnet_b1, 16 images of 256 pixels

docs/step.md says what the plain step is. Plain inference flips and normalises each view on the CPU
and sends it to the device; ours sends uint8 once and makes the views there. Random weights.
"""

import os
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from timing import compare, cpu_seconds, in_turns, times_as_fast, wall_seconds

from lesions.cli import build_parser, run
from lesions.config import Config, load_config
from lesions.data.metadata import COLUMNS
from lesions.inference.accelerator import build_accelerator
from lesions.inference.checkpoint import versions
from lesions.inference.predict import probabilities, views_of
from lesions.models.backbone import memory_format
from lesions.models.classifier import LesionClassifier
from lesions.provenance import Results
from lesions.training.loss import build_loss
from lesions.training.steps import Stepper

RUNS = ("effnet_b1", "effnet_b3", "effnet_b4", "resnest50")


def drawn_batch(config: Config, batch: int) -> dict[str, Tensor]:
    """A batch as the loader makes it: uint8 image (B, S, S, 3), metadata, target, row."""
    size, rng = config.data.image_size, np.random.default_rng(0)
    columns = len(COLUMNS[config.data.metadata])
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (batch, size, size, 3), np.uint8)),
        "metadata": torch.from_numpy(rng.random((batch, columns), np.float32)),
        "target": (torch.arange(batch) % 4 == 0).float(),
        "row": torch.arange(batch),
    }


def our_step(
    config: Config, batch: dict[str, Tensor], accelerator: Accelerator,
    layout: torch.memory_format | None = None,
) -> Callable[[], Any]:  # fmt: skip
    """One step of scripts/train.py on `batch`, of the fold loop's own stepper; in its layout."""
    target = batch["target"].numpy()
    names = [f"row {row}" for row in range(len(target))]
    model = LesionClassifier(config.model, batch["metadata"].shape[1], weights=False)
    model.memory_format = layout or model.memory_format
    loss = build_loss(config.loss, target, 2)
    stepper = Stepper(config.train, 0, model, names, loss, accelerator, 10**6, 2)
    return lambda: stepper.step([batch])


def normalised(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) as float32 (B, 3, S, S)."""
    return ((image - mean) / std).permute(0, 3, 1, 2).contiguous()


def plain_logits(model: LesionClassifier, image: Tensor, metadata: Tensor) -> Tensor:
    """Logits (B, C) of `normalised` images."""
    features = model.backbone(image)
    if model.metadata is not None:
        features = torch.cat([features, model.metadata(metadata)], dim=1)
    return model.head(features)


def plain_step(
    config: Config, batch: dict[str, Tensor], accelerator: Accelerator
) -> Callable[[], Any]:
    """One step of the loop that most solutions have."""
    device, columns = accelerator.device, batch["metadata"].shape[1]
    model = LesionClassifier(config.model, columns, weights=False).train()
    image = normalised(batch["image"], model.mean, model.std)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), config.train.lr)

    def step() -> None:
        logits = plain_logits(model, image.to(device), batch["metadata"].to(device)).squeeze(1)
        F.binary_cross_entropy_with_logits(logits, batch["target"].to(device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_step(config: Config, accelerator: Accelerator, repeats: int) -> dict[str, Any]:
    """Wall seconds of both ways' steps on the same batch, in turns, after a turn to warm up."""
    batch = drawn_batch(config, config.train.micro_batch)
    plain, ours = plain_step(config, batch, accelerator), our_step(config, batch, accelerator)
    ways = {"plain": lambda: wall_seconds(plain), "ours": lambda: wall_seconds(ours)}
    return {
        "backbone": config.model.backbone,
        "image_size": config.data.image_size,
        "batch": len(batch["row"]),
        "precision": str(accelerator.mixed_precision),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        **compare(ways, repeats, warm_up=1),
    }


def measure_layouts(
    config: Config, accelerator: Accelerator, repeats: int, compiled: bool
) -> dict[str, Any]:
    """Our step in both memory formats in turns, also compiled if wanted, as `measure_step`."""
    batch = drawn_batch(config, config.train.micro_batch)
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    steps = {name: our_step(config, batch, accelerator, one) for name, one in layouts.items()}
    if compiled:
        train = config.train.model_copy(update={"compile": True})
        steps["compiled"] = our_step(config.model_copy(update={"train": train}), batch, accelerator)
    ways = {name: partial(wall_seconds, step) for name, step in steps.items()}
    found = {name: times[1:] for name, times in in_turns(ways, repeats + 1).items()}
    usual = found["contiguous"]
    return {
        "batch": len(batch["row"]),
        "used": str(memory_format(config.model.backbone)).removeprefix("torch."),
        "seconds": {name: float(np.median(times)) for name, times in found.items()},
        "ratios": {name: times_as_fast(usual, found[name]) for name in list(found)[1:]},
    }


def measure_inference(
    config: Config, accelerator: Accelerator, repeats: int, batch: int
) -> dict[str, Any]:
    """Seconds a batch over the config's views, both ways in turns, and that they answer alike."""
    drawn, views, device = drawn_batch(config, batch), config.predict.views, accelerator.device
    images, metadata = drawn["image"], drawn["metadata"]
    plain = LesionClassifier(config.model, metadata.shape[1], weights=False).eval().to(device)
    mean, std = plain.mean.cpu(), plain.std.cpu()
    model = deepcopy(plain).to(memory_format=memory_format(config.model.backbone))
    clock = cpu_seconds if device.type == "cpu" else wall_seconds
    answers: dict[str, Tensor] = {}

    def plain_way() -> list[Tensor]:
        seen = (normalised(view, mean, std).to(device) for view in views_of(images, views))
        return [probabilities(plain_logits(plain, view, metadata.to(device))) for view in seen]

    def our_way() -> list[Tensor]:
        image, known = images.to(device), metadata.to(device)
        probs = []
        for view in views_of(image, views):
            with accelerator.autocast():
                probs.append(probabilities(model(view, known)))
        return probs

    @torch.no_grad()
    def work(name: str, way: Callable[[], list[Tensor]]) -> None:
        answers[name] = torch.stack(way()).mean(dim=0).float().cpu()  # which waits for the device

    ways = {
        "plain": lambda: clock(partial(work, "plain", plain_way)),
        "ours": lambda: clock(partial(work, "ours", our_way)),
    }
    compared = compare(ways, repeats, warm_up=1)
    difference = float((answers["plain"] - answers["ours"]).abs().max())
    return {"views": views, "largest_difference": difference, **compared}


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--config", default="effnet_b1", help="default effnet_b1")
    parser.add_argument("--batch", type=int, default=16, help="images (default 16)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--layouts", nargs="*", metavar="CONFIG", default=RUNS,
                        help="configs timed in both formats (default: the four)")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="and compiled, after minutes")
    args, results = Results.parse(parser, "step.json", arguments)
    sizes = [f"train.batch_size={args.batch}", f"train.micro_batch={args.batch}"]
    config = load_config(args.config, ["model.pretrained=false", *sizes, *args.set])
    accelerator = build_accelerator(config.train.precision)
    found = measure_step(config, accelerator, args.repeats)
    answered = measure_inference(config, accelerator, args.repeats, args.batch)
    for name, told in (("a step", found), (f"inference of {answered['views']} views", answered)):
        print(f"{args.config}: {name} takes {told['seconds']['ours']:.2f} s, the plain way"
              f" {told['seconds']['plain']:.2f} s: {told['ratio']:.2f} times as fast"
              f" ({told['low']:.2f} to {told['high']:.2f})")  # fmt: skip
    found |= {"inference": answered, "versions": versions(), "layouts": []}
    for name in args.layouts:
        one = load_config(name, ["model.pretrained=false", *sizes, *args.set])
        told = measure_layouts(one, accelerator, args.repeats, args.compile)
        found["layouts"].append({"config": name, **told})
        for way, ratio in told["ratios"].items():
            print(f"{name}: {way} {ratio['ratio']:.2f} times as fast as contiguous", flush=True)
    results.write(found | {"busy": os.getloadavg()[0]})
    return 0


if __name__ == "__main__":
    run(main)
