"""The four configs on a GPU: training, waiting for data, inference, shares of its limits.

    python benchmarks/gpu.py

Without a GPU it says so and exits 0.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from step import build_stepper, drawn_batch, measure_inference, our_step, plain_step

from lesions.cli import build_parser, run
from lesions.config import Config, load_config
from lesions.data.augmentation import build_augmentation
from lesions.data.loading import LesionDataset, TrainBatches, build_loader, end_workers
from lesions.data.metadata import COLUMNS
from lesions.inference.accelerator import build_accelerator
from lesions.inference.checkpoint import versions
from lesions.models.classifier import LesionClassifier
from lesions.provenance import Results

RUNS = ("effnet_b1", "effnet_b3", "effnet_b4", "resnest50")
WARM_UP = 5  # steps; compiling is in the first


def seconds_of(work: Callable[[], Any], repeats: int) -> float:
    """Wall seconds of one `work`, the device's included, after a few to warm up."""
    for _ in range(WARM_UP):
        work()
    _wait()
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait()
    return (time.perf_counter() - begun) / repeats


def _wait() -> None:
    if torch.cuda.is_available():  # the tests run on a CPU
        torch.cuda.synchronize()


def measure_limits() -> dict[str, float]:
    """What this card copies (GB/s, read and written) and multiplies (half precision TFLOP/s)."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = seconds_of(lambda: target.copy_(source), 20)
    half = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    matrix = torch.randn(8192, 8192, dtype=half, device="cuda")
    product = seconds_of(lambda: matrix @ matrix, 20)
    return {
        "copy_gb_per_second": 2 * source.numel() / copy / 1e9,
        "matrix_tflops": 2 * 8192**3 / product / 1e12,
    }


def measure_training(
    config: Config, batch: int, accelerator: Accelerator, limits: dict[str, float], repeats: int,
    modes: Sequence[bool] = (False, True),
) -> list[dict[str, Any]]:  # fmt: skip
    """Images/s and peak memory of a step: plain float32, stock mixed precision, and ours.

    Each eager and, where `modes` has True, compiled. The shares are what a step reaches of the
    card's measured limits: `matrix_share` of its products by the network's own, three times a
    forward pass; `copy_share` by reading and writing each layer's output five times in half
    precision (forward once each, backward thrice), which fused layers do not all need.
    """
    flops, outputs = _work_of(config)
    rows = []
    drawn = drawn_batch(config, batch)
    for compiled in modes:
        train = config.train.model_copy(update={"compile": compiled})
        changed = config.model_copy(update={"train": train})
        for way, build in {
            "plain fp32": partial(plain_step, config, drawn, accelerator, False, compiled),
            "stock AMP": partial(plain_step, config, drawn, accelerator, True, compiled),
            "ours": partial(our_step, changed, drawn, accelerator),
        }.items():
            torch.compiler.reset()
            torch.cuda.empty_cache()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            seconds = seconds_of(build(), repeats)
            rows.append({
                "way": f"{way}, {'compiled' if compiled else 'eager'}",
                "images_per_second": batch / seconds,
                "peak_gb": torch.cuda.max_memory_allocated() / 2**30,
                "matrix_share": 3 * flops * batch / seconds / 1e12 / limits["matrix_tflops"],
                "copy_share": 10 * outputs * batch / seconds / 1e9 / limits["copy_gb_per_second"],
            })  # fmt: skip
    return rows


def measure_waiting(config: Config, batch: int, accelerator: Accelerator, steps: int) -> float:
    """Share of a training step's time in which the loop waits for the loader, no data on disk."""
    size, images = config.data.image_size, 2048
    pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3), np.uint8)
    zeros = np.zeros((images, len(COLUMNS[config.data.metadata])), np.float32)
    target = (np.arange(images) % 4 == 0).astype(np.float32)
    pipeline = build_augmentation(config.augment)
    batches = TrainBatches(np.resize(np.arange(images), batch * (steps + WARM_UP)), batch, batch, 0)
    loader = build_loader(
        LesionDataset(pixels, zeros, target, pipeline), batches, config.train.workers
    )
    stepper = build_stepper(config, target, accelerator)
    waited, begun = 0.0, 0.0
    asked = time.perf_counter()
    for number, loaded in enumerate(loader):
        if number == WARM_UP:
            waited, begun = 0.0, asked
        waited += time.perf_counter() - asked
        stepper.step([loaded], lambda: False)
        asked = time.perf_counter()
    end_workers(loader)
    return waited / (asked - begun)


def _work_of(config: Config) -> tuple[int, int]:
    """Of one image's forward pass: floating-point operations, and values that its layers write."""
    columns, size = len(COLUMNS[config.data.metadata]), config.data.image_size
    model = LesionClassifier(config.model, columns, weights=False).eval()
    written: list[int] = []
    for layer in model.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda *seen: written.append(seen[2].numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, size, size, 3, dtype=torch.uint8), torch.zeros(1, columns))
    return counter.get_total_flops(), sum(written)


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--runs", nargs="+", default=RUNS, help="configs (default: the four)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default 32)")
    parser.add_argument("--repeats", type=int, default=20, help="steps timed (default 20)")
    results = Results(parser, "gpu.json")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return 0
    results.check(args)
    size = [f"train.batch_size={args.batch}", f"train.micro_batch={args.batch}"]
    configs = {name: load_config(name, ["model.pretrained=false", *size]) for name in args.runs}
    accelerator, limits = build_accelerator("auto"), measure_limits()
    found = {"device": torch.cuda.get_device_name(), "batch": args.batch, "training": [], **limits}
    for name, config in configs.items():
        for row in measure_training(config, args.batch, accelerator, limits, args.repeats):
            found["training"].append({"config": name, **row})
            print(f"{name}, {row['way']}: {row['images_per_second']:,.0f} images/s,"
                  f" {row['peak_gb']:.1f} GB", flush=True)  # fmt: skip
    first = configs[args.runs[0]]
    found["waiting"] = measure_waiting(first, args.batch, accelerator, 5 * args.repeats)
    found["inference"] = measure_inference(first, accelerator, args.repeats, args.batch)
    print(f"waiting for data: {found['waiting']:.0%} of the step; inference:"
          f" {found['inference']['ratio']:.2f} times as fast as one pass a view")  # fmt: skip
    results.write(found | {"versions": versions()})
    return 0


if __name__ == "__main__":
    run(main)
