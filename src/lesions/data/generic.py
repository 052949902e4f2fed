"""Anyone's own data set: a CSV with a column map in the config, or one folder a diagnosis."""

from pathlib import Path

import pandas as pd

from lesions.config import SourceConfig
from lesions.data.columns import COMMON, Report, common_rows, no_rows, read_columns
from lesions.data.photographs import SUFFIXES
from lesions.data.tasks import DIAGNOSES, WORDS
from lesions.errors import listed

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val",
           "validation": "val", "test": "test", "": ""}  # fmt: skip


def read_generic(name: str, source: SourceConfig, folder: Path, report: Report) -> pd.DataFrame:
    """The rows of `source.table`, its columns renamed by `source.columns`.

    A diagnosis (after `source.diagnoses`) or a target is needed; a row with neither is a test row.
    Without a table every image folder is one diagnosis, by its name.
    """
    nothing = no_rows(name)
    words = {word.lower(): known for word, known in source.diagnoses.items()}
    for word, known in words.items():
        if known not in DIAGNOSES:
            report.problem(f"source {name}", f"diagnoses: {word}: {known} is none of"
                           f" {', '.join(DIAGNOSES)}")  # fmt: skip
    if source.table is None:
        rows, path = _from_folders(folder), folder
        if rows.empty:
            report.problem(folder, "no image in a folder of it: give `table`, or folders by class")
            return nothing
    else:
        path = folder / source.table
        unknown = sorted(set(source.columns) - {*COMMON} - {"label"})
        if unknown or "image_name" not in source.columns:
            what = f"{listed(unknown)} unknown" if unknown else "image_name is missing"
            report.problem(f"source {name}", f"columns: {what}: known are {', '.join(COMMON)}")
            return nothing
        # A diagnosis is read as text first: the source's own words come before ours.
        own = {"label" if column == "diagnosis" else column: theirs
               for column, theirs in source.columns.items() if column != "target"}  # fmt: skip
        found = read_columns(report, path, own)
        if found is None:
            return nothing
        rows = found
        if "target" in source.columns:
            rows["target"] = _target(report, path, source.columns["target"])
    if "label" in rows:
        rows["diagnosis"] = _diagnosis(report, path, rows["label"], words)
    return _with_splits(report, path, common_rows(rows, name))


def _from_folders(folder: Path) -> pd.DataFrame:
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    files = [path for path in files if path.parent != folder]
    return pd.DataFrame(
        {"image_name": [path.stem for path in files], "label": [p.parent.name for p in files]},
        dtype=object,
    )


def _diagnosis(report: Report, path: Path, label: pd.Series, words: dict[str, str]) -> pd.Series:
    found = label.str.lower().map(WORDS | words)
    hint = f"not a diagnosis: say which it is under `diagnoses` ({', '.join(DIAGNOSES)})"
    report.rows(path, label.rename("diagnosis"), found.isna().to_numpy(), hint)
    return found.fillna("")


def _target(report: Report, path: Path, column: str) -> pd.Series | float:
    """0, 1, or nothing on an unlabelled row."""
    rows = read_columns(report, path, {"value": column})
    if rows is None:
        return float("nan")
    number = pd.to_numeric(rows["value"].mask(rows["value"] == ""), errors="coerce").astype(float)
    wrong = ~number.isin([0, 1]) & (rows["value"] != "")
    report.rows(path, rows["value"].rename(column), wrong.to_numpy(), "expected 0, 1 or nothing")
    return number


def _with_splits(report: Report, path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """An unlabelled row is a test row; the file's own split, if it has one, is the official one."""
    told = rows["official"].str.lower()
    report.rows(path, told, (~told.isin([*_SPLITS])).to_numpy(), "expected train, val or test")
    rows["official"] = told.map(_SPLITS).fillna("")
    rows["split"] = "train"
    return rows.assign(split=rows["split"].mask(rows["target"].isna(), "test"))
