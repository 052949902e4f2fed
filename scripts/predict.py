"""Predict a run's test rows, or photographs of your own.

    python scripts/predict.py --run effnet_b1
    python scripts/predict.py --run effnet_b1 --images photo.jpg folder/ --age 55 --site torso

Without --images: every trained fold, every view, one mean by image; writes submissions/<run>.csv
with image_name and target, the probability, in the table's order.
With --images: prints a table and writes --out; --run may then be any folder of fold<k>.safetensors,
one such file, or a blend.json, and nothing else is needed. A photograph that cannot be read is
named, the others are answered, and the exit code is 2.
"""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", required=True, help="a folder below oof/")
    parser.add_argument("--folds", type=int, nargs="+", help="such as 0 1 (default: all)")
    parser.add_argument("--set", action="append", default=[], help="such as predict.views=8")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="photographs, or folders")
    parser.add_argument("--age", type=float, help="of the person, in years")
    parser.add_argument("--sex", help="female or male")
    parser.add_argument("--site", help="such as torso, 'lower extremity', head/neck")
    parser.add_argument(
        "--out", type=Path, help=".csv or .json; default submissions/<run>_images.csv"
    )
    args = parser.parse_args(arguments)
    if not args.images:
        return predict_rows(args)

    from lesions.inference.answers import predict_photographs

    patient = {"age": args.age, "sex": args.sex, "site": args.site}
    return predict_photographs(args.run, args.folds, args.images, patient, args.out)


def predict_rows(args: Namespace) -> int:
    from lesions.config import load_config
    from lesions.files import write_csv
    from lesions.inference.accelerator import build_accelerator
    from lesions.inference.submit import predict_test
    from lesions.paths import at, shown

    config = load_config(at("oof") / args.run / "config.yaml", args.set)
    accelerator = build_accelerator(config.train.precision)
    submission = predict_test(args.run, config, accelerator, args.folds)
    path = at("submissions") / f"{args.run}.csv"
    if accelerator.is_main_process:
        write_csv(path, submission)
        mean = f", mean {submission['target'].mean():.4f}" if "target" in submission else ""
        print(f"{shown(path)}: {len(submission):,} images{mean}")
    return 0


if __name__ == "__main__":
    run(main)
