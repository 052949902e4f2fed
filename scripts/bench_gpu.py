"""Time the four configs on a GPU: training, waiting for data, inference, shares of its limits.

    python scripts/bench_gpu.py

Without a GPU it says so and exits 0. Writes the part "gpu" of docs/results/performance.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, at

RUNS = ("effnet_b1", "effnet_b3", "effnet_b4", "resnest50")


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--runs", nargs="+", default=RUNS, help="configs (default: the four)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default 32)")
    parser.add_argument("--repeats", type=int, default=20, help="steps timed (default 20)")
    parser.add_argument("--out", type=Path, default=CODE / "docs/results/performance.json")
    args = parser.parse_args(arguments)

    import torch

    if not torch.cuda.is_available():
        print("no GPU here: nothing measured, docs/performance.md keeps saying so")
        return 0

    from lesions.config import load_config
    from lesions.inference.accelerator import build_accelerator
    from lesions.inference.speed import measure_inference
    from lesions.reporting.performance import save_part
    from lesions.training.gpu_speed import measure_limits, measure_training, measure_waiting

    changes = [
        "model.pretrained=false",
        f"train.batch_size={args.batch}",
        f"train.micro_batch={args.batch}",
    ]
    accelerator, limits = build_accelerator("auto"), measure_limits()
    found = {"device": torch.cuda.get_device_name(), "batch": args.batch, "training": [], **limits}
    for name in args.runs:
        config = load_config(at("configs") / f"{name}.yaml", changes)
        rows = measure_training(config, args.batch, accelerator, limits, args.repeats)
        found["training"] += [{"config": name, **row} for row in rows]
    first = load_config(at("configs") / f"{args.runs[0]}.yaml", changes)
    found["waiting"] = measure_waiting(first, args.batch, accelerator, 5 * args.repeats)
    found["inference"] = measure_inference(first, accelerator, args.repeats, args.batch)
    save_part(args.out, "gpu", found)
    return 0


if __name__ == "__main__":
    run(main)
