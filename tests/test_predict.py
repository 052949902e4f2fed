"""Predictions: views, folds, the submission, and the same result on two processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_run
from predict import main as predict

from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.inference.views import views_of
from lesions.paths import CODE, at


def test_views_are_all_different_and_the_first_is_the_image() -> None:
    image = torch.randint(0, 256, (1, 8, 8, 3))
    for count in (1, 4, 8):
        views = views_of(image, count)
        assert len({view.numpy().tobytes() for view in views}) == count
        assert torch.equal(views[0], image)


def test_the_submission_has_every_test_row_in_order(trained: Path) -> None:
    predict(["--run", "tiny"])
    submission = pd.read_csv(at("submissions") / "tiny.csv")
    table, _ = load_table("demo")
    test = table.loc[table["split"] == "test", "image_name"]
    assert list(submission.columns) == ["image_name", "target"]
    assert submission["image_name"].tolist() == test.tolist()
    assert submission["target"].between(0, 1).all()


def test_folds_are_averaged_by_image(trained: Path) -> None:
    parts = []
    for fold in "012":
        predict(["--run", "tiny", "--folds", fold])
        parts.append(pd.read_csv(at("submissions") / "tiny.csv")["target"].to_numpy())
    predict(["--run", "tiny"])
    whole = pd.read_csv(at("submissions") / "tiny.csv")["target"].to_numpy()
    np.testing.assert_allclose(whole, np.mean(parts, axis=0), atol=1e-12)
    assert not np.allclose(parts[0], parts[1])


def test_an_untrained_fold_is_named_with_the_command(trained: Path) -> None:
    with pytest.raises(InputError, match=r"fold2\.safetensors(.|\n)*scripts/train\.py"):
        shutil.copytree(trained, at("oof") / "partly", dirs_exist_ok=True)
        (at("oof") / "partly" / "fold2.safetensors").unlink()
        predict(["--run", "partly"])


def test_a_checkpoint_of_another_model_is_refused(trained: Path) -> None:
    shutil.copytree(trained, at("oof") / "swapped", dirs_exist_ok=True)
    config = at("oof") / "swapped" / "config.yaml"
    config.write_text(config.read_text().replace("mobilenetv3_small_050", "resnet10t"))
    with pytest.raises(InputError, match="another model than config.yaml(.|\n)*resnet10t"):
        predict(["--run", "swapped"])


def test_an_unreadable_test_photograph_still_gets_a_row(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lesions.inference import submit

    table, facts = load_table("demo")
    row = np.flatnonzero(table["split"] == "test")[3]
    table.loc[row, ["width", "height"]] = 0
    monkeypatch.setattr(submit, "load_table", lambda _: (table, facts))
    predict(["--run", "tiny"])
    submission = pd.read_csv(at("submissions") / "tiny.csv").set_index("image_name")["target"]
    name = table.loc[row, "image_name"]
    assert submission[name] == pytest.approx(submission.drop(name).mean())


def run_script(processes: int, *arguments: str) -> None:
    """Run a script on the CPU in a process of its own, or in connected gloo processes."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        launch += ["--"]
    done = subprocess.run(
        [*launch, *arguments], cwd=CODE, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_predict_as_one_does(trained: Path) -> None:
    shutil.copytree(trained, at("oof") / "exact", dirs_exist_ok=True)
    config = at("oof") / "exact" / "config.yaml"
    config.write_text(config.read_text().replace("precision: auto", "precision: fp32"))
    run_script(1, "scripts/predict.py", "--run", "exact")
    one = pd.read_csv(at("submissions") / "exact.csv")
    (at("submissions") / "exact.csv").unlink()
    run_script(2, "scripts/predict.py", "--run", "exact")
    two = pd.read_csv(at("submissions") / "exact.csv")
    assert two["image_name"].tolist() == one["image_name"].tolist()
    np.testing.assert_allclose(two["target"], one["target"], atol=1e-6)


def test_two_processes_train_a_fold_with_every_row_once(trained: Path) -> None:
    run_script(2, "scripts/train.py", *tiny_run("two"), "--fold", "0")
    oof, expected = (pd.read_csv(at("oof") / run / "fold0.csv") for run in ("two", "tiny"))
    assert oof["image_name"].tolist() == expected["image_name"].tolist()
    assert oof["prob"].between(0, 1).all()


def test_unconnected_processes_are_refused(demo: Path) -> None:
    environment = os.environ | {"WORLD_SIZE": "2"}
    command = [sys.executable, "scripts/train.py", *tiny_run("alone"), "--fold", "0"]
    done = subprocess.run(command, cwd=CODE, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "are not connected" in done.stderr
