"""Submissions: is a file what the competition takes, its estimate, and the scores so far."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lesions.errors import InputError, listed
from lesions.evaluation.intervals import Interval, delong
from lesions.files import read_csv, read_json, sha256
from lesions.oof import load_oof
from lesions.paths import at, shown

TEXT = ("sent", "file", "sha256", "message", "status", "cv_of")  # columns of scores.csv
NAMES = ("image_name", "isic_id")  # of the images: in SIIM-ISIC 2020, and in ISIC 2024


def check_submission(path: Path, sample: Path, earlier: Sequence[Path] = ()) -> str:
    """One line on a submission that may be sent; InputError with everything wrong with another.

    `sample` is the competition's sample_submission.csv: its header, ids and their order are the
    standard. Of `earlier` submissions only those on the same images are compared.
    """
    table, name = read_csv(path, [], text=NAMES), NAMES["isic_id" in read_csv(sample)]
    if list(table.columns) != [name, "target"]:
        raise InputError(
            f"{shown(path)}: the header is {','.join(map(str, table.columns))}; "
            f"it must be {name},target as in {shown(sample)}"
        )
    table = table.rename(columns={name: "image_name"})
    told, problems = "", _problems(table, read_csv(sample, [name], [name])[name])
    if not problems:
        told, problems = _compare(table, earlier)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"{shown(path)}: not to be sent:\n{lines}")
    return f"{shown(path)}: {len(table):,} rows, {table['target'].nunique():,} values{told}: good"


def _problems(table: pd.DataFrame, wanted: pd.Series) -> list[str]:
    """What is wrong with ids, their order and targets, a line each."""
    found, rows = table["image_name"], pd.Series(np.arange(1, len(table) + 1))
    values = pd.to_numeric(table["target"], errors="coerce").astype(np.float64)
    problems = [
        f"{wrong}: {len(which):,} ({listed(which, 3)})"
        for wrong, which in (
            ("rows without an image_name", rows[found.isna()]),
            ("images that the sample has twice", wanted[wanted.duplicated()]),
            ("missing images", wanted[~wanted.isin(found)]),
            ("images not in the sample", found[~found.isin(wanted)].dropna()),
            ("doubled images", found[found.duplicated()].dropna()),
            ("rows whose targets are not numbers", rows[~np.isfinite(values)]),
            ("rows whose targets are not within 0 to 1", rows[(values < 0) | (values > 1)]),
        )
        if len(which)
    ]
    if not problems and (other := found.to_numpy() != wanted.to_numpy()).any():
        first = int(other.argmax())
        problems.append(
            f"rows in another order than the sample's, from row {first + 1} on "
            f"({found.iloc[first]}, not {wanted.iloc[first]}): sort them as the sample"
        )
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
        rows = read_csv(path, ["target"], text=NAMES)
        other = rows.set_index(str(rows.columns[0]))["target"]
        if other.index.is_unique and set(other.index) == set(table["image_name"]):
            known = pd.to_numeric(other, errors="coerce").reindex(table["image_name"]).to_numpy()
            if not np.isfinite(known).all():
                raise InputError(f"{shown(path)}: targets that are not numbers: leave it out")
            found.append((float(spearmanr(table["target"], known).statistic), shown(path)))
    problems = [
        f"inverted? its rank correlation with {path} is {value:.2f}"
        for value, path in found
        if value < 0
    ]
    value, nearest = max(found, key=lambda each: each[0], default=(0.0, ""))
    return f", rank correlation {value:.3f} with {nearest}" if found else "", problems


def cv_estimate(path: Path) -> tuple[Interval, str]:
    """AUC on held-out patients and what it is of: a blend, nested, or a run's out-of-fold rows.

    The record beside the file names them; undefined, with the reason, if it is of other bytes.
    """
    beside = path.with_suffix(".json")
    facts = read_json(beside) if beside.exists() else {}
    made = facts.get("sha256") or facts.get("submission", {}).get("sha256")
    if made != sha256(path):
        problem = "is of another file than this" if made else "is missing"
        return Interval(reason=f"{beside.name} {problem}: blend or predict again"), ""
    if "methods" in facts:
        method = facts.get("estimate") or facts["methods"][facts["chosen"]]
        interval = method["interval"] or (float("nan"), float("nan"))
        origin = f"nested, {facts['chosen']} of {len(facts['members'])}"
        return Interval(method["nested"], *interval), origin
    try:
        oof = load_oof(facts["run"]).of_source()
    except InputError as error:
        return Interval(reason=str(error)), ""
    positive, score = oof.positive, oof.score
    if facts.get("column"):  # the submitted class of a run of several
        number = oof.task.classes.index(facts["column"])
        positive, score = oof.codes == number, oof.probs[:, number]
    origin = f"out-of-fold, {len(oof.files)} folds of {facts['run']}"
    return delong(positive, score, oof.groups), origin


def load_scores() -> pd.DataFrame:
    """The submissions of scores.csv, oldest first; empty without that file."""
    path = at("submissions/scores.csv")
    if not path.exists():
        return pd.DataFrame(columns=["file", "ref"])
    return read_csv(path, ["file", "ref", "cv", "public"], text=TEXT)
