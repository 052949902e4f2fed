"""Grouped, stratified folds: no group in two folds, every fold alike."""

import hashlib

import numpy as np
import pandas as pd

from lesions.errors import InputError, listed


def strata(table: pd.DataFrame, diagnoses: bool = False) -> pd.Series:
    """The stratum of each row: source, target, and how many images its patient has.

    `diagnoses`: its diagnosis too, for tasks with more than two classes.
    """
    bins = pd.cut(table["images_per_patient"], [0, 5, 15, 40, np.inf], labels=False).fillna(-1)
    target = table["target"].fillna(-1).astype(int).astype(str)
    stratum = table["source"] + " " + target + " " + bins.astype(int).astype(str)
    return stratum + " " + table["diagnosis"] if diagnoses else stratum


def split_groups(
    table: pd.DataFrame, shares: list[float], seed: int, diagnoses: bool = False
) -> np.ndarray:
    """The part (0..len(shares)-1) of each row: groups stay whole, strata fall by `shares`.

    Groups are dealt out from the largest to the smallest, each to the part where it adds least to
    the chi-square distance from those shares, over the strata, all rows and all positives. Equal
    groups come in the order of a hash of seed and name: the outcome depends on the rows alone.
    """
    counts = pd.crosstab(table["group"], strata(table, diagnoses))
    sizes = counts.sum(axis=1)
    positives = table["target"].fillna(0).groupby(table["group"]).sum().reindex(counts.index)
    features = np.column_stack([counts, sizes, positives]).astype(float)
    features = features[:, features.sum(axis=0) > 0]
    features /= np.sqrt(features.sum(axis=0))  # so that squared differences are chi-square terms
    tie = np.array([hashlib.sha256(f"{seed} {name}".encode()).hexdigest() for name in counts.index])
    share = np.array(shares, float)[:, None] / np.sum(shares)
    wanted = share * features.sum(axis=0)
    filled = np.zeros_like(wanted)
    parts = np.empty(len(counts), int)
    for row in np.lexsort([tie, -positives.to_numpy(), -sizes.to_numpy()]):
        group = features[row]
        added = group * (2 * (filled - wanted) + group) / share
        parts[row] = added.sum(axis=1).argmin()
        filled[parts[row]] += group
    return pd.Series(parts, index=counts.index).reindex(table["group"]).to_numpy()


def add_folds(table: pd.DataFrame, folds: int, seed: int, diagnoses: bool = False) -> pd.DataFrame:
    """The table with `fold`: 0..folds-1 on train rows, -1 elsewhere."""
    train = table["split"] == "train"
    groups = table.loc[train, "group"].nunique()
    if groups < folds:
        raise InputError(f"{groups} groups cannot fill {folds} folds: lower `folds`")
    fold = np.full(len(table), -1)
    fold[train] = split_groups(table[train], [1.0] * folds, seed, diagnoses)
    return table.assign(fold=fold)


def straddling(table: pd.DataFrame) -> list[str]:
    """Groups that lie in two folds, or in a fold and the test rows of a held-out split."""
    part = table["fold"].where(table["split"] == "train", -2)
    used = table["split"] != "quarantined"
    parts = part[used].groupby(table.loc[used, "group"]).nunique()
    return parts.index[parts > 1].tolist()


def require_whole_groups(table: pd.DataFrame, where: str) -> None:
    """InputError if a group straddles folds: a model would be scored on what it has seen."""
    broken = straddling(table)
    if broken:
        raise InputError(
            f"{where}: {len(broken):,} groups lie in two folds ({listed(broken)}):"
            " run scripts/prepare.py again"
        )


def fold_hash(table: pd.DataFrame) -> str:
    """Sixteen hex digits of who is in which fold with which target, whatever the row order.

    Rows that are trained on and never scored (fold -1: data/schemes.py) count too.
    """
    used = (table["fold"] >= 0) | (table["split"] == "train")
    rows = table.loc[used, ["image_name", "fold", "target"]]
    rows = rows.sort_values("image_name")
    lines = "\n".join(f"{n} {f} {t:g}" for n, f, t in rows.itertuples(index=False))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
