"""Scores of several classes: equal to scikit-learn, drawn by group, fast enough for a report."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from lesions.evaluation.intervals import bootstrap
from lesions.evaluation.metrics import roc_auc
from lesions.evaluation.multiclass import (
    SCORES,
    class_scores,
    codes_of,
    collapse,
    compare_classes,
    log_loss,
    report_classes,
)

CLASSES = ["akiec", "bcc", "bkl", "mel", "nv"]


def simulate(rows=400, seed=0, skill=0.5, classes=CLASSES):
    """Class names, probabilities with ties, and groups of two rows."""
    generator = np.random.default_rng(seed)
    shares = np.linspace(1, 3, len(classes))
    codes = np.repeat(generator.choice(len(classes), -(-rows // 2), p=shares / shares.sum()), 2)
    codes = codes[:rows]
    probs = generator.dirichlet(np.ones(len(classes)), rows) + skill * np.eye(len(classes))[codes]
    probs = np.round(probs / probs.sum(axis=1, keepdims=True), 3)
    return np.array(classes)[codes], probs / probs.sum(axis=1, keepdims=True), np.arange(rows) // 2


def test_every_score_is_scikit_learns():
    target, probs, groups = simulate()
    scores, classes = report_classes(target, probs, CLASSES, groups)
    called = np.array(CLASSES)[probs.argmax(axis=1)]
    expected = {
        "macro_auc": reference.roc_auc_score(target, probs, multi_class="ovr", labels=CLASSES),
        "accuracy": reference.accuracy_score(target, called),
        "balanced_accuracy": reference.balanced_accuracy_score(target, called),
        "macro_f1": reference.f1_score(target, called, average="macro"),
    }
    assert tuple(scores) == SCORES
    for name, value in expected.items():
        assert scores[name].value == pytest.approx(value), name
        assert scores[name].low < value < scores[name].high, name
    recalls = reference.recall_score(target, called, labels=CLASSES, average=None)
    precisions = reference.precision_score(target, called, labels=CLASSES, average=None)
    for i, name in enumerate(CLASSES):
        auc = reference.roc_auc_score(target == name, probs[:, i])
        values = [classes[name][score].value for score in ("auc", "recall", "precision")]
        assert values == pytest.approx([auc, recalls[i], precisions[i]]), name
    loss = log_loss(codes_of(target, CLASSES), probs)
    assert loss == pytest.approx(reference.log_loss(target, probs, labels=CLASSES), abs=1e-3)


def test_the_interval_of_a_class_is_that_of_the_two_class_bootstrap():
    target, probs, groups = simulate()
    found = report_classes(target, probs, CLASSES, groups).classes["mel"]["auc"]
    assert found == bootstrap(roc_auc, target == "mel", probs[:, 3], groups)


def test_groups_are_drawn_and_not_rows():
    target, probs, _ = simulate(rows=100)
    thrice, groups = np.tile(target, 3), np.tile(np.arange(100), 3)
    alone = class_scores(target, probs, CLASSES)
    grouped = class_scores(thrice, np.tile(probs, (3, 1)), CLASSES, groups)
    rows = class_scores(thrice, np.tile(probs, (3, 1)), CLASSES)
    for name in SCORES:
        assert grouped[name].se == pytest.approx(alone[name].se), name
        assert rows[name].se < 0.75 * alone[name].se, name


def test_differences_are_paired():
    target, probs, groups = simulate()
    worse = 0.6 * probs + 0.4 * simulate(seed=1, skill=0)[1]
    same = compare_classes(target, probs, probs, CLASSES, groups)
    found = compare_classes(target, probs, worse, CLASSES, groups)
    scores, others = (class_scores(target, p, CLASSES, groups) for p in (probs, worse))
    for name in SCORES:
        assert same[name].difference.value == 0 and same[name].p == 1
        difference = scores[name].value - others[name].value
        assert found[name].difference.value == pytest.approx(difference)
        assert found[name].difference.se < np.hypot(scores[name].se, others[name].se)
    assert found["macro_auc"].p < 0.01


def test_a_class_without_rows_is_left_out_and_one_class_alone_has_no_score():
    target, probs, _ = simulate(classes=CLASSES[:4])
    wide = np.hstack([probs, np.zeros((len(probs), 1))])
    scores, classes = report_classes(target, wide, CLASSES)
    for name, score in class_scores(target, probs, CLASSES[:4]).items():
        assert scores[name].value == pytest.approx(score.value), name
    assert str(classes["nv"]["auc"]) == "n/a (no such rows)"
    alone = class_scores(target[target == "mel"], probs[target == "mel"], CLASSES[:4])
    assert str(alone["accuracy"]) == "n/a (one class only)"


def test_the_collapsed_probability_is_the_sum_of_the_classes():
    _, probs, _ = simulate()
    found = collapse(probs, CLASSES, ["mel", "bcc", "akiec", "scc"])
    assert found == pytest.approx(probs[:, 0] + probs[:, 1] + probs[:, 3])
    with pytest.raises(ValueError, match="none of"):
        collapse(probs, CLASSES, ["scc"])


def test_what_does_not_fit_is_refused():
    target, probs, _ = simulate()
    with pytest.raises(ValueError, match=r"target nv is none of"):
        class_scores(target, probs[:, :4], CLASSES[:4])
    with pytest.raises(ValueError, match="400, 4. probabilities for 5 classes"):
        class_scores(target, probs[:, :4], CLASSES)


def test_two_thousand_replicates_of_a_data_set_take_seconds():
    classes = [f"c{i}" for i in range(7)]
    target, probs, groups = simulate(rows=10_015, classes=classes)
    start = time.process_time()
    class_scores(target, probs, classes, groups)
    assert time.process_time() - start < 20  # below 1 on a quiet machine


def test_a_trained_run_is_told_by_its_macro_scores_and_its_classes(tmp_path, monkeypatch):
    from lesions.config import Config
    from lesions.training import course

    target, probs, groups = simulate(rows=60)
    names = [f"ISIC_{i:02d}" for i in range(60)]
    columns = {f"prob_{name}": prob for name, prob in zip(CLASSES, probs.T, strict=True)}
    oof = pd.DataFrame({"image_name": names, "fold": np.arange(60) // 2 % 2, "target": target})
    oof = oof.assign(**columns)
    (tmp_path / "run").mkdir()
    for fold, rows in oof.groupby("fold"):
        rows.to_csv(tmp_path / "run" / f"fold{fold}.csv", index=False)
    table = pd.DataFrame({"image_name": names, "group": groups, "source": "ham10000"})
    monkeypatch.setattr(course, "OOF", tmp_path)
    monkeypatch.setattr(course, "load_table", lambda dataset: (table, {}))
    told = course.oof_table(Config(dataset="ham10000", model={"backbone": "x"}), "run", range(2))
    scores, classes = report_classes(target, probs, CLASSES, groups)
    words = {" ".join(line.split()) for line in told.splitlines()}
    expected = [f"macro AUC 60 {scores['macro_auc'].value:.4f}"]
    expected += [f"AUC of mel {(target == 'mel').sum()} {classes['mel']['auc'].value:.4f}"]
    for start in expected:
        assert any(line.startswith(start) for line in words), start
    assert told.endswith("2 folds, every image once")
