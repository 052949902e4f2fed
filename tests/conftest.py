"""Everything the tests write goes to a folder of its own, with a space in its name."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

# Before anything asks lesions.paths.
ROOT = Path(tempfile.mkdtemp(prefix="lesions tests "))
os.environ["LESIONS_ROOT"] = str(ROOT)
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from calibrate import main as calibrate  # noqa: E402
from PIL import Image  # noqa: E402
from prepare import main as prepare  # noqa: E402
from train import main as train  # noqa: E402

from lesions.data.sample import write_sample  # noqa: E402
from lesions.paths import at  # noqa: E402

pytest_plugins = ["kaggle_fake"]
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY = [
    "train.epochs=2", "train.batch_size=16", "train.micro_batch=8", "train.workers=0",
    "data.image_size=32",
]  # fmt: skip


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real") and not REAL.is_dir():
        pytest.skip("the real data (../shared/data) are not here")


def pytest_unconfigure() -> None:
    shutil.rmtree(ROOT, ignore_errors=True)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty root of the test's own."""
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def demo() -> Path:
    """A prepared data set `demo` of 90 drawn images at 32 pixels, in three folds; its folder."""
    write_sample(at("input/sample"), images=90)
    prepare(["--dataset", "demo", "--size", "32"])
    return at("input/prepared/demo")


@pytest.fixture(scope="session")
def trained(demo: Path) -> Path:
    """oof/tiny: all three folds of a tiny run on `demo`."""
    train([*tiny_run("tiny"), "--fold", "all"])
    return at("oof/tiny")


@pytest.fixture(scope="session")
def calibrated(trained: Path) -> Path:
    """oof/calibrated: the tiny run with its calibration.json."""
    shutil.copytree(trained, trained.parent / "calibrated")
    calibrate(["--run", "calibrated", "--rows", "30"])
    return trained.parent / "calibrated"


@pytest.fixture(scope="session")
def several(demo: Path) -> Path:
    """oof/several: all three folds of a tiny run that tells eight diagnoses apart."""
    train([*several_run(), "--fold", "all"])
    return at("oof/several")


@pytest.fixture
def quick(monkeypatch) -> None:
    """Figures without their lines, for tests of words: drawing is most of a report's time."""
    from lesions.reporting import style

    monkeypatch.setattr(style, "svg", lambda figure, name: f"<svg data-name='{name}'></svg>")
    monkeypatch.setattr(style, "write_png", lambda figure, path: None)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (96, 72)) -> Path:
    """A small photograph of smooth noise at `path`, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size).save(path)
    return path


def several_run() -> list[str]:
    """Arguments of scripts/train.py for the run of `several`."""
    return tiny_run("several", "data.task=diagnosis8", "loss.kind=cross_entropy",
                    "train.mixup=0.2", "train.monitor=macro_f1", "train.keep=best")  # fmt: skip


def tiny_run(name: str, *changes: str) -> list[str]:
    """Arguments of scripts/train.py for a run of seconds."""
    arguments = ["--config", "configs/demo/mobilenetv3.yaml", "--name", name]
    for change in [*TINY, *changes]:
        arguments += ["--set", change]
    return arguments


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it."""


def interrupted_run(arguments: list[str], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run scripts/train.py and kill it before its step number `step` (from 0)."""
    from lesions.training.steps import Stepper

    make_step = Stepper.step

    def step_or_die(self: Stepper, *given: Any) -> None:
        if self.progress.step == step:
            raise Killed
        make_step(self, *given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Stepper, "step", step_or_die)
        train(arguments)
