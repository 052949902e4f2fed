"""Answers of a classifier of many classes that rare classes are weighed up in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from lesions.evaluation.metrics import Floats
from lesions.evaluation.multiclass import SCORES, all_scores, codes_of

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def weighed(probs: ArrayLike, prior: ArrayLike, power: float) -> Floats:
    """Probabilities (N, C) over the classes' `prior` (C,) to a power, summing to 1 again.

    0 leaves the most probable class the answer, 1 is the answer of highest mean recall, if the
    probabilities are right: Menon et al., 2021, "Long-tail learning via logit adjustment",
    https://arxiv.org/abs/2007.07314.
    """
    raised = np.asarray(probs, np.float64) / np.asarray(prior, np.float64) ** power
    return raised / raised.sum(axis=1, keepdims=True)


def choose_power(
    target: ArrayLike, probs: ArrayLike, classes: Sequence[str], score: str, prior: ArrayLike
) -> float:
    """The one of POWERS with the highest `score` of multiclass.SCORES, the lowest of equals."""
    codes, place = codes_of(target, classes), list(SCORES).index(score)
    one = np.ones((1, len(codes)))
    values = [all_scores.many(codes, weighed(probs, prior, p), one)[0, place] for p in POWERS]
    return POWERS[int(np.argmax(values))]


def priors(target: ArrayLike, classes: Sequence[str]) -> Floats:
    """The share of each class among `target`, (C,); a class that is not there counts as one row."""
    counts = np.bincount(codes_of(target, classes), minlength=len(classes))
    return np.maximum(counts, 1) / counts.sum()
