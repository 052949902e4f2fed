"""Trackers: a run a fold, grouped, then scores, figures and report, without a network."""

import json
import shutil
import sys

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType
from conftest import tiny_run
from PIL import Image
from train import main as train

FAKE = """
import json, pathlib
config = {}
Image = Html = lambda content: "shown"
def init(project, dir, **given):
    part = given["name"].split()[-1]
    return Run(pathlib.Path(dir) / f"{part}.jsonl", {"project": project, **given})
class Run:
    def __init__(self, path, told):
        self.path = path
        self.log(told)
    def log(self, values, step=None):
        with self.path.open("a") as file:
            file.write(json.dumps(values | {"step": step}) + "\\n")
    def finish(self):
        self.log({"finished": True})
"""


def fake_report(files, recall, explained):
    page = files.folder / "report.html"
    page.with_suffix("").mkdir()
    Image.new("RGB", (4, 4)).save(page.with_suffix("") / "roc.png")
    for path in (page, page.with_suffix(".md")):
        path.write_text("the report")
    return page, 1


@pytest.fixture
def followed(trained, monkeypatch, tmp_path):
    """Train the last fold of a run again, followed by a tracker; the run's folder."""
    (tmp_path / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    known = [*tracking.get_available_trackers(), LoggerType.WANDB]
    monkeypatch.setattr(tracking, "_available_trackers", known)
    monkeypatch.setattr("lesions.reporting.report.write_report", fake_report)

    def follow(tracker):
        bare = shutil.ignore_patterns("report*")  # which another test may have written
        folder = shutil.copytree(trained, trained.parent / "followed" / tracker, ignore=bare)
        (folder / "fold2.json").unlink()
        train([*tiny_run(f"followed/{tracker}", f"train.tracker={tracker}"), "--fold", "all"])
        return folder

    yield follow
    sys.modules.pop("wandb", None)


def test_wandb_has_a_grouped_run_a_fold_and_one_with_scores_figures_and_report(followed):
    folder = followed("wandb")
    for part in ("fold2", "all"):
        told, *lines = map(json.loads, (folder / f"{part}.jsonl").read_text().splitlines())
        assert (told["project"], told["group"]) == ("lesions", "followed/wandb")
        assert lines.pop()["finished"]
        if part == "all":
            assert lines[0]["out-of-fold AUC"] > 0 and lines[-1]["report"] == "shown"
            assert {"roc", "training_curves"} <= lines[1].keys()
        else:
            assert [line["step"] for line in lines] == [1, 2] and "auc" in lines[0]
    assert not (folder / "fold0.jsonl").exists()  # it was done


def test_tensorboard_has_curves_of_one_name_in_each_fold_and_the_report(followed):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = followed("tensorboard")
    fold, done = (events.EventAccumulator(str(folder / part)).Reload() for part in ("fold2", "all"))
    assert [value.step for value in fold.Scalars("auc")] == [1, 2]
    assert "out-of-fold_AUC" in str(done.Tags()["scalars"]).replace(" ", "_")
    assert set(done.Tags()["images"]) == {"roc", "training_curves"}
    assert "report/text_summary" in done.Tags()["tensors"]
