"""A submission is checked, sent once, scored and written down, whatever the network does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import submit as script
from kaggle_fake import TOKEN, FakeKaggle

from lesions.cli import run
from lesions.errors import InputError
from lesions.files import sha256
from lesions.kaggle import submit, submit_estimate, submit_scores
from lesions.kaggle.submit_estimate import cv_estimate
from lesions.paths import CODE

IDS = [f"ISIC_{i:04d}" for i in range(200)]


@pytest.fixture
def place(monkeypatch, tmp_path) -> Path:
    """submissions/ with blend.csv and its blend.json, and the sample."""
    folder = tmp_path / "submissions"
    folder.mkdir()
    for module in (submit_estimate, submit_scores):
        monkeypatch.setattr(module, "SUBMISSIONS", folder)
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    monkeypatch.setattr("lesions.paths.ROOT", tmp_path)
    pd.DataFrame({"image_name": IDS, "target": 0}).to_csv(tmp_path / "sample.csv", index=False)
    write(folder / "blend.csv")
    return folder


def write(path: Path, seed: int = 0) -> None:
    target = np.random.default_rng(seed).random(200)
    pd.DataFrame({"image_name": IDS, "target": target}).to_csv(path, index=False)
    method = {"nested": 0.94, "interval": [0.93, 0.95]}
    blend = {"members": ["a", "b"], "chosen": "mean", "methods": {"mean": method},
             "submission": {"rows": 200, "sha256": sha256(path)}}  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(blend))


def send(place: Path, *more: str) -> int:
    arguments = [str(place / "blend.csv"), "-m", "two of them"]
    return script.main([*arguments, "--sample", str(place.parent / "sample.csv"), *more])


def scores(place: Path) -> pd.DataFrame:
    return pd.read_csv(place / "scores.csv")


def test_a_submission_is_scored_and_written_down(kaggle: FakeKaggle, place, capsys):
    assert send(place) == 0
    told = capsys.readouterr().out
    assert "CV 0.9400 [0.9300, 0.9500] (nested, mean of 2)" in told
    assert "5 left today" in told and "public 0.9321, private 0.9210" in told
    row = scores(place).iloc[0]
    assert row["sha256"] == sha256(place / "blend.csv")
    assert (row["public"], row["private"], row["cv"]) == (0.9321, 0.921, 0.94)
    assert row["file"] == "submissions/blend.csv" and row["status"] == "complete"
    assert (place / "scores.png").read_bytes().startswith(b"\x89PNG")
    [sent] = kaggle.asked("CreateSubmission")
    assert kaggle.uploads[sent["blobFileTokens"]] == (place / "blend.csv").read_bytes()
    assert sent["submissionDescription"] == f"two of them [{row['sha256'][:8]}]"


def test_a_dry_run_asks_no_server(kaggle: FakeKaggle, place, capsys):
    assert send(place, "--dry-run") == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert not kaggle.requests and not (place / "scores.csv").exists()


def test_a_wrong_file_is_refused_before_any_request(kaggle: FakeKaggle, place):
    table = pd.read_csv(place / "blend.csv")
    table.iloc[::-1].to_csv(place / "blend.csv", index=False)
    with pytest.raises(InputError, match="another order"):
        send(place)
    assert not kaggle.requests


def test_one_that_is_upside_down_is_refused(kaggle: FakeKaggle, place):
    send(place)
    table = pd.read_csv(place / "blend.csv")
    table.assign(target=1 - table["target"]).to_csv(place / "other.csv", index=False)
    with pytest.raises(InputError, match="inverted"):
        sample = ["--sample", str(place.parent / "sample.csv")]
        script.main([str(place / "other.csv"), "-m", "x", *sample])
    assert len(kaggle.submissions) == 1


def test_without_the_sample_the_next_command_is_named(kaggle, place):
    with pytest.raises(InputError, match=r"download.py isic2020 --tables-only"):
        script.main([str(place / "blend.csv"), "-m", "x", "--sample", str(place / "none.csv")])


def test_the_same_bytes_are_not_sent_twice_unless_asked(kaggle: FakeKaggle, place):
    send(place)
    with pytest.raises(InputError, match=r"public 0.9321, private 0.9210; --again"):
        send(place)
    assert len(kaggle.submissions) == 1
    assert send(place, "--again") == 0
    assert len(kaggle.submissions) == 2 and len(scores(place)) == 2


def test_none_left_is_told_before_anything_is_sent(kaggle: FakeKaggle, place):
    kaggle.left = 0
    with pytest.raises(InputError, match="no submission is left today"):
        send(place)
    assert not kaggle.asked("StartSubmissionUpload")


def test_status_error_exits_with_2_and_the_reason(kaggle: FakeKaggle, place, capsys):
    kaggle.outcomes = [{"status": "ERROR", "errorDescription": "Evaluation: bad column"}]
    with pytest.raises(SystemExit) as ended:
        run(lambda: send(place))
    assert ended.value.code == 2
    assert "bad column" in capsys.readouterr().err
    assert scores(place)["status"].tolist() == ["error"]
    kaggle.outcomes = [{"status": "COMPLETE", "publicScore": "0.5"}]
    assert send(place) == 0  # not taken for the one that failed
    assert scores(place)["status"].tolist() == ["error", "complete"]


def test_a_failed_upload_sends_nothing_and_says_so(kaggle: FakeKaggle, place):
    kaggle.fail("/upload/", 500)
    with pytest.raises(InputError, match="upload failed, nothing was submitted"):
        send(place)
    assert not kaggle.submissions and not (place / "scores.csv").exists()


@pytest.mark.parametrize("kind", [500, "cut", "html"])
def test_an_answer_lost_after_it_arrived_is_no_second_submission(kaggle: FakeKaggle, place, kind):
    real = kaggle.CreateSubmission

    def lost(body):
        real(body)
        return 500

    if kind == 500:
        kaggle.CreateSubmission = lost  # type: ignore[method-assign]
    else:
        kaggle.fail("CreateSubmission", kind)
        original = kaggle.fault

        def fault(name):
            if name == "CreateSubmission":
                real(kaggle.asked("CreateSubmission")[-1])
            return original(name)

        kaggle.fault = fault  # type: ignore[method-assign]
    assert send(place) == 0
    assert len(kaggle.submissions) == 1 and len(kaggle.asked("CreateSubmission")) == 1
    assert scores(place)["public"].tolist() == [0.9321]


def test_one_that_did_not_arrive_is_not_taken_for_sent(kaggle: FakeKaggle, place):
    kaggle.fail("CreateSubmission", 500, times=9)
    with pytest.raises(InputError, match="HTTP 500"):
        send(place)
    assert len(kaggle.asked("CreateSubmission")) == 1 and not (place / "scores.csv").exists()


def test_who_is_stopped_while_waiting_waits_again_without_sending(kaggle: FakeKaggle, place):
    with pytest.raises(InputError, match="waits for the score and sends nothing"):
        send(place, "--minutes", "0")
    assert scores(place)["status"].tolist() == ["pending"]
    assert send(place) == 0
    assert len(kaggle.submissions) == 1
    assert scores(place)["status"].tolist() == ["complete"]


def test_one_that_kaggle_has_but_no_scores_csv_is_not_sent_again(kaggle: FakeKaggle, place):
    send(place)
    (place / "scores.csv").unlink()
    assert send(place) == 0
    assert len(kaggle.submissions) == 1 and len(scores(place)) == 1


def test_a_wait_follows_pending_and_too_many_requests(kaggle: FakeKaggle, place):
    kaggle.outcomes = [{"status": "PENDING"}, {"status": "PENDING"}, *kaggle.outcomes]
    kaggle.fail("GetSubmissionLimits", 429, headers={"Retry-After": "11"})
    assert send(place) == 0
    assert kaggle.waits == [11.0, 5.0, 7.5, 11.25]


def test_rules_not_accepted_name_their_page(kaggle: FakeKaggle, place):
    kaggle.fail("ListSubmissions", 403)
    with pytest.raises(InputError, match="siim-isic-melanoma-classification/rules"):
        send(place)


def test_the_estimate_of_another_blend_is_not_taken(place):
    assert cv_estimate(place / "blend.csv").value == 0.94
    with (place / "blend.csv").open("a") as file:
        file.write("\n")
    assert "of another file" in str(cv_estimate(place / "blend.csv"))


@pytest.mark.slow
def test_a_run_has_its_out_of_fold_auc_as_estimate(trained, place):
    (place / "tiny.csv").write_text("image_name,target\n")
    estimate = cv_estimate(place / "tiny.csv")
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.origin == "out-of-fold, 3 folds of tiny"
    (place / "unknown.csv").write_text("image_name,target\n")
    assert "no CV estimate" in str(cv_estimate(place / "unknown.csv"))


def test_the_command_itself_leaves_no_credential_and_no_traceback(kaggle: FakeKaggle, place):
    kaggle.fail("ListSubmissions", 401, message=f"token {TOKEN} was revoked")
    environment = os.environ | kaggle.environment | {"VERBOSE": "1"}
    command = [sys.executable, str(CODE / "scripts/submit.py"), str(place / "blend.csv"), "-m", "x"]
    ended = subprocess.run(
        [*command, "--sample", str(place.parent / "sample.csv")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 2
    assert "make a new token" in ended.stderr and "Traceback" not in printed
    assert TOKEN not in printed and "DEBUG" not in printed
