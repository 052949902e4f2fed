"""Data sets from their owners into input/: planned, announced, then fetched file by file."""

import fcntl
import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lesions.config import read_yaml
from lesions.data.photographs import extract
from lesions.errors import InputError, listed
from lesions.files import sha256, write_text
from lesions.kaggle.client import COMPETITION, call
from lesions.paths import at, shown

SUMS = "SHA256SUMS"  # as sha256sum writes and checks it
SPARE = 1000  # megabytes of disk that are to stay free
PART = ".part"  # folder of files that are not whole yet
WEB_PAGE = (
    "the server sent a web page instead of the file: maintenance, or a network that wants a login:"
    " open the address in a browser, then try again"
)


@dataclass(frozen=True)
class Step:
    """One file that is still to come: its data set, its entry in downloads.yaml, its path."""

    source: dict[str, Any]
    item: dict[str, Any]
    path: Path


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The data sets of downloads.yaml by name."""
    content = read_yaml(Path(__file__).with_name("downloads.yaml"))
    for item in (item for source in content["sources"].values() for item in source["files"]):
        if "from" in item:
            item["from"] = [
                f"{base}/{item['place']}" for base in content["addresses"][item["from"]]
            ]
    return content["sources"]


def plan(names: Sequence[str], tables_only: bool = False) -> list[Step]:
    """The files of the named data sets that are not here yet; InputError for an unknown name."""
    unknown = [name for name in names if name not in catalogue()]
    if unknown:
        raise InputError(f"{listed(unknown)}: not known; there are {', '.join(catalogue())}")
    steps = []
    for source in (catalogue()[name] for name in dict.fromkeys(names)):
        for item in source["files"]:
            path = at("input", source["folder"], item["name"])
            unpacked = "instead" in item and (path.parent / item["instead"]).exists()
            there = unpacked or (path.exists() and "unpack" not in item)
            photographs = item["megabytes"] > 10
            if not there and not (tables_only and photographs):
                steps.append(Step(source, item, path))
    return steps


def summary(names: Sequence[str], steps: Sequence[Step]) -> str:
    """Each data set's size, licence and owner, and which of its files are still to come."""
    lines = []
    for name in dict.fromkeys(names):
        source, folder = catalogue()[name], at("input", catalogue()[name]["folder"])
        coming = [step.item["name"] for step in steps if step.source is source]
        size = size_text(sum(item["megabytes"] for item in source["files"]))
        lines.append(f"{name}: {size}, {source['licence']}, {source['page']}")
        lines.append(f"  to {shown(folder)}: {listed(coming, 9) or 'everything is here'}")
    return "\n".join(lines)


def require_disk(steps: Sequence[Step]) -> str:
    """The bytes to come and those that are free, in words; InputError where they do not fit."""
    folder = at("input")
    place = shown(folder)
    while not folder.exists():
        folder = folder.parent
    free, items = shutil.disk_usage(folder).free / 1e6, [step.item for step in steps]
    # A zip that is unpacked here takes its size twice; prepare.py unpacks the others.
    needed = sum(item["megabytes"] * (1 + (item.get("unpack") == "all")) for item in items)
    later = sum(item["megabytes"] for item in items if item.get("unpack") != "all")
    words = f"{size_text(needed)} to come, {size_text(free)} free for {place}"
    if later > 10:
        words += f" (scripts/prepare.py will unpack another {size_text(later)})"
    if needed + SPARE > free:
        raise InputError(f"{words}: make room, or make {place} a link to a folder on a larger disk")
    return words


def size_text(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2g} GB"


def download(step: Step) -> str:
    """Fetch one file, check and unpack it; returns its sha256, which is in SHA256SUMS as well."""
    path = step.path
    if not path.exists():
        _fetch(step)
    digest = sha256(path)
    sums = path.with_name(SUMS)
    lines = sums.read_text().splitlines() if sums.exists() else []
    lines = [line for line in lines if line.partition("  ")[2] != path.name]
    write_text(sums, "\n".join([*lines, f"{digest}  {path.name}"]) + "\n")
    if "unpack" in step.item:
        _unpack(path, step.item["unpack"])
    return digest


def _fetch(step: Step) -> None:
    """Download the file beside its place, resuming what an earlier attempt left; move it there.

    The client asks for the rest of a file only where ETag and size are those of its beginning.
    """
    item, part = step.item, step.path.parent / PART / step.path.name
    part.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(part.parent, os.O_RDONLY)
    try:
        # A second download to the same folder would write between the bytes of this one.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rules = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"
        errors = []
        what = f"downloading {item['name']}"
        options: dict[str, Any] = {"path": str(part.parent), "quiet": False}
        if "kaggle" in item:
            # Kaggle sends a larger CSV as a zip that contains only it.
            options |= {"unzip": True, "page": rules}
            call(what, "competition_download_file", COMPETITION, item["name"], **options)
        elif "dataset" in item:
            call(what, "dataset_download_files", item["dataset"], **options)
        for address in item.get("from", []):
            where = f"{what} from {urlsplit(address).hostname}"
            try:
                call(where, "fetch_address", address, part, page=step.source["page"])
                break
            except InputError as error:
                errors.append(str(error))
        else:
            if errors:
                raise InputError("; then ".join(errors))
        _require_content(part, item.get("md5", ""))
        part.replace(step.path)
    except BlockingIOError:
        raise InputError(f"{shown(part)}: another download is running: wait for it") from None
    finally:
        os.close(lock)
        if not any(part.parent.iterdir()):
            part.parent.rmdir()


def _require_content(part: Path, md5: str) -> None:
    """InputError, and the part is removed, for a web page, a damaged zip or another checksum."""
    with part.open("rb") as file:
        start = file.read(256).lstrip().lower()
        file.seek(0)
        found = hashlib.file_digest(file, "md5").hexdigest() if md5 else ""
    problem = ""
    if start.startswith((b"<!doctype html", b"<html")):
        problem = WEB_PAGE
    elif part.suffix == ".zip" and not zipfile.is_zipfile(part):
        problem = "not a whole zip: run the command again"
    elif found != md5:
        problem = (
            f"MD5 {found}, not its publisher's {md5}: run the command again; if it is the same,"
            " the file was changed"
        )
    if problem:
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
