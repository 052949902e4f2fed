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
docs/kaggle.md. Exit code 75: the session or the week's GPU quota ended before the run was done, or
two sessions are running: run the same command again later, it resumes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run

NEEDS = {"prepare": "one data set", "train": "one run", "predict": "one run",
         "blend": "two runs or more"}  # fmt: skip


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

    from lesions.config import find_config, run_name
    from lesions.kaggle.follow import run_kernel
    from lesions.kaggle.kernels import Kernel, push_kernel, push_set, set_name, write_set

    kind, names = _checked(args.what, args.names)
    if kind == "notebooks":
        return write_notebooks(args.write)
    if kind != "prepare":
        names = [run_name(find_config(name)) for name in names]
    if kind in ("code", "weights"):
        for run in names or [""]:
            if args.write:
                write_set(args.write / set_name(run), run)
            else:
                push_set(run)
        return 0
    kernel = Kernel(kind, names, args.max_hours, args.size, args.fold, args.attach)
    if args.write:
        kernel.write(args.write, "your-name", expected={})
    elif args.wait or kind == "check":
        run_kernel(kernel, args.every, args.sharing)
    else:
        push_kernel(kernel)
    return 0


def _checked(kind: str, names: list[str]) -> tuple[str, list[str]]:
    """What to send, a kernel by its kind, and the names; InputError if they do not fit."""
    from lesions.errors import InputError

    if kind == "kernel":
        kind, names = next(iter(names), ""), names[1:]
        if kind not in NEEDS:
            raise InputError(f"kernel: say which: {', '.join(NEEDS)}")
        if (len(names) < 2) if kind == "blend" else len(names) != 1:
            raise InputError(f"kernel {kind}: name {NEEDS[kind]}")
    elif (kind == "weights") != bool(names):
        raise InputError(f"{kind}: {'takes no names' if names else 'name the runs'}")
    return kind, names


def write_notebooks(folder: Path | None) -> int:
    """Write notebooks/*.ipynb: of notebooks/*.md, and what is sent to Kaggle for some runs."""
    import tomllib

    from lesions.files import write_text
    from lesions.kaggle.kernels import Kernel, build_notebook
    from lesions.paths import CODE

    folder, runs = folder or CODE / "notebooks", ["effnet_b1", "effnet_b3"]
    project = tomllib.loads((CODE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"].removeprefix("https://github.com/")
    for kernel in (Kernel("prepare", ["isic"]), Kernel("train", runs[:1]), Kernel("blend", runs)):
        write_text(folder / f"kaggle_{kernel.kind}.ipynb", kernel.notebook(expected={}))
    for page in sorted((CODE / "notebooks").glob("*.md")):
        write_text(folder / f"{page.stem}.ipynb", build_notebook(page, repository=repository))
    return 0


if __name__ == "__main__":
    run(main)
