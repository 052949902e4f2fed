"""What each method gains on groups that did not choose its weights, and the choice by that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lesions.blending.methods import Blend, methods_of
from lesions.blending.pool import Pool
from lesions.errors import InputError
from lesions.evaluation.intervals import Comparison, Interval, bootstrap_values, compare, summarise
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import all_scores, names_of

PARTS = 5
LEVEL = 0.05


@dataclass(frozen=True)
class Outcome:
    """A method fitted on all rows, and what it scores in sample and nested.

    `against_equal` is the nested score less that of equal weights; None for itself.
    """

    blend: Blend
    in_sample: float
    scores: Floats
    nested: Interval
    against_equal: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """in_sample, nested, interval [low, high], and gain and p against equal weights."""
        gain = self.against_equal
        return {
            "in_sample": self.in_sample,
            "nested": self.nested.value,
            "interval": limits(self.nested),
            "gain": gain and gain.difference.value,
            "gain_interval": gain and limits(gain.difference),
            "p_against_equal": gain and gain.p,
        }


def limits(interval: Interval) -> list[float | None]:
    """Low and high, as JSON holds them."""
    known = interval.as_json()
    return [known["low"], known["high"]]


def split_groups(target: ArrayLike, groups: ArrayLike) -> NDArray[np.int64]:
    """Parts 0..4 of the rows (N,): no group in two parts, each class of `target` dealt evenly.

    Fewer parts where only one class is in as many groups; InputError under two.
    """
    held = pd.crosstab(pd.factorize(np.asarray(groups))[0], np.asarray(target))
    spread = (held > 0).sum().sort_values()  # in how many groups each class is
    parts = min(PARTS, int(spread.iloc[-2])) if len(spread) > 1 else 0
    if parts < 2:
        raise InputError(
            "cannot blend: fewer than two classes are in two groups or more, and weights are "
            "scored on groups that did not choose them"
        )
    rarest = list(held.sum().sort_values(kind="stable").index[:-1])
    dealt = (
        held.assign(size=held.sum(axis=1))
        .sample(frac=1, random_state=0)
        .sort_values([*rarest, "size"], ascending=False, kind="stable")
    )
    turn = np.arange(len(dealt)) % (2 * parts)  # there and back, so that no part is always first
    part = np.empty(len(dealt), dtype=np.int64)
    part[dealt.index] = np.minimum(turn, 2 * parts - 1 - turn)
    return part[pd.factorize(np.asarray(groups))[0]]


def nested_scores(fit: Callable[[Pool], Blend], pool: Pool, parts: NDArray[np.int64]) -> Floats:
    """Scores (N, C) of blends that were fitted without the row's part, on one scale."""
    scores = np.empty_like(pool.probs[0])
    for part in np.unique(parts):
        found = fit(pool.take(parts != part)).apply(pool)
        if not pool.several:  # as ranks: blends of different weights then share one scale
            found = rankdata(found, axis=0) / len(found)
        scores[parts == part] = found[parts == part]
    return scores


# Products of so few columns gain nothing from threads, which burn twice the processor time.
@threadpool_limits.wrap(limits=1, user_api="blas")
def compare_methods(pool: Pool, groups: ArrayLike) -> tuple[dict[str, Outcome], str, str]:
    """Every method's outcome, the name of the chosen one, and the reason in a sentence.

    All are scored on the same parts and the same 2,000 resamples of groups, so that differences
    are paired. Chosen is the first, from the simplest on, that no other beats at 5 %, Bonferroni-
    corrected for the number of others.
    """
    parts, methods = split_groups(pool.target, groups), methods_of(pool.several)
    names, blends = list(methods), {name: fit(pool) for name, fit in methods.items()}
    scores = {name: nested_scores(fit, pool, parts) for name, fit in methods.items()}
    nested = {name: pool.score(scores[name]) for name in names}
    drawn = bootstrap_values(all_scores, pool.target, list(scores.values()), groups)
    place = names_of(len(pool.classes)).index(pool.objective)
    values = dict(zip(names, drawn[:, :, place].T, strict=True))

    def against(name: str, other: str) -> Comparison:
        return compare(nested[name] - nested[other], values[name] - values[other])

    outcomes = {
        name: Outcome(
            blends[name],
            pool.score(blends[name].apply(pool)),
            scores[name],
            summarise(nested[name], values[name]),
            None if name == names[0] else against(name, names[0]),
        )
        for name in names
    }
    return outcomes, *choose(names, against)


def choose(names: Sequence[str], against: Callable[[str, str], Comparison]) -> tuple[str, str]:
    """The first of `names` that no other beats significantly, and why."""
    level = LEVEL / max(1, len(names) - 1)
    beaten: list[str] = []
    for name in names:
        gains = {other: against(other, name) for other in names if other != name}
        ranked = sorted(gains, key=lambda other: -gains[other].difference.value)
        better = [n for n in ranked if gains[n].difference.value > 0 and gains[n].p < level]
        if not better:
            break
        beaten.append(f"{better[0]} beats {name} ({gains[better[0]]})")
    nearest = f"the nearest, {ranked[0]}: {gains[ranked[0]]}"
    if not beaten:
        return name, f"the simplest, and nothing beats it at p < {level:.3f}; {nearest}"
    return name, f"{'; '.join(beaten)}; nothing beats {name} at p < {level:.3f}"
