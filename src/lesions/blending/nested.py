"""What each method gains on groups that did not choose its weights, and the choice by that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lesions.blending.methods import Blend, methods_of
from lesions.blending.pool import Pool
from lesions.errors import InputError
from lesions.evaluation.intervals import (
    Comparison,
    Interval,
    bootstrap_values,
    compare,
    effective_groups,
    summarise,
)
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import all_scores, names_of

PARTS = 5
SPLITS = 3


@dataclass(frozen=True)
class Outcome:
    """A method fitted on all rows, and what it scores in sample and nested.

    `scores` (N, C) are those of one split. `gains` are the nested score less that of each simpler
    method, of equal weights first.
    """

    blend: Blend
    in_sample: float
    scores: Floats
    nested: Interval
    gains: dict[str, Comparison]

    @property
    def against_equal(self) -> Comparison | None:
        """The gain over equal weights; None for those themselves."""
        return next(iter(self.gains.values()), None)

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


def split_groups(target: ArrayLike, groups: ArrayLike, seed: int = 0) -> NDArray[np.int64]:
    """Parts 0..4 of the rows (N,): no group in two parts, each class of `target` dealt evenly.

    Another split for each `seed`. Fewer parts where only one class is in as many groups;
    InputError under two.
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
        .sample(frac=1, random_state=seed)
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

    What is nested is the mean over three splits of the groups (of the scores of rows averaged over
    splits it would flatter: they are those of a larger blend). All methods have the same splits and
    the same 2,000 resamples of groups, so that differences are paired.
    """
    splits = [split_groups(pool.target, groups, seed) for seed in range(SPLITS)]
    methods = methods_of(pool.several, len(pool.probs) > len(pool.names))
    scores = {
        name: [nested_scores(fit, pool, parts) for parts in splits] for name, fit in methods.items()
    }
    nested = {name: float(np.mean([*map(pool.score, found)])) for name, found in scores.items()}
    drawn = bootstrap_values(all_scores, pool.target, [*chain(*scores.values())], groups)
    count = effective_groups(pool.target, groups)
    place = names_of(len(pool.classes)).index(pool.objective)
    means = drawn[:, :, place].reshape(len(drawn), len(methods), SPLITS).mean(axis=2)
    values = dict(zip(methods, means.T, strict=True))
    outcomes: dict[str, Outcome] = {}
    for name, fit in methods.items():
        blend, interval = fit(pool), summarise(nested[name], values[name], count)
        gains = {
            other: compare(nested[name] - nested[other], values[name] - values[other], count)
            for other in outcomes
        }
        in_sample = pool.score(blend.apply(pool))
        outcomes[name] = Outcome(blend, in_sample, scores[name][0], interval, gains)
    return outcomes, *choose({name: outcome.gains for name, outcome in outcomes.items()})


def choose(gains: Mapping[str, Mapping[str, Comparison]]) -> tuple[str, str]:
    """The chosen method and why, from the gains of each, the simplest first, over simpler ones.

    Equal weights are chosen unless others beat them: by a gain whose 95 % interval lies above zero.
    Of those the one of the highest nested score is taken: the simplest that is not clearly worse
    would be taken where its score is lucky. Patient context has to beat stacking in the same way.
    """
    equal, *learned = gains
    over = {name: gains[name][equal] for name in learned}
    better = [name for name in learned if over[name].difference.low > 0]
    if "patient_context" in better and gains["patient_context"]["stacking"].difference.low <= 0:
        better.remove("patient_context")
    if not better:
        nearest = max(learned, key=lambda name: over[name].difference.value)
        return equal, f"the simplest, and nothing beats it; the nearest, {nearest}: {over[nearest]}"
    chosen = max(better, key=lambda name: over[name].difference.value)
    return chosen, f"it beats {equal} ({over[chosen]}), by more than any other"
