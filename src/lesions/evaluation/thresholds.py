"""Thresholds, fitted on out-of-fold rows alone, and what acting on them is worth.

A threshold's rates are flattered by its own fit; `calibration.across_parts` gives the decisions of
thresholds that did not see the row.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesions.errors import InputError
from lesions.evaluation.calibration import check_fit
from lesions.evaluation.metrics import Floats, Metric, of_mean


class Threshold(NamedTuple):
    """Positive is `prob` >= `value`."""

    rule: str
    value: float

    def apply(self, prob: ArrayLike) -> NDArray[np.int64]:
        """The decisions, 0 or 1 (N,)."""
        return (np.asarray(prob) >= self.value).astype(np.int64)


# From tp, fp (K,) at falling scores and the totals, the worth of each cut: the highest is taken.
Worth = Callable[[Floats, Floats, float, float], Floats]


def choose(rule: str, worth: Worth, target: ArrayLike, prob: ArrayLike) -> Threshold:
    """The cut of highest worth, of equals the highest cut; calling nobody positive is one too."""
    check_fit(target, prob, "choose a threshold")
    target, prob = np.asarray(target), np.asarray(prob, dtype=np.float64)
    order = np.argsort(-prob, kind="stable")
    last = np.flatnonzero(np.append(np.diff(prob[order]) != 0, True))  # of each run of ties
    tp = np.append(0.0, np.cumsum(target[order] == 1)[last])
    fp = np.append(0.0, np.cumsum(target[order] != 1)[last])
    cuts = np.append(np.nextafter(prob.max(), np.inf), prob[order][last])
    best = int(np.argmax(worth(tp, fp, tp[-1], fp[-1])))
    return Threshold(rule, float(cuts[best]))


def by_f_beta(target: ArrayLike, prob: ArrayLike, beta: float = 1.0) -> Threshold:
    """The threshold of highest F-beta."""
    return choose(
        f"highest F{beta:g}",
        lambda tp, fp, p, n: (1 + beta**2) * tp / (beta**2 * p + tp + fp),
        target,
        prob,
    )


def by_recall(target: ArrayLike, prob: ArrayLike, recall: float = 0.9) -> Threshold:
    """The highest threshold that still finds at least `recall` of the positives."""
    if not 0 < recall <= 1:
        raise InputError(f"cannot choose a threshold: recall {recall} is not between 0 and 1")
    return choose(
        f"recall at least {recall:g}",
        lambda tp, fp, p, n: np.where(tp >= recall * p - 1e-9, -fp, -np.inf),
        target,
        prob,
    )


# Youden's index (1950) is sensitivity + specificity - 1; a missed melanoma costs as much as 20
# false alarms.
RULES: dict[str, Callable[[ArrayLike, ArrayLike], Threshold]] = {
    "recall": by_recall,
    "youden": partial(choose, "highest Youden index", lambda tp, fp, p, n: tp / p - fp / n),
    "f1": by_f_beta,
    "cost": partial(choose, "lowest cost at 20 : 1", lambda tp, fp, p, n: -(20 * (p - tp) + fp)),
}


def net_benefit(risks: Floats) -> Metric:
    """The metric "true positives less false ones at the odds of the risk, per row" of each risk.

    `prob` must be calibrated (Vickers & Elkin 2006, "Decision curve analysis").
    """
    cost = -risks / (1 - risks)
    return of_mean(
        lambda target, prob: (prob[:, None] >= risks) * np.where(target[:, None] == 1, 1.0, cost),
        lambda means: means,
    )
