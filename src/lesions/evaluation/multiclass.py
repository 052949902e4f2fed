"""One class against the rest, for tasks with more than two classes."""

import numpy as np
from numpy.typing import ArrayLike

from lesions.evaluation.intervals import Interval, bootstrap
from lesions.evaluation.metrics import Metric, roc_auc


def one_vs_rest(
    target: ArrayLike,
    probs: ArrayLike,
    classes: list[str],
    groups: ArrayLike | None = None,
    metric: Metric = roc_auc,
) -> dict[str, Interval]:
    """The metric of each class against all others: `target` names (N,), `probs` (N, C)."""
    target, probs = np.asarray(target), np.asarray(probs)
    if probs.ndim != 2 or probs.shape[1] != len(classes):
        raise ValueError(f"{probs.shape} probabilities for {len(classes)} classes")
    return {
        name: bootstrap(metric, (target == name).astype(int), probs[:, i], groups)
        for i, name in enumerate(classes)
    }
