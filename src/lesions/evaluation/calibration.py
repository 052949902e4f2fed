"""Are the probabilities true, and monotone corrections that make them truer.

A correction never changes the order of the scores, so it never changes AUC: Platt scaling and
temperature are increasing in the logit. Isotonic regression makes ties and is for drawing alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, logit

from lesions.errors import InputError
from lesions.evaluation.metrics import Floats, Metric, ratio, undefined_reason

FEWEST_ROWS = 10


class Fitted(Protocol):
    """What was fitted on some rows and can be applied to others."""

    def apply(self, prob: ArrayLike) -> Any: ...


def clipped_logit(prob: ArrayLike) -> Floats:
    """Log odds, with probabilities of exactly 0 and 1 taken as 1e-7 and 1 - 1e-7."""
    return logit(np.clip(np.asarray(prob, dtype=np.float64), 1e-7, 1 - 1e-7))


@partial(Metric, ranks=False)
def brier(target: Any, prob: Any, weight: Floats) -> Floats:
    """Mean squared distance of the probability from the outcome."""
    return ratio(weight @ (np.asarray(prob) - np.asarray(target)) ** 2, weight.sum(axis=1))


def equal_bins(prob: ArrayLike, bins: int) -> np.ndarray:
    """The bin 0.. of each probability, (N,): bins of about equally many rows, ties together."""
    edges = np.unique(np.quantile(np.asarray(prob), np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, np.asarray(prob), side="right")


@partial(Metric, ranks=False)
def calibration_error(target: Any, prob: Any, weight: Floats) -> Floats:
    """Expected calibration error: mean distance of forecast and rate over 15 equal-count bins.

    Equal counts, not equal widths: at 2 % positives nine tenths of the rows fall into the first of
    ten equal widths (Nixon et al. 2019, "Measuring calibration in deep learning").
    """
    bins = equal_bins(prob, 15)
    distance = np.asarray(prob, dtype=np.float64) - np.asarray(target)
    in_bin = np.eye(bins.max() + 1)[bins] * distance[:, None]
    return ratio(np.abs(weight @ in_bin).sum(axis=1), weight.sum(axis=1))


def logistic_fit(target: Any, feature: Floats, weight: Floats, steps: int = 40) -> Floats:
    """Intercept and slope (B, 2) of the logistic regression of `target` on `feature` (N,).

    Newton's method for all rows of `weight` (B, N) at once; NaN where it does not settle, as with
    classes that one cut separates.
    """
    target, design = (
        np.asarray(target, dtype=np.float64),
        np.stack([np.ones_like(feature), feature]),
    )
    products = np.stack([design[0], feature, feature**2], axis=1)  # (N, 3), of the Hessian
    beta = np.zeros((len(weight), 2))
    moved = np.full(len(weight), np.inf)
    for _ in range(steps):
        fitted = expit(beta @ design)
        gradient = (weight * (target - fitted)) @ design.T
        aa, ab, bb = ((weight * fitted * (1 - fitted)) @ products).T
        determinant = aa * bb - ab**2
        with np.errstate(divide="ignore", invalid="ignore"):
            first = (bb * gradient[:, 0] - ab * gradient[:, 1]) / determinant
            second = (aa * gradient[:, 1] - ab * gradient[:, 0]) / determinant
        step = np.stack([first, second], axis=1)
        beta, moved = beta + np.clip(step, -5, 5), np.abs(step).max(axis=1)
        if not (moved > 1e-9).any():
            break
    return np.where(moved[:, None] < 1e-6, beta, np.nan)


@Metric
def calibration_slope(target: Any, prob: Any, weight: Floats) -> Floats:
    """Slope of the outcome on the log odds: 1 is calibrated, below 1 is overconfident."""
    return logistic_fit(target, clipped_logit(prob), weight)[:, 1]


def reliability(target: ArrayLike, prob: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """Forecast and observed rate of equal-count bins: forecast, rate, rows, low, high.

    low and high are Wilson's 95 % limits of the rate.
    """
    table = pd.DataFrame({"bin": equal_bins(prob, bins), "prob": prob, "target": target})
    found = table.groupby("bin").agg(
        forecast=("prob", "mean"), rate=("target", "mean"), rows=("target", "size")
    )
    z = 1.959964
    centre = (found["rate"] + z**2 / (2 * found["rows"])) / (1 + z**2 / found["rows"])
    spread = found["rate"] * (1 - found["rate"]) / found["rows"] + z**2 / (4 * found["rows"] ** 2)
    half = z * np.sqrt(spread) / (1 + z**2 / found["rows"])
    return found.assign(low=centre - half, high=centre + half).reset_index(drop=True)


@dataclass(frozen=True)
class Calibration:
    """prob -> sigmoid(slope * logit(prob) + intercept), increasing."""

    method: str
    slope: float
    intercept: float

    def apply(self, prob: ArrayLike) -> Floats:
        """Corrected probabilities (N,), in the order of `prob` to the last tie."""
        prob = np.asarray(prob, dtype=np.float64)
        return in_order(prob, expit(self.slope * logit(prob) + self.intercept))


def in_order(before: Floats, after: Floats) -> Floats:
    """`after` with ties that rounding made of unequal `before` set apart by the smallest steps."""
    distinct, first, where = np.unique(before, return_index=True, return_inverse=True)
    mapped = after[first]
    if (np.diff(mapped) <= 0).any():
        for i in range(len(distinct) - 2, -1, -1):
            mapped[i] = min(mapped[i], np.nextafter(mapped[i + 1], -1.0))
    return mapped[where]


def check_fit(target: ArrayLike, prob: ArrayLike, purpose: str = "calibrate") -> None:
    """InputError "cannot `purpose`: ..." where the rows are too few or all alike."""
    target = np.asarray(target)
    reason = undefined_reason(target, prob) if len(target) else "no rows"
    positives = int((target == 1).sum())
    if len(target) < FEWEST_ROWS:
        reason = f"{len(target)} rows, and at least {FEWEST_ROWS} are needed"
    elif min(positives, len(target) - positives) < 2:
        kind = "positive" if positives < 2 else "negative"
        reason = f"{min(positives, len(target) - positives)} {kind} rows, and 2 are needed"
    if reason:
        raise InputError(f"cannot {purpose}: {reason}")


def fit_platt(target: ArrayLike, prob: ArrayLike) -> Calibration:
    """Slope and intercept on the logit by maximum likelihood (Platt, 1999), smoothed targets.

    Smoothed targets keep the fit finite where one cut separates the classes. InputError where the
    rows cannot bear it, or the scores run against the target.
    """
    check_fit(target, prob)
    feature, positive = clipped_logit(prob), np.asarray(target) == 1
    high = (positive.sum() + 1) / (positive.sum() + 2)
    low = 1 / ((~positive).sum() + 2)
    smooth = np.where(positive, high, low)
    intercept, slope = logistic_fit(smooth, feature, np.ones((1, len(feature))))[0]
    if not slope > 0:
        raise InputError("cannot calibrate: the scores do not rise with the target")
    return Calibration("platt", float(slope), float(intercept))


def fit_temperature(target: ArrayLike, prob: ArrayLike) -> Calibration:
    """One temperature, 0.05 to 20, on the logit by maximum likelihood (Guo et al., 2017)."""
    check_fit(target, prob)
    feature, sign = clipped_logit(prob), np.where(np.asarray(target) == 1, -1.0, 1.0)

    def loss(log_slope: Floats) -> float:
        return float(np.logaddexp(0, sign * feature * np.exp(log_slope[0])).mean())

    found = minimize(loss, [0.0], bounds=[(-np.log(20), np.log(20))], method="L-BFGS-B")
    return Calibration("temperature", float(np.exp(found.x[0])), 0.0)


def shift_prior(trained: float, actual: float) -> Calibration:
    """The correction for another share of positives than the one trained on (Elkan, 2001).

    ISIC 2019 has 17.8 % melanomas, ISIC 2020 has 1.8 %: `shift_prior(0.178, 0.018)`.
    """
    for name, rate in (("trained", trained), ("actual", actual)):
        if not 0 < rate < 1:
            raise InputError(f"cannot correct the prior: {name} rate {rate} is not between 0 and 1")
    return Calibration("prior shift", 1.0, float(logit(actual) - logit(trained)))


def isotonic_rates(target: ArrayLike, prob: ArrayLike) -> Floats:
    """The rising step curve of observed rates at each `prob`, (N,). To draw: it ties scores."""
    from sklearn.isotonic import IsotonicRegression

    check_fit(target, prob)
    return IsotonicRegression(out_of_bounds="clip").fit_transform(np.asarray(prob), target)


def across_parts(
    fit: Callable[[ArrayLike, ArrayLike], Fitted],
    target: ArrayLike,
    prob: ArrayLike,
    parts: ArrayLike,
) -> np.ndarray:
    """`fit` on every part but one applied to that one, in turn: (N,) none of which saw its target.

    `parts` (N,) are folds, or any split that keeps groups together.
    """
    target, prob, parts = np.asarray(target), np.asarray(prob), np.asarray(parts)
    pieces = {part: parts == part for part in np.unique(parts)}
    applied = {
        part: fit(target[~rows], prob[~rows]).apply(prob[rows]) for part, rows in pieces.items()
    }
    result = np.empty(len(prob), dtype=np.result_type(*applied.values()))
    for part, rows in pieces.items():
        result[rows] = applied[part]
    return result
