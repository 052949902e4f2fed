"""Is this file what the competition takes, and what its author meant to send?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lesions.errors import InputError, listed
from lesions.files import read_csv
from lesions.paths import shown

HEADER = ["image_name", "target"]


def check_submission(path: Path, sample: Path, earlier: Sequence[Path] = ()) -> str:
    """One line on a submission that may be sent; InputError with everything wrong with another.

    `sample` is the competition's sample_submission.csv: its ids and their order are the standard.
    Of `earlier` submissions only those on the same images are compared.
    """
    table = read_csv(path, [], text=("image_name",))
    if list(table.columns) != HEADER:
        raise InputError(
            f"{shown(path)}: the header is {','.join(map(str, table.columns))}; "
            f"it must be {','.join(HEADER)}"
        )
    ids = read_csv(sample, ["image_name"], text=("image_name",))["image_name"]
    problems = _id_problems(table["image_name"], ids) + _value_problems(table["target"])
    if not problems:
        told, problems = _compare(table, earlier)
    if problems:
        told = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{shown(path)}: not to be sent:\n{told}")
    return f"{shown(path)}: {len(table):,} rows, {table['target'].nunique():,} values{told}: good"


def _id_problems(found: pd.Series, wanted: pd.Series) -> list[str]:
    problems = []
    if found.isna().any():
        problems.append(f"{int(found.isna().sum()):,} rows without an image_name")
    for ids, kind in (
        (wanted[~wanted.isin(found)], "missing images"),
        (found[~found.isin(wanted)].dropna(), "images not in the sample"),
        (found[found.duplicated()].dropna(), "doubled images"),
    ):
        if len(ids):
            problems.append(f"{kind}: {len(ids):,} ({listed(ids, 3)})")
    if not problems and not np.array_equal(found.to_numpy(), wanted.to_numpy()):
        first = int(np.argmax(found.to_numpy() != wanted.to_numpy()))
        problems.append(
            f"rows in another order than the sample's, from row {first + 1} on "
            f"({found.iloc[first]}, not {wanted.iloc[first]}): sort them as the sample"
        )
    return problems


def _value_problems(column: pd.Series) -> list[str]:
    values = pd.to_numeric(column, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        return [f"{int(bad.sum()):,} targets are not numbers, first in row {int(bad.argmax()) + 1}"]
    problems = []
    if ((values < 0) | (values > 1)).any():
        problems.append(f"targets run from {values.min():g} to {values.max():g}, not within 0 to 1")
    distinct = values.nunique()
    if distinct < 2:
        problems.append("the target is constant, so it ranks nothing")
    elif distinct < len(values) / 20:
        problems.append(
            f"only {distinct:,} distinct targets in {len(values):,} rows: ties cost AUC: "
            "write full precision, and probabilities instead of classes"
        )
    return problems


def _compare(table: pd.DataFrame, earlier: Sequence[Path]) -> tuple[str, list[str]]:
    """Rank correlation with each earlier submission, and the problem that a negative one is."""
    found: list[tuple[float, str]] = []
    for path in earlier:
        other = read_csv(path, HEADER, text=("image_name",)).set_index("image_name")["target"]
        if other.index.is_unique and set(other.index) == set(table["image_name"]):
            known = other.reindex(table["image_name"]).to_numpy(np.float64)
            found.append((float(spearmanr(table["target"], known).statistic), shown(path)))
    problems = [
        f"inverted? its rank correlation with {path} is {value:.2f}"
        for value, path in found
        if value < 0
    ]
    value, nearest = max(found, key=lambda each: each[0], default=(0.0, ""))
    return f", rank correlation {value:.3f} with {nearest}" if found else "", problems
