"""The catalogue of published data sets: their files, which are missing, and those that came."""

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lesions.config import read_yaml
from lesions.data.photographs import extract
from lesions.errors import InputError, listed
from lesions.files import sha256, write_text
from lesions.paths import at, shown

SPARE = 1000  # megabytes of disk that are to stay free
WEB_PAGE = "a web page: the server is down, or the network wants a login: open it in a browser"
File = dict[str, Any]  # an entry of downloads.yaml, with its `path` and its source's `page`


def catalogue() -> dict[str, dict[str, Any]]:
    """The data sets of downloads.yaml by name."""
    return read_yaml(Path(__file__).with_name("downloads.yaml"))


def plan(names: Sequence[str], tables_only: bool) -> list[File]:
    """The files of the named data sets that are not here yet; InputError for an unknown name.

    Prints each data set's size, licence and owner, which of its files are to come, and the disk;
    InputError where it is too small.
    """
    known, files = catalogue(), list[File]()
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{listed(unknown)}: not known; there are {', '.join(known)}")
    for name in dict.fromkeys(names):
        source, folder = known[name], at("input", known[name]["folder"])
        coming = [
            file | {"path": folder / file["name"], "page": source["page"]}
            for file in source["files"]
            if not (tables_only and file["megabytes"] > 10)
            and not (folder / file.get("instead", file["name"])).exists()
            and ("unpack" in file or not (folder / file["name"]).exists())
        ]
        size = size_text(sum(file["megabytes"] for file in source["files"]))
        print(f"{name}: {size}, {source['licence']}, {source['page']}")
        coming_names = listed([file["name"] for file in coming], 9)
        print(f"  to {shown(folder)}: {coming_names or 'everything is here'}")
        files += coming
    total, home = sum(file["megabytes"] for file in files), at("input")
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e6
    if files:
        print(f"{size_text(total)} to come, and as much again unpacked; {size_text(free)} free for"
              f" {shown(home)}")  # fmt: skip
    if files and total + SPARE > free:
        raise InputError("make room, or make input a link to a folder on a larger disk")
    return files


def size_text(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2g} GB"


def download(file: File, fetch: Callable[[File, Path], None]) -> str:
    """Fetch one file, check and unpack it; returns its sha256, which is in SHA256SUMS as well.

    A file takes its place when it is whole; an earlier command's part of it, in .part, is resumed.
    """
    path = file["path"]
    part = path.parent / ".part" / path.name
    part.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fetch(file, part)
        _require_content(part, file.get("md5"))
        part.replace(path)
    digest, sums = sha256(path), path.with_name("SHA256SUMS")  # as sha256sum writes and checks it
    lines = sums.read_text().splitlines() if sums.exists() else []
    lines = [line for line in lines if line.partition("  ")[2] != path.name]
    write_text(sums, "\n".join([*lines, f"{digest}  {path.name}"]) + "\n")
    if "unpack" in file:
        _unpack(path, part.with_suffix(""), file["unpack"])
    with suppress(OSError):  # another file's part is in it
        part.parent.rmdir()
    return digest


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
        problem = f"MD5 {found}, not its publisher's {md5}: run the command again"
    else:
        return
    part.unlink()
    raise InputError(f"{part.name}: {problem}; the download is removed")


def _unpack(path: Path, part: Path, how: str) -> None:
    """Put the CSVs beside the zip ("tables"), or a folder of all in its place ("all")."""
    shutil.rmtree(part, ignore_errors=True)
    wanted = (".csv",) if how == "tables" else (".csv", ".jpg", ".jpeg", ".png")
    try:
        extract(path, part, lambda name: name.lower().endswith(wanted))
    except InputError:
        path.unlink()  # it would be taken for a whole one the next time
        raise
    for found in sorted(part.rglob("*.csv")) if how == "tables" else [part]:
        found.replace(path.with_name(found.name))
    if how == "all":
        path.unlink()
    shutil.rmtree(part, ignore_errors=True)
