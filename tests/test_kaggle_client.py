"""The genuine `kaggle` client against the fake: every fault is one line, no credential is shown."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from kaggle_fake import TOKEN, forget_client

from lesions.errors import InputError
from lesions.kaggle.client import call, cleaned, username
from lesions.paths import CODE

KERNEL = "tester/lesions-train-x"


def message_of(use: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        use()
    message = str(error.value)
    assert TOKEN not in message and "sig0nature" not in message and "\n" not in message
    return message


def limits(**options: Any) -> Any:
    return call("limits", "competition_get_submission_limits", "x", **options)


def test_importing_the_package_neither_imports_nor_authenticates_the_client(kaggle):
    modules = "follow, submit, session"
    code = f"import sys; from lesions.kaggle import {modules}; assert 'kaggle' not in sys.modules"
    environment = os.environ | kaggle.environment | {"PYTHONPATH": str(CODE / "src")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not kaggle.requests


def test_without_a_valid_credential_the_ways_to_give_one_are_named(kaggle, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    forget_client()
    message = message_of(username)
    for way in ("KAGGLE_API_TOKEN", "~/.kaggle/access_token", "kaggle.json", "kaggle auth login"):
        assert way in message
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_another0token0of0long0ago")
    forget_client()
    message = message_of(username)
    assert "no valid Kaggle credentials" in message and "KGAT" not in message


def test_an_older_user_name_and_key_are_taken(kaggle, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", "tester")
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef0123456789abcdef")
    forget_client()
    assert username() == "tester"
    message = message_of(limits)  # the fake knows only the token
    assert "HTTP 401" in message and "make a new token" in message and "0123456789" not in message


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(429, "too many requests"), (500, "try again later"), ("lost", "check the network")],
)
def test_what_may_pass_is_tried_four_times_and_told_in_one_line(kaggle, capsys, kind, expected):
    kaggle.fail("GetSubmissionLimits", kind, times=9, message=f"Bearer {TOKEN} of tester")
    assert expected in message_of(limits)
    assert len(kaggle.asked("GetSubmissionLimits")) == 4
    assert capsys.readouterr() == ("", "")


def test_a_server_that_hangs_is_not_waited_for(kaggle, monkeypatch):
    monkeypatch.setattr("lesions.kaggle.client.TIMEOUT", 0.2)
    release = threading.Event()
    monkeypatch.setattr(kaggle, "GetSubmissionLimits", lambda body: release.wait(20) and {})
    assert "no answer" in message_of(limits)
    release.set()


def test_signed_addresses_and_headers_are_cleaned(kaggle):
    text = f"at https://x.org/a?X-Goog-Signature=abc with Authorization: Basic abc= and {TOKEN}"
    assert cleaned(text) == "at https://x.org/a with Authorization: *** and ***"
