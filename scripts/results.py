"""Gather what the runs on a data set scored into a results file, from which pages are written.

    python scripts/results.py --dataset real --runs real/mobilenetv2 real/resnet10t \\
        --blend submissions/real --commands scripts/real.sh

Writes docs/results/<dataset>.json; scripts/docs.py makes docs/results.md and the README's table.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--blend", type=Path, help="the folder of blend.json, if there is one")
    parser.add_argument("--commands", type=Path, required=True, help="the script that was run")
    parser.add_argument("--name", help="of the results file; default: the data set's")
    args = parser.parse_args(arguments)

    from lesions.files import write_json
    from lesions.reporting.summary import summarise

    path = CODE / "docs" / "results" / f"{args.name or args.dataset}.json"
    write_json(path, summarise(args.dataset, args.runs, args.blend, args.commands))
    print(f"{shown(path)} written; next: python scripts/docs.py")
    return 0


if __name__ == "__main__":
    run(main)
