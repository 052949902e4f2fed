"""Read the official files of each published source into rows of one shape.

A reader takes the folder of a source's files as published and returns a table with the columns
COMMON (data/columns.py), in file order. Problems go into the report.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import SourceConfig
from lesions.data.columns import (
    COMMON,
    Report,
    common_rows,
    no_rows,
    read_columns,
    require_names,
    require_plain,
)
from lesions.data.photographs import dermamnist_file, images_below
from lesions.data.tasks import DIAGNOSES, WORDS
from lesions.errors import listed
from lesions.files import read_csv
from lesions.paths import shown

_CLASSES_2018 = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
_CLASSES_2019 = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val",
           "validation": "val", "test": "test", "": ""}  # fmt: skip
_DERMAMNIST = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]  # its labels 0 to 6
_PEOPLE_2020 = {
    "image_name": "image_name", "patient_id": "patient_id", "sex": "sex",
    "age_approx": "age_approx", "site": "anatom_site_general_challenge",
}  # fmt: skip
# Deotte's CSVs, in the folders that his sets unpack to, or side by side.
_DEOTTE_TABLES = {
    "isic2019": ["jpeg-isic2019-*/train.csv", "jpeg-isic2019_train.csv"],
    "isic2020": ["jpeg-melanoma-*/train.csv", "jpeg-melanoma_train.csv"],
    "isic2020 test": ["jpeg-melanoma-*/test.csv", "jpeg-melanoma_test.csv"],
}


def read_source(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of one source, read by its reader."""
    reader = source.reader or name
    if reader == "generic":
        return read_generic(name, source, folder, report)
    if reader not in READERS:
        report.problem(f"source {name}", f"no reader '{reader}': there is {', '.join(READERS)},"
                       " generic (`reader: generic`)")  # fmt: skip
        return no_rows(name)
    return READERS[reader](folder, report)


def read_isic2017(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2017 task 3: 2,000 training images, 374 melanomas; of people only age and sex."""
    truth = folder / "ISIC-2017_Training_Part3_GroundTruth.csv"
    rows = read_columns(
        report, truth,
        {"image_name": "image_id", "target": "melanoma", "keratosis": "seborrheic_keratosis"},
    )  # fmt: skip
    more = {"image_name": "image_id", "age_approx": "age_approximate", "sex": "sex"}
    rows = _joined(report, rows, folder / "ISIC-2017_Training_Data_metadata.csv", more)
    melanoma, keratosis = rows["target"] == 1, rows["keratosis"] == 1
    both = melanoma & keratosis
    report.rows(truth, rows["image_name"], both, "melanoma and keratosis at once")
    diagnosis = pd.Series("nv", rows.index).mask(keratosis, "bkl").mask(melanoma, "mel")
    return common_rows(rows.assign(diagnosis=diagnosis), "isic2017")


def read_isic2018(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2018 task 3: 10,015 training images (HAM10000), 193 and 1,512 for validation and test.

    Lesion ids come from ISIC2018_Task3_Training_LesionGroupings.csv, if it is there.
    """
    parts = []
    for official, part in [("train", "Training"), ("val", "Validation"), ("test", "Test")]:
        path = _either(folder, f"ISIC2018_Task3_{part}_GroundTruth")
        if official == "train" or path.exists():
            split = "test" if official == "test" else "train"
            rows = _read_one_hot(report, path, _CLASSES_2018)
            parts.append(rows.assign(official=official, split=split))
    rows = pd.concat(parts, ignore_index=True)
    lesions = _either(folder, "ISIC2018_Task3_Training_LesionGroupings")
    if lesions.exists():
        rows = _joined(report, rows, lesions, {"image_name": "image", "lesion_id": "lesion_id"})
    return common_rows(rows, "isic2018")


def read_isic2019(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2019: 25,331 training images, 4,522 melanomas. It publishes no patient ids."""
    rows = _read_one_hot(report, folder / "ISIC_2019_Training_GroundTruth.csv", _CLASSES_2019)
    more = {"image_name": "image", "age_approx": "age_approx", "site": "anatom_site_general",
            "lesion_id": "lesion_id", "sex": "sex"}  # fmt: skip
    rows = _joined(report, rows, folder / "ISIC_2019_Training_Metadata.csv", more)
    return common_rows(rows, "isic2019")


def read_isic2020(folder: Path, report: Report) -> pd.DataFrame:
    """SIIM-ISIC 2020: 33,126 training rows (584 melanomas, 2,056 patients), 10,982 test rows.

    Lesion ids come from ISIC_2020_Training_GroundTruth_v2.csv, which Kaggle does not carry;
    without that file patients alone link images.
    """
    path = folder / "train.csv"
    labels = {"diagnosis": "diagnosis", "target": "target"}
    train = read_columns(report, path, _PEOPLE_2020 | labels)
    test = read_columns(report, folder / "test.csv", _PEOPLE_2020)
    train["diagnosis"] = _diagnosis_by_target(report, path, train)
    lesions = folder / "ISIC_2020_Training_GroundTruth_v2.csv"
    if lesions.exists():
        more = {"image_name": "image_name", "lesion_id": "lesion_id"}
        train = _joined(report, train, lesions, more)
    both = [train.assign(split="train"), test.assign(split="test")]
    return common_rows(pd.concat(both, ignore_index=True), "isic2020")


def read_ham10000(folder: Path, report: Report) -> pd.DataFrame:
    """HAM10000: 10,015 images of 7,470 lesions, seven diagnoses, no patient ids.

    It has one column more than other sources: `localization`, one of columns.PLACES or "".
    """
    places = [folder / f"HAM10000_metadata{suffix}" for suffix in (".csv", ".tab", "")]
    path = next((path for path in places if path.exists()), places[0])  # Dataverse: .tab or none
    pixels = sorted(folder.glob("hmnist_*.csv"))
    if pixels and not path.exists():
        report.problem(pixels[0], "tables of pixels are not read: HAM10000_metadata.csv and the"
                       " photographs are needed (input/README.md)")  # fmt: skip
    rows = read_columns(
        report, path,
        {"image_name": "image_id", "lesion_id": "lesion_id", "diagnosis": "dx",
         "age_approx": "age", "sex": "sex", "site": "localization",
         "localization": "localization"},
    )  # fmt: skip
    return common_rows(rows, "ham10000").assign(localization=rows["localization"].str.lower())


def read_dermamnist(folder: Path, report: Report) -> pd.DataFrame:
    """DermaMNIST of any size: 7,007 + 1,003 + 2,005 images, official split, no metadata.

    693 of the 2,005 test images show a lesion that is also in training (Abhishek et al., Sci Data
    12:196, 2025). Lesion ids come from dermamnist_to_ham10000.csv, if it is there.
    """
    path = dermamnist_file(folder)
    if path is None:
        report.problem(folder, "no dermamnist*.npz in it: see input/README.md")
        return no_rows("dermamnist")
    parts = []
    with np.load(path, allow_pickle=False) as arrays:
        for official in ("train", "val", "test"):
            label = arrays[f"{official}_labels"].reshape(-1)
            names = [f"dermamnist_{official}_{index:05d}" for index in range(len(label))]
            diagnosis = np.array(_DERMAMNIST)[label]
            parts.append(pd.DataFrame({"image_name": names, "diagnosis": diagnosis})
                         .assign(official=official))  # fmt: skip
    rows = pd.concat(parts, ignore_index=True)
    lesions = folder / "dermamnist_to_ham10000.csv"
    if lesions.exists() and "corrected" not in path.stem:  # whose rows are others
        table = read_csv(lesions, ["split", "index", "lesion_id"])
        known = "dermamnist_" + table["split"] + "_" + table["index"].map("{:05d}".format)
        rows["lesion_id"] = rows["image_name"].map(table.set_index(known)["lesion_id"])
    return common_rows(rows, "dermamnist")


def read_deotte(folder: Path, report: Report) -> pd.DataFrame:
    """Chris Deotte's resized JPEG sets of 2019 and 2020, with `tfrecord` and original sizes.

    Rows are of the sources isic2019 and isic2020. 2019 has no lesion ids here: images of one lesion
    are grouped only by the official CSVs or the search for near-duplicates.
    """
    parts = []
    for source, names in _DEOTTE_TABLES.items():
        path = next((path for name in names for path in sorted(folder.glob(name))), None)
        if path is None:
            continue
        split = "test" if source.endswith("test") else "train"
        columns = _PEOPLE_2020 | {"width": "width", "height": "height"}
        if split == "train":
            columns |= {name: name for name in ("diagnosis", "target", "tfrecord")}
        rows = read_columns(report, path, columns)
        if split == "train":
            rows["diagnosis"] = _diagnosis_by_target(report, path, rows)
        parts.append(rows.assign(split=split, source=source.removesuffix(" test")))
    if not parts:
        report.problem(folder, "none of Deotte's CSVs in it: see input/README.md")
        return no_rows("deotte")
    return common_rows(pd.concat(parts, ignore_index=True), "deotte")


def add_deotte(table: pd.DataFrame, folder: Path, report: Report) -> pd.DataFrame:
    """The table with `width`, `height` and `tfrecord` of the images in Deotte's CSVs."""
    known = read_deotte(folder, report).drop_duplicates("image_name").set_index("image_name")
    names = table["image_name"]
    if not names.isin(known.index).any():
        report.problem(folder, f"none of the images is in its CSVs, such as {listed(names[:3])}")
    columns = {c: names.map(known[c]).fillna(table[c]) for c in ("width", "height", "tfrecord")}
    return table.assign(**columns)


def read_duplicates(folder: Path, report: Report) -> pd.DataFrame:
    """ISIC 2020's official duplicate pairs: columns image_name_1 and image_name_2."""
    path = folder / "ISIC_2020_Training_Duplicates.csv"
    columns = {name: name for name in ("image_name_1", "image_name_2")}
    if path.exists():
        return read_columns(report, path, columns)
    return pd.DataFrame(columns=list(columns), dtype=str)


def read_generic(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of `source.table`, its columns renamed by `source.columns`.

    A diagnosis (translated by `source.diagnoses`) or a target is needed; a row with neither is a
    test row. Without a table every image folder is one diagnosis, by its name.
    """
    words = {word.lower(): known for word, known in source.diagnoses.items()}
    for word in words.values() - DIAGNOSES.keys():
        report.problem(f"source {name}", f"diagnoses: {word} is none of {', '.join(DIAGNOSES)}")
    path = folder / (source.table or "")
    rows = _read_table(name, source, path, report) if source.table else _from_folders(path, report)
    if "label" in rows:
        found = rows["label"].str.lower().map(WORDS | words)
        hint = f"not a diagnosis: say which it is under `diagnoses` ({', '.join(DIAGNOSES)})"
        report.rows(path, rows["label"].rename("diagnosis"), found.isna(), hint)
        rows["diagnosis"] = found.fillna("")
    rows = common_rows(rows, name).assign(own_target=rows.get("own_target", np.nan))
    official = rows["official"].str.lower()
    report.rows(path, official, ~official.isin([*_SPLITS]), "expected train, val or test")
    bare, test = rows["target"].isna(), official.map(_SPLITS) == "test"
    if (bare & ~test).any():
        report.notes.append(f"{shown(path)}: {(bare & ~test).sum():,} rows without diagnosis or"
                            " target are test rows: never trained on or scored")  # fmt: skip
    split = pd.Series("train", rows.index).mask(bare | test, "test")
    rows = _within_patients(rows, path, report)
    return rows.assign(official=official.map(_SPLITS).fillna(""), split=split)


def _within_patients(rows: pd.DataFrame, path: Path, report: Report) -> pd.DataFrame:
    """The rows with lesion numbers that restart in each patient made ids of their own."""
    lesion, patient = rows["lesion_id"], rows["patient_id"]
    shared = patient[patient != ""].groupby(lesion[lesion != ""]).nunique() > 1
    if not shared.any() or not lesion.str.fullmatch(r"\d{0,4}").all():
        return rows
    report.notes.append(f"{shown(path)}: lesions {listed(shared.index[shared])} are in several"
                        " patients: lesion numbers are taken within each patient")  # fmt: skip
    known = (lesion != "") & (patient != "")
    return rows.assign(lesion_id=(patient + "/" + lesion).where(known, ""))


def _from_folders(folder: Path, report: Report) -> pd.DataFrame:
    """One row an image below `folder`, labelled by the name of its own folder."""
    files = sorted(Path(path).relative_to(folder.resolve()) for path in images_below(folder))
    rows = []
    for path in files:
        official = [_SPLITS[part.lower()] for part in path.parts[:-1] if part.lower() in _SPLITS]
        classes = [part for part in path.parts[:-1] if part.lower() not in _SPLITS]
        label = classes[-1] if classes else "" if official == ["test"] else path.parent.name
        rows.append((path.with_suffix("").as_posix(), label, "".join(official[:1])))
    if not any(path.parent.name for path in files):
        report.problem(folder, "no image in a folder of it: give `table`, or folders by class")
        rows = []
    table = pd.DataFrame(rows, columns=["image_name", "label", "official"], dtype=object)
    table["image_name"] = table["image_name"].str.normalize("NFC")
    require_plain(report, folder, table["image_name"])
    require_names(report, folder, table["image_name"], table)
    return table


def _read_table(name: str, source: SourceConfig, path: Path, report: Report) -> pd.DataFrame:
    unknown = sorted(set(source.columns) - {*COMMON} - {"label"})
    if unknown or "image_name" not in source.columns:
        what = f"{listed(unknown)} unknown" if unknown else "image_name is missing"
        report.problem(f"source {name}", f"columns: {what}: known are {', '.join(COMMON)}")
        return no_rows(name)
    renamed = {"diagnosis": "label", "target": "own_target"}  # parsed below
    rows = read_columns(report, path, {renamed.get(c, c): own for c, own in source.columns.items()})
    if "own_target" in rows:
        text = rows["own_target"].rename(source.columns["target"])
        own = pd.to_numeric(text.mask(text == ""), errors="coerce").astype(float)
        rows = rows.assign(target=own, own_target=own)
        wrong = ~own.isin([0, 1]) & (text != "")
        report.rows(path, text, wrong, "expected 0, 1 or nothing")
    return rows


READERS: dict[str, Callable[[Path, Report], pd.DataFrame]] = {
    "isic2017": read_isic2017,
    "isic2018": read_isic2018,
    "isic2019": read_isic2019,
    "isic2020": read_isic2020,
    "ham10000": read_ham10000,
    "dermamnist": read_dermamnist,
    "deotte": read_deotte,
}


def _read_one_hot(report: Report, path: Path, classes: list[str]) -> pd.DataFrame:
    """image_name and diagnosis of a ground truth with one column a class, of which one is 1."""
    rows = read_columns(report, path, {"image_name": "image"} | {name: name for name in classes})
    values = rows[classes].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    wrong = ~np.isin(values, [0, 1]).all(axis=1) | (values.sum(axis=1) != 1)
    cells = rows[classes[0]].str.cat(rows[classes[1:]], " ").rename("the diagnosis")
    report.rows(path, cells, wrong, "exactly one must be 1 and the others 0")
    names = pd.Index(classes)[np.nan_to_num(values).argmax(axis=1)].str.lower()
    return rows[["image_name"]].assign(diagnosis=names.map(WORDS))


def _joined(
    report: Report, rows: pd.DataFrame, path: Path, columns: dict[str, str]
) -> pd.DataFrame:
    """`rows` with the columns of another file; every image must have a row there."""
    more = read_columns(report, path, columns)
    absent = rows.loc[~rows["image_name"].isin(more["image_name"]), "image_name"]
    if len(absent) and len(more) and len(columns) > 2:  # a file of lesions alone may be shorter
        report.problem(path, f"no row for {listed(absent)}")
    return rows.merge(more.drop_duplicates("image_name"), "left", "image_name")


def _diagnosis_by_target(report: Report, path: Path, rows: pd.DataFrame) -> pd.Series:
    """The diagnosis, "benign" where none is named and the target is 0, as for most of 2020."""
    melanoma = rows["diagnosis"] == "mel"
    named = melanoma | (rows["target"] == 1)
    wrong = named & (melanoma != (rows["target"] == 1)) & rows["target"].notna()
    report.rows(path, rows["image_name"], wrong, "target and diagnosis contradict each other")
    return rows["diagnosis"].mask((rows["diagnosis"] == "") & (rows["target"] == 0), "benign")


def _either(folder: Path, stem: str) -> Path:
    """The CSV's path: the official archive puts each into a folder of its own name."""
    nested = folder / stem / f"{stem}.csv"
    return nested if nested.exists() else folder / f"{stem}.csv"
