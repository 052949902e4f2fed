"""A run that is stopped, killed, out of disk or given bad data loses nothing and says why."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from conftest import interrupted_run, tiny_run
from survival import kill_points
from torch.utils.data import get_worker_info
from train import main as train

from lesions.config import Config, load_config
from lesions.data.loading import LesionDataset, build_loader, watched
from lesions.errors import InputError
from lesions.inference import accelerator
from lesions.paths import at
from lesions.training import loss, steps
from lesions.training.state import KEYS, load_state, previous, save_state
from lesions.training.stop import RESUME, StopRequest

HASHES = {"table": "a", "folds": "b"}


def config(**changes: object) -> Config:
    return load_config("demo/mobilenetv3", [f"{key}={value}" for key, value in changes.items()])


def state(step: int) -> dict:
    return dict.fromkeys(KEYS) | {"config": config().model_dump(), "hashes": HASHES, "step": step,
                                  "weights": torch.arange(100.0) + step}  # fmt: skip


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "state" / "fold0.pt"
    for step in (1, 2):
        save_state(path, state(step))
    return path


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_state_is_named_and_the_one_before_it_used(saved, damage):
    content = bytearray(saved.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    saved.write_bytes(content[: {"cut": -50, "flipped": None, "empty": 0}[damage]])
    said: list[str] = []
    found = load_state(saved, config(), HASHES, said.append)
    assert found and found["step"] == 1
    assert "fold0.pt: damaged" in said[0] and "fold0.previous.pt" in said[0]


def test_a_kill_between_the_two_renames_loses_one_save_and_two_damaged_states_are_refused(saved):
    saved.rename(previous(saved))
    found = load_state(saved, config(), HASHES)
    assert found and found["step"] == 2
    for path in (saved, previous(saved)):
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"fold0\.pt: damaged(.|\n)*fold0\.previous\.pt: damaged"):
        load_state(saved, config(), HASHES)


WRONG = {
    "list": [1],
    "path": Path("x"),
    "no config": {"hashes": HASHES},
    "no weights": {"config": config().model_dump(), "hashes": HASHES},
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_sealed_state_of_a_wrong_shape_is_refused(tmp_path, content):
    save_state(tmp_path / "fold0.pt", content)
    with pytest.raises(InputError, match=r"fold0\.pt: not a state of this version: delete"):
        load_state(tmp_path / "fold0.pt", config(), HASHES)


def test_another_config_or_table_is_refused_with_the_difference(saved):
    with pytest.raises(InputError, match=r"train\.lr: 0\.002 -> 0\.5"):
        load_state(saved, config(**{"train.lr": 0.5}), HASHES)
    with pytest.raises(InputError, match="folds: b -> c"):
        load_state(saved, config(), HASHES | {"folds": "c"})
    assert load_state(saved, config(), HASHES | {"images": "unknown to an older version"})
    # Workers may change, and a key be new.
    old = state(3)
    del old["config"]["train"]["tracker"]
    save_state(saved, old)
    assert load_state(saved, config(**{"train.workers": 7, "train.save_minutes": 1}), HASHES)


def test_a_full_disk_is_said_with_the_bytes_and_the_old_states_stay(saved):
    before = {path: path.read_bytes() for path in saved.parent.iterdir()}
    part = saved.with_name(f".{saved.name}.{os.getpid()}.part")
    part.symlink_to("/dev/full")  # the system's own full disk
    with pytest.raises(InputError, match=r"fold0\.pt: .*No space left.* saving takes [1-9]"):
        save_state(saved, state(3))
    assert {path: path.read_bytes() for path in saved.parent.iterdir()} == before


@pytest.mark.parametrize("before, scaler", [("bf16", True), ("no", False)])
def test_a_run_resumes_in_another_precision_and_says_so(demo, before, scaler, monkeypatch, capsys):
    """fp16 needs a loss scale, which a state of bf16 lacks; a CPU's scaler stands for it."""
    name, after = f"moved_from_{before}", {"bf16": "no", "no": "bf16"}[before]
    build = accelerator.build_accelerator

    def scaled(*arguments):
        built = build(*arguments)
        built.scaler = torch.amp.GradScaler("cpu") if scaler else None
        return built

    arguments = [*tiny_run(name, "train.save_steps=1"), "--fold", "0"]
    monkeypatch.setattr(accelerator, "mixed_precision", lambda _: before)
    interrupted_run(arguments, 3, monkeypatch)
    monkeypatch.setattr(accelerator, "mixed_precision", lambda _: after)
    monkeypatch.setattr(accelerator, "build_accelerator", scaled)
    assert train(arguments) == 0
    assert f"computes in {after}, the steps so far were made in {before}" in capsys.readouterr().out
    assert json.loads(at("oof", name, "fold0.json").read_text())["precision"] == after


def test_a_signal_or_the_end_of_the_hours_saves_the_step(trained, monkeypatch, capsys):
    arguments, folder = [*tiny_run("stopped"), "--fold", "0"], at("oof/stopped")

    def saved_step() -> int:
        return torch.load(folder / "state/fold0.pt", weights_only=True)["progress"]["step"]

    for step in (1, 2):  # a step each time, so that every session gets on
        assert train([*arguments, "--max-hours", "1e-9"]) == RESUME
        assert "resume me" in capsys.readouterr().out and saved_step() == step
    for count, number, code in ((4, signal.SIGTERM, 143), (5, signal.SIGINT, 130)):
        before = signal.getsignal(number)
        with monkeypatch.context() as patch:
            after_steps(patch, count, partial(os.kill, os.getpid(), number))
            assert train(arguments) == code
        assert signal.getsignal(number) is before and saved_step() == count
    assert train(arguments) == 0
    assert (folder / "fold0.csv").read_bytes() == (trained / "fold0.csv").read_bytes()
    lines = (folder / "metrics0.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    resumed = ["started", "resumed"]
    within = ["stopped", *resumed]
    assert events == ["started", *within, *within, "epoch", *within, *within, "epoch"]


def after_steps(patch: pytest.MonkeyPatch, count: int, act) -> None:
    """Call `act` within the training step number `count`."""
    step = steps.Stepper.step

    def counted(self, *arguments):
        if self.progress.step + 1 == count:
            act()
        return step(self, *arguments)

    patch.setattr(steps.Stepper, "step", counted)


def test_a_second_signal_ends_the_process_at_once():
    child = os.fork()
    if not child:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.code(0) == 143
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def test_a_worker_that_inherits_the_handler_leaves_the_request_to_its_parent():
    stop = StopRequest()
    with stop.listening():
        child = os.fork()
        if not child:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            os._exit(stop.signal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_hours_end_with_room_for_what_comes_next():
    stop = StopRequest(max_hours=1, begun=time.monotonic() - 3000)
    assert stop.code(needed=500) == 0  # 540 s are left of an hour less a minute
    assert stop.code(needed=560) == RESUME
    assert StopRequest().code(needed=1e9) == 0


def test_one_process_asked_to_stop_stops_all(monkeypatch):
    """A gather of this process's code and another's, who was asked, stands for two processes."""
    accelerator, others = Accelerator(cpu=True), torch.tensor([143])
    monkeypatch.setattr(accelerator, "gather", lambda mine: torch.cat([mine, others]))
    assert StopRequest().agreed(0, accelerator) == 143
    others[0] = 0
    assert StopRequest().agreed(0, accelerator) == 0


def test_one_bad_step_is_skipped_and_leaves_no_trace_in_the_network(demo, monkeypatch):
    """A photograph of NaN spoils batch statistics too, without any optimiser step."""
    to_loss = steps.Stepper._loss

    def spoil(self, batch, seed):
        if self.progress.step == 1:
            batch = batch | {"image": batch["image"] * float("nan")}
        return to_loss(self, batch, seed)

    monkeypatch.setattr(steps.Stepper, "_loss", spoil)
    train([*tiny_run("spoilt"), "--fold", "0"])
    assert json.loads(at("oof/spoilt/fold0.json").read_text())["auc"] is not None
    assert pd.read_csv(at("oof/spoilt/fold0.csv"))["prob"].nunique() > 9
    last = json.loads((at("oof/spoilt") / "metrics0.jsonl").read_text().splitlines()[-1])
    assert last["skipped"] == 1


def test_a_row_of_bad_steps_names_images_and_overwrites_no_state(demo, monkeypatch):
    monkeypatch.setattr(steps, "MOST_BAD_STEPS", 3)
    right = loss.smoothed_bce
    calls = 0

    def failing(logit, *others):
        nonlocal calls
        calls += 1
        return right(logit, *others) * (float("nan") if calls > 2 else 1)  # two a step

    monkeypatch.setattr(loss, "smoothed_bce", failing)
    with pytest.raises(InputError, match="3 steps in a row(.|\n)*ISIC_[0-9]+"):
        train([*tiny_run("nans", "train.save_steps=1", "train.epochs=3"), "--fold", "0"])
    saved = torch.load(at("oof") / "nans/state/fold0.pt", weights_only=True)
    assert saved["progress"]["step"] == 1 and not (at("oof") / "nans/fold0.json").exists()


class Faulty(LesionDataset):
    """Row 5 kills or blocks the worker that loads it."""

    fault = "die"

    def __getitems__(self, items):
        if items[0][1] == 5 and (worker := get_worker_info()):
            self.at[worker.id] = 5
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return super().__getitems__(items)


@pytest.mark.parametrize("fault", ["die", "hang"])
def test_a_worker_that_dies_or_hangs_ends_the_run_and_names_the_image(fault, monkeypatch):
    monkeypatch.setattr("lesions.data.loading.TIMEOUT", 2)
    zeros = np.zeros(8, np.float32)
    images = np.zeros((8, 4, 4, 3), np.uint8)
    dataset = Faulty(images, zeros[:, None], zeros, names=[f"ISIC_{row}" for row in range(8)])
    dataset.fault = fault
    loader = build_loader(dataset, [[(0, row)] for row in range(8)], workers=1)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"died or hung .* at ISIC_5:"), watched(loader):
        list(loader)
    assert time.monotonic() - begun < 30


def test_workers_outlive_a_signal_to_the_whole_group():
    """SLURM and Ctrl-C send it to every process; the main one needs its workers to finish."""
    zeros = np.zeros(40, np.float32)
    dataset = LesionDataset(np.zeros((40, 4, 4, 3), np.uint8), zeros[:, None], zeros)
    loader = build_loader(dataset, [[(0, row)] for row in range(40)], workers=1)
    batches = iter(loader)
    next(batches)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(batches._workers[0].pid, number)
    assert len(list(batches)) == 39


@pytest.mark.slow
def test_a_run_killed_for_real_ends_with_the_same_bytes(demo):
    outcome = kill_points(points=2, two_processes=1, seed=1)
    assert outcome["identical"] == 2, outcome
