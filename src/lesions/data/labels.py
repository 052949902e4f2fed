"""Read the labels and photographs of any set as it is published.

Ground truths of ISIC's challenges, metadata.csv of the ISIC Archive and of PAD-UFES-20, ISIC 2024
with its HDF5, and any CSV whose columns are called as one of theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import pandas as pd

from lesions.data.columns import NAMES, Report, check_columns, common_rows, find_columns
from lesions.data.folds import add_groups
from lesions.data.photographs import image_paths, short_names
from lesions.data.sources import read_ground_truth, within_patients
from lesions.data.tasks import DIAGNOSES, WORDS
from lesions.errors import InputError, listed
from lesions.files import read_csv
from lesions.paths import shown


def read_labels(paths: Sequence[Path], words: Mapping[str, str], report: Report) -> pd.DataFrame:
    """The rows of the first CSV with COMMON, localization and group; further CSVs add columns.

    `words` are diagnoses by the CSV's own words, "" for rows that are not to be scored. InputError
    for words of which nothing is known, and for a CSV without names or labels.
    """
    wrong = sorted({*words.values()} - {"", *DIAGNOSES})
    if wrong:
        raise InputError(f"--map: {listed(wrong)}: a diagnosis is one of {', '.join(DIAGNOSES)}")
    known = WORDS | {word.lower(): diagnosis for word, diagnosis in words.items()}
    rows, *others = [_read_table(path, known, report) for path in paths]
    for more in others:
        new = more.columns.difference(rows.columns.drop("image_name"))
        rows = rows.merge(more[new], "left", "image_name")
    if not {"diagnosis", "target"} & {*rows}:
        labels = listed(NAMES["diagnosis"] + NAMES["own_target"], 9)
        raise InputError(f"{shown(paths[0])}: no label: its column must be one of {labels}")
    place = rows["localization"].fillna("").str.lower() if "localization" in rows else ""
    rows = common_rows(rows, "external").assign(localization=place)
    return add_groups(within_patients(rows, paths[0], report))


def _read_table(path: Path, words: Mapping[str, str], report: Report) -> pd.DataFrame:
    if (rows := read_ground_truth(path, report)) is not None:
        return rows
    raw = read_csv(path, text=None).fillna("")
    columns = find_columns(raw)
    columns.pop("part", None)
    if "image_name" not in columns:
        names = listed(NAMES["image_name"])
        raise InputError(f"{shown(path)}: no column {names}; it has {listed(raw, 12)}")
    if "site" in columns:
        columns["localization"] = columns["site"]
    if own := columns.get("diagnosis"):
        cells = raw[own].str.strip().str.lower()
        # The ISIC Archive has three levels: the third may be empty where the second is not, and the
        # first says what is benign of the words that nothing is known of.
        if own == "diagnosis_3" and "diagnosis_2" in raw:
            cells = cells.mask(cells == "", raw["diagnosis_2"].str.strip().str.lower())
        if "diagnosis_1" in raw:
            benign = raw["diagnosis_1"].str.strip().str.lower() == "benign"
            cells = cells.mask(benign & ((cells == "") | ~cells.isin(words)), "benign")
        raw[own], strange = cells, cells[~cells.isin(words)].value_counts()
        if len(strange):
            counts = listed([f"{word!r} ({rows:,} rows)" for word, rows in strange.items()], 12)
            first = strange.index[0]
            raise InputError(
                f"{shown(path)}: {own}: not a known diagnosis: {counts}: say what each is, such as"
                f" --map '{first}=bkl', or --map '{first}=' to leave its rows out; diagnoses are"
                f" {', '.join(DIAGNOSES)}"
            )
    return check_columns(report, path, raw, columns, words)


def open_photos(
    place: Path, rows: pd.DataFrame, report: Report
) -> tuple[pd.DataFrame, Callable[[str], Path | bytes]]:
    """The rows with `path`, "" without a photograph, and what opens it: folder, zip or HDF5."""
    if place.suffix.lower() not in (".hdf5", ".h5"):
        paths = image_paths(rows, "generic", place, [place], report, unpack=True)
        return rows.assign(path=paths, image_name=short_names(rows["image_name"])), Path
    try:
        file = import_module("h5py").File(place, "r")
    except ModuleNotFoundError:
        raise InputError(f"{shown(place)}: HDF5 is read by h5py: pip install h5py") from None
    except OSError as error:
        raise InputError(f"{shown(place)}: no HDF5 that can be read: {error}") from error
    paths = rows["image_name"].where(rows["image_name"].isin({*file}), "")
    return rows.assign(path=paths), lambda name: bytes(file[name][()])
