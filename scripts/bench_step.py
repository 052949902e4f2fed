"""Time a training step and inference of a config against the plain eager float32 way, in turns.

    python scripts/bench_step.py                        # effnet_b1, 16 images of 256 pixels

Writes docs/results/step.json, from which scripts/docs.py makes docs/step.md, and the part
"inference" of docs/results/performance.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, at


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--config", type=Path, default=at("configs") / "effnet_b1.yaml")
    parser.add_argument("--batch", type=int, default=16, help="images (default 16)")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--out", type=Path, default=CODE / "docs" / "results" / "step.json")
    args = parser.parse_args(arguments)

    from lesions.config import load_config
    from lesions.files import write_json
    from lesions.inference.checkpoint import versions
    from lesions.inference.accelerator import build_accelerator
    from lesions.inference.speed import measure_inference
    from lesions.reporting.performance import save_part
    from lesions.reporting.summary import machine
    from lesions.training.step_speed import measure_step

    sizes = [f"train.batch_size={args.batch}", f"train.micro_batch={args.batch}"]
    config = load_config(args.config, ["model.pretrained=false", *sizes])
    accelerator = build_accelerator(config.train.precision)
    found = measure_step(config, accelerator, args.repeats)
    write_json(args.out, found | {"machine": machine(), "versions": versions()})
    print(
        f"{found['backbone']} at {found['image_size']} px, {found['precision']}: a step of"
        f" {found['batch']} images takes {found['seconds']['ours']:.2f} s, the plain loop's"
        f" {found['seconds']['plain']:.2f} s: {found['ratio']:.2f} times as fast"
        f" ({found['low']:.2f} to {found['high']:.2f})"
    )
    found = measure_inference(config, accelerator, args.repeats, args.batch)
    save_part(args.out.with_name("performance.json"), "inference", found)
    print(f"inference with {found['views']} views: {found['ratio']:.2f} times as fast")
    return 0


if __name__ == "__main__":
    run(main)
