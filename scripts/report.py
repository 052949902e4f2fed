"""Report on a run or a blend: one HTML page that opens offline, and its figures as PNG.

    python scripts/report.py --run effnet_b1                  -> oof/effnet_b1/report.html
    python scripts/report.py --run submissions/blend.json     -> submissions/blend_report.html
    python scripts/report.py --run effnet_b1 --recall 0.95    another operating point
    python scripts/report.py --run effnet_b1 --no-explain     without Grad-CAM of the errors

Beside the page: report.md, the same in short; checklist.md, where the run answers the items of
TRIPOD+AI and CLAIM 2024; and of a calibrated run its model card, card.md. The page holds
photographs: their licence decides where it may be shown.
"""

import sys
from argparse import BooleanOptionalAction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", type=existing, required=True, help="a run, folder or blend.json")
    parser.add_argument("--recall", type=float, metavar="R",
                        help="use the highest threshold with at least this recall of the positives"
                        " (default: the run's own, from calibration.json)")  # fmt: skip
    parser.add_argument("--explain", action=BooleanOptionalAction,
                        help="Grad-CAM of the errors (default: if there are weights)")  # fmt: skip
    args = parser.parse_args(arguments)

    from lesions.errors import InputError
    from lesions.paths import shown
    from lesions.reporting.report import write_report
    from lesions.runs import find_run

    found = find_run(args.run, takes=("run", "blend"))
    weights = not found.blend and found.numbers(".safetensors")
    if args.explain and found.blend:
        parser.error("--explain takes a run: a blend has no weights of its own")
    explained = None
    if args.explain or (args.explain is None and weights):
        from lesions.inference.explain import load_explained
        from lesions.reporting.explanations import explained_galleries

        try:
            explained = explained_galleries(load_explained(args.run))[0]
        except InputError as error:
            if args.explain:
                raise
            print(f"no Grad-CAM: {error}")
    path, number = write_report(found, args.recall, explained)
    print(f"{shown(path)}, and {number} figures in {shown(path.with_suffix(''))}")
    return 0


if __name__ == "__main__":
    run(main)
