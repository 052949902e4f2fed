"""Predict a run's test rows: every trained fold, every view, one mean by image.

    python scripts/predict.py --run effnet_b1
    python scripts/predict.py --run effnet_b1 --folds 0 1 --set predict.views=8

Writes submissions/<run>.csv with image_name and target, the probability, in the table's order.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", required=True, help="a folder below oof/")
    parser.add_argument("--folds", type=int, nargs="+", help="only these (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change predict.views or predict.batch_size")  # fmt: skip
    args = parser.parse_args(arguments)

    from lesions.config import load_config
    from lesions.files import write_csv
    from lesions.inference.launch import build_accelerator
    from lesions.inference.submit import predict_test
    from lesions.paths import OOF, SUBMISSIONS, shown

    config = load_config(OOF / args.run / "config.yaml", args.set)
    accelerator = build_accelerator(config.train.precision)
    submission = predict_test(args.run, config, accelerator, args.folds)
    path = SUBMISSIONS / f"{args.run}.csv"
    if accelerator.is_main_process:
        write_csv(path, submission)
        print(f"{shown(path)}: {len(submission):,} images, mean {submission['target'].mean():.4f}")
    return 0


if __name__ == "__main__":
    run(main)
