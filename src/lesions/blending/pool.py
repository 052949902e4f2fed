"""The members of a blend side by side: what every method adds up and scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import rankdata

from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.intervals import Interval, bootstrap_values, delong
from lesions.evaluation.metrics import Floats, undefined_reason
from lesions.evaluation.scores import LABELS, all_scores, matrix_scores, names_of, score_rows

MOST_BUCKETS = 2**16  # their counts fit the second-level cache


class Search(NamedTuple):
    """What is added up of each member, (K, C, N), and the objective of a sum of them (C, N)."""

    columns: Floats
    score: Callable[[Floats], float]


@dataclass(frozen=True)
class Pool:
    """Codes `target` (N,) and the members' probabilities (K, N, C); of yes or no C = 1.

    `added` (K, N, C) is what methods add up. Of yes or no they are average ranks among all rows,
    exact halves in float64: sums of them are exact, so ties stay ties; a pool of some rows keeps
    the ranks that the rows have among all, which know no target. Of several classes they are the
    probabilities. `objective` is the score of scores.LABELS that methods raise.
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

    @property
    def scale(self) -> str:
        """What `added` is: rank, or prob."""
        return "prob" if self.several else "rank"

    @property
    def label(self) -> str:
        """The objective as a heading."""
        return LABELS[self.objective]

    def take(self, rows: ArrayLike) -> "Pool":
        """The pool of those rows."""
        chosen = np.asarray(rows)
        probs, added = self.probs[:, chosen], self.added[:, chosen]
        return replace(self, target=self.target[chosen], probs=probs, added=added)

    def search(self) -> Search:
        """What methods add up, arranged so that each of their steps is fast."""
        return Search(self._arranged(self.added), self._objective)

    def score(self, blended: Floats) -> float:
        """The objective of blended scores (N, C)."""
        return self._objective(self._arranged(blended))

    def blend(self, weights: Floats, scale: str) -> Floats:
        """Blended scores (N, C) between 0 and 1; of several classes they sum to 1."""
        if scale == "logit":
            return expit(self._weighted(clipped_logit(self.probs), weights))
        if scale == "prob":
            return self._weighted(self.probs, weights)
        return self._weighted(self.added, weights) / self.added.max()

    def comparable(self, blended: Floats) -> Floats:
        """The scores, of yes or no as ranks: blends of different weights then share one scale."""
        return blended if self.several else rankdata(blended, axis=0) / len(blended)

    def bootstrap(self, scores: Sequence[Floats], groups: ArrayLike) -> Floats:
        """The objective of each of `scores` (N, C) on the same resamples of groups, (2,000, K)."""
        place = names_of(len(self.classes)).index(self.objective)
        return bootstrap_values(all_scores, self.target, scores, groups)[:, :, place]

    def intervals(self, groups: ArrayLike) -> dict[str, Interval]:
        """The objective of each member; AUC by DeLong."""
        return {
            name: score_rows(self.target, probs, self.classes, groups).overall[self.objective]
            if self.several
            else delong(self.target, probs[:, 0], groups)
            for name, probs in zip(self.names, self.probs, strict=True)
        }

    def undefined(self) -> str | None:
        """Why nothing can be scored on these rows, or None."""
        if self.several:
            return "one class only" if len(np.unique(self.target)) < 2 else None
        return undefined_reason(self.target, self.added[0, :, 0])

    def correlation(self) -> Floats:
        """Correlation of what is added up of each two members, (K, K)."""
        return np.asarray(np.corrcoef(self.added.reshape(len(self.names), -1)))

    def _weighted(self, values: Floats, weights: Floats) -> Floats:
        return (values.reshape(len(values), -1).T @ weights).reshape(values.shape[1:])

    @property
    def _own(self) -> list[NDArray[np.bool_]]:
        """Of each class, which rows are of it; of yes or no, which are yes."""
        codes = range(len(self.classes)) if self.several else [1]
        return [self.target == code for code in codes]

    def _arranged(self, values: Floats) -> Floats:
        """Scores (..., N, C) as (..., C, N); for AUC the class's own rows come first."""
        columns = np.moveaxis(values, -1, -2).copy()
        if self.objective not in ("auc", "macro_auc"):
            return columns
        for place, own in enumerate(self._own):
            order = np.concatenate([np.flatnonzero(own), np.flatnonzero(~own)])
            columns[..., place, :] = columns[..., place, order]
        return columns

    @property
    def _objective(self) -> Callable[[Floats], float]:
        """The objective of sums (C, N) that are `_arranged`, in milliseconds."""
        if self.objective in ("auc", "macro_auc"):
            rows = len(self.target)
            counts = [(place, int(own.sum())) for place, own in enumerate(self._own)]
            known = [(place, count) for place, count in counts if 0 < count < rows]
            return lambda total: float(
                np.mean([fast_auc(total[k, :count], total[k, count:]) for k, count in known])
            )
        size = len(self.classes)

        def score(total: Floats) -> float:
            cells = np.bincount(self.target * size + total.argmax(axis=0), minlength=size**2)
            matrix = cells.reshape(1, size, size).astype(np.float64)
            return float(matrix_scores(matrix)[self.objective][0])

        return score


def build_pool(
    probs: Floats,
    names: Sequence[str],
    classes: Sequence[str],
    target: ArrayLike | None = None,
    objective: str | None = None,
) -> Pool:
    """The members ranked once, so that no step of any method ranks or sorts them again.

    `probs` are (K, N, C). Without `target`, as on a test set, the pool can be blended but not
    fitted. `objective` None is AUC, of several classes the macro AUC.
    """
    codes = np.full(probs.shape[1], -1) if target is None else np.asarray(target)
    added = probs if len(classes) > 1 else rankdata(probs, axis=1)
    objective = objective or names_of(len(classes))[0]
    return Pool(tuple(names), tuple(classes), codes.astype(np.int64), probs, added, objective)


def fast_auc(positives: Floats, negatives: Floats) -> float:
    """Share of (positive, negative) pairs in order, ties half; both float64, finite, not empty."""
    count = len(positives)
    rising = np.sort(positives)
    low, width = rising[0], rising[-1] - rising[0]
    buckets = min(MOST_BUCKETS, max(1024, len(negatives)))
    # A rising function of the score: a higher bucket means a higher score, whatever the rounding.
    # Positives closer together than any bucket can be are compared one by one.
    scale = (buckets - 1) / width if width > 1e-290 else 0.0
    held = np.bincount(((rising - low) * scale).astype(np.int32), minlength=buckets)

    # Two more buckets: 0 for negatives below every positive, the last for those above.
    above = np.zeros(buckets + 2, dtype=np.int32)
    above[0], above[1:-1] = count, count - np.cumsum(held)
    shared = np.zeros(buckets + 2, dtype=bool)
    shared[1:-1] = held > 0

    place = negatives - low
    with np.errstate(over="ignore"):  # infinitely far is far enough for the last bucket
        place *= scale
    np.clip(place, -1, buckets, out=place)
    index = np.floor(place, out=place).astype(np.int32)
    index += 1
    beaten_by = above[index]
    close = shared[index]
    rest = negatives[close]
    lower = np.searchsorted(rising, rest, side="left").sum()
    not_higher = np.searchsorted(rising, rest, side="right").sum()
    settled = int(beaten_by.sum(dtype=np.int64)) - int(beaten_by[close].sum(dtype=np.int64))
    concordant = settled + count * len(rest) - (int(lower) + int(not_higher)) / 2
    return concordant / (count * len(negatives))
