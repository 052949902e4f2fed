"""Metrics of scores, which order the positives above the negatives, and of decisions.

Every metric is computed from weighted counts, so that a bootstrap is the same function called
with the rows' multiplicities: exact with ties, thousands of replicates in seconds.
"""

import functools
import warnings
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
    return curve_area(build_curve(target, prob, weight))


def curve_area(curve: Curve) -> Floats:
    """Area under each ROC curve, (B,)."""
    beaten = curve.negatives[:, None] - (curve.fp + curve.fp_above) / 2
    return ratio((curve.hits * beaten).sum(axis=1), curve.positives * curve.negatives)


@Metric
def average_precision(target: Any, prob: Any, weight: Floats) -> Floats:
    """Precision averaged over the recall steps, without interpolation, as scikit-learn does."""
    return curve_precision(build_curve(target, prob, weight))


def curve_precision(curve: Curve) -> Floats:
    """Average precision along each curve, (B,)."""
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


@functools.partial(Metric, ranks=False)
def log_loss(codes: Any, probs: Any, weight: Floats) -> Floats:
    """Mean negative log of the probability of what is true, which is taken as at least 1e-7.

    `probs` are (N, C) for class numbers, or (N, 1) with P(yes) for codes of 1 and 0.
    """
    codes, probs = np.asarray(codes).astype(int), np.asarray(probs, dtype=np.float64)
    if probs.shape[1] == 1:
        probs = np.hstack([1 - probs, probs])
    found = probs[np.arange(len(codes)), codes]
    return ratio(weight @ -np.log(np.maximum(found, 1e-7)), weight.sum(axis=1))


def build_confusion(target: Any, predicted: Any, weight: Floats, classes: int = 2) -> Floats:
    """Weighted confusion matrices (B, C, C): rows the true class, columns the predicted one.

    C is `classes`, or more where there are rows of more. A class that no row has and that is never
    predicted has no score, and is left out of means.
    """
    target, predicted = np.asarray(target).astype(int), np.asarray(predicted).astype(int)
    classes = max(classes, int(max(target.max(), predicted.max())) + 1)
    cells = np.eye(classes**2)[target * classes + predicted]  # (N, C * C), one-hot
    return (weight @ cells).reshape(-1, classes, classes)


def of_confusion(name: str, score: Callable[[Floats], Floats]) -> Metric:
    """The metric that `score` computes from confusion matrices (B, C, C)."""

    def many(target: Any, predicted: Any, weight: Floats) -> Floats:
        return score(build_confusion(target, predicted, weight))

    many.__name__ = name
    return Metric(many, ranks=False)


def class_recall(matrix: Floats) -> Floats:
    """Recall of each class, (B, C); NaN for a class without rows."""
    return ratio(np.diagonal(matrix, axis1=1, axis2=2).copy(), matrix.sum(axis=2))


def class_f(matrix: Floats, beta: float = 1.0) -> Floats:
    """F-beta of each class against the rest, (B, C); NaN for a class neither true nor predicted."""
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    return ratio((1 + beta**2) * hits, beta**2 * matrix.sum(axis=2) + matrix.sum(axis=1))


def mean_of_classes(scores: Floats) -> Floats:
    """Mean over the classes (B, C) that have a score."""
    with warnings.catch_warnings():  # a replicate without any class stays NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(scores, axis=1)


def f_beta(beta: float) -> Metric:
    """The metric F-beta of class 1: recall counts `beta` times as much as precision."""
    return of_confusion(f"F{beta:g}", lambda matrix: class_f(matrix, beta)[:, 1])


def cohen_kappa(matrix: Floats) -> Floats:
    """Agreement beyond chance (Cohen, 1960)."""
    total = matrix.sum(axis=(1, 2))
    agreed = ratio(np.trace(matrix, axis1=1, axis2=2), total)
    chance = ratio((matrix.sum(axis=1) * matrix.sum(axis=2)).sum(axis=1), total**2)
    return ratio(agreed - chance, 1 - chance)


def biopsies_per_hit(matrix: Floats) -> Floats:
    """Lesions called positive for each true positive: 1 / precision."""
    return ratio(matrix[:, :, 1].sum(axis=1), matrix[:, 1, 1])


f1 = f_beta(1)
f2 = f_beta(2)
sensitivity = of_confusion("sensitivity", lambda matrix: class_recall(matrix)[:, 1])
specificity = of_confusion("specificity", lambda matrix: class_recall(matrix)[:, 0])
precision = of_confusion(
    "precision", lambda matrix: ratio(matrix[:, 1, 1], matrix[:, :, 1].sum(axis=1))
)
accuracy = of_confusion(
    "accuracy",
    lambda matrix: ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2))),
)
balanced_accuracy = of_confusion(
    "balanced accuracy", lambda matrix: mean_of_classes(class_recall(matrix))
)
kappa = of_confusion("Cohen's kappa", cohen_kappa)
number_needed_to_biopsy = of_confusion("number needed to biopsy", biopsies_per_hit)
