"""Send code, weights or a kernel to Kaggle; --wait stays until its output is fetched.

    python scripts/kaggle_push.py check                    # does the loop work? 2 minutes, no GPU
    python scripts/kaggle_push.py kernel prepare isic --size 256 --wait
    python scripts/kaggle_push.py kernel train effnet_b1 --wait          # all folds, resumed
    python scripts/kaggle_push.py kernel predict effnet_b1 --wait
    python scripts/kaggle_push.py kernel blend effnet_b1 effnet_b3 --wait
    python scripts/kaggle_push.py code                     # also sent, if changed, with a kernel
    python scripts/kaggle_push.py weights effnet_b1        # first weights, folds, training state
    python scripts/kaggle_push.py notebooks                # write notebooks/*.ipynb, send nothing

--write FOLDER writes what would be sent, to look at or to upload by hand. Step by step:
docs/kaggle.md. Exit code 75: the week's GPU quota is used up, or two sessions are running: run the
same command again later, it resumes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("what", choices=["check", "code", "weights", "kernel", "notebooks"])
    parser.add_argument("names", nargs="*", help="runs; for a kernel first its kind")
    parser.add_argument("--fold", type=int, nargs="+", help="folds to train (default: all)")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="pixels to prepare")
    parser.add_argument("--max-hours", type=float, default=11.5, help="of a session (default 11.5)")
    parser.add_argument("--sharing", type=int, default=1, help="sessions that share the GPU quota")
    parser.add_argument("--attach", nargs="+", default=[], metavar="OWNER/NAME",
                        help="further data sets, such as one that holds originals")  # fmt: skip
    parser.add_argument("--wait", action="store_true", help="wait for the end, fetch the output")
    parser.add_argument("--every", type=float, default=60, help="seconds between status calls")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write it, send nothing")
    args = parser.parse_args(arguments)

    from lesions.errors import InputError
    from lesions.files import write_text
    from lesions.kaggle.follow import run_kernel
    from lesions.kaggle.kernels import build_kernel, build_notebooks, push_set, set_name, write_set
    from lesions.paths import CODE, shown

    if args.what == "notebooks":
        for name, text in build_notebooks().items():
            write_text((args.write or CODE / "notebooks") / name, text)
        return 0
    if args.what in ("code", "weights"):
        if (args.what == "code") == bool(args.names):
            wanted = "takes no names" if args.names else "name the runs"
            raise InputError(f"{args.what}: {wanted}")
        for name in args.names or [None]:
            if args.write:
                notes = write_set(args.write / set_name(name), name)
                print(f"written to {shown(args.write / set_name(name))}: {notes}")
            else:
                push_set(name)
        return 0
    kind, *names = [*args.names, ""] if args.what == "kernel" else ["check", *args.names, ""]
    kernel = build_kernel(kind, names[:-1], args.size, args.fold, args.max_hours)
    kernel.datasets += args.attach
    if args.write:
        kernel.write(args.write, "your-name", expected={})
        print(f"written to {shown(args.write)}")
        return 0
    every = args.every if args.wait or kind == "check" else None
    return run_kernel(kernel, every, args.sharing)


if __name__ == "__main__":
    run(main)
