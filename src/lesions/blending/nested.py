"""What each method gains on groups that did not choose its weights, and the choice by that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lesions.blending.methods import Blend, methods_of
from lesions.blending.pool import Pool
from lesions.errors import InputError
from lesions.evaluation import intervals
from lesions.evaluation.intervals import Comparison, Interval
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import all_scores, names_of

PARTS = 5
SPLITS = 3


@dataclass(frozen=True)
class Outcome:
    """A method, or the choice of one, fitted on all rows, and what it scores in sample and nested.

    `scores` (N, C) of each split are nested; `fitted` (splits, parts) are what blends made without
    a part score on all rows, and `values` (R,) the nested score in each resample of groups.
    `gains` are the nested score less that of each simpler method, of equal weights first.
    """

    blend: Blend
    in_sample: float
    scores: list[Floats]
    fitted: Floats
    nested: Interval
    values: Floats
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
            "gain": gain and gain.value,
            "gain_interval": gain and limits(gain),
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


def nested_scores(
    fit: Callable[[Pool], Blend], pool: Pool, parts: NDArray[np.int64]
) -> tuple[Floats, list[float]]:
    """Scores (N, C) of blends that were fitted without the row's part, on one scale.

    Then what the blend of each part scores on all rows.
    """
    scores, fitted = np.empty_like(pool.probs[0]), []
    for part in np.unique(parts):
        found = fit(pool.take(parts != part)).apply(pool)
        if not pool.several:  # as ranks: blends of different weights then share one scale
            found = rankdata(found, axis=0) / len(found)
        scores[parts == part] = found[parts == part]
        fitted.append(pool.score(found))
    return scores, fitted


# Products of so few columns gain nothing from threads, which burn twice the processor time.
@threadpool_limits.wrap(limits=1, user_api="blas")
def compare_methods(
    pool: Pool, groups: ArrayLike, method: str = "auto"
) -> tuple[dict[str, Outcome], str, str, Outcome]:
    """Every method's outcome; the name of the chosen one, the reason, and the choice's outcome.

    What is nested is the mean over three splits of the groups (of the scores of rows averaged over
    splits it would flatter: they are those of a larger blend). All methods have the same splits and
    the same 2,000 resamples of groups, so that differences are paired. `method` asks for one; by
    itself the best of several looks better than it is, which its outcome leaves out.
    """
    splits = [split_groups(pool.target, groups, seed) for seed in range(SPLITS)]
    outcomes: dict[str, Outcome] = {}
    for name, fit in methods_of(pool.several, len(pool.probs) > len(pool.names)).items():
        nested = [nested_scores(fit, pool, parts) for parts in splits]
        outcomes[name] = judge(fit(pool), nested, pool, groups, outcomes)
    chosen, reason = choose({name: outcome.gains for name, outcome in outcomes.items()})
    if method != "auto":
        reason = f"asked for by --method; by itself: {chosen} ({reason})"
        return outcomes, method, reason, outcomes[method]
    best, by = outcomes[chosen], -luck(outcomes, chosen)
    gains = {name: gain.moved(by) for name, gain in best.gains.items()}
    choice = replace(best, nested=best.nested.moved(by), gains=gains)
    return outcomes, chosen, reason, choice


def judge(
    blend: Blend,
    nested: Sequence[tuple[Floats, list[float]]],
    pool: Pool,
    groups: ArrayLike,
    simpler: Mapping[str, Outcome],
) -> Outcome:
    """The outcome of a blend whose `nested_scores` of each split are known.

    The interval of a gain holds what other rows would change of it, by resampling groups, and what
    other weights would: the jackknife over parts of what their blends score on all rows, and the
    spread of the splits.
    """
    scores, fitted = [each for each, _ in nested], np.array([each for _, each in nested])
    place = names_of(len(pool.classes)).index(pool.objective)
    drawn = intervals.bootstrap_values(all_scores, pool.target, scores, groups)
    values = drawn[:, :, place].mean(axis=1)
    each = np.array([pool.score(split) for split in scores])
    count = intervals.effective_groups(pool.target, groups)
    gains = {}
    for name, other in simpler.items():
        gained = each - [pool.score(split) for split in other.scores]
        moved = fitted - other.fitted
        jackknife = (moved.shape[1] - 1) * moved.var(axis=1).mean()
        weights = np.sqrt(jackknife + gained.var(ddof=1) / len(gained))
        gains[name] = intervals.compare(gained.mean(), values - other.values, count, float(weights))
    whole = pool.score(blend.apply(pool))
    interval = intervals.summarise(each.mean(), values, count)
    return Outcome(blend, whole, scores, fitted, interval, values, gains)


def luck(outcomes: Mapping[str, Outcome], chosen: str) -> float:
    """How much higher the chosen method scores for having been chosen: the choice's optimism.

    Each resample of the groups chooses by the same rule (but that patient context counts as any
    other method), and what it chooses gains more there than in all rows (Efron 1983, "Estimating
    the error rate of a prediction rule").
    """
    equal, *learned = outcomes
    if chosen == equal:
        return 0.0
    over = [outcomes[name].gains[equal] for name in learned]
    gains, lows = np.array([[gain.value, gain.low] for gain in over]).T
    drawn = np.stack([outcomes[name].values - outcomes[equal].values for name in learned], axis=1)
    drawn += gains - np.nanmean(drawn, axis=0)
    beats = drawn > gains - lows
    picked = np.where(beats, drawn, 0).argmax(axis=1)[:, None]
    return float(np.take_along_axis(np.where(beats, drawn - gains, 0), picked, axis=1).mean())


def choose(gains: Mapping[str, Mapping[str, Comparison]]) -> tuple[str, str]:
    """The chosen method and why, from the gains of each, the simplest first, over simpler ones.

    Equal weights are chosen unless others beat them: by a gain whose 95 % interval lies above zero.
    Of those the one of the highest nested score is taken: the simplest that is not clearly worse
    would be taken where its score is lucky. Patient context has to beat stacking in the same way.
    """
    equal, *learned = gains
    over = {name: gains[name][equal] for name in learned}
    better = [name for name in learned if over[name].low > 0]
    if "patient_context" in better and gains["patient_context"]["stacking"].low <= 0:
        better.remove("patient_context")
    if not better:
        nearest = max(learned, key=lambda name: over[name].value)
        return equal, f"the simplest, and nothing beats it; the nearest, {nearest}: {over[nearest]}"
    chosen = max(better, key=lambda name: over[name].value)
    return chosen, f"it beats {equal} ({over[chosen]}), by more than any other"
