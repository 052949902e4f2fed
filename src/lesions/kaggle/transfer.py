"""A file of any size from the network: resumed, checked, and in place only when it is whole."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lesions.errors import InputError
from lesions.files import read_json, write_json
from lesions.kaggle.calls import TRIES, attempt
from lesions.paths import shown

if TYPE_CHECKING:
    from requests import Response

_BLOCK = 2**16  # bytes: what a cut connection loses at most


def at(address: str) -> Callable[[], "Response"]:
    """Opens a plain address, for `fetch`."""

    def opened() -> "Response":
        import requests

        response = requests.get(address, headers={"User-Agent": "lesions/0.1"}, stream=True)
        response.raise_for_status()
        return response

    return opened


def fetch(
    opened: Callable[[], "Response"], path: Path, *, what: str = "", page: str = "", md5: str = ""
) -> str:
    """Download to `path`; returns the sha256. What an earlier attempt left is gone on from.

    `opened` gives the streaming response, anew for every attempt: signed addresses expire. `what`
    begins the messages, `page` is named where the server refuses. InputError where it refuses,
    sends a web page, breaks off again and again (the part is kept), or sends more than the disk
    holds, and where the checksum `md5` is another (the part is removed).
    """
    from requests import ConnectionError, Timeout
    from requests.exceptions import ChunkedEncodingError

    part, mark = _part(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    while failed < TRIES and not _complete(path):
        start = held(path)
        headers = {"Accept-Encoding": "identity"}
        if start:
            # Without If-Range a file that has changed would be glued to the old one's beginning.
            headers |= {"Range": f"bytes={start}-", "If-Range": read_json(mark)["validator"]}
        with attempt(what or path.name, opened, page=page, headers=headers) as response:
            try:
                _receive(response, path)
                break
            except (ConnectionError, Timeout, ChunkedEncodingError):
                # Going forward, however slowly, is no failure.
                failed = 0 if held(path) > start else failed + 1
                time.sleep(2**failed)
    if failed == TRIES:
        raise InputError(
            f"{path.name}: the connection was cut {failed} times without a byte; {held(path):,}"
            " bytes are kept: give the command again to go on"
        )
    sha256 = _digests(part, md5, path)
    part.replace(path)
    mark.unlink(missing_ok=True)
    return sha256


def _part(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.part.json")


def held(path: Path) -> int:
    """Bytes there are already of the file, if it is known which state of it they belong to."""
    part, mark = _part(path)
    if not part.exists() or not mark.exists():
        return 0
    bytes_ = part.stat().st_size
    return bytes_ if bytes_ <= read_json(mark)["size"] else 0


def _complete(path: Path) -> bool:
    return bool(held(path)) and held(path) == read_json(_part(path)[1])["size"]


def _receive(response: "Response", path: Path) -> None:
    """Append the answer's bytes to the part, beside a mark that says what they are a part of."""
    _require_file(response, path)
    part, mark = _part(path)
    start = part.stat().st_size if response.status_code == 206 else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    bar = tqdm(total=total, initial=start, desc=path.name, unit="B", unit_scale=True, disable=None)
    try:
        with bar, part.open("ab") as file:
            # A second download of the same file would write between the lines of this one.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if start == 0:
                mark.unlink(missing_ok=True)
                file.truncate(0)
                # If-Range takes no weak validator; without one a part cannot be gone on from.
                if total and validator and not validator.startswith("W/"):
                    write_json(mark, {"validator": validator, "size": total})
            for block in response.iter_content(_BLOCK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    except BlockingIOError:
        raise InputError(f"{path.name}: another download of it is running: wait for it") from None
    except OSError as error:
        if error.errno is None:
            raise  # the network's, not the disk's
        raise InputError(f"{shown(part)}: cannot be written: {error.strerror}") from error


def _require_file(response: "Response", path: Path) -> None:
    """InputError for a web page in place of the file, and for more than the disk holds."""
    if "text/html" in response.headers.get("Content-Type", ""):
        raise InputError(
            f"{path.name}: the server sent a web page instead of the file (maintenance, or a"
            " network that wants a login): open the address in a browser, then try again"
        )
    length = response.headers.get("Content-Length")
    free = shutil.disk_usage(path.parent).free
    if length and int(length) > free:
        raise InputError(
            f"{path.name}: {int(length):,} bytes to come, {free:,} free in {shown(path.parent)}:"
            " make room, give the command again"
        )


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
