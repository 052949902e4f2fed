"""Answers that weigh rare classes up: what a power does, and how it is chosen."""

import numpy as np
import pytest

from lesions.evaluation.weighing import POWERS, choose_power, priors, weighed

CLASSES = ["df", "mel", "nv"]
SHARES = np.array([0.05, 0.15, 0.8])


def draw(rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Class names and the true probabilities of each row, given what is seen of it."""
    generator = np.random.default_rng(0)
    codes = generator.choice(len(CLASSES), rows, p=SHARES)
    seen = codes + generator.normal(0, 0.8, rows)
    likely = np.exp(-((seen[:, None] - np.arange(len(CLASSES))) ** 2) / (2 * 0.8**2)) * SHARES
    return np.array(CLASSES)[codes], likely / likely.sum(axis=1, keepdims=True)


def mean_recall(target: np.ndarray, probs: np.ndarray) -> float:
    right = np.array(CLASSES)[probs.argmax(axis=1)] == target
    return float(np.mean([right[target == name].mean() for name in CLASSES]))


def test_power_0_changes_nothing_and_power_1_has_the_highest_mean_recall():
    target, probs = draw()
    np.testing.assert_allclose(weighed(probs, SHARES, 0), probs)
    found = [mean_recall(target, weighed(probs, SHARES, power)) for power in POWERS]
    assert found == sorted(found) and found[-1] > found[0] + 0.1
    np.testing.assert_allclose(weighed(probs, SHARES, 1).sum(axis=1), 1)


@pytest.mark.parametrize(("score", "power"), [("accuracy", 0.0), ("balanced_accuracy", 1.0)])
def test_the_power_is_the_one_that_the_score_likes_best(score, power):
    target, probs = draw()
    assert choose_power(target, probs, CLASSES, score, SHARES) == power


def test_the_prior_of_a_class_that_is_not_there_is_one_row():
    np.testing.assert_allclose(priors(["nv"] * 3 + ["mel"], CLASSES), [1 / 4, 1 / 4, 3 / 4])
