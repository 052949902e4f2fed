"""A table of scores with intervals, of yes-or-no tasks and of several classes alike.

`codes` (N,) and `probs` (N, C) are those of data/tasks.py: class numbers, or of yes or no (C = 1)
1 and 0. As in scikit-learn the predicted class is the most probable one, and a class without rows
is left out of means.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, vstack

from lesions.evaluation import intervals, metrics
from lesions.evaluation.calibration import calibration_error, fit_scaling
from lesions.evaluation.intervals import Interval
from lesions.evaluation.metrics import Floats, Metric, undefined_reason

LABELS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "macro_auc": "macro AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
}
CLASS_LABELS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "recall": "recall",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "kappa": "Cohen's kappa",
}


class Scores(NamedTuple):
    """Scores of all rows by name, and with several classes those of each against the rest."""

    overall: dict[str, Interval]
    classes: dict[str, dict[str, Interval]]


def names_of(classes: int) -> tuple[str, ...]:
    """The scores of a task with so many classes, the most important first; see LABELS."""
    return tuple(LABELS)[:2] if classes == 1 else tuple(LABELS)[2:]


def prepare_scores(codes: Any, probs: Any) -> tuple[csr_array, Callable[[Floats], Floats]]:
    """`names_of` and then each of CLASS_LABELS of all classes, (B, S), on the same resamples.

    Of yes or no (B, 2): AUC and average precision.
    """
    classes, areas = probs.shape[1], (metrics.curve_area, metrics.curve_precision)
    if classes == 1:
        return metrics.curve_cells(codes, probs[:, 0]), lambda counts: np.stack(
            [area(metrics.build_curve(counts)) for area in areas], axis=1
        )
    cells = [metrics.curve_cells(codes == k, column) for k, column in enumerate(probs.T)]
    cells.append(metrics.confusion_cells(codes, probs.argmax(axis=1), classes))
    edges = np.cumsum([part.shape[0] for part in cells])[:-1]

    def score(counts: Floats) -> Floats:
        *curves, matrix = np.split(counts, edges, axis=1)
        matrix = matrix.reshape(-1, classes, classes)
        built = [metrics.build_curve(part) for part in curves]
        aucs, average = (np.stack([area(curve) for curve in built], axis=1) for area in areas)
        overall = np.stack([metrics.mean_of_classes(aucs), *matrix_scores(matrix).values()], axis=1)
        pairs = metrics.one_against_rest(matrix)
        spared, agreed = metrics.class_recall(pairs)[..., 0], metrics.agreement(pairs)
        recall, precision = metrics.class_recall(matrix), metrics.class_f(matrix, 0)
        f1 = metrics.class_f(matrix)
        return np.hstack([overall, aucs, average, recall, spared, precision, f1, agreed])

    return vstack(cells, format="csr"), score


all_scores = Metric(prepare_scores, ranks=False)


def matrix_scores(matrix: Floats) -> dict[str, Floats]:
    """The scores, (B,) each, that follow from confusion matrices (B, C, C), as `names_of` has."""
    return {
        "accuracy": metrics.share_right(matrix),
        "balanced_accuracy": metrics.mean_of_classes(metrics.class_recall(matrix)),
        "macro_f1": metrics.mean_of_classes(metrics.class_f(matrix)),
    }


def score_values(codes: ArrayLike, probs: Floats) -> dict[str, float]:
    """The overall scores without intervals, in milliseconds; NaN where not defined."""
    names = names_of(probs.shape[1])
    if _undefined(codes, probs):
        return dict.fromkeys(names, float("nan"))
    return dict(zip(names, all_scores.all(codes, probs).tolist(), strict=False))


def score_rows(
    codes: ArrayLike, probs: Floats, classes: Sequence[str], groups: ArrayLike
) -> Scores:
    """Every score with its 95 % interval by a bootstrap over groups."""
    names, each = names_of(len(classes)), classes if len(classes) > 1 else []
    if reason := _undefined(codes, probs):
        found = [Interval(reason=reason)] * (len(names) + len(CLASS_LABELS) * len(each))
    else:
        own = (np.asarray(codes) == k for k in range(len(classes)))
        counts = [intervals.effective_groups(rows, groups) for rows in own]
        counts = [min(counts)] * len(names) + counts * (len(CLASS_LABELS) * bool(each))
        found = intervals.bootstrap_columns(all_scores, codes, probs, groups, counts=counts)
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


def decision_scores(
    positive: np.ndarray, score: Floats, flagged: np.ndarray, risk: Floats, groups: ArrayLike,
    replicates: int,
) -> dict[str, Interval]:  # fmt: skip
    """Measures by name of the ranking by `score`, the decisions and the calibrated `risk`, (N,)."""
    ranking = {
        "average precision": metrics.average_precision,
        "partial AUC above 80 % sensitivity": metrics.partial_auc(0.8),
        "specificity at 95 % sensitivity": metrics.specificity_at(0.95),
    }
    decisions = {
        "recall (sensitivity)": metrics.sensitivity,
        "specificity": metrics.specificity,
        "precision": metrics.precision,
        "F1": metrics.f1,
        "F2": metrics.f2,
        "balanced accuracy": metrics.balanced_accuracy,
        "Cohen's kappa": metrics.kappa,
    }
    found = intervals.bootstrap_each(ranking, positive, score, groups, replicates)
    found |= intervals.bootstrap_each(decisions, positive, flagged, groups, replicates)
    truth = {"Brier score": metrics.brier, "expected calibration error": calibration_error}
    for name, metric in truth.items():
        found[name] = intervals.bootstrap(metric, positive, risk, groups, replicates)
    slope = 1 / fit_scaling(positive, risk[:, None]).temperature
    return found | {"calibration slope": Interval(slope)}


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
