"""Set runs on the splits of published systems beside their numbers, and beside lesion-whole folds.

    python scripts/rivals.py --grouped ham10000/mobilenetv2

Needs the runs ham10000/system001, system002 and system004 and their test predictions: see
scripts/ham10000.sh. Writes docs/results/ham10000.json; scripts/docs.py makes docs/ham10000.md.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--grouped", required=True, help="the run on folds with whole lesions")
    parser.add_argument("--out", type=Path, default=CODE / "docs" / "results" / "ham10000.json")
    args = parser.parse_args(arguments)

    from lesions.files import write_json
    from lesions.reporting.rivals import compare_rivals

    found = compare_rivals(args.grouped)
    for rival in found["rivals"]:
        for name, score in rival["scores"].items():
            verdict = "passed" if score["passed"] else "NOT passed"
            print(
                f"system {rival['system']}, {rival['rows']:,} {rival['part']} rows: {name}"
                f" {score['ours']['value']:.4f} against {score['theirs']:.4f}: {verdict};"
                f" lesions whole {score['grouped']['value']:.4f}"
            )
    write_json(args.out, found)
    print(f"{shown(args.out)} written; next: python scripts/docs.py")
    return 0


if __name__ == "__main__":
    run(main)
