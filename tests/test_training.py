"""The fold loop: exact resume, honest bookkeeping, refusals, and the loss and schedule it uses."""

import json
import shutil
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_run
from safetensors.torch import load_file, save_file
from train import main as train

from lesions.config import LossConfig
from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.inference.checkpoint import load_model
from lesions.paths import at
from lesions.training import log, loss
from lesions.training import steps as steps_module
from lesions.training.loop import FoldTrainer
from lesions.training.loss import pos_weight, smoothed_bce
from lesions.training.schedule import lr_factor
from lesions.training.state import locked
from lesions.training.steps import Stepper


def test_a_fold_leaves_one_row_an_image_and_says_what_made_it(trained: Path) -> None:
    table, facts = load_table("demo")
    oof = pd.concat([pd.read_csv(path) for path in sorted(trained.glob("fold*.csv"))])
    expected = table.loc[table["split"] == "train", ["image_name", "fold", "target"]]
    found = oof.sort_values("image_name")[["image_name", "fold", "target"]]
    assert (found.to_numpy() == expected.sort_values("image_name").to_numpy()).all()
    assert oof["prob"].between(0, 1).all() and oof["prob"].nunique() > 0.9 * len(oof)
    result = json.loads((trained / "fold0.json").read_text())
    assert result["table_hash"] == facts["table_hash"]
    assert result["fold_hash"] == facts["fold_hash"]
    assert len(result["history"]) == 2 and result["images_per_second"] > 0
    assert set(result["auc_by_source"]) == {"isic2019", "isic2020"}
    assert result["best_auc"] >= result["last_auc"]


def test_a_finished_fold_is_not_trained_again(trained: Path) -> None:
    before = (trained / "fold0.safetensors").stat().st_mtime_ns
    train([*tiny_run("tiny"), "--fold", "0"])
    assert (trained / "fold0.safetensors").stat().st_mtime_ns == before


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it."""


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(
    trained: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"killed{at}"
    shutil.rmtree(at("oof") / name, ignore_errors=True)
    steps = 0
    step = steps_module.Stepper.step

    def count(self, *arguments):
        nonlocal steps
        if steps == at:
            raise Killed
        steps += 1
        return step(self, *arguments)

    saving = ("train.save_steps=1",)
    with monkeypatch.context() as patch:
        patch.setattr(steps_module.Stepper, "step", count)
        with pytest.raises(Killed):
            train([*tiny_run(name, *saving), "--fold", "0"])
    assert not (at("oof") / name / "fold0.csv").exists()
    train([*tiny_run(name, *saving), "--fold", "0"])
    assert (at("oof") / name / "fold0.csv").read_bytes() == (trained / "fold0.csv").read_bytes()
    a, b = (load_file(folder / "fold0.safetensors") for folder in (at("oof") / name, trained))
    assert all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()
    histories = [json.loads((folder / "fold0.json").read_text())["history"]
                 for folder in (at("oof") / name, trained)]  # fmt: skip
    assert histories[0] == histories[1]


def test_a_run_killed_while_it_validates_still_has_that_epoch_in_its_history(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_):
        raise Killed

    arguments = [*tiny_run("unvalidated", "train.save_steps=1"), "--fold", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(FoldTrainer, "_validate", killed)
        with pytest.raises(Killed):
            train(arguments)
    train(arguments)
    for name in ("fold0.csv", "history0.csv"):
        assert (at("oof") / "unvalidated" / name).read_bytes() == (trained / name).read_bytes()


def test_accumulated_micro_batches_make_the_gradient_of_the_whole_batch() -> None:
    """Dropout and batch statistics differ by micro-batch, so the loss alone is compared."""
    logit, target = torch.randn(8), torch.tensor([0.0, 1] * 4)
    whole = smoothed_bce(logit, target, 0.05, 3.0)
    parts = [smoothed_bce(logit[i : i + 2], target[i : i + 2], 0.05, 3.0) / 4 for i in (0, 2, 4, 6)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_targets_are_smoothed_before_positives_are_weighted() -> None:
    """By hand: with s = 0.05 a sure negative settles at odds 10.45 * 0.025 / 0.975, p = 0.211."""
    logit = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([logit], max_iter=100)

    def closure():
        optimiser.zero_grad()
        loss = smoothed_bce(logit, torch.zeros(1), 0.05, 10.45)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert logit.sigmoid().item() == pytest.approx(0.2113, abs=1e-3)


def test_the_positive_weight_of_the_full_merge_is_10_45() -> None:
    target = np.r_[np.ones(5_106), np.zeros(58_457 - 5_106)]
    assert pos_weight(LossConfig(), target) == pytest.approx(10.45, abs=5e-3)
    assert pos_weight(LossConfig(pos_weight=2.0), target) == 2.0


def test_the_learning_rate_warms_up_then_falls_to_zero_as_a_cosine() -> None:
    factors = [lr_factor(step, steps=100, warmup=10) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10] == 1 and factors[55] == pytest.approx(0.5) and factors[99] < 1e-3
    assert all(np.diff(factors[10:]) < 0)


@pytest.mark.parametrize("fold", ["7", "first"])
def test_a_fold_that_does_not_exist_is_refused(demo: Path, fold: str) -> None:
    with pytest.raises(InputError, match=f"--fold {fold}"):
        train([*tiny_run("nofold"), "--fold", fold])


def test_another_config_under_the_same_name_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="other settings(.|\n)*--name"):
        train([*tiny_run("tiny", "train.lr=0.5"), "--fold", "0"])


def test_a_missing_cache_size_names_the_command(demo: Path) -> None:
    with pytest.raises(InputError, match=r"prepare\.py --dataset demo --size 48"):
        train([*tiny_run("nocache", "data.image_size=48"), "--fold", "0"])


def test_a_second_run_at_the_same_fold_is_refused_and_names_the_first(demo: Path) -> None:
    with locked(at("oof") / "busy" / ".fold0.lock"), pytest.raises(InputError, match="process [0-9]+ on"):
        train([*tiny_run("busy"), "--fold", "0"])


def test_steps_without_a_finite_loss_end_the_run_and_keep_the_saved_state(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "MOST_BAD_STEPS", 2)
    monkeypatch.setattr(loss, "smoothed_bce", lambda logit, *_: logit.sum() * float("nan"))
    with pytest.raises(InputError, match="without a finite loss, the last one on ISIC_"):
        train([*tiny_run("nan"), "--fold", "0"])
    assert not (at("oof") / "nan" / "fold0.json").exists()


def test_keep_best_keeps_the_weights_of_the_best_epoch(demo: Path) -> None:
    train([*tiny_run("best", "train.keep=best", "train.epochs=3"), "--fold", "0"])
    result = json.loads((at("oof") / "best" / "fold0.json").read_text())
    aucs = [row["auc"] for row in result["history"]]
    assert result["best_epoch"] == int(np.argmax(aucs)) + 1 and result["best_auc"] == max(aucs)


def test_patience_stops_a_run_that_no_longer_improves(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = chain([0.9, 0.8, 0.7, 0.6, 0.5], repeat(0.4))
    monkeypatch.setattr(log, "roc_auc", lambda *_: next(falling))
    train([*tiny_run("patient", "train.patience=2", "train.epochs=5"), "--fold", "0"])
    result = json.loads((at("oof") / "patient" / "fold0.json").read_text())
    assert len(result["history"]) == 3 and result["best_epoch"] == 1


def test_a_checkpoint_of_another_model_or_task_or_none_is_refused(
    trained: Path, tmp_path: Path
) -> None:
    path = trained / "fold0.safetensors"
    with pytest.raises(InputError, match="trained for melanoma, not for diagnosis7"):
        load_model(path, task="diagnosis7")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path / "cut.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(InputError, match="not a checkpoint of this repository"):
        load_model(foreign)


def test_a_checkpoint_describes_itself(trained: Path) -> None:
    model, header = load_model(trained / "fold1.safetensors", task="melanoma")
    assert header["fold"] == 1 and header["config"]["model"]["backbone"] == "mobilenetv3_small_050"
    assert header["fold_hash"] == load_table("demo")[1]["fold_hash"] and not model.training


def test_deterministic_kernels_are_on_while_training_alone(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = Stepper.step

    def watched(self, *arguments):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *arguments)

    monkeypatch.setattr(Stepper, "step", watched)
    train([*tiny_run("same", "train.deterministic=true"), "--fold", "0"])
    assert seen and all(seen) and not torch.are_deterministic_algorithms_enabled()
    assert (at("oof") / "same" / "fold0.csv").read_bytes() == (trained / "fold0.csv").read_bytes()


def test_the_resolved_config_is_told_at_the_start(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train([*tiny_run("tiny"), "--fold", "0"])
    assert "image_size: 32" in capsys.readouterr().out
