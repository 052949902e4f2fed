"""Check a submission, send it to Kaggle, wait for its score and record it beside its CV estimate.

The same bytes are not sent twice: run again after a lost connection or Ctrl-C, the command waits
for the score. Writes submissions/scores.csv and scores.png. Exits with 2, and everything that is
wrong, for a file that must not be sent, could not be sent, or could not be scored. --dry-run only
checks: header, images and their order, values, and whether it is inverted against earlier ones.

    python scripts/submit.py submissions/blend.csv -m "b1 b3 b4 resnest50, 5 folds"
    python scripts/submit.py submissions/effnet_b1.csv --dry-run
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("file", type=Path, help="the submission: image_name,target (or isic_id)")
    parser.add_argument("-m", "--message", help="what it is, for you to find again")
    parser.add_argument("--sample", type=Path, help="default: input/isic2020/sample_submission.csv")
    parser.add_argument("--earlier", type=Path, nargs="+", default=[], help="files to compare with")
    parser.add_argument("--minutes", type=float, default=20, help="to wait for the score (20)")
    parser.add_argument("--again", action="store_true", help="send bytes that were sent before")
    parser.add_argument("--dry-run", action="store_true", help="check only, ask no server")
    args = parser.parse_args(arguments)

    from lesions.errors import InputError
    from lesions.paths import at, shown

    if not args.file.exists():
        raise InputError(f"{shown(args.file)}: no such file")
    sample = args.sample or at("input/isic2020/sample_submission.csv")
    if not sample.exists():
        raise InputError(
            f"{shown(sample)}: no such file; it lists the images to be predicted: run"
            " python scripts/download.py isic2020 --tables-only, or give --sample"
        )

    from lesions.blending.submission import check_submission, cv_estimate, load_scores
    from lesions.evaluation.intervals import format_interval
    from lesions.kaggle.submit import submit

    sent = [at(file) for file in load_scores()["file"].unique()]
    known = [file for file in sent if file.exists() and file != args.file.resolve()]
    print(check_submission(args.file, sample, [*known, *args.earlier]))
    cv, origin = cv_estimate(args.file)
    print(f"CV {format_interval(cv, digits=4)} {origin}")
    if args.dry_run:
        print("dry run: nothing was sent")
        return 0
    if not args.message:
        raise InputError('give -m "what it is", or --dry-run')
    found = submit(args.file, args.message, (cv, origin), args.minutes, args.again)
    draw_scores(at("submissions/scores.png"))
    print(f"public {found.public_score or 'n/a'}, private {found.private_score or 'n/a'}")
    print(f"wrote scores.csv and scores.png in {shown(at('submissions'))}")
    return 0


def draw_scores(path: Path) -> None:
    """Draw CV with its interval against the leaderboard, of the submissions that have both."""
    from lesions.blending.submission import load_scores
    from lesions.reporting import style

    known = load_scores().dropna(subset=["cv", "public"])
    with style.drawing():
        figure, ((axes,),) = style.build_figure()
        spread = [known["cv"] - known["cv_low"], known["cv_high"] - known["cv"]]
        axes.errorbar(known["cv"], known["public"], xerr=spread, fmt="o", label="public")
        axes.plot(known["cv"], known["private"], "o", label="private")
        axes.set(xlabel="AUC in cross-validation, 95 % interval", ylabel="AUC on the leaderboard")
        style.legend_above(axes)
        style.write_png(figure, path)


if __name__ == "__main__":
    run(main)
