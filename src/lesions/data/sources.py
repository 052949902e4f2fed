"""Read the official files of each published source into rows of one shape.

A reader takes the folder of a source's files as published and returns what they say, in file order,
under the names of data/columns.py. Problems go into the report.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import SourceConfig
from lesions.data.columns import COMMON, Report, check_columns, common_rows, read_columns
from lesions.data.folds import ENDS, NO_PAIRS
from lesions.data.photographs import class_folders, dermamnist_arrays, dermamnist_file
from lesions.data.tasks import DIAGNOSES, WORDS
from lesions.errors import InputError, listed
from lesions.files import read_csv
from lesions.paths import shown

# Ground truths with a column a class: the images' column, the classes, and what no 1 stands for.
_TRUTHS = {
    2017: ("image_id", ["melanoma", "seborrheic_keratosis"], "nv"),
    2018: ("image", ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"], ""),
    2019: ("image", ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"], ""),
}
_DERMAMNIST = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]  # its labels 0 to 6
_PEOPLE_2020 = {
    "image_name": "image_name", "patient_id": "patient_id", "sex": "sex",
    "age_approx": "age_approx", "site": "anatom_site_general_challenge",
}  # fmt: skip


def read_source(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of one source, read by its reader, with the columns COMMON.

    Problems of its tables go into the report; InputError for a source that cannot be read at all.
    """
    reader = source.reader or name
    if not folder.is_dir():
        raise InputError(f"{shown(folder)}: no such folder: input/README.md says what goes in")
    if reader == "generic":
        return read_generic(name, source, folder, report)
    if reader not in READERS:
        raise InputError(f"source {name}: no reader '{reader}': there is {', '.join(READERS)},"
                         " generic (`reader: generic`)")  # fmt: skip
    return common_rows(READERS[reader](folder, report), reader)


def read_isic2017(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2017 task 3: 2,000 training images, 374 melanomas; of people only age and sex."""
    rows = _read_truth(report, folder / "ISIC-2017_Training_Part3_GroundTruth.csv", 2017)
    more = {"image_name": "image_id", "age_approx": "age_approximate", "sex": "sex"}
    return _joined(report, rows, folder / "ISIC-2017_Training_Data_metadata.csv", more)


def read_isic2018(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2018 task 3: 10,015 training images (HAM10000), 193 to validate with, 1,512 to test."""
    parts = []
    for official, part in [("train", "Training"), ("val", "Validation"), ("test", "Test")]:
        path = _either(folder, f"ISIC2018_Task3_{part}_GroundTruth")
        if official == "train" or path.exists():
            split = "test" if official == "test" else "train"
            rows = _read_truth(report, path, 2018)
            parts.append(rows.assign(official=official, split=split))
    rows = pd.concat(parts, ignore_index=True)
    lesions = _either(folder, "ISIC2018_Task3_Training_LesionGroupings")
    more = {"image_name": "image", "lesion_id": "lesion_id"}
    return _joined(report, rows, lesions, more, optional=True)


def read_isic2019(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2019: 25,331 training images, 4,522 melanomas. It publishes no patient ids."""
    rows = _read_truth(report, folder / "ISIC_2019_Training_GroundTruth.csv", 2019)
    more = {"image_name": "image", "age_approx": "age_approx", "site": "anatom_site_general",
            "lesion_id": "lesion_id", "sex": "sex"}  # fmt: skip
    return _joined(report, rows, folder / "ISIC_2019_Training_Metadata.csv", more)


def read_isic2020(folder: Path, report: Report) -> pd.DataFrame:
    """SIIM-ISIC 2020: 33,126 training rows (584 melanomas, 2,056 patients), 10,982 test rows.

    Lesion ids come from ISIC_2020_Training_GroundTruth_v2.csv, which Kaggle does not carry;
    without that file patients alone link images.
    """
    path = folder / "train.csv"
    labels = {"diagnosis": "diagnosis", "target": "target"}
    train = read_columns(report, path, _PEOPLE_2020 | labels)
    test = read_columns(report, folder / "test.csv", _PEOPLE_2020)
    contradict = (train["diagnosis"] == "mel") != (train["target"] == 1)
    contradict &= train["target"].notna()
    report.rows(path, train["image_name"], contradict, "target and diagnosis contradict each other")
    bare = (train["diagnosis"] == "") & (train["target"] == 0)  # most of 2020
    train["diagnosis"] = train["diagnosis"].mask(bare, "benign")
    lesions = folder / "ISIC_2020_Training_GroundTruth_v2.csv"
    more = {"image_name": "image_name", "lesion_id": "lesion_id"}
    train = _joined(report, train, lesions, more, optional=True)
    both = [train.assign(split="train"), test.assign(split="test")]
    return pd.concat(both, ignore_index=True)


def read_ham10000(folder: Path, report: Report) -> pd.DataFrame:
    """HAM10000: 10,015 images of 7,470 lesions, seven diagnoses, `localization`, no patient ids."""
    places = [folder / f"HAM10000_metadata{suffix}" for suffix in (".csv", ".tab", "")]
    path = next((path for path in places if path.exists()), places[0])  # Dataverse: .tab or none
    pixels = sorted(folder.glob("hmnist_*.csv"))
    if pixels and not path.exists():
        report.problem(pixels[0], "tables of pixels are not read: HAM10000_metadata.csv and the"
                       " photographs are needed (input/README.md)")  # fmt: skip
    columns = {"image_name": "image_id", "lesion_id": "lesion_id", "diagnosis": "dx",
               "age_approx": "age", "sex": "sex", "site": "localization"}  # fmt: skip
    rows = read_columns(report, path, columns | {"localization": "localization"})
    return rows.assign(localization=rows["localization"].str.lower())


def read_dermamnist(folder: Path, report: Report) -> pd.DataFrame:
    """DermaMNIST of any size: 7,007 + 1,003 + 2,005 images, official split, no metadata.

    693 of the 2,005 test images show a lesion that is also in training (Abhishek et al., Sci Data
    12:196, 2025). Lesion ids come from dermamnist_to_ham10000.csv, if it is there.
    """
    path = dermamnist_file(folder)
    if path is None:
        raise InputError(f"{shown(folder)}: no dermamnist*.npz in it: see input/README.md")
    parts = []
    for official, label in dermamnist_arrays(path, "labels"):
        names = [f"dermamnist_{official}_{index:05d}" for index in range(len(label))]
        diagnosis = np.array(_DERMAMNIST)[label.reshape(-1)]
        part = {"image_name": names, "diagnosis": diagnosis, "official": official}
        parts.append(pd.DataFrame(part))
    rows = pd.concat(parts, ignore_index=True)
    lesions = folder / "dermamnist_to_ham10000.csv"
    if lesions.exists() and "corrected" not in path.stem:  # whose rows are others
        table = read_csv(lesions, ["split", "index", "lesion_id"])
        known = "dermamnist_" + table["split"] + "_" + table["index"].map("{:05d}".format)
        rows["lesion_id"] = rows["image_name"].map(table.set_index(known)["lesion_id"])
    return rows


def read_ground_truth(path: Path, report: Report) -> pd.DataFrame | None:
    """The rows of a challenge's ground truth with a column a class; None for any other table."""
    header = {*read_csv(path)}
    known = (year for year, (image, classes, _) in _TRUTHS.items() if {image, *classes} <= header)
    return next((_read_truth(report, path, year) for year in known), None)


def add_deotte(table: pd.DataFrame, folder: Path, report: Report) -> pd.DataFrame:
    """The table with `width`, `height` and `tfrecord` of the images in Chris Deotte's CSVs."""
    parts = []
    for part in ("train", "test"):
        columns = ["image_name", "width", "height", *(["tfrecord"] if part == "train" else [])]
        # In the folders that his resized sets unpack to, or side by side.
        paths = [*folder.glob(f"jpeg-*/{part}.csv"), *folder.glob(f"jpeg-*_{part}.csv")]
        own = dict(zip(columns, columns, strict=True))
        parts += [read_columns(report, path, own) for path in sorted(paths)]
    if not parts:
        report.problem(folder, "none of Deotte's CSVs in it: see input/README.md")
        return table
    found = pd.concat(parts).drop_duplicates("image_name").set_index("image_name").astype(float)
    names = table["image_name"]
    if not names.isin(found.index).any():
        report.problem(folder, f"none of the images is in its CSVs, such as {listed(names[:3])}")
    known = {str(c): names.map(found[c]).fillna(table.get(c, np.nan)) for c in found}
    return table.assign(**known)


def read_duplicates(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2020's official duplicate pairs: columns image_name_1 and image_name_2."""
    path = folder / "ISIC_2020_Training_Duplicates.csv"
    return read_columns(report, path, {e: e for e in ENDS}) if path.exists() else NO_PAIRS


def read_generic(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of `source.table`, its columns renamed by `source.columns`.

    A diagnosis (translated by `source.diagnoses`) or a target is needed; a row with neither is a
    test row. Without a table every image folder is one diagnosis, by its name.
    """
    for word in {*source.diagnoses.values()} - DIAGNOSES.keys():
        report.problem(f"source {name}", f"diagnoses: {word} is none of {', '.join(DIAGNOSES)}")
    diagnoses = WORDS | {word.lower(): known for word, known in source.diagnoses.items()}
    path = folder / (source.table or "")
    if source.table:
        unknown = sorted(set(source.columns) - {*COMMON})
        if unknown or "image_name" not in source.columns:
            what = f"{listed(unknown)} unknown" if unknown else "image_name is missing"
            known = ", ".join(COMMON)
            raise InputError(f"source {name}: columns: {what}: known are {known}")
        given = source.columns.items()  # a target of one's own may be empty
        columns = {"own_target" if ours == "target" else ours: own for ours, own in given}
        rows = read_columns(report, path, columns, diagnoses)
    else:
        raw = class_folders(path, report)
        rows = check_columns(report, path, raw, {str(c): str(c) for c in raw}, diagnoses)
    rows = common_rows(rows, name)
    bare, test = (rows["diagnosis"] == "") & rows["target"].isna(), rows["official"] == "test"
    if (bare & ~test).any():
        report.notes.append(f"{shown(path)}: {(bare & ~test).sum():,} rows without diagnosis or"
                            " target are test rows: never trained on or scored")  # fmt: skip
    rows["split"] = pd.Series("train", rows.index).mask(bare | test, "test")
    return within_patients(rows, path, report)


def within_patients(rows: pd.DataFrame, path: Path, report: Report) -> pd.DataFrame:
    """The rows with lesion numbers that restart in each patient made ids of their own."""
    lesion, patient = rows["lesion_id"], rows["patient_id"]
    shared = patient[patient != ""].groupby(lesion[lesion != ""]).nunique() > 1
    if not shared.any() or not lesion.str.fullmatch(r"\d{0,4}").all():
        return rows
    report.notes.append(f"{shown(path)}: lesions {listed(shared.index[shared])} are in several"
                        " patients: lesion numbers are taken within each patient")  # fmt: skip
    known = (lesion != "") & (patient != "")
    return rows.assign(lesion_id=(patient + "/" + lesion).where(known, ""))


READERS: dict[str, Callable[[Path, Report], pd.DataFrame]] = {
    "isic2017": read_isic2017,
    "isic2018": read_isic2018,
    "isic2019": read_isic2019,
    "isic2020": read_isic2020,
    "ham10000": read_ham10000,
    "dermamnist": read_dermamnist,
}


def _read_truth(report: Report, path: Path, year: int) -> pd.DataFrame:
    """image_name and diagnosis of a ground truth with one column a class, of which one is 1."""
    image, classes, other = _TRUTHS[year]
    rows = read_columns(report, path, {"image_name": image} | {name: name for name in classes})
    values = rows[classes].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    ones = values.sum(axis=1)
    wrong = ~np.isin(values, [0, 1]).all(axis=1) | (ones > 1) | ((ones == 0) & (other == ""))
    cells = rows[classes[0]].str.cat(rows[classes[1:]], " ").rename("the diagnosis")
    most = "at most" if other else "exactly"
    report.rows(path, cells, wrong, f"{most} one must be 1 and the others 0")
    words = pd.Series(classes).str.lower().str.replace("_", " ").map(WORDS).to_numpy()
    diagnosis = np.where(ones == 0, other, words[np.nan_to_num(values).argmax(axis=1)])
    return rows[["image_name"]].assign(diagnosis=diagnosis)


def _joined(
    report: Report, rows: pd.DataFrame, path: Path, columns: dict[str, str], optional: bool = False
) -> pd.DataFrame:
    """`rows` with the columns of another file; unless `optional`, every image has a row there."""
    if optional and not path.exists():
        return rows
    more = read_columns(report, path, columns)
    absent = rows.loc[~rows["image_name"].isin(more["image_name"]), "image_name"]
    if len(absent) and len(more) and not optional:
        report.problem(path, f"no row for {listed(absent)}")
    return rows.merge(more.drop_duplicates("image_name"), "left", "image_name")


def _either(folder: Path, stem: str) -> Path:
    """The CSV's path: the official archive puts each into a folder of its own name."""
    nested = folder / stem / f"{stem}.csv"
    return nested if nested.exists() else folder / f"{stem}.csv"
