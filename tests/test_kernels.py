"""The notebooks, run to their ends in folders laid out as Kaggle lays them out."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from kernel_driver import ISOLATED, Outcome, kernel_session

from lesions.data.sample import write_sample
from lesions.errors import InputError
from lesions.files import read_csv, read_json
from lesions.kaggle.inputs import find_inputs
from lesions.kaggle.notebooks import KINDS, build_notebook
from lesions.kaggle.push import write_code
from lesions.kaggle.session import take_up
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
VALUES = {
    "prepare": {"dataset": "tiny", "sizes": [32]},
    "train-fold": {"run": "tiny", "fold": 0, "max_hours": 1.0},
    "predict": {"run": "tiny"},
    "blend": {"title": "tiny, other", "runs": ["tiny", "other"]},
}


class World:
    """Code, originals and weights as data sets on Kaggle; sessions that get some of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.sessions = root, 0
        write_code(root / "code")
        (root / "code/configs/tiny.yaml").write_text(CONFIG)
        (root / "code/configs/datasets/tiny.yaml").write_text(DATASET)
        write_sample(root / "sample", images=60)
        (root / "weights/backbones").mkdir(parents=True)
        import safetensors.torch
        import timm

        weights = timm.create_model(TAG, pretrained=False).state_dict()
        safetensors.torch.save_file(weights, root / f"weights/backbones/{TAG}.safetensors")
        # Names that nobody could guess, at the depths that Kaggle has used.
        self.code = {"datasets/somebody/my-copy-of-it": root / "code"}
        self.weights = {"a-data-set": root / "weights"}
        self.competition = {"competitions/siim": root / "sample/isic2020"}
        self.originals = self.competition | {"mirror-of-2019/data": root / "sample/isic2019"}

    def run(self, notebook: str, *mounts: dict[str, Path]) -> Outcome:
        self.sessions += 1
        together = {name: folder for part in mounts for name, folder in part.items()}
        return kernel_session(self.root / f"session {self.sessions}", notebook, together)

    def train(self, fold: int, max_hours: float, *mounts: dict[str, Path]) -> Outcome:
        values = {"run": "tiny", "fold": fold, "max_hours": max_hours}
        notebook = build_notebook("train-fold", **values)
        return self.run(notebook, self.code, self.weights, *mounts)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("kaggle"))


@pytest.fixture(scope="module")
def prepared(world: World) -> dict[str, Path]:
    """The mount that the output of the prepare notebook makes."""
    outcome = world.run(build_notebook("prepare", **VALUES["prepare"]), world.code, world.originals)
    assert not outcome.failed, outcome.text
    return {"notebooks/tester/lesions-prepare-tiny": outcome.output}


@pytest.fixture(scope="module")
def whole(world: World, prepared: dict[str, Path]) -> Outcome:
    """Fold 0 trained in one session."""
    return world.train(0, 1.0, prepared)


def test_prepare_leaves_the_data_set_and_nothing_else(prepared: dict[str, Path]) -> None:
    output = next(iter(prepared.values()))
    assert [path.name for path in output.iterdir()] == ["prepared"]
    assert read_json(output / "prepared/tiny/table.json")["rows"] > 60
    assert (output / "prepared/tiny/32/cache.json").exists()


def test_a_fold_is_trained_in_one_session(whole: Outcome) -> None:
    assert not whole.failed, whole.text
    assert "fold 0 of tiny is done" in whole.text
    run = whole.output / "oof/tiny"
    assert read_json(run / "fold0.json")["run"] == "tiny"
    assert len(read_csv(run / "fold0.csv", ["image_name", "prob"])) > 20
    # Links and data would be kept as output too, and count towards its 20 GB.
    assert [path.name for path in whole.output.iterdir()] == ["oof"]
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 20e6


def test_the_config_knows_nothing_of_the_mounts(world: World, whole: Outcome) -> None:
    config = (whole.output / "oof/tiny/config.yaml").read_text()
    assert "pretrained: true" in config
    assert str(world.root) not in config


def test_a_fold_cut_in_two_by_max_hours_ends_with_the_same_bytes(
    world: World, prepared: dict[str, Path], whole: Outcome
) -> None:
    first = world.train(0, 0.0001, prepared)
    assert not first.failed, first.text
    assert "run this notebook again" in first.text
    assert not (first.output / "oof/tiny/fold0.json").exists()
    own = {"notebooks/tester/lesions-tiny-fold0": first.output}
    second = world.train(0, 1.0, prepared, own)
    assert not second.failed, second.text
    assert "going on at step 1 of" in second.text
    for name in ("fold0.csv", "fold0.safetensors"):
        kept = (second.output / "oof/tiny" / name).read_bytes()
        assert kept == (whole.output / "oof/tiny" / name).read_bytes(), name


def test_predict_and_blend_write_a_submission_that_kaggle_takes(
    world: World, prepared: dict[str, Path], whole: Outcome, tmp_path: Path
) -> None:
    other = world.train(1, 1.0, prepared)
    assert not other.failed, other.text
    folds = {"fold0": whole.output, "somewhere/fold1": other.output}
    notebook = build_notebook("predict", **VALUES["predict"])
    predicted = world.run(notebook, world.code, prepared, folds, world.competition)
    assert not predicted.failed, predicted.text
    wanted = read_csv(world.root / "sample/isic2020/sample_submission.csv", ["image_name"])
    submission = read_csv(predicted.output / "submission.csv", ["image_name", "target"])
    assert submission["image_name"].tolist() == wanted["image_name"].tolist()
    assert "values: good" in predicted.text

    second = tmp_path / "second"
    for outcome in (whole, other):
        _as_run("other", outcome.output, second)
    (second / "submissions").mkdir()
    submission.assign(target=submission["target"] ** 2).to_csv(
        second / "submissions/other.csv", index=False
    )
    blended = world.run(
        build_notebook("blend", **VALUES["blend"]),
        world.code, prepared, folds, world.competition, {"second": second},
        {"predicted": predicted.output},
    )  # fmt: skip
    assert not blended.failed, blended.text
    assert (blended.output / "submission.csv").exists()
    assert (blended.output / "submissions/blend.json").exists()


def _as_run(name: str, output: Path, place: Path) -> None:
    """A second run: the first one's fold, scored a little differently."""
    target = place / "oof" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in (output / "oof/tiny").iterdir():
        if file.suffix in (".yaml", ".json"):
            (target / file.name).write_bytes(file.read_bytes())
        elif file.name.startswith("fold") and file.suffix == ".csv":
            table = read_csv(file, ["prob"])
            table.assign(prob=table["prob"].rank() / len(table)).to_csv(
                target / file.name, index=False
            )


def test_a_session_without_its_inputs_says_what_to_attach(world: World) -> None:
    nothing = world.run(build_notebook("train-fold", **VALUES["train-fold"]))
    assert nothing.failed
    assert "attach the data set lesions-code" in nothing.text
    no_data = world.train(0, 1.0)
    assert no_data.failed
    assert "kaggle_push.py kernel prepare" in no_data.text


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_is_valid_and_the_same_each_time(kind: str) -> None:
    text = build_notebook(kind, **VALUES[kind])
    assert text == build_notebook(kind, **VALUES[kind])
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert "do not edit" in notebook.cells[0].source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].source.startswith("# Where is this")
    assert not any(cell.outputs for cell in code)
    assert "$" not in "".join(cell.source for cell in notebook.cells)


def first_cell(place: Path, **environment: str) -> str:
    """What the first cell of a notebook prints where the folders of `place` are the system's."""
    source = (CODE / "src/lesions/kaggle/templates/first_cell.py").read_text()
    source = source.replace("/kaggle/", f"{place}/kaggle/").replace("/content", f"{place}/content")
    source += "\nprint(session.linked, session.working)"
    # Google's module is there in Colab alone; mounting the drive makes its folder.
    (place / "google/colab").mkdir(parents=True)
    (place / "google/colab/drive.py").write_text(
        "import pathlib\ndef mount(at): pathlib.Path(at, 'MyDrive/lesions').mkdir(parents=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=place, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(place), "HOME": str(place)} | environment,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_same_first_cell_finds_out_that_it_is_in_colab(tmp_path: Path) -> None:
    write_code(tmp_path / "content/anything/code")
    (tmp_path / "content/drive/MyDrive").mkdir(parents=True)
    text = first_cell(tmp_path, COLAB_RELEASE_TAG="release")
    assert "Colab: code" in text, text
    assert f"True {tmp_path}/content/drive/MyDrive/lesions" in text


def test_the_same_first_cell_finds_out_that_it_is_in_a_checkout(tmp_path: Path) -> None:
    write_code(tmp_path / "checkout")
    notebooks = tmp_path / "checkout/notebooks"
    notebooks.mkdir()
    text = first_cell(notebooks)
    assert "a checkout: code" in text, text
    assert f"False {tmp_path}/checkout" in text


def test_inputs_are_known_by_what_they_hold(tmp_path: Path) -> None:
    write_sample(tmp_path / "x", images=40)
    (tmp_path / "any/name/at/all").mkdir(parents=True)
    (tmp_path / "x").rename(tmp_path / "any/name/at/all/x")
    tables = tmp_path / "more"
    tables.mkdir()
    (tables / "ISIC_2020_Training_Duplicates.csv").write_text("image_name_1,image_name_2\n")
    deotte = tmp_path / "resized"
    (deotte / "train").mkdir(parents=True)
    (deotte / "train.csv").write_text("image_name,tfrecord\n")
    _picture(deotte / "train/a.jpg", 256)
    found = find_inputs(tmp_path)
    assert {*found.sources} == {"isic2019", "isic2020"}
    assert found.sources["isic2020"].name == "isic2020"
    assert found.extras["ISIC_2020_Training_Duplicates.csv"].parent == tables, "the nearest"
    assert found.deotte == {"jpeg-isic2019-256x256": deotte}


def _picture(path: Path, size: int) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(path), np.zeros((size, size, 3), np.uint8))


def test_a_folder_of_photographs_is_not_listed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesions.kaggle.inputs.MOST", 10)
    for number in range(30):
        (tmp_path / f"{number:03}.jpg").touch()
    from lesions.kaggle.inputs import folders

    assert [len(names) for _, names in folders(tmp_path)] == [10]


def _begun(folder: Path, fold: int, steps: int, done: bool = False) -> Path:
    (folder / "state").mkdir(parents=True)
    (folder / "config.yaml").write_text("dataset: x\n")
    (folder / f"metrics{fold}.jsonl").write_text(
        json.dumps({"event": "stopped", "step": steps}) + "\n"
    )
    if done:
        (folder / f"fold{fold}.json").write_text("{}")
    else:
        (folder / f"state/fold{fold}.pt").write_text(f"{steps}")
    return folder


def test_a_session_goes_on_from_what_got_furthest(tmp_path: Path) -> None:
    early, late = _begun(tmp_path / "a", 0, 9), _begun(tmp_path / "b", 0, 10)
    other = _begun(tmp_path / "c", 1, 99)
    take_up([early, late, other], tmp_path / "kept", 0)
    assert (tmp_path / "kept/state/fold0.pt").read_text() == "10"
    take_up([early], tmp_path / "kept", 0)
    assert (tmp_path / "kept/state/fold0.pt").read_text() == "10", "never back"
    take_up([late, _begun(tmp_path / "d", 0, 5, done=True)], tmp_path / "kept2", 0)
    assert (tmp_path / "kept2/fold0.json").exists()
    assert not (tmp_path / "kept2/state").exists()


def _nvidia_smi(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_two_t4_are_both_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lesions.kaggle import launch

    _nvidia_smi(tmp_path, "Tesla T4, 7.5\\nTesla T4, 7.5\\n", monkeypatch)
    called = []
    monkeypatch.setattr(launch, "run_script", lambda *arguments: called.append(arguments) or 0)
    launch.launch("train", ["--fold", "0"])
    ((_, _, launcher),) = called
    assert "--multi_gpu" in launcher
    assert launcher[launcher.index("--num_processes") + 1] == "2"


def test_a_t4_trains_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    from lesions.inference.accelerator import mixed_precision

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (7, 5))
    assert mixed_precision("auto") == "fp16"


def test_a_p100_is_refused_before_torch_fails_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lesions.kaggle.launch import gpus

    _nvidia_smi(tmp_path, "Tesla P100-PCIE-16GB, 6.0\\n", monkeypatch)
    with pytest.raises(InputError, match="choose GPU T4 x2"):
        gpus()
