"""The whole loop, with each pushed notebook run to its end in folders laid out as Kaggle's."""

import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from conftest import REAL
from kaggle_fake import TOKEN, FakeKaggle
from kaggle_push import main as kaggle_push
from kernel_driver import ISOLATED, Outcome, kernel_session
from nbclient import NotebookClient

from lesions.data.sample import write_sample
from lesions.errors import InputError
from lesions.files import read_csv, read_json, sha256, write_json
from lesions.kaggle.kernels import SEAL, Kernel
from lesions.kaggle.session import Session, run_script
from lesions.paths import CODE

TAG = "mobilenetv3_small_050.lamb_in1k"
CONFIG = f"""\
dataset: tiny
data: {{image_size: 32}}
model: {{backbone: {TAG}}}
train: {{epochs: 4, batch_size: 16, micro_batch: 8, lr: 3e-3, workers: 0, ema_decay: 0.5}}
predict: {{views: 1}}
"""
DATASET = """\
sources:
  isic2019: {folder: input/isic2019}
  isic2020: {folder: input/isic2020}
folds: 2
"""


class RunningKaggle(FakeKaggle):
    """Runs what is pushed, on the data sets, outputs and competition files that it names."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root, self.sessions = root, dict[str, list[Outcome]]()
        self.mounts: dict[str, Path] = {}  # others' data sets and the competition, by name
        self.cut: set[str] = set()  # kernels whose next session ends after some steps
        self.threads: dict[str, threading.Thread] = {}

    def SaveKernel(self, body: Any) -> Any:
        answer = super().SaveKernel(body)
        wanted = {kind: body.get(f"{kind}DataSources", []) for kind in ("dataset", "kernel")}
        known = {"dataset": {*self.datasets, *self.mounts}, "kernel": {*self.sessions}}
        for kind, names in wanted.items():
            unknown = [name for name in names if name not in known[kind]]
            answer[f"invalid{kind.title()}Sources"] = unknown
        if body.get("kernelExecutionType") != "QUICK_SAVE":
            slug = body["slug"]
            self.threads[slug] = threading.Thread(target=self._run, args=(slug, body, wanted))
            self.threads[slug].start()
        return answer

    def _run(self, slug: str, body: Any, wanted: dict[str, list[str]]) -> None:
        place = self.root / f"session {sum(map(len, self.sessions.values()))} {Path(slug).name}"
        mounts = {}
        for name in wanted["dataset"]:
            mounts[f"datasets/{name}"] = self.mounts.get(name) or self._unpacked(name, place)
        for name in wanted["kernel"]:
            mounts[f"notebooks/{name}"] = self.sessions[name][-1].output
        for name in body.get("competitionDataSources", []):
            mounts[f"competitions/{name}"] = self.mounts[name]
        text = body["text"]
        if slug in self.cut:
            self.cut.remove(slug)
            text = re.sub(r"max_hours=[\d.]+", "max_hours=0.0001", text)
        self.sessions.setdefault(slug, []).append(kernel_session(place, text, mounts))

    def _unpacked(self, name: str, place: Path) -> Path:
        folder = place.with_name(f"{place.name} data") / name
        for file, blob in self.datasets[name]["versions"][-1].items():
            if file.endswith(".zip"):
                zipfile.ZipFile(io.BytesIO(blob)).extractall(folder / file.removesuffix(".zip"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(blob)
        return folder

    def GetKernelSessionStatus(self, body: Any) -> Any:
        slug = f"{body['userName']}/{body['kernelSlug']}"
        if slug not in self.threads:
            return 404
        self.threads[slug].join(50)
        if self.threads[slug].is_alive():
            return {"status": "RUNNING"}
        failed = self.sessions[slug][-1].failed
        return {"status": "ERROR" if failed else "COMPLETE"}

    def ListKernelSessionOutput(self, body: Any) -> Any:
        outcome = self.sessions[f"{body['userName']}/{body['kernelSlug']}"][-1]
        files = (file for file in outcome.output.rglob("*") if file.is_file())
        names = {file.relative_to(outcome.output).as_posix(): file for file in files}
        self.outputs = {name: file.read_bytes() for name, file in names.items()}
        self.log = outcome.text
        return super().ListKernelSessionOutput(body)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own with two small configs, and a folder `sample` of originals."""
    for name in ("src", "scripts", "configs"):
        shutil.copytree(CODE / name, tmp_path / "home" / name)
    for run in ("tiny", "other"):
        (tmp_path / f"home/configs/{run}.yaml").write_text(CONFIG)
    (tmp_path / "home/configs/datasets/tiny.yaml").write_text(DATASET)
    write_sample(tmp_path / "sample", images=60)
    sample = tmp_path / "home/input/isic2020"
    sample.mkdir(parents=True)
    shutil.copy(tmp_path / "sample/isic2020/sample_submission.csv", sample)
    return tmp_path / "home"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The hub's cache with the backbone's first weights."""
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(0)
    model = tmp_path / f"hub/models--timm--{TAG}"
    (model / "snapshots/x").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs/main").write_text("x")
    weights = timm.create_model(TAG, pretrained=False).state_dict()
    safetensors.torch.save_file(weights, model / "snapshots/x/model.safetensors")
    return tmp_path / "hub"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningKaggle]:
    fake = RunningKaggle(tmp_path / "kaggle")
    fake.mounts["siim-isic-melanoma-classification"] = tmp_path / "sample/isic2020"
    fake.mounts["andrewmvd/isic-2019"] = tmp_path / "sample/isic2019"
    yield fake
    fake.close()


@pytest.mark.slow
def test_the_loop_goes_from_check_to_a_scored_blend_with_one_run_cut_short(checkout, hub, server):
    environment = os.environ | server.environment | {
        "HF_HUB_CACHE": str(hub), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    }  # fmt: skip
    del environment["LESIONS_ROOT"]

    def run(*command: str, code: int = 0) -> str:
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True,
                              text=True, timeout=900)  # fmt: skip
        printed = done.stdout + done.stderr
        assert done.returncode == code, printed
        assert TOKEN not in printed
        return printed

    push = ("python", "scripts/kaggle_push.py")
    printed = run(*push, "check")
    for wanted in ("data set lesions-code: ", "sources: isic2020", "timm 1", "0 GPUs"):
        assert wanted in printed, wanted
    run(*push, "code")
    run(*push, "weights", "tiny")
    assert len(server.datasets["tester/lesions-code"]["versions"]) == 1, "it was there already"

    tiny, other = ("tester/lesions-train-tiny", "tester/lesions-train-other")
    server.cut = {other}
    printed = run("scripts/kaggle_run.sh", "tiny", "other", code=75)
    assert "lesions-train-other: not done yet: fold 0, fold 1" in printed
    prepared = server.sessions["tester/lesions-prepare-tiny"][0].output
    assert {path.name for path in prepared.iterdir()} == {"input", SEAL}
    assert (prepared / "input/prepared/tiny/32/cache.json").exists()
    assert not (checkout / "input/prepared/tiny/32").exists()
    assert read_json(checkout / "input/prepared/tiny/table.json")["rows"] > 60
    # Links and data would be kept as output too, and count towards its 20 GB.
    whole = server.sessions[tiny][0].output
    assert {path.name for path in whole.iterdir()} == {"oof", SEAL}
    assert "hours left for the run's 2 folds" in server.sessions[tiny][0].text
    assert "pretrained: true" in (whole / "oof/tiny/config.yaml").read_text()
    state = list((checkout / "oof/other/state").iterdir())
    assert state and not list((checkout / "oof/other").glob("fold*"))

    printed = run("scripts/kaggle_run.sh", "tiny", "other")
    assert [len(server.sessions[name]) for name in (tiny, other)] == [1, 2]
    log = (checkout / "oof/other/metrics0.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in log]
    assert events.count("stopped") == 1, "it resumed, and did not begin again"
    for fold in (0, 1):
        cut, uncut = (checkout / f"oof/{name}/fold{fold}.csv" for name in ("other", "tiny"))
        assert cut.read_bytes() == uncut.read_bytes()
    predicted = server.sessions["tester/lesions-predict-tiny"][0]
    assert "values: good" in predicted.text
    blend = checkout / "submissions/blend.csv"
    at_home = blend.read_bytes()
    blend.unlink()
    run(*push, "kernel", "blend", "tiny", "other", "--wait")
    assert blend.read_bytes() == at_home
    assert read_json(blend.with_suffix(".json"))["submission"]["sha256"] == sha256(blend)

    printed = run("python", "scripts/submit.py", "submissions/blend.csv", "-m", "two configs")
    assert "public 0.9321" in printed and "CV 0." in printed
    scores = read_csv(checkout / "submissions/scores.csv", ["public", "cv"])
    assert scores["public"].tolist() == [0.9321]


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty /kaggle/input for a session in this process."""
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path / "root"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")  # the session sets them: put back afterwards
    (tmp_path / "input").mkdir()
    return tmp_path / "input"


@pytest.mark.parametrize("name", ["lesions-code", "lesions-weights-tiny"])
def test_an_older_version_of_a_data_set_is_refused(mounts, name):
    (mounts / "any/name").mkdir(parents=True)
    write_json(mounts / f"any/name/{SEAL}", {"set": name, "hash": "0" * 64})
    Session(mounts, mounts, expected={name: "0" * 64})
    with pytest.raises(InputError, match=f"{name}: Kaggle attached another version"):
        Session(mounts, mounts, expected={name: "f" * 64})


def commands(use: Callable[[], object]) -> list[str]:
    """The arguments of the scripts/kaggle_push.py command that the session's error names."""
    with pytest.raises(InputError) as error:
        use()
    (found,) = re.findall(r"scripts/kaggle_push\.py ((?:[\w/-]+ ?)+)", str(error.value))
    return shlex.split(found)


def test_a_session_without_inputs_names_commands_for_them(mounts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lesions.kaggle.session.PACKAGES", ("numpy", "nothere"))
    session = Session(mounts, tmp_path, expected={})
    assert "nothere is missing" in capsys.readouterr().out
    arguments = commands(lambda: session.train("demo/mobilenetv3", None, 1.0))
    kaggle_push([*arguments, "--write", str(tmp_path / "prepare")])
    metadata = read_json(tmp_path / "prepare/kernel-metadata.json")
    assert metadata["id"] == "your-name/lesions-prepare-demo"
    notebook = (tmp_path / "prepare" / metadata["code_file"]).read_text()
    assert 'session.prepare(\\"demo\\", sizes=[64])' in notebook
    assert commands(lambda: session.predict("effnet_b1")) == ["weights", "effnet_b1"]
    with pytest.raises(InputError, match="isic2019: none of the attached inputs"):
        session.prepare("demo", [64])


@pytest.mark.skipif(not ISOLATED, reason="this system has no namespaces to isolate a session with")
def test_a_session_here_has_no_network_and_read_only_input_and_asks_for_code(tmp_path):
    cells = [
        "import errno, os, socket, shutil",
        "try:\n    open('/kaggle/input/x', 'w')\nexcept OSError as e:\n"
        "    print(e.errno == errno.EROFS)",
        "try:\n    socket.create_connection(('127.0.0.1', 80), 2)\nexcept OSError as e:\n"
        "    print(e.errno == errno.ENETUNREACH)",
        "print(shutil.disk_usage('/kaggle/working').total == 20 * 2**30)",
    ]
    notebook = nbformat.reads(Kernel("check", []).notebook({}), as_version=4)
    notebook.cells = [*map(nbformat.v4.new_code_cell, cells), *notebook.cells]
    outcome = kernel_session(tmp_path / "session", nbformat.writes(notebook), {})
    assert outcome.text.split()[:3] == ["True"] * 3, outcome.text
    assert outcome.failed and "attach the data set lesions-code" in outcome.text


def test_committed_notebooks_are_what_the_command_writes(tmp_path):
    assert kaggle_push(["notebooks", "--write", str(tmp_path)]) == 0
    committed = {path.name: path.read_text() for path in (CODE / "notebooks").glob("*.ipynb")}
    assert committed == {path.name: path.read_text() for path in tmp_path.iterdir()}
    others = [Kernel(kind, ["effnet_b1"]).notebook({}) for kind in ("predict", "check")]
    for text in [*committed.values(), *others]:
        nbformat.validate(notebook := nbformat.reads(text, as_version=4))
        cells = notebook.cells
        assert "do not edit" in cells[0].source and not any(cell.get("outputs") for cell in cells)
        kinds = [cell.cell_type for cell in cells]
        assert kinds[0] == "markdown"
        assert all("code" in pair for pair in itertools.pairwise(kinds) if "markdown" in pair)


@pytest.mark.real
def test_the_study_notebook_goes_from_download_to_report(monkeypatch, tmp_path):
    (tmp_path / "input/dermamnist").mkdir(parents=True)
    with np.load(REAL / "dermamnist/dermamnist.npz") as whole:
        part = {name: whole[name][::12] for name in whole.files}
    np.savez(tmp_path / "input/dermamnist/dermamnist.npz", **part)
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
    assert "error:" not in printed and "'rows': 84" in printed
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 2
    assert (tmp_path / "oof/notebook/report.html").exists()


def test_inputs_are_known_by_their_content(mounts, tmp_path):
    write_sample(mounts / "x", images=40)
    (mounts / "any/name/at/all").mkdir(parents=True)
    (mounts / "x").rename(mounts / "any/name/at/all/x")
    deotte = mounts / "jpeg-melanoma-256x256"  # with the names of the competition's files
    (deotte / "train").mkdir(parents=True)
    for name in ("train.csv", "sample_submission.csv"):
        (deotte / name).write_text("image_name,tfrecord\n")
    sources = Session(mounts, tmp_path, {}).sources()
    found = {name: place.parent.name for name, place in sources.items()}
    assert found == {"isic2019": "x", "isic2020": "x"}


def test_two_t4_are_both_used(monkeypatch, tmp_path, capsys):
    for name, text in {"nvidia-smi": "echo GPU 0: Tesla T4; echo GPU 1: Tesla T4",
                       "python": "echo ran $*"}.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    run_script("train", ["--fold", "0"])
    printed = capsys.readouterr().out
    assert re.search(r"ran -m accelerate.* --num_processes 2 .*--multi_gpu .*train.py", printed)
