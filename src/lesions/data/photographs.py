"""Find the photographs of a source: in folders, folders by class, or the archive as downloaded.

Archives are unpacked without trusting what they say about themselves.
"""

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.data.columns import Report
from lesions.errors import InputError
from lesions.files import write_text
from lesions.paths import at, shown

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
LARGEST = 200 * 2**30  # bytes unpacked: the competition's own archive has 108 GiB
MOST = 1_000_000  # entries of an archive

# Below a source's folder, as its archive unpacks, or the archive itself: split -> places.
PLACES: dict[str, dict[str, list[str]]] = {
    "isic2017": {"train": ["ISIC-2017_Training_Data", "images", "ISIC-2017_Training_Data.zip"]},
    "isic2018": {"train": ["ISIC2018_Task3_Training_Input", "ISIC2018_Task3_Validation_Input",
                           "images", "ISIC2018_Task3_Training_Input.zip",
                           "ISIC2018_Task3_Validation_Input.zip"]},
    "isic2019": {"train": ["ISIC_2019_Training_Input", "images",
                           "ISIC_2019_Training_Input.zip"]},
    "isic2020": {"train": ["jpeg/train", "train", "ISIC_2020_Training_JPEG.zip"],
                 "test": ["jpeg/test", "test", "ISIC_2020_Test_JPEG.zip"]},
    "ham10000": {"train": ["HAM10000_images_part_1", "HAM10000_images_part_2", "images",
                           "HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip"]},
    "dermamnist": {"train": ["dermamnist*.npz"]},
    "deotte": {"train": ["jpeg-melanoma-*/train", "jpeg-isic2019-*/train", "train"],
               "test": ["jpeg-melanoma-*/test", "test"]},
    "generic": {"train": [""]},
}  # fmt: skip


def image_paths(
    table: pd.DataFrame, reader: str, folder: Path, given: list[Path], report: Report, unpack: bool
) -> pd.Series:
    """The file of each row, by name, in the given folders or zips, else the source's own; or "".

    Subfolders, such as one a diagnosis, are searched; suffixes count in any case. Archives are
    unpacked if `unpack`, and skipped if not. The first place that has an image wins.
    """
    paths = pd.Series("", index=table.index, dtype=object)
    for place in given:
        if not place.exists():
            report.problem(place, "no such image folder or archive")
    places = PLACES.get(reader, PLACES["generic"])
    for split, own in places.items():
        found: dict[str, str] = {}
        for place in given or [path for name in own for path in _matching(folder, name)]:
            if place.suffix not in (".zip", ".npz"):
                found = _images_below(place) | found
            elif unpack and place.is_file():
                try:
                    found = _images_below(unpacked(place)) | found
                except InputError as error:
                    report.add(str(error))
        rows = (table["split"] == split) | (len(places) == 1)
        paths = paths.mask(
            rows, pd.Series([found.get(n, "") for n in table["image_name"]], table.index)
        )
    return paths


def largest_dermamnist(folder: Path) -> Path | None:
    """The npz of the largest images: dermamnist.npz has 28 pixels, dermamnist_224.npz has 224."""

    return max(
        folder.glob("dermamnist*.npz"),
        key=lambda path: int(path.stem.removeprefix("dermamnist").strip("_") or 28),
        default=None,
    )


def unpacked(archive: Path) -> Path:
    """The folder of the images in a zip or a DermaMNIST npz, below input/prepared/unpacked.

    Unpacked once for each state of the file. InputError if the archive is damaged, unpacks to more
    than LARGEST bytes, or has an entry that is a link or would be written elsewhere.
    """
    state = archive.stat()
    # Size and time of change identify the content, whose hash would take minutes.
    mark = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    folder = at("input/prepared/unpacked", archive.stem)
    if (folder / ".from").exists() and (folder / ".from").read_text() == mark:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
        part = Path(work) / "images"
        part.mkdir()
        if archive.suffix == ".npz":
            _write_arrays(archive, part)
        else:
            extract(archive, part, lambda name: name.lower().endswith(SUFFIXES))
        write_text(part / ".from", mark)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    return folder


def extract(archive: Path, target: Path, wanted: Callable[[str], bool]) -> int:
    """Write the wanted entries of a zip below `target`; returns how many there were.

    InputError, before anything is written, for an absolute path, a path that leaves `target`, a
    link, a repeated name, a password, or more than LARGEST bytes in all; and for a damaged entry,
    or one longer than its header says.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
            _require_safe(archive, entries)
            entries = [entry for entry in entries if wanted(entry.filename)]
            for entry in tqdm(entries, f"unpacking {archive.name}", unit="file", disable=None):
                file.extract(entry, target)  # stops at the size that its header says
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InputError(
            f"{shown(archive)}: {error}: damaged or not a zip: download it again"
        ) from error
    return len(entries)


def _matching(folder: Path, pattern: str) -> list[Path]:
    if pattern.endswith(".npz"):
        return [path for path in [largest_dermamnist(folder)] if path]
    return sorted(folder.glob(pattern)) if pattern else [folder]


def _images_below(place: Path) -> dict[str, str]:
    """The path of each image by its name without suffix; the first in the walk's order wins."""
    found: dict[str, str] = {}
    for folder, inner, files in os.walk(place.resolve()):
        inner.sort()
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES):
                found.setdefault(name.rpartition(".")[0], f"{folder}/{name}")
    return found


def _require_safe(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    total, names, problem = sum(entry.file_size for entry in entries), set(), ""
    if len(entries) > MOST:
        problem = f"{len(entries):,} entries, more than {MOST:,}"
    elif total > LARGEST:
        problem = f"{total:,} bytes unpacked, more than {LARGEST:,}"
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        found = {
            "would leave the folder it is unpacked to": name.startswith("/")
            or ".." in name.split("/")
            or bool({"\\", ":", "\0"} & {*name}),
            "is a link or a special file": kind not in (0, stat.S_IFREG),
            "needs a password": entry.flag_bits & 1,
            "is there twice": name.casefold() in names,
        }
        problem = problem or next((f"entry {name!r} {what}" for what in found if found[what]), "")
        names.add(name.casefold())
    if problem:
        raise InputError(f"{shown(archive)}: {problem}: nothing was unpacked")


def _write_arrays(archive: Path, folder: Path) -> None:
    """DermaMNIST's arrays as PNG with the same pixels: dermamnist_<split>_<index>.png."""
    with np.load(archive, allow_pickle=False) as arrays:
        for split in ("train", "val", "test"):
            images = arrays[f"{split}_images"]
            for index, pixels in enumerate(tqdm(images, f"unpacking {split}", disable=None)):
                name = f"dermamnist_{split}_{index:05d}.png"
                if not cv2.imwrite(str(folder / name), pixels[..., ::-1]):
                    raise InputError(f"{shown(folder / name)}: cannot be written")
