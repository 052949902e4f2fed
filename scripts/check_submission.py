"""Check a submission before it is sent: header, ids and their order, values, inversion.

Exits with 2 and the list of what is wrong. Earlier submissions show one that is upside down.

    python scripts/check_submission.py submissions/blend.csv --sample input/sample_submission.csv
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("file", type=Path, help="the submission: image_name,target")
    parser.add_argument("--sample", type=Path, required=True, help="sample_submission.csv")
    parser.add_argument(
        "--earlier", type=Path, nargs="+", default=[], help="earlier submissions to compare with"
    )
    args = parser.parse_args(arguments)

    from lesions.blending.submission import check_submission

    print(check_submission(args.file, args.sample, args.earlier))
    return 0


if __name__ == "__main__":
    run(main)
