"""Data sets from their owners into input/: planned, announced, then fetched file by file."""

import fcntl
import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from lesions.data.photographs import extract
from lesions.errors import InputError, listed
from lesions.files import sha256, write_text
from lesions.kaggle.client import COMPETITION, call, patient
from lesions.paths import at, shown

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

SUMS = "SHA256SUMS"  # as sha256sum writes and checks it
SPARE = 2**30  # bytes of disk that are to stay free
RESUMES = 50  # of one download within one command; another command resumes as well
PART = ".part"  # folder of files that are not whole yet


@dataclass(frozen=True)
class Step:
    """One file that is still to come: its data set, its entry in downloads.yaml, its path."""

    source: dict[str, Any]
    item: dict[str, Any]
    path: Path

    @property
    def bytes(self) -> int:
        """Still to be written, by the rounded size; unpacking writes them a second time."""
        whole = int(self.item["megabytes"] * 1e6)
        part = self.path.parent / PART / self.path.name
        there = part.stat().st_size if part.exists() else 0
        return max(0, whole - there) + (whole if self.item.get("unpack") == "all" else 0)


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The data sets of downloads.yaml by name."""
    text = (resources.files("lesions.kaggle") / "downloads.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["sources"]


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
        source = catalogue()[name]
        coming = [step.item["name"] for step in steps if step.source is source]
        size = size_text(sum(item["megabytes"] for item in source["files"]))
        lines += [
            f"{name}: {size}, {source['licence']}, {source['page']}",
            f"  to {shown(at('input', source['folder']))}:"
            f" {listed(coming, 9) or 'everything is here'}",
        ]
    return "\n".join(lines)


def require_disk(steps: Sequence[Step]) -> str:
    """The bytes to come and those that are free, in words; InputError where they do not fit."""
    if not steps:
        return "nothing to download"
    folder = at("input")
    while not folder.exists():
        folder = folder.parent
    needed, free = sum(step.bytes for step in steps), shutil.disk_usage(folder).free
    words = (
        f"{size_text(needed / 1e6)} to come, {size_text(free / 1e6)} free for {shown(at('input'))}"
    )
    zips = [step.item["megabytes"] for step in steps if step.item.get("unpack") != "all"]
    unpacked = sum(megabytes for megabytes in zips if megabytes > 10)
    if unpacked:
        words += f" (scripts/prepare.py will unpack another {size_text(unpacked)})"
    if needed + SPARE > free:
        raise InputError(
            f"{words}: make room, or make {shown(at('input'))} a link to a folder on a larger disk"
        )
    return words


def size_text(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2g} GB"


def download(step: Step) -> str:
    """Fetch one file, check and unpack it; returns its sha256, which is in SHA256SUMS as well."""
    path = step.path
    if not path.exists():
        with _locked(path.parent / PART):
            part = _fetched(step, path.parent / PART)
            _require_content(part, step.item.get("md5", ""))
            part.replace(path)
    digest = sha256(path)
    sums = path.with_name(SUMS)
    lines = sums.read_text().splitlines() if sums.exists() else []
    lines = [line for line in lines if line.partition("  ")[2] != path.name]
    write_text(sums, "\n".join([*lines, f"{digest}  {path.name}"]) + "\n")
    if "unpack" in step.item:
        _unpack(path, step.item["unpack"])
    return digest


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder of parts, made and removed if empty: two downloads would mix their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{shown(folder.parent)}: another download to it is running: wait for it"
            ) from None
        try:
            yield
        finally:
            lock.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


def _fetched(step: Step, folder: Path) -> Path:
    """Download the file into `folder`, resuming what an earlier attempt left there; its path.

    The client asks for the rest of a file only where ETag and size are those of its beginning.
    """
    item = step.item
    what, path = f"downloading {item['name']}", folder / item["name"]

    def of_kaggle(api: "KaggleApi") -> None:
        if item.get("kaggle"):
            # Kaggle sends a larger CSV as a zip that contains only it.
            options: Any = {"path": str(folder), "quiet": False, "unzip": path.suffix != ".zip"}
            api.competition_download_file(COMPETITION, item["name"], **options)
        else:
            api.dataset_download_files(item["dataset"], path=str(folder), quiet=False)

    if item.get("kaggle") or "dataset" in item:
        rules = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"
        call(what, of_kaggle, page=rules if item.get("kaggle") else "")
        return path
    place = f"{item['path']}/{item['name']}" if "path" in item else item["file"]
    addresses = [f"{base}/{place}" for base in item["from"]]
    for address in addresses:
        try:
            where = f"{what} from {urlsplit(address).hostname}"
            call(where, lambda api, a=address: _get(api, a, path), page=step.source["page"])
            break
        except InputError as error:
            if address == addresses[-1]:
                raise
            print(f"{error}; trying the next address")
    return path


def _get(api: "KaggleApi", address: str, path: Path) -> None:
    import requests

    with patient(requests.Session()) as session:
        headers = {"User-Agent": "lesions/0.1", "Accept-Encoding": "identity"}
        response = session.get(address, headers=headers, stream=True)
        response.raise_for_status()
        if "text/html" in response.headers.get("Content-Type", ""):
            raise InputError(WEB_PAGE)
        api.download_file(response, str(path), None, quiet=False, resume=True, max_retries=RESUMES)


WEB_PAGE = (
    "the server sent a web page instead of the file: maintenance, or a network that wants a login:"
    " open the address in a browser, then try again"
)


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
