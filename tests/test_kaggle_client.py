"""The genuine `kaggle` client against the fake: every fault is one line, no credential is told."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kaggle_fake import TOKEN, FakeKaggle, forget_client

from lesions.errors import InputError
from lesions.kaggle import client, leaderboard
from lesions.kaggle.calls import cleaned
from lesions.kaggle.transfer import at, fetch
from lesions.paths import CODE

KERNEL = "tester/train-fold"


@pytest.fixture
def dataset(tmp_path) -> Path:
    folder = tmp_path / "code"
    (folder / "src").mkdir(parents=True)
    (folder / "src/module.py").write_text("x = 1")
    (folder / "a.txt").write_text("hello")
    meta = {"id": "tester/lesions-code", "title": "lesions-code", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture
def kernel(tmp_path) -> Path:
    folder = tmp_path / "kernel"
    folder.mkdir()
    (folder / "run.py").write_text("print(1)")
    meta = {"id": KERNEL, "title": "train fold", "code_file": "run.py", "language": "python",
            "kernel_type": "script", "enable_internet": False}  # fmt: skip
    (folder / "kernel-metadata.json").write_text(json.dumps(meta))
    return folder


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        use()
    told = str(error.value)
    assert TOKEN not in told and "sig0nature" not in told and "\n" not in told
    return told


def test_importing_the_layer_neither_imports_nor_authenticates_the_client(kaggle: FakeKaggle):
    code = "import sys, lesions.kaggle.client; assert 'kaggle' not in sys.modules"
    environment = os.environ | kaggle.environment | {"PYTHONPATH": str(CODE / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not kaggle.requests


def test_every_request_of_the_tests_goes_to_the_fake(kaggle: FakeKaggle):
    assert client.username() == "tester"
    assert all(url.startswith("http://localhost/") for _, url, _ in kaggle.requests)
    with pytest.raises(InputError, match="no connection"):
        fetch(at("https://www.kaggle.com/robots.txt"), Path("never"))


def test_without_credentials_the_ways_to_give_them_are_told(kaggle, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    forget_client()
    told = refused(client.username)
    for way in ("KAGGLE_API_TOKEN", "~/.kaggle/access_token", "kaggle.json", "kaggle auth login"):
        assert way in told
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""


def test_a_token_that_is_no_longer_valid_is_no_credential(kaggle: FakeKaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_another0token0of0long0ago")
    forget_client()
    told = refused(client.username)
    assert "no Kaggle credentials that work" in told and "KGAT" not in told


def test_an_older_user_name_and_key_are_taken(kaggle: FakeKaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", "tester")
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef0123456789abcdef")
    forget_client()
    assert client.username() == "tester"
    told = refused(leaderboard.submissions_left)  # the fake knows the token alone
    assert "HTTP 401" in told and "make a new token" in told and "0123456789" not in told


@pytest.mark.parametrize(
    ("kind", "expected", "calls"),
    [
        (401, "make a new token", 1),
        (403, "check owner and name", 1),
        (404, "check the name", 1),
        (429, "too many requests", 4),
        (500, "give the command again later", 4),
        ("cut", "check the network", 4),
        ("html", "perhaps a web page", 1),
    ],
)
@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("GetKernelSessionStatus", lambda: client.kernel_status(KERNEL)),
        ("ListKernelSessionOutput", lambda: client.kernel_output(KERNEL, Path("never"))),
        ("GetAcceleratorQuotaStatistics", client.gpu_hours_left),
        ("GetDatasetStatus", lambda: client.dataset_status("tester/lesions-code")),
    ],
)
def test_each_fault_is_one_line_after_few_tries(
    kaggle: FakeKaggle, capsys, method, use, kind, expected, calls
):
    kaggle.fail(method, kind, times=9)
    assert expected in refused(use)
    assert len(kaggle.asked(method)) == calls
    printed = capsys.readouterr()
    assert TOKEN not in printed.err and printed.out == ""
    assert not Path("never").exists()


def test_a_server_that_repeats_the_token_does_not_get_it_printed(kaggle: FakeKaggle, capsys):
    kaggle.fail("GetSubmissionLimits", 500, times=9, message=f"Bearer {TOKEN} of tester")
    assert "Bearer ***" in refused(leaderboard.submissions_left)
    printed = capsys.readouterr()
    assert "trying again" in printed.err and TOKEN not in printed.err + printed.out


def test_what_may_have_had_an_effect_is_not_sent_twice(kaggle: FakeKaggle, kernel, dataset):
    kaggle.fail("SaveKernel", 500, times=9)
    refused(lambda: client.kernel_push(kernel))
    assert len(kaggle.asked("SaveKernel")) == 1
    kaggle.fail("SaveKernel", 429, headers={"Retry-After": "3"})
    kaggle.faults["SaveKernel"] = kaggle.faults["SaveKernel"][-1:]
    assert client.kernel_push(kernel)[0] == 1
    assert 3.0 in kaggle.waits


def test_signed_addresses_and_headers_are_cleaned(kaggle):
    text = f"at https://x.org/a?X-Goog-Signature=abc with Authorization: Basic abc= and {TOKEN}"
    assert cleaned(text) == "at https://x.org/a with Authorization: Basic *** and ***"


def test_a_data_set_is_made_and_gets_versions(kaggle: FakeKaggle, dataset):
    assert not client.dataset_exists("tester/lesions-code")
    assert client.dataset_create(dataset).endswith("/tester/lesions-code")
    assert client.dataset_exists("tester/lesions-code")
    assert client.dataset_status("tester/lesions-code") == "ready"
    assert client.dataset_version(dataset, "second").endswith("/tester/lesions-code")
    held = kaggle.datasets["tester/lesions-code"]
    assert held["notes"] == ["", "second"]
    for files in held["versions"]:
        assert b"hello" in files and any(content.startswith(b"PK") for content in files)


def test_a_data_set_of_a_taken_name_is_refused(kaggle: FakeKaggle, dataset):
    client.dataset_create(dataset)
    assert "already in use" in refused(lambda: client.dataset_create(dataset))


def test_a_version_of_nothing_is_refused(kaggle: FakeKaggle, dataset):
    assert "HTTP 404" in refused(lambda: client.dataset_version(dataset, "first"))


def test_no_version_is_made_without_a_file_that_could_not_be_sent(kaggle: FakeKaggle, dataset):
    kaggle.fail("/upload/", 500)
    assert "could not be sent" in refused(lambda: client.dataset_create(dataset))
    assert not kaggle.asked("CreateDataset")


def test_a_pushed_kernel_tells_version_and_address(kaggle: FakeKaggle, kernel):
    assert client.kernel_push(kernel) == (1, f"https://www.kaggle.com/code/{KERNEL}")
    assert kaggle.pushed[0]["text"] == "print(1)" and not kaggle.pushed[0]["enableInternet"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": "Maximum weekly GPU quota of 30 hours reached"}, "weekly GPU quota"),
        ({"invalidDatasetSources": ["tester/none"]}, "without tester/none"),
    ],
)
def test_a_push_that_the_client_only_prints_about_is_an_error(
    kaggle: FakeKaggle, kernel, answer, expected
):
    kaggle.push_answer = answer
    assert expected in refused(lambda: client.kernel_push(kernel))


def test_the_status_of_a_kernel_comes_with_the_reason_of_its_failure(kaggle: FakeKaggle):
    kaggle.kernel_statuses = [("RUNNING", ""), ("ERROR", "Your notebook ran out of memory")]
    assert client.kernel_status(KERNEL) == ("running", "")
    assert client.kernel_status(KERNEL) == ("error", "Your notebook ran out of memory")


def test_the_output_of_a_kernel_is_fetched_over_pages(kaggle: FakeKaggle, tmp_path):
    kaggle.outputs = {f"oof/fold{i}.csv": bytes([65 + i]) * 100 for i in range(5)}
    paths = client.kernel_output(KERNEL, tmp_path / "out", lambda name: name != "oof/fold3.csv")
    assert [path.name for path in paths] == [f"fold{i}.csv" for i in (0, 1, 2, 4)]
    assert all(path.read_bytes() == kaggle.outputs[f"oof/{path.name}"] for path in paths)
    assert (tmp_path / "out/train-fold.log").read_text() == "ran"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "c:evil"])
def test_an_output_that_would_land_elsewhere_stops_it_all(kaggle: FakeKaggle, tmp_path, name):
    kaggle.outputs = {"good.csv": b"x", name: b"evil"}
    assert "would land outside" in refused(lambda: client.kernel_output(KERNEL, tmp_path / "out"))
    assert not list(tmp_path.rglob("*"))


def test_an_output_that_is_refused_is_no_file(kaggle: FakeKaggle, tmp_path):
    kaggle.outputs = {"good.csv": b"x"}
    kaggle.fail("/output/", 403)
    refused(lambda: client.kernel_output(KERNEL, tmp_path))
    assert not (tmp_path / "good.csv").exists()


def test_gpu_hours_are_those_left_of_the_week(kaggle: FakeKaggle):
    kaggle.gpu_hours = (28.5, 30.0)
    assert client.gpu_hours_left() == 1.5
