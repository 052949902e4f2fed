"""The genuine `kaggle` client, made quiet and patient: a call returns, or raises a one-line error.

The client prints, exits and waits without a limit, as a command line does. Here it is imported and
authenticated by the first call, and nothing that is printed or raised contains a credential.
"""

import io
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from lesions.errors import InputError

COMPETITION = "siim-isic-melanoma-classification"
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
TRIES = 4
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two bytes
LONGEST_WAIT = 300.0  # seconds that a server may ask us to wait
RESUMES = 50  # of one download within one command; another command resumes as well
SETTINGS = "https://www.kaggle.com/settings/api"
NO_CREDENTIALS = (
    "no valid Kaggle credentials: run `kaggle auth login`; or make a token at " + SETTINGS + " and"
    " `export KAGGLE_API_TOKEN=...` or save it as ~/.kaggle/access_token; an older"
    " ~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY, also work"
)
WEB_PAGE = (
    "a web page: the server is down for maintenance, or the network wants a login: open the"
    " address in a browser, then try again"
)
ADVICE = {
    401: f"the credentials were refused: make a new token at {SETTINGS}",
    403: "this account has no access: check owner and name, and that its phone is verified",
    404: "not found, or private: check the name",
    429: "too many requests: try again in a minute",
}
RULES = {403: f"accept the rules in a browser, with the same account: {PAGE}/rules"}


@cache
def connect() -> Any:
    """The authenticated client; InputError without valid credentials. Used inside `call`."""
    for name in ("VERBOSE", "VERBOSE_OUTPUT"):
        os.environ.pop(name, None)  # of other programs; here it would print the credentials
    try:
        # Importing it authenticates, prints and asks the server: not before it is needed.
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ModuleNotFoundError as error:
        raise InputError(f"no module {error.name}: pip install 'kaggle>=2.2.5' six") from error

    class Api(KaggleApi):
        MAX_UPLOAD_RESUME_ATTEMPTS = 3
        repeat = True

        def build_kaggle_client(self) -> Any:
            client = super().build_kaggle_client()
            # Its session has no time limit and no retries, and no option for them.
            with client.http_client() as http:
                _patient(http._session, self.repeat)
            return client

        def fetch_address(self, address: str, path: Path) -> None:
            """Download a file from any server to `path`, resuming what is there of it."""
            headers = {"User-Agent": "lesions/0.1", "Accept-Encoding": "identity"}
            with _patient(requests.Session()) as session:
                answer = session.get(address, headers=headers, stream=True)
                answer.raise_for_status()
                self.download_file(answer, str(path), None, False, True, max_retries=RESUMES)

    api = Api()
    try:
        api.authenticate()
    except SystemExit:
        raise InputError(NO_CREDENTIALS) from None
    return api


class _Adapter(HTTPAdapter):
    def send(self, *arguments: Any, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or TIMEOUT
        return super().send(*arguments, **options)


class _Retries(Retry):
    def sleep_for_retry(self, response: Any) -> bool:
        seconds = self.get_retry_after(response) or 0
        if seconds > LONGEST_WAIT:
            raise InputError(f"too many requests: run the command again in {seconds:.0f} s")
        print(f"HTTP {response.status} from the server: trying again", file=sys.stderr)
        return super().sleep_for_retry(response)


def _patient(session: requests.Session, repeat: bool = True) -> requests.Session:
    """The session with time limits, and retries after 429, 5xx and lost connections.

    Without `repeat` only what surely had no effect is sent again.
    """
    lost = TRIES - 1 if repeat else 0  # behind a proxy a lost answer counts as `other`
    retries = _Retries(
        TRIES - 1, read=lost, other=lost, backoff_factor=1, raise_on_status=False,
        allowed_methods=None,  # every call of Kaggle's is a POST
        status_forcelist=(429, 500, 502, 503, 504) if repeat else (429,),
    )  # fmt: skip
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(max_retries=retries))
    return session


def call(
    what: str, method: str, *arguments: Any, advice: Mapping[int, str] = MappingProxyType({}),
    repeat: bool = True, missing: Any = InputError, **options: Any,
) -> Any:  # fmt: skip
    """The result of a method of the client; an error begins with `what` ("submitting x.csv").

    `advice` says by HTTP status what helps, in place of ADVICE. Without `repeat` a call that may
    have had an effect is not sent again. `missing` is the result, not an error, where the server
    answers 403 or 404, as it does for what does not exist.
    """
    try:
        with redirect_stdout(io.StringIO()):
            api: Any = connect()
            api.repeat = repeat
            return getattr(api, method)(*arguments, **options)
    except InputError as error:
        raise InputError(cleaned(f"{what}: {error}")) from None
    except (requests.RequestException, ValueError, OSError) as error:
        status, reason = _reason(error, advice)
        if missing is not InputError and status in (403, 404):
            return missing
        raise InputError(cleaned(f"{what}: {reason}")) from None


def username() -> str:
    """The name of the account that the credentials belong to."""
    return str(call("signing in", "get_config_value", "username"))


def cleaned(text: str) -> str:
    """The text on one line, without tokens, keys and the signed part of addresses."""
    values = [os.environ.get(name) for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")]
    # The client authenticates an object of its own when it is imported, from the same sources.
    held = getattr(getattr(sys.modules.get("kaggle"), "api", None), "config_values", {})
    values += [held.get(name) for name in ("key", "token", "api_token")]
    for secret in (value for value in values if value and len(value) > 5):
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+", r"\1 ***", text)
    text = re.sub(r"(https?://|with url: )([^\s?'\"]+)\?[^\s'\")]+", r"\1\2", text)
    return " ".join(text.split())


def _reason(error: Exception, advice: Mapping[int, str]) -> tuple[int, str]:
    """The HTTP status of the server's answer, or 0, and why there is none that can be used."""
    causes = (error, error.__cause__, error.__context__)  # the client wraps some in a ValueError
    answers = (getattr(cause, "response", None) for cause in causes)
    response: Any = next((answer for answer in answers if answer is not None), None)
    if response is not None:
        try:
            body = response.json()
        except ValueError:
            body = {}
        # Kaggle also sends errors with status 200 and the real one in the body.
        status = response.status_code if response.status_code >= 400 else body["code"]
        message = f" ({str(body['message'])[:200]})" if body.get("message") else ""
        other = "the request was refused" if status < 500 else "try again later"
        return status, f"HTTP {status}{message}: {(ADVICE | {**advice}).get(status, other)}"
    if isinstance(error, json.JSONDecodeError):
        return 0, f"the answer is not JSON, perhaps {WEB_PAGE}"
    if isinstance(error, requests.RequestException):
        kind = "no answer in time" if "Timeout" in type(error).__name__ else "no connection"
        return 0, f"{kind} ({type(error).__name__}): check the network, then try again"
    return 0, str(getattr(error, "strerror", "") or error)
