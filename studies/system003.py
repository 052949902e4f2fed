"""Count what the folds of system 003 put on both sides, beside the folds of this repository.

for name in isic2020_system003 isic_system003 isic; do
    python scripts/prepare.py --dataset $name --tables-only
done
python studies/system003.py --out docs/results/system003.json
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.data.table import load_table
from lesions.provenance import Results

DATASETS = ("isic2020_system003", "isic_system003", "isic")


def leaks(dataset: str) -> dict[str, Any]:
    """Rows, melanomas, and those whose patient, lesion or photograph is in another fold, too."""
    table, facts = load_table(dataset)
    rows = table[(table["split"] == "train") & table["target"].notna()]
    torn = rows.groupby("group")["fold"].transform("nunique") > 1
    positive = rows["target"] == 1
    return {
        "dataset": dataset,
        "folds": int(rows["fold"].nunique()),
        "rows": len(rows),
        "exposed": int(torn.sum()),
        "positives": int(positive.sum()),
        "positives_exposed": int((torn & positive).sum()),
        "groups": int(rows["group"].nunique()),
        "straddling": int(rows.loc[torn, "group"].nunique()),
        "table_hash": facts["table_hash"],
        "fold_hash": facts["fold_hash"],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    _, results = Results.parse(parser, "system003.json", arguments)
    found = [leaks(dataset) for dataset in DATASETS]
    for one in found:
        print(f"{one['dataset']}: {one['exposed']:,} of {one['rows']:,} images and"
              f" {one['positives_exposed']:,} of {one['positives']:,} melanomas exposed;"
              f" {one['straddling']:,} of {one['groups']:,} groups in several folds")  # fmt: skip
    results.write({"datasets": found})


if __name__ == "__main__":
    run(main)
