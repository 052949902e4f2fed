"""Blending: exact fast AUC, methods, and estimates on groups that did not choose the weights."""

import json
import time
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import blend
import blend_gain
import numpy as np
import pandas as pd
import pytest
from blending import climb_with_sklearn
from conftest import REAL
from scipy.special import expit, logit, softmax

from lesions.blending.blend import study_blend
from lesions.blending.members import load_members
from lesions.blending.methods import METHODS, climb, methods_of
from lesions.blending.nested import choose, compare_methods, luck, nested_scores, split_groups
from lesions.blending.pool import build_pool
from lesions.errors import InputError
from lesions.evaluation.intervals import Comparison
from lesions.evaluation.scores import names_of, score_values

CLASSES = ["akiec", "df", "mel", "nv"]
EACH = [(1, name) for name in METHODS] + [(4, name) for name in methods_of(several=True)]


def simulate(rows=900, skills=(1.5, 1.0, 1.0, 0.5), seed=0, noise=1.0, classes=1, objective=None):
    """A pool of members and groups of three rows; of four classes one is rare."""
    generator = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(len(skills))]
    groups = np.arange(rows) // 3
    if classes == 1:
        codes = (generator.random(rows) < 0.15).astype(int)
        common = generator.normal(size=rows)
        probs = [expit(common + s * codes + noise * generator.normal(size=rows)) for s in skills]
        return build_pool(np.stack(probs)[:, :, None], names, ["mel"], codes), groups
    codes = np.repeat(generator.choice(4, rows // 3, p=[0.2, 0.03, 0.2, 0.57]), 3)
    common, own = 0.5 * generator.normal(size=(rows, 4)), np.eye(4)[codes]
    probs = [softmax(common + s * own + generator.normal(size=(rows, 4)), axis=1) for s in skills]
    return build_pool(np.stack(probs), names, CLASSES, codes, objective), groups


@pytest.mark.parametrize("digits", [15, 1])
def test_hill_climbing_picks_what_a_loop_over_scikit_learn_picks(digits):
    pool, _ = simulate(rows=400)
    pool = build_pool(np.round(pool.probs, digits), pool.names, pool.classes, pool.target)
    picks, aucs = climb_with_sklearn(pool, 50)
    found = climb(pool, 50)
    assert found[0] == picks and found[1] == pytest.approx(aucs, abs=1e-12)
    assert len(picks) > 1 and (np.diff(found[1]) > 0).all()


@pytest.mark.parametrize(("classes", "name"), EACH)
def test_weights_are_shares_and_the_scores_stay_between_0_and_1(classes, name):
    pool, _ = simulate(classes=classes)
    blend = METHODS[name](pool)
    assert sum(blend.weights) == pytest.approx(1) and min(blend.weights) >= 0
    blended = blend.apply(pool)
    assert blended.shape == (900, classes) and blended.min() >= 0 and blended.max() <= 1
    assert classes == 1 or blended.sum(axis=1) == pytest.approx(1)
    best = max(pool.score(probs) for probs in pool.probs)
    if name in ("single", "subset", "hill_climb"):
        assert pool.score(blended) >= best - 1e-9 or name == "subset"  # of classes two or more
    assert pool.score(blended) > 0.5


@pytest.mark.parametrize("name", ["subset", "hill_climb", "stacking"])
def test_a_useless_member_gets_little_weight(name):
    pool, _ = simulate(rows=3000, skills=(2.0, 2.0, 0.0))
    assert METHODS[name](pool).weights[2] < 0.15
    pool, _ = simulate(skills=(-3.0, -3.0))  # where nothing helps, equal weights
    assert METHODS["stacking"](pool).weights == (0.5, 0.5)


def test_one_scale_of_scores_does_not_matter_to_ranks():
    pool, _ = simulate()
    squeezed = pool.probs.copy()
    squeezed[0] = squeezed[0] ** 5 / 100
    other = build_pool(squeezed, pool.names, pool.classes, pool.target)
    for name in ("rank_mean", "hill_climb", "subset"):
        assert METHODS[name](pool) == METHODS[name](other)


@pytest.mark.parametrize("objective", names_of(4))
def test_the_objective_of_a_search_is_the_score_itself(objective):
    pool, _ = simulate(classes=4, objective=objective)
    probs = METHODS["mean"](pool).apply(pool)
    assert pool.score(probs) == pytest.approx(score_values(pool.target, probs)[objective])


def test_the_subset_search_tries_every_subset_of_two_to_six():
    pool, _ = simulate(classes=4, skills=(1.0,) * 7, objective="macro_f1")  # six are best
    subsets = [each for size in range(2, 7) for each in combinations(range(7), size)]
    tried = {each: pool.score(pool.probs[list(each)].mean(axis=0)) for each in subsets}
    found = tuple(np.flatnonzero(METHODS["subset"](pool).weights))
    assert len(tried) == 119 and len(found) == 6
    assert tried[found] == pytest.approx(max(tried.values()))


def test_two_groups_of_each_class_are_the_least():
    with pytest.raises(InputError, match="fewer than two classes are in two groups"):
        split_groups([1, 1, 0, 0, 0], ["a", "a", "b", "c", "d"])
    parts = split_groups([1, 1, 0, 0, 0], ["a", "e", "b", "c", "d"])
    for part in np.unique(parts):
        assert len({1, 0} & set(np.array([1, 1, 0, 0, 0])[parts != part])) == 2


@pytest.mark.parametrize("classes", [1, 4])
def test_no_group_is_in_two_parts_and_every_class_is_dealt_evenly(classes):
    pool, groups = simulate(rows=6000, classes=classes)
    parts = split_groups(pool.target, groups)
    assert pd.Series(parts).groupby(groups).nunique().max() == 1
    for code in np.unique(pool.target):
        counts = np.bincount(parts[pool.target == code])
        assert len(counts) == 5 and counts.max() - counts.min() <= 6, code
    assert np.ptp(np.bincount(parts)) <= 6


@pytest.mark.parametrize(("classes", "name"), EACH)
def test_a_rows_nested_score_does_not_depend_on_its_own_target(classes, name):
    pool, groups = simulate(rows=450, skills=(1.0, 0.9, 0.8, 0.9), classes=classes)
    parts = split_groups(pool.target, groups)
    before, _ = nested_scores(METHODS[name], pool, parts)
    flipped = np.where(parts == 0, (pool.target + 1) % max(2, classes), pool.target)
    after, _ = nested_scores(METHODS[name], replace(pool, target=flipped), parts)
    assert (after[parts == 0] == before[parts == 0]).all()
    if name in ("subset", "hill_climb", "stacking"):
        assert (after != before).any()  # the other parts did learn from it


@pytest.mark.parametrize(("classes", "equal"), [(1, "rank_mean"), (4, "mean")])
def test_equal_weights_are_chosen_where_members_are_alike_and_not_where_they_lose(classes, equal):
    outcomes, chosen, reason, _ = compare_methods(*simulate(600, (1.0,) * 4, classes=classes))
    assert chosen == equal and "nothing beats it" in reason
    assert outcomes[equal].gains == {}
    for outcome in outcomes.values():
        assert outcome.nested.low < outcome.nested.value < outcome.nested.high
    uneven = simulate(1200, (2.5, 0.0, 0.0, 0.0), noise=0.6, classes=classes)
    outcomes, chosen, reason, _ = compare_methods(*uneven)
    assert chosen != equal and f"beats {equal}" in reason
    assert outcomes["single"].against_equal.p < 0.01
    assert outcomes["single"].as_json()["gain"] > 0.02


@pytest.mark.parametrize(
    ("chosen", "scores"),
    [("rank_mean", (0.900, 0.905, 0.909)), ("mean", (0.900, 0.915, 0.909)),
     ("stacking", (0.900, 0.902, 0.915)), ("stacking", (0.900, 0.915, 0.921))],
)  # fmt: skip
def test_the_highest_above_equal_weights_is_chosen_and_context_above_stacking(chosen, scores):
    nested = dict(zip(("rank_mean", "mean", "stacking"), scores, strict=True))
    nested["patient_context"] = nested["stacking"] + 0.005
    gains = {}
    for name, score in nested.items():  # intervals hold zero if the gain is under 0.01
        over = {other: score - nested[other] for other in gains}
        gains[name] = {other: Comparison(gain, gain - 0.01, gain + 0.01)
                       for other, gain in over.items()}  # fmt: skip
    assert choose(gains)[0] == chosen


@pytest.mark.parametrize(("methods", "expected"), [(1, 0.0), (2, 0.5642), (3, 0.8463)])
def test_the_luck_of_a_choice_is_the_mean_of_the_largest_of_normal_numbers(methods, expected):
    gain = Comparison(1.0, 0.8, 1.2)
    drawn = 1 + 0.1 * np.random.default_rng(0).normal(size=(methods, 200_000))
    outcomes = {"equal": SimpleNamespace(values=0 * drawn[0], gains={})}
    for place, values in enumerate(drawn):
        outcomes[str(place)] = SimpleNamespace(values=values, gains={"equal": gain})
    assert luck(outcomes, "0") == pytest.approx(0.1 * expected, abs=1e-3)
    assert luck(outcomes, "equal") == 0


@pytest.fixture
def files(tmp_path):
    """Two members whose scores are shifted by patient, 900 out-of-fold rows and 300 test rows."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"image_name": [f"i{k}" for k in range(1200)]})
    table["patient_id"] = np.arange(1200) // 4
    table["target"] = (generator.random(1200) < 0.15).astype(int)
    level = 2 * generator.normal(size=300)[table["patient_id"]] + 1.5 * table["target"]
    for name in ("x", "y"):
        pred = expit(level + generator.normal(size=1200))
        for folder, rows in (("oof", slice(0, 900)), ("sent", slice(900, 1200))):
            (tmp_path / folder).mkdir(exist_ok=True)
            columns = ["image_name", "target"] if folder == "oof" else ["image_name"]
            part = table[columns].assign(pred=pred)[rows]
            part.to_csv(tmp_path / folder / f"{name}.csv", index=False)
    table.to_csv(tmp_path / "groups.csv", index=False)
    return tmp_path


def test_patient_context_is_chosen_where_it_helps_and_is_that_of_the_test_rows(files, capsys):
    asked = [str(files / "oof"), "--groups", str(files / "groups.csv"), "--out", str(files / "out")]
    sent = ["--test", str(files / "sent")]
    assert blend.main([*asked, *sent]) == 0
    assert "patient_context" not in json.loads((files / "out/blend.json").read_text())["methods"]
    assert blend.main([*asked, *sent, "--patient-context"]) == 0
    assert "patient context, gain over stacking without it: +0." in capsys.readouterr().out
    record = json.loads((files / "out/blend.json").read_text())
    assert record["chosen"] == "patient_context"
    tests = [pd.read_csv(files / f"sent/{name}.csv")["pred"] for name in ("x", "y")]
    score = pd.concat([logit(test) for test in tests], axis=1)
    own = score.mean(axis=1).groupby(np.arange(300) // 4)
    score["away"] = score.mean(axis=1) - own.transform("mean")
    score["rank"] = logit((own.rank() - 0.5) / 4)
    found = pd.read_csv(files / "out/blend.csv")["target"]
    expected = expit(score @ list(record["weights"].values()))
    assert found.to_numpy() == pytest.approx(expected.to_numpy())
    pd.read_csv(files / "groups.csv")[:900].to_csv(files / "groups.csv", index=False)
    with pytest.raises(InputError, match="patients of test rows: not in .*groups.csv: 300 images"):
        blend.main([*asked, *sent, "--patient-context"])
    with pytest.raises(InputError, match="the patients of all images: give --groups"):
        blend.main([asked[0], "--no-test", "--patient-context"])


def test_the_gain_of_fixed_weights_is_realised_by_the_half_that_predicts_it_the_other_way(files):
    out = ["--halves", "2", "--processes", "1", "--allow-dirty", "--out", str(files / "gain.json")]
    assert blend_gain.main([str(files / "oof"), "--groups", str(files / "groups.csv"), *out]) == 0
    found = json.loads((files / "gain.json").read_text())["methods"]
    assert found["mean"]["bias"] == pytest.approx(0, abs=1e-12)
    assert found["mean"]["predicted"] == pytest.approx(found["mean"]["in_sample"]) != 0
    assert found["stacking"]["in_sample"] > found["stacking"]["predicted"]
    assert all(each["halves"] == 2 and 0 <= each["inside"] <= 1 for each in found.values())


@pytest.mark.real
def test_fifteen_public_models_are_blended_at_full_scale():
    folder = REAL / "siim2020_oof" / "oof"
    start = time.process_time()
    members = load_members([str(folder)], REAL / "isic2020" / "train.csv")
    study = study_blend(members, source=None)
    assert time.process_time() - start < 30
    assert (len(study.rows.codes), study.rows.codes.sum()) == (32_692, 581)
    assert len(set(study.rows.groups)) == 2056
    assert min(score.value for score in study.scores.values()) == pytest.approx(0.874, abs=5e-4)
    assert max(score.value for score in study.scores.values()) == pytest.approx(0.933, abs=5e-4)
    for name in ("subset", "hill_climb", "stacking"):
        assert study.outcomes[name].nested.value < study.outcomes[name].in_sample
    assert study.outcomes["rank_mean"].nested.value > study.outcomes["single"].nested.value
