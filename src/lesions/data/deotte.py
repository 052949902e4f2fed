"""Chris Deotte's resized JPEG sets of ISIC 2019 and 2020, and what their tables add."""

from pathlib import Path

import pandas as pd

from lesions.data.columns import Report, common_rows, no_rows, read_columns
from lesions.errors import listed

PEOPLE_2020 = {
    "image_name": "image_name", "patient_id": "patient_id", "sex": "sex",
    "age_approx": "age_approx", "site": "anatom_site_general_challenge",
}  # fmt: skip

# As the sets unpack side by side, or with the CSVs alone.
DEOTTE_TABLES = {
    "isic2019": ["jpeg-isic2019-*/train.csv", "jpeg-isic2019_train.csv"],
    "isic2020": ["jpeg-melanoma-*/train.csv", "jpeg-melanoma_train.csv"],
    "isic2020 test": ["jpeg-melanoma-*/test.csv", "jpeg-melanoma_test.csv"],
}


def read_deotte(folder: Path, report: Report) -> pd.DataFrame:
    """Chris Deotte's resized JPEG sets of 2019 and 2020, with `tfrecord` and original sizes.

    Rows are of the sources isic2019 and isic2020. 2019 has no lesion ids here: photographs of one
    lesion stay together only if near-duplicates are looked for, or the official CSVs are read.
    """
    parts = []
    for source, names in DEOTTE_TABLES.items():
        path = next((path for name in names for path in sorted(folder.glob(name))), None)
        if path is None:
            continue
        split = "test" if source.endswith("test") else "train"
        sizes = {"width": "width", "height": "height"}
        labels = {"diagnosis": "diagnosis", "target": "target", "tfrecord": "tfrecord"}
        rows = read_columns(
            report, path, PEOPLE_2020 | sizes | (labels if split == "train" else {})
        )
        if rows is None:
            continue
        rows["patient_id"] = rows["patient_id"].mask(rows["patient_id"] == "-1", "")
        if split == "train":
            rows["diagnosis"] = told_by_target(report, path, rows)
        parts.append(rows.assign(split=split, source=source.removesuffix(" test")))
    if not parts:
        if not report.problems:
            report.problem(folder, "none of Deotte's CSVs in it: see input/README.md")
        return no_rows("deotte")
    return common_rows(pd.concat(parts, ignore_index=True), "deotte")


def add_deotte(table: pd.DataFrame, folder: Path, report: Report) -> pd.DataFrame:
    """The table with `width`, `height` and `tfrecord` of the images that Deotte's CSVs know."""
    known = read_deotte(folder, report).drop_duplicates("image_name").set_index("image_name")
    names = table["image_name"]
    if not names.isin(known.index).any():
        report.problem(folder, f"none of the images is in its CSVs, such as {listed(names[:3])}")
    columns = {c: names.map(known[c]).fillna(table[c]) for c in ("width", "height", "tfrecord")}
    return table.assign(**columns)


def told_by_target(report: Report, path: Path, rows: pd.DataFrame) -> pd.Series:
    """2020 names a diagnosis where one was made: a target of 0 is benign even without."""
    melanoma = rows["diagnosis"] == "mel"
    named = melanoma | (rows["target"] == 1)
    wrong = (named & (melanoma != (rows["target"] == 1)) & rows["target"].notna()).to_numpy()
    report.rows(path, rows["image_name"], wrong, "target and diagnosis contradict each other")
    return rows["diagnosis"].mask((rows["diagnosis"] == "") & (rows["target"] == 0), "benign")
