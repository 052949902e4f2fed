"""The members of a blend side by side: what every method adds up and scores.

`class_pool.ClassPool` answers the same questions for tasks with more than two classes, so that
methods and nested estimates are written once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import rankdata

from lesions.blending.fast_auc import fast_auc
from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.delong import delong
from lesions.evaluation.intervals import Interval, bootstrap_values
from lesions.evaluation.metrics import Floats, roc_auc, undefined_reason


class Search(NamedTuple):
    """Of each member what is added up, (K, ...), and what the sum of some of them scores."""

    columns: Floats
    score: Callable[[Floats], float]


@dataclass(frozen=True)
class Pool:
    """Target (N,) and the members' scores (N, K), one column a member.

    `ranks` are average ranks among all rows, exact halves in float64: sums of them are exact, so
    ties stay ties. A pool of some rows keeps the ranks that the rows have among all: ranks know
    no target.
    """

    names: tuple[str, ...]
    target: NDArray[np.int64]
    probs: Floats
    ranks: Floats

    classes: ClassVar[tuple[str, ...]] = ()
    objective: ClassVar[str] = "auc"
    label: ClassVar[str] = "AUC"
    scale: ClassVar[str] = "rank"
    powers: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0, 8.0)
    sizes: ClassVar[range] = range(1, 5)  # of the subsets that are tried

    def take(self, rows: ArrayLike) -> "Pool":
        """The pool of those rows."""
        chosen = np.asarray(rows)
        probs, ranks = (np.asfortranarray(m[chosen]) for m in (self.probs, self.ranks))
        return Pool(self.names, self.target[chosen], probs, ranks)

    def split_ranks(self) -> tuple[Floats, Floats]:
        """Ranks of the positives and of the negatives, columns contiguous."""
        positive = self.target == 1
        return np.asfortranarray(self.ranks[positive]), np.asfortranarray(self.ranks[~positive])

    def search(self) -> Search:
        """The ranks, positives first, and the AUC of their sums."""
        positives, negatives = self.split_ranks()
        count = len(positives)
        columns = np.concatenate([positives.T, negatives.T], axis=1)
        return Search(columns, lambda total: fast_auc(total[:count], total[count:]))

    def score(self, blended: Floats) -> float:
        """AUC of scores (N,)."""
        positive = self.target == 1
        return fast_auc(blended[positive], blended[~positive])

    def blend(self, weights: Floats, scale: str, power: float) -> Floats:
        """Blended scores, (N,) between 0 and 1."""
        if scale == "prob":
            return self.probs @ weights
        if scale == "logit":
            return expit(clipped_logit(self.probs) @ weights)
        if power == 1:
            return self.ranks @ weights / self.ranks.max()
        return ((self.ranks / self.ranks.max()) ** power @ weights) ** (1 / power)

    def comparable(self, blended: Floats) -> Floats:
        """The scores as ranks: parts with different weights then share one scale, as AUC needs."""
        return rankdata(blended) / len(blended)

    def bootstrap(self, scores: Sequence[Floats], groups: ArrayLike, seed: int = 0) -> Floats:
        """AUC of each of `scores` on the same resamples of groups, (2,000, K)."""
        return bootstrap_values(roc_auc, self.target, scores, groups, seed=seed)

    def intervals(self, groups: ArrayLike) -> dict[str, Interval]:
        """AUC of each member."""
        columns = zip(self.names, self.probs.T, strict=True)
        return {name: delong(self.target, column, groups) for name, column in columns}

    def undefined(self) -> str | None:
        """Why nothing can be scored on these rows, or None."""
        return undefined_reason(self.target, self.ranks[:, 0])

    def columns(self, blended: Floats, name: str) -> dict[str, Floats]:
        """The blended scores as columns of a file, under `name`."""
        return {name: blended}

    def correlation(self) -> Floats:
        """How alike the members are, (K, K): correlation of their ranks."""
        return np.asarray(np.corrcoef(self.ranks, rowvar=False))

    def counts(self) -> dict[str, Any]:
        """What the rows are, for blend.json."""
        return {"positives": int((self.target == 1).sum())}


def build_pool(probs: pd.DataFrame, target: ArrayLike | None = None) -> Pool:
    """The members ranked once, so that no step of any method ranks or sorts them again.

    Without `target`, as on a test set, the pool can be scored but not fitted.
    """
    target = np.full(len(probs), -1) if target is None else target
    matrix = np.asfortranarray(probs.to_numpy(np.float64))
    ranks = np.asfortranarray(rankdata(matrix, axis=0))
    return Pool(tuple(map(str, probs.columns)), np.asarray(target).astype(np.int64), matrix, ranks)
