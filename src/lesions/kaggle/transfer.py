"""A file of any size from the network: resumed, checked, and in place only when it is whole."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lesions.errors import InputError
from lesions.files import write_json
from lesions.kaggle.calls import TRIES, attempt
from lesions.paths import shown

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

_BLOCK = 2**20


def at(address: str) -> Callable[[], "PreparedRequest"]:
    """The request of a plain address, for `fetch`."""
    from requests import Request

    return lambda: Request("GET", address).prepare()


def fetch(
    locate: Callable[[], "PreparedRequest"], path: Path, *, page: str = "", md5: str = ""
) -> str:
    """Download to `path`; returns the sha256. What an earlier attempt left is gone on from.

    `locate` gives the request, anew for every attempt: signed addresses expire. InputError where
    the server refuses, sends a web page, or breaks off again and again (the part is kept), and
    where the checksum `md5` is another (the part is removed).
    """
    from requests import ConnectionError, Timeout
    from requests.exceptions import ChunkedEncodingError

    part, mark = _part(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    while failed < TRIES:
        held = _held(path)
        response = attempt(path.name, partial(_send, locate, held, mark), page=page)
        try:
            _receive(response, path)
            break
        except (ConnectionError, Timeout, ChunkedEncodingError):
            # Going forward, however slowly, is no failure.
            failed = 0 if _held(path) > held else failed + 1
            time.sleep(2**failed)
        finally:
            response.close()
    else:
        raise InputError(
            f"{path.name}: the connection was cut {failed} times without a byte; {_held(path):,}"
            " bytes are kept: give the command again to go on"
        )
    sha256 = _digests(part, md5, path)
    part.replace(path)
    mark.unlink(missing_ok=True)
    return sha256


def _part(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")


def _held(path: Path) -> int:
    """Bytes there are already of the file, if it is known which state of it they belong to."""
    part, mark = _part(path)
    return part.stat().st_size if part.exists() and mark.exists() else 0


def _send(locate: Callable[[], "PreparedRequest"], held: int, mark: Path) -> "Response":
    """The server's answer from byte `held` on, or from the start if the file has changed."""
    from requests import Session

    request = locate()
    with Session() as session:
        request.headers["Accept-Encoding"] = "identity"
        if held:
            request.headers["Range"] = f"bytes={held}-"
            request.headers["If-Range"] = json.loads(mark.read_text())["validator"]
        settings = session.merge_environment_settings(request.url or "", {}, True, None, None)
        response = session.send(request, **settings)
        if response.status_code == 416:
            # More is held than there is: from the start.
            del request.headers["Range"], request.headers["If-Range"]
            response = session.send(request, **settings)
        response.raise_for_status()
        return response


def _receive(response: "Response", path: Path) -> None:
    """Append the answer's bytes to the part, beside a mark that says what they are a part of."""
    part, mark = _part(path)
    if "text/html" in response.headers.get("Content-Type", ""):
        raise InputError(
            f"{path.name}: the server sent a web page instead of the file (maintenance, or a"
            " network that wants a login): open the address in a browser, then try again"
        )
    start = part.stat().st_size if response.status_code == 206 else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    if start == 0:
        mark.unlink(missing_ok=True)
        part.write_bytes(b"")
        # If-Range takes no weak validator; without one a part cannot be gone on from.
        if validator and not validator.startswith("W/"):
            write_json(mark, {"validator": validator, "size": total})
    bar = tqdm(total=total, initial=start, desc=path.name, unit="B", unit_scale=True, disable=None)
    try:
        with bar, part.open("ab") as file:
            for block in response.iter_content(_BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is None:
            raise  # the network's, not the disk's
        raise InputError(f"{shown(part)}: cannot be written: {error.strerror}") from error


def _digests(part: Path, md5: str, path: Path) -> str:
    """The part's sha256; InputError, and the part is removed, if its MD5 is another."""
    sha256, known = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with part.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            if md5:
                known.update(block)
    if md5 and known.hexdigest() != md5:
        part.unlink()
        _part(path)[1].unlink(missing_ok=True)
        raise InputError(
            f"{path.name}: MD5 {known.hexdigest()}, not its publisher's {md5}: the download is"
            " removed: give the command again; if it comes again, the file was changed"
        )
    return sha256.hexdigest()
