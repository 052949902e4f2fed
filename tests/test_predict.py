"""Predictions: views, folds, the submission, and the same result on two processes."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from calibrate import main as calibrate
from conftest import tiny_run
from formula import CLASSES, formula_run
from predict import main as predict
from train import main as train

from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.files import read_json, sha256
from lesions.inference.predict import views_of
from lesions.paths import CODE, at


def test_views_are_all_different_and_the_first_is_the_image():
    image = torch.randint(0, 256, (1, 8, 8, 3))
    for count in (1, 4, 8):
        views = views_of(image, count)
        assert len({view.numpy().tobytes() for view in views}) == count
        assert torch.equal(views[0], image)


def test_the_submission_has_the_mean_of_the_folds_in_order_and_names_its_weights(trained):
    parts = []
    for fold in "012":
        predict(["--run", "tiny", "--folds", fold])
        parts.append(pd.read_csv(at("submissions/tiny.csv"))["target"].to_numpy())
    predict(["--run", "tiny"])
    submission = pd.read_csv(at("submissions/tiny.csv"))
    np.testing.assert_allclose(submission["target"], np.mean(parts, axis=0), atol=1e-12)
    assert not np.allclose(parts[0], parts[1])
    table, facts = load_table("demo")
    test = table.loc[table["split"] == "test", "image_name"]
    assert list(submission.columns) == ["image_name", "target"]
    assert submission["image_name"].tolist() == test.tolist()
    assert submission["target"].between(0, 1).all()
    predict(["--run", "oof/tiny", "--set", "predict.views=1"])
    path = at("submissions/tiny.csv")
    record = read_json(path.with_suffix(".json"))
    assert (record["run"], record["views"], record["sha256"]) == ("tiny", 1, sha256(path))
    assert record["table_hash"] == facts["table_hash"]
    files = sorted(trained.glob("fold*.safetensors"))
    assert record["weights"] == {file.name: sha256(file) for file in files}


def test_an_untrained_fold_and_a_damaged_cache_are_not_predicted_from(trained):
    shutil.copytree(trained, at("oof/partly"), dirs_exist_ok=True)
    at("oof/partly/fold2.safetensors").unlink()
    with pytest.raises(InputError, match=r"fold2\.safetensors(.|\n)*scripts/train\.py"):
        predict(["--run", "partly"])
    images = np.load(at("input/prepared/demo/32/images.npy"), mmap_mode="r+")
    images ^= 1
    try:
        with pytest.raises(InputError, match=r"images\.npy is damaged"):
            predict(["--run", "tiny"])
    finally:
        images ^= 1
        images.flush()


def test_one_class_is_submitted_as_the_competition_asks(demo):
    _, facts = load_table("demo")
    formula_run(at("oof/seven"), CLASSES, 3, facts["fold_hash"], task="diagnosis7")
    predict(["--run", "seven"])
    whole = pd.read_csv(at("submissions/seven.csv"))
    assert list(whole) == ["image_name", *(f"prob_{name}" for name in CLASSES)]
    np.testing.assert_allclose(whole.drop(columns="image_name").sum(axis=1), 1, atol=1e-6)
    predict(["--run", "seven", "--column", "mel"])
    one = pd.read_csv(at("submissions/seven_mel.csv"))
    assert list(one) == ["image_name", "target"] and one["target"].equals(whole["prob_mel"])
    assert read_json(at("submissions/seven_mel.json"))["column"] == "mel"
    with pytest.raises(InputError, match="--column moles: the run's columns are akiec"):
        predict(["--run", "seven", "--column", "moles"])


def test_runs_are_found_by_any_name_and_a_wrong_one_is_told_the_near(trained, tmp_path, capsys):
    for name in ("tiny", "oof/tiny", str(trained), str(trained / "fold0.safetensors")):
        assert predict(["--run", name]) == 0
    with pytest.raises(SystemExit, match="2"):
        predict(["--run", "tinny"])
    told = capsys.readouterr().err
    assert "did you mean tiny" in told and "runs here: " in told
    with pytest.raises(InputError, match=r"fold1\.safetensors is one fold's weights; this takes a"):
        calibrate(["--run", "oof/tiny/fold1.safetensors"])
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(InputError, match=r"weights are called fold<k>\.safetensors"):
        predict(["--run", str(tmp_path / "last.safetensors")])
    (at("submissions") / "some.json").write_text("{}")
    with pytest.raises(InputError, match="is a blend; this takes a run or one fold's"):
        predict(["--run", "submissions/some.json"])
    with pytest.raises(InputError, match="data and model of a trained run are fixed"):
        predict(["--run", "tiny", "--set", "data.image_size=64"])


def test_an_unreadable_test_photograph_still_gets_a_row(trained, monkeypatch):
    module = sys.modules["lesions.inference.predict"]
    table, facts = load_table("demo")
    row = np.flatnonzero(table["split"] == "test")[3]
    table.loc[row, ["width", "height"]] = 0
    monkeypatch.setattr(module, "load_table", lambda _: (table, facts))
    predict(["--run", "tiny"])
    submission = pd.read_csv(at("submissions/tiny.csv")).set_index("image_name")["target"]
    name = table.loc[row, "image_name"]
    assert submission[name] == pytest.approx(submission.drop(name).mean())


def test_two_processes_predict_as_one_does(trained):
    exact = ["--run", "tiny", "--set", "train.precision=fp32"]
    predict(exact)
    one = pd.read_csv(at("submissions/tiny.csv"))
    at("submissions/tiny.csv").unlink()
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launch, "scripts/predict.py", *exact],
                          cwd=CODE, env=environment, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    two = pd.read_csv(at("submissions/tiny.csv"))
    assert two["image_name"].tolist() == one["image_name"].tolist()
    np.testing.assert_allclose(two["target"], one["target"], atol=1e-6)


def test_unconnected_processes_are_refused(demo, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="are not connected"):
        train([*tiny_run("alone"), "--fold", "0"])
