"""Metrics of scores, which order the positives above the negatives, and of decisions.

Every metric is a function of sums over the rows. A bootstrap adds up each group once and is then a
sparse matrix times how often each group was drawn: exact with ties, thousands of replicates in a
second.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
# From (target, prob): what is added up over the rows, (M, N), and the function that makes the
# number (B,), or several (B, S), of the sums (B, M).
Prepare = Callable[[Any, Any], tuple[csr_array, Callable[[Floats], Floats]]]


class Metric(NamedTuple):
    """A number from (target, prob), NaN where it is not defined.

    `ranks` says that it needs both classes and scores that differ.
    """

    prepare: Prepare
    ranks: bool = True

    def __call__(self, target: ArrayLike, prob: ArrayLike) -> float:
        undefined = undefined_reason(target, prob, self.ranks)
        return float("nan") if undefined else float(self.all(target, prob)[0])

    def all(self, target: ArrayLike, prob: ArrayLike) -> Floats:
        """Its numbers (S,) for the rows as they are."""
        rows, score = self.prepare(np.asarray(target), np.asarray(prob))
        return score((rows @ np.ones((rows.shape[1], 1))).T).ravel()


def together(metrics: Collection[Metric]) -> Metric:
    """The numbers of several metrics that add up the same cells, at the cost of one."""

    def prepare(target: Any, prob: Any) -> tuple[csr_array, Callable[[Floats], Floats]]:
        parts = [metric.prepare(target, prob) for metric in metrics]
        return parts[0][0], lambda sums: np.stack([score(sums) for _, score in parts], axis=1)

    return Metric(prepare, any(metric.ranks for metric in metrics))


def undefined_reason(target: ArrayLike, prob: ArrayLike, ranks: bool = True) -> str | None:
    """Why a metric, which `ranks` or not, is not defined here, in a few words, or None."""
    target, prob = np.asarray(target), np.asarray(prob)
    if len(target) != len(prob):
        raise ValueError(f"{len(target):,} targets but {len(prob):,} scores")
    if not len(target):
        return "no rows"
    if unknown := np.count_nonzero(~np.isfinite(target.astype(float))):
        return f"{unknown:,} rows without a target"
    if bad := np.count_nonzero(~np.isfinite(prob.astype(float))):
        return f"{bad:,} scores are not finite numbers"
    if not ranks:
        return None
    if not np.isin(target, (0, 1)).all():
        raise ValueError("targets must be 0 or 1")
    if (target == target[0]).all():
        return "one class only"
    return "all scores equal" if (prob == prob[0]).all() else None


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise quotient, NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0
    )


def all_columns(probs: ArrayLike) -> Floats:
    """Probabilities (..., C) of all classes: of yes alone, (..., 1), those of no and yes."""
    probs = np.asarray(probs, dtype=np.float64)
    return np.concatenate([1 - probs, probs], axis=-1) if probs.shape[-1] == 1 else probs


def one_hot(cells: NDArray[np.int64], count: int) -> csr_array:
    """Which of `count` cells each row falls into, (count, N)."""
    return csr_array((np.ones(len(cells)), (cells, np.arange(len(cells)))), (count, len(cells)))


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


def curve_cells(target: Any, prob: Any) -> csr_array:
    """The cells of `build_curve`, (3 K + 1, N); only scores of positives bend the ROC's area.

    K cells of the positives at each of their distinct scores, K of the negatives tied with them,
    and K + 1 of the negatives between them.
    """
    positive, falling = np.asarray(target) == 1, -np.asarray(prob, dtype=np.float64)
    distinct = np.unique(falling[positive])
    above = np.searchsorted(distinct, falling, side="left")
    tied = np.searchsorted(distinct, falling, side="right") > above
    block = np.where(positive, 0, np.where(tied, 1, 2))
    return one_hot(block * len(distinct) + above, 3 * len(distinct) + 1)


def build_curve(counts: Floats) -> Curve:
    """ROC counts of the rows in each of `curve_cells`, (B, 3 K + 1)."""
    hits, ties, between = np.split(counts, [counts.shape[1] // 3, 2 * (counts.shape[1] // 3)], 1)
    fp = np.cumsum(ties + between[:, :-1], axis=1)
    return Curve(
        hits=hits,
        tp=np.cumsum(hits, axis=1),
        fp=fp,
        fp_above=fp - ties,
        positives=hits.sum(axis=1),
        negatives=ties.sum(axis=1) + between.sum(axis=1),
    )


def of_curve(score: Callable[[Curve], Floats]) -> Metric:
    """The metric that `score` computes from ROC counts."""
    return Metric(lambda target, prob: (curve_cells(target, prob), lambda s: score(build_curve(s))))


def curve_area(curve: Curve) -> Floats:
    """Area under the ROC curve: the share of (positive, negative) pairs in order, ties half."""
    beaten = curve.negatives[:, None] - (curve.fp + curve.fp_above) / 2
    return ratio((curve.hits * beaten).sum(axis=1), curve.positives * curve.negatives)


def curve_precision(curve: Curve) -> Floats:
    """Precision averaged over the recall steps, without interpolation, as scikit-learn does."""
    precision = curve.tp / np.maximum(curve.tp + curve.fp, 1e-300)  # 0/0 only where hits is 0
    return ratio((curve.hits * precision).sum(axis=1), curve.positives)


roc_auc = of_curve(curve_area)
average_precision = of_curve(curve_precision)


def partial_auc(min_tpr: float = 0.8) -> Metric:
    """The metric "area between the ROC curve and the line TPR = `min_tpr`": 0 to 1 - `min_tpr`.

    At 0.8 it is the official score of ISIC 2024.
    """

    def area(curve: Curve) -> Floats:
        positives, negatives = curve.positives[:, None], curve.negatives[:, None]
        # Step by step along the TPR axis: from (before, left) to (after, right), a straight line.
        step = ratio(curve.hits, positives)
        counted = np.clip(ratio(curve.tp, positives) - min_tpr, 0, step)
        left, right = (1 - ratio(fp, negatives) for fp in (curve.fp_above, curve.fp))
        share = np.divide(counted, step, out=np.zeros_like(step), where=step > 0)
        entry = right + (left - right) * share
        return (counted * (entry + right) / 2).sum(axis=1)

    return of_curve(area)


def specificity_at(sensitivity: float) -> Metric:
    """The metric "highest specificity of any threshold with at least this sensitivity"."""

    def highest(curve: Curve) -> Floats:
        enough = curve.tp >= sensitivity * curve.positives[:, None] - 1e-9
        fewest = np.where(enough, curve.fp, np.inf).min(axis=1)
        kept = np.where(curve.positives > 0, curve.negatives - fewest, np.nan)
        return ratio(kept, curve.negatives)

    return of_curve(highest)


def of_mean(
    values: Callable[[Any, Any], Floats],
    score: Callable[[Floats], Floats] = lambda means: means[:, 0],
) -> Metric:
    """The metric that `score` computes from means (B, S) over the rows of `values` (N, S) or (N,).

    It is defined with one class and equal scores too.
    """

    def prepare(target: Any, prob: Any) -> tuple[csr_array, Callable[[Floats], Floats]]:
        each = np.column_stack([values(target, prob), np.ones(len(target))])
        return csr_array(each.T), lambda sums: score(ratio(sums[:, :-1], sums[:, -1:]))

    return Metric(prepare, ranks=False)


mean = of_mean(lambda target, prob: prob)
brier = of_mean(lambda target, prob: (prob - target) ** 2)


@of_mean
def log_loss(codes: Any, probs: Any) -> Floats:
    """Mean negative log of the probability of what is true, which is taken as at least 1e-7.

    `probs` are (N, C) for class numbers, or (N, 1) with P(yes) for codes of 1 and 0.
    """
    found = all_columns(probs)[np.arange(len(codes)), codes.astype(int)]
    return -np.log(np.maximum(found, 1e-7))


def confusion_cells(target: Any, predicted: Any, classes: int) -> csr_array:
    """The cells of a confusion matrix, row by row: the true class, then the predicted one."""
    return one_hot(target.astype(int) * classes + predicted.astype(int), classes**2)


def build_confusion(target: ArrayLike, predicted: ArrayLike, classes: int = 2) -> Floats:
    """The confusion matrix (C, C): rows the true class, columns the predicted one."""
    counts = confusion_cells(np.asarray(target), np.asarray(predicted), classes).sum(axis=1)
    return counts.reshape(classes, classes)


def of_confusion(score: Callable[[Floats], Floats]) -> Metric:
    """The metric that `score` computes from confusion matrices (B, C, C).

    A class that no row has and that is never predicted has no score, and is left out of means.
    """

    def prepare(target: Any, predicted: Any) -> tuple[csr_array, Callable[[Floats], Floats]]:
        classes = max(2, int(max(target.max(), predicted.max())) + 1)
        cells = confusion_cells(target, predicted, classes)
        return cells, lambda sums: score(sums.reshape(-1, classes, classes))

    return Metric(prepare, ranks=False)


def class_recall(matrix: Floats) -> Floats:
    """Recall of each class, (..., C); NaN for a class without rows."""
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def class_f(matrix: Floats, beta: float = 1.0) -> Floats:
    """F-beta of each class against the rest, (B, C); NaN for a class neither true nor predicted.

    F0 is the precision, NaN for a class that is never predicted.
    """
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    return ratio((1 + beta**2) * hits, beta**2 * matrix.sum(axis=2) + matrix.sum(axis=1))


def mean_of_classes(scores: Floats) -> Floats:
    """Mean over the classes (B, C) that have a score."""
    return ratio(np.nansum(scores, axis=1), (~np.isnan(scores)).sum(axis=1))


def share_right(matrix: Floats) -> Floats:
    """The share of rows whose class is the predicted one, (...,)."""
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def f_beta(beta: float) -> Metric:
    """The metric F-beta of class 1: recall counts `beta` times as much as precision."""
    return of_confusion(lambda matrix: class_f(matrix, beta)[:, 1])


def one_against_rest(matrix: Floats) -> Floats:
    """The matrix of each class against all others, (B, C, 2, 2), as of yes (1) and no (0)."""
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    missed, false = matrix.sum(axis=2) - hits, matrix.sum(axis=1) - hits
    rest = matrix.sum(axis=(1, 2))[:, None] - hits - missed - false
    return np.stack([np.stack([rest, false], -1), np.stack([missed, hits], -1)], -2)


def agreement(matrix: Floats) -> Floats:
    """Agreement beyond chance (Cohen, 1960), (...,)."""
    chance = (matrix.sum(axis=-2) * matrix.sum(axis=-1)).sum(axis=-1)
    chance = ratio(chance, matrix.sum(axis=(-2, -1)) ** 2)
    return ratio(share_right(matrix) - chance, 1 - chance)


f1 = f_beta(1)
f2 = f_beta(2)
kappa = of_confusion(agreement)
sensitivity = of_confusion(lambda matrix: class_recall(matrix)[:, 1])
specificity = of_confusion(lambda matrix: class_recall(matrix)[:, 0])
precision = f_beta(0)
accuracy = of_confusion(share_right)
balanced_accuracy = of_confusion(lambda matrix: mean_of_classes(class_recall(matrix)))
# Lesions called positive for each true positive: 1 / precision.
number_needed_to_biopsy = of_confusion(lambda m: ratio(m[:, :, 1].sum(axis=1), m[:, 1, 1]))
