"""95 % intervals by a bootstrap over groups: patients are drawn, not photographs.

A patient's photographs resemble each other, so drawing rows understates the spread (Field & Welsh
2007, "Bootstrapping clustered data"). Rows drawn twice are rows with weight 2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lesions.evaluation.metrics import Floats, Metric, formatted, roc_auc

REPLICATES = 2000
BLOCK = 2**20  # weights held at once: 8 MiB an array, whatever the number of rows


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; `reason` says why it has none."""

    value: float
    low: float
    high: float
    se: float
    reason: str | None = None

    def __str__(self) -> str:
        if np.isnan(self.value):
            return formatted(self.value, self.reason)
        if np.isnan(self.low):
            return f"{self.value:.4f} [n/a: {self.reason}]"
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def as_json(self) -> dict[str, Any]:
        """value, low, high, se, null where not defined, and then the reason."""
        numbers = {name: as_null(getattr(self, name)) for name in ("value", "low", "high", "se")}
        return numbers | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True)
class Comparison:
    """A minus B on the same rows, with its 95 % interval and two-sided p."""

    difference: Interval
    p: float

    def __str__(self) -> str:
        value, reason = self.difference.value, self.difference.reason
        if np.isnan(value):
            return formatted(value, reason)
        low, high = self.difference.low, self.difference.high
        return f"{value:+.4f} [{low:+.4f}, {high:+.4f}], {p_text(self.p)}"


def as_null(value: float) -> float | None:
    """The number, or None where it is NaN, which JSON does not have."""
    return None if np.isnan(value) else value


def p_text(p: float) -> str:
    """The p as a line prints it."""
    if np.isnan(p):
        return "p n/a"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def undefined(reason: str | None, value: float = float("nan")) -> Interval:
    """An interval that is not there, and why."""
    return Interval(value, float("nan"), float("nan"), float("nan"), reason)


def resamples(
    groups: ArrayLike | None, rows: int, replicates: int = REPLICATES, seed: int = 0
) -> Iterator[Floats]:
    """Blocks of row weights, float64 (B, `rows`), `replicates` in all: groups with replacement.

    The same seed draws the same groups for every metric. Without `groups` each row is its own.
    """
    codes = np.arange(rows) if groups is None else pd.factorize(np.asarray(groups))[0]
    if len(codes) != rows:
        raise ValueError(f"{len(codes):,} groups for {rows:,} rows")
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum()):,} rows without a group")
    count = int(codes.max()) + 1 if rows else 0
    generator = np.random.default_rng(seed)
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
    seed: int = 0,
) -> Floats:
    """The metric of each of `probs` on the same resamples: float64 (`replicates`, K).

    NaN where a resample happens to hold one class only.
    """
    target = np.asarray(target)
    columns = [np.asarray(prob) for prob in probs]
    return np.concatenate(
        [
            np.stack([metric.many(target, prob, weight) for prob in columns], axis=1)
            for weight in resamples(groups, len(target), replicates, seed)
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
    metric: Metric,
    target: ArrayLike,
    prob: ArrayLike,
    groups: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """The metric with its 95 % interval over groups; `groups` None: over rows."""
    if reason := metric.undefined(target, prob):
        return undefined(reason)
    value = metric(target, prob)
    if np.isnan(value):
        return undefined("not defined for these rows")
    if groups is not None and len(set(np.asarray(groups).tolist())) < 2:
        return undefined("one group only", value)
    return summarise(
        value, bootstrap_values(metric, target, [prob], groups, replicates, seed)[:, 0]
    )


def bootstrap_paired(
    metric: Metric,
    target: ArrayLike,
    prob: ArrayLike,
    other: ArrayLike,
    groups: ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Metric of `prob` minus that of `other`, both on the same resamples."""
    if reason := metric.undefined(target, prob) or metric.undefined(target, other):
        return Comparison(undefined(reason), float("nan"))
    values = bootstrap_values(metric, target, [prob, other], groups, replicates, seed)
    return compare(metric(target, prob) - metric(target, other), values[:, 0] - values[:, 1])


def compare(difference: float, values: Floats) -> Comparison:
    """A difference and its bootstrap `values` (R,) as a comparison; p from their share beyond 0."""
    defined = values[~np.isnan(values)]
    # An observed difference of 0 with every resample at 0 is no evidence at all: p = 1.
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(defined) + 1))
    return Comparison(summarise(difference, values), float(p))


def auc_interval(
    target: ArrayLike, prob: ArrayLike, groups: ArrayLike | None = None, seed: int = 0
) -> Interval:
    """ROC-AUC with its 95 % interval by a bootstrap over groups."""
    return bootstrap(roc_auc, target, prob, groups, seed=seed)


def score_table(table: pd.DataFrame, prob: str = "prob", by: str | None = "source") -> pd.DataFrame:
    """ROC-AUC of column `prob` with its interval: row "all", then one for each value of `by`.

    `table` has target, `prob`, and where known group and `by`; columns of the result are part,
    rows, positives, auc, low, high, reason (None where the AUC is defined).
    """
    parts = [("all", table)]
    if by and by in table.columns:
        parts += [(str(name), part) for name, part in table.groupby(by, sort=True)]
    scores = []
    for name, part in parts:
        groups = part["group"].to_numpy() if "group" in part.columns else None
        found = auc_interval(part["target"].to_numpy(), part[prob].to_numpy(), groups)
        scores.append(
            {
                "part": name,
                "rows": len(part),
                "positives": int((part["target"] == 1).sum()),
                "auc": found.value,
                "low": found.low,
                "high": found.high,
                "reason": found.reason,
            }
        )
    return pd.DataFrame(scores)
