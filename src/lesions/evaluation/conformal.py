"""Sets of classes that cannot be excluded: conformal prediction by class and age band.

A class is in the set if its probability reaches a cut that 90 % of that class's held-out lesions
reach, in the same age band (Vovk 2012, "Conditional validity of inductive conformal predictors").
One cut for all rows covers 90 % of them, and far fewer of the malignant lesions of the young.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from lesions.evaluation.metrics import Floats, all_columns

COVERED = 0.9
AGES = [30, 45, 60, 75]  # years at which a band begins
FEWEST = 9  # groups: of fewer, no cut is known to cover 90 %
ALONE = 20  # groups of a class in an age band that give it a cut of its own


class Sets(BaseModel):
    """The cuts of each age band; the last one is for an unknown age."""

    model_config = ConfigDict(extra="forbid")

    classes: list[str]  # of yes or no the one of yes
    cuts: list[list[float]]  # the lowest probability of each class in the set; [] for too few rows
    problems: list[str]  # of each band, why it has no cuts
    malignant_covered: float | None = None  # share of malignant held-out rows, cross-fitted
    size: float | None = None  # mean number of classes in the set of a held-out row

    def apply(self, probs: Floats, ages: ArrayLike) -> np.ndarray:
        """Which classes are in the set of each row, bool (N, C); all of them without cuts.

        The most probable class always is. Of yes or no C is 2: no, yes.
        """
        probs = all_columns(probs)
        cuts = np.array([cuts or [0.0] * probs.shape[1] for cuts in self.cuts])
        held = probs >= cuts[age_bands(ages)]
        held[np.arange(len(probs)), probs.argmax(axis=1)] = True
        return held

    def problem(self, age: float | None) -> str:
        """Why there is no set for a photograph of that age; "" where there is one."""
        return self.problems[int(age_bands(np.nan if age is None else age))]

    def cannot_exclude(self, probs: Floats, age: float | None) -> list[str] | None:
        """The classes that cannot be excluded, the most probable first; None where `problem`."""
        if self.problem(age):
            return None
        held = self.apply(probs[None], [np.nan if age is None else age])[0, -len(self.classes) :]
        return [self.classes[k] for k in np.argsort(-probs) if held[k]]


def age_bands(ages: ArrayLike) -> np.ndarray:
    """The band of each age in years, (N,): 0 is younger than AGES[0], the last is NaN."""
    ages = np.asarray(ages, dtype=float)
    return np.where(np.isnan(ages), len(AGES) + 1, np.searchsorted(AGES, ages, side="right"))


def fit_sets(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], malignant: ArrayLike,
    ages: ArrayLike, groups: ArrayLike,
) -> Sets:  # fmt: skip
    """The cuts of held-out rows: `probs` are (N, C) or of yes (N, 1), `malignant` (C,).

    Within an age band, classes of fewer than ALONE groups share a cut with others of their side,
    malignant or not. A band where a side has fewer than FEWEST groups has no cuts. For an unknown
    age the cuts are the lowest of any band and of all rows.
    """
    codes, probs, bands = np.asarray(codes), all_columns(probs), age_bands(ages)
    groups = pd.factorize(np.asarray(groups))[0]
    sides = all_columns(malignant).astype(bool)
    true = probs[np.arange(len(codes)), codes]
    cuts, problems = [], []
    for rows in [*(bands == band for band in range(len(AGES) + 1)), bands >= 0]:
        found, lacking = np.zeros(len(sides)), []
        for side in np.unique(sides):
            own = rows & (sides[codes] == side)
            if (count := len(np.unique(groups[own]))) < FEWEST:
                kind = "malignant" if side else "benign"
                lacking.append(f"{count} {kind} lesions of this age to learn from, {FEWEST} needed")
                continue
            members = np.flatnonzero(sides == side)
            few = [k for k in members if len(np.unique(groups[own & (codes == k)])) < ALONE]
            shared = own & np.isin(codes, few)
            shared = shared if len(np.unique(groups[shared])) >= FEWEST else own
            for k in members:
                of = shared if k in few else own & (codes == k)
                found[k] = lowest(true[of], groups[of])
        cuts.append([] if lacking else found.tolist())
        problems.append("; ".join(lacking))
    if cuts[-1]:
        cuts[-1] = np.min([cut for cut in cuts if cut], axis=0).tolist()
    return Sets(classes=list(classes), cuts=cuts, problems=problems)


def lowest(scores: Floats, groups: np.ndarray) -> float:
    """The highest cut that 90 % of new groups' scores reach; each group counts once.

    Lee, Barber & Willett 2023, "Distribution-free inference with hierarchical data".
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    below = np.cumsum(1 / sizes[codes[order]])  # groups at or below each score
    allowed = (1 - COVERED) * (len(sizes) + 1) - 1  # one is the new group itself
    return float(scores[order][np.searchsorted(below, allowed + 1e-9, side="right")])
