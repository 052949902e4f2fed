"""Data sets from their owners into input/: planned, announced, then fetched file by file."""

import fcntl
import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
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


class Step(NamedTuple):
    """One file that is still to come: its data set, its entry in downloads.yaml, its path."""

    source: dict[str, Any]
    item: dict[str, Any]
    path: Path


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The data sets of downloads.yaml by name; a file's `from` is its addresses, in order."""
    content = read_yaml(Path(__file__).with_name("downloads.yaml"))
    for item in (item for source in content["sources"].values() for item in source["files"]):
        if "from" in item:
            bases = content["addresses"][item["from"]]
            item["from"] = [f"{base}/{item['place']}" for base in bases]
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
    """Each data set's size, licence and owner, which of its files are to come, and the disk.

    InputError where the disk is too small.
    """
    lines = []
    for name in dict.fromkeys(names):
        source, folder = catalogue()[name], at("input", catalogue()[name]["folder"])
        coming = [step.item["name"] for step in steps if step.source is source]
        size = size_text(sum(item["megabytes"] for item in source["files"]))
        lines.append(f"{name}: {size}, {source['licence']}, {source['page']}")
        lines.append(f"  to {shown(folder)}: {listed(coming, 9) or 'everything is here'}")
    if not steps:
        return "\n".join(lines)
    # A zip that is unpacked here takes its size twice; prepare.py unpacks the others.
    here = sum(step.item["megabytes"] for step in steps if step.item.get("unpack") == "all")
    needed = here + sum(step.item["megabytes"] for step in steps)
    later = needed - 2 * here
    place = next(path for path in (at("input"), *at("input").parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e6
    words = f"{size_text(needed)} to come, {size_text(free)} free for {shown(at('input'))}"
    if later > 10:
        words += f" (scripts/prepare.py will unpack another {size_text(later)})"
    if needed + SPARE > free:
        raise InputError(f"{words}: make room, or make input a link to a folder on a larger disk")
    return "\n".join([*lines, words])


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
    part = step.path.parent / PART / step.path.name
    part.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(part.parent, os.O_RDONLY)
    try:
        # A second download to the same folder would write between the bytes of this one.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _request(step, part)
        _require_content(part, step.item.get("md5", ""))
        part.replace(step.path)
    except BlockingIOError:
        raise InputError(f"{shown(part)}: another download is running: wait for it") from None
    finally:
        os.close(lock)
        if not any(part.parent.iterdir()):
            part.parent.rmdir()


def _request(step: Step, part: Path) -> None:
    """Have the client download the file, from the first of its addresses that answers."""
    item, what = step.item, f"downloading {step.item['name']}"
    options: dict[str, Any] = {"path": str(part.parent), "quiet": False}
    if "kaggle" in item:
        # Kaggle sends a larger CSV as a zip that contains only it.
        options |= {"unzip": True, "page": RULES}
        call(what, "competition_download_file", COMPETITION, item["name"], **options)
    elif "dataset" in item:
        call(what, "dataset_download_files", item["dataset"], **options)
    errors = []
    for address in item.get("from", []):
        where = f"{what} from {urlsplit(address).hostname}"
        try:
            return call(where, "fetch_address", address, part, page=step.source["page"])
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("; then ".join(errors))


def _require_content(part: Path, md5: str) -> None:
    """InputError, and the part is removed, for a web page, a damaged zip or another checksum."""
    with part.open("rb") as file:
        start = file.read(256).lstrip().lower()
        file.seek(0)
        found = hashlib.file_digest(file, "md5").hexdigest() if md5 else ""
    problem = ""
    if start.startswith((b"<!doctype html", b"<html")):
        problem = f"the server sent {WEB_PAGE}"
    elif part.suffix == ".zip" and not zipfile.is_zipfile(part):
        problem = "not a whole zip: run the command again"
    elif found != md5:
        problem = (
            f"MD5 {found}, not its publisher's {md5}: run the command again, or it was changed"
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
