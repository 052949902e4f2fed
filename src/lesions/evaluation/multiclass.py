"""Scores of tasks with more than two classes: one class against the rest, and all of them at once.

`target` are class names (N,), `probs` (N, C) in the order of `classes`. As in scikit-learn the
predicted class is the most probable one, and a class without rows is left out of the means.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lesions.evaluation.confusion import build_confusion, class_f, class_recall, mean_of_classes
from lesions.evaluation.intervals import (
    Comparison,
    Interval,
    bootstrap_values,
    compare,
    summarise,
    undefined,
)
from lesions.evaluation.metrics import Floats, Metric, ratio, roc_auc, unusable_reason

# The scores of all classes at once, and what they are called.
LABELS = {
    "macro_auc": "macro AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
}
SCORES = tuple(LABELS)
CLASS_SCORES = ("auc", "recall", "precision")


class ClassReport(NamedTuple):
    """`scores` has SCORES; `classes` has CLASS_SCORES of each class against the rest."""

    scores: dict[str, Interval]
    classes: dict[str, dict[str, Interval]]


def classes_in(columns: Iterable[Hashable]) -> list[str]:
    """The classes of the columns prob_<class> of a predictions' file, in their order."""
    return [name[len("prob_") :] for name in map(str, columns) if name.startswith("prob_")]


def codes_of(target: ArrayLike, classes: Sequence[str]) -> NDArray[np.int64]:
    """The place in `classes` of each name, (N,); ValueError for a name that is not there."""
    codes = pd.Index(classes).get_indexer(pd.Index(np.asarray(target)))
    if (codes < 0).any():
        raise ValueError(f"target {np.asarray(target)[codes < 0][0]} is none of {list(classes)}")
    return codes.astype(np.int64)


def collapse(probs: ArrayLike, classes: Sequence[str], positive: Sequence[str]) -> Floats:
    """The probability (N,) of being of any of the `positive` classes, of those that there are."""
    chosen = np.isin(classes, positive)
    if not chosen.any():
        raise ValueError(f"none of {list(positive)} is among {list(classes)}")
    return np.asarray(probs, dtype=np.float64)[:, chosen].sum(axis=1).clip(0, 1)


def class_auc(codes: Any, probs: Any, weight: Floats) -> Floats:
    """AUC of each class against the rest, (B, C); NaN for a class without rows, or with all."""
    columns = np.asarray(probs).T
    aucs = [roc_auc.many(codes == k, column, weight) for k, column in enumerate(columns)]
    return np.stack(aucs, axis=1)


@partial(Metric, ranks=False)
def all_scores(codes: Any, probs: Any, weight: Floats) -> Floats:
    """SCORES, then each of CLASS_SCORES of all classes: (B, 4 + 3 C), from the same resamples."""
    aucs = class_auc(codes, probs, weight)
    matrix = build_confusion(codes, np.asarray(probs).argmax(axis=1), weight, aucs.shape[1])
    overall = {"macro_auc": mean_of_classes(aucs)} | matrix_scores(matrix)
    precision = ratio(np.diagonal(matrix, axis1=1, axis2=2).copy(), matrix.sum(axis=1))
    columns = np.stack([overall[name] for name in SCORES], axis=1)
    return np.hstack([columns, aucs, class_recall(matrix), precision])


def matrix_scores(matrix: Floats) -> dict[str, Floats]:
    """Those of SCORES, (B,) each, that confusion matrices (B, C, C) give."""
    return {
        "accuracy": ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2))),
        "balanced_accuracy": mean_of_classes(class_recall(matrix)),
        "macro_f1": mean_of_classes(class_f(matrix)),
    }


@partial(Metric, ranks=False)
def log_loss(codes: Any, probs: Any, weight: Floats) -> Floats:
    """Mean negative log of the true class's probability, which is taken as at least 1e-7."""
    found = np.asarray(probs)[np.arange(len(codes)), codes]
    return ratio(weight @ -np.log(np.maximum(found, 1e-7)), weight.sum(axis=1))


def report_classes(
    target: ArrayLike, probs: ArrayLike, classes: Sequence[str], groups: ArrayLike | None = None
) -> ClassReport:
    """Every score with its 95 % interval by a bootstrap over groups; `groups` None: over rows."""
    codes, matrix = codes_of(target, classes), _checked(probs, classes)
    names = [*SCORES, *(f"{score} {name}" for score in CLASS_SCORES for name in classes)]
    found = dict(zip(names, _intervals(codes, matrix, groups, len(names)), strict=True))
    return ClassReport(
        {name: found[name] for name in SCORES},
        {name: {score: found[f"{score} {name}"] for score in CLASS_SCORES} for name in classes},
    )


def class_scores(
    target: ArrayLike, probs: ArrayLike, classes: Sequence[str], groups: ArrayLike | None = None
) -> dict[str, Interval]:
    """SCORES with their 95 % intervals by a bootstrap over groups; `groups` None: over rows."""
    return report_classes(target, probs, classes, groups).scores


def compare_classes(
    target: ArrayLike,
    probs: ArrayLike,
    other: ArrayLike,
    classes: Sequence[str],
    groups: ArrayLike | None = None,
) -> dict[str, Comparison]:
    """SCORES of `probs` less those of `other` on the same rows, both on the same resamples."""
    codes, pair = codes_of(target, classes), [_checked(p, classes) for p in (probs, other)]
    if reason := next(filter(None, (_undefined(codes, p) for p in pair)), None):
        return dict.fromkeys(SCORES, Comparison(undefined(reason), float("nan")))
    first, second = (_values(codes, p) for p in pair)
    drawn = bootstrap_values(all_scores, codes, pair, groups)
    differences = drawn[:, 0] - drawn[:, 1]
    return {
        name: compare(float(first[i] - second[i]), differences[:, i])
        for i, name in enumerate(SCORES)
    }


def _intervals(
    codes: NDArray[np.int64], probs: Floats, groups: ArrayLike | None, count: int
) -> list[Interval]:
    if reason := _undefined(codes, probs):
        return [undefined(reason)] * count
    values = _values(codes, probs)
    if groups is not None and len(set(np.asarray(groups).tolist())) < 2:
        return [undefined("one group only", float(value)) for value in values]
    drawn = bootstrap_values(all_scores, codes, [probs], groups)[:, 0]
    return [
        undefined("no such rows") if np.isnan(value) else summarise(value, column)
        for value, column in zip(values, drawn.T, strict=True)
    ]


def _values(codes: NDArray[np.int64], probs: Floats) -> Floats:
    return all_scores.many(codes, probs, np.ones((1, len(codes))))[0]


def _undefined(codes: NDArray[np.int64], probs: Floats) -> str | None:
    return unusable_reason(codes, probs) or ("one class only" if np.ptp(codes) == 0 else None)


def _checked(probs: ArrayLike, classes: Sequence[str]) -> Floats:
    matrix = np.asarray(probs, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(classes):
        raise ValueError(f"{matrix.shape} probabilities for {len(classes)} classes")
    return matrix
