"""Decision curves: is acting on the model better than treating everybody or nobody?"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lesions.evaluation.metrics import Floats, Metric, ratio

# A dermatologist biopsies at a risk of a few percent; beyond 30 % nobody waits.
RISKS = np.linspace(0.005, 0.3, 60)


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
