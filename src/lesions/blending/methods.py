"""Ways to blend: each turns members' scores into weights that score rows and test set alike."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from lesions.blending.fast_auc import fast_auc
from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.metrics import Floats

MOST_PICKS = 50
MOST_SUBSETS = 5000
POWERS = (0.5, 1.0, 2.0, 4.0, 8.0)


class Pool(NamedTuple):
    """Target (N,) and the members' scores (N, K), one column a member.

    `ranks` are average ranks among all rows, exact halves in float64: sums of them are exact, so
    ties stay ties. A pool of some rows keeps the ranks that the rows have among all: ranks know
    no target.
    """

    names: tuple[str, ...]
    target: NDArray[np.int64]
    probs: Floats
    ranks: Floats

    def take(self, rows: ArrayLike) -> "Pool":
        """The pool of those rows."""
        chosen = np.asarray(rows)
        probs, ranks = (np.asfortranarray(m[chosen]) for m in (self.probs, self.ranks))
        return Pool(self.names, self.target[chosen], probs, ranks)

    def split_ranks(self) -> tuple[Floats, Floats]:
        """Ranks of the positives and of the negatives, columns contiguous."""
        positive = self.target == 1
        return np.asfortranarray(self.ranks[positive]), np.asfortranarray(self.ranks[~positive])


def build_pool(probs: pd.DataFrame, target: ArrayLike | None = None) -> Pool:
    """The members ranked once, so that no step of any method ranks or sorts them again.

    Without `target`, as on a test set, the pool can be scored but not fitted.
    """
    target = np.full(len(probs), -1) if target is None else target
    matrix = np.asfortranarray(probs.to_numpy(np.float64))
    ranks = np.asfortranarray(rankdata(matrix, axis=0))
    return Pool(tuple(map(str, probs.columns)), np.asarray(target).astype(np.int64), matrix, ranks)


@dataclass(frozen=True)
class Blend:
    """Weights (K,) that sum to 1, over ranks, probabilities or logits, and a power mean's power."""

    method: str
    weights: tuple[float, ...]
    scale: str = "rank"
    power: float = 1.0

    def apply(self, pool: Pool) -> Floats:
        """Blended scores of the pool's rows, (N,) between 0 and 1."""
        weights = np.asarray(self.weights)
        if self.scale == "prob":
            return pool.probs @ weights
        if self.scale == "logit":
            return expit(clipped_logit(pool.probs) @ weights)
        if self.power == 1:
            return pool.ranks @ weights / pool.ranks.max()
        return ((pool.ranks / pool.ranks.max()) ** self.power @ weights) ** (1 / self.power)


def equal(count: int) -> tuple[float, ...]:
    return (1 / count,) * count


def rank_mean(pool: Pool) -> Blend:
    """Equal weights on ranks: no member's scale dominates."""
    return Blend("rank_mean", equal(len(pool.names)))


def mean(pool: Pool) -> Blend:
    """Equal weights on probabilities."""
    return Blend("mean", equal(len(pool.names)), scale="prob")


def power_mean(pool: Pool) -> Blend:
    """Equal weights on powers of ranks; above 1 a high rank anywhere counts for more."""
    candidates = [Blend("power_mean", equal(len(pool.names)), power=power) for power in POWERS]
    positive = pool.target == 1
    scores = [blend.apply(pool) for blend in candidates]
    return candidates[int(np.argmax([fast_auc(s[positive], s[~positive]) for s in scores]))]


def single(pool: Pool) -> Blend:
    """The best member alone."""
    return _of_counts("single", [_best(pool, 1)[0]], len(pool.names))


def subset(pool: Pool) -> Blend:
    """Equal weights on the best subset of members, all of them tried up to a size.

    Up to 4, or as many as keep the search under 5,000 subsets.
    """
    count, size, tried = len(pool.names), 0, 0
    while size < min(4, count) and tried + comb(count, size + 1) <= MOST_SUBSETS:
        size += 1
        tried += comb(count, size)
    return _of_counts("subset", _best(pool, max(size, 1)), count)


def _best(pool: Pool, most: int) -> list[int]:
    """The columns, at most `most`, whose summed ranks have the highest AUC; of equals the fewer."""
    positives, negatives = pool.split_ranks()
    best: tuple[float, list[int]] = (-1.0, [])
    for size in range(1, most + 1):
        for columns in combinations(range(len(pool.names)), size):
            chosen = list(columns)
            auc = fast_auc(_total(positives, chosen), _total(negatives, chosen))
            if auc > best[0]:
                best = (auc, chosen)
    return best[1]


def _total(ranks: Floats, columns: list[int]) -> Floats:
    """Sum of the columns: exact, in any order."""
    total = ranks[:, columns[0]].copy()
    for column in columns[1:]:
        total += ranks[:, column]
    return total


def _of_counts(method: str, picks: list[int], count: int) -> Blend:
    times = np.bincount(picks, minlength=count)
    return Blend(method, tuple(float(w) for w in times / times.sum()))


def climb(pool: Pool, most: int = MOST_PICKS) -> tuple[list[int], list[float]]:
    """Columns in the order picked, and the AUC after each pick.

    Forward selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of
    models"): the column that helps most is added until none does.
    """
    positives, negatives = pool.split_ranks()
    sums = np.zeros(len(positives)), np.zeros(len(negatives))
    picks: list[int] = []
    aucs: list[float] = []
    while len(picks) < most:
        tried = [
            fast_auc(sums[0] + positives[:, column], sums[1] + negatives[:, column])
            for column in range(len(pool.names))
        ]
        best = int(np.argmax(tried))
        if aucs and tried[best] <= aucs[-1]:
            break
        picks.append(best)
        aucs.append(tried[best])
        sums = sums[0] + positives[:, best], sums[1] + negatives[:, best]
    return picks, aucs


def hill_climb(pool: Pool) -> Blend:
    """Weights by how often greedy forward selection picks each member."""
    return _of_counts("hill_climb", climb(pool)[0], len(pool.names))


def nelder_mead(pool: Pool) -> Blend:
    """Weights on ranks that a simplex search finds for the AUC (Nelder & Mead, 1965)."""
    positives, negatives = pool.split_ranks()
    count = len(pool.names)

    def weights(x: Floats) -> Floats:
        return np.abs(x) / max(np.abs(x).sum(), 1e-12)

    def loss(x: Floats) -> float:
        w = weights(x)
        return -fast_auc(positives @ w, negatives @ w)

    start = np.ones(count)
    found = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={
            "initial_simplex": np.vstack([start, start + np.eye(count)]),
            "maxfev": 100 * count,
            "xatol": 1e-3,
            "fatol": 1e-7,
            "adaptive": True,
        },
    )
    return Blend("nelder_mead", tuple(float(w) for w in weights(found.x)))


def stacking(pool: Pool) -> Blend:
    """Non-negative weights on logits by logistic regression, with a slight pull to 0.

    Equal weights where no member is worth a weight above 0.
    """
    features = clipped_logit(pool.probs)
    sign = np.where(pool.target == 1, -1.0, 1.0)
    count = features.shape[1]

    def loss(beta: Floats) -> tuple[float, Floats]:
        margin = sign * (features @ beta[1:] + beta[0])
        slope = sign * expit(margin) / len(sign)
        pull = 1e-4 * beta[1:]
        gradient = np.append(slope.sum(), features.T @ slope + pull)
        return float(np.logaddexp(0, margin).mean() + pull @ beta[1:] / 2), gradient

    start = np.append(0.0, equal(count))
    bounds = [(None, None)] + [(0, None)] * count
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x[1:]
    shares = found / found.sum() if found.sum() > 0 else np.asarray(equal(count))
    return Blend("stacking", tuple(float(w) for w in shares), scale="logit")


# From the simplest to the most elaborate: the order in which a blend is chosen.
METHODS: dict[str, Callable[[Pool], Blend]] = {
    "rank_mean": rank_mean,
    "mean": mean,
    "power_mean": power_mean,
    "single": single,
    "subset": subset,
    "hill_climb": hill_climb,
    "nelder_mead": nelder_mead,
    "stacking": stacking,
}
