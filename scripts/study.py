"""Architectures, one change at a time of the best, two thresholds, one test: a study to its end.

    python scripts/study.py configs/dermamnist/study.yaml --quick
    python scripts/study.py configs/dermamnist/study.yaml --form evening
    python scripts/study.py configs/dermamnist/study.yaml

Each run is an ordinary one below oof/; a study that was stopped goes on with the next unfinished
run, a finished one is only read. Two GPUs, or two cores: start the same command twice (each with
CUDA_VISIBLE_DEVICES or OMP_NUM_THREADS=1), and they share the runs.

Writes report.html and study.json beside the runs; the results that docs/ shows go to --out. The
test set is opened once, and seal.json says when.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    begun = time.monotonic()
    parser = build_parser(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--form", default="full", help="one of the config's forms (default: full)")
    parser.add_argument("--quick", action="store_true", help="the form quick: minutes, no test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change every run, such as train.precision=auto")  # fmt: skip
    parser.add_argument("--max-hours", type=float, metavar="H", help="stop in time, exit with 75")
    parser.add_argument("--out", type=Path, metavar="JSON", help="also write the results here")
    args = parser.parse_args(arguments)

    from lesions.files import write_json, write_text
    from lesions.paths import at, shown
    from lesions.reporting.study_page import build_study_page, with_machine
    from lesions.study.config import Study
    from lesions.study.study import run_study
    from lesions.training.stop import Stopped, StopRequest

    study = Study(args.config, "quick" if args.quick else args.form, args.set)
    stop = StopRequest(args.max_hours, begun)
    try:
        with stop.listening():
            results, rows = run_study(study, stop)
    except Stopped as stopped:
        print("stopped: the same command goes on from here")
        return stopped.code
    results = with_machine(results)
    folder = at("oof") / study.folder
    for path in filter(None, (folder / "study.json", args.out)):
        write_json(path, results)
    write_text(folder / "report.html", build_study_page(results, rows))
    print(f"{shown(folder / 'report.html')} written; {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    run(main)
