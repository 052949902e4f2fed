"""Predictions in CSV files: one score an image, called prob, or a probability per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.errors import InputError
from lesions.evaluation.multiclass import classes_in
from lesions.files import read_csv
from lesions.paths import shown


def read_oof(path: Path) -> pd.DataFrame:
    """image_name, target and probabilities of an out-of-fold CSV.

    A single score may be called prob or pred; several are prob_<class>.
    """
    table = read_csv(path, ["image_name", "target"], text=("image_name",))
    return table[["image_name", "target"]].join(_scores(table, path, ("prob", "pred")))


def read_test(path: Path) -> pd.DataFrame:
    """image_name and probabilities of a submission: a single one is called target, prob or pred."""
    table = read_csv(path, ["image_name"], text=("image_name",))
    return table[["image_name"]].join(_scores(table, path, ("target", "prob", "pred")))


def _scores(table: pd.DataFrame, path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Column prob from the first of `names`, or the columns prob_<class>; InputError if neither."""
    classes = [f"prob_{name}" for name in classes_in(table.columns)]
    if classes:
        probs = pd.DataFrame({name: _numbers(table[name], path, name) for name in classes})
        odd = (probs.sum(axis=1) - 1).abs() > 1e-3
        if odd.any():
            raise InputError(
                f"{shown(path)}: the probabilities of {int(odd.sum()):,} rows do not sum to 1, "
                f"first those of {table['image_name'][odd].iloc[0]}"
            )
        return probs
    score = next((name for name in names if name in table.columns), None)
    if score is None:
        raise InputError(f"{shown(path)}: no column {', '.join(names)} or prob_<class>")
    return pd.DataFrame({"prob": _numbers(table[score], path, score)})


def _numbers(column: pd.Series, path: Path, name: str) -> pd.Series:
    """The column as numbers from 0 to 1, or InputError."""
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise InputError(f"{shown(path)}: {name} is not a number in {int(bad.sum()):,} rows")
    if ((numbers < 0) | (numbers > 1)).any():
        raise InputError(
            f"{shown(path)}: {name} runs from {numbers.min():g} to {numbers.max():g}: "
            "give probabilities, 0 to 1"
        )
    return numbers
