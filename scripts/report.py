"""Show a run or a blend: one HTML page that opens offline, and its figures as PNG.

python scripts/report.py --run effnet_b1                  -> oof/effnet_b1/report.html
python scripts/report.py --run effnet_b1 --recall 0.95    another operating point
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import OOF, PREPARED, SUBMISSIONS, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", required=True, help="the run: its folder below oof/")
    parser.add_argument("--recall", type=float, default=0.9, help="melanomas to catch, 0 to 1")
    args = parser.parse_args(arguments)

    from lesions.reporting.report import build_report
    from lesions.reporting.results import load_run

    results = load_run(args.run, OOF, PREPARED, SUBMISSIONS)
    folder = OOF / args.run
    report = build_report(results, args.recall)
    report.write(folder / "report.html", folder / "report")
    print(f"{shown(folder / 'report.html')}, {len(report.figures)} figures in report/")
    return 0


if __name__ == "__main__":
    run(main)
