"""Downloaded archives -> image files, without trusting what an archive says about itself."""

import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from tqdm import tqdm

from lesions.errors import InputError
from lesions.files import write_text
from lesions.paths import at, shown

LARGEST = 200 * 2**30  # bytes unpacked: the competition's own archive has 108 GiB
MOST = 1_000_000  # entries
_BLOCK = 2**20


def unpacked(archive: Path, suffixes: tuple[str, ...], largest: int = LARGEST) -> Path:
    """The folder of the images in a zip or a DermaMNIST npz, below input/prepared/unpacked.

    Unpacked once for each state of the file. InputError if the archive is damaged, unpacks to more
    than `largest` bytes, or has an entry that is a link or would land elsewhere.
    """
    state = archive.stat()
    # The size and time of change are as good as the content here, and the content is gigabytes.
    mark = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    folder = at("input/prepared") / "unpacked" / archive.stem
    if (folder / ".from").exists() and (folder / ".from").read_text() == mark:
        return folder
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        if archive.suffix == ".npz":
            _images_of(archive, part)
        else:
            extract(archive, part, lambda name: name.lower().endswith(suffixes), largest)
        write_text(part / ".from", mark)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def extract(
    archive: Path, target: Path, wanted: Callable[[str], bool], largest: int = LARGEST
) -> int:
    """Write the wanted entries of a zip below `target`; returns how many there were.

    InputError, before anything is written, for an absolute path, a path that leaves `target`, a
    link, a name that is there twice, a password, or more than `largest` bytes in all; and for a
    damaged entry, or one that is longer than it says.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
            _require_safe(archive, entries, largest)
            entries = [entry for entry in entries if wanted(entry.filename)]
            for entry in tqdm(entries, f"unpacking {archive.name}", unit="file", disable=None):
                _write(file, entry, target / entry.filename)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(
            f"{shown(archive)}: {error}: damaged or not a zip: download it again"
        ) from error
    return len(entries)


def _require_safe(archive: Path, entries: list[zipfile.ZipInfo], largest: int) -> None:
    total, seen = 0, set()
    if len(entries) > MOST:
        raise InputError(f"{shown(archive)}: {len(entries):,} entries, more than {MOST:,}")
    for entry in entries:
        name = entry.filename
        path = PurePosixPath(name)
        mode = entry.external_attr >> 16
        what = ""
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
            what = "would leave the folder it is unpacked to"
        elif mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            what = "is a link or a special file"
        elif entry.flag_bits & 1:
            what = "needs a password"
        elif name.casefold() in seen:
            what = "is there twice"
        if what:
            raise InputError(f"{shown(archive)}: entry {name!r} {what}: nothing was unpacked")
        seen.add(name.casefold())
        total += entry.file_size
    if total > largest:
        raise InputError(
            f"{shown(archive)}: {total:,} bytes unpacked, more than {largest:,}: nothing was"
            " unpacked"
        )


def _write(file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with file.open(entry) as source, path.open("xb") as out:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"{entry.filename} is longer than it says")
            out.write(block)


def _images_of(archive: Path, folder: Path) -> None:
    """DermaMNIST's arrays as PNG: <set>_<split>_<index>.png, the same pixels."""
    with np.load(archive, allow_pickle=False) as arrays:
        for split in ("train", "val", "test"):
            images = arrays[f"{split}_images"]
            for index, pixels in enumerate(tqdm(images, f"unpacking {split}", disable=None)):
                name = f"dermamnist_{split}_{index:05d}.png"
                if not cv2.imwrite(str(folder / name), pixels[..., ::-1]):
                    raise InputError(f"{shown(folder / name)}: cannot be written")
