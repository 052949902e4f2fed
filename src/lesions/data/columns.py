"""Checked columns of an official CSV: what is wrong is said with the file and the row."""

from pathlib import Path

import numpy as np
import pandas as pd

from lesions.errors import InputError, listed


def require_unique(path: Path, ids: pd.Series) -> None:
    """InputError if an image id stands in the file twice, or is empty."""
    empty = np.flatnonzero(ids.isna() | (ids.astype(str).str.strip() == ""))
    if len(empty):
        raise InputError(f"{path}: row {empty[0] + 2}: empty {ids.name}: every row is one image")
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        row = ids.duplicated().to_numpy().argmax() + 2
        raise InputError(
            f"{path}: row {row}: {ids.name} stands there before: {listed(twice)}:"
            " keep one row an image"
        )


def require_target(path: Path, values: pd.Series) -> pd.Series:
    """The column as floats; InputError unless each is 0 or 1."""
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = np.flatnonzero(~numbers.isin([0, 1]))
    if len(wrong):
        raise InputError(
            f"{path}: row {wrong[0] + 2}: {values.name} is {values.iloc[wrong[0]]!r}, expected 0"
            f" or 1 ({len(wrong):,} such rows)"
        )
    return numbers.astype(float)


def number(path: Path, values: pd.Series) -> pd.Series:
    """The column as floats, NaN where empty or "unknown"; InputError for other text."""
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & ~text(values).isin(["", "unknown"]))
    if len(wrong):
        raise InputError(
            f"{path}: row {wrong[0] + 2}: {values.name} is {values.iloc[wrong[0]]!r}, expected a"
            f" number ({len(wrong):,} such rows)"
        )
    return numbers.astype(float)


def text(values: pd.Series) -> pd.Series:
    """The column as stripped strings, "" where missing."""
    return values.astype(object).where(values.notna(), "").astype(str).str.strip()
