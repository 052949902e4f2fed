"""Find the photographs of a source: in folders, folders by class, or the archive as downloaded."""

import filecmp
import lzma
import os
import re
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.data.columns import SPLIT_WORDS, Report
from lesions.errors import InputError, listed
from lesions.files import write_text
from lesions.paths import at, shown

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
LARGEST = 200 * 2**30  # bytes unpacked: the competition's own archive has 108 GiB
HIDDEN = (".", "__MACOSX")  # files and folders that begin so: ._a.jpg, .ipynb_checkpoints
MOST = 1_000_000  # entries of an archive

# Below a source's folder, as its archive unpacks, or the archive itself: split -> places.
PLACES: dict[str, dict[str, list[str]]] = {
    "isic2017": {"train": ["ISIC-2017_Training_Data", "images", "ISIC-2017_Training_Data.zip"]},
    "isic2018": {"train": ["ISIC2018_Task3_*_Input", "images", "ISIC2018_Task3_*_Input.zip"]},
    "isic2019": {"train": ["ISIC_2019_Training_Input", "images", "ISIC_2019_Training_Input.zip"]},
    "isic2020": {"train": ["jpeg/train", "train", "ISIC_2020_Training_JPEG.zip"],
                 "test": ["jpeg/test", "test", "ISIC_2020_Test_JPEG.zip"]},
    "ham10000": {"train": ["HAM10000_images_part_1", "HAM10000_images_part_2", "images",
                           "HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip"]},
}  # fmt: skip


def image_paths(
    table: pd.DataFrame, reader: str, folder: Path, given: list[Path], report: Report, unpack: bool
) -> pd.Series:
    """The file of each row, by name, in the given folders or zips, else the source's own; or "".

    Subfolders, such as one a diagnosis, are searched; suffix and case do not count. A name with
    folders means the file whose path ends like it. Two different photographs of one name are a
    problem, and so are two rows of one photograph. Archives are unpacked if `unpack`; a source's
    own ones only for photographs that do not lie beside them.
    """
    paths = pd.Series("", index=table.index, dtype=object)
    for place in given:
        if not place.exists():
            report.problem(place, "no such image folder or archive")
    places = PLACES.get(reader, {"train": []})
    clashes: list[list[str]] = []
    for split, own in places.items():
        names = table.loc[(table["split"] == split) | (len(places) == 1), "image_name"]
        inside = [path for name in own for path in sorted(folder.glob(name))] if own else [folder]
        wanted = set() if given else {*names.map(_key)}
        found = _files_in(given or inside, wanted, report, unpack)
        files = [_fitting(name, found.get(_key(name), [])) for name in names]
        clashes += [each for each in files if len(each) > 1]
        paths.update(pd.Series([each[0] if each else "" for each in files], names.index, str))
    if clashes:
        one, two = map(shown, clashes[0][:2])
        report.add(
            f"{one} and {two} are different photographs of one name, and so for {len(clashes):,}"
            " names in all: leave one folder out, or name the right one with --images SOURCE=FOLDER"
        )
    for path, rows in table["image_name"].groupby(paths.mask(paths == "")):
        if rows.nunique() > 1:
            report.problem(path, f"is the photograph of {listed(rows)}: keep one row an image")
    return paths


def _files_in(
    places: list[Path], wanted: set[str], report: Report, unpack: bool
) -> dict[str, list[str]]:
    """The image files of each key below folders and in archives.

    Of archives none is opened if not `unpack`, or if all `wanted` keys lie in the places before.
    """
    found: dict[str, list[str]] = {}
    for place in places:
        files: list[str] = []
        if place.suffix.lower() not in (".zip", ".npz"):
            files = images_below(place)
        elif unpack and place.is_file() and not (wanted and wanted <= found.keys()):
            try:
                files = images_below(unpacked(place))
            except InputError as error:
                report.add(str(error))
        for path in files:
            found.setdefault(_key(path), []).append(path)
    return found


def short_names(names: pd.Series) -> pd.Series:
    """The names without folders; with them, such as mel_1, where several files are called alike."""
    short = names.str.split("/").str[-1]
    again = short.duplicated(keep=False) & (short != names)
    parts = names[again].str.split("/")
    levels = takewhile(lambda level: len({*level}) == 1, zip(*parts.str[:-1], strict=False))
    return short.mask(again, parts.str[len(list(levels)) :].str.join("_"))


def images_below(place: Path) -> list[str]:
    """The image files below a folder, sorted, also those in linked folders; no hidden ones."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, inner, files in os.walk(place.resolve(), followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith(HIDDEN))
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above
            inner.clear()
            continue
        seen.add(real)
        shown = (name for name in sorted(files) if not name.startswith(HIDDEN))
        found += [f"{folder}/{name}" for name in shown if name.lower().endswith(SUFFIXES)]
    return found


def class_folders(folder: Path, report: Report) -> pd.DataFrame:
    """A row an image below `folder`: its own folder its diagnosis, one of SPLIT_WORDS its split."""
    files = sorted(Path(path).relative_to(folder.resolve()) for path in images_below(folder))
    rows = []
    for path in files:
        official = [part for part in path.parts[:-1] if part.lower() in SPLIT_WORDS]
        classes = [part for part in path.parts[:-1] if part.lower() not in SPLIT_WORDS]
        test = [SPLIT_WORDS[part.lower()] for part in official] == ["test"]
        label = classes[-1] if classes else "" if test else path.parent.name
        rows.append((path.as_posix(), label, "".join(official[:1])))
    if not any(path.parent.name for path in files):
        report.problem(folder, "no image in a folder of it: give `table`, or folders by class")
        rows = []
    return pd.DataFrame(rows, columns=["image_name", "diagnosis", "official"], dtype=str)


def same_content(one: str, two: str) -> bool:
    """Whether two files hold the same bytes; False if one cannot be read."""
    try:
        return filecmp.cmp(one, two, shallow=False)
    except OSError:
        return False


def dermamnist_file(folder: Path) -> Path | None:
    """The npz of the largest images: dermamnist.npz has 28 pixels, dermamnist_224.npz has 224.

    InputError if the corrected edition lies beside the original one, which has another split.
    """
    paths = sorted(folder.glob("dermamnist*.npz"))
    if len({re.sub(r"_?\d*$", "", path.stem) for path in paths}) > 1:
        names = listed(path.name for path in paths)
        raise InputError(f"{shown(folder)}: {names} are different editions: keep one of them")
    return max(paths, key=lambda path: int(re.sub(r"\D", "", path.stem) or 28), default=None)


def unpacked(archive: Path) -> Path:
    """The folder of the images in a zip or a DermaMNIST npz, below input/prepared/unpacked.

    Unpacked once for each state of the file. InputError if the archive is damaged, unpacks to more
    than LARGEST bytes, or has an entry that is a link or would be written elsewhere.
    """
    state = archive.stat()
    # Size and time of change identify the content, whose hash would take minutes.
    mark = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
    folder = at("input/prepared/unpacked", archive.stem)
    origin = folder / ".from"
    if origin.exists() and origin.read_text().rsplit(" ", 2)[0] != str(archive.resolve()):
        own = sha256(bytes(archive.resolve())).hexdigest()[:8]
        folder = folder.with_name(f"{archive.stem}-{own}")
        origin = folder / ".from"  # another archive of the same name has the plain one
    if origin.exists() and origin.read_text() == mark:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
        part = Path(work) / "images"
        part.mkdir()
        if archive.suffix == ".npz":
            _write_arrays(archive, part)
        elif not extract(archive, part, lambda name: name.lower().endswith(SUFFIXES)):
            inside = [name for name in zipfile.ZipFile(archive).namelist() if name.endswith(".zip")]
            hint = f": unpack {listed(inside)} in it first" if inside else ""
            raise InputError(f"{shown(archive)}: no photograph in it{hint}")
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
            for entry in file.infolist():  # Windows PowerShell 5 writes backslashes
                entry.filename = entry.filename.replace("\\", "/")
            entries = [entry for entry in file.infolist() if not entry.is_dir()]
            _require_safe(archive, entries)
            entries = [entry for entry in entries if wanted(entry.filename)]
            for entry in tqdm(entries, f"unpacking {archive.name}", unit="file", disable=None):
                file.extract(entry, target)  # stops at the size that its header says
    except OSError as error:
        why = f"cannot be unpacked: {error.strerror or error}"
        raise InputError(f"{shown(archive)}: {why}") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, IndexError, UnicodeDecodeError,
            zlib.error, lzma.LZMAError) as error:  # fmt: skip
        why = f"{error}: damaged or not a zip: download it again"
        raise InputError(f"{shown(archive)}: {why}") from error
    return len(entries)


def _key(path: str) -> str:
    """What must be equal in a row's name and a file's: Macs decompose umlauts, cases differ."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
    return unicodedata.normalize("NFC", stem).casefold()


def _fitting(name: str, files: list[str]) -> list[str]:
    """Of files with a row's key those whose path ends most like its name, one of each content."""

    def fit(path: str) -> tuple[int, bool]:
        own = unicodedata.normalize("NFC", path.rpartition(".")[0])
        pairs = zip(name.split("/")[::-1], own.split("/")[::-1], strict=False)
        alike = takewhile(lambda pair: pair[0].casefold() == pair[1].casefold(), pairs)
        return len(list(alike)), own.endswith(name)

    if len(files) > 1:
        best = max(map(fit, files))
        files = [path for path in files if fit(path) == best]
    return files[:1] + [path for path in files[1:] if not same_content(files[0], path)]


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
            or bool({":", "\0"} & {*name}),
            "is a link or a special file": kind not in (0, stat.S_IFREG),
            "needs a password": entry.flag_bits & 1,
            "is there twice": name.casefold() in names,
        }
        problem = problem or next((f"entry {name!r} {what}" for what in found if found[what]), "")
        names.add(name.casefold())
    if problem:
        raise InputError(f"{shown(archive)}: {problem}: nothing was unpacked")


def dermamnist_arrays(archive: Path, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    """The `images` or `labels` of each official part of a DermaMNIST npz; InputError if damaged."""
    for split in ("train", "val", "test"):
        try:
            with np.load(archive, allow_pickle=False) as arrays:
                found = arrays[f"{split}_{kind}"]
            fits = found.shape[3:] == (3,) if kind == "images" else found.max() < 7
            if found.dtype != np.uint8 or not fits:
                raise InputError(f"{split}_{kind}: {found.dtype} {found.shape} are no {kind}")
        except Exception as error:  # zipfile and numpy raise errors of any type for damaged files
            raise InputError(
                f"{shown(archive)}: {error}: damaged, or not DermaMNIST's: download it again"
            ) from error
        yield split, found


def _write_arrays(archive: Path, folder: Path) -> None:
    """DermaMNIST's arrays as PNG with the same pixels: dermamnist_<split>_<index>.png."""
    for split, images in dermamnist_arrays(archive, "images"):
        for index, pixels in enumerate(tqdm(images, f"unpacking {split}", disable=None)):
            path = folder / f"dermamnist_{split}_{index:05d}.png"
            if not cv2.imwrite(str(path), pixels[..., ::-1]):
                raise InputError(f"{shown(path)}: cannot be written")
