"""Make a run's calibration.json: true probabilities, a threshold, and what a usual photograph is.

    python scripts/calibrate.py --run effnet_b1
    python scripts/calibrate.py --run effnet_b1 --rule youden      # default: 90 % recall
    python scripts/calibrate.py --run submissions/blend.json       # of a blend, beside it

Temperature and threshold come from the out-of-fold predictions, in seconds; what is usual from the
training photographs' features, at about 100 photographs a second and core. Everything
that predicts single photographs (predict.py --images, serve.py) reads the file; the folder
oof/<run>/ is then all that has to be given away.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", required=True, help="a folder below oof/, or a blend.json")
    parser.add_argument("--rule", choices=["recall", "youden", "f1", "cost"], default="recall",
                        help="of the threshold (default recall: at least 90 %%)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=500, metavar="N",
                        help="photographs of each fold, seen and unseen (default 500)")  # fmt: skip
    args = parser.parse_args(arguments)

    from lesions.files import write_json
    from lesions.inference.calibrate import calibrate_blend, calibrate_run
    from lesions.inference.calibration_file import NAME
    from lesions.paths import at, shown

    path, problem = Path(args.run), None
    if path.suffix == ".json":
        found, target = calibrate_blend(path, args.rule), path.with_name(f"{path.stem}_{NAME}")
    else:
        folder = path if path.is_dir() else at("oof") / args.run
        found, problem = calibrate_run(folder, args.rule, args.rows)
        target = folder / NAME
    write_json(target, found.model_dump())
    cut, (before, after), loss = found.threshold, found.calibration_error, found.log_loss
    print(f"{shown(target)}: {found.rows:,} out-of-fold rows, {found.positives:,} positive")
    print(f"calibration error {before:.4f} -> {after:.4f}, log loss {loss[0]:.4f} -> {loss[1]:.4f}")
    print(f"threshold {cut.value:.4f} ({cut.rule}): on folds that did not choose it sensitivity"
          f" {cut.sensitivity:.3f}, specificity {cut.specificity:.3f}")  # fmt: skip
    if found.false_alarms:
        alarms = found.false_alarms
        print(f"called unusual: {alarms.any:.1%} of {alarms.rows:,} held-out photographs")
    if problem:
        print(f"no warnings of unusual photographs: {problem}")
    return 0


if __name__ == "__main__":
    run(main)
