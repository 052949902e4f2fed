"""Train a base config and each of its variants on the same folds, and compare them row by row.

    python scripts/ablate.py configs/ham10000/ablation.yaml

Each variant is an ordinary run below oof/; what is done is not done again. Differences are paired,
with intervals over groups, and go into docs/results/<config>.json.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, at, shown


def main(arguments: list[str] | None = None) -> int:
    begun = time.monotonic()
    parser = build_parser(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change the base and every variant")  # fmt: skip
    parser.add_argument("--max-hours", type=float, help="save and stop before this time is over")
    parser.add_argument("--out", type=Path, help="the results file")
    args = parser.parse_args(arguments)

    from lesions.config import run_name
    from lesions.files import write_json
    from lesions.inference.launch import build_accelerator
    from lesions.training.ablation import load_ablation, variant_runs
    from lesions.training.course import train_folds
    from lesions.training.stop import StopRequest

    ablation = load_ablation(args.config)
    ablation = ablation.model_copy(update={"shared": [*ablation.shared, *args.set]})
    runs = variant_runs(args.config, ablation)
    for name, config in runs.values():
        accelerator = build_accelerator(config.train.precision)
        stop = StopRequest(args.max_hours, begun)
        if code := train_folds(config, name, ablation.folds, accelerator, stop):
            return code

    from lesions.reporting.ablation import compare_variants

    result = compare_variants(runs, ablation)
    stem = run_name(args.config).replace("/", "_")
    path = args.out or CODE / "docs" / "results" / f"{stem}.json"
    write_json(path, result)
    print(f"{shown(path)} written from {shown(at("oof") / run_name(args.config))}")
    return 0


if __name__ == "__main__":
    run(main)
