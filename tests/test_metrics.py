"""Metrics beside their textbook forms: scikit-learn, the official ISIC 2024 code, brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from lesions.evaluation import metrics
from lesions.evaluation.metrics import average_precision, partial_auc, roc_auc, specificity_at
from lesions.evaluation.thresholds import net_benefit

RANKING = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "partial_auc": partial_auc(),
    "specificity_at": specificity_at(0.9),
}
PLAIN = {"brier": metrics.brier, "net_benefit": net_benefit(0.1)}
DECISIONS = {
    name: getattr(metrics, name)
    for name in ("f1", "f2", "balanced_accuracy", "kappa", "sensitivity", "specificity",
                 "precision", "accuracy", "number_needed_to_biopsy")
}  # fmt: skip


def draw(seed, rows=300, ties=20, rate=0.2):
    """Targets and scores with many ties."""
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < rate).astype(int)
    target[:2] = 0, 1
    score = np.round(generator.random(rows) * 0.7 + 0.25 * target, 3)
    return target, np.round(score * ties) / ties


@st.composite
def scored(draw):
    rows = draw(st.integers(2, 60))
    target = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    prob = draw(st.lists(st.integers(0, 8), min_size=rows, max_size=rows))
    target[0], target[1] = 0, 1
    return np.array(target), np.array(prob) / 8


@given(scored())
@settings(max_examples=150, deadline=None)
def test_auc_and_average_precision_are_those_of_scikit_learn_with_ties(data):
    target, prob = data
    if metrics.undefined_reason(target, prob):
        assert np.isnan(roc_auc(target, prob))
        return
    assert roc_auc(target, prob) == pytest.approx(reference.roc_auc_score(target, prob), abs=1e-12)
    expected = reference.average_precision_score(target, prob)
    assert average_precision(target, prob) == pytest.approx(expected, abs=1e-12)


def official_isic_2024(target, prob, min_tpr=0.8):
    """The competition's own scoring code (metric "ISIC pAUC-aboveTPR"), files left out."""
    fpr, tpr, _ = reference.roc_curve(abs(target - 1), 1 - prob)
    max_fpr = 1 - min_tpr
    stop = np.searchsorted(fpr, max_fpr, "right")
    x_interp, y_interp = [fpr[stop - 1], fpr[stop]], [tpr[stop - 1], tpr[stop]]
    tpr = np.append(tpr[:stop], np.interp(max_fpr, x_interp, y_interp))
    return reference.auc(np.append(fpr[:stop], max_fpr), tpr)


@pytest.mark.parametrize("seed", range(20))
def test_partial_auc_is_the_official_one_of_isic_2024(seed):
    target, prob = draw(seed, rows=80 + 10 * seed, ties=[7, 50, 1000][seed % 3])
    assert partial_auc()(target, prob) == pytest.approx(official_isic_2024(target, prob), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_operating_points_are_the_best_of_all_thresholds(seed):
    target, prob = draw(seed)
    cuts = np.append(np.unique(prob), 2)
    tpr = np.array([(prob[target == 1] >= cut).mean() for cut in cuts])
    tnr = np.array([(prob[target == 0] < cut).mean() for cut in cuts])
    for least in (0.5, 0.8, 0.9, 0.95):
        assert specificity_at(least)(target, prob) == pytest.approx(tnr[tpr >= least].max())


@pytest.mark.parametrize("name", [*RANKING, *PLAIN, *DECISIONS])
def test_a_weight_of_three_is_the_row_three_times(name):
    """What the bootstrap stands on: weights, weight 0 included, are repeated rows."""
    metric = (RANKING | PLAIN | DECISIONS)[name]
    target, prob = draw(1)
    if name in DECISIONS:
        prob = (prob > 0.5).astype(int)
    weight = np.random.default_rng(2).integers(0, 4, size=(3, len(target)))
    cells, score = metric.prepare(target, prob)
    found = score((cells @ weight.T.astype(float)).T)
    for i, times in enumerate(weight):
        rows = np.repeat(np.arange(len(target)), times)
        assert found[i] == pytest.approx(metric(target[rows], prob[rows]), abs=1e-9)


def test_decisions_score_as_in_scikit_learn():
    target, prob = draw(3)
    called = (prob > 0.5).astype(int)
    pairs = {
        metrics.f1: reference.f1_score(target, called),
        metrics.f2: reference.fbeta_score(target, called, beta=2),
        metrics.balanced_accuracy: reference.balanced_accuracy_score(target, called),
        metrics.kappa: reference.cohen_kappa_score(target, called),
        metrics.sensitivity: reference.recall_score(target, called),
        metrics.specificity: reference.recall_score(target, called, pos_label=0),
        metrics.precision: reference.precision_score(target, called),
        metrics.accuracy: reference.accuracy_score(target, called),
        metrics.brier: reference.brier_score_loss(target, called),
    }
    for metric, expected in pairs.items():
        assert metric(target, called) == pytest.approx(expected, abs=1e-12), metric.__name__
    needed = called.sum() / (called & target).sum()
    assert metrics.number_needed_to_biopsy(target, called) == pytest.approx(needed)
    expected = reference.log_loss(target, prob.clip(1e-7, 1 - 1e-7))
    assert metrics.log_loss(target, prob[:, None]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("target", "prob", "reason"),
    [
        ([], [], "no rows"),
        ([0, 0, 0], [0.1, 0.2, 0.3], "one class only"),
        ([1, 1], [0.1, 0.2], "one class only"),
        ([0, 1, 1], [0.5, 0.5, 0.5], "all scores equal"),
        ([0, 1, 1], [0.5, np.nan, 0.2], "1 scores are not finite numbers"),
        ([0, 1, np.nan], [0.5, 0.1, 0.2], "1 rows without a target"),
    ],
)
def test_an_undefined_metric_is_nan_with_a_reason(target, prob, reason):
    for metric in RANKING.values():
        assert metrics.undefined_reason(target, prob, metric.ranks) == reason
        assert np.isnan(metric(target, prob))


def test_targets_other_than_0_and_1_are_an_error_not_a_score():
    with pytest.raises(ValueError, match="0 or 1"):
        roc_auc([0, 1, 2], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="3 targets but 2 scores"):
        roc_auc([0, 1, 1], [0.1, 0.2])
