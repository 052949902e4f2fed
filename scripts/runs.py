"""The leaderboard of trained runs, and what two of them differ by.

    python scripts/runs.py                        # every run, by data set and task, best first
    python scripts/runs.py effnet_b3 effnet_b1    # better, worse or not distinguishable
    python scripts/runs.py --html                 # the same as a page, with scores against cost

Scores are of out-of-fold rows, with 95 % intervals over groups. Two runs are compared on the rows
that both have: every resample of groups scores both.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("runs", type=existing, nargs="*", metavar="RUN",
                        help="these alone; two are compared")  # fmt: skip
    parser.add_argument("--html", action="store_true", help="write oof/runs.html, oof/runs/*.png")
    args = parser.parse_args(arguments)

    from lesions.errors import InputError
    from lesions.runs import find_run, find_runs

    named = [find_run(name, takes=("run",)) for name in args.runs] or find_runs()
    if not named:
        raise InputError("no run yet: make demo, or train one: python scripts/train.py --help")

    from tqdm import tqdm

    from lesions.evaluation.scores import LABELS
    from lesions.oof import load_oof
    from lesions.reporting import leaderboard

    oofs = [load_oof(each) for each in named]
    shown = tqdm(oofs, desc="scores", unit="run", disable=not sys.stderr.isatty(), leave=False)
    boards = leaderboard.rank_runs(shown)
    for title, board in boards.items():
        print(f"{title}\n{leaderboard.as_text(board)}\n")
    if len(oofs) == 2:
        ranks = [name for board in boards.values() for name in board.index]
        first, second = sorted(oofs, key=lambda oof: ranks.index(oof.name))
        print(f"{first.name} less {second.name}, on the images that both have")
        for name, found in leaderboard.compare_scores(first, second).items():
            verdict = "worse" if found.high < 0 else "not distinguishable"
            verdict = "better" if found.low > 0 else verdict
            print(f"  {LABELS[name]:20} {found}: {verdict}")
    if args.html:
        print(leaderboard.write_page(boards))


if __name__ == "__main__":
    run(main)
