"""Tasks of many classes through training, out-of-fold files and test predictions; leaky splits."""

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
from lesions.errors import InputError
from lesions.files import read_json
from lesions.paths import at


def test_the_melanoma_column_blends_with_a_yes_or_no_run_and_is_submitted(several, trained, capsys):
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


def test_a_published_split_that_leaks_is_trained_on_and_says_so(demo, capsys):
    table, _ = load_table("demo")
    train_rows = table["split"] == "train"
    torn = table.assign(fold=np.where(train_rows, np.arange(len(table)) % 3, -1))
    shutil.copytree(demo, at("input/prepared") / "torn")
    config = DatasetConfig.model_validate({"sources": {"isic2020": {"folder": "x"}}})
    save_table("torn", torn, config)
    with pytest.raises(InputError, match="groups lie in two folds"):
        train([*tiny_run("leaky", "dataset=torn"), "--fold", "0"])
    save_table("torn", torn, config.model_copy(update={"scheme": "system001"}))
    train([*tiny_run("leaky", "dataset=torn"), "--fold", "0"])
    assert "LEAK: torn is a published split (system001)" in capsys.readouterr().out
    facts = read_json(at("oof/leaky/fold0.json"))
    assert facts["scheme"]["name"] == "system001" and facts["scheme"]["straddling"] > 0
