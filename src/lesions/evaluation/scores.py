"""A table of scores with intervals, of yes-or-no tasks and of several classes alike.

`codes` (N,) and `probs` (N, C) are those of data/tasks.py: class numbers, or of yes or no (C = 1)
1 and 0. As in scikit-learn the predicted class is the most probable one, and a class without rows
is left out of means.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lesions.evaluation.intervals import (
    Comparison,
    Interval,
    bootstrap_values,
    compare,
    summarise,
    undefined,
)
from lesions.evaluation.metrics import (
    Floats,
    Metric,
    build_confusion,
    build_curve,
    class_f,
    class_recall,
    curve_area,
    curve_precision,
    mean_of_classes,
    ratio,
    roc_auc,
    undefined_reason,
    unusable_reason,
)

LABELS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "macro_auc": "macro AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
}
CLASS_LABELS = {"auc": "AUC", "recall": "recall", "precision": "precision"}
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Scores(NamedTuple):
    """Scores of all rows by name, and with several classes those of each against the rest."""

    overall: dict[str, Interval]
    classes: dict[str, dict[str, Interval]]


def names_of(classes: int) -> tuple[str, ...]:
    """The scores of a task with so many classes, the most important first; see LABELS."""
    if classes == 1:
        return ("auc", "average_precision")
    return ("macro_auc", "accuracy", "balanced_accuracy", "macro_f1")


@partial(Metric, ranks=False)
def all_scores(codes: Any, probs: Any, weight: Floats) -> Floats:
    """`names_of` and then AUC, recall and precision of all classes, (B, S), on the same resamples.

    Of yes or no (B, 2): AUC and average precision.
    """
    codes, probs = np.asarray(codes), np.asarray(probs)
    if probs.shape[1] == 1:
        curve = build_curve(codes, probs[:, 0], weight)
        return np.stack([curve_area(curve), curve_precision(curve)], axis=1)
    aucs = np.stack(
        [roc_auc.many(codes == k, column, weight) for k, column in enumerate(probs.T)], axis=1
    )
    matrix = build_confusion(codes, probs.argmax(axis=1), weight, aucs.shape[1])
    overall = {"macro_auc": mean_of_classes(aucs)} | matrix_scores(matrix)
    precision = ratio(np.diagonal(matrix, axis1=1, axis2=2).copy(), matrix.sum(axis=1))
    columns = np.stack([overall[name] for name in names_of(aucs.shape[1])], axis=1)
    return np.hstack([columns, aucs, class_recall(matrix), precision])


def matrix_scores(matrix: Floats) -> dict[str, Floats]:
    """The scores, (B,) each, that follow from confusion matrices (B, C, C)."""
    return {
        "accuracy": ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2))),
        "balanced_accuracy": mean_of_classes(class_recall(matrix)),
        "macro_f1": mean_of_classes(class_f(matrix)),
    }


def score_values(codes: ArrayLike, probs: Floats) -> dict[str, float]:
    """The overall scores without intervals, in milliseconds; NaN where not defined."""
    names = names_of(probs.shape[1])
    if _undefined(codes, probs):
        return dict.fromkeys(names, float("nan"))
    values = all_scores.many(codes, probs, np.ones((1, len(probs))))[0]
    return dict(zip(names, map(float, values), strict=False))


def score_rows(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike | None
) -> Scores:
    """Every score with its 95 % interval by a bootstrap over groups; `groups` None: over rows."""
    _check(probs, classes)
    names, count = names_of(len(classes)), len(classes)
    found = _intervals(codes, probs, groups, len(names) + (3 * count if count > 1 else 0))
    rest = iter(found[len(names) :])
    by_score = {score: dict(zip(classes, rest, strict=False)) for score in CLASS_LABELS}
    return Scores(
        dict(zip(names, found, strict=False)),
        {name: {score: by_score[score][name] for score in CLASS_LABELS} for name in classes}
        if count > 1
        else {},
    )


def score_parts(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike, parts: ArrayLike
) -> pd.DataFrame:
    """The overall scores of all rows, and of each value of `parts` (N,) where there are several.

    The index is "all" and then the values; columns are rows, positives (of yes or no), and an
    Interval a score.
    """
    return _score_parts(codes, probs, classes, groups, parts)[0]


def scores_text(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike, parts: ArrayLike
) -> str:
    """`score_parts` for the terminal, and with several classes the scores of each."""
    overall, by_class = _score_parts(codes, probs, classes, groups, parts)
    tables = [overall.rename(columns=LABELS | {"rows": "images"})]
    if by_class:
        each = pd.DataFrame.from_dict(by_class, orient="index").rename(columns=CLASS_LABELS)
        each.insert(0, "images", np.bincount(np.asarray(codes), minlength=len(classes)))
        tables.append(each)
    return "\n\n".join(table.to_string() for table in tables)


def compare_scores(
    codes: ArrayLike, probs: Floats, other: Floats, classes: Sequence[str], groups: ArrayLike | None
) -> dict[str, Comparison]:
    """The overall scores of `probs` less those of `other`, on the same rows and resamples."""
    names = names_of(len(classes))
    for each in (probs, other):
        _check(each, classes)
        if reason := _undefined(codes, each):
            return dict.fromkeys(names, Comparison(undefined(reason), float("nan")))
    one = np.ones((1, len(probs)))
    first, second = (all_scores.many(codes, each, one)[0] for each in (probs, other))
    drawn = bootstrap_values(all_scores, codes, [probs, other], groups)
    differences = drawn[:, 0] - drawn[:, 1]
    return {
        name: compare(float(first[i] - second[i]), differences[:, i])
        for i, name in enumerate(names)
    }


def reweighted(probs: ArrayLike, prior: ArrayLike, power: float) -> Floats:
    """Probabilities (N, C) divided by the classes' `prior` (C,) to a power, summing to 1 again.

    0 leaves the most probable class the prediction; 1 predicts for the highest mean recall, if the
    probabilities are right: Menon et al., 2021, "Long-tail learning via logit adjustment",
    https://arxiv.org/abs/2007.07314.
    """
    raised = np.asarray(probs, np.float64) / np.asarray(prior, np.float64) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def choose_power(codes: ArrayLike, probs: Floats, score: str, prior: ArrayLike) -> float:
    """The one of POWERS with the highest overall `score`, the lowest of equals."""
    values = [score_values(codes, reweighted(probs, prior, power))[score] for power in POWERS]
    return POWERS[int(np.argmax(values))]


def priors(codes: NDArray[np.int64], classes: int) -> Floats:
    """The share of each class, (C,); a class without rows counts as one row."""
    counts = np.bincount(codes, minlength=classes)
    return np.maximum(counts, 1) / counts.sum()


def _score_parts(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike, parts: ArrayLike
) -> tuple[pd.DataFrame, dict[str, dict[str, Interval]]]:
    """The table of `score_parts`, and the scores of each class on all rows."""
    codes, groups, parts = np.asarray(codes), np.asarray(groups), np.asarray(parts)
    whole = score_rows(codes, probs, classes, groups)
    found = [("all", codes, whole.overall)]
    values = np.unique(parts)
    for value in values if len(values) > 1 else []:
        own = parts == value
        scores = score_rows(codes[own], probs[own], classes, groups[own])
        found.append((str(value), codes[own], scores.overall))
    table = pd.DataFrame([overall for _, _, overall in found], [name for name, _, _ in found])
    if len(classes) == 1:
        table.insert(0, "positives", [int((own == 1).sum()) for _, own, _ in found])
    table.insert(0, "rows", [len(own) for _, own, _ in found])
    return table, whole.classes


def _intervals(
    codes: ArrayLike, probs: Floats, groups: ArrayLike | None, count: int
) -> list[Interval]:
    if reason := _undefined(codes, probs):
        return [undefined(reason)] * count
    values = all_scores.many(codes, probs, np.ones((1, len(probs))))[0]
    if groups is not None and len(set(np.asarray(groups).tolist())) < 2:
        return [undefined("one group only", float(value)) for value in values]
    drawn = bootstrap_values(all_scores, codes, [probs], groups)[:, 0]
    return [
        undefined("no such rows") if np.isnan(value) else summarise(value, column)
        for value, column in zip(values, drawn.T, strict=True)
    ]


def _undefined(codes: ArrayLike, probs: Floats) -> str | None:
    if probs.shape[1] == 1:
        return undefined_reason(codes, probs[:, 0])
    return unusable_reason(codes, probs) or ("one class only" if np.ptp(codes) == 0 else None)


def _check(probs: Floats, classes: Sequence[str]) -> None:
    if probs.ndim != 2 or probs.shape[1] != len(classes):
        raise ValueError(f"{probs.shape} probabilities for {len(classes)} classes")
