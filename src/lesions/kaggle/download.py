"""Data sets from their owners into input/: planned, announced, then fetched file by file."""

import fcntl
import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lesions.config import read_yaml
from lesions.data.photographs import extract
from lesions.errors import InputError, listed
from lesions.files import sha256, write_text
from lesions.kaggle.client import COMPETITION, RULES, WEB_PAGE, call
from lesions.paths import at, shown

SUMS = "SHA256SUMS"  # as sha256sum writes and checks it
SPARE = 1000  # megabytes of disk that are to stay free
PART = ".part"  # folder of files that are not whole yet


File = dict[str, Any]  # an entry of downloads.yaml, with its `path` and its source's `page`


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The data sets of downloads.yaml by name; a file's `from` is its addresses, in order."""
    content = read_yaml(Path(__file__).with_name("downloads.yaml"))
    for source in content["sources"].values():
        for file in source["files"]:
            bases = content["addresses"].get(file.get("from"), [])
            file["from"] = [f"{base}/{file['place']}" for base in bases]
    return content["sources"]


def sent_tables() -> dict[str, str]:
    """The names of small tables that Kaggle's copies of the data lack, with their sources."""
    return {
        file["name"]: name
        for name, source in catalogue().items()
        for file in source["files"]
        if file.get("sent")
    }


def plan(names: Sequence[str], tables_only: bool) -> list[File]:
    """The files of the named data sets that are not here yet; InputError for an unknown name.

    Prints each data set's size, licence and owner, which of its files are to come, and the disk;
    InputError where it is too small.
    """
    if unknown := [name for name in names if name not in catalogue()]:
        raise InputError(f"{listed(unknown)}: not known; there are {', '.join(catalogue())}")
    files: list[File] = []
    for name in dict.fromkeys(names):
        source = catalogue()[name]
        folder = at("input", source["folder"])
        coming = [
            file | {"path": folder / file["name"], "page": source["page"]}
            for file in source["files"]
            if not _is_here(folder, file) and not (tables_only and file["megabytes"] > 10)
        ]
        size = size_text(sum(file["megabytes"] for file in source["files"]))
        print(f"{name}: {size}, {source['licence']}, {source['page']}")
        coming_names = listed([file["name"] for file in coming], 9)
        print(f"  to {shown(folder)}: {coming_names or 'everything is here'}")
        files += coming
    if files:
        _require_room(files)
    return files


def _is_here(folder: Path, file: File) -> bool:
    if "instead" in file and (folder / file["instead"]).exists():
        return True
    return "unpack" not in file and (folder / file["name"]).exists()


def _require_room(files: Sequence[File]) -> None:
    """Print the disk space that is needed and free; InputError where it is too small."""
    # A zip that is unpacked here takes its size twice; prepare.py unpacks the others.
    here = sum(file["megabytes"] for file in files if file.get("unpack") == "all")
    later = sum(file["megabytes"] for file in files) - here
    place = next(path for path in (at("input"), *at("input").parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e6
    words = (
        f"{size_text(2 * here + later)} to come, {size_text(free)} free for {shown(at('input'))}"
    )
    if later > 10:
        words += f" (scripts/prepare.py will unpack another {size_text(later)})"
    if 2 * here + later + SPARE > free:
        raise InputError(f"{words}: make room, or make input a link to a folder on a larger disk")
    print(words)


def size_text(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2g} GB"


def download(file: File) -> str:
    """Fetch one file, check and unpack it; returns its sha256, which is in SHA256SUMS as well."""
    path = file["path"]
    if not path.exists():
        _fetch(file)
    digest = sha256(path)
    sums = path.with_name(SUMS)
    lines = sums.read_text().splitlines() if sums.exists() else []
    lines = [line for line in lines if line.partition("  ")[2] != path.name]
    write_text(sums, "\n".join([*lines, f"{digest}  {path.name}"]) + "\n")
    if "unpack" in file:
        _unpack(path, file["unpack"])
    return digest


def _fetch(file: File) -> None:
    """Download the file beside its place, resuming what an earlier attempt left; move it there.

    The client asks for the rest of a file only where ETag and size are those of its beginning.
    """
    part = file["path"].parent / PART / file["name"]
    part.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(part.parent, os.O_RDONLY)
    try:
        # A second download to the same folder would write between the bytes of this one.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _request(file, part)
        _require_content(part, file.get("md5"))
        part.replace(file["path"])
    except BlockingIOError:
        raise InputError(f"{shown(part)}: another download is running: wait for it") from None
    finally:
        os.close(lock)
        if not any(part.parent.iterdir()):
            part.parent.rmdir()


def _request(file: File, part: Path) -> None:
    """Have the client download the file, from the first of its addresses that answers."""
    what = f"downloading {file['name']}"
    options: dict[str, Any] = {"path": str(part.parent), "quiet": False}
    if "kaggle" in file:
        # Kaggle sends a larger CSV as a zip that contains only it.
        options |= {"unzip": True, "advice": RULES}
        return call(what, "competition_download_file", COMPETITION, file["name"], **options)
    if "dataset" in file:
        return call(what, "dataset_download_files", file["dataset"], **options)
    moved = dict.fromkeys((403, 404), f"the owner may have moved the file: see {file['page']}")
    errors = []
    for address in file["from"]:
        where = f"{what} from {urlsplit(address).hostname}"
        try:
            return call(where, "fetch_address", address, part, advice=moved)
        except InputError as error:
            errors.append(str(error))
    raise InputError("; then ".join(errors))


def _require_content(part: Path, md5: str | None) -> None:
    """InputError, and the part is removed, for a web page, a damaged zip or another checksum."""
    with part.open("rb") as file:
        start = file.read(256).lstrip().lower()
        file.seek(0)
        found = hashlib.file_digest(file, "md5").hexdigest() if md5 else None
    if start.startswith((b"<!doctype html", b"<html")):
        problem = f"the server sent {WEB_PAGE}"
    elif part.suffix == ".zip" and not zipfile.is_zipfile(part):
        problem = "not a whole zip: run the command again"
    elif found != md5:
        problem = (
            f"MD5 {found}, not its publisher's {md5}: run the command again, or it was changed"
        )
    else:
        return
    part.unlink()
    raise InputError(f"{part.name}: {problem}; the download is removed")


def _unpack(path: Path, how: str) -> None:
    """Put the CSVs beside the zip ("tables"), or make a folder of it ("all")."""
    part = path.with_name(f".{path.stem}.unpacked")
    shutil.rmtree(part, ignore_errors=True)
    wanted = (".csv",) if how == "tables" else (".csv", ".jpg", ".jpeg", ".png")
    try:
        extract(path, part, lambda name: name.lower().endswith(wanted))
        if how == "tables":
            for table in sorted(part.rglob("*.csv")):
                table.replace(path.with_name(table.name))
        else:
            part.replace(path.with_suffix(""))
            path.unlink()
    except InputError:
        path.unlink(missing_ok=True)  # it would be taken for a whole one the next time
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
