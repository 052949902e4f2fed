"""Predictions and the table that they belong to, read and joined by image_name."""

from pathlib import Path

import pandas as pd

from lesions import files
from lesions.data.tasks import classes_of, targets
from lesions.errors import InputError, listed
from lesions.evaluation.multiclass import classes_in
from lesions.paths import shown

TABLE_TEXT = (
    "image_name",
    "source",
    "split",
    "patient_id",
    "lesion_id",
    "diagnosis",
    "sex",
    "site",
)


def load_table(folder: Path) -> pd.DataFrame:
    """table.csv of a prepared data set, indexed by position, missing numbers as NaN."""
    columns = ["image_name", "source", "split", "diagnosis", "target", "sex", "age_approx"]
    columns += ["site", "width", "height", "group", "fold"]
    return files.read_csv(folder / "table.csv", columns, text=(*TABLE_TEXT, "group", "path"))


def read_predictions(path: Path) -> pd.DataFrame:
    """A file of predictions: image_name, and prob or prob_<class>."""
    table = files.read_csv(path, ["image_name"], ("image_name",))
    if not scores_of(table):
        raise InputError(f"{shown(path)}: no column prob or prob_<class>")
    return table[["image_name", *scores_of(table)]]


def scores_of(predictions: pd.DataFrame) -> list[str]:
    """The columns of probabilities: prob, or prob_<class>."""
    return [f"prob_{name}" for name in classes_in(predictions.columns)] or [
        name for name in ("prob",) if name in predictions
    ]


def label(table: pd.DataFrame, own: str, task: str) -> pd.DataFrame:
    """The table with the task's target, where its own is that of the task `own`.

    0 or 1, or with several classes the class's name; missing where there is none.
    """
    if task == own:
        return table
    target, names = targets(table["diagnosis"], task), dict(enumerate(classes_of(task)))
    return table.assign(target=target.map(names) if names else target)


def join_table(table: pd.DataFrame, predictions: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table's rows that have a prediction, in the table's order, with its columns."""
    names = predictions["image_name"]
    if names.duplicated().any():
        raise InputError(f"{what}: predicted twice: {listed(names[names.duplicated()])}")
    unknown = names[~names.isin(table["image_name"])]
    if len(unknown):
        raise InputError(
            f"{what}: {len(unknown):,} rows are not in table.csv ({listed(unknown)}): "
            "it was prepared again since; predict again, or prepare as before"
        )
    columns = scores_of(predictions)
    absent = int(predictions[columns].isna().any(axis=1).sum())
    if absent:
        raise InputError(f"{what}: {absent:,} probabilities are NaN")
    probs = predictions.set_index("image_name")[columns]
    here = table[table["image_name"].isin(names)]
    return here.assign(**{name: here["image_name"].map(probs[name]) for name in columns})
