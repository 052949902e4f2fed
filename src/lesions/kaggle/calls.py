"""One call of the genuine `kaggle` client: a result, or an InputError of one clear line.

The client exits, prints, retries and waits as a command line does, and sets no time limit. Here it
is imported and authenticated by the first call, every fault is told the same way, and nothing that
is printed or raised holds a credential.
"""

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from lesions.errors import InputError

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi
    from requests import Response

T = TypeVar("T")
TRIES = 4
LIMITS = (10.0, 60.0)  # seconds to connect, and between two bytes
LONGEST = 300.0  # seconds that a server may ask us to wait
SETTINGS = "https://www.kaggle.com/settings/api"
NO_CREDENTIALS = (
    "no Kaggle credentials that work: make a token at " + SETTINGS + " and give it in one of these"
    " ways: `export KAGGLE_API_TOKEN=...`; the file ~/.kaggle/access_token; an older"
    " ~/.kaggle/kaggle.json or KAGGLE_USERNAME and KAGGLE_KEY; or `kaggle auth login`"
)


@cache
def connect() -> "KaggleApi":
    """The authenticated client; InputError where there are no credentials that work.

    To be used inside `call`, which quiets it and turns its faults into messages.
    """
    try:
        # VERBOSE=1, which other programs use as well, would print the Authorization header, read
        # whole downloads into memory and turn on every library's debugging output.
        with patch.dict(os.environ):
            for name in ("VERBOSE", "VERBOSE_OUTPUT"):
                os.environ.pop(name, None)
            # Importing it authenticates, prints and asks the server: not before it is needed.
            from kaggle.api.kaggle_api_extended import KaggleApi
    except SystemExit:  # of kaggle 2.0
        raise InputError(NO_CREDENTIALS) from None
    except ModuleNotFoundError as error:
        raise InputError(f"no module {error.name}: pip install 'kaggle>=2.0.2' six") from error
    api = KaggleApi()
    api.MAX_UPLOAD_RESUME_ATTEMPTS = 3
    try:
        api.authenticate()
    except SystemExit:
        raise InputError(NO_CREDENTIALS) from None
    return api


def call(what: str, use: Callable[["KaggleApi"], T], *, page: str = "", repeat: bool = True) -> T:
    """What `use(api)` returns; `what` begins the message where it fails ("submitting x.csv").

    `page` is named where the server answers 403: the rules to be accepted, or what the owner says
    of the file. Without `repeat` only what
    surely had no effect (429) is tried again.
    """
    return attempt(what, lambda: use(connect()), page=page, repeat=repeat)


def attempt(
    what: str,
    send: Callable[[], T],
    *,
    page: str = "",
    repeat: bool = True,
    headers: Mapping[str, str] | None = None,
) -> T:
    """What `send()` returns, tried again after 429, 5xx and a cut connection; see `call`.

    `headers` go with each GET, also with one that the client is redirected to.
    """
    from requests import RequestException

    for left in reversed(range(TRIES)):
        try:
            with _guarded(headers or {}):
                return send()
        except InputError:
            raise
        except (RequestException, ValueError, OSError) as error:
            wait = _wait(error, repeat, TRIES - left)
            happened, advice = _told(error, page, wait)
            if wait is None or wait > LONGEST or not left:
                raise InputError(cleaned(f"{what}: {happened}: {advice}")) from None
            again = f"trying again in {wait:.0f} s"
            print(cleaned(f"{what}: {happened}: {again}"), file=sys.stderr)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def cleaned(text: str) -> str:
    """The text on one line, without tokens, keys and the signed part of addresses."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+", r"\1 ***", text)
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\")]+", r"\1", text)
    text = re.sub(r"(with url: [^\s?]+)\?\S+", r"\1", text)
    return " ".join(text.split())


def _secrets() -> list[str]:
    values = [os.environ.get(name) for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")]
    # The client authenticates an object of its own when it is imported, from the same sources.
    held = getattr(getattr(sys.modules.get("kaggle"), "api", None), "config_values", {})
    values += [held.get(name) for name in ("key", "token", "api_token")]
    return [value for value in values if value and len(value) > 5]


class _Clean(io.TextIOBase):
    """The error stream, with what the client writes to it cleaned."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        for secret in _secrets():
            text = text.replace(secret, "***")
        return int(self.stream.write(text))

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return bool(self.stream.isatty())


@contextmanager
def _guarded(headers: Mapping[str, str]) -> Iterator[None]:
    """The client prints only what is clean, to the error stream, and no wait is without end."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def limited(self: HTTPAdapter, request: Any, *arguments: Any, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or LIMITS
        if request.method == "GET":
            request.headers.update(headers)
        return send(self, request, *arguments, **options)

    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(_Clean(sys.stderr)),
        patch.object(HTTPAdapter, "send", limited),
    ):
        yield


def _response(error: Exception) -> "Response | None":
    """The server's answer behind an error; the client wraps some in a ValueError."""
    for cause in (error, error.__cause__, error.__context__):
        response = getattr(cause, "response", None)
        if response is not None:
            return response
    return None


def _status(response: "Response") -> int:
    """The HTTP status, or the one that stands in the body of an answer with 200."""
    if response.status_code >= 400:
        return response.status_code
    return int(response.json()["code"])


def _wait(error: Exception, repeat: bool, tried: int) -> float | None:
    """Seconds to wait before trying again; None where that would not help or not be safe."""
    from requests import ConnectionError, Timeout
    from requests.exceptions import ChunkedEncodingError

    response = _response(error)
    if response is not None:
        status = _status(response)
        if status == 429:
            return _retry_after(response) or 2.0**tried
        return 2.0**tried if repeat and status >= 500 else None
    cut = isinstance(error, (ConnectionError, Timeout, ChunkedEncodingError))
    return 2.0**tried if repeat and cut else None


def _retry_after(response: "Response") -> float | None:
    """Retry-After in seconds, whether it is a number or a date."""
    from email.utils import parsedate_to_datetime

    value = response.headers.get("Retry-After", "")
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _told(error: Exception, page: str, wait: float | None) -> tuple[str, str]:
    """What happened, and what the user can do about it."""
    from requests import RequestException
    from requests.exceptions import JSONDecodeError

    response = _response(error)
    if response is not None:
        status = _status(response)
        return f"HTTP {status}{_reason(response)}", _advice(status, page, wait)
    if isinstance(error, (json.JSONDecodeError, JSONDecodeError)):
        return "the answer is no JSON, perhaps a web page", (
            "Kaggle is down for maintenance or the network wants a login: open"
            " https://www.kaggle.com in a browser, then give the command again"
        )
    if isinstance(error, RequestException):
        kind = "no answer in time" if "Timeout" in type(error).__name__ else "no connection"
        return f"{kind} ({type(error).__name__})", "check the network, give the command again"
    reason = error.strerror if isinstance(error, OSError) else ""
    return reason or str(error), "put that right, give the command again"


def _advice(status: int, page: str, wait: float | None) -> str:
    if status == 401:
        return f"the credentials were refused: make a new token at {SETTINGS}"
    if status == 403 and page.endswith("/rules"):
        return f"accept the rules in a browser, with the same account: {page}"
    if status in (403, 404) and page and not page.endswith("/rules"):
        return f"the owner may have moved the file: see {page}"
    if status == 403:
        return "this account may not: check owner and name, and that its phone is verified"
    if status == 404:
        return "there is no such thing, or it is private: check the name"
    if status == 429:
        return f"too many requests: give the command again in {wait or 60:.0f} s"
    return "the request was refused" if status < 500 else "give the command again later"


def _reason(response: "Response") -> str:
    try:
        message = str(response.json()["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({message})" if message else ""
