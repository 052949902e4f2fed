"""The notebooks, run to their ends in folders laid out as Kaggle lays them out."""

import itertools
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import pytest
from conftest import REAL
from kaggle_push import main as kaggle_push
from kernel_driver import ISOLATED, Outcome, kernel_session
from nbclient import NotebookClient

from lesions.data.sample import write_sample
from lesions.files import read_csv, read_json, sha256, write_json
from lesions.kaggle.kernels import SEAL, build_notebook, write_set
from lesions.kaggle.session import Inputs
from lesions.paths import CODE

TAG = "mobilenetv3_small_050.lamb_in1k"
CONFIG = f"""\
dataset: tiny
data: {{image_size: 32}}
model: {{backbone: {TAG}}}
train: {{epochs: 2, batch_size: 16, micro_batch: 8, lr: 1e-3, workers: 0, ema_decay: 0.9}}
predict: {{views: 1}}
"""
DATASET = """\
sources:
  isic2019: {folder: input/isic2019}
  isic2020: {folder: input/isic2020}
folds: 2
"""
VALUES: dict[str, dict[str, Any]] = {
    "prepare": {"dataset": "tiny", "sizes": [32]},
    "train": {"run": "tiny", "folds": None, "max_hours": 1.0},
    "predict": {"run": "tiny"},
    "blend": {"title": "tiny, other", "runs": ["tiny", "other"]},
    "check": {},
}
Mounts = dict[str, Path]


class World:
    """Code, originals and weights as data sets on Kaggle; sessions that get some of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.sessions = root, 0
        write_set(root / "lesions-code", None)
        (root / "lesions-code/configs/tiny.yaml").write_text(CONFIG)
        (root / "lesions-code/configs/datasets/tiny.yaml").write_text(DATASET)
        self.expected = {"lesions-code": read_json(root / "lesions-code" / SEAL)["hash"]}
        write_sample(root / "sample", images=60)
        (root / "weights/backbones").mkdir(parents=True)
        import safetensors.torch
        import timm

        weights = timm.create_model(TAG, pretrained=False).state_dict()
        safetensors.torch.save_file(weights, root / f"weights/backbones/{TAG}.safetensors")
        # Names that nobody could guess, at the depths that Kaggle has used.
        self.code = {"datasets/somebody/my-copy-of-it": root / "lesions-code"}
        self.weights = {"a-data-set": root / "weights"}
        self.competition = {"competitions/siim": root / "sample/isic2020"}
        self.originals = self.competition | {"mirror-of-2019/data": root / "sample/isic2019"}

    def run(self, notebook: str, *mounts: Mounts) -> Outcome:
        self.sessions += 1
        together = {name: folder for part in mounts for name, folder in part.items()}
        return kernel_session(self.root / f"session {self.sessions}", notebook, together)

    def kernel(self, kind: str, *mounts: Mounts, **values: Any) -> Outcome:
        notebook = build_notebook(kind, expected=self.expected, **(VALUES[kind] | values))
        return self.run(notebook, self.code, self.weights, *mounts)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("kaggle"))


@pytest.fixture(scope="module")
def prepared(world: World) -> Mounts:
    """The mount that the output of the prepare notebook makes."""
    outcome = world.kernel("prepare", world.originals)
    assert not outcome.failed, outcome.text
    return {"notebooks/tester/lesions-prepare-tiny": outcome.output}


@pytest.fixture(scope="module")
def whole(world: World, prepared: Mounts) -> Outcome:
    """Both folds trained in one session."""
    return world.kernel("train", prepared)


def test_prepare_leaves_the_data_set_and_nothing_else(prepared: Mounts) -> None:
    output = next(iter(prepared.values()))
    assert [path.name for path in output.iterdir()] == ["prepared"]
    assert read_json(output / "prepared/tiny/table.json")["rows"] > 60
    assert (output / "prepared/tiny/32/cache.json").exists()


def test_all_folds_are_trained_in_one_session(world: World, whole: Outcome) -> None:
    assert not whole.failed, whole.text
    assert "tiny: done" in whole.text
    run = whole.output / "oof/tiny"
    for fold in (0, 1):
        assert read_json(run / f"fold{fold}.json")["run"] == "tiny"
        assert len(read_csv(run / f"fold{fold}.csv", ["image_name", "prob"])) > 20
    # Links and data would be kept as output too, and count towards its 20 GB.
    assert [path.name for path in whole.output.iterdir()] == ["oof"]
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 40e6
    config = (run / "config.yaml").read_text()
    assert "pretrained: true" in config and str(world.root) not in config


def test_a_run_cut_in_two_by_max_hours_ends_with_the_same_bytes(
    world: World, prepared: Mounts, whole: Outcome
) -> None:
    first = world.kernel("train", prepared, folds=[0], max_hours=0.0001)
    assert not first.failed, first.text
    assert "not done yet: python scripts/kaggle_push.py kernel train tiny --wait" in first.text
    assert not (first.output / "oof/tiny/fold0.json").exists()
    state = {"tester/lesions-weights-tiny": first.output}
    second = world.kernel("train", prepared, state, folds=[0])
    assert not second.failed, second.text
    for name in ("fold0.csv", "fold0.safetensors"):
        kept = (second.output / "oof/tiny" / name).read_bytes()
        assert kept == (whole.output / "oof/tiny" / name).read_bytes(), name
    log = (second.output / "oof/tiny/metrics0.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in log]
    assert events.count("stopped") == 1, "it resumed, and did not begin again"


def test_an_older_version_of_a_data_set_is_refused(world: World, prepared: Mounts) -> None:
    for name in ("lesions-code", "lesions-weights-tiny"):
        notebook = build_notebook("train", expected=world.expected | {name: "f" * 64},
                                  **VALUES["train"])  # fmt: skip
        outcome = world.run(notebook, world.code, world.weights, prepared)
        assert outcome.failed
        assert f"{name}: Kaggle attached another version" in outcome.text
        assert "scripts/train.py" not in outcome.text


def test_predict_and_blend_write_a_submission_that_kaggle_takes(
    world: World, prepared: Mounts, whole: Outcome, tmp_path: Path
) -> None:
    folds = {"tester/lesions-weights-tiny": whole.output}
    predicted = world.kernel("predict", prepared, folds, world.competition)
    assert not predicted.failed, predicted.text
    wanted = read_csv(world.root / "sample/isic2020/sample_submission.csv", ["image_name"])
    submission = read_csv(predicted.output / "submission.csv", ["image_name", "target"])
    assert submission["image_name"].tolist() == wanted["image_name"].tolist()
    assert "values: good" in predicted.text
    assert read_json(predicted.output / "submissions/tiny.json")["run"] == "tiny"

    second = tmp_path / "second"
    shutil.copytree(whole.output / "oof/tiny", second / "oof/other")
    for file in (second / "oof/other").glob("fold*.csv"):
        table = read_csv(file, ["prob"])
        table.assign(prob=table["prob"].rank() / len(table)).to_csv(file, index=False)
        result = read_json(file.with_suffix(".json"))
        result["sha256"]["csv"] = sha256(file)
        write_json(file.with_suffix(".json"), result)
    (second / "submissions").mkdir()
    submission.assign(target=submission["target"] ** 2).to_csv(
        second / "submissions/other.csv", index=False
    )
    mounts = [world.competition, {"second": second}, {"predicted": predicted.output}]
    blended = world.kernel("blend", prepared, folds, *mounts)
    assert not blended.failed, blended.text
    assert (blended.output / "submission.csv").exists()
    assert (blended.output / "submissions/blend.json").exists()


def test_check_prints_hashes_inputs_versions_and_gpus(world: World) -> None:
    outcome = world.kernel("check", world.competition)
    assert not outcome.failed, outcome.text
    text = (outcome.output / "check.txt").read_text()
    for wanted in (world.expected["lesions-code"][:12], "isic2020", "timm 1", "0 GPUs"):
        assert wanted in text, wanted


def commands(text: str) -> list[list[str]]:
    """The arguments of each scripts/kaggle_push.py command that the session's error names."""
    message = text.rpartition("InputError")[2]
    found = re.findall(r"scripts/kaggle_push\.py ((?:[\w/-]+ ?)+)", message)
    return [shlex.split(arguments) for arguments in found]


def test_a_session_without_its_inputs_names_commands_that_make_them(
    world: World, prepared: Mounts, tmp_path: Path
) -> None:
    nothing = world.run(build_notebook("train", expected={}, **VALUES["train"]))
    assert nothing.failed
    assert "attach the data set lesions-code" in nothing.text

    no_data = world.kernel("train", run="demo/mobilenetv3")
    assert no_data.failed
    (arguments,) = commands(no_data.text)
    kaggle_push([*arguments, "--write", str(tmp_path / "prepare")])
    metadata = read_json(tmp_path / "prepare/kernel-metadata.json")
    assert metadata["id"] == "your-name/lesions-prepare-demo"
    notebook = (tmp_path / "prepare" / metadata["code_file"]).read_text()
    assert 'session.prepare(\\"demo\\", sizes=[64])' in notebook

    no_run = world.kernel("predict", prepared, run="effnet_b1")
    assert no_run.failed and "attach the data set lesions-weights-effnet-b1" in no_run.text
    assert commands(no_run.text) == [["weights", "effnet_b1"]]
    kaggle_push(["kernel", "predict", "effnet_b1", "--write", str(tmp_path / "predict")])
    metadata = read_json(tmp_path / "predict/kernel-metadata.json")
    assert "your-name/lesions-weights-effnet-b1" in metadata["dataset_sources"]


@pytest.mark.skipif(not ISOLATED, reason="this system has no namespaces to isolate a session with")
def test_the_sessions_of_these_tests_have_no_network_and_cannot_write_to_their_input(
    world: World,
) -> None:
    cells = [
        "import errno, os, socket, shutil",
        "try:\n    open('/kaggle/input/x', 'w')\nexcept OSError as e:\n"
        "    print(e.errno == errno.EROFS)",
        "try:\n    socket.create_connection(('127.0.0.1', 80), 2)\nexcept OSError as e:\n"
        "    print(e.errno == errno.ENETUNREACH)",
        "print(shutil.disk_usage('/kaggle/working').total == 20 * 2**30)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    outcome = world.run(nbformat.writes(notebook))
    assert outcome.text.split() == ["True"] * 3, outcome.text


def test_committed_notebooks_are_what_the_command_writes(tmp_path: Path) -> None:
    assert kaggle_push(["notebooks", "--write", str(tmp_path)]) == 0
    committed = {path.name: path.read_text() for path in (CODE / "notebooks").glob("*.ipynb")}
    assert committed == {path.name: path.read_text() for path in tmp_path.iterdir()}
    others = [build_notebook(kind, expected={}, **VALUES[kind]) for kind in VALUES]
    for text in [*committed.values(), *others]:
        nbformat.validate(notebook := nbformat.reads(text, as_version=4))
        cells = notebook.cells
        assert "do not edit" in cells[0].source and not any(cell.get("outputs") for cell in cells)
        kinds = [cell.cell_type for cell in cells]
        assert kinds[0] == "markdown"
        assert all("code" in pair for pair in itertools.pairwise(kinds) if "markdown" in pair)


@pytest.mark.real
def test_the_study_notebook_goes_from_download_to_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "input/dermamnist").mkdir(parents=True)
    (tmp_path / "input/dermamnist/dermamnist.npz").symlink_to(REAL / "dermamnist/dermamnist.npz")
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    options = "--set train.epochs=1 --set predict.views=1"
    text = (CODE / "notebooks/dermamnist_study.ipynb").read_text()
    text = text.replace("--name notebook", f"--name notebook {options}")
    notebook = nbformat.reads(text, as_version=4)
    place = {"metadata": {"path": str(CODE)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = [item for cell in notebook.cells for item in cell.get("outputs", [])]
    printed = "".join(item.get("text", "") for item in outputs)
    assert "error:" not in printed and "'rows': 1003" in printed
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 2
    assert (tmp_path / "oof/notebook/report.html").exists()


def test_inputs_are_known_by_their_content(tmp_path: Path) -> None:
    write_sample(tmp_path / "x", images=40)
    (tmp_path / "any/name/at/all").mkdir(parents=True)
    (tmp_path / "x").rename(tmp_path / "any/name/at/all/x")
    tables = tmp_path / "more"
    tables.mkdir()
    (tables / "ISIC_2020_Training_Duplicates.csv").write_text("image_name_1,image_name_2\n")
    deotte = tmp_path / "resized"
    (deotte / "train").mkdir(parents=True)
    (deotte / "train.csv").write_text("image_name,tfrecord\n")
    cv2.imwrite(str(deotte / "train/a.jpg"), np.zeros((256, 256, 3), np.uint8))
    found = Inputs(tmp_path)
    sources = found.sources()
    assert {*sources} == {"isic2019", "isic2020", "jpeg-isic2019-256x256"}
    assert sources["isic2020"].name == "isic2020"
    assert sources["jpeg-isic2019-256x256"] == deotte
    nearest = found.find("ISIC_2020_Training_Duplicates.csv")[0]
    assert nearest.parent == tables


def test_two_t4_are_both_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from lesions.kaggle import session

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    called: list[Any] = []
    monkeypatch.setattr(session, "run_script", lambda *arguments: called.append(arguments) or 0)
    session.launch("train", ["--fold", "0"])
    ((_, _, launcher),) = called
    assert "--multi_gpu" in launcher
    assert launcher[launcher.index("--num_processes") + 1] == "2"
