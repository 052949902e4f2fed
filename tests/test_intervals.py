"""Intervals: patients are drawn whole, DeLong agrees with the bootstrap, undefined is told."""

import json

import coverage
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import norm

from lesions.evaluation.intervals import (
    Interval,
    bootstrap,
    bootstrap_values,
    compare,
    delong,
    format_interval,
    placements,
)
from lesions.evaluation.metrics import roc_auc


def clustered(seed, patients=60, each=8, shared=1.5):
    """Rows of patients whose scores, and whose targets, resemble each other."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), each)
    level = generator.normal(size=patients)[groups]
    risk = generator.normal(size=patients)[groups]
    target = (risk + 0.5 * generator.normal(size=len(groups)) > 1).astype(int)
    return target, target + shared * level + generator.normal(size=len(groups)), groups


def test_the_bootstrap_is_that_of_rows_drawn_by_hand():
    target, prob, groups = clustered(0)
    found = bootstrap_values(roc_auc, target, [prob], groups, 200)[:, 0]
    generator = np.random.default_rng(0)
    members = [np.flatnonzero(groups == g) for g in range(60)]
    for value in found:
        rows = np.concatenate([members[g] for g in generator.integers(0, 60, 60)])
        assert value == pytest.approx(roc_auc(target[rows], prob[rows]))
    values = bootstrap_values(roc_auc, target, [prob], groups)[:, 0]
    interval = bootstrap(roc_auc, target, prob, groups)
    positives = pd.Series(target).groupby(groups).sum()
    count = positives.sum() ** 2 / (positives**2).sum()
    below = stats.norm.ppf(np.mean(values < roc_auc(target, prob)))
    reach = stats.t.ppf(0.975, count - 1) * np.sqrt(count / (count - 1))
    ends = stats.norm.cdf([2 * below - reach, 2 * below + reach])
    assert [interval.low, interval.high] == pytest.approx(np.quantile(values, ends))


def test_intervals_do_not_depend_on_how_the_work_is_cut(monkeypatch):
    target, prob, groups = clustered(1)
    whole = bootstrap(roc_auc, target, prob, groups)
    monkeypatch.setattr("lesions.evaluation.intervals.BLOCK", 7 * len(target))
    assert bootstrap(roc_auc, target, prob, groups) == whole


def test_delong_is_the_textbook_variance():
    generator = np.random.default_rng(3)
    target = np.array([1] * 15 + [0] * 40)
    prob = np.round(generator.normal(size=55) + target, 1)
    wins = (prob[:15, None] > prob[15:]) + 0.5 * (prob[:15, None] == prob[15:])
    expected = wins.mean(axis=1).var(ddof=1) / 15 + wins.mean(axis=0).var(ddof=1) / 40
    assert placements(target, prob)[:15] == pytest.approx(wins.mean(axis=1))
    # Groups of one row are no groups: Obuchowski's form becomes DeLong's, but for the cross term.
    assert delong(target, prob, np.arange(55)).se ** 2 == pytest.approx(expected, rel=1e-12)


def test_delong_by_group_sums_what_a_patient_adds_to_both_classes():
    """With both classes in every group, Obuchowski's variance is that of the groups' sums."""
    generator = np.random.default_rng(14)
    groups, target = np.repeat(np.arange(30), 6), np.tile([1, 0, 0], 60)
    # Skill differs by patient, so what its positives and its negatives add goes together.
    prob = generator.normal(1, 1, 30)[groups] * (target - 0.3) + 0.5 * generator.normal(size=180)
    auc, shares = roc_auc(target, prob), placements(target, prob)
    added = np.bincount(groups, (shares - auc) / np.where(target == 1, 60, 120))
    assert delong(target, prob, groups).se ** 2 == pytest.approx((added**2).sum() * 30 / 29)
    assert delong(target, prob, groups).se > 1.2 * delong(target, prob, np.arange(180)).se


def test_pairing_sees_a_difference_that_two_intervals_hide():
    target, prob, groups = clustered(6)
    worse = prob + 1.3 * np.random.default_rng(7).normal(size=len(prob))
    apart = [bootstrap(roc_auc, target, each, groups) for each in (prob, worse)]
    assert apart[0].low < apart[1].high
    values = bootstrap_values(roc_auc, target, [prob, worse], groups)
    assert compare(apart[0].value - apart[1].value, values[:, 0] - values[:, 1]).p < 0.05
    itself = compare(0.0, values[:, 0] - values[:, 0])  # no model is better than itself
    assert (itself.value, itself.p) == (0, 1)


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth, held = norm.cdf(1 / np.sqrt(2)), {"delong": 0, "bootstrap": 0}
    generator = np.random.default_rng(8)
    for _ in range(200):
        target = (np.arange(150) < 30).astype(int)
        prob = generator.normal(size=150) + target
        rows = np.arange(150)
        found = delong(target, prob, rows), bootstrap(roc_auc, target, prob, rows)
        for name, interval in zip(held, found, strict=True):
            held[name] += interval.low <= truth <= interval.high
    assert all(180 <= count <= 199 for count in held.values()), held


def test_coverage_is_counted_of_every_interval_and_patients_widen_each(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "SCALE", 25)
    asked = ["--repetitions", "5", "--processes", "1", "--allow-dirty"]
    assert coverage.main([*asked, "--out", str(tmp_path / "coverage.json")]) == 0
    rows = json.loads((tmp_path / "coverage.json").read_text())["rows"]
    assert [row["reported"]["data_sets"] for row in rows] == [5] * 5 + [1] * 2
    for row in rows[:5]:
        assert row["reported"]["width"] > 1.02 * row["over images"]["width"]
        assert row["reported"]["coverage"] >= 0.4, row


def test_a_number_with_its_interval_is_written_in_one_way():
    assert format_interval(0.91234, 0.8991, 0.9239) == "0.912 (0.899 to 0.924)"
    assert format_interval(0.0123, -0.004, 0.02, 4, sign=True) == "+0.0123 (-0.0040 to +0.0200)"
    assert format_interval(0.5) == "0.500" and format_interval(None) == "n/a"
    assert format_interval(Interval(reason="no rows")) == "n/a (no rows)"


def test_undefined_is_told_and_never_a_number():
    nothing = bootstrap(roc_auc, [0, 0, 0], [0.1, 0.2, 0.3], [1, 2, 3])
    assert str(nothing) == "n/a (one class only)"
    nulls = dict.fromkeys(("value", "low", "high", "se"))
    assert nothing.as_json() == nulls | {"reason": "one class only"}
    assert str(delong([0, 1], [0.5, 0.5], [1, 2])) == "n/a (all scores equal)"
    alone = bootstrap(roc_auc, [0, 1, 0], [1, 2, 0], ["p", "p", "p"])
    assert str(alone) == "1.000 (one group only)"
    perfect = delong([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4])
    assert (perfect.low, perfect.high) == (1, 1)
