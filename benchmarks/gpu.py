"""The four configs on a GPU: training, inference, waiting for data, the card's limits.

    python benchmarks/gpu.py                   # ten minutes; needs torch and timm only, no network
    python benchmarks/gpu.py --device cpu --size 32 --batch 2 --repeats 1    # a trial of it

Random weights. Without a GPU it says so and exits 0. What fails (memory, compiling) is a row that
says so; what would not fit into --minutes any more is left out and named.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE
from lesions.provenance import Results

RUNS = ("effnet_b1", "effnet_b3", "effnet_b4", "resnest50")
WARM_UP = 5  # steps; compiling is in the first
COMPILING = 150  # seconds that one compiled row may take
EAGER = ("fp32", "AMP", "AMP, channels_last", "inference, AMP", "inference, AMP, channels_last")


def seconds_of(work: Callable[[], Any], repeats: int, device: str) -> float:
    """Wall seconds of one `work`, the device's included, after a few to warm up."""
    for _ in range(WARM_UP):
        work()
    _wait(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - begun) / repeats


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def half_of(device: str) -> torch.dtype:
    """The half precision that the device computes natively."""
    new = device == "cpu" or torch.cuda.get_device_capability()[0] >= 8
    return torch.bfloat16 if new else torch.float16


def measure_limits(device: str, repeats: int) -> dict[str, float]:
    """What this card copies (GB/s, read and written) and multiplies (half precision TFLOP/s)."""
    size, side = (2**30, 8192) if device == "cuda" else (2**20, 64)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = seconds_of(lambda: target.copy_(source), repeats, device)
    matrix = torch.randn(side, side, device=device).to(half_of(device))
    product = seconds_of(lambda: matrix @ matrix, repeats, device)
    return {"copy_gb_per_second": 2 * size / copy / 1e9,
            "matrix_tflops": 2 * side**3 / product / 1e12}  # fmt: skip


def backbone_of(name: str) -> str:
    """The timm tag in configs/<name>.yaml, read without pydantic."""
    text = (CODE / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["model"]["backbone"]


def build_work(backbone: str, device: str, way: str) -> Callable[[Tensor], Any]:
    """A training step on uint8 images: forward, backward, clipping, AdamW; or inference."""
    layout = torch.channels_last if "channels_last" in way else torch.contiguous_format
    network = timm.create_model(backbone, num_classes=1).to(device).to(memory_format=layout)
    amp, half = "AMP" in way, half_of(device)
    if "compiled" in way:
        network.compile()

    def forward(image: Tensor) -> Tensor:
        """Logits (B,) of uint8 images (B, S, S, 3), normalised on the device as training does."""
        image = (image.to(device, non_blocking=True) - 127.5) / 58.0
        image = image.permute(0, 3, 1, 2).contiguous(memory_format=layout)
        with torch.autocast(device, half, enabled=amp):
            return network(image).squeeze(1).float()

    if "inference" in way:
        network.eval()
        return torch.no_grad()(forward)
    optimizer = torch.optim.AdamW(network.train().parameters(), 2e-4)
    scaler = torch.amp.GradScaler(device, enabled=amp and half is torch.float16)

    def step(image: Tensor) -> None:
        logit = forward(image)
        target = (torch.arange(len(logit), device=device) % 4 == 0).float()
        scaler.scale(F.binary_cross_entropy_with_logits(logit, target)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def measure_way(
    build: Callable[[], Callable[[Tensor], Any]], images: Tensor, repeats: int, device: str
) -> dict[str, Any]:
    """Images/s and peak memory of what `build` returns, or the problem that it had."""
    torch.compiler.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = seconds_of(partial(build(), images), repeats, device)
    except RuntimeError as error:  # out of memory, or no compiler: the other rows still count
        return {"problem": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"}
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return {"images_per_second": round(len(images) / seconds, 1), "peak_gb": round(peak, 2)}


def build_data(pixels: np.ndarray, batch: int, workers: int) -> tuple[str, DataLoader]:
    """What augments, and a loader of uint8 batches (B, S, S, 3) over `pixels`."""
    if any(find_spec(name) is None for name in ("albumentations", "pydantic", "pandas")):

        def turned(row: Tensor) -> Tensor:
            draw = np.random.default_rng(int(row))
            image = np.rot90(pixels[int(row)], int(draw.integers(4))) * draw.uniform(0.8, 1.2)
            return torch.from_numpy(np.clip(image, 0, 255).astype(np.uint8))

        return "a stand-in that is lighter than training's", DataLoader(
            TensorDataset(torch.arange(len(pixels))), batch, num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            collate_fn=lambda rows: torch.stack([turned(row) for (row,) in rows]),
        )  # fmt: skip
    from lesions.config import AugmentConfig
    from lesions.data.augmentation import build_augmentation
    from lesions.data.loading import LesionDataset, build_loader, eval_batches

    zeros, pipeline = np.zeros((len(pixels), 1), np.float32), build_augmentation(AugmentConfig())
    dataset = LesionDataset(pixels, zeros, zeros[:, 0], pipeline)
    batches = eval_batches(np.arange(len(pixels)), batch)
    return "training's augmentation", build_loader(dataset, batches, workers)


def measure_waiting(
    step: Callable[[Tensor], None], size: int, batch: int, steps: int, workers: int, device: str
) -> dict[str, Any]:
    """Share of the time of training steps in which the loop waits for the loader."""
    rows = batch * (steps + WARM_UP)
    few = np.random.default_rng(0).integers(0, 256, (min(rows, 512), size, size, 3), np.uint8)
    way, loader = build_data(np.resize(few, (rows, size, size, 3)), batch, workers)
    waited = begun = 0.0
    asked = time.perf_counter()
    for number, loaded in enumerate(loader):
        if number == WARM_UP:
            waited, begun = 0.0, asked
        waited += time.perf_counter() - asked
        step(loaded["image"] if isinstance(loaded, dict) else loaded)
        _wait(device)
        asked = time.perf_counter()
    return {"workers": workers, "way": way, "share": round(waited / (asked - begun), 4)}


def rows_to_measure(runs: Sequence[str]) -> list[tuple[str, str]]:
    """Config and way, what compiles last: it takes longest."""
    eager = [(name, way) for name in runs for way in EAGER]
    # Each in the layout that its config trains in.
    layouts = {name: "" if "resnest" in name else ", channels_last" for name in runs}
    return eager + [(name, f"AMP{layout}, compiled") for name, layout in layouts.items()]


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--runs", nargs="+", default=RUNS, help="configs (default: the four)")
    parser.add_argument("--size", type=int, default=256, help="pixels (default 256)")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    parser.add_argument("--repeats", type=int, default=20, help="steps timed (default 20)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8], help="of the loader")
    parser.add_argument("--minutes", type=float, default=9.5, help="at most (default 9.5)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default cuda")
    args, results = Results.parse(parser, "gpu.json", arguments)
    device, begun = args.device, time.monotonic()
    if device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return 0
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "size": args.size,
        "batch": args.batch, "rows": [], "waiting": [], "left_out": [],
        "versions": {name: version(name) for name in ("torch", "timm")},
        **measure_limits(device, args.repeats),
    }  # fmt: skip
    shape = (args.batch, args.size, args.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def room(seconds: float, what: str) -> bool:
        left = 60 * args.minutes - (time.monotonic() - begun)
        if left < seconds:
            found["left_out"].append(what)
        return left >= seconds

    first = backbone_of(args.runs[0])
    for workers in args.workers:
        if room(30, f"waiting with {workers} workers"):
            step = build_work(first, device, "AMP, channels_last")
            told = measure_waiting(step, args.size, args.batch, args.repeats, workers, device)
            found["waiting"].append(told)
            print(f"{workers} workers: {told['share']:.0%} of a step waits", flush=True)
    for name, way in rows_to_measure(args.runs):
        if not room(COMPILING if "compiled" in way else 15, f"{name}, {way}"):
            continue
        build = partial(build_work, backbone_of(name), device, way)
        row = measure_way(build, images, args.repeats, device)
        found["rows"].append({"config": name, "way": way, **row})
        print(f"{name}, {way}: {row}", flush=True)
    results.write(found | {"seconds": round(time.monotonic() - begun)})
    return 0


if __name__ == "__main__":
    run(main)
