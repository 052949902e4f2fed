"""Thresholds, calibration and decision curves: fitted where they may be, refused where not."""

import re

import numpy as np
import pytest
from scipy.special import expit, logit

from lesions.errors import InputError
from lesions.evaluation.calibration import Scaling, fit_scaling, shift_prior
from lesions.evaluation.conformal import fit_sets, lowest
from lesions.evaluation.metrics import log_loss
from lesions.evaluation.thresholds import RULES, net_benefit


def forecast(seed=0, rows=4000, slope=1.0, shift=0.0):
    """Targets drawn from true risks, and forecasts whose logits are stretched and moved."""
    generator = np.random.default_rng(seed)
    risk = expit(generator.normal(-2, 1.5, rows))
    target = (generator.random(rows) < risk).astype(int)
    return target, expit(slope * logit(risk) + shift)


def worth(rule, tp, fp, fn, tn):
    return {
        "f1": 2 * tp / (2 * tp + fp + fn),
        "recall": -fp if tp / (tp + fn) >= 0.9 else -np.inf,
        "cost": -(20 * fn + fp),
        "youden": tp / (tp + fn) + tn / (tn + fp) - 1,
    }[rule]


@pytest.mark.parametrize("rule", RULES)
def test_no_other_cut_is_worth_more(rule):
    target, prob = forecast(1, rows=300)
    prob = np.round(prob, 2)

    def of_cut(cut):
        called = prob >= cut
        cells = (target == 1) & called, (target == 0) & called
        tp, fp = (int(cell.sum()) for cell in cells)
        return worth(rule, tp, fp, target.sum() - tp, (1 - target).sum() - fp)

    found = RULES[rule](target, prob)
    cuts = np.append(np.unique(prob), 1.1)
    assert of_cut(found.value) == max(of_cut(cut) for cut in cuts)
    assert list(found.apply(prob)) == list(prob >= found.value)


def test_nobody_is_called_positive_where_that_is_cheapest():
    # The two positives are the last of 100: to find them costs more than 20 false alarms each.
    target, prob = np.repeat([0, 1], [98, 2]), np.linspace(1, 0, 100)
    found = RULES["cost"](target, prob)
    assert found.apply(prob).sum() == 0 and np.isfinite(found.value)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("target", "prob", "reason"),
    [
        ([0] * 20, np.linspace(0, 1, 20), "0 positive rows"),
        ([1] + [0] * 19, np.linspace(0, 1, 20), "1 positive rows"),
        ([0, 0] + [1] * 2, np.linspace(0, 1, 4), "4 rows, and at least 10"),
        ([0, 1] * 10, np.full(20, 0.3), "all scores equal"),
        ([0, 1] * 10, np.append(np.linspace(0, 1, 19), np.nan), "not finite"),
        ([], [], "0 rows"),
    ],
)
def test_too_little_to_fit_on_is_refused_in_words(name, target, prob, reason):
    with pytest.raises(InputError, match=f"cannot choose a threshold: .*{reason}"):
        RULES[name](target, prob)


def test_class_weights_are_undone_in_a_task_of_several_classes():
    generator = np.random.default_rng(6)
    true = generator.dirichlet([0.3, 1, 3], 6000)
    codes = (generator.random((6000, 1)) > true.cumsum(axis=1)[:, :2]).sum(axis=1)
    raised = true * [6, 2, 1] / (true * [6, 2, 1]).sum(axis=1, keepdims=True)
    found = fit_scaling(codes[:3000], raised[:3000]).apply(raised[3000:])
    assert found.sum(axis=1) == pytest.approx(1)
    forecasts = true[3000:], raised[3000:], found
    best, before, after = (log_loss(codes[3000:], probs) for probs in forecasts)
    assert best - 0.01 < after < best + 0.02 < before


def test_the_prior_of_2019_is_moved_to_that_of_2020_and_malignant_classes_keep_their_ratio():
    same = Scaling(temperature=1.0, shifts=[0.0] * 3)
    moved = shift_prior(same, [True, True, False], 0.178, 0.018)
    probs = moved.apply(np.array([[0.1, 0.4, 0.5]]))[0]
    # Bayes by hand: the odds shrink by the ratio of the prior odds.
    odds = (0.018 / 0.982) / (0.178 / 0.822)
    assert probs[:2].sum() == pytest.approx(odds / (1 + odds))
    assert probs[1] == pytest.approx(4 * probs[0])
    with pytest.raises(InputError, match="actual rate 0 is not"):
        shift_prior(same, [True, True, False], 0.1, 0)


def test_a_decision_curve_is_net_benefit_by_hand():
    target, prob = forecast(11, rows=500)
    risks = np.array([0.1, 0.25])
    worth = net_benefit(risks)
    model, everybody = worth.all(target, prob), worth.all(target, np.ones(500))
    for risk, own, all_called in zip(risks, model, everybody, strict=True):
        called = prob >= risk
        odds = risk / (1 - risk)
        tp, fp = (called & (target == 1)).sum(), (called & (target == 0)).sum()
        assert own == pytest.approx((tp - odds * fp) / 500)
        assert all_called == pytest.approx((target.sum() - odds * (target == 0).sum()) / 500)


def aged(seed: int, rows: int = 4000) -> tuple[np.ndarray, ...]:
    """Codes of four classes, probs, ages and groups: malignant lesions of the young look benign."""
    generator = np.random.default_rng(seed)
    groups = np.sort(generator.integers(0, rows // 2, rows))
    first = np.unique(groups, return_index=True)[1][np.unique(groups, return_inverse=True)[1]]
    codes = generator.choice(4, rows, p=[0.1, 0.02, 0.7, 0.18])[first]
    ages = generator.choice([20.0, 50.0, 70.0, np.nan], rows, p=[0.2, 0.4, 0.38, 0.02])[first]
    skill = np.where((codes < 2) & (ages < 30), 0.3, 2.0)
    logits = generator.normal(0, 1, (rows, 4)) + skill[:, None] * np.eye(4)[codes]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return codes, probs, ages, groups


def test_sets_cover_malignant_lesions_of_every_age_where_one_cut_for_all_does_not():
    malignant, shares = np.array([True, True, False, False]), []
    codes, probs, ages, groups = aged(0)
    sets = fit_sets(codes, probs, list("abcd"), malignant, ages, groups)
    fresh, new, years, _ = aged(1, 40_000)
    held, rows = sets.apply(new, years), np.arange(len(new))
    young = (years < 30) & malignant[fresh]
    one = np.quantile(probs[np.arange(len(codes)), codes], 0.1)
    assert (new[rows, fresh] >= one)[young].mean() < 0.7
    for of in (young, (years > 60) & malignant[fresh], (years == 50) & (fresh == 3), fresh == 1):
        shares.append(held[rows, fresh][of].mean())
    assert min(shares) > 0.86
    unknown = sets.apply(new, np.full(len(new), np.nan))
    assert unknown[rows, fresh][young].mean() > 0.86 and (unknown >= held).all()
    for k in (0, 5):
        best = [name for _, name in sorted(zip(-new[k], "abcd", strict=True))]
        found = [name for name in best if held[k]["abcd".index(name)]]
        assert sets.cannot_exclude(new[k], years[k]) == found


def test_a_cut_is_the_rank_of_split_conformal_and_a_group_counts_once():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100))
    assert lowest(scores, np.arange(99)) == 10  # 90 of 99, and (99 + 1) * 0.9 are 90
    again = np.concatenate([scores, np.full(500, 1.0)])  # one lesion photographed 501 times
    owner = np.concatenate([np.arange(99), np.full(500, np.argmin(scores))])
    assert lowest(again, owner) == 10


def test_too_few_malignant_lesions_of_an_age_give_no_set_and_the_reason():
    codes, probs, ages, groups = aged(2)
    kept = (ages > 30) | (codes > 1) | (groups < 60)
    yes = 1 - probs[:, 2:].sum(axis=1, keepdims=True)
    given = (codes < 2).astype(int)[kept], yes[kept], ["melanoma"], [True], ages[kept], groups[kept]
    sets = fit_sets(*given)
    assert sets.cannot_exclude(np.array([0.9]), 20) is None
    told = r"\d malignant lesions of this age to learn from, 9 needed"
    assert re.fullmatch(told, sets.problem(20))
    assert sets.cannot_exclude(np.array([0.9]), 50) == ["melanoma"]
    assert sets.cannot_exclude(np.array([0.001]), 50) == []
    assert not sets.problem(50) and not sets.problem(None)
