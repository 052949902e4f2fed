"""Thresholds, fitted on out-of-fold rows alone, and what acting on them is worth.

A threshold's rates are flattered by its own fit; `calibration.across_parts` gives the decisions of
thresholds that did not see the row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lesions.errors import InputError
from lesions.evaluation.calibration import check_fit
from lesions.evaluation.metrics import Floats, Metric, ratio

# A dermatologist biopsies at a risk of a few percent; beyond 30 % nobody waits.
RISKS = np.linspace(0.005, 0.3, 60)


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


RULES: dict[str, Callable[[ArrayLike, ArrayLike], Threshold]] = {
    "recall": by_recall,
    "youden": by_youden,
    "f1": by_f_beta,
    "cost": by_cost,
}


def net_benefit(risk: float) -> Metric:
    """The metric "true positives less false ones at the odds of `risk`, per row".

    `prob` must be calibrated (Vickers & Elkin 2006, "Decision curve analysis").
    """

    def many(target: Any, prob: Any, weight: Floats) -> Floats:
        called, positive = np.asarray(prob) >= risk, np.asarray(target) == 1
        worth = np.where(positive, 1.0, -risk / (1 - risk)) * called
        return ratio(weight @ worth, weight.sum(axis=1))

    many.__name__ = f"net benefit at {risk:.1%} risk"
    return Metric(many, ranks=False)


def decision_curve(target: ArrayLike, prob: ArrayLike, risks: ArrayLike = RISKS) -> pd.DataFrame:
    """Net benefit at each risk: columns risk, model, everybody (nobody is 0)."""
    everybody = np.ones(len(np.asarray(target)))
    return pd.DataFrame(
        {
            "risk": risks,
            "model": [net_benefit(risk)(target, prob) for risk in np.asarray(risks)],
            "everybody": [net_benefit(risk)(target, everybody) for risk in np.asarray(risks)],
        }
    )
