"""Thresholds, fitted on out-of-fold rows alone and applied to the test once.

The threshold's own fit flatters it; `calibration.across_parts` gives the decisions of thresholds
that did not see the row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesions.errors import InputError
from lesions.evaluation.calibration import check_fit
from lesions.evaluation.metrics import Floats


@dataclass(frozen=True)
class Threshold:
    """Positive is `prob` >= `value`; the rates are those of the rows it was fitted on."""

    rule: str
    value: float
    sensitivity: float
    specificity: float

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
    positives, negatives = tp[-1], fp[-1]
    best = int(np.argmax(worth(tp, fp, positives, negatives)))
    return Threshold(
        rule, float(cuts[best]), float(tp[best] / positives), float(1 - fp[best] / negatives)
    )


def by_f_beta(target: ArrayLike, prob: ArrayLike, beta: float = 1.0) -> Threshold:
    """The threshold of highest F-beta."""

    def worth(tp: Floats, fp: Floats, positives: float, negatives: float) -> Floats:
        return (1 + beta**2) * tp / (beta**2 * positives + tp + fp)

    return choose(f"highest F{beta:g}", worth, target, prob)


def by_recall(target: ArrayLike, prob: ArrayLike, recall: float = 0.9) -> Threshold:
    """The highest threshold that still finds at least `recall` of the positives."""
    if not 0 < recall <= 1:
        raise InputError(f"cannot choose a threshold: recall {recall} is not between 0 and 1")

    def worth(tp: Floats, fp: Floats, positives: float, negatives: float) -> Floats:
        return np.where(tp >= recall * positives - 1e-9, -fp, -np.inf)

    return choose(f"recall at least {recall:g}", worth, target, prob)


def by_cost(
    target: ArrayLike, prob: ArrayLike, missed: float = 20.0, alarm: float = 1.0
) -> Threshold:
    """The threshold of lowest cost, a missed melanoma at `missed` and a false alarm at `alarm`."""
    if missed <= 0 or alarm <= 0:
        raise InputError(f"cannot choose a threshold: costs {missed}, {alarm} must be above 0")

    def worth(tp: Floats, fp: Floats, positives: float, negatives: float) -> Floats:
        return -(missed * (positives - tp) + alarm * fp)

    return choose(f"lowest cost at {missed:g} : {alarm:g}", worth, target, prob)


def by_youden(target: ArrayLike, prob: ArrayLike) -> Threshold:
    """The threshold of highest sensitivity + specificity - 1 (Youden, 1950)."""

    def worth(tp: Floats, fp: Floats, positives: float, negatives: float) -> Floats:
        return tp / positives - fp / negatives

    return choose("highest Youden index", worth, target, prob)
