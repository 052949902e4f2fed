"""Read one's own data set: a CSV whose columns the config maps, or one image folder a diagnosis."""

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
)
from lesions.data.photographs import images_below
from lesions.data.tasks import DIAGNOSES, WORDS
from lesions.errors import listed
from lesions.paths import shown

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val",
           "validation": "val", "test": "test", "": ""}  # fmt: skip


def read_generic(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of `source.table`, its columns renamed by `source.columns`.

    A diagnosis (translated by `source.diagnoses`) or a target is needed; a row with neither is a
    test row. Without a table every image folder is one diagnosis, by its name.
    """
    words = {word.lower(): known for word, known in source.diagnoses.items()}
    for word, known in words.items():
        if known not in DIAGNOSES:
            report.problem(f"source {name}", f"diagnoses: {word}: {known} is none of"
                           f" {', '.join(DIAGNOSES)}")  # fmt: skip
    path = folder / (source.table or "")
    rows = _read_table(name, source, path, report) if source.table else _from_folders(path, report)
    if "label" in rows:
        found = rows["label"].str.lower().map(WORDS | words)
        hint = f"not a diagnosis: say which it is under `diagnoses` ({', '.join(DIAGNOSES)})"
        report.rows(path, rows["label"].rename("diagnosis"), found.isna(), hint)
        rows["diagnosis"] = found.fillna("")
    rows = common_rows(rows, name).assign(own_target=rows.get("own", np.nan))
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
    files = [Path(path).relative_to(folder.resolve()) for path in images_below(folder)]
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
    require_names(report, folder, table["image_name"], table)
    return table


def _read_table(name: str, source: SourceConfig, path: Path, report: Report) -> pd.DataFrame:
    unknown = sorted(set(source.columns) - {*COMMON} - {"label"})
    if unknown or "image_name" not in source.columns:
        what = f"{listed(unknown)} unknown" if unknown else "image_name is missing"
        report.problem(f"source {name}", f"columns: {what}: known are {', '.join(COMMON)}")
        return no_rows(name)
    # Diagnosis and target are read as text: the source's own words come before ours, and an
    # unlabelled row has no target.
    renamed = {"diagnosis": "label", "target": "own_target"}
    rows = read_columns(report, path, {renamed.get(c, c): own for c, own in source.columns.items()})
    if "own_target" in rows:
        text = rows["own_target"].rename(source.columns["target"])
        rows["target"] = pd.to_numeric(text.mask(text == ""), errors="coerce").astype(float)
        rows["own"] = rows["target"]
        wrong = ~rows["target"].isin([0, 1]) & (text != "")
        report.rows(path, text, wrong, "expected 0, 1 or nothing")
    return rows
