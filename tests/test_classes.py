"""Tasks of many classes through training, out-of-fold files and test predictions; leaky splits."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from blend import main as blend
from conftest import several_run, tiny_run
from predict import main as predict
from report import main as report
from submit import main as submit
from train import main as train

from lesions.config import DatasetConfig
from lesions.data.table import load_table, save_table
from lesions.data.tasks import Task, build_task, targets, task_in
from lesions.errors import InputError
from lesions.paths import at

CLASSES = list(build_task("diagnosis8").classes)


def test_an_out_of_fold_file_names_the_class_and_gives_each_its_probability(several):
    oof = pd.read_csv(several / "fold0.csv")
    table = load_table("demo")[0].set_index("image_name")
    assert list(oof.columns) == ["image_name", "fold", "target", *(f"prob_{c}" for c in CLASSES)]
    assert (table.loc[oof["image_name"], "diagnosis"].to_numpy() == oof["target"]).all()
    probs = oof.filter(like="prob_").to_numpy()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    facts = json.loads((several / "fold0.json").read_text())
    assert facts["classes"] == CLASSES and facts["task"] == "diagnosis8"
    answer = np.array(CLASSES)[probs.argmax(axis=1)]
    assert facts["accuracy"] == pytest.approx((answer == oof["target"]).mean())
    # Rows whose diagnosis is not told are neither trained on nor scored.
    known = (table["split"] == "train") & table["diagnosis"].isin(CLASSES)
    assert len(oof) == facts["rows"] == ((table["fold"] == 0) & known).sum()
    assert ((table["fold"] == 0) & (table["diagnosis"] == "benign")).any()


def test_the_melanoma_column_is_blended_with_a_yes_or_no_run_on_all_its_rows_and_submitted(
    several, trained, capsys
):
    train([*several_run(), "--name", "few", "--set", "train.epochs=1", "--fold", "0"])
    assert re.search(r"left out, as no class of diagnosis8: \d+ benign", capsys.readouterr().out)
    predict(["--run", "several", "--column", "mel"])
    predict(["--run", "tiny"])
    oof = pd.read_csv(at("submissions/several_mel_oof.csv")).set_index("image_name")
    yes_or_no = pd.concat([pd.read_csv(trained / f"fold{k}.csv") for k in range(3)])
    assert set(oof.index) == set(yes_or_no["image_name"])
    own = pd.concat([pd.read_csv(several / f"fold{k}.csv") for k in range(3)])
    own = own.set_index("image_name")
    assert len(own) < len(oof)  # benign rows without a diagnosis are of no class, and no melanomas
    pd.testing.assert_series_equal(oof["prob"][own.index], own["prob_mel"], check_names=False)
    assert not oof["target"].drop(own.index).any()
    mel, test = at("submissions/several_mel_oof.csv"), at("submissions/several_mel.csv")
    out = at("submissions/mel")
    blend([str(mel), "tiny", "--test", str(test), "--method", "mean", "--out", str(out)])
    made = pd.read_csv(out / "blend.csv")
    assert made.columns.tolist() == ["image_name", "target"] and len(made) == len(pd.read_csv(test))
    sample = at("input/sample/isic2020/sample_submission.csv")
    submit([str(out / "blend.csv"), "--dry-run", "--sample", str(sample)])
    report(["--run", "several"])
    assert (several / "report.html").stat().st_size > 100_000


def test_targets_are_numbers_of_the_classes_and_empty_where_there_is_none():
    codes = targets(pd.Series(["mel", "scc", "benign", "nv", ""]), "diagnosis7").to_numpy()
    names = build_task("diagnosis7").classes
    np.testing.assert_array_equal(
        codes, [names.index("mel"), names.index("akiec"), np.nan, names.index("nv"), np.nan]
    )


def test_a_task_of_several_classes_and_a_yes_or_no_task_answer_alike():
    yes, many = build_task("melanoma"), Task("mine", ("bcc", "mel", "nv"))
    assert (yes.columns, yes.listed) == (["prob"], [])
    assert many.columns == ["prob_bcc", "prob_mel", "prob_nv"]
    assert yes.score([[0.2], [0.9]]).tolist() == [0.2, 0.9]
    assert many.score([[0.2, 0.3, 0.5]]) == pytest.approx([0.5])  # bcc and mel are malignant
    assert yes.positive([0, 1]).tolist() == many.positive([2, 1]).tolist() == [False, True]
    assert yes.codes([1.0, 0.0]).tolist() == [1, 0]
    assert many.codes(["nv", "bcc"]).tolist() == [2, 0]
    for task, wrong in ((yes, 2), (many, "df")):
        with pytest.raises(ValueError, match=f"target {wrong} is not"):
            task.codes([wrong])
        frame = task.as_frame(np.full((1, len(task.classes)), 0.25), [1])
        assert task_in(frame.columns) == Task(
            "positive", task.classes if task is many else ("positive",)
        )


def test_a_published_split_that_leaks_is_trained_on_and_says_so(demo, capsys):
    table, _ = load_table("demo")
    train_rows = table["split"] == "train"
    torn = table.assign(fold=np.where(train_rows, np.arange(len(table)) % 3, -1))
    shutil.copytree(demo, at("input/prepared") / "torn")
    source = {"isic2020": {"folder": "x"}}
    save_table("torn", torn, DatasetConfig.model_validate({"sources": source}))
    with pytest.raises(InputError, match="groups lie in two folds"):
        train([*tiny_run("leaky", "dataset=torn"), "--fold", "0"])
    save_table(
        "torn", torn, DatasetConfig.model_validate({"sources": source, "scheme": "system001"})
    )
    train([*tiny_run("leaky", "dataset=torn"), "--fold", "0"])
    assert "LEAK: torn is a published split (system001)" in capsys.readouterr().out
    facts = json.loads((at("oof") / "leaky" / "fold0.json").read_text())
    assert facts["scheme"]["name"] == "system001" and facts["scheme"]["straddling"] > 0
