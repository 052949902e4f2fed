"""Data sets from their owners into input/: planned, told, then fetched file by file."""

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lesions.data.archives import extract
from lesions.errors import InputError, listed
from lesions.files import sha256, write_text
from lesions.kaggle.catalogue import CATALOGUE, Item, Source, told_size
from lesions.kaggle.remote import competition_download, dataset_download
from lesions.kaggle.transfer import at, fetch, held
from lesions.paths import at, shown

SUMS = "SHA256SUMS"  # as sha256sum writes and checks it
SPARE = 2**30  # bytes of disk that are to stay free


@dataclass(frozen=True)
class Step:
    """One file that is still to come, and where it will lie."""

    source: Source
    item: Item
    path: Path

    @property
    def bytes(self) -> int:
        """Still to be written, at the catalogue's rounded size; unpacking takes it twice."""
        whole = int(self.item.megabytes * 1e6)
        return max(0, whole - held(self.path)) + (whole if self.item.unpack == "all" else 0)


def plan(names: Sequence[str], tables_only: bool = False) -> list[Step]:
    """What of the named data sets is not there yet; InputError for a name that is not known."""
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown:
        raise InputError(f"{listed(unknown)}: not known; there are {', '.join(CATALOGUE)}")
    steps = []
    for source in (CATALOGUE[name] for name in dict.fromkeys(names)):
        for item in source.items:
            path = at("input") / source.folder / item.name
            unpacked = item.instead and (path.parent / item.instead).exists()
            there = unpacked or (path.exists() and not item.unpack)
            photographs = item.megabytes > 10
            if not there and not (tables_only and photographs):
                steps.append(Step(source, item, path))
    return steps


def told(names: Sequence[str], steps: Sequence[Step]) -> str:
    """Each data set's size, licence and owner, and what of it is still to come."""
    lines = []
    for name in dict.fromkeys(names):
        source = CATALOGUE[name]
        coming = [step.item.name for step in steps if step.source is source]
        lines += [
            f"{name}: {source.size}, {source.licence}, {source.page}",
            f"  to {shown(at("input") / source.folder)}: {listed(coming, 9) or 'nothing more to come'}",
        ]
    return "\n".join(lines)


def require_disk(steps: Sequence[Step]) -> str:
    """Bytes to come and free, in words; InputError where they do not fit."""
    if not steps:
        return "nothing to download"
    folder = at("input")
    while not folder.exists():
        folder = folder.parent
    needed, free = sum(step.bytes for step in steps), shutil.disk_usage(folder).free
    words = f"{told_size(needed / 1e6)} to come, {told_size(free / 1e6)} free for {shown(at("input"))}"
    zips = sum(step.item.megabytes for step in steps if step.item.megabytes > 10)
    if any(step.item.unpack != "all" for step in steps) and zips:
        words += f" (scripts/prepare.py will unpack another {told_size(zips)})"
    if needed + SPARE > free:
        raise InputError(
            f"{words}: make room, or make {shown(at("input"))} a link to a folder on a larger disk"
        )
    return words


def download(step: Step) -> str:
    """Fetch one file, check and unpack it; returns its sha256, which is in SHA256SUMS as well."""
    item, path = step.item, step.path
    digest = sha256(path) if path.exists() else _fetched(step)
    if path.suffix == ".zip":
        _require_zip(path)
    _record(path, digest)
    if item.unpack:
        _unpack(path, item.unpack)
    return digest


def _fetched(step: Step) -> str:
    item, path = step.item, step.path
    if item.kaggle:
        return _unzipped(path, competition_download(item.name, path))
    if item.dataset:
        return dataset_download(item.dataset, path)
    what = f"downloading {item.name} from {urlsplit(item.address).hostname}"
    return fetch(at(item.address), path, what=what, page=step.source.page, md5=item.md5)


def _unzipped(path: Path, digest: str) -> str:
    """The sha256 of the file itself: Kaggle sends a larger CSV as a zip that holds it alone."""
    if path.suffix == ".zip" or not zipfile.is_zipfile(path):
        return digest
    folder = path.with_name(f".{path.name}.unpacked")
    try:
        extract(path, folder, lambda name: name == path.name)
        if not (folder / path.name).exists():
            raise InputError(f"{shown(path)}: a zip without {path.name}: download it by hand")
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sha256(path)


def _require_zip(path: Path) -> None:
    try:
        zipfile.ZipFile(path).close()
    except zipfile.BadZipFile:
        path.unlink()
        raise InputError(
            f"{shown(path)}: what came is no whole zip; it is removed: give the command again"
        ) from None


def _record(path: Path, digest: str) -> None:
    sums = path.with_name(SUMS)
    lines = sums.read_text().splitlines() if sums.exists() else []
    lines = [line for line in lines if line.partition("  ")[2] != path.name]
    write_text(sums, "\n".join([*lines, f"{digest}  {path.name}"]) + "\n")


def _unpack(path: Path, how: str) -> None:
    """The CSVs beside the zip, or all of it as a folder in place of the zip: see `Item`."""
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
        # It would be taken for a whole one the next time.
        path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
