"""95 % intervals over groups, by bootstrap or DeLong: patients are drawn, not photographs.

A patient's photographs resemble each other, so drawing rows understates the spread (Field & Welsh
2007, "Bootstrapping clustered data"). Rows drawn twice are rows with weight 2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from lesions.evaluation.metrics import Floats, Metric, undefined_reason

REPLICATES = 2000
BLOCK = 2**20  # weights held at once: 8 MiB an array, whatever the number of rows
Z = norm.ppf(0.975)


def format_interval(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    digits: int = 3,
    sign: bool = False,
    reason: str | None = None,
) -> str:
    """A number and its interval as text: "0.912 (0.899 to 0.924)"; None and NaN are not there.

    Without a value "n/a", without an interval the value alone, each with the reason for it.
    """
    if value is None or np.isnan(value):
        return f"n/a ({reason})" if reason else "n/a"
    style = f"{'+' if sign else ''}.{digits}f"
    if low is None or high is None or np.isnan(low):
        return f"{value:{style}} ({reason})" if reason else f"{value:{style}}"
    return f"{value:{style}} ({low:{style}} to {high:{style}})"


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; `reason` says why it has none."""

    value: float
    low: float
    high: float
    se: float
    reason: str | None = None

    def __str__(self) -> str:
        return format_interval(self.value, self.low, self.high, reason=self.reason)

    def as_json(self) -> dict[str, Any]:
        """value, low, high, se, null where not defined, and then the reason."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high", "se")}
        known = {name: None if np.isnan(number) else number for name, number in numbers.items()}
        return known | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Comparison:
    """A minus B on the same rows, with its 95 % interval and two-sided p."""

    difference: Interval
    p: float

    def __str__(self) -> str:
        found = self.difference
        text = format_interval(found.value, found.low, found.high, sign=True, reason=found.reason)
        return f"{text}, p < 0.001" if self.p < 0.001 else f"{text}, p = {self.p:.3f}"


def undefined(reason: str | None, value: float = float("nan")) -> Interval:
    """The value without an interval, and why."""
    return Interval(value, float("nan"), float("nan"), float("nan"), reason)


def resamples(
    groups: ArrayLike | None, rows: int, replicates: int = REPLICATES
) -> Iterator[Floats]:
    """Blocks of row weights, float64 (B, `rows`), `replicates` in all: groups with replacement.

    The same groups are drawn for every metric. Without `groups` each row is its own.
    """
    codes = np.arange(rows) if groups is None else pd.factorize(np.asarray(groups))[0]
    if len(codes) != rows:
        raise ValueError(f"{len(codes):,} groups for {rows:,} rows")
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum()):,} rows without a group")
    count = int(codes.max()) + 1 if rows else 0
    generator = np.random.default_rng(0)
    block = max(1, BLOCK // max(rows, 1))
    for start in range(0, replicates, block):
        size = min(block, replicates - start)
        drawn = generator.integers(0, count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times.astype(np.float64)[:, codes]


def bootstrap_values(
    metric: Metric,
    target: ArrayLike,
    probs: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    replicates: int = REPLICATES,
) -> Floats:
    """The metric of each of `probs` on the same resamples: float64 (`replicates`, K).

    NaN where a resample happens to hold one class only.
    """
    target = np.asarray(target)
    columns = [np.asarray(prob) for prob in probs]
    return np.concatenate(
        [
            np.stack([metric.many(target, prob, weight) for prob in columns], axis=1)
            for weight in resamples(groups, len(target), replicates)
        ]
    )


def summarise(value: float, values: Floats) -> Interval:
    """Percentile interval of bootstrap `values` (R,) around `value`, undefined ones left out."""
    defined = values[~np.isnan(values)]
    if len(defined) < len(values) / 2:
        return undefined("most resamples hold one class only", value)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(value), float(low), float(high), float(defined.std(ddof=1)))


def bootstrap(
    metric: Metric, target: ArrayLike, prob: ArrayLike, groups: ArrayLike | None = None
) -> Interval:
    """The metric with its 95 % interval over groups; `groups` None: over rows."""
    if reason := metric.undefined(target, prob):
        return undefined(reason)
    return bootstrap_columns(metric, target, prob, groups)[0]


def bootstrap_columns(
    metric: Metric, target: ArrayLike, prob: ArrayLike, groups: ArrayLike | None
) -> list[Interval]:
    """`bootstrap` of a metric with several numbers a resample, (B, S), where it is defined."""
    values = metric.many(target, prob, np.ones((1, len(np.asarray(target))))).ravel()
    if groups is not None and len(pd.unique(np.asarray(groups))) < 2:
        return [undefined("one group only", float(value)) for value in values]
    drawn = bootstrap_values(metric, target, [prob], groups)[:, 0]
    return [
        undefined("not defined for these rows") if np.isnan(value) else summarise(value, column)
        for value, column in zip(values, drawn.reshape(len(drawn), -1).T, strict=True)
    ]


def compare(difference: float, values: Floats) -> Comparison:
    """A difference and its bootstrap `values` (R,) as a comparison; p from their share beyond 0."""
    defined = values[~np.isnan(values)]
    # An observed difference of 0 with every resample at 0 is no evidence at all: p = 1.
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(defined) + 1))
    return Comparison(summarise(difference, values), float(p))


def placements(target: ArrayLike, prob: ArrayLike) -> Floats:
    """The share of the other class that each row is ranked right against, (N,), ties half.

    The mean over the positives, as over the negatives, is the AUC. By ranks: Sun & Xu 2014, "Fast
    implementation of DeLong's algorithm".
    """
    positive, prob = np.asarray(target) == 1, np.asarray(prob, dtype=np.float64)
    overall, shares = rankdata(prob), np.empty(len(prob))
    positives, negatives = int(positive.sum()), int((~positive).sum())
    shares[positive] = (overall[positive] - rankdata(prob[positive])) / negatives
    shares[~positive] = 1 - (overall[~positive] - rankdata(prob[~positive])) / positives
    return shares


def delong(target: ArrayLike, prob: ArrayLike, groups: ArrayLike | None = None) -> Interval:
    """AUC with DeLong's 95 % interval, symmetric in the logit so that it stays between 0 and 1.

    Placements are summed over groups: Obuchowski 1997, "Nonparametric analysis of clustered ROC
    curve data", which is DeLong, DeLong & Clarke-Pearson 1988 where every row is its own group.
    """
    if reason := undefined_reason(target, prob):
        return undefined(reason)
    positive, shares = np.asarray(target) == 1, placements(target, prob)
    auc = float(shares[positive].mean())
    codes = np.arange(len(positive)) if groups is None else pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1

    # Of the positives and the negatives: how many groups have some, and the sum of the centred
    # placements in each group, divided by the rows.
    held = [len(np.unique(codes[rows])) for rows in (positive, ~positive)]
    if min(held) < 2:
        return undefined("one group only", auc)
    hits, misses = (
        np.bincount(codes[rows], shares[rows] - auc, minlength=count) / rows.sum()
        for rows in (positive, ~positive)
    )
    variance = float(
        held[0] / (held[0] - 1) * hits @ hits
        + held[1] / (held[1] - 1) * misses @ misses
        + (0 if groups is None else 2 * count / (count - 1) * hits @ misses)
    )
    se = float(np.sqrt(max(variance, 0.0)))
    if auc in (0.0, 1.0):
        return Interval(auc, auc, auc, se)
    half = Z * se / (auc * (1 - auc))
    return Interval(auc, float(expit(logit(auc) - half)), float(expit(logit(auc) + half)), se)
