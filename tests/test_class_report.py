"""The report and the results file of runs with several classes, and of malignant or not."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import report
from sklearn import metrics as reference

from lesions.data.tasks import MALIGNANT, classes_of
from lesions.errors import InputError
from lesions.evaluation.metrics import roc_auc
from lesions.reporting import style, summary
from lesions.reporting.album import Album
from lesions.reporting.class_sections import (
    answer,
    choose_worst,
    class_errors_section,
    class_probs,
    class_scores_section,
    collapse_results,
)
from lesions.reporting.report import auc_by_part
from lesions.reporting.results import load_blend, load_run

CLASSES = classes_of("diagnosis7")
COLUMNS = [f"prob_{name}" for name in CLASSES]
ROWS, TEST, SIZE = 300, 40, 16


def write_runs(root: Path) -> Path:
    """A data set "ham" whose own task is malignant, and runs "seven" and "two" on it."""
    random = np.random.default_rng(0)
    count = ROWS + TEST
    codes = np.repeat(random.choice(7, count // 2, p=[0.1, 0.1, 0.1, 0.05, 0.15, 0.45, 0.05]), 2)
    diagnosis = np.array(CLASSES)[codes]
    diagnosis[np.flatnonzero(diagnosis == "akiec")[:4]] = "scc"  # akiec where there are seven
    table = pd.DataFrame(
        {
            "image_name": [f"ISIC_{row:04d}" for row in range(count)],
            "source": random.choice(["ham10000", "isic2017"], count),
            "split": ["train"] * ROWS + ["test"] * TEST,
            "patient_id": "",
            "lesion_id": "",
            "diagnosis": diagnosis,
            "target": np.isin(diagnosis, MALIGNANT).astype(int),
            "sex": random.choice(["male", "female"], count),
            "age_approx": random.choice([np.nan, 20.0, 50.0, 80.0], count),
            "site": "torso",
            "width": 600,
            "height": 450,
            "bytes": "",
            "images_per_patient": "",
            "group": [f"g{row // 2}" for row in range(count)],
            "fold": [row // 2 % 3 for row in range(ROWS)] + [-1] * TEST,
            "path": "",
        }
    )
    prepared = root / "input/prepared/ham"
    (prepared / str(SIZE)).mkdir(parents=True)
    (root / "submissions").mkdir()
    table.to_csv(prepared / "table.csv", index=False)
    facts = {
        "dataset": "ham",
        "table_hash": "t1",
        "fold_hash": "f1",
        "config": {"task": "malignant"},
    }
    (prepared / "table.json").write_text(json.dumps(facts))
    images = np.arange(count)[:, None, None, None] % 256 * np.ones((1, SIZE, SIZE, 3))
    np.save(prepared / str(SIZE) / "images.npy", images.astype(np.uint8))
    logits = 2 * np.eye(7)[codes] + random.normal(size=(count, 7))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table["target"] = np.array(CLASSES)[codes]
    write_run(root, "seven", "diagnosis7", table.join(pd.DataFrame(probs, columns=COLUMNS)))
    malignant = table["target"].isin(MALIGNANT)
    prob = probs[:, np.isin(CLASSES, MALIGNANT)].sum(axis=1)
    write_run(root, "two", "malignant", table.assign(target=malignant.astype(int), prob=prob))
    return root


def write_run(root: Path, run: str, task: str, table: pd.DataFrame) -> None:
    folder = root / "oof" / run
    folder.mkdir(parents=True)
    own = "" if task == "malignant" else f"data: {{task: {task}}}\nloss: {{kind: cross_entropy}}\n"
    (folder / "config.yaml").write_text(f"dataset: ham\nmodel: {{backbone: tiny}}\n{own}")
    scores = COLUMNS if "prob" not in table else ["prob"]
    for fold, rows in table[:ROWS].groupby("fold"):
        rows[["image_name", "fold", "target", *scores]].to_csv(
            folder / f"fold{fold}.csv", index=False
        )
        record = {
            "run": run, "fold": int(fold), "task": task, "classes": CLASSES if own else [],
            "table_hash": "t1", "fold_hash": "f1", "auc": 0.9, "last_auc": 0.85, "best_auc": 0.85,
            "best_epoch": 2, "history": [{"epoch": 1, "loss": 0.5, "auc": 0.85}], "seconds": 3.0,
            "images_per_second": 50.0, "rows": len(rows), "positives": None if own else 9,
        }  # fmt: skip
        (folder / f"fold{fold}.json").write_text(json.dumps(record))
    sent = table[ROWS:][["image_name", *scores]].rename(columns={"prob": "target"})
    sent.to_csv(root / f"submissions/{run}.csv", index=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_runs(tmp_path_factory.mktemp("classes"))


def load(root: Path, run: str):
    return load_run(run, root / "oof", root / "input/prepared", root / "submissions")


@pytest.fixture
def results(root: Path):
    return load(root, "seven")


def write_report(root: Path, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "OOF", root / "oof")
        patch.setattr(report, "PREPARED", root / "input/prepared")
        patch.setattr(report, "SUBMISSIONS", root / "submissions")
        assert report.main([*arguments]) == 0


def test_a_run_of_seven_classes_is_reported_with_the_malignant_or_not_view(root, results):
    write_report(root, "--run", "seven")
    page = (root / "oof/seven/report.html").read_text()
    links = re.findall(r'<a href="#(\w+)">', page)
    assert links[:3] == ["classes", "confusion", "worst"]
    assert set(re.findall(r'<section id="(\w+)"', page)) == set(links) and len(set(links)) == 9
    assert page.count("Malignant or not: ") >= 8
    visible = re.sub(r"<[^>]+>", " ", page)
    assert "Missed malignant lesions" in visible and "Missed melanomas" not in visible
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    drawn = {path.stem for path in (root / "oof/seven/report").glob("*.png")}
    assert {"class_auc", "class_roc", "class_confusion", "class_calibration", "roc"} <= drawn
    assert "errors_mel" in drawn
    auc = reference.roc_auc_score(
        results.oof["target"], results.oof[COLUMNS], multi_class="ovr", labels=CLASSES
    )
    assert f"<dt>Macro AUC</dt><dd>{auc:.3f}</dd>" in page


def test_the_target_of_a_run_is_that_of_its_task_and_not_of_the_table(root, results):
    codes = results.oof["diagnosis"].replace({"scc": "akiec"})
    assert (results.oof["target"] == codes).all() and results.task == "diagnosis7"
    assert (results.test["target"] == results.test["diagnosis"].replace({"scc": "akiec"})).all()
    two = load(root, "two")
    assert set(two.oof["target"]) == {0, 1} and two.words.many == "malignant lesions"


def test_collapsed_a_run_of_seven_classes_is_one_of_malignant_or_not(root, results):
    collapsed, two = collapse_results(results), load(root, "two")
    assert (collapsed.oof["target"] == two.oof["target"]).all()
    assert collapsed.oof["prob"].to_numpy() == pytest.approx(two.oof["prob"].to_numpy())
    assert collapsed.classes == [] and collapsed.words == two.words
    expected = roc_auc(two.test["target"], two.test["prob"])
    found = auc_by_part(collapsed).set_index("part")
    assert found.loc["held-out test", "auc"] == pytest.approx(expected)


def test_the_confusion_and_the_scores_of_the_page_are_scikit_learns(results):
    answers = answer(results)
    target, probs = results.oof["target"], class_probs(results.oof, CLASSES)
    called = np.array(CLASSES)[probs.argmax(axis=1)]
    expected = reference.confusion_matrix(target, called, labels=CLASSES)
    assert (answers.counts == expected).all()
    with style.drawing():
        card = class_scores_section(results, Album(), answers).cards[0]
        swaps = class_errors_section(results, Album(), answers).cards[-1]
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in card.split("<tr>")]
    cells = {row[0]: row[1:] for row in rows if row}
    assert set(cells) == {
        "all folds", "fold 0", "fold 1", "fold 2", "ham10000", "isic2017", "held-out test",
    }  # fmt: skip
    assert cells["all folds"][1].startswith(f"{reference.accuracy_score(target, called):.3f}")
    first = (results.oof["fold"] == 0).to_numpy()
    f1 = reference.f1_score(target[first], called[first], average="macro")
    assert cells["fold 0"][3].startswith(f"{f1:.3f}")
    off = expected - np.diag(np.diag(expected))
    i, j = divmod(int(off.argmax()), 7)
    assert f"<td>{CLASSES[i]} called {CLASSES[j]}</td><td>{off.max()}</td>" in swaps


def test_the_worst_errors_are_the_surest_wrong_answers_of_each_class(results):
    answers = answer(results)
    galleries = {one.name: one for one in choose_worst(results, answers)}
    assert list(galleries) == [f"errors_{name}" for name in CLASSES]
    shown = galleries["errors_mel"].rows
    assert (shown["target"] == "mel").all() and (shown["called"] != "mel").all()
    assert shown["prob"].is_monotonic_decreasing and shown["group"].is_unique
    wrong = (results.oof["target"] == "mel").to_numpy() & (answers.called != "mel")
    assert shown["prob"].iloc[0] == answers.probs[wrong].max()
    assert f"{wrong.sum()} of" in galleries["errors_mel"].caption
    assert shown["diagnosis"].iloc[0].startswith("mel → ")


def test_a_class_without_rows_and_no_test_are_said(results):
    few = results.oof[results.oof["target"] != "df"]
    without = replace(results, oof=few, test=results.test[:0])
    with style.drawing():
        section = class_scores_section(without, Album(), answer(without))
    assert "<td>df</td><td>0</td><td>n/a</td>" in section.cards[-1]
    assert "held-out" not in section.cards[0]


def test_a_run_of_malignant_or_not_is_worded_as_such(root):
    write_report(root, "--run", "two")
    page = (root / "oof/two/report.html").read_text()
    visible = re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S))
    assert "of malignant lesions are caught" in visible
    assert "elanoma" not in visible


def test_a_blend_of_seven_classes_is_reported(root):
    folds = [pd.read_csv(path) for path in sorted((root / "oof/seven").glob("fold*.csv"))]
    pd.concat(folds).to_csv(root / "submissions/blend_oof.csv", index=False)
    method = {"in_sample": 0.9, "nested": 0.89, "interval": [0.8, 0.9], "p_against_equal": None}
    blend = {
        "members": ["seven", "other"], "chosen": "mean", "weights": {"seven": 0.5, "other": 0.5},
        "methods": {"mean": method}, "reason": "simplest", "objective": "macro_f1",
        "member_scores": {"seven": {"macro_f1": 0.4321}},
    }  # fmt: skip
    path = root / "submissions/blend.json"
    path.write_text(json.dumps(blend))
    loaded = load_blend(path, root / "oof", root / "input/prepared")
    assert loaded.classes == CLASSES and loaded.is_probability
    write_report(root, "--blend", str(path))
    page = (root / "submissions/blend_report.html").read_text()
    assert "<td>seven</td><td>0.4321</td>" in page and "<th>macro-F1</th>" in page


def test_predictions_without_a_probability_are_refused(root, tmp_path):
    broken = write_runs(tmp_path)
    path = broken / "oof/seven/fold0.csv"
    pd.read_csv(path).drop(columns=COLUMNS).to_csv(path, index=False)
    with pytest.raises(InputError, match="fold0.csv: no column prob or prob_<class>"):
        load(broken, "seven")
    path = broken / "submissions/two.csv"
    pd.read_csv(path).rename(columns={"target": "score"}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"two.csv: no column prob: predict again"):
        load(broken, "two")


def test_the_results_file_takes_runs_of_seven_classes(root, results, monkeypatch):
    table = pd.read_csv(root / "input/prepared/ham/table.csv")
    facts = json.loads((root / "input/prepared/ham/table.json").read_text())
    (root / "input/prepared/ham/audit.json").write_text('{"shortcuts": []}')
    commands = root / "commands.sh"
    commands.write_text("set -euo pipefail\npython scripts/train.py\n")
    monkeypatch.setattr(summary, "OOF", root / "oof")
    monkeypatch.setattr(summary, "SUBMISSIONS", root / "submissions")
    monkeypatch.setattr(summary, "prepared", lambda name: root / "input/prepared" / name)
    monkeypatch.setattr(summary, "load_table", lambda name: (table, facts))
    model = SimpleNamespace(parameters=lambda: [])
    monkeypatch.setattr(summary, "load_model", lambda path: (model, {}))
    found = summary.summarise("ham", ["seven", "two"], None, commands)
    seven, two = found["runs"]
    target, probs = results.oof["target"], results.oof[COLUMNS]
    auc = reference.roc_auc_score(target, probs, multi_class="ovr", labels=CLASSES)
    assert seven["oof"]["overall"]["auc"] == pytest.approx(auc)
    assert seven["oof"]["overall"]["scores"]["macro_auc"]["value"] == pytest.approx(auc)
    mel = seven["oof"]["overall"]["classes"]["mel"]
    assert mel["rows"] == (target == "mel").sum()
    assert mel["auc"]["value"] == pytest.approx(roc_auc(target == "mel", probs["prob_mel"]))
    assert set(seven["oof"]) == {"overall", "ham10000", "isic2017"}
    assert seven["test"]["overall"]["rows"] == TEST
    assert two["oof"]["overall"]["positives"] == int(target.isin(MALIGNANT).sum())
    assert found["blend"] is None and json.dumps(found)
