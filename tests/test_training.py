"""Training through its script: exact resume, what a fold leaves, and every refusal."""

import json
import shutil
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from audit import main as audit
from conftest import Killed, interrupted_run, several_run, tiny_run
from safetensors.torch import load_file
from train import main as train

from lesions.config import load_dataset_config
from lesions.data.folds import fold_warnings
from lesions.data.table import load_table, save_table
from lesions.errors import InputError
from lesions.files import sha256
from lesions.inference.checkpoint import load_model
from lesions.oof import load_oof
from lesions.paths import at
from lesions.training import steps
from lesions.training.loop import FoldTrainer
from lesions.training.steps import Stepper


def result_of(run: str, fold: int = 0) -> dict:
    return json.loads(at("oof", run, f"fold{fold}.json").read_text())


def same_bytes(run: str, other: Path) -> bool:
    files = ("fold0.csv", "given0.csv", "history0.csv")
    a, b = (load_file(folder / "fold0.safetensors") for folder in (at("oof", run), other))
    return (
        all(at("oof", run, name).read_bytes() == (other / name).read_bytes() for name in files)
        and a.keys() == b.keys()
        and all(torch.equal(a[name], b[name]) for name in a)
    )


def copied(trained: Path, name: str) -> Path:
    """oof/<name>: the tiny run under another name."""
    shutil.rmtree(at("oof", name), ignore_errors=True)
    return Path(shutil.copytree(trained, at("oof", name)))


def test_a_fold_leaves_one_row_an_image_and_says_what_made_it(trained):
    table, facts = load_table("demo")
    oof = pd.concat([pd.read_csv(path) for path in sorted(trained.glob("fold*.csv"))])
    expected = table.loc[table["split"] == "train", ["image_name", "fold", "target"]]
    found = oof.sort_values("image_name")[["image_name", "fold", "target"]]
    assert (found.to_numpy() == expected.sort_values("image_name").to_numpy()).all()
    assert oof["prob"].between(0, 1).all() and oof["prob"].nunique() > 0.9 * len(oof)
    result = result_of("tiny")
    assert result["table_hash"] == facts["table_hash"]
    assert result["fold_hash"] == facts["fold_hash"]
    assert result["processes"] == 1 and result["precision"] in ("no", "bf16")
    assert len(result["history"]) == 2 and result["images_per_second"] > 0
    assert set(result["auc_by_source"]) == {"isic2019", "isic2020"}
    assert result["best_auc"] >= result["last_auc"]
    # The checkpoint says how its photographs were prepared.
    model, header = load_model(trained / "fold1.safetensors")
    assert header["fold"] == 1 and header["config"]["model"]["backbone"] == "mobilenetv3_small_050"
    assert header["preprocess"] == facts["config"]["preprocess"]
    cache = json.loads(at("input/prepared/demo/32/cache.json").read_text())
    assert header["image_cache"]["sha256"] == cache["sha256"] and not model.training


def test_the_last_fold_calibrates_the_run_and_prints_its_scores(trained, capsys):
    folder = copied(trained, "last")
    for name in ("calibration.json", "fold2.json", "fold2.csv", "fold2.safetensors"):
        (folder / name).unlink()
    train([*tiny_run("last"), "--fold", "1"])
    assert not (folder / "calibration.json").exists()
    assert "isic2020" not in capsys.readouterr().out
    train([*tiny_run("last"), "--fold", "2"])
    assert json.loads((folder / "calibration.json").read_text())["rows"] == 90
    table = capsys.readouterr().out.split("images")[-1]
    assert "isic2019" in table and "isic2020" in table and table.count(" to ") == 6
    assert (folder / "training_curves.png").stat().st_size > 1000


def test_a_run_of_several_classes_takes_the_same_path_without_rows_of_no_class(several, capsys):
    train([*several_run(), "--fold", "2"])
    assert "macro AUC" in capsys.readouterr().out
    oof = load_oof("several")
    assert oof.task.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "scc", "vasc")
    np.testing.assert_allclose(oof.probs.sum(axis=1), 1, atol=1e-6)
    result = result_of("several")
    scores = [row["macro_f1"] for row in result["history"]]
    assert result["best_epoch"] == int(np.argmax(scores)) + 1
    assert (several / "calibration.json").exists()
    rows, table = pd.read_csv(several / "fold0.csv"), load_table("demo")[0]
    called = np.array(oof.task.classes)[rows.filter(like="prob_").to_numpy().argmax(axis=1)]
    assert result["accuracy"] == pytest.approx((called == rows["target"]).mean())
    known = (table["split"] == "train") & table["diagnosis"].isin(oof.task.classes)
    assert len(rows) == result["rows"] == ((table["fold"] == 0) & known).sum()
    assert ((table["fold"] == 0) & (table["diagnosis"] == "benign")).any()


def test_a_run_killed_again_and_again_ends_with_the_bytes_of_a_whole_one(trained, monkeypatch):
    """Killed within the first epoch, while it validates, and within the second."""

    def killed(*_):
        raise Killed

    arguments = [*tiny_run("killed", "train.save_steps=1"), "--fold", "0"]
    interrupted_run(arguments, 1, monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(FoldTrainer, "predict", killed)
        train(arguments)
    interrupted_run(arguments, 5, monkeypatch)
    assert not at("oof/killed/fold0.csv").exists()
    train(arguments)
    assert same_bytes("killed", trained)
    assert result_of("killed")["history"] == result_of("tiny")["history"]


def test_a_finished_fold_is_skipped_and_what_its_killed_runs_left_is_removed(trained, capsys):
    folder = copied(trained, "skipped")
    before = (folder / "fold0.safetensors").stat().st_mtime_ns
    names = ("state/fold0.previous.pt", "state/.fold0.pt.77.part", ".fold0.safetensors.77.part")
    left = [folder / name for name in names]
    other = folder / "state/.fold1.pt.77.part"  # another process is writing it
    for path in [*left, other]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    train([*tiny_run("skipped"), "--fold", "0"])
    assert (folder / "fold0.safetensors").stat().st_mtime_ns == before
    assert not any(path.exists() for path in left) and other.exists()
    said = capsys.readouterr().out  # of the config, what is not the default
    assert "image_size: 32" in said and "weight_decay" not in said


@pytest.mark.parametrize(
    "name, damage", [("fold0.csv", "changed"), ("fold0.safetensors", "missing")]
)
def test_a_fold_whose_files_do_not_agree_is_not_done(trained, name, damage, capsys):
    folder = copied(trained, "torn")
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    if damage == "missing":
        (folder / name).unlink()
    train([*tiny_run("torn"), "--fold", "0"])
    said = capsys.readouterr().out
    assert f"{name} " in said and damage in said and "trained again" in said
    assert same_bytes("torn", trained)


def test_a_fold_of_an_older_version_counts_as_done_with_one_warning(trained, capsys):
    folder = copied(trained, "older")
    result = {key: value for key, value in result_of("older").items()
              if key not in ("sha256", "image_cache")}  # fmt: skip
    (folder / "fold0.json").write_text(json.dumps(result))
    train([*tiny_run("older"), "--fold", "0"])
    assert capsys.readouterr().out.count("WARNING") == 1
    assert "sha256" not in result_of("older")


def test_pixels_that_changed_are_refused_within_a_fold_and_between_folds(trained, monkeypatch):
    arguments = [*tiny_run("pixels", "train.save_steps=1"), "--fold", "0"]
    interrupted_run(arguments, 2, monkeypatch)
    folder = copied(trained, "pixels2")
    for path in folder.glob("fold1.*"):
        path.unlink()
    cache = at("input/prepared/demo/32")
    shutil.copytree(cache, cache.with_name("kept"))
    try:
        images = np.load(cache / "images.npy", mmap_mode="r+")
        images[0] ^= 1
        images.flush()
        with pytest.raises(InputError, match=r"images\.npy is damaged"):
            train(arguments)
        facts = json.loads((cache / "cache.json").read_text())
        facts["sha256"] = sha256(cache / "images.npy")  # as after another prepare.py
        (cache / "cache.json").write_text(json.dumps(facts))
        with pytest.raises(InputError, match=r"fold0\.pt.*image_cache\.sha256: .* -> "):
            train(arguments)
        with pytest.raises(InputError, match=r"image_cache\.sha256: .* -> (.|\n)*--name"):
            train([*tiny_run("pixels2"), "--fold", "1"])
    finally:
        shutil.rmtree(cache)
        cache.with_name("kept").rename(cache)


@pytest.mark.parametrize(
    "run, change, fold, message",
    [
        *(
            (name, "seed=1", "0", "--name.*give a name below oof/")
            for name in ("../out", "/tmp/out", ".", "a/../../b")
        ),
        ("nofold", "seed=1", "7", "--fold 7"),
        ("nofold", "seed=1", "first", "--fold first"),
        ("nofold", "seed=1", "²", "--fold ²"),
        ("tiny", "train.lr=0.5", "0", "other settings(.|\n)*--name"),
        ("nocache", "data.image_size=48", "0", r"prepare\.py --dataset demo --size 48"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_cure(trained, run, change, fold, message):
    with pytest.raises(InputError, match=message):
        train([*tiny_run(run, change), "--fold", fold])


def test_audit_and_train_warn_of_folds_that_teach_or_score_nothing(demo, capsys):
    """Fold 1 is a single group and holds all positives; fold 2 is a quarter of it."""
    table = load_table("demo")[0]
    assert fold_warnings(table) == []
    few = table.index[table["fold"] == 2][7:]
    table = table.drop(few).reset_index(drop=True)
    one = table["fold"] == 1
    table.loc[one, "group"] = table.loc[one, "image_name"].iloc[0]
    table.loc[~one & (table["fold"] >= 0), "target"] = 0
    save_table("lopsided", table, load_dataset_config("demo"))
    audit(["--dataset", "lopsided"])
    told = capsys.readouterr().out
    with pytest.raises(InputError, match=r"prepare\.py"):
        train([*tiny_run("lopsided", "dataset=lopsided"), "--fold", "0"])
    for said in (told, capsys.readouterr().out):
        assert "fold 1 has no positive in its" in said
        assert "fold 2 has no positive in its 7 validation rows" in said
        assert "training rows of fold 0: the model learns one patient" in said
    shutil.rmtree(at("input/prepared/lopsided"))


def test_patience_stops_a_run_and_keep_best_keeps_its_best_epoch(demo, monkeypatch):
    falling = chain([0.9, 0.8, 0.7, 0.6, 0.5], repeat(0.4))
    scores, predict, seen = steps.epoch_scores, FoldTrainer.predict, []

    def watched(self, *arguments):
        kept = self.stepper.averaged.state_dict()
        seen.append({name: tensor.clone() for name, tensor in kept.items()})
        return predict(self, *arguments)

    monkeypatch.setattr(FoldTrainer, "predict", watched)
    monkeypatch.setattr(
        "lesions.training.loop.epoch_scores", lambda *a: scores(*a) | {"auc": next(falling)}
    )
    train([*tiny_run("patient", "train.patience=2", "train.epochs=5", "train.keep=best"),
           "--fold", "0"])  # fmt: skip
    result = result_of("patient")
    assert len(result["history"]) == 3 and result["best_epoch"] == 1
    kept = load_file(at("oof/patient/fold0.safetensors"))
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[0].items())


def test_deterministic_kernels_are_on_in_the_runs_that_ask_for_them(trained, monkeypatch):
    """Compiled as well, with eager kernels behind it: names and bytes in the checkpoint stay."""
    seen = []
    step = Stepper.step

    def watched(self, *arguments):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *arguments)

    monkeypatch.setattr(Stepper, "step", watched)
    with torch.compiler.set_stance("force_eager"):
        changes = ("train.deterministic=true", "train.compile=true")
        train([*tiny_run("same", *changes), "--fold", "0"])
    train([*tiny_run("tiny"), "--fold", "0"])
    assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()
    assert same_bytes("same", trained)
