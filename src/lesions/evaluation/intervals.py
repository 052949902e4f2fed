"""95 % intervals over groups, by bootstrap or DeLong: patients are drawn, not photographs.

A patient's photographs resemble each other, so drawing rows understates the spread (Field & Welsh
2007, "Bootstrapping clustered data").
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import betaincinv, expit, logit, ndtr, ndtri, stdtrit  # stats imports slowly

from lesions.evaluation import metrics
from lesions.evaluation.metrics import Floats, Metric, undefined_reason

REPLICATES = 2000
BLOCK = 2**20  # numbers held at once: 8 MiB an array, whatever the number of rows
KEPT = 2**26  # numbers of two bytes that are kept at most
Z = ndtri(0.975)


def format_interval(
    found: Any, low: float | None = None, high: float | None = None, digits: int = 3,
    sign: bool = False,
) -> str:  # fmt: skip
    """A number and its interval as text: "0.912 (0.899 to 0.924)"; None and NaN are not there.

    `found` is an Interval, its JSON, or the number alone beside its limits. Without a value "n/a",
    without an interval the value alone, each with the reason for it.
    """
    known: Mapping[str, Any] = {"value": found, "low": low, "high": high}
    if isinstance(found, Mapping | Interval):
        known = found if isinstance(found, Mapping) else vars(found)
    value, low, high = (known.get(key) for key in ("value", "low", "high"))
    reason = known.get("reason")
    if value is None or np.isnan(value):
        return f"n/a ({reason})" if reason else "n/a"
    style = f"{'+' if sign else ''}.{digits}f"
    if low is None or high is None or np.isnan(low):
        return f"{value:{style}} ({reason})" if reason else f"{value:{style}}"
    return f"{value:{style}} ({low:{style}} to {high:{style}})"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; `reason` says why it has none."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    se: float = np.nan
    reason: str | None = None

    def __str__(self) -> str:
        return format_interval(self)

    def moved(self, by: float) -> Self:
        """The same interval elsewhere."""
        return replace(self, value=self.value + by, low=self.low + by, high=self.high + by)

    def as_json(self) -> dict[str, Any]:
        """value, low, high, se, null where not defined, and then the reason."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high", "se")}
        known = {name: None if np.isnan(number) else number for name, number in numbers.items()}
        return known | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Comparison(Interval):
    """A minus B on the same rows, with its symmetric 95 % interval and two-sided p."""

    @property
    def p(self) -> float:
        """Below 0.05 where the interval is without 0; 1 where there is none."""
        half = self.high - self.value
        if half == 0:
            return float(self.value == 0)
        return 1.0 if np.isnan(half) else float(2 * ndtr(-Z * abs(self.value) / half))

    def __str__(self) -> str:
        text = format_interval(self, sign=True)
        return f"{text}, p < 0.001" if self.p < 0.001 else f"{text}, p = {self.p:.3f}"


def resamples(count: int, replicates: int, block: int) -> Iterator[Floats]:
    """How often each of `count` groups is drawn, (B, count), `replicates` in all, by blocks.

    The same groups are drawn for every metric, and kept for the next one where memory allows.
    """
    if count * replicates > KEPT:
        return _draw(count, replicates, block)
    parts = np.split(_keep(count, replicates), range(block, replicates, block))
    return (part.astype(np.float64) for part in parts)


@lru_cache(maxsize=1)
def _keep(count: int, replicates: int) -> np.ndarray:
    blocks = _draw(count, replicates, 1 + BLOCK // count)
    return np.concatenate([times.astype(np.uint16) for times in blocks])


def _draw(count: int, replicates: int, block: int) -> Iterator[Floats]:
    generator = np.random.default_rng(0)
    for start in range(0, replicates, block):
        size = min(block, replicates - start)
        drawn = generator.integers(0, count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count)
        yield times.reshape(size, count).astype(np.float64)


def bootstrap_values(
    metric: Metric,
    target: ArrayLike,
    probs: Sequence[ArrayLike],
    groups: ArrayLike,
    replicates: int = REPLICATES,
) -> Floats:
    """The metric of each of `probs` on the same resamples of groups: float64 (`replicates`, K).

    (`replicates`, K, S) for a metric of several numbers. NaN where a resample happens to hold one
    class only.
    """
    target = np.asarray(target)
    codes = pd.factorize(np.asarray(groups))[0]
    if len(codes) != len(target):
        raise ValueError(f"{len(codes):,} groups for {len(target):,} rows")
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum()):,} rows without a group")
    member = metrics.one_hot(codes, int(codes.max()) + 1).T
    prepared = [metric.prepare(target, np.asarray(prob)) for prob in probs]
    parts = [(rows @ member, score) for rows, score in prepared]
    block = max(1, BLOCK // max(max(rows.shape) for rows, _ in parts))
    return np.concatenate(
        [
            np.stack([score((rows @ times.T).T) for rows, score in parts], axis=1)
            for times in resamples(member.shape[1], replicates, block)
        ]
    )


def effective_groups(target: ArrayLike, groups: ArrayLike) -> float:
    """How many groups of equal size the rows of the rarest class are worth (Kish, 1965).

    A target that is no class number counts as one class.
    """
    target = np.asarray(target)
    classes = np.unique(target, return_inverse=True)[1] if target.dtype.kind in "bi" else 0
    codes = pd.factorize(np.asarray(groups))[0]
    shape = int(np.max(classes)) + 1, int(codes.max()) + 1
    cells = np.bincount(classes * shape[1] + codes, minlength=shape[0] * shape[1])
    sizes = cells.reshape(shape).astype(np.float64)
    return float((sizes.sum(axis=1) ** 2 / (sizes**2).sum(axis=1)).min())


def widening(groups: float) -> float:
    """How many standard errors a 95 % interval reaches to each side: 1.96, more of few `groups`."""
    count = min(max(groups, 2.0), 1e6)
    return float(np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975))


def summarise(value: float, values: Floats, groups: float = np.inf) -> Interval:
    """95 % interval by bootstrap `values` (R,) around `value`, undefined ones left out.

    Bias-corrected percentiles (Efron 1981), with Student's t in place of 1.96 where there are few
    `groups` (Hesterberg 2015, "expanded percentiles"): docs/coverage.md shows why.
    """
    if np.isnan(value):
        return Interval(reason="not defined for these rows")
    defined = values[~np.isnan(values)]
    if len(defined) < len(values) / 2:
        return Interval(float(value), reason="most resamples hold one class only")
    below = (np.mean(defined < value) + np.mean(defined <= value)) / 2
    half = widening(groups)
    ends = ndtr(2 * ndtri(np.clip(below, 1e-3, 1 - 1e-3)) + np.array([-half, half]))
    low, high = np.quantile(defined, ends)
    return Interval(float(value), float(low), float(high), float(defined.std(ddof=1)))


def bootstrap(
    metric: Metric,
    target: ArrayLike,
    prob: ArrayLike,
    groups: ArrayLike,
    replicates: int = REPLICATES,
) -> Interval:
    """The metric with its 95 % interval over groups."""
    return bootstrap_each({"": metric}, target, prob, groups, replicates)[""]


def bootstrap_each(
    cases: Mapping[str, Metric],
    target: ArrayLike,
    prob: ArrayLike,
    groups: ArrayLike,
    replicates: int = REPLICATES,
) -> dict[str, Interval]:
    """`bootstrap` of each of several metrics that add up the same cells, in the time of one."""
    metric = metrics.together(cases.values())
    if reason := undefined_reason(target, prob, metric.ranks):
        return dict.fromkeys(cases, Interval(reason=reason))
    found = bootstrap_columns(metric, target, prob, groups, replicates)
    return dict(zip(cases, found, strict=True))


def bootstrap_columns(
    metric: Metric,
    target: ArrayLike,
    prob: ArrayLike,
    groups: ArrayLike,
    replicates: int = REPLICATES,
    counts: Sequence[float] | None = None,
) -> list[Interval]:
    """`bootstrap` of each number of a metric that has several, where it is defined.

    `counts` are the `effective_groups` that each rests on, if not on those of the rarest class.
    """
    values = metric.all(target, prob)
    if len(pd.unique(np.asarray(groups))) < 2:
        return [Interval(value, reason="one group only") for value in values.tolist()]
    drawn = bootstrap_values(metric, target, [prob], groups, replicates).reshape(replicates, -1).T
    counts = counts or [effective_groups(target, groups)] * len(values)
    return [summarise(*each) for each in zip(values, drawn, counts, strict=True)]


def exact(events: int, rows: int) -> Interval:
    """A share with its exact 95 % interval (Clopper & Pearson, 1934), each row on its own."""
    if not rows:
        return Interval(reason="no rows")
    low = betaincinv(events, rows - events + 1, 0.025) if events else 0.0
    high = betaincinv(events + 1, rows - events, 0.975) if events < rows else 1.0
    return Interval(events / rows, float(low), float(high))


def compare(
    difference: float, values: Floats, groups: float = np.inf, more: float = 0.0
) -> Comparison:
    """A difference and its interval by the spread of bootstrap `values` (R,).

    With Student's t where there are few `groups`. `more` is a standard error that no resample
    holds.
    """
    found = summarise(difference, values, groups)
    se = float(np.hypot(found.se, more))
    half = widening(groups) * se
    return Comparison(found.value, difference - half, difference + half, se, found.reason)


def placements(target: ArrayLike, prob: ArrayLike) -> Floats:
    """The share of the other class that each row is ranked right against, (N,), ties half.

    The mean over the positives, as over the negatives, is the AUC. By ranks: Sun & Xu 2014, "Fast
    implementation of DeLong's algorithm".
    """
    positive, scores = np.asarray(target) == 1, pd.Series(np.asarray(prob, dtype=np.float64))
    shares = scores.rank().to_numpy(copy=True)
    for own in (positive, ~positive):
        shares[own] = (shares[own] - scores[own].rank()) / (~own).sum()
    return np.where(positive, shares, 1 - shares)


def delong(target: ArrayLike, prob: ArrayLike, groups: ArrayLike) -> Interval:
    """AUC with DeLong's 95 % interval, symmetric in the logit so that it stays between 0 and 1.

    Placements are summed over groups: Obuchowski 1997, "Nonparametric analysis of clustered ROC
    curve data", which is DeLong, DeLong & Clarke-Pearson 1988 where every row is its own group.
    """
    if reason := undefined_reason(target, prob):
        return Interval(reason=reason)
    positive, shares = np.asarray(target) == 1, placements(target, prob)
    auc = metrics.roc_auc(target, prob)
    codes = pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1

    # Of the positives and the negatives: how many groups have some, and the sum of the centred
    # placements in each group, divided by the rows.
    held = [len(np.unique(codes[rows])) for rows in (positive, ~positive)]
    if min(held) < 2:
        return Interval(auc, reason="one group only")
    hits, misses = (
        np.bincount(codes[rows], shares[rows] - auc, minlength=count) / rows.sum()
        for rows in (positive, ~positive)
    )
    variance = float(
        held[0] / (held[0] - 1) * hits @ hits
        + held[1] / (held[1] - 1) * misses @ misses
        + 2 * count / (count - 1) * hits @ misses
    )
    se = float(np.sqrt(max(variance, 0.0)))
    if auc in (0.0, 1.0):
        return Interval(auc, auc, auc, se)
    half = Z * se / (auc * (1 - auc))
    return Interval(auc, float(expit(logit(auc) - half)), float(expit(logit(auc) + half)), se)
