"""Official files -> one table with groups and folds, and the image cache.

    python scripts/prepare.py --dataset isic                    # needs input/isic2019, input/isic2020
    python scripts/prepare.py --dataset isic --tables-only      # the CSVs alone, no photographs
    python scripts/prepare.py --dataset isic --available-only   # go on with the photographs there are
    python scripts/prepare.py --dataset real --available-only --size 112 \\
        --images isic2019=/data/ham/part_1 --images isic2019=/data/ham/part_2

Writes input/prepared/<dataset>/table.csv, table.json and <size>/. Safe to repeat: what is done is
not done again, and an interrupted build goes on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, pairs, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a name from configs/datasets")
    parser.add_argument("--size", type=int, nargs="+", default=[256], help="pixels (default 256)")
    parser.add_argument("--input", action="append", default=[], metavar="SOURCE=FOLDER",
                        help="where a source's CSVs lie")  # fmt: skip
    parser.add_argument("--images", action="append", default=[], metavar="SOURCE=FOLDER",
                        help="an image folder of a source; may be given several times")  # fmt: skip
    parser.add_argument("--tables-only", action="store_true", help="no photographs, no cache")
    parser.add_argument("--available-only", action="store_true",
                        help="leave out the rows whose photograph is missing")  # fmt: skip
    parser.add_argument("--quarantine", action="store_true",
                        help="leave unreadable training images out of training and list them")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change the data set's config, such as folds=3")  # fmt: skip
    args = parser.parse_args(arguments)

    from lesions.data.prepare import prepare

    facts = prepare(
        args.dataset,
        changes=args.set,
        folders=pairs("--input", args.input),
        images=pairs("--images", args.images),
        sizes=[] if args.tables_only else args.size,
        available_only=args.available_only,
        quarantine=args.quarantine,
    )
    print(
        f"{args.dataset}: {facts['rows']:,} images, {facts['positives']:,} melanomas among the"
        f" {facts['splits']['train']:,} to train on, {facts['groups']:,} groups;"
        f" table {facts['table_hash']}, folds {facts['fold_hash']}"
    )
    print(f"next: python scripts/audit.py --dataset {args.dataset}")
    return 0


if __name__ == "__main__":
    run(main)
