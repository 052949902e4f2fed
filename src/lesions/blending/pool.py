"""The members of a blend side by side: what every method adds up and scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import LABELS, matrix_scores, names_of

MOST_BUCKETS = 2**16  # their counts fit the second-level cache


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
    def label(self) -> str:
        """The objective as a heading."""
        return LABELS[self.objective]

    def take(self, rows: np.ndarray) -> "Pool":
        """The pool of the rows of a mask."""
        probs, added = self.probs[:, rows], self.added[:, rows]
        return replace(self, target=self.target[rows], probs=probs, added=added)

    def search(self, values: Floats) -> tuple[Floats, Callable[[Floats], float]]:
        """Scores (..., N, C) arranged as (..., C, N), and the objective of a sum of them (C, N).

        It takes milliseconds: for AUC the class's own rows come first.
        """
        columns, size = np.moveaxis(values, -1, -2).copy(), len(self.classes)
        if self.objective not in ("auc", "macro_auc"):

            def score(total: Floats) -> float:
                cells = np.bincount(self.target * size + total.argmax(axis=0), minlength=size**2)
                matrix = cells.reshape(1, size, size).astype(np.float64)
                return float(matrix_scores(matrix)[self.objective][0])

            return columns, score

        known: list[tuple[int, int]] = []  # the classes with own and other rows, and how many own
        for place in range(size):
            other = self.target != (place if self.several else 1)
            columns[..., place, :] = columns[..., place, np.argsort(other, kind="stable")]
            if 0 < other.sum() < len(other):
                known.append((place, int((~other).sum())))
        return columns, lambda total: float(
            np.mean([fast_auc(total[k, :count], total[k, count:]) for k, count in known])
        )

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
