"""What a blend gains on rows that did not choose its weights, and which blend that speaks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from lesions.blending.fast_auc import fast_auc
from lesions.blending.methods import METHODS, Blend, Pool, climb
from lesions.errors import InputError
from lesions.evaluation.intervals import (
    Comparison,
    Interval,
    as_null,
    bootstrap_values,
    compare,
    summarise,
)
from lesions.evaluation.metrics import Floats, roc_auc, undefined_reason

PARTS = 5
EQUAL = "rank_mean"
LEVEL = 0.05


@dataclass(frozen=True)
class Outcome:
    """A method fitted on all rows, and what it scores in sample and nested.

    `against_equal` is the nested score less that of equal weights on ranks; None for itself.
    """

    blend: Blend
    in_sample: float
    scores: Floats
    nested: Interval
    against_equal: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """in_sample, nested, interval [low, high], and gain and p against equal weights."""
        found: dict[str, Any] = {
            "in_sample": self.in_sample,
            "nested": self.nested.value,
            "interval": [as_null(self.nested.low), as_null(self.nested.high)],
            "gain": None,
            "gain_interval": None,
            "p_against_equal": None,
        }
        if gain := self.against_equal:
            found["gain"] = gain.difference.value
            found["gain_interval"] = [as_null(gain.difference.low), as_null(gain.difference.high)]
            found["p_against_equal"] = as_null(gain.p)
        return found


def split_groups(target: ArrayLike, groups: ArrayLike, seed: int = 0) -> NDArray[np.int64]:
    """Parts 0..4 of the rows (N,): no group in two parts, positives dealt evenly.

    Fewer parts where fewer groups hold a positive or a negative; InputError under two.
    """
    rows = pd.DataFrame({"group": pd.factorize(np.asarray(groups))[0], "target": target})
    found = rows.groupby("group")["target"].agg(["sum", "size"])
    positive, negative = int((found["sum"] > 0).sum()), int((found["sum"] < found["size"]).sum())
    parts = min(PARTS, positive, negative)
    if parts < 2:
        raise InputError(
            f"cannot blend: {positive} groups hold a positive and {negative} a negative; two of "
            "each are needed to score weights on rows that did not choose them"
        )
    dealt = found.sample(frac=1, random_state=seed).sort_values(
        ["sum", "size"], ascending=False, kind="stable"
    )
    turn = np.arange(len(dealt)) % (2 * parts)  # there and back, so that no part is always first
    part = np.empty(len(dealt), dtype=np.int64)
    part[dealt.index] = np.minimum(turn, 2 * parts - 1 - turn)
    return part[rows["group"]]


def nested_scores(fit: Callable[[Pool], Blend], pool: Pool, parts: NDArray[np.int64]) -> Floats:
    """Scores (N,) of blends that were fitted without the row's part.

    Each fit ranks all rows, and its own part's ranks are kept: parts with different weights then
    share one scale, as AUC over all rows needs.
    """
    scores = np.empty(len(pool.target))
    for part in np.unique(parts):
        blended = fit(pool.take(parts != part)).apply(pool)
        scores[parts == part] = (rankdata(blended) / len(blended))[parts == part]
    return scores


def auc_of(pool: Pool, scores: Floats) -> float:
    positive = pool.target == 1
    return fast_auc(scores[positive], scores[~positive])


def compare_methods(
    pool: Pool, groups: ArrayLike, names: Sequence[str] = tuple(METHODS), seed: int = 0
) -> tuple[dict[str, Outcome], str, str]:
    """Every method's outcome, the name of the chosen one, and the reason in a sentence.

    All are scored on the same parts and the same 2,000 resamples of groups, so that differences
    are paired. Chosen is the first, from the simplest on, that no other beats at 5 %, Bonferroni-
    corrected for the number of others.
    """
    if reason := undefined_reason(pool.target, pool.ranks[:, 0]):
        raise InputError(f"cannot blend: {reason}")
    parts = split_groups(pool.target, groups, seed)
    names = list(dict.fromkeys([EQUAL, *names]))
    blends = {name: METHODS[name](pool) for name in names}
    scores = {name: nested_scores(METHODS[name], pool, parts) for name in names}
    nested = {name: auc_of(pool, scores[name]) for name in names}
    drawn = bootstrap_values(roc_auc, pool.target, list(scores.values()), groups, seed=seed)
    values = dict(zip(names, drawn.T, strict=True))

    def against(name: str, other: str) -> Comparison:
        return compare(nested[name] - nested[other], values[name] - values[other])

    outcomes = {
        name: Outcome(
            blends[name],
            auc_of(pool, blends[name].apply(pool)),
            scores[name],
            summarise(nested[name], values[name]),
            None if name == EQUAL else against(name, EQUAL),
        )
        for name in names
    }
    return outcomes, *choose(names, against)


def choose(names: Sequence[str], against: Callable[[str, str], Comparison]) -> tuple[str, str]:
    """The first of `names` that no other beats significantly, and why."""
    level = LEVEL / max(1, len(names) - 1)
    beaten: list[str] = []
    first = ""
    for name in names:
        rivals = {other: against(other, name) for other in names if other != name}
        better = {
            other: gain
            for other, gain in rivals.items()
            if gain.difference.value > 0 and gain.p < level
        }
        if not better:
            break
        best = max(better, key=lambda other: better[other].difference.value)
        first = first or f"{best} beats {name} ({better[best]})"
        beaten.append(name)
    if beaten:
        also = f", and so are {', '.join(beaten[1:])} beaten" if beaten[1:] else ""
        return name, f"{first}{also}; nothing beats {name} at p < {level:.3f}"
    best = max(rivals, key=lambda other: rivals[other].difference.value, default="")
    told = f"; the nearest, {best}: {rivals[best]}" if best else ""
    return name, f"the simplest, and nothing beats it at p < {level:.3f}{told}"


def gain_curve(pool: Pool, groups: ArrayLike, seed: int = 0) -> pd.DataFrame:
    """AUC of hill climbing after each pick: columns picks, in_sample, nested."""
    parts = split_groups(pool.target, groups, seed)
    _, in_sample = climb(pool)
    paths = {part: climb(pool.take(parts != part))[0] for part in np.unique(parts)}
    longest = max(len(in_sample), *(len(path) for path in paths.values()))
    nested = []
    for picks in range(1, longest + 1):
        scores = np.empty(len(pool.target))
        for part, path in paths.items():
            chosen = path[:picks]  # a path that has ended stays where it ended
            weights = np.bincount(chosen, minlength=len(pool.names)) / len(chosen)
            blended = rankdata(pool.ranks @ weights)
            scores[parts == part] = blended[parts == part]
        nested.append(auc_of(pool, scores))
    in_sample += [in_sample[-1]] * (longest - len(in_sample))
    return pd.DataFrame(
        {"picks": np.arange(1, longest + 1), "in_sample": in_sample, "nested": nested}
    )
