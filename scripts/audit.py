"""The gate before training: do the folds keep apart what they must, and what scores without pixels.

    python scripts/audit.py --dataset isic
    python scripts/audit.py --folds anybodys.csv --table metadata.csv --fold-column split
    python scripts/audit.py --folds train.csv val.csv test.csv --table metadata.csv --images photos/
    python scripts/audit.py --folds jpeg-isic2019_train.csv --fold-column tfrecord%5 \\
        --table input/isic2019/ISIC_2019_Training_Metadata.csv   # the folds of most of 2020

Prints the links (patients, lesions, photographs, duplicates) that lie in two folds, how alike the
folds are, and the AUC of models without pixels; writes input/prepared/<dataset>/audit.json and
audit.html. With --folds instead, anybody's folds or split: the images of each part whose patient,
lesion, photograph, listed duplicate or (--images) near-duplicate a model has seen in training. Exit
code 1 if the folds must not be trained on.
"""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions import files
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dataset", help="a name from configs/datasets")
    which.add_argument(
        "--folds", type=Path, nargs="+", metavar="CSV", help="folds, or a file a part"
    )
    parser.add_argument("--table", type=Path, nargs="+", default=[], metavar="CSV",
                        help="where ids and targets of --folds are looked up")  # fmt: skip
    parser.add_argument("--image-column", metavar="NAME", help="of --folds, else the usual names")
    parser.add_argument("--fold-column", metavar="NAME", help="of --folds; NAME%%5 is modulo 5")
    parser.add_argument("--duplicates", type=Path, metavar="CSV",
                        help="pairs of --folds: image_name_1, image_name_2")  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="FOLDER", nargs="+", default=[],
                        help="photographs of --folds, searched for near-duplicates")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page here as well")
    args = parser.parse_args(arguments)
    if args.folds:
        return audit_split(args)

    from lesions.data.table import load_table, prepared

    table, facts = load_table(args.dataset)

    from importlib.metadata import version

    import pandas as pd

    from lesions.data.columns import Report
    from lesions.data.folds import fold_warnings
    from lesions.data.sources import read_duplicates
    from lesions.evaluation.audit import audit
    from lesions.paths import at, shown
    from lesions.reporting.data_page import audit_pages

    folders = [at() / source["folder"] for source in facts["config"]["sources"].values()]
    for folder in (folder for folder in folders if not folder.is_dir()):
        print(f"{shown(folder)} is not here: duplicates listed there are checked as groups only")
    pairs = [read_duplicates(folder, Report(strict=True)) for folder in folders]
    found = {name: facts[name] for name in ("dataset", "table_hash", "fold_hash")}
    found |= {"task": facts["config"].get("task", "melanoma"), **audit(table, pd.concat(pairs))}
    found["versions"] = {name: version(name) for name in ("numpy", "pandas", "scikit-learn")}
    for path in filter(None, [prepared(args.dataset) / "audit.json", args.json]):
        files.write_json(path, found)
    text, page = audit_pages(found)
    for path in filter(None, [prepared(args.dataset) / "audit.html", args.html]):
        files.write_text(path, page)
    for warning in fold_warnings(table):
        print(f"WARNING: {warning}")
    print(text)
    return 0 if found["gate"]["passed"] else 1


def audit_split(args: Namespace) -> int:
    """Print and write what straddles the folds of --folds; 1 if anything does."""
    import pandas as pd

    from lesions.data.splits import read_split
    from lesions.evaluation.links import build_links, exposures

    table = read_split(args.folds, args.table, args.image_column, args.fold_column)
    ends = ["image_name_1", "image_name_2"]
    pairs = pd.DataFrame(columns=ends, dtype=str)
    if args.duplicates:
        pairs = files.read_csv(args.duplicates, ends, text=None)[ends]
    links = build_links(table, pairs)
    if args.images:
        from lesions.data.near_duplicates import search_folders

        alike = build_links(table, search_folders(args.images, table["image_name"]))
        alike = alike[alike["kind"] == "duplicate pair"].assign(kind="near-duplicate")
        links = pd.concat([links, alike], ignore_index=True)
    found = exposures(table, links, table["part"]).to_dict("records")
    rows = table["part"].value_counts().sort_index().to_dict()
    leaks = any(row["exposed"] for row in found)
    if args.json:
        files.write_json(args.json, {"rows": rows, "exposed": found, "passed": not leaks})
    print(", ".join(f"{part or 'left out'} {images:,}" for part, images in rows.items()), "images")
    for row in found:
        print(
            f"{row['part']} seen in {row['seen']}, by {row['kind']}: {row['exposed']:,} of"
            f" {row['images']:,} images ({row['links']:,} {row['kind']}s),"
            f" {row['positives_exposed']:,} of {row['positives']:,} positives"
        )
    known = ", ".join(dict.fromkeys(links["kind"].unique()))
    print(f"audit {'FAILED: scored on what was trained on' if leaks else 'passed'}; known: {known}")
    return int(leaks)


if __name__ == "__main__":
    run(main)
