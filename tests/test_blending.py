"""Blending: exact fast AUC, methods, and estimates on groups that did not choose the weights."""

import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from lesions.blending import speed
from lesions.blending.class_pool import build_class_pool
from lesions.blending.fast_auc import fast_auc
from lesions.blending.members import load_members
from lesions.blending.methods import (
    CLASS_METHODS,
    METHODS,
    Blend,
    climb,
    hill_climb,
    mean,
    rank_mean,
    stacking,
    subset,
)
from lesions.blending.nested import (
    choose,
    compare_methods,
    gain_curve,
    nested_scores,
    split_groups,
)
from lesions.blending.outcome import study_blend
from lesions.blending.pool import build_pool
from lesions.errors import InputError
from lesions.evaluation.intervals import Comparison, Interval
from lesions.evaluation.multiclass import SCORES, class_scores

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"

scores = st.lists(
    st.one_of(st.integers(-5, 5).map(float), st.floats(-1e9, 1e9)), min_size=1, max_size=60
)


def simulate(rows=900, skills=(1.5, 1.0, 1.0, 0.5), seed=0, noise=1.0):
    """A pool of members and groups of three rows."""
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < 0.15).astype(int)
    common = generator.normal(size=rows)
    logits = [common + s * target + noise * generator.normal(size=rows) for s in skills]
    probs = pd.DataFrame({f"m{i}": 1 / (1 + np.exp(-x)) for i, x in enumerate(logits)})
    return build_pool(probs, target), np.arange(rows) // 3


@given(scores, scores)
@settings(max_examples=300, deadline=None)
def test_the_fast_auc_is_exact_with_ties(positives, negatives):
    target = np.repeat([1, 0], [len(positives), len(negatives)])
    expected = roc_auc_score(target, np.array(positives + negatives))
    found = fast_auc(np.array(positives), np.array(negatives))
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("width", [0.0, 5e-324, 1e-300, 1e-280, 1e300])
def test_positives_next_to_each_other_or_far_apart_are_ranked_all_the_same(width):
    positives, negatives = np.array([0.0, width, width]), np.array([-1e9, 0.0, width / 2, 1e9])
    expected = np.mean([(p > n) + 0.5 * (p == n) for p in positives for n in negatives])
    assert fast_auc(positives, negatives) == pytest.approx(expected)


def test_hill_climbing_picks_what_a_loop_over_scikit_learn_picks_many_times_faster():
    found = speed.time_climb(speed.simulate_pool(), picks=2, repeats=1)
    assert (found["rows"], found["columns"]) == (58_457, 30)
    assert found["same_picks"] and found["auc_difference"] < 1e-12
    assert found["ratio"] > 8, found  # docs/siim2020.md has the figure of a quiet machine


def test_hill_climbing_with_ties_picks_the_same_to_the_end():
    pool, _ = simulate(rows=400)
    coarse = build_pool(
        pd.DataFrame(np.round(pool.probs, 1), columns=list(pool.names)), pool.target
    )
    for each in (pool, coarse):
        picks, aucs = climb(each)
        expected = speed.climb_with_sklearn(each, 50)
        assert picks == expected[0] and aucs == pytest.approx(expected[1], abs=1e-12)
        assert (np.diff(aucs) > 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_shares_and_the_scores_stay_between_0_and_1(name):
    pool, _ = simulate()
    blend = METHODS[name](pool)
    assert sum(blend.weights) == pytest.approx(1) and min(blend.weights) >= 0
    blended = blend.apply(pool)
    assert blended.min() >= 0 and blended.max() <= 1
    assert pool.score(blended) > 0.5


@pytest.mark.parametrize("name", ["subset", "hill_climb", "nelder_mead", "stacking"])
def test_a_useless_member_gets_little_weight(name):
    pool, _ = simulate(rows=3000, skills=(2.0, 2.0, 0.0))
    assert METHODS[name](pool).weights[2] < 0.15


@pytest.mark.parametrize("name", ["single", "subset", "hill_climb", "nelder_mead"])
def test_in_sample_a_fitted_method_is_no_worse_than_the_best_member(name):
    pool, _ = simulate()
    best = max(pool.score(column) for column in pool.probs.T)
    assert pool.score(METHODS[name](pool).apply(pool)) >= best - 1e-3


def test_stacking_where_nothing_helps_is_equal_weights():
    pool, _ = simulate(skills=(-3.0, -3.0))
    assert stacking(pool).weights == (0.5, 0.5)


def test_one_scale_of_scores_does_not_matter_to_ranks():
    pool, _ = simulate()
    squeezed = pd.DataFrame(pool.probs, columns=list(pool.names))
    squeezed["m0"] = squeezed["m0"] ** 5 / 100
    other = build_pool(squeezed, pool.target)
    for name in ("rank_mean", "power_mean", "hill_climb", "nelder_mead", "subset"):
        assert METHODS[name](pool) == METHODS[name](other)


def test_no_group_is_in_two_parts_and_positives_are_dealt_evenly():
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 200, 2000).astype(str)
    target = (generator.random(2000) < 0.05).astype(int)
    parts = split_groups(target, groups)
    assert pd.Series(parts).groupby(groups).nunique().max() == 1
    positives = np.bincount(parts, target)
    assert len(positives) == 5 and positives.max() < 1.4 * positives.min()
    sizes = np.bincount(parts)
    assert sizes.max() < 1.2 * sizes.min()


def test_two_groups_of_each_class_are_the_least():
    with pytest.raises(InputError, match="fewer than two classes are in two groups"):
        split_groups([1, 1, 0, 0, 0], ["a", "a", "b", "c", "d"])
    parts = split_groups([1, 1, 0, 0, 0], ["a", "e", "b", "c", "d"])
    for part in np.unique(parts):
        assert len({1, 0} & set(np.array([1, 1, 0, 0, 0])[parts != part])) == 2


@pytest.mark.parametrize("name", METHODS)
def test_a_rows_nested_score_does_not_depend_on_its_own_target(name):
    pool, groups = simulate(rows=450)
    parts = split_groups(pool.target, groups)
    before = nested_scores(METHODS[name], pool, parts)
    flipped = pool.target.copy()
    flipped[parts == 0] = 1 - flipped[parts == 0]
    after = nested_scores(METHODS[name], replace(pool, target=flipped), parts)
    assert (after[parts == 0] == before[parts == 0]).all()
    if name in ("subset", "hill_climb", "nelder_mead", "stacking"):
        assert (after != before).any()  # the other parts did learn from it


def test_nested_estimates_do_not_flatter_and_in_sample_ones_do():
    """Many weak members and few positives: the weights fit noise, which nested does not reward."""
    gaps, truth_gaps = [], []
    for seed in range(4):
        pool, groups = simulate(rows=450, skills=(0.7,) * 12, seed=seed, noise=2)
        fresh, _ = simulate(rows=9000, skills=(0.7,) * 12, seed=100 + seed, noise=2)
        blend = hill_climb(pool)
        truth = fresh.score(blend.apply(fresh))
        nested = pool.score(nested_scores(hill_climb, pool, split_groups(pool.target, groups)))
        baseline = pool.score(rank_mean(pool).apply(pool))
        truth_baseline = fresh.score(rank_mean(fresh).apply(fresh))
        gaps.append([pool.score(blend.apply(pool)) - baseline, nested - baseline])
        truth_gaps.append(truth - truth_baseline)
    in_sample, nested = np.mean(gaps, axis=0)
    assert in_sample > 0.01 > np.mean(truth_gaps)  # in sample it seems to gain, in truth it loses
    assert abs(nested - np.mean(truth_gaps)) < abs(in_sample - np.mean(truth_gaps)) / 2


def test_equal_weights_are_chosen_where_members_are_alike():
    pool, groups = simulate(rows=1200, skills=(1.0,) * 4)
    outcomes, chosen, reason = compare_methods(pool, groups)
    assert chosen == "rank_mean" and "nothing beats it" in reason
    assert outcomes["rank_mean"].against_equal is None
    for outcome in outcomes.values():
        assert outcome.nested.low < outcome.nested.value < outcome.nested.high


def test_something_better_is_chosen_where_equal_weights_lose():
    pool, groups = simulate(rows=3000, skills=(2.5, 0.0, 0.0, 0.0), noise=0.6)
    outcomes, chosen, reason = compare_methods(pool, groups)
    assert chosen == "single" and "beats rank_mean" in reason
    assert outcomes["single"].against_equal.p < 0.01
    assert outcomes["single"].as_json()["gain"] > 0.02


def against_of(gains):
    """`against(a, b)` from nested scores, every difference significant but for those under 0.01."""

    def against(a, b):
        value = gains[a] - gains[b]
        return Comparison(Interval(value, value, value, 0.1), 1e-4 if abs(value) > 0.01 else 0.5)

    return against


def test_the_simplest_that_nothing_beats_is_chosen():
    names = ["rank_mean", "mean", "stacking"]
    pick = {
        "rank_mean": {"rank_mean": 0.900, "mean": 0.905, "stacking": 0.909},
        "mean": {"rank_mean": 0.900, "mean": 0.915, "stacking": 0.921},
        "stacking": {"rank_mean": 0.900, "mean": 0.902, "stacking": 0.950},
    }
    for chosen, gains in pick.items():
        assert choose(names, against_of(gains))[0] == chosen


def test_the_gain_curve_starts_with_the_best_member_and_ends_at_the_climbs_score():
    pool, groups = simulate()
    curve = gain_curve(pool, groups)
    assert curve["in_sample"].iloc[0] == max(pool.score(column) for column in pool.ranks.T)
    assert curve["in_sample"].iloc[-1] == pool.score(hill_climb(pool).apply(pool))
    nested = nested_scores(hill_climb, pool, split_groups(pool.target, groups))
    assert curve["nested"].iloc[-1] == pytest.approx(pool.score(nested), abs=1e-4)


def test_a_power_mean_of_power_one_is_the_mean():
    pool, _ = simulate()
    weights = (0.25,) * 4
    plain = Blend("power_mean", weights).apply(pool)
    nearly = Blend("power_mean", weights, power=1 + 1e-12).apply(pool)
    assert nearly == pytest.approx(plain)


def simulate_classes(rows=900, skills=(1.5, 1.0, 1.0, 0.5), seed=0, objective="macro_auc"):
    """A pool of members of four classes, one of them rare, and groups of three rows."""
    generator = np.random.default_rng(seed)
    names = ["akiec", "df", "mel", "nv"]
    codes = np.repeat(generator.choice(4, rows // 3, p=[0.2, 0.03, 0.2, 0.57]), 3)
    common = generator.normal(size=(rows, 4))
    tables = {}
    for i, skill in enumerate(skills):
        logits = 0.5 * common + skill * np.eye(4)[codes] + generator.normal(size=(rows, 4))
        probs = softmax(logits, axis=1)
        tables[f"m{i}"] = pd.DataFrame(probs, columns=[f"prob_{name}" for name in names])
    joined, target = pd.concat(tables, axis=1), np.array(names)[codes]
    return build_class_pool(joined, names, target, objective), np.arange(rows) // 3


@pytest.mark.parametrize("objective", SCORES)
def test_the_objective_of_a_search_is_the_score_itself(objective):
    pool, _ = simulate_classes(objective=objective)
    probs = mean(pool).apply(pool)
    expected = class_scores(np.array(pool.classes)[pool.target], probs, pool.classes)[objective]
    assert pool.score(probs) == pytest.approx(expected.value)
    columns, score = pool.search()
    assert score(columns.sum(axis=0)) == pytest.approx(expected.value)


@pytest.mark.parametrize("name", CLASS_METHODS)
def test_with_several_classes_weights_are_shares_and_probabilities_sum_to_1(name):
    pool, _ = simulate_classes()
    blend = CLASS_METHODS[name](pool)
    blended = blend.apply(pool)
    assert sum(blend.weights) == pytest.approx(1) and min(blend.weights) >= 0
    assert blended.shape == (900, 4) and blended.min() >= 0
    assert blended.sum(axis=1) == pytest.approx(1)
    if name not in ("mean", "power_mean"):
        best = max(pool.score(probs.T) for probs in pool.probs)
        assert pool.score(blended) >= best - 1e-9 or name == "subset"  # never one member alone


def test_the_geometric_mean_is_the_power_mean_of_power_zero():
    pool, _ = simulate_classes()
    weights = (0.25,) * 4
    geometric = Blend("power_mean", weights, "prob", 0.0).apply(pool)
    product = np.prod(pool.probs, axis=0).T ** 0.25
    assert geometric == pytest.approx(product / product.sum(axis=1, keepdims=True))
    assert geometric == pytest.approx(Blend("", weights, "prob", 1e-6).apply(pool), abs=1e-4)


def test_the_subset_search_tries_every_subset_of_two_to_six():
    pool, _ = simulate_classes(skills=(1.0,) * 7, objective="macro_f1")  # six are best
    tried = {
        chosen: pool.score(pool.probs[list(chosen)].mean(axis=0).T)
        for size in range(2, 7)
        for chosen in combinations(range(7), size)
    }
    best = max(tried.values())
    found = tuple(np.flatnonzero(subset(pool).weights))
    assert len(tried) == 119 and len(found) == 6 and tried[found] == pytest.approx(best)


@pytest.mark.parametrize("name", CLASS_METHODS)
def test_with_several_classes_a_nested_score_does_not_depend_on_its_own_target(name):
    pool, groups = simulate_classes(skills=(1.0, 0.9, 0.8, 0.9), rows=450)
    parts = split_groups(pool.target, groups)
    before = nested_scores(CLASS_METHODS[name], pool, parts)
    flipped = np.where(parts == 0, (pool.target + 1) % 4, pool.target)
    after = nested_scores(CLASS_METHODS[name], replace(pool, target=flipped), parts)
    assert (after[parts == 0] == before[parts == 0]).all()
    if name in ("subset", "hill_climb"):
        assert (after != before).any()  # the other parts did learn from it


def test_every_class_is_dealt_evenly_the_rare_one_too():
    pool, groups = simulate_classes(rows=6000)
    parts = split_groups(pool.target, groups)
    assert pd.Series(parts).groupby(groups).nunique().max() == 1
    for code in range(4):
        counts = np.bincount(parts[pool.target == code])
        assert len(counts) == 5 and counts.max() - counts.min() <= 6, code


def test_with_several_classes_the_simplest_that_nothing_beats_is_chosen():
    pool, groups = simulate_classes(rows=1200, skills=(1.0,) * 4)
    outcomes, chosen, _ = compare_methods(pool, groups)
    assert chosen == "mean" and outcomes["mean"].against_equal is None
    pool, groups = simulate_classes(rows=3000, skills=(2.5, 0.0, 0.0, 0.0))
    outcomes, chosen, reason = compare_methods(pool, groups)
    assert chosen != "mean" and "beats mean" in reason
    assert outcomes["single"].as_json()["gain"] > 0.02
    curve = gain_curve(pool, groups)
    nested = nested_scores(hill_climb, pool, split_groups(pool.target, groups))
    assert curve["nested"].iloc[-1] == pytest.approx(pool.score(nested))


@pytest.mark.real
def test_fifteen_public_models_are_blended_at_full_scale():
    folder = REAL / "siim2020_oof" / "oof"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    start = time.process_time()
    study = study_blend(load_members([str(folder)]), str(REAL / "isic2020" / "train.csv"))
    assert time.process_time() - start < 60
    assert (len(study.rows), study.rows["target"].sum()) == (32_692, 581)
    assert study.rows["group"].nunique() == 2056
    assert min(score.value for score in study.scores.values()) == pytest.approx(0.874, abs=5e-4)
    assert max(score.value for score in study.scores.values()) == pytest.approx(0.933, abs=5e-4)
    for name in ("subset", "hill_climb", "nelder_mead", "stacking"):
        assert study.outcomes[name].nested.value < study.outcomes[name].in_sample
    assert study.outcomes["rank_mean"].nested.value > study.outcomes["single"].nested.value
