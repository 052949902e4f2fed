"""Send code, weights or a kernel to Kaggle; --wait stays until its output is fetched.

    python scripts/kaggle_push.py code                     # after every change of src/ or configs/
    python scripts/kaggle_push.py weights effnet_b1        # first weights, and folds trained so far
    python scripts/kaggle_push.py kernel prepare isic --size 256 --wait
    python scripts/kaggle_push.py kernel train-fold effnet_b1 --fold 0 --wait
    python scripts/kaggle_push.py kernel predict effnet_b1 --wait
    python scripts/kaggle_push.py kernel blend effnet_b1 effnet_b3 --wait

--write FOLDER writes what would be sent, for Colab or to look at. The whole way: docs/kaggle.md.
Exit code 75: the week's GPU quota is used up; the same command goes on when it is renewed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("what", choices=["code", "weights", "kernel"])
    parser.add_argument("names", nargs="*", help="runs; of a kernel first its kind")
    parser.add_argument("--fold", type=int, default=0, help="to train (default 0)")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="pixels to prepare")
    parser.add_argument("--max-hours", type=float, default=11.5, help="of a session (default 11.5)")
    parser.add_argument("--attach", nargs="+", default=[], metavar="OWNER/NAME",
                        help="further data sets, such as one that holds originals")  # fmt: skip
    parser.add_argument("--wait", action="store_true", help="wait for the end, fetch the output")
    parser.add_argument("--every", type=float, default=60, help="seconds between two looks at it")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write it, send nothing")
    args = parser.parse_args(arguments)

    from lesions.kaggle.orders import KernelOrder, send_sets

    if args.what != "kernel":
        send_sets(args.what, args.names, args.write)
        return 0
    order = KernelOrder(args.names, args.fold, args.size, args.max_hours, args.attach)
    if args.write:
        order.write(args.write)
        return 0
    return order.send(args.every if args.wait else None)


if __name__ == "__main__":
    run(main)
