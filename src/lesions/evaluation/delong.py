"""DeLong's interval and test of AUC, with the rows of a patient counted together.

Placements by ranks: Sun & Xu 2014, "Fast implementation of DeLong's algorithm". Sums over groups:
Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data", which is DeLong, DeLong &
Clarke-Pearson 1988 where every row is its own group.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from lesions.evaluation.intervals import Comparison, Interval, undefined
from lesions.evaluation.metrics import Floats, undefined_reason

Z = norm.ppf(0.975)


def placements(target: ArrayLike, prob: ArrayLike) -> Floats:
    """Of each row, the share of the other class that it stands on the right side of, ties half.

    float64 (N,); the mean over the positives, as over the negatives, is the AUC.
    """
    positive, prob = np.asarray(target) == 1, np.asarray(prob, dtype=np.float64)
    overall, shares = rankdata(prob), np.empty(len(prob))
    positives, negatives = int(positive.sum()), int((~positive).sum())
    shares[positive] = (overall[positive] - rankdata(prob[positive])) / negatives
    shares[~positive] = 1 - (overall[~positive] - rankdata(prob[~positive])) / positives
    return shares


def delong_covariance(
    target: ArrayLike, probs: Sequence[ArrayLike], groups: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """AUCs (K,) of `probs` and their covariance (K, K)."""
    positive = np.asarray(target) == 1
    shares = np.stack([placements(target, prob) for prob in probs], axis=1)
    aucs = shares[positive].mean(axis=0)
    codes = np.arange(len(positive)) if groups is None else pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1

    def sums(rows: np.ndarray) -> Floats:
        """Sum of the centred placements of `rows` in each group, (groups, K), divided by rows."""
        centred = shares[rows] - aucs
        columns = [np.bincount(codes[rows], column, minlength=count) for column in centred.T]
        return np.stack(columns, axis=1) / rows.sum()

    hits, misses = sums(positive), sums(~positive)
    cross = _unbiased(count) * hits.T @ misses
    covariance = (
        _unbiased(len(np.unique(codes[positive]))) * hits.T @ hits
        + _unbiased(len(np.unique(codes[~positive]))) * misses.T @ misses
        + (cross + cross.T if groups is not None else 0)
    )
    return aucs, covariance


def _unbiased(groups: int) -> float:
    return groups / (groups - 1) if groups > 1 else float("nan")


def delong(target: ArrayLike, prob: ArrayLike, groups: ArrayLike | None = None) -> Interval:
    """AUC with its 95 % interval, symmetric in the logit so that it stays between 0 and 1."""
    if reason := undefined_reason(target, prob):
        return undefined(reason)
    aucs, covariance = delong_covariance(target, [prob], groups)
    auc, variance = float(aucs[0]), float(covariance[0, 0])
    if np.isnan(variance):
        return undefined("one group only", auc)
    se = float(np.sqrt(max(variance, 0.0)))
    if auc in (0.0, 1.0):
        return Interval(auc, auc, auc, se)
    half = Z * se / (auc * (1 - auc))
    return Interval(auc, float(expit(logit(auc) - half)), float(expit(logit(auc) + half)), se)


def delong_paired(
    target: ArrayLike, prob: ArrayLike, other: ArrayLike, groups: ArrayLike | None = None
) -> Comparison:
    """AUC of `prob` minus that of `other` on the same rows, with interval and two-sided p."""
    if reason := undefined_reason(target, prob) or undefined_reason(target, other):
        return Comparison(undefined(reason), float("nan"))
    aucs, covariance = delong_covariance(target, [prob, other], groups)
    contrast = np.array([1.0, -1.0])
    difference, variance = float(contrast @ aucs), float(contrast @ covariance @ contrast)
    if np.isnan(variance):
        return Comparison(undefined("one group only", difference), float("nan"))
    se = float(np.sqrt(max(variance, 0.0)))
    # Two scores that order the rows alike differ by exactly 0 with no spread: no evidence.
    p = 2 * norm.sf(abs(difference) / se) if se > 1e-12 else float(difference == 0)
    interval = Interval(difference, difference - Z * se, difference + Z * se, se)
    return Comparison(interval, float(p))
