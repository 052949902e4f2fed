"""Code, weights and kernels through the genuine client to a local fake of Kaggle's server."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kaggle_fake import TOKEN, FakeKaggle, kaggle  # noqa: F401
from kaggle_push import main as kaggle_push

from lesions.config import dump, load_config
from lesions.errors import InputError
from lesions.kaggle.kernels import slug
from lesions.paths import CODE, at

RUN = "demo/mobilenetv3"
NAME = "tester/lesions-demo-mobilenetv3-fold0"
TRAIN = ["kernel", "train-fold", RUN, "--fold", "0", "--wait"]


def output(done: bool, step: int, changes: tuple[str, ...] = (), fold: int = 0) -> dict[str, bytes]:
    """The files that a session of `RUN` leaves on Kaggle."""
    config = load_config(at("configs") / f"{RUN}.yaml", changes)
    line = json.dumps({"event": "stopped", "step": step}) + "\n"
    files = {"config.yaml": dump(config).encode(), f"metrics{fold}.jsonl": line.encode()}
    if done:
        files |= {f"fold{fold}.{kind}": kind.encode() for kind in ("csv", "safetensors")}
        files |= {f"fold{fold}.json": b'{"fold": 0}'}
    else:
        files |= {f"state/fold{fold}.pt": b"large"}
    return {f"oof/{RUN}/{name}": content for name, content in files.items()}


@pytest.fixture
def sessions(kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:  # noqa: F811
    """What the sessions to come will leave; each push starts the next. No kernel is there yet."""
    to_come: list[dict[str, bytes]] = []
    save = kaggle.SaveKernel

    def run(body: Any) -> Any:
        kaggle.outputs = to_come.pop(0)
        kaggle.kernel_statuses = [("QUEUED", ""), ("RUNNING", ""), ("COMPLETE", "")]
        return save(body)

    monkeypatch.setattr(kaggle, "SaveKernel", run, raising=False)
    kaggle.fail("GetKernelSessionStatus", 404)
    return to_come


@pytest.fixture(autouse=True)
def no_earlier_run() -> None:
    import shutil

    shutil.rmtree(at("oof") / RUN, ignore_errors=True)


def content(held: dict[str, Any]) -> dict[str, bytes]:
    """Files of a data set's last version, by name, unpacked as Kaggle unpacks them."""
    files = {}
    for number, blob in enumerate(held["versions"][-1]):
        if not zipfile.is_zipfile(io.BytesIO(blob)):
            files[f"file {number}"] = blob
            continue
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            files |= {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    return files


def test_code_goes_as_a_data_set_and_then_as_its_version(kaggle: FakeKaggle) -> None:  # noqa: F811
    kaggle_push(["code"])
    kaggle_push(["code"])
    held = kaggle.datasets["tester/lesions-code"]
    assert len(held["versions"]) == 2
    assert held["notes"][1].startswith("commit ")
    names = content(held)
    assert any(name.endswith("lesions/paths.py") for name in names)
    assert any(name.endswith("effnet_b1.yaml") for name in names)
    assert any(name.endswith("train.py") for name in names)
    assert not any("__pycache__" in name for name in names)


def test_a_runs_folds_go_as_its_weights(kaggle: FakeKaggle) -> None:  # noqa: F811
    for name, held in (
        output(True, 9) | output(True, 9, fold=1) | output(False, 5, fold=2)
    ).items():
        (at("oof").parent / name).parent.mkdir(parents=True, exist_ok=True)
        (at("oof").parent / name).write_bytes(held)
    kaggle_push(["weights", RUN])
    held = kaggle.datasets["tester/lesions-weights-demo-mobilenetv3"]
    wanted = {f"fold{fold}.{kind}" for fold in (0, 1) for kind in ("csv", "json", "safetensors")}
    assert {Path(name).name for name in content(held)} >= wanted | {"config.yaml"}
    assert not any("state" in name for name in content(held))


def test_first_weights_go_under_their_timm_tag(
    kaggle: FakeKaggle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "cached.safetensors").write_bytes(b"cached")
    monkeypatch.setattr("lesions.models.backbone.build_backbone", lambda config: None)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, name: str(tmp_path / "cached.safetensors"),
    )
    kaggle_push(["weights", "effnet_b1"])
    held = content(kaggle.datasets["tester/lesions-weights-effnet-b1"])
    assert held == {"tf_efficientnet_b1.ns_jft_in1k.safetensors": b"cached"}


def test_weights_of_a_run_that_has_none_are_refused(kaggle: FakeKaggle) -> None:  # noqa: F811
    with pytest.raises(InputError, match="nothing to send"):
        kaggle_push(["weights", RUN])
    assert not kaggle.uploads


def test_a_failed_upload_leaves_no_version(kaggle: FakeKaggle) -> None:  # noqa: F811
    kaggle.fail("/upload", 400, times=99)
    with pytest.raises(InputError, match="could not be sent"):
        kaggle_push(["code"])
    assert not kaggle.datasets


def test_a_training_kernel_is_private_offline_and_on_two_t4(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    sessions.append(output(done=True, step=9))
    kaggle_push(TRAIN[:-1])
    (body,) = kaggle.pushed
    assert body["slug"] == NAME
    assert body["isPrivate"] and body["enableGpu"]
    assert body["enableInternet"] is False
    assert body["machineShape"] == "NvidiaTeslaT4"
    assert body["datasetDataSources"] == ["tester/lesions-code"]
    assert body["kernelDataSources"] == ["tester/lesions-prepare-demo"]
    notebook = nbformat.reads(body["text"], as_version=4)
    assert "session.train_fold('demo/mobilenetv3', fold=0, max_hours=11.5)" in [
        cell.source for cell in notebook.cells
    ]


def test_a_config_with_pretrained_weights_attaches_them(tmp_path: Path) -> None:
    kaggle_push(["kernel", "train-fold", "effnet_b1", "--fold", "3", "--write", str(tmp_path)])
    metadata = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert "your-name/lesions-weights-effnet-b1" in metadata["dataset_sources"]
    assert (tmp_path / metadata["code_file"]).exists()


def test_sessions_follow_each_other_until_the_fold_is_here(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    sessions += [output(done=False, step=5), output(done=True, step=9)]
    assert kaggle_push(TRAIN) == 0
    first, second = kaggle.pushed
    assert NAME not in first["kernelDataSources"]
    assert NAME in second["kernelDataSources"], "it goes on from its own last output"
    assert (at("oof") / RUN / "fold0.safetensors").read_bytes() == b"safetensors"
    assert not (at("oof") / RUN / "state").exists(), "the state stays on Kaggle"
    assert kaggle_push(TRAIN) == 0
    assert len(kaggle.pushed) == 2, "what is here is not trained again"


def test_what_an_earlier_call_left_is_taken_up(kaggle: FakeKaggle) -> None:  # noqa: F811
    kaggle.kernel_statuses = [("RUNNING", ""), ("RUNNING", ""), ("COMPLETE", "")]
    kaggle.outputs = output(done=True, step=9)
    assert kaggle_push(TRAIN) == 0
    assert not kaggle.pushed
    assert (at("oof") / RUN / "fold0.json").exists()


def test_the_weekly_quota_ends_it_with_75(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kaggle.gpu_hours = (29.9, 30.0)
    assert kaggle_push(TRAIN) == 75
    assert not kaggle.pushed
    assert "run the same command then" in capsys.readouterr().out


def test_a_session_is_no_longer_than_the_quota(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    kaggle.gpu_hours = (26.0, 30.0)
    sessions.append(output(done=True, step=9))
    kaggle_push(TRAIN)
    assert "max_hours=3.9" in kaggle.pushed[0]["text"]


def test_a_failed_session_is_told_with_the_end_of_its_log(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions.append({})
    run = kaggle.SaveKernel

    def fail(body: Any) -> Any:
        answer = run(body)
        kaggle.kernel_statuses = [("RUNNING", ""), ("ERROR", "Your notebook ran out of memory")]
        kaggle.log = json.dumps([{"stream_name": "stderr", "data": "CUDA out of memory\n"}])
        return answer

    monkeypatch.setattr(kaggle, "SaveKernel", fail)
    with pytest.raises(InputError, match="ran out of memory") as caught:
        kaggle_push(TRAIN)
    assert "CUDA out of memory" in str(caught.value)
    assert not (at("oof") / RUN).exists()


def test_a_session_without_a_step_is_not_repeated_for_ever(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    sessions += [output(done=False, step=5), output(done=False, step=5)]
    with pytest.raises(InputError, match="no step beyond 5"):
        kaggle_push(TRAIN)


def test_the_output_of_another_config_is_left_where_it_is(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    kaggle.faults.clear()
    kaggle.outputs = output(done=True, step=9, changes=("train.lr=5e-3",))
    sessions.append(output(done=True, step=11))
    assert kaggle_push(TRAIN) == 0
    assert NAME not in kaggle.pushed[0]["kernelDataSources"]
    assert "lr: 0.002" in (at("oof") / RUN / "config.yaml").read_text()


def test_an_unknown_source_is_an_error_and_not_a_line(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    sessions.append({})
    kaggle.push_answer = {"invalidKernelSources": ["tester/lesions-prepare-demo"]}
    with pytest.raises(InputError, match="lesions-prepare-demo"):
        kaggle_push(TRAIN)


def test_predictions_come_home_as_the_runs_submission(
    kaggle: FakeKaggle,  # noqa: F811
    sessions: list[dict[str, bytes]],
) -> None:
    kaggle.faults.clear()
    sessions.append({"submission.csv": b"image_name,target\n", "submissions/x.csv": b""})
    kaggle_push(["kernel", "predict", RUN, "--wait"])
    assert (at("submissions") / f"{RUN}.csv").read_bytes() == b"image_name,target\n"
    assert kaggle.pushed[0]["competitionDataSources"] == ["siim-isic-melanoma-classification"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernel"], "say which"),
        (["kernel", "tarin-fold"], "say which"),
        (["kernel", "blend", "effnet_b1"], "two runs"),
        (["kernel", "predict"], "name one run"),
        (["weights"], "name the runs"),
        (["kernel", "train-fold", "no_such"], "no such config"),
    ],
)
def test_a_wrong_order_is_told_before_anything_is_sent(
    kaggle: FakeKaggle,  # noqa: F811
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        kaggle_push(arguments)
    assert not kaggle.pushed
    assert not kaggle.uploads


def test_names_fit_what_kaggle_takes() -> None:
    assert slug("weights", "demo/effnet_b1") == "lesions-weights-demo-effnet-b1"
    with pytest.raises(InputError, match="shorter name"):
        slug("a" * 60)


def test_kaggle_run_walks_from_code_to_folds_and_picks_up(
    kaggle: FakeKaggle,  # noqa: F811
    demo: Path,
) -> None:
    table = (at("input/prepared") / "demo/table.json").read_bytes()
    config = json.loads(table)
    config["config"]["cache"] = "jpeg"
    kaggle.outputs = {"prepared/demo/64/cache.json": b"{}"}
    kaggle.outputs["prepared/demo/table.json"] = json.dumps(config).encode()
    kaggle.outputs |= output(done=True, step=9) | output(done=True, step=9, fold=1)
    environment = os.environ | {
        "FOLDS": "0 1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    }  # fmt: skip

    def walk() -> str:
        done = subprocess.run(
            [CODE / "scripts/kaggle_run.sh", RUN], env=environment, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    walk()
    assert (at("oof") / RUN / "fold0.json").exists()
    assert (at("oof") / RUN / "fold1.json").exists()
    before = len(kaggle.asked("ListKernelSessionOutput"))
    (at("oof") / RUN / "fold1.json").unlink()
    assert "fold1.json is there" in walk()
    assert len(kaggle.datasets["tester/lesions-code"]["versions"]) == 2
    assert len(kaggle.asked("ListKernelSessionOutput")) > before
