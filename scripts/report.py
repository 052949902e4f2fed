"""Show a run or a blend: one HTML page that opens offline, and its figures as PNG.

    python scripts/report.py --run effnet_b1                  -> oof/effnet_b1/report.html
    python scripts/report.py --blend submissions/blend.json   -> submissions/blend_report.html
    python scripts/report.py --run effnet_b1 --recall 0.95    another operating point
    python scripts/report.py --run effnet_b1 --explain        and what the model looked at

The page holds photographs: their licence decides where it may be shown.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import at, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="the run: its folder below oof/")
    what.add_argument("--blend", type=Path, help="the blend.json that scripts/blend.py wrote")
    parser.add_argument(
        "--recall", type=float, default=0.9, help="share of melanomas, or malignant, to catch"
    )
    parser.add_argument("--explain", action="store_true",
                        help="also what a run looked at: takes its weights")  # fmt: skip
    args = parser.parse_args(arguments)

    from lesions.reporting.explanations import explanations_section, load_explained
    from lesions.reporting.report import build_report
    from lesions.reporting.results import load_blend, load_run

    if args.explain and not args.run:
        parser.error("--explain is of one run: give --run")
    if args.run:
        results = load_run(args.run, at("oof"), at("input/prepared"), at("submissions"))
        path = at("oof") / args.run / "report.html"
    else:
        results = load_blend(args.blend, at("oof"), at("input/prepared"))
        path = args.blend.with_name(f"{args.blend.stem}_report.html")
    further = [explanations_section(load_explained(args.run))[0]] if args.explain else []
    report = build_report(results, args.recall, further)
    report.write(path, path.with_suffix(""))
    print(f"{shown(path)}, and {len(report.figures)} figures in {shown(path.with_suffix(''))}")
    return 0


if __name__ == "__main__":
    run(main)
