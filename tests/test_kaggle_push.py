"""Code, weights and kernels through the genuine client to a local fake of Kaggle's server.

The loop from end to end, with sessions that run, is in test_kernels.py.
"""

import io
import json
import zipfile
from typing import Any

import nbformat
import pytest
from kaggle_push import main as kaggle_push

from lesions.config import dump, load_config
from lesions.errors import InputError
from lesions.files import write_bytes
from lesions.paths import at

RUN = "demo/mobilenetv3"
NAME = "tester/lesions-train-demo-mobilenetv3"
CODE_SET, WEIGHTS = "tester/lesions-code", "tester/lesions-weights-demo-mobilenetv3"
TRAIN = ["kernel", "train", RUN, "--fold", "0", "1", "--wait"]


def output(done: bool, step: int, *changes: str, folds: tuple[int, ...] = (0, 1)) -> dict:
    """The files that a session of `RUN` leaves on Kaggle."""
    files = {"config.yaml": dump(load_config(RUN, changes)).encode()}
    for fold in folds:
        line = json.dumps({"event": "stopped", "step": step}) + "\n"
        files[f"metrics{fold}.jsonl"] = line.encode()
        if done:
            files |= {f"fold{fold}.{kind}": kind.encode() for kind in ("csv", "safetensors")}
            files[f"fold{fold}.json"] = b'{"fold": 0, "images_per_second": 540}'
        else:
            files[f"state/fold{fold}.pt"] = b"state"
    return {f"oof/{RUN}/{name}": content for name, content in files.items()}


pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def sessions(kaggle, monkeypatch) -> list[dict[str, bytes]]:
    """What the sessions to come will leave; each kernel that is run starts the next."""
    to_come: list[dict[str, bytes]] = []
    save = kaggle.SaveKernel

    def run(body: Any) -> Any:
        before = len(kaggle.pushed)
        answer = save(body)
        if len(kaggle.pushed) > before:
            kaggle.outputs = to_come.pop(0)
            kaggle.kernel_statuses = [("QUEUED", ""), ("RUNNING", ""), ("COMPLETE", "")]
        return answer

    monkeypatch.setattr(kaggle, "SaveKernel", run)
    return to_come


def content(held: dict[str, Any]) -> dict[str, bytes]:
    """Files of a data set's last version, by name, unpacked as Kaggle unpacks them."""
    files = {}
    for name, blob in held["versions"][-1].items():
        if not zipfile.is_zipfile(io.BytesIO(blob)):
            files[name] = blob
            continue
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            files |= {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    return files


def test_code_is_sent_once_and_again_after_a_failed_upload_or_a_change(kaggle, root):
    kaggle.fail("/upload", 400, times=99)
    with pytest.raises(InputError, match="Upload unsuccessful"):
        kaggle_push(["code"])
    assert not kaggle.datasets
    kaggle.faults.clear()
    kaggle_push(["code"])
    kaggle_push(["code"])
    held = kaggle.datasets[CODE_SET]
    assert len(held["versions"]) == 1
    table = root / "input/isic2020/ISIC_2020_Training_Duplicates.csv"
    table.parent.mkdir(parents=True)
    table.write_text("image_name_1,image_name_2\n")
    kaggle.lag = 3  # the old version is ready before the new one
    kaggle_push(["code"])
    assert [wait for wait in kaggle.waits if wait == 10] == [10, 10, 10]
    assert len(held["versions"]) == 2 and held["notes"][1].startswith("commit ")
    names = content(held)
    for wanted in ("lesions/paths.py", "effnet_b1.yaml", "train.py", "Training_Duplicates.csv"):
        assert any(name.endswith(wanted) for name in names), wanted
    assert not any("__pycache__" in name for name in names)


def test_a_training_kernel_is_private_offline_limited_and_on_two_t4(kaggle, sessions):
    sessions.append({})
    assert kaggle_push(["kernel", "train", RUN, "--max-hours", "2"]) == 0
    (body,) = kaggle.pushed
    assert body["slug"] == NAME
    assert body["isPrivate"] and body["enableGpu"] and body["enableInternet"] is False
    assert body["machineShape"] == "NvidiaTeslaT4"
    assert body["sessionTimeoutSeconds"] == 2.25 * 3600
    assert body["datasetDataSources"] == [CODE_SET, WEIGHTS]
    assert body["kernelDataSources"] == ["tester/lesions-prepare-demo"]
    text = "".join(cell.source for cell in nbformat.reads(body["text"], as_version=4).cells)
    assert 'session.train("demo/mobilenetv3", folds=None, max_hours=2.0)' in text
    sealed = json.loads(kaggle.datasets[CODE_SET]["versions"][-1]["lesions-set.json"])
    assert f"expected={{'lesions-code': '{sealed['hash']}'," in text


def test_an_unknown_source_is_an_error_before_a_session_starts(kaggle):
    kaggle.push_answer = {"invalidKernelSources": ["tester/lesions-prepare-demo"]}
    with pytest.raises(InputError, match="not started: .*lesions-prepare-demo"):
        kaggle_push(TRAIN)
    assert len(kaggle.asked("SaveKernel")) == 1 and not kaggle.pushed


def ends_for_now(arguments: list[str], capsys: Any) -> str:
    """What the command prints that ends with exit code 75."""
    with pytest.raises(SystemExit) as ended:
        kaggle_push(arguments)
    assert ended.value.code == 75
    return capsys.readouterr().out


def test_two_running_sessions_and_the_weekly_quota_end_it_with_75(kaggle, capsys):
    kaggle.push_answer = {"error": "Maximum batch GPU session count of 2 reached."}
    for arguments in (TRAIN, TRAIN[:-1]):
        assert "When one has ended: run the same command" in ends_for_now(arguments, capsys)
    kaggle.push_answer = {}
    kaggle.gpu_hours = (29.7, 30.0)
    assert "Sat 28 Nov 00:00 UTC" in ends_for_now(TRAIN, capsys)
    assert not kaggle.pushed


def test_a_cut_run_resumes_and_a_session_is_followed_by_its_version(kaggle, sessions, capsys):
    half = output(True, 9, folds=(0,)) | output(False, 5, folds=(1,))
    sessions += [half, output(True, 9)]
    kaggle.log = json.dumps([{"data": "10 images/s: about 1.0 hours left for the run's 2 folds\n"}])
    printed = ends_for_now(TRAIN, capsys)
    assert printed.count(": 10 images/s: about 1.0 hours left") == 1
    assert "not done yet: fold 1" in printed
    version = f"v{kaggle.saved}"
    asked = kaggle.asked("GetKernelSessionStatus")[1:]  # the first: was there one before?
    assert asked and {body["versionLabel"] for body in asked} == {version}
    assert {b["versionLabel"] for b in kaggle.asked("ListKernelSessionOutput")} == {version}
    assert kaggle_push(TRAIN) == 0
    first, second = kaggle.pushed
    assert first["datasetDataSources"] == second["datasetDataSources"] == [CODE_SET, WEIGHTS]
    assert all(NAME not in body["kernelDataSources"] for body in kaggle.pushed)
    assert content(kaggle.datasets[WEIGHTS])[f"{RUN}/state/fold1.pt"] == b"state"
    assert at("oof", RUN, "fold1.safetensors").read_bytes() == b"safetensors"
    assert "540 images/s" in capsys.readouterr().out
    assert kaggle_push(TRAIN) == 0
    assert len(kaggle.pushed) == 2, "what is here is not trained again"


def test_a_session_of_an_earlier_command_is_waited_for_and_fetched(kaggle):
    kaggle.kernels.add(NAME)
    kaggle.kernel_statuses = [("RUNNING", ""), ("RUNNING", ""), ("COMPLETE", "")]
    kaggle.outputs = output(True, 9)
    assert kaggle_push(TRAIN) == 0
    assert not kaggle.pushed and at("oof", RUN, "fold0.json").exists()


def test_state_that_got_less_far_than_here_is_not_fetched(kaggle, sessions):
    for name, blob in (output(False, 7) | {f"oof/{RUN}/state/fold0.pt": b"mine"}).items():
        write_bytes(at(name), blob)
    kaggle.kernels.add(NAME)
    kaggle.outputs = output(False, 5)
    sessions.append(output(True, 9))
    assert kaggle_push(TRAIN) == 0
    assert content(kaggle.datasets[WEIGHTS])[f"{RUN}/state/fold0.pt"] == b"mine"


@pytest.mark.parametrize(("sharing", "hours"), [("1", 3.7), ("2", 1.85)])
def test_sessions_are_no_longer_than_the_quota(kaggle, sessions, sharing, hours):
    kaggle.gpu_hours = (26.0, 30.0)
    sessions.append(output(True, 9))
    kaggle_push([*TRAIN, "--sharing", sharing])
    assert f"max_hours={hours}" in kaggle.pushed[0]["text"]


def test_a_failed_session_is_told_with_its_log_and_its_state_is_kept(kaggle, sessions, monkeypatch):
    sessions.append(output(False, 5))
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
    assert at("oof", RUN, "state/fold0.pt").read_bytes() == b"state"


def test_output_of_another_config_stays_where_it_is(kaggle, sessions):
    kaggle.kernels.add(NAME)
    kaggle.outputs = output(True, 9, "train.lr=5e-3")
    sessions.append(output(True, 11))
    assert kaggle_push(TRAIN) == 0
    assert "lr: 0.002" in at("oof", RUN, "config.yaml").read_text()
    at("oof", RUN, "config.yaml").write_bytes(dump(load_config(RUN, ["train.lr=5e-3"])).encode())
    at("oof", RUN, "fold1.json").unlink()
    kaggle.outputs = output(True, 11)
    with pytest.raises(InputError, match="holds a run with other settings"):
        kaggle_push(TRAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernel"], "say which"),
        (["kernel", "tarin"], "say which"),
        (["kernel", "blend", "effnet_b1"], "two runs"),
        (["kernel", "predict"], "name one run"),
        (["kernel", "predict", RUN], "no fold is here to predict"),
        (["weights"], "name the runs"),
        (["code", "effnet_b1"], "takes no names"),
        (["kernel", "train", "no_such"], "no such config"),
        (["check", "effnet_b1"], "takes no names"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(kaggle, arguments, message):
    with pytest.raises(InputError, match=message):
        kaggle_push(arguments)
    assert not kaggle.pushed and not kaggle.uploads
