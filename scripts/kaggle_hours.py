"""Work out the GPU hours of configs on Kaggle's two T4, for docs/kaggle.md; nothing is timed.

    python scripts/kaggle_hours.py effnet_b1 effnet_b3 effnet_b4 resnest50

Writes docs/results/kaggle_hours.json, each published rate with its source.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run

RUNS = ["effnet_b1", "effnet_b3", "effnet_b4", "resnest50"]


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("runs", nargs="*", default=RUNS, help="configs by name (default: the four)")
    parser.add_argument("--out", type=Path, help="default: docs/results/kaggle_hours.json")
    args = parser.parse_args(arguments)

    from lesions.config import load_config
    from lesions.files import write_json
    from lesions.kaggle.hours import work_out
    from lesions.paths import CODE, at, shown

    configs = {name: load_config(at("configs") / f"{name}.yaml") for name in args.runs}
    results = work_out(configs)
    path = args.out or CODE / "docs/results/kaggle_hours.json"
    write_json(path, results)
    for name, part in results["configs"].items():
        print(f"{name}: {part['fold_hours']:.2f} h a fold, {part['run_hours']:.1f} h in all")
    print(f"{shown(path)} is written; the page: python scripts/docs.py")
    return 0


if __name__ == "__main__":
    run(main)
