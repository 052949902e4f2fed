"""Are the probabilities true, and the correction that makes them truer: temperature and shifts.

A temperature alone (Guo et al., 2017) cannot undo what class weights in the loss do: they raise the
rare classes' probabilities everywhere. A shift of each class's log probability does (Alexandari et
al., 2020, "bias-corrected temperature scaling"); with yes and no the pair is Platt's method, and
never changes the order of the scores.
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field
from scipy.optimize import minimize
from scipy.special import log_softmax, logit, softmax

from lesions.errors import InputError
from lesions.evaluation.metrics import Floats, all_columns, of_mean, undefined_reason

FEWEST_ROWS = 10
LEAST = 1e-7  # probabilities of exactly 0 and 1 are taken as this far from them

Finite = Annotated[float, Field(allow_inf_nan=False)]


def clipped_logit(prob: ArrayLike) -> Floats:
    """Log odds (N,), of probabilities that are at least LEAST away from 0 and 1."""
    return logit(np.clip(np.asarray(prob, dtype=np.float64), LEAST, 1 - LEAST))


def equal_bins(prob: ArrayLike, bins: int) -> np.ndarray:
    """The bin 0.. of each probability, (N,): bins of about equally many rows, ties together."""
    edges = np.unique(np.quantile(np.asarray(prob), np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, np.asarray(prob), side="right")


def bin_distances(target: Any, prob: Any) -> Floats:
    """Forecast less outcome of each row, in the column of its bin: (N, bins)."""
    bins = equal_bins(prob, 15)
    return np.eye(bins.max() + 1)[bins] * (prob - target)[:, None]


# Expected calibration error: mean distance of forecast and rate over 15 equal-count bins. Not of
# equal widths: at 2 % positives nine tenths of the rows fall into the first of ten equal widths
# (Nixon et al. 2019, "Measuring calibration in deep learning").
calibration_error = of_mean(bin_distances, lambda means: np.abs(means).sum(axis=1))


def check_fit(target: ArrayLike, prob: ArrayLike, purpose: str = "calibrate") -> None:
    """InputError "cannot `purpose`: ..." where the rows are too few or all alike."""
    target = np.asarray(target)
    positives = int((target == 1).sum())
    fewer, kind = min((positives, "positive"), (len(target) - positives, "negative"))
    reason = f"{fewer} {kind} rows, and 2 are needed" if fewer < 2 else None
    if len(target) < FEWEST_ROWS:
        reason = f"{len(target)} rows, and at least {FEWEST_ROWS} are needed"
    if reason := reason or undefined_reason(target, prob):
        raise InputError(f"cannot {purpose}: {reason}")


class Scaling(BaseModel):
    """The correction: log probabilities divided by `temperature`, plus a shift of each class."""

    temperature: float = Field(gt=0, allow_inf_nan=False)
    shifts: list[Finite]  # of yes or no two of them: no, yes

    def apply(self, probs: Floats) -> Floats:
        """Corrected probabilities in the shape of `probs`: (..., C) or, of yes alone, (..., 1)."""
        found = softmax(_logs(probs) / self.temperature + np.asarray(self.shifts), axis=-1)
        return found[..., 1:] if np.shape(probs)[-1] == 1 else found


def fit_scaling(codes: ArrayLike, probs: Floats) -> Scaling:
    """Temperature and shifts by maximum likelihood; the first shift is 0.

    `codes` (N,) and `probs` (N, C) are those of data/tasks.py: of yes or no, C = 1.
    """
    codes, logs = np.asarray(codes).astype(int), _logs(probs)
    count, classes = logs.shape
    truth = np.eye(classes)[codes]

    def loss(x: Floats) -> tuple[float, Floats]:
        slope, shifts = np.exp(x[0]), np.append(0, x[1:])
        found = log_softmax(slope * logs + shifts, axis=1)
        error = (np.exp(found) - truth) / count
        gradient = np.append((error * logs).sum() * slope, error.sum(axis=0)[1:])
        # A weak prior keeps the fit finite where one cut separates the classes.
        value = -(truth * found).sum() / count + 1e-4 * (x**2).sum()
        return float(value), gradient + 2e-4 * x

    found = minimize(loss, np.zeros(classes), jac=True, method="L-BFGS-B")
    return Scaling(temperature=float(np.exp(-found.x[0])), shifts=[0.0, *found.x[1:].tolist()])


def shift_prior(scaling: Scaling, malignant: ArrayLike, trained: float, actual: float) -> Scaling:
    """The scaling for another share of malignant lesions than the one trained on (Elkan, 2001).

    `malignant` (C,) says which classes are: of yes or no [True]. ISIC 2019 has 17.8 % melanomas,
    ISIC 2020 has 1.8 %.
    """
    if not 0 < actual < 1:
        raise InputError(f"cannot correct the prior: actual rate {actual} is not between 0 and 1")
    raised = all_columns(malignant) * (logit(actual) - logit(trained))
    shifts = np.asarray(scaling.shifts) + raised
    return Scaling(temperature=scaling.temperature, shifts=(shifts - shifts[0]).tolist())


def across_parts(
    fit: Callable[[Any, Any], Any], target: ArrayLike, prob: ArrayLike, parts: ArrayLike
) -> np.ndarray:
    """`fit(target, prob).apply(prob)` of each part's rows, fitted on the other parts alone.

    `prob` is (N,) or (N, C); `parts` (N,), two or more, are folds, or any split that keeps groups
    together.
    """
    target, prob, parts = np.asarray(target), np.asarray(prob), np.asarray(parts)
    pieces = [parts == part for part in np.unique(parts)]
    applied = [fit(target[~rows], prob[~rows]).apply(prob[rows]) for rows in pieces]
    order = np.concatenate([np.flatnonzero(rows) for rows in pieces])
    return np.concatenate(applied)[np.argsort(order)]


def _logs(probs: Floats) -> Floats:
    """Log probabilities of all classes: no and yes of a yes-or-no task."""
    return np.log(np.clip(all_columns(probs), LEAST, 1 - LEAST))
