"""Ranking metrics: how well scores order the positives above the negatives.

Every metric is computed from weighted counts, so that a bootstrap is the same function called
with the rows' multiplicities: exact with ties, thousands of replicates in seconds.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Many = Callable[[Any, Any, Floats], Floats]


class Metric:
    """A number from (target, prob), NaN where it is not defined.

    `many(target, prob, weight)` gives it for each row of `weight` (B, N), float64 (B,).
    `ranks` says that it needs both classes and scores that differ.
    """

    def __init__(self, many: Many, ranks: bool = True):
        self.many = many
        self.ranks = ranks
        functools.update_wrapper(self, many)

    def __call__(self, target: ArrayLike, prob: ArrayLike) -> float:
        target, prob = np.asarray(target), np.asarray(prob)
        if self.undefined(target, prob):
            return float("nan")
        return float(self.many(target, prob, np.ones((1, len(target))))[0])

    def undefined(self, target: ArrayLike, prob: ArrayLike) -> str | None:
        """Why there is no number for these rows, in a few words; None where there is one."""
        if self.ranks:
            return undefined_reason(target, prob)
        return unusable_reason(target, prob)


def unusable_reason(target: ArrayLike, prob: ArrayLike) -> str | None:
    """Why no metric at all can be computed, in a few words, or None."""
    target, prob = np.asarray(target), np.asarray(prob)
    if len(target) != len(prob):
        raise ValueError(f"{len(target):,} targets but {len(prob):,} scores")
    if not len(target):
        return "no rows"
    if not np.isfinite(target.astype(float)).all():
        return f"{int((~np.isfinite(target.astype(float))).sum()):,} rows without a target"
    if not np.isfinite(prob.astype(float)).all():
        return f"{int((~np.isfinite(prob.astype(float))).sum()):,} scores are not finite numbers"
    return None


def undefined_reason(target: ArrayLike, prob: ArrayLike) -> str | None:
    """Why a ranking metric such as AUC is not defined here, in a few words, or None."""
    if reason := unusable_reason(target, prob):
        return reason
    target, prob = np.asarray(target), np.asarray(prob)
    if ((target != 0) & (target != 1)).any():
        raise ValueError("targets must be 0 or 1")
    if (target == target[0]).all():
        return "one class only"
    if (prob == prob[0]).all():
        return "all scores equal"
    return None


def formatted(value: float, reason: str | None = None, digits: int = 4) -> str:
    """The number as text, or "n/a (reason)"."""
    if np.isnan(value):
        return f"n/a ({reason})" if reason else "n/a"
    return f"{value:.{digits}f}"


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0
    )


class Curve(NamedTuple):
    """Weighted ROC counts at the K distinct scores of positives, highest first.

    hits (B, K) positives at the score, tp (B, K) at or above it, fp and fp_above (B, K) negatives
    at or above and above it; positives and negatives (B,) are the totals.
    """

    hits: Floats
    tp: Floats
    fp: Floats
    fp_above: Floats
    positives: Floats
    negatives: Floats


def build_curve(target: Any, prob: Any, weight: Floats) -> Curve:
    """ROC counts of each row of `weight` (B, N); only scores of positives bend the ROC's area."""
    positive = np.asarray(target) == 1
    scores = np.asarray(prob, dtype=np.float64)
    falling = np.flatnonzero(positive)[np.argsort(-scores[positive], kind="stable")]
    rising = np.flatnonzero(~positive)[np.argsort(scores[~positive], kind="stable")]
    distinct, starts = np.unique(-scores[falling], return_index=True)

    hits = np.add.reduceat(weight[:, falling], starts, axis=1) if len(starts) else weight[:, :0]
    below = np.zeros((len(weight), len(rising) + 1))
    np.cumsum(weight[:, rising], axis=1, out=below[:, 1:])
    negatives = below[:, -1]
    first = np.searchsorted(scores[rising], -distinct, side="left")
    last = np.searchsorted(scores[rising], -distinct, side="right")
    return Curve(
        hits=hits,
        tp=np.cumsum(hits, axis=1),
        fp=negatives[:, None] - below[:, first],
        fp_above=negatives[:, None] - below[:, last],
        positives=hits.sum(axis=1),
        negatives=negatives,
    )


@Metric
def roc_auc(target: Any, prob: Any, weight: Floats) -> Floats:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, ties half."""
    curve = build_curve(target, prob, weight)
    beaten = curve.negatives[:, None] - (curve.fp + curve.fp_above) / 2
    return ratio((curve.hits * beaten).sum(axis=1), curve.positives * curve.negatives)


@Metric
def average_precision(target: Any, prob: Any, weight: Floats) -> Floats:
    """Precision averaged over the recall steps, without interpolation, as scikit-learn does."""
    curve = build_curve(target, prob, weight)
    precision = curve.tp / np.maximum(curve.tp + curve.fp, 1e-300)  # 0/0 only where hits is 0
    return ratio((curve.hits * precision).sum(axis=1), curve.positives)


def partial_auc(min_tpr: float = 0.8) -> Metric:
    """The metric "area between the ROC curve and the line TPR = `min_tpr`": 0 to 1 - `min_tpr`.

    At 0.8 it is the official score of ISIC 2024.
    """

    def many(target: Any, prob: Any, weight: Floats) -> Floats:
        curve = build_curve(target, prob, weight)
        # Step by step along the TPR axis: from (before, left) to (after, right), a straight line.
        after = ratio(curve.tp, curve.positives[:, None] + 0 * curve.tp)
        step = ratio(curve.hits, curve.positives[:, None] + 0 * curve.hits)
        counted = np.clip(after - min_tpr, 0, step)
        left = 1 - ratio(curve.fp_above, curve.negatives[:, None] + 0 * curve.tp)
        right = 1 - ratio(curve.fp, curve.negatives[:, None] + 0 * curve.tp)
        share = np.divide(counted, step, out=np.zeros_like(step), where=step > 0)
        entry = right + (left - right) * share
        return (counted * (entry + right) / 2).sum(axis=1)

    many.__name__ = f"partial AUC above {min_tpr:.0%} TPR"
    return Metric(many)


def sensitivity_at(specificity: float) -> Metric:
    """The metric "highest sensitivity of any threshold with at least this specificity"."""

    def many(target: Any, prob: Any, weight: Floats) -> Floats:
        curve = build_curve(target, prob, weight)
        allowed = curve.fp <= (1 - specificity) * curve.negatives[:, None] + 1e-9
        most = np.where(allowed, curve.tp, 0).max(axis=1)
        return np.where(curve.negatives > 0, ratio(most, curve.positives), np.nan)

    many.__name__ = f"sensitivity at {specificity:.0%} specificity"
    return Metric(many)


def specificity_at(sensitivity: float) -> Metric:
    """The metric "highest specificity of any threshold with at least this sensitivity"."""

    def many(target: Any, prob: Any, weight: Floats) -> Floats:
        curve = build_curve(target, prob, weight)
        enough = curve.tp >= sensitivity * curve.positives[:, None] - 1e-9
        fewest = np.where(enough, curve.fp, np.inf).min(axis=1)
        kept = np.where(curve.positives > 0, curve.negatives - fewest, np.nan)
        return ratio(kept, curve.negatives)

    many.__name__ = f"specificity at {sensitivity:.0%} sensitivity"
    return Metric(many)


def stratified_auc(strata: ArrayLike, nested: bool = False) -> Metric:
    """The metric "share of ordered pairs among pairs of the same stratum", ties half.

    Image size as stratum takes away what the camera gives away. `nested`: the strata are the
    bootstrap's own groups (AUC within patient), and a patient drawn twice is two patients.
    """
    _, codes = np.unique(np.asarray(strata).astype(str), return_inverse=True)

    def many(target: Any, prob: Any, weight: Floats) -> Floats:
        positive = np.asarray(target) == 1
        distinct, rank = np.unique(np.asarray(prob, dtype=np.float64), return_inverse=True)
        key = codes.astype(np.int64) * len(distinct) + rank
        rising = np.flatnonzero(~positive)[np.argsort(key[~positive], kind="stable")]
        below = np.zeros((len(weight), len(rising) + 1))
        np.cumsum((weight[:, rising] > 0) if nested else weight[:, rising], 1, out=below[:, 1:])
        edges = [codes[positive], codes[positive] + 1]
        start, end = (np.searchsorted(key[rising], edge * len(distinct)) for edge in edges)
        first = np.searchsorted(key[rising], key[positive], side="left")
        last = np.searchsorted(key[rising], key[positive], side="right")
        beaten = (below[:, first] + below[:, last]) / 2 - below[:, start]
        pairs = below[:, end] - below[:, start]
        return ratio(
            (weight[:, positive] * beaten).sum(axis=1), (weight[:, positive] * pairs).sum(axis=1)
        )

    many.__name__ = "AUC within strata"
    return Metric(many)
