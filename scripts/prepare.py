"""Official files -> one table with groups and folds, and the image cache.

    python scripts/prepare.py --dataset isic                   # needs input/isic2019, isic2020
    python scripts/prepare.py --dataset isic --tables-only     # the CSVs alone, no photographs
    python scripts/prepare.py --dataset isic --available-only  # the photographs there are
    python scripts/prepare.py --dataset real --available-only --size 112 \\
        --images isic2019=/data/ham/part_1 --images isic2019=/data/ham/part_2.zip
    python scripts/prepare.py --dataset isic --set preprocess.fit=crop --set preprocess.hair=true
    python scripts/prepare.py --dataset isic --report          # and a page: report.html
    python scripts/prepare.py --dataset isic --review input/prepared/isic/near_duplicates.csv

preprocess also has circle, shades_of_gray and clahe: see lesions/data/preprocess.py. Writes
input/prepared/<dataset>/table.csv, table.json and <size>/, the image cache. A second run decodes
only new and changed photographs.
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
                        help="the folder of a source's CSVs")  # fmt: skip
    parser.add_argument("--images", action="append", default=[], metavar="SOURCE=PLACE",
                        help="an image folder or zip of it; may be repeated")  # fmt: skip
    parser.add_argument("--tables-only", action="store_true", help="no photographs, no cache")
    parser.add_argument("--available-only", action="store_true", help="skip rows without an image")
    parser.add_argument("--quarantine", action="store_true", help="leave unreadable images out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change the data set's config, such as folds=3")  # fmt: skip
    parser.add_argument("--review", type=Path, metavar="CSV",
                        help="near_duplicates.csv with your decisions added")  # fmt: skip
    parser.add_argument("--report", action="store_true", help="write a page on the data as well")
    args = parser.parse_args(arguments)

    from lesions.config import load_dataset_config

    config = load_dataset_config(args.dataset, args.set)  # what follows imports for seconds

    from lesions.data.folds import fold_warnings
    from lesions.data.prepare import prepare
    from lesions.data.table import load_table

    facts = prepare(
        args.dataset,
        config,
        folders=pairs("--input", args.input),
        images=pairs("--images", args.images),
        sizes=[] if args.tables_only else args.size,
        available_only=args.available_only,
        quarantine=args.quarantine,
        review=args.review,
    )
    for warning in fold_warnings(load_table(args.dataset)[0]):
        print(f"WARNING: {warning}")
    print(
        f"{args.dataset}: {facts['rows']:,} images in {facts['groups']:,} groups;"
        f" {facts['splits']['train']:,} to train on, {facts['positives']:,} of them"
        f" {facts['config']['task']}; table {facts['table_hash']}, folds {facts['fold_hash']}\n"
        f"next: python scripts/audit.py --dataset {args.dataset}"
    )
    if args.report:
        from lesions.paths import shown
        from lesions.reporting.data_page import write_data_report

        print(shown(write_data_report(args.dataset)))
    return 0


if __name__ == "__main__":
    run(main)
