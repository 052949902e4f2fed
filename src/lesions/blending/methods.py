"""Ways to blend: each turns members' scores into weights that score rows and test set alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from lesions.blending.class_pool import AnyPool
from lesions.blending.fast_auc import fast_auc
from lesions.blending.pool import Pool
from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.metrics import Floats

MOST_PICKS = 50
MOST_SUBSETS = 5000


@dataclass(frozen=True)
class Blend:
    """Weights (K,) that sum to 1, over ranks, probabilities or logits, and a power mean's power."""

    method: str
    weights: tuple[float, ...]
    scale: str = "rank"
    power: float = 1.0

    def apply(self, pool: AnyPool) -> Floats:
        """Blended scores of the pool's rows, (N,) or (N, C), between 0 and 1."""
        return pool.blend(np.asarray(self.weights), self.scale, self.power)


def equal(count: int) -> tuple[float, ...]:
    return (1 / count,) * count


def rank_mean(pool: Pool) -> Blend:
    """Equal weights on ranks: no member's scale dominates."""
    return Blend("rank_mean", equal(len(pool.names)))


def mean(pool: AnyPool) -> Blend:
    """Equal weights on probabilities."""
    return Blend("mean", equal(len(pool.names)), scale="prob")


def power_mean(pool: AnyPool) -> Blend:
    """Equal weights on powers of ranks, or of the probabilities of several classes.

    Above 1 a high value anywhere counts for more; 0 is the geometric mean.
    """
    weights = equal(len(pool.names))
    tried = [Blend("power_mean", weights, pool.scale, power) for power in pool.powers]
    return tried[int(np.argmax([pool.score(blend.apply(pool)) for blend in tried]))]


def single(pool: AnyPool) -> Blend:
    """The best member alone."""
    return of_picks("single", _best(pool, [1]), pool)


def subset(pool: AnyPool) -> Blend:
    """Equal weights on the best subset of members, all of them tried up to a size.

    Up to 4 ranks, or 2 to 6 members' probabilities, or as many as keep it under 5,000 subsets.
    """
    tried, sizes = 0, list[int]()
    for size in pool.sizes:
        tried += comb(len(pool.names), size)
        if size > len(pool.names) or (sizes and tried > MOST_SUBSETS):
            break
        sizes.append(size)
    return of_picks("subset", _best(pool, sizes), pool)


def _best(pool: AnyPool, sizes: Sequence[int]) -> list[int]:
    """The columns, so many, whose sum scores highest; of equals the fewer."""
    columns, score = pool.search()
    best: tuple[float, list[int]] = (-1.0, [])
    for size in sizes:
        for chosen in combinations(range(len(columns)), size):
            found = score(_total(columns, chosen))
            if found > best[0]:
                best = (found, list(chosen))
    return best[1]


def _total(columns: Floats, chosen: Sequence[int]) -> Floats:
    """Sum of the chosen columns: of ranks exact, in any order."""
    total = columns[chosen[0]].copy()
    for column in chosen[1:]:
        total += columns[column]
    return total


def of_picks(method: str, picks: Sequence[int], pool: AnyPool) -> Blend:
    """Weights by how often each member is among the `picks`."""
    times = np.bincount(picks, minlength=len(pool.names))
    return Blend(method, tuple(float(w) for w in times / times.sum()), pool.scale)


def climb(pool: AnyPool, most: int = MOST_PICKS) -> tuple[list[int], list[float]]:
    """Columns in the order picked, and the score after each pick.

    Forward selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of
    models"): the column that helps most is added until none does.
    """
    columns, score = pool.search()
    total = np.zeros_like(columns[0])
    picks: list[int] = []
    scores: list[float] = []
    while len(picks) < most:
        tried = [score(total + column) for column in columns]
        best = int(np.argmax(tried))
        if scores and tried[best] <= scores[-1]:
            break
        picks.append(best)
        scores.append(tried[best])
        total = total + columns[best]
    return picks, scores


def hill_climb(pool: AnyPool) -> Blend:
    """Weights by how often greedy forward selection picks each member."""
    return of_picks("hill_climb", climb(pool)[0], pool)


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
METHODS: dict[str, Callable[[Any], Blend]] = {
    "rank_mean": rank_mean,
    "mean": mean,
    "power_mean": power_mean,
    "single": single,
    "subset": subset,
    "hill_climb": hill_climb,
    "nelder_mead": nelder_mead,
    "stacking": stacking,
}
CLASS_METHODS = {
    name: METHODS[name] for name in ("mean", "power_mean", "single", "subset", "hill_climb")
}


def methods_of(classes: Sequence[str]) -> dict[str, Callable[[Any], Blend]]:
    """The methods for a task with those classes, none: yes or no; the first is equal weights."""
    return CLASS_METHODS if classes else METHODS
