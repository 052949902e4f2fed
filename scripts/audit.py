"""The gate before training: do the folds keep apart what they must, and what scores without pixels.

    python scripts/audit.py --dataset isic
    python scripts/audit.py --dataset isic --legacy input/deotte   # beside the winner's folds

Prints the links (patients, lesions, photographs, duplicates) that lie in two folds, how alike the
folds are, and the AUC of models without pixels; writes input/prepared/<dataset>/audit.json and
audit.html. Exit code 1 if the folds must not be trained on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--dataset", required=True, help="a name from configs/datasets")
    parser.add_argument("--legacy", type=Path, metavar="FOLDER", help="Deotte's folds and sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page here as well")
    args = parser.parse_args(arguments)

    from lesions.data.table import load_table, prepared

    table, facts = load_table(args.dataset)

    from importlib.metadata import version

    import pandas as pd

    from lesions import files
    from lesions.data.columns import Report
    from lesions.data.folds import fold_warnings
    from lesions.data.sources import add_deotte, read_duplicates
    from lesions.evaluation.audit import audit
    from lesions.paths import at, shown
    from lesions.reporting.audit_page import audit_page, audit_text

    report, legacy = Report(strict=True), None
    if args.legacy:
        table = add_deotte(table, args.legacy, report)
        legacy = table["tfrecord"].where(table["tfrecord"] >= 0) % 5
    folders = [at() / source["folder"] for source in facts["config"]["sources"].values()]
    for folder in (folder for folder in folders if not folder.is_dir()):
        print(f"{shown(folder)} is not here: duplicates listed there are checked as groups only")
    pairs = pd.concat([read_duplicates(folder, report) for folder in folders], ignore_index=True)
    found = {name: facts[name] for name in ("dataset", "table_hash", "fold_hash")}
    found |= {"task": facts["config"].get("task", "melanoma"), **audit(table, pairs, legacy)}
    found["versions"] = {name: version(name) for name in ("numpy", "pandas", "scikit-learn")}
    for path in filter(None, [prepared(args.dataset) / "audit.json", args.json]):
        files.write_json(path, found)
    for path in filter(None, [prepared(args.dataset) / "audit.html", args.html]):
        files.write_text(path, audit_page(found))
    for warning in fold_warnings(table):
        print(f"WARNING: {warning}")
    print(audit_text(found))
    return 0 if found["gate"]["passed"] else 1


if __name__ == "__main__":
    run(main)
