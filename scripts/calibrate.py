"""Fit a run's calibration.json: true probabilities, a threshold, and what is a usual photograph.

    python scripts/calibrate.py --run effnet_b1
    python scripts/calibrate.py --run effnet_b1 --rule youden      # default: 90 % recall
    python scripts/calibrate.py --run effnet_b1 --prevalence 0.02  # of the people to be examined
    python scripts/calibrate.py --run submissions/blend.json       # of a blend, beside it

Training does this when a run's last fold is done; this is for another rule, for runs of older
versions, and for blends. Temperature and threshold come from the out-of-fold predictions, what is
usual from the training photographs' features. Reports, predict.py, serve.py and export.py use it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument(
        "--run", type=existing, required=True, help="such as effnet_b1, or blend.json"
    )
    parser.add_argument("--rule", choices=["recall", "youden", "f1", "cost"], default="recall",
                        help="of the threshold (default recall: at least 90 %%)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=1000, metavar="N",
                        help="held-out photographs of each fold (default 1000)")  # fmt: skip
    parser.add_argument("--prevalence", type=float, metavar="P",
                        help="share of positives that the probabilities are for"
                        " (default: that of the out-of-fold rows)")  # fmt: skip
    args = parser.parse_args(arguments)

    from lesions.inference.calibrate import calibrate_run
    from lesions.paths import shown

    path, found, problem = calibrate_run(args.run, args.rule, args.rows, args.prevalence)
    (before, after), loss = found.calibration_error, found.log_loss
    print(f"{shown(path)}: {found.rows:,} out-of-fold rows, {found.positives:,} positive")
    print(f"calibration error {before:.4f} -> {after:.4f}, log loss {loss[0]:.4f} -> {loss[1]:.4f}")
    for given, fit in {"": found, **found.given}.items():
        cut = fit.threshold
        print(f"with {given} given: " if given else "", end="")
        print(f"threshold {cut.value:.4f} ({cut.rule}): sensitivity {cut.sensitivity:.3f},"
              f" specificity {cut.specificity:.3f}")  # fmt: skip
    what = {"fold": "folds", "group": "groups of rows (one fold alone, or a blend)"}
    print(f"each row of these figures is judged by a fit on the other {what[found.cross_fitted]}")
    if found.prevalence:
        print(f"probabilities are for {found.prevalence:.1%} positives; the figures above are for"
              f" the {found.positives / found.rows:.1%} of the rows")  # fmt: skip
    if found.false_alarms:
        alarms = found.false_alarms
        print(f"called unusual: {alarms.any:.1%} of {alarms.rows:,} held-out photographs")
    if problem:
        print(f"incomplete: {problem}")
    return 0


if __name__ == "__main__":
    run(main)
