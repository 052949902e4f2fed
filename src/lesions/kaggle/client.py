"""The genuine `kaggle` client, made quiet: a call returns, or raises an error of one line.

It is imported and authenticated by the first call; nothing raised contains a credential.
"""

import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from lesions.data.downloads import WEB_PAGE, File
from lesions.errors import InputError

COMPETITION = "siim-isic-melanoma-classification"
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
TRIES = 4
TIMEOUT = 60.0  # seconds between two bytes of the server's
SETTINGS = "https://www.kaggle.com/settings/api"
NO_CREDENTIALS = (
    "no valid Kaggle credentials: run `kaggle auth login`; or make a token at " + SETTINGS + " and"
    " `export KAGGLE_API_TOKEN=...` or save it as ~/.kaggle/access_token; an older"
    " ~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY, also work"
)
ADDRESSES = {
    # ISIC's own page has linked the first since September 2025; the second is the older one.
    "isic": ["https://isic-archive.s3.amazonaws.com/challenges",
             "https://isic-challenge-data.s3.amazonaws.com"],
    "dataverse": ["https://dataverse.harvard.edu/api/access/datafile"],
    "zenodo": ["https://zenodo.org/records/10519652/files"],
}  # fmt: skip
ADVICE = {
    401: f"the credentials were refused: make a new token at {SETTINGS}",
    403: "this account has no access: check owner and name, that its phone is verified, and that it"
    f" has accepted the rules: {PAGE}/rules",
    404: "not found, or private: check the name",
    429: "too many requests: try again in a minute",
}


@cache
def connect() -> Any:
    """The authenticated client; InputError without valid credentials. Used inside `call`."""
    try:
        # Importing it authenticates, prints and asks the server: not before it is needed.
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ModuleNotFoundError as error:
        raise InputError(f"no module {error.name}: pip install 'kaggle>=2.2.5' six") from error

    class Api(KaggleApi):
        repeat = True  # without it only what surely had no effect is sent again

        def build_kaggle_client(self) -> Any:
            client = super().build_kaggle_client()
            with client.http_client() as http:  # its session has no time limit
                http._session.send = partial(http._session.send, timeout=TIMEOUT)
            return client

        def _is_retriable(self, error: Exception) -> bool:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            lost = status >= 500 or super()._is_retriable(error)
            return status == 429 or (self.repeat and lost)

        def fetch_address(self, address: str, path: Path, quiet: bool) -> None:
            """Download a file from any server to `path`, resuming what is there of it."""
            headers = {"User-Agent": "lesions/0.1", "Accept-Encoding": "identity"}
            answer = requests.get(address, headers=headers, stream=True, timeout=TIMEOUT)
            answer.raise_for_status()
            self.download_file(answer, str(path), None, quiet, resume=True)

        def find_in_log(self, kernel: str, wanted: str) -> str:
            """The first line of a running session's log with that text, "" if there is none."""
            lines = (str(event.get("data")) for event in self.kernels_logs_stream(kernel))
            return next((line for line in lines if wanted in line), "")

    api = Api()
    try:
        api.authenticate()
    except SystemExit:
        raise InputError(NO_CREDENTIALS) from None
    return api


def call(
    what: str, method: str, *arguments: Any, repeat: bool = True, missing: Any = InputError,
    **options: Any,
) -> Any:  # fmt: skip
    """The result of a method of the client; an error begins with `what` ("submitting x.csv").

    Without `repeat` a call that may have had an effect is not sent again. `missing` is the result,
    not an error, where the server answers 403 or 404, as it does for what does not exist. `quiet`
    False shows progress.
    """
    hidden = io.StringIO()
    bars = sys.stderr if options.get("quiet") is False else hidden
    try:
        with redirect_stdout(hidden), redirect_stderr(bars):
            api: Any = connect()
            api.repeat = repeat and bars is hidden  # a download resumes by itself
            return api.with_retry(getattr(api, method), TRIES)(*arguments, **options)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except (requests.RequestException, ValueError, OSError) as error:
        status, reason = _reason(error)
        if missing is not InputError and status in (403, 404):
            return missing
        raise InputError(cleaned(f"{what}: {reason}")) from None


def fetch(file: File, part: Path) -> None:
    """Have the client download the file to `part`, from the first of its addresses that answers.

    The client asks for the rest of a file only where ETag and size are those of its beginning.
    """
    what, folder = f"downloading {file['name']}", str(part.parent)
    if "kaggle" in file:
        # Kaggle sends a larger CSV as a zip that contains only it.
        return call(what, "competition_download_file", COMPETITION, file["name"], path=folder,
                    quiet=False, unzip=True)  # fmt: skip
    if "dataset" in file:
        return call(what, "dataset_download_files", file["dataset"], path=folder, quiet=False)
    base, _, place = file["from"].partition("/")
    errors = []
    for address in ADDRESSES[base]:
        where = f"{what} from {urlsplit(address).hostname}"
        try:
            return call(where, "fetch_address", f"{address}/{place}", part, quiet=False)
        except InputError as error:
            errors.append(str(error))
    raise InputError(f"{'; then '.join(errors)}; its owner may have moved it: {file['page']}")


def username() -> str:
    """The name of the account that the credentials belong to."""
    return str(call("signing in", "get_config_value", "username"))


def cleaned(text: str) -> str:
    """The text on one line, without tokens and the signed part of addresses."""
    text = re.sub(r"(?i)KGAT_\w+|\b(bearer|basic)\s+[\w.~+/=-]+", "***", text)
    text = re.sub(r"(https?://|with url: )([^\s?'\"]+)\?[^\s'\")]+", r"\1\2", text)
    return " ".join(text.split())


def _reason(error: Exception) -> tuple[int, str]:
    """The HTTP status of the server's answer, or 0, and why there is none that can be used."""
    causes = (error, error.__cause__, error.__context__)  # the client wraps some in a ValueError
    found = (getattr(cause, "response", None) for cause in causes)
    response: Any = next((answer for answer in found if answer is not None), None)
    if response is not None:
        # Kaggle also sends errors with status 200 and the real one in the body.
        status = response.status_code if response.status_code >= 400 else response.json()["code"]
        other = "the request was refused" if status < 500 else "try again later"
        return status, f"HTTP {status} ({str(error)[:200]}): {ADVICE.get(status, other)}"
    if isinstance(error, json.JSONDecodeError):
        return 0, f"the answer is not JSON, perhaps {WEB_PAGE}"
    if isinstance(error, requests.RequestException):
        return 0, f"no answer ({type(error).__name__}): check the network, then try again"
    return 0, str(getattr(error, "strerror", "") or error)
