"""A table of scores with intervals, of yes-or-no tasks and of several classes alike.

`codes` (N,) and `probs` (N, C) are those of data/tasks.py: class numbers, or of yes or no (C = 1)
1 and 0. As in scikit-learn the predicted class is the most probable one, and a class without rows
is left out of means.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lesions.evaluation.intervals import Interval, bootstrap_columns, undefined
from lesions.evaluation.metrics import (
    Floats,
    build_confusion,
    build_curve,
    class_f,
    class_recall,
    curve_area,
    curve_precision,
    mean_of_classes,
    roc_auc,
    share_right,
    undefined_reason,
    unranked,
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


class Scores(NamedTuple):
    """Scores of all rows by name, and with several classes those of each against the rest."""

    overall: dict[str, Interval]
    classes: dict[str, dict[str, Interval]]


def names_of(classes: int) -> tuple[str, ...]:
    """The scores of a task with so many classes, the most important first; see LABELS."""
    if classes == 1:
        return ("auc", "average_precision")
    return ("macro_auc", "accuracy", "balanced_accuracy", "macro_f1")


@unranked
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
    overall = np.stack([mean_of_classes(aucs), *matrix_scores(matrix).values()], axis=1)
    return np.hstack([overall, aucs, class_recall(matrix), class_f(matrix, 0)])


def matrix_scores(matrix: Floats) -> dict[str, Floats]:
    """The scores, (B,) each, that follow from confusion matrices (B, C, C), as `names_of` has."""
    return {
        "accuracy": share_right(matrix),
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
    names, each = names_of(len(classes)), classes if len(classes) > 1 else []
    if reason := _undefined(codes, probs):
        found = [undefined(reason)] * (len(names) + len(CLASS_LABELS) * len(each))
    else:
        found = bootstrap_columns(all_scores, codes, probs, groups)
    by_class = [dict(zip(CLASS_LABELS, found[len(names) + k :: len(each)], strict=False))
                for k in range(len(each))]  # fmt: skip
    return Scores(dict(zip(names, found, strict=False)), dict(zip(each, by_class, strict=True)))


def score_parts(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike, parts: ArrayLike
) -> tuple[pd.DataFrame, dict[str, dict[str, Interval]]]:
    """The overall scores of all rows and of each of several `parts` (N,); those of each class.

    The table's index is "all" and then the values of `parts`; columns are rows, positives (of yes
    or no), and an Interval a score.
    """
    codes, groups, parts = np.asarray(codes), np.asarray(groups), np.asarray(parts)
    values = np.unique(parts)
    pieces = {"all": np.full(len(parts), True)}
    pieces |= {str(value): parts == value for value in (values if len(values) > 1 else [])}
    found = [score_rows(codes[own], probs[own], classes, groups[own]) for own in pieces.values()]
    table = pd.DataFrame([scores.overall for scores in found], list(pieces))
    if len(classes) == 1:
        table.insert(0, "positives", [int((codes[own] == 1).sum()) for own in pieces.values()])
    table.insert(0, "rows", [int(own.sum()) for own in pieces.values()])
    return table, found[0].classes


def scores_text(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike, parts: ArrayLike
) -> str:
    """`score_parts` for the terminal, and with several classes the scores of each."""
    overall, by_class = score_parts(codes, probs, classes, groups, parts)
    tables = [overall.rename(columns=LABELS | {"rows": "images"})]
    if by_class:
        each = pd.DataFrame.from_dict(by_class, orient="index").rename(columns=CLASS_LABELS)
        each.insert(0, "images", np.bincount(np.asarray(codes), minlength=len(classes)))
        tables.append(each)
    return "\n\n".join(table.to_string() for table in tables)


def _undefined(codes: ArrayLike, probs: Floats) -> str | None:
    if probs.shape[1] == 1:
        return undefined_reason(codes, probs[:, 0])
    one_class = "one class only" if np.ptp(codes) == 0 else None
    return undefined_reason(codes, probs, ranks=False) or one_class
