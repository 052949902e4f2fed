"""The members of a blend side by side: what every method adds up and scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import rankdata

from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import matrix_scores, names_of

CONTEXT = ("above the patient's mean", "rank within the patient")


@dataclass(frozen=True)
class Pool:
    """Codes `target` (N,) and the members' probabilities (K, N, C); of yes or no C = 1.

    `added` (K, N, C) is what methods add up. Of yes or no these are average ranks among all rows,
    exact halves whose sums are exact, so that ties stay ties; a pool of some rows keeps them. Of
    several classes they are the probabilities. `objective` is the score of scores.LABELS that
    methods raise. If the blend is to use it, `patient_context` follows the members in `probs`.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    target: NDArray[np.int64]
    probs: Floats
    added: Floats
    objective: str

    @property
    def several(self) -> bool:
        return len(self.classes) > 1

    def take(self, rows: np.ndarray) -> "Pool":
        """The pool of the rows of a mask."""
        rows = np.flatnonzero(rows)  # twice as fast as a mask along the second axis
        probs, added = self.probs[:, rows], self.added[:, rows]
        return replace(self, target=self.target[rows], probs=probs, added=added)

    def search(self, values: Floats) -> tuple[Floats, Callable[[Floats], float]]:
        """Scores (..., N, C) arranged as (..., C, N), and the objective of a sum of them (C, N).

        For AUC the rows of each class come first: slices of them, and no masks, are compared.
        """
        columns, size = np.moveaxis(values, -1, -2).copy(), len(self.classes)
        if self.objective not in ("auc", "macro_auc"):

            def score(total: Floats) -> float:
                cells = np.bincount(self.target * size + total.argmax(axis=0), minlength=size**2)
                matrix = cells.reshape(1, size, size).astype(np.float64)
                return float(matrix_scores(matrix)[self.objective][0])

            return columns, score

        counts: dict[int, int] = {}  # rows of each class that has some and not all
        for place in range(size):
            other = self.target != (place if self.several else 1)
            columns[..., place, :] = columns[..., place, np.argsort(other, kind="stable")]
            if 0 < other.sum() < len(other):
                counts[place] = int((~other).sum())

        def mean_auc(total: Floats) -> float:
            aucs = (fast_auc(total[k, :count], total[k, count:]) for k, count in counts.items())
            return sum(aucs) / len(counts)

        return columns, mean_auc

    def score(self, blended: Floats) -> float:
        """The objective of blended scores (N, C)."""
        columns, score = self.search(blended)
        return score(columns)


def build_pool(
    probs: Floats,
    names: Sequence[str],
    classes: Sequence[str],
    target: ArrayLike | None = None,
    objective: str | None = None,
    patients: ArrayLike | None = None,
) -> Pool:
    """The members ranked once, so that no step of any method ranks or sorts them again.

    `probs` are (K, N, C). Without `target`, as on a test set, the pool can be blended but not
    fitted. `objective` None is AUC, of several classes the macro AUC. `patients` (N,) add
    `patient_context`.
    """
    codes = np.full(probs.shape[1], -1) if target is None else np.asarray(target)
    added = probs if len(classes) > 1 else rankdata(probs, axis=1)
    objective = objective or names_of(len(classes))[0]
    if patients is not None:
        probs = np.concatenate([probs, patient_context(probs, patients)])
    return Pool(tuple(names), tuple(classes), codes.astype(np.int64), probs, added, objective)


def patient_context(probs: Floats, patients: ArrayLike) -> Floats:
    """How far each row's mean logit is above its patient's mean, and its rank there, (2, N, 1).

    Between 0 and 1, as the members are; without any target. A patient's only row has 0.5 twice.
    """
    score = pd.Series(clipped_logit(probs[:, :, 0]).mean(axis=0))
    own = score.groupby(pd.factorize(np.asarray(patients))[0])
    ranks = (own.rank() - 0.5) / own.transform("size")
    return np.stack([expit(score - own.transform("mean")), ranks])[:, :, None]


def fast_auc(positives: Floats, negatives: Floats) -> float:
    """Share of (positive, negative) pairs in order, ties half; neither empty."""
    rising, searched = np.sort(negatives), np.sort(positives)  # in order the search stays in cache
    below, not_above = (rising.searchsorted(searched, side) for side in ("left", "right"))
    return int((below + not_above).sum()) / 2 / (len(positives) * len(negatives))
