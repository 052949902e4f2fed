"""Ways to blend: each turns members' scores into weights that score rows and test set alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import comb

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from lesions.blending.pool import Pool
from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.metrics import Floats

MOST_PICKS = 50
MOST_SUBSETS = 5000
FINALISTS = 50


@dataclass(frozen=True)
class Blend:
    """Weights that sum to 1, over what `scale` says (rank, prob or logit) of the first members."""

    weights: tuple[float, ...]
    scale: str

    def apply(self, pool: Pool) -> Floats:
        """Blended scores of the pool's rows, (N, C) between 0 and 1; classes sum to 1."""
        values = (pool.added if self.scale == "rank" else pool.probs)[: len(self.weights)]
        if self.scale == "logit":
            values = clipped_logit(values)
        total = (values.reshape(len(values), -1).T @ self.weights).reshape(values.shape[1:])
        if self.scale == "logit":
            return expit(total)
        return total / pool.added.max() if self.scale == "rank" else total


def equal(pool: Pool, scale: str) -> Blend:
    """The same weight for every member."""
    return Blend((1 / len(pool.names),) * len(pool.names), scale)


def subset(pool: Pool) -> Blend:
    """Equal weights on the best subset of members, all of them tried up to a size.

    Of yes or no 1 to 4 members, of several classes 2 to 6, as long as that is 5,000 subsets.
    """
    members = len(pool.names)
    sizes = [size for size in (range(2, 7) if pool.several else range(1, 5)) if size <= members]
    tried = np.cumsum([comb(members, size) for size in sizes])
    affordable = max(1, int((tried <= MOST_SUBSETS).sum()))
    return of_picks(_best(pool, sizes[:affordable]), pool)


def _best(pool: Pool, sizes: Sequence[int]) -> tuple[int, ...]:
    """The members whose sum scores highest, so many of them; of equals the fewer.

    Of many, for AUC, the 50 are scored whose sums are furthest apart if they were normal.
    """
    found = [chosen for size in sizes for chosen in combinations(range(len(pool.names)), size)]
    if len(found) > FINALISTS and pool.objective.endswith("auc"):
        apart = _separation(pool, found)
        found = [found[place] for place in sorted(np.argsort(-apart, kind="stable")[:FINALISTS])]
    columns, score = pool.search(pool.added)
    return max(found, key=lambda chosen: score(sum(columns[i] for i in chosen)))


def _separation(pool: Pool, subsets: Sequence[tuple[int, ...]]) -> Floats:
    """The mean AUC of each subset's sum if members were normal in every class and outside it."""
    picked = np.array([np.bincount(chosen, minlength=len(pool.names)) for chosen in subsets])
    found = np.zeros(len(subsets))
    for place, column in enumerate(np.moveaxis(pool.added, -1, 0)):
        own = pool.target == (place if pool.several else 1)
        if 0 < own.sum() < len(own):
            inside, outside = column[:, own], column[:, ~own]
            variance = np.cov(inside, bias=True) + np.cov(outside, bias=True)
            gap = picked @ (inside.mean(axis=1) - outside.mean(axis=1))
            found += norm.cdf(gap / np.sqrt(np.sum(picked @ variance * picked, axis=1)))
    return found


def of_picks(picks: Sequence[int], pool: Pool) -> Blend:
    """Weights by how often each member is among the `picks`."""
    times = np.bincount(picks, minlength=len(pool.names))
    shares = tuple((times / times.sum()).tolist())
    return Blend(shares, "prob" if pool.several else "rank")


def climb(pool: Pool, most: int = MOST_PICKS) -> tuple[list[int], list[float]]:
    """Members in the order picked, and the score after each pick.

    Forward selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of
    models"): the member that helps most is added until none does.
    """
    columns, score = pool.search(pool.added)
    total = np.zeros_like(columns[0])
    picks, scores = list[int](), list[float]()
    while len(picks) < most:
        tried = [score(total + column) for column in columns]
        best = int(np.argmax(tried))
        if scores and tried[best] <= scores[-1]:
            break
        picks.append(best)
        scores.append(tried[best])
        total = total + columns[best]
    return picks, scores


def stacking(pool: Pool, context: bool = False) -> Blend:
    """Non-negative weights on logits by logistic regression, with a slight pull to 0.

    Equal weights where no member is worth a weight above 0. With `context` what sets a row apart
    from the others of its patient has weights, too.
    """
    features = clipped_logit(pool.probs[: None if context else len(pool.names), :, 0]).T
    sign = np.where(pool.target == 1, -1.0, 1.0)
    count = features.shape[1]

    def loss(beta: Floats) -> tuple[float, Floats]:
        margin = sign * (features @ beta[1:] + beta[0])
        slope = sign * expit(margin) / len(sign)
        pull = 1e-4 * beta[1:]
        gradient = np.append(slope.sum(), features.T @ slope + pull)
        return float(np.logaddexp(0, margin).mean() + pull @ beta[1:] / 2), gradient

    start = np.append(0.0, np.full(count, 1 / count))
    bounds = [(None, None)] + [(0, None)] * count
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x[1:]
    if found.sum() <= 0:
        return equal(pool, "logit")
    return Blend(tuple((found / found.sum()).tolist()), "logit")


# From the simplest to the most elaborate: the order in which a blend is chosen.
METHODS: dict[str, Callable[[Pool], Blend]] = {
    "rank_mean": lambda pool: equal(pool, "rank"),  # so that no member's scale dominates
    "mean": lambda pool: equal(pool, "prob"),
    "single": lambda pool: of_picks(_best(pool, [1]), pool),  # the best member alone
    "subset": subset,
    "hill_climb": lambda pool: of_picks(climb(pool)[0], pool),  # weights: how often picked
    "stacking": stacking,
}


def methods_of(several: bool, context: bool = False) -> dict[str, Callable[[Pool], Blend]]:
    """The methods for yes or no, or for several classes; the first is equal weights."""
    without = ("rank_mean", "stacking") if several else ()
    known = {name: fit for name, fit in METHODS.items() if name not in without}
    return known | ({"patient_context": partial(stacking, context=True)} if context else {})
