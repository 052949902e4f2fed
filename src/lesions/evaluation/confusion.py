"""Metrics of decisions: `prob` is the predicted class here, 0 or 1, or 0..C-1 in multi-class tasks.

A class that no row has and no row is called has no score and is left out of means.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from lesions.evaluation.metrics import Floats, Metric, ratio


def build_confusion(target: Any, predicted: Any, weight: Floats, classes: int = 2) -> Floats:
    """Weighted confusion matrices (B, C, C): rows the true class, columns the predicted one.

    C is `classes`, or more where there are rows of more.
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
macro_f1 = of_confusion("macro-F1", lambda matrix: mean_of_classes(class_f(matrix)))
balanced_accuracy = of_confusion(
    "balanced accuracy", lambda matrix: mean_of_classes(class_recall(matrix))
)
kappa = of_confusion("Cohen's kappa", cohen_kappa)
number_needed_to_biopsy = of_confusion("number needed to biopsy", biopsies_per_hit)
