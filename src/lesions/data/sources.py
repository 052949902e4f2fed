"""Each source's official files -> rows of one common shape.

A reader takes the source's config and the folder of its files as published, and returns a table
with the columns COMMON (data/columns.py), in file order. What is wrong goes into the report.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lesions.config import SourceConfig
from lesions.data.columns import SITES as SITES
from lesions.data.columns import Report, common_rows, joined, no_rows, one_hot, read_columns
from lesions.data.deotte import PEOPLE_2020, read_deotte, told_by_target
from lesions.data.generic import read_generic
from lesions.data.ham10000 import read_dermamnist, read_ham10000
from lesions.data.tasks import WORDS

_CLASSES_2018 = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
_CLASSES_2019 = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]


def read_isic2017(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2017 task 3: 2,000 training photographs, 374 melanomas; age and sex alone are known."""
    truth = folder / "ISIC-2017_Training_Part3_GroundTruth.csv"
    meta = folder / "ISIC-2017_Training_Data_metadata.csv"
    rows = read_columns(
        report, truth,
        {"image_name": "image_id", "MEL": "melanoma", "BKL": "seborrheic_keratosis"},
    )  # fmt: skip
    more = read_columns(
        report, meta, {"image_name": "image_id", "age_approx": "age_approximate", "sex": "sex"}
    )
    if rows is None or more is None:
        return no_rows("isic2017")
    found = {}
    for column in ("MEL", "BKL"):
        number = pd.to_numeric(rows[column], errors="coerce")
        report.rows(truth, rows[column], (~number.isin([0, 1])).to_numpy(), "expected 0 or 1")
        found[column] = number == 1
    both = found["MEL"] & found["BKL"]
    report.rows(truth, rows["image_name"], both.to_numpy(), "melanoma and keratosis at once")
    diagnosis = pd.Series("nv", rows.index).mask(found["BKL"], "bkl").mask(found["MEL"], "mel")
    return common_rows(joined(report, rows, more, meta).assign(diagnosis=diagnosis), "isic2017")


def read_isic2018(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2018 task 3: 10,015 training rows (HAM10000) and 193 of validation, official split.

    Lesion ids are in ISIC2018_Task3_Training_LesionGroupings.csv, where it is there.
    """
    parts = []
    for official, part in [("train", "Training"), ("val", "Validation")]:
        path = _either(folder, f"ISIC2018_Task3_{part}_GroundTruth")
        if official == "val" and not path.exists():
            continue
        columns = {"image_name": "image"} | {name: name for name in _CLASSES_2018}
        rows = read_columns(report, path, columns)
        if rows is None:
            return no_rows("isic2018")
        words = one_hot(report, path, rows, _CLASSES_2018).str.lower()
        parts.append(rows.assign(official=official, diagnosis=words.map(WORDS)))
    lesions = _either(folder, "ISIC2018_Task3_Training_LesionGroupings")
    rows = pd.concat(parts, ignore_index=True)
    if lesions.exists():
        more = read_columns(report, lesions, {"image_name": "image", "lesion_id": "lesion_id"})
        if more is not None:
            rows = rows.merge(more.drop_duplicates("image_name"), on="image_name", how="left")
    return common_rows(rows, "isic2018")


def read_isic2019(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2019's 25,331 training rows, 4,522 of them melanomas. No patient ids are published."""
    truth = folder / "ISIC_2019_Training_GroundTruth.csv"
    meta = folder / "ISIC_2019_Training_Metadata.csv"
    columns = {"image_name": "image"} | {name: name for name in _CLASSES_2019}
    rows = read_columns(report, truth, columns)
    more = read_columns(
        report, meta,
        {"image_name": "image", "age_approx": "age_approx", "site": "anatom_site_general",
         "lesion_id": "lesion_id", "sex": "sex"},
    )  # fmt: skip
    if rows is None or more is None:
        return no_rows("isic2019")
    diagnosis = one_hot(report, truth, rows, _CLASSES_2019).str.lower().map(WORDS)
    return common_rows(joined(report, rows, more, meta).assign(diagnosis=diagnosis), "isic2019")


def read_isic2020(folder: Path, report: Report) -> pd.DataFrame:
    """SIIM-ISIC 2020: 33,126 training rows (584 melanomas, 2,056 patients), 10,982 test rows.

    Lesion ids come from ISIC_2020_Training_GroundTruth_v2.csv, which Kaggle does not carry;
    without that file patients alone hold images together.
    """
    path = folder / "train.csv"
    labels = {"diagnosis": "diagnosis", "target": "target"}
    train = read_columns(report, path, PEOPLE_2020 | labels)
    test = read_columns(report, folder / "test.csv", PEOPLE_2020)
    lesions = folder / "ISIC_2020_Training_GroundTruth_v2.csv"
    more = None
    if lesions.exists():
        columns = {"image_name": "image_name", "lesion_id": "lesion_id"}
        more = read_columns(report, lesions, columns)
    if train is None or test is None:
        return no_rows("isic2020")
    train["diagnosis"] = told_by_target(report, path, train)
    if more is not None:
        train = train.merge(more.drop_duplicates("image_name"), on="image_name", how="left")
    return common_rows(
        pd.concat([train.assign(split="train"), test.assign(split="test")], ignore_index=True),
        "isic2020",
    )


def read_source(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of one source, by its reader; what is wrong goes into the report."""
    reader = source.reader or name
    if reader == "generic":
        return read_generic(name, source, folder, report)
    if reader not in READERS:
        report.problem(f"source {name}", f"no reader '{reader}': there is {', '.join(READERS)},"
                       " generic (`reader: generic`)")  # fmt: skip
        return no_rows(name)
    return READERS[reader](folder, report)


READERS: dict[str, Callable[[Path, Report], pd.DataFrame]] = {
    "isic2017": read_isic2017,
    "isic2018": read_isic2018,
    "isic2019": read_isic2019,
    "isic2020": read_isic2020,
    "ham10000": read_ham10000,
    "dermamnist": read_dermamnist,
    "deotte": read_deotte,
}


def read_duplicates(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2020's official duplicate pairs: columns image_name_1 and image_name_2."""
    path = folder / "ISIC_2020_Training_Duplicates.csv"
    columns = {name: name for name in ("image_name_1", "image_name_2")}
    pairs = read_columns(report, path, columns) if path.exists() else None
    return pd.DataFrame(columns=list(columns), dtype=str) if pairs is None else pairs


def _either(folder: Path, stem: str) -> Path:
    """The official archive puts each CSV into a folder of its own name."""
    nested = folder / stem / f"{stem}.csv"
    return nested if nested.exists() else folder / f"{stem}.csv"
