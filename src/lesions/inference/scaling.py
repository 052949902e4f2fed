"""Truer probabilities: one temperature, and a shift of each class.

A temperature alone (Guo et al., 2017) cannot undo what class weights in the loss do: they raise the
rare classes' probabilities everywhere. A shift of each class's log probability does (Alexandari et
al., 2020, "bias-corrected temperature scaling"); with two classes the pair is Platt's method.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from lesions.evaluation.metrics import Floats

LEAST = 1e-7  # probabilities of exactly 0 and 1 are taken as this far from them


def fit_scaling(codes: ArrayLike, probs: Floats) -> tuple[float, list[float]]:
    """Temperature and shifts (K) by maximum likelihood; the first shift is 0.

    `codes` are class numbers (N,), `probs` (N, K), of a yes-or-no task (N, 1) with P(yes).
    """
    codes, logs = np.asarray(codes).astype(int), _logs(probs)
    count, classes = logs.shape
    truth = np.eye(classes)[codes]

    def loss(x: Floats) -> tuple[float, Floats]:
        slope, shifts = np.exp(x[0]), np.append(0, x[1:])
        told = log_softmax(slope * logs + shifts, axis=1)
        error = (np.exp(told) - truth) / count
        gradient = np.append((error * logs).sum() * slope, error.sum(axis=0)[1:])
        # A whisper of a prior keeps the fit finite where one cut separates the classes.
        value = -(truth * told).sum() / count + 1e-4 * (x**2).sum()
        return float(value), gradient + 2e-4 * x

    found = minimize(loss, np.zeros(classes), jac=True, method="L-BFGS-B")
    return float(np.exp(-found.x[0])), [0.0, *map(float, found.x[1:])]


def scaled(probs: Floats, temperature: float, shifts: Sequence[float]) -> Floats:
    """Corrected probabilities in the shape of `probs`, (..., K) or, of yes alone, (..., 1)."""
    told = softmax(_logs(probs) / temperature + np.asarray(shifts), axis=-1)
    return told[..., 1:] if np.shape(probs)[-1] == 1 else told


def _logs(probs: Floats) -> Floats:
    """Log probabilities of all classes: no and yes of a yes-or-no task."""
    probs = np.asarray(probs, dtype=np.float64)
    if probs.shape[-1] == 1:
        probs = np.concatenate([1 - probs, probs], axis=-1)
    return np.log(np.clip(probs, LEAST, 1 - LEAST))
