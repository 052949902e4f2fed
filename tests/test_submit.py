"""A submission is checked, sent once, scored and recorded, whatever the network does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import submit as script
from kaggle_fake import TOKEN

from lesions.cli import run
from lesions.errors import InputError
from lesions.evaluation.metrics import roc_auc
from lesions.files import read_csv, sha256, write_csv
from lesions.paths import CODE, at

IDS = [f"ISIC_{i:04d}" for i in range(200)]


@pytest.fixture
def place(root) -> Path:
    """submissions/ with blend.csv and its blend.json, and the competition's sample."""
    (root / "input/isic2020").mkdir(parents=True)
    sample = pd.DataFrame({"image_name": IDS, "target": 0})
    sample.to_csv(root / "input/isic2020/sample_submission.csv", index=False)
    folder = root / "submissions"
    folder.mkdir()
    good().to_csv(folder / "blend.csv", index=False)
    method = {"nested": 0.94, "interval": [0.93, 0.95]}
    blend = {"members": ["a", "b"], "chosen": "mean", "methods": {"mean": method},
             "submission": {"rows": 200, "sha256": sha256(folder / "blend.csv")}}  # fmt: skip
    (folder / "blend.json").write_text(json.dumps(blend))
    return folder


def good() -> pd.DataFrame:
    return pd.DataFrame({"image_name": IDS, "target": np.random.default_rng(0).random(200)})


def send(place: Path, *more: str, name: str = "blend.csv") -> int:
    return script.main([str(place / name), "-m", "two of them", *more])


def check(place: Path, table: pd.DataFrame, *more: str) -> int:
    table.to_csv(place / "mine.csv", index=False)
    return script.main([str(place / "mine.csv"), "--dry-run", *more])


def scores(place: Path) -> pd.DataFrame:
    return pd.read_csv(place / "scores.csv")


def test_a_submission_is_scored_and_recorded(kaggle, place, capsys):
    assert send(place) == 0
    printed = capsys.readouterr().out
    assert "CV 0.9400 (0.9300 to 0.9500) nested, mean of 2" in printed
    assert "5 left today" in printed and "public 0.9321, private 0.9210" in printed
    row = scores(place).iloc[0]
    assert row["sha256"] == sha256(place / "blend.csv")
    assert (row["public"], row["private"], row["cv"]) == (0.9321, 0.921, 0.94)
    assert row["file"] == "submissions/blend.csv" and row["status"] == "complete"
    assert (place / "scores.png").read_bytes().startswith(b"\x89PNG")
    [sent] = kaggle.asked("CreateSubmission")
    assert kaggle.uploads[sent["blobFileTokens"]] == (place / "blend.csv").read_bytes()
    assert sent["submissionDescription"] == f"two of them [{row['sha256'][:8]}]"


def test_a_dry_run_asks_no_server_and_takes_no_estimate_of_another_file(kaggle, place, capsys):
    assert check(place, good(), "--earlier", str(place / "blend.csv")) == 0
    printed = capsys.readouterr().out
    assert "200 rows, 200 values, rank correlation 1.000" in printed
    assert "nothing was sent" in printed
    table = good()
    table.loc[0, "target"] = 0.123
    table.to_csv(place / "blend.csv", index=False)
    assert send(place, "--dry-run") == 0
    assert "CV n/a (blend.json is of another file" in capsys.readouterr().out
    assert not kaggle.requests and not (place / "scores.csv").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.rename(columns={"target": "prob"}), "header is image_name,prob"),
        (lambda t: t.assign(extra=1), "header is image_name,target,extra"),
        (lambda t: t[["target", "image_name"]], "header is target,image_name"),
        (lambda t: t.drop(index=[5]), "missing images: 1 .ISIC_0005"),
        (lambda t: t.replace("ISIC_0005", "ISIC_9999"), "images not in the sample: 1 .ISIC_9999"),
        (lambda t: pd.concat([t, t.tail(2)]), "doubled images: 2 .ISIC_0198, ISIC_0199"),
        (lambda t: t.iloc[::-1], "another order than the sample's, from row 1 on"),
        (lambda t: t.assign(target=t["target"].where(t.index != 7)), "not numbers: 1 .8"),
        (lambda t: t.assign(target=["high"] * 200), "targets are not numbers: 200"),
        (lambda t: t.assign(target=np.where(t.index == 1, np.inf, 0.1)), "are not numbers: 1"),
        (lambda t: t.assign(target=t["target"] * 2 - 0.5), "not within 0 to 1"),
        (lambda t: t.assign(target=0.5), "constant"),
        (lambda t: t.assign(target=t["target"].round(0)), "only 2 distinct targets in 200 rows"),
        (lambda t: t.assign(image_name=t["image_name"].mask(t.index == 3)), "an image_name: 1"),
        (lambda t: t.drop(index=[5]).assign(target=0.5), r"missing images: 1(.|\n)*constant"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_before_any_request(kaggle, place, change, message):
    change(good()).to_csv(place / "mine.csv", index=False)
    with pytest.raises(InputError, match=message):
        send(place, name="mine.csv")
    assert not kaggle.requests


def test_an_inverted_submission_is_refused(kaggle, place, capsys):
    send(place)
    with pytest.raises(InputError, match=r"inverted\? its rank correlation with .* is -1.00"):
        check(place, good().assign(target=lambda t: 1 - t["target"]))
    other = good().assign(image_name=lambda t: "x" + t["image_name"], target=1 - good()["target"])
    other.to_csv(place / "elsewhere.csv", index=False)
    capsys.readouterr()
    (place / "scores.csv").unlink()
    assert check(place, good(), "--earlier", str(place / "elsewhere.csv")) == 0
    assert "correlation" not in capsys.readouterr().out, "other images are not compared"


def test_a_sample_or_an_earlier_file_that_is_damaged_is_named(kaggle, place):
    sample = place / "sample.csv"
    pd.concat([good(), good().tail(2)]).to_csv(sample, index=False)
    with pytest.raises(InputError, match=r"sample has twice: 2 .ISIC_0198, ISIC_0199"):
        check(place, good(), "--sample", str(sample))
    good().assign(target=["high"] * 200).to_csv(sample, index=False)
    with pytest.raises(InputError, match=r"sample\.csv: targets that are not numbers"):
        check(place, good(), "--earlier", str(sample))


def test_the_sample_of_isic_2024_decides_the_header(kaggle, place):
    table, sample = good().rename(columns={"image_name": "isic_id"}), place / "sample.csv"
    with pytest.raises(InputError, match="it must be image_name,target"):
        check(place, table)
    table.assign(target=0.3).to_csv(sample, index=False)
    assert check(place, table, "--sample", str(sample)) == 0
    with pytest.raises(InputError, match="it must be isic_id,target"):
        check(place, good(), "--sample", str(sample))
    with pytest.raises(InputError, match=r"missing images: 1 \(ISIC_0007\)"):
        check(place, table.drop(index=7), "--sample", str(sample))
    table.to_csv(place / "other.csv", index=False)
    with pytest.raises(InputError, match="ISIC 2024"):
        send(place, "--sample", str(sample), name="other.csv")
    assert not kaggle.asked("CreateSubmission")


def test_a_submission_needs_a_message_and_the_sample(kaggle, place):
    with pytest.raises(InputError, match="give -m"):
        script.main([str(place / "blend.csv")])
    with pytest.raises(InputError, match=r"download.py isic2020 --tables-only"):
        send(place, "--sample", str(place / "none.csv"))
    assert not kaggle.requests


def test_the_same_bytes_are_not_sent_twice_unless_asked(kaggle, place, capsys):
    send(place)
    (place / "scores.csv").unlink()  # Kaggle's own list says what was sent
    capsys.readouterr()
    assert send(place) == 0
    printed = capsys.readouterr().out
    assert "--again sends it once more" in printed and "public 0.9321, private 0.9210" in printed
    assert len(kaggle.submissions) == 1 and len(scores(place)) == 1
    assert send(place, "--again") == 0
    assert len(kaggle.submissions) == 2 and len(scores(place)) == 2


def test_what_kaggle_refuses_is_told_and_not_taken_for_sent(kaggle, place):
    kaggle.left = 0
    with pytest.raises(InputError, match="no submission is left today"):
        send(place)
    assert not kaggle.asked("StartSubmissionUpload")
    kaggle.left = 5
    for name, status, told in (
        ("ListSubmissions", 403, "siim-isic-melanoma-classification/rules"),
        ("/upload/", 500, "upload failed, nothing was submitted"),
        ("CreateSubmission", 500, "HTTP 500"),
    ):
        kaggle.fail(name, status)
        with pytest.raises(InputError, match=told):
            send(place)
    assert len(kaggle.asked("CreateSubmission")) == 1
    assert not kaggle.submissions and not (place / "scores.csv").exists()


def test_status_error_exits_with_2_and_the_reason(kaggle, place, capsys):
    kaggle.outcomes = [{"status": "ERROR", "errorDescription": "Evaluation: bad column"}]
    with pytest.raises(SystemExit) as ended:
        run(lambda: send(place))
    assert ended.value.code == 2
    assert "bad column" in capsys.readouterr().err
    assert scores(place)["status"].tolist() == ["error"]
    kaggle.outcomes = [{"status": "COMPLETE", "publicScore": "0.5"}]
    assert send(place) == 0  # not taken for the one that failed
    assert scores(place)["status"].tolist() == ["error", "complete"]


@pytest.mark.parametrize("kind", [500, "lost", "html"])
def test_an_answer_lost_after_it_arrived_is_no_second_submission(kaggle, place, kind):
    kaggle.fail("CreateSubmission", kind)
    real, fault = kaggle.CreateSubmission, kaggle.fault

    def arrives_first(name):
        if name == "CreateSubmission":
            real(kaggle.asked("CreateSubmission")[-1])
        return fault(name)

    kaggle.fault = arrives_first  # type: ignore[method-assign]
    assert send(place) == 0
    assert len(kaggle.submissions) == 1 and len(kaggle.asked("CreateSubmission")) == 1
    assert scores(place)["public"].tolist() == [0.9321]


def test_a_command_that_was_stopped_waits_again_without_sending(kaggle, place):
    with pytest.raises(InputError, match="waits for the score and sends nothing"):
        send(place, "--minutes", "0")
    assert send(place) == 0
    assert len(kaggle.submissions) == 1
    assert scores(place)["status"].tolist() == ["complete"]


def test_waiting_goes_on_while_pending_and_after_too_many_requests(kaggle, place):
    kaggle.outcomes = [{"status": "PENDING"}, {"status": "PENDING"}, *kaggle.outcomes]
    kaggle.fail("GetSubmissionLimits", 429, headers={"Retry-After": "11"})
    assert send(place) == 0
    assert kaggle.waits == [11, 5.0, 7.5, 11.25]


@pytest.mark.slow
def test_a_run_has_its_out_of_fold_auc_as_estimate(trained, monkeypatch, capsys):
    name = at("submissions/tiny.csv")
    name.parent.mkdir(exist_ok=True)
    test = pd.read_csv(at("input/sample/isic2020/sample_submission.csv"))
    test["target"] = np.linspace(0.1, 0.9, len(test))
    test.to_csv(name, index=False)
    sample = ["--sample", str(at("input/sample/isic2020/sample_submission.csv"))]
    record = {"run": "tiny", "sha256": sha256(name)}
    name.with_suffix(".json").write_text(json.dumps(record))
    assert script.main([str(name), "--dry-run", *sample]) == 0
    printed = capsys.readouterr().out
    rows = pd.concat(pd.read_csv(path) for path in sorted(trained.glob("fold*.csv")))
    table = pd.read_csv(at("input/prepared/demo/table.csv")).set_index("image_name")
    own = rows[table.loc[rows["image_name"], "source"].to_numpy() == "isic2020"]
    auc = roc_auc(own["target"].to_numpy() == 1, own["prob"].to_numpy())
    assert f"CV {float(auc):.4f} (" in printed and "out-of-fold, 3 folds of tiny" in printed
    name.with_suffix(".json").write_text(json.dumps(record | {"sha256": "of another"}))
    assert script.main([str(name), "--dry-run", *sample]) == 0
    assert "CV n/a (tiny.json is of another file" in capsys.readouterr().out
    shutil.copy(name, at("submissions/unknown.csv"))
    assert script.main([str(at("submissions/unknown.csv")), "--dry-run", *sample]) == 0
    assert "CV n/a (" in capsys.readouterr().out


def test_the_command_itself_leaves_no_credential_and_no_traceback(kaggle, place):
    kaggle.fail("ListSubmissions", 401, message=f"token {TOKEN} was revoked")
    environment = os.environ | kaggle.environment | {"VERBOSE": "1"}
    command = [sys.executable, str(CODE / "scripts/submit.py"), str(place / "blend.csv"), "-m", "x"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 2
    assert "make a new token" in ended.stderr and "Traceback" not in printed
    assert TOKEN not in printed and "DEBUG" not in printed


def test_scores_that_differ_in_the_last_digit_are_written_apart(tmp_path):
    values = np.nextafter(0.3, np.arange(200) % 2)  # the two neighbours of 0.3
    write_csv(tmp_path / "full.csv", pd.DataFrame({"image_name": IDS, "target": values}))
    assert (read_csv(tmp_path / "full.csv", ["target"])["target"].to_numpy() == values).all()
