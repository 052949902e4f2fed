"""Every family of backbones through a whole run: trained, killed, resumed, out of fold, on test."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_run
from predict import main as predict
from test_families import FAMILIES
from train import main as train

from lesions.data.table import load_table
from lesions.paths import at
from lesions.training import steps

TWINS = ("efficientnet_b1", "vit_mean", "cnn_shallow")  # of another one's kind


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it."""


def run_of(family: str, name: str) -> list[str]:
    tag, arguments, layer = FAMILIES[family]
    stages = f"train.stages=[{{epochs: 1, trainable: {layer}}}]"
    return [
        *tiny_run(
            name, f"model.backbone={tag}", "model.pretrained=false",
            f"model.backbone_args={json.dumps(arguments)}", "model.pretrained_cfg={}",
            "model.fusion=gate", "data.task=diagnosis8", "loss.kind=focal", "train.save_steps=1",
            "train.batch_size=16",
            "train.micro_batch=16", "train.epochs=1", "train.optimizer=sgd", "train.ema_decay=0",
            stages,
        ),
        "--fold", "0",
    ]  # fmt: skip


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in TWINS])
def test_a_family_trains_resumes_to_the_same_bytes_and_predicts(
    family: str, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "resumed"):
        shutil.rmtree(at("oof") / name, ignore_errors=True)
    train(run_of(family, "whole"))
    step = steps.Stepper.step

    def stopped(self, *arguments):
        if self.progress.step == 1:
            raise Killed
        return step(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(steps.Stepper, "step", stopped)
        train(run_of(family, "resumed"))
    train(run_of(family, "resumed"))
    one, two = ((at("oof") / name / "fold0.csv").read_bytes() for name in ("whole", "resumed"))
    assert one == two

    predict(["--run", "resumed", "--folds", "0"])
    told = pd.read_csv(at("submissions") / "resumed.csv")
    assert len(told) == (load_table("demo")[0]["split"] == "test").sum()
    np.testing.assert_allclose(told.filter(like="prob_").sum(axis=1), 1, atol=1e-6)
