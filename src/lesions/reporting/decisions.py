"""The threshold, who it flags, calibrated risks, and the figures that show what they are worth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.evaluation.calibration import (
    across_parts,
    clipped_logit,
    equal_bins,
    fit_platt,
    reliability,
)
from lesions.evaluation.confusion import sensitivity, specificity
from lesions.evaluation.decision import decision_curve, net_benefit
from lesions.evaluation.intervals import Interval, bootstrap, bootstrap_values
from lesions.evaluation.thresholds import Threshold, by_recall
from lesions.reporting.rates import rate
from lesions.reporting.style import BASELINE, BENIGN, INK, MODEL, MUTED, build_figure
from lesions.reporting.words import Words

FIFTHS = ["least certain fifth", "second", "third", "fourth", "most certain fifth"]
RISKS = np.linspace(0.01, 0.4, 40)


@dataclass(frozen=True)
class Decisions:
    """What the threshold makes of the out-of-fold rows, every row judged without its own target.

    `threshold` is fitted on all rows and meant for new images; `flagged` (N,) and `risk` (N,), the
    calibrated probability, come from thresholds and calibrations of the other folds.
    `margin` (N,) is the distance to the threshold in log odds.
    """

    threshold: Threshold
    flagged: np.ndarray
    risk: np.ndarray
    margin: np.ndarray
    sensitivity: Interval
    specificity: Interval
    across_folds: bool

    @property
    def point(self) -> tuple[float, float]:
        """1 - specificity and sensitivity: the operating point in a ROC plot."""
        return 1 - self.specificity.value, self.sensitivity.value


def decide(oof: pd.DataFrame, recall: float) -> Decisions:
    """Decisions at the threshold that still catches `recall` of the positives.

    InputError where the rows do not allow one (one class, too few).
    """
    target, prob = oof["target"].to_numpy(), oof["prob"].to_numpy()
    folds, groups = oof["fold"].to_numpy(), oof["group"].to_numpy()

    def fit(target, prob) -> Threshold:
        return by_recall(target, prob, recall)

    threshold = fit(target, prob)
    several = len(np.unique(folds)) > 1
    if several:
        flagged = across_parts(fit, target, prob, folds) == 1
        risk = across_parts(fit_platt, target, prob, folds)
    else:
        flagged = threshold.apply(prob) == 1
        risk = fit_platt(target, prob).apply(prob)
    return Decisions(
        threshold=threshold,
        flagged=flagged,
        risk=risk,
        margin=np.abs(clipped_logit(prob) - clipped_logit(threshold.value)),
        sensitivity=bootstrap(sensitivity, target, flagged, groups),
        specificity=bootstrap(specificity, target, flagged, groups),
        across_folds=several,
    )


def confusion_counts(oof: pd.DataFrame, flagged: np.ndarray) -> np.ndarray:
    """Counts (2, 2): positive and benign by flagged and cleared."""
    positive = (oof["target"] == 1).to_numpy()
    rows = [[(kind & flagged).sum(), (kind & ~flagged).sum()] for kind in (positive, ~positive)]
    return np.array(rows)


def certainty(margin: np.ndarray) -> pd.Series:
    """The fifth of the rows by distance to the threshold, least certain first."""
    names = np.array(FIFTHS)
    kind = pd.CategoricalDtype(FIFTHS, ordered=True)
    return pd.Series(names[equal_bins(margin, 5)]).astype(kind)


def plot_calibration(oof: pd.DataFrame, risk: np.ndarray, raw: bool, words: Words) -> Figure:
    """Observed share of positives over the predicted risk in ten bins of equal count.

    Raw scores are drawn beside the calibrated risk where they are meant as probabilities.
    """
    figure, ((axes,),) = build_figure(3.7)
    lines = [(risk, MODEL, "o", "calibrated on the other folds")]
    if raw:
        lines.insert(0, (oof["prob"].to_numpy(), BASELINE, "D", "as predicted"))
    lowest = 1.0
    for prob, colour, marker, name in lines:
        bins = equal_bins(prob, 10)
        found = reliability(oof["target"], prob, 10)
        limits = [rate(part["target"], part["group"]) for _, part in oof.groupby(bins)]
        low = [max(limit.low, 1e-4) for limit in limits]
        axes.vlines(found["forecast"], low, [x.high for x in limits], color=colour, alpha=0.4, lw=2)
        shown = found[found["rate"] > 0]
        axes.plot(shown["forecast"], shown["rate"], color=colour, linewidth=1, alpha=0.6)
        axes.plot(shown["forecast"], shown["rate"], marker, color=colour, markersize=5, label=name)
        lowest = min(lowest, found["forecast"].min(), *(x for x in low if x > 1e-4), 1.0)
    lowest = float(np.clip(lowest / 1.5, 1e-4, 0.05))
    axes.plot([lowest, 1], [lowest, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1.05), ylim=(lowest, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axis.set_minor_formatter(lambda share, _: "")
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="predicted risk", ylabel=f"observed share of {words.many}")
    axes.legend(loc="upper left")
    return figure


def plot_decision_curve(oof: pd.DataFrame, risk: np.ndarray, replicates: int = 200) -> Figure:
    """Net benefit over the risk at which one would biopsy, with its band over groups."""
    target, groups = oof["target"].to_numpy(), oof["group"].to_numpy()
    found = decision_curve(target, risk, RISKS)
    figure, ((axes,),) = build_figure(3.4)
    some = RISKS[::3]
    bands = [
        np.percentile(
            bootstrap_values(net_benefit(at), target, [risk], groups, replicates), [2.5, 97.5]
        )
        for at in some
    ]
    axes.fill_between(some, *np.transpose(bands), color=MODEL, alpha=0.2)
    axes.plot(found["risk"], found["model"], color=MODEL, label="model")
    axes.plot(found["risk"], found["everybody"], color=BENIGN, label="biopsy everybody")
    axes.axhline(0, color=INK, linewidth=1, label="biopsy nobody")
    top = float(max(found["model"].max(), found["everybody"].max(), 1e-3))
    axes.set(ylim=(-0.18 * top, 1.12 * top), xlim=(0, RISKS[-1]))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{1000 * value:g}")
    axes.set(xlabel="risk from which one would biopsy", ylabel="net benefit, per 1,000 images")
    axes.legend(loc="upper right")
    return figure
