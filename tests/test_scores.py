"""Tables of scores: equal to scikit-learn, drawn by group, for two and for many classes."""

import numpy as np
import pytest
from ham10000 import POWERS, choose_power, reweighted
from sklearn import metrics as reference

from lesions.evaluation.intervals import bootstrap
from lesions.evaluation.metrics import average_precision, log_loss, roc_auc
from lesions.evaluation.scores import names_of, score_parts, score_rows, score_values, scores_text

CLASSES = ["akiec", "bcc", "bkl", "mel", "nv"]


def simulate(rows=400, seed=0, skill=0.5, classes=5):
    """Class numbers, probabilities with ties, and groups of two rows."""
    generator = np.random.default_rng(seed)
    shares = np.linspace(1, 3, classes)
    codes = np.repeat(generator.choice(classes, -(-rows // 2), p=shares / shares.sum()), 2)[:rows]
    probs = generator.dirichlet(np.ones(classes), rows) + skill * np.eye(classes)[codes]
    probs = np.round(probs / probs.sum(axis=1, keepdims=True), 3)
    return codes, probs / probs.sum(axis=1, keepdims=True), np.arange(rows) // 2


def test_every_score_is_scikit_learns():
    codes, probs, groups = simulate()
    scores, classes = score_rows(codes, probs, CLASSES, groups)
    called = probs.argmax(axis=1)
    expected = {
        "macro_auc": reference.roc_auc_score(codes, probs, multi_class="ovr"),
        "accuracy": reference.accuracy_score(codes, called),
        "balanced_accuracy": reference.balanced_accuracy_score(codes, called),
        "macro_f1": reference.f1_score(codes, called, average="macro"),
    }
    assert tuple(scores) == names_of(5) == tuple(expected)
    for name, value in expected.items():
        assert scores[name].value == pytest.approx(value), name
        assert scores[name].low < value < scores[name].high, name
    assert score_values(codes, probs) == pytest.approx(expected)
    for i, name in enumerate(CLASSES):
        own, flagged = codes == i, called == i
        expected = {
            "auc": reference.roc_auc_score(own, probs[:, i]),
            "average_precision": reference.average_precision_score(own, probs[:, i]),
            "recall": reference.recall_score(own, flagged),
            "specificity": reference.recall_score(~own, ~flagged),
            "precision": reference.precision_score(own, flagged),
            "f1": reference.f1_score(own, flagged),
            "kappa": reference.cohen_kappa_score(own, flagged),
        }
        assert list(classes[name]) == list(expected)
        for score, value in expected.items():
            found = classes[name][score]
            assert found.value == pytest.approx(value) and found.low < value < found.high, score
    assert log_loss(codes, probs) == pytest.approx(reference.log_loss(codes, probs), abs=1e-3)


def test_intervals_are_those_of_the_two_class_bootstrap():
    codes, probs, groups = simulate()
    mel, own = (codes == 3).astype(int), probs[:, 3]
    found = score_rows(codes, probs, CLASSES, groups).classes["mel"]["auc"]
    assert found == bootstrap(roc_auc, mel, own, groups)
    alone = score_rows(mel, own[:, None], ["mel"], groups)
    assert alone.classes == {}
    precision = bootstrap(average_precision, mel, own, groups)
    assert alone.overall == {"auc": found, "average_precision": precision}


def test_groups_are_drawn_and_not_rows():
    codes, probs, _ = simulate(rows=100)
    thrice, groups = np.tile(codes, 3), np.tile(np.arange(100), 3)
    alone = score_rows(codes, probs, CLASSES, np.arange(100)).overall
    grouped = score_rows(thrice, np.tile(probs, (3, 1)), CLASSES, groups).overall
    rows = score_rows(thrice, np.tile(probs, (3, 1)), CLASSES, np.arange(300)).overall
    for name in names_of(5):
        assert grouped[name].se == pytest.approx(alone[name].se), name
        assert rows[name].se < 0.75 * alone[name].se, name


def test_a_class_without_rows_is_left_out_and_one_class_alone_has_no_score():
    codes, probs, groups = simulate(classes=4)
    wide = np.hstack([probs, np.zeros((len(probs), 1))])
    scores, classes = score_rows(codes, wide, CLASSES, groups)
    for name, score in score_rows(codes, probs, CLASSES[:4], groups).overall.items():
        assert scores[name].value == pytest.approx(score.value), name
    assert str(classes["nv"]["auc"]) == "n/a (not defined for these rows)"
    of_one = codes == 3
    alone = score_rows(codes[of_one], probs[of_one], CLASSES[:4], groups[of_one]).overall
    assert str(alone["accuracy"]) == "n/a (one class only)"


@pytest.mark.parametrize("classes", [["melanoma"], CLASSES])
def test_each_source_is_scored_and_one_without_a_score_says_why(classes):
    codes, probs, groups = simulate(classes=max(2, len(classes)))
    probs = probs[:, -len(classes) :]
    source = np.where(groups < 100, "isic2019", "isic2020").astype(object)
    source[(codes == 0) & (groups >= 180)] = "healthy"
    found, _ = score_parts(codes, probs, classes, groups, source)
    assert list(found.index) == ["all", "healthy", "isic2019", "isic2020"]
    name, part = names_of(len(classes))[0], source == "isic2020"
    expected = score_values(codes[part], probs[part])[name]
    assert found.loc["isic2020", name].value == pytest.approx(expected)
    assert found.loc["isic2020", name].low < expected < found.loc["isic2020", name].high
    assert str(found.loc["healthy", name]) == "n/a (one class only)"
    assert found["rows"].iloc[1:].sum() == found.loc["all", "rows"] == 400
    text = scores_text(codes, probs, classes, groups, source)
    assert str(found.loc["isic2020", name]) in text
    assert all(line in text for line in classes[1:])


def test_power_0_changes_nothing_and_power_1_has_the_highest_mean_recall():
    shares, generator = np.array([0.05, 0.15, 0.8]), np.random.default_rng(0)
    codes = generator.choice(3, 20_000, p=shares)
    seen = codes + generator.normal(0, 0.8, len(codes))
    likely = np.exp(-((seen[:, None] - np.arange(3)) ** 2) / (2 * 0.8**2)) * shares
    probs = likely / likely.sum(axis=1, keepdims=True)  # true, given what is seen
    np.testing.assert_allclose(reweighted(probs, shares, 0), probs)
    np.testing.assert_allclose(reweighted(probs, shares, 1).sum(axis=1), 1)
    called = [reweighted(probs, shares, power).argmax(axis=1) for power in POWERS]
    found = [reference.balanced_accuracy_score(codes, each) for each in called]
    assert found == sorted(found) and found[-1] > found[0] + 0.1
    assert choose_power(codes, probs, "accuracy", shares) == 0
    assert choose_power(codes, probs, "balanced_accuracy", shares) == 1
