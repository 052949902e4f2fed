"""The image cache: every photograph decoded and resized once, row = table row.

A cache is the folder input/prepared/<dataset>/<size>/ with the pixels, as one memory-mapped array
or as packed JPEGs of a tenth of its size; index.csv, the file and the fingerprint behind each row;
and cache.json. It is filled in <size>.part and renamed when complete, so that a folder of the final
name is never half a cache.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BufferedWriter
from math import prod
from os import cpu_count
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.config import PreprocessConfig, saved_preprocess
from lesions.data.decode import VERSION, UnreadableImage, decode
from lesions.data.table import names_hash, prepared
from lesions.errors import InputError
from lesions.files import read_csv, read_json, sha256, write_csv, write_json
from lesions.paths import shown

Mode = Literal["array", "jpeg"]
FILES: dict[Mode, str] = {"array": "images.npy", "jpeg": "images.bin"}
INDEX = ["row", "fingerprint", "bytes", "width", "height", "problem"]
SAVE_EVERY = 1000  # images: what an interrupted build repeats at most
Fact = tuple[int, int, str]  # width, height, problem
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip


class JpegImages:
    """JPEGs of quality 95 without colour subsampling in one file, by row uint8 (S, S, 3)."""

    def __init__(self, folder: Path, size: int):
        self.path, self.index = folder / FILES["jpeg"], folder / "places.npy"
        self.places = np.load(self.index)  # start and length of each row's JPEG in the file
        self.shape = (len(self.places), size, size, 3)
        self.content: np.ndarray | None = None  # each process maps the file for itself
        self.file: BufferedWriter | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> np.ndarray:
        image = cv2.imdecode(self.packed(row), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise InputError(
                f"{shown(self.path)}: row {row} is damaged: delete the folder, prepare"
            )
        return image

    def packed(self, row: int) -> np.ndarray:
        """The bytes of the row's JPEG."""
        if self.content is None:
            self.content = np.memmap(self.path, np.uint8, "r")
        start, length = self.places[row]
        return self.content[start : start + length]

    def __setitem__(self, row: int, packed: Any) -> None:
        if self.file is None:
            os.truncate(self.path, self.places.sum(axis=1).max(initial=0))  # what was not flushed
            self.file = self.path.open("ab")
        self.places[row] = self.file.tell(), len(packed)
        self.file.write(packed)

    def flush(self) -> None:
        if self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
        np.save(self.index, self.places)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"content": None, "file": None}


def open_images(folder: Path, key: dict, how: Literal["r", "r+"] = "r") -> Any:
    """The pixels in `folder` by row, read-only or to be filled; `key` has their mode and size."""
    if key["mode"] == "array":
        try:
            return np.load(folder / FILES["array"], mmap_mode=how)
        except (ValueError, EOFError) as error:
            raise InputError(
                f"{shown(folder)}: damaged ({error}): delete it, make it again"
            ) from error
    return JpegImages(folder, key["size"])


def cached_images(dataset: str, size: int, table: pd.DataFrame) -> np.ndarray:
    """The images of a prepared data set's `table` at `size` pixels; see `load_images`."""
    command = f"python scripts/prepare.py --dataset {dataset} --size {size}"
    return load_images(prepared(dataset) / str(size), table, command)


def load_images(folder: Path, table: pd.DataFrame, command: str) -> np.ndarray:
    """The finished cache of exactly this table: by row uint8 (S, S, 3), read-only.

    It is an array, or for JPEGs an object that is read by row like one. InputError naming `command`
    if there is no cache, or if it belongs to another table, or was made with another preprocessing
    than the table beside it asks for.
    """
    facts = cache_facts(folder)
    if not facts:
        raise InputError(f"{shown(folder)}: no image cache: run {command}")
    key = facts["key"]
    if key["version"] != VERSION or facts["names_hash"] != names_hash(table):
        raise InputError(f"{shown(folder)}: the image cache is of another table: run {command}")
    beside = folder.parent / "table.json"
    config = read_json(beside, ["config"])["config"] if beside.exists() else {}
    if key["preprocess"] != saved_preprocess(config, beside).model_dump():
        raise InputError(f"{shown(folder)}: made with another preprocessing: run {command}")
    return cast(np.ndarray, open_images(folder, key))


def cache_facts(folder: Path) -> dict[str, Any]:
    """The `key`, `names_hash` and `sha256` (of the pixels) of a finished cache; {} without one.

    The key is all that decides the pixels besides the files: the decoder's version, size, mode and
    preprocess, filled in where a cache of an earlier version lacks them.
    """
    if not (folder / "cache.json").exists():
        return {}
    facts = read_json(folder / "cache.json", ["size", "version", "names_hash", "sha256"])
    preprocess = saved_preprocess(facts, folder / "cache.json")
    key = _key(facts["size"], facts.get("mode", "array"), preprocess)
    key["version"] = facts["version"]
    return {"key": key, "names_hash": facts["names_hash"], "sha256": facts["sha256"]}


def fill_cache(
    folder: Path, table: pd.DataFrame, size: int, mode: Mode, preprocess: PreprocessConfig
) -> tuple[pd.DataFrame, np.ndarray]:
    """Decode the photographs at the table's `path`s; `publish_cache` makes them the cache.

    Returns the index and the images. The index has one row a table row: bytes, width, height, and
    the problem of an unreadable file, whose pixels are black ("" for the others). A photograph of
    the same name, bytes and time of change in a finished cache or an interrupted build is not
    decoded again.
    """
    key, part = _key(size, mode, preprocess), _part(folder)
    fingerprints = list(map(_fingerprint, table["image_name"], table["path"]))
    sizes = [int(name.split(" ")[-2]) for name in fingerprints]
    known = _known(folder) if cache_facts(folder).get("key") == key else {}
    if known and list(known) == fingerprints:
        shutil.rmtree(part, ignore_errors=True)
        verify_cache(folder)
        return _read_index(folder), open_images(folder, key)
    done = _open_part(part, fingerprints, key)
    images = open_images(part, key, "r+")
    old: Any = open_images(folder, key) if known else []
    for row, fingerprint in enumerate(fingerprints):
        if row not in done and fingerprint in known:
            place, done[row] = known[fingerprint]
            images[row] = old.packed(place) if mode == "jpeg" else old[place]
    todo = [row for row in range(len(table)) if row not in done]
    paths = table["path"].tolist()

    def one(row: int) -> tuple[Fact, bytes | np.ndarray]:
        try:
            image, (width, height) = decode(Path(paths[row]), size, preprocess)
            fact = width, height, ""
        except UnreadableImage as error:
            image, fact = np.zeros((size, size, 3), np.uint8), (0, 0, str(error))
        if mode == "array":
            return fact, image
        return fact, cv2.imencode(".jpg", image[..., ::-1], JPEG)[1].tobytes()

    bar = tqdm(total=len(todo), desc=f"images at {size} px", unit="image", disable=None)
    with ThreadPoolExecutor(cpu_count()) as pool, bar:
        for start in range(0, len(todo) or 1, SAVE_EVERY):  # saves once if all were copied
            block = todo[start : start + SAVE_EVERY]
            for row, (done[row], packed) in zip(block, pool.map(one, block), strict=True):
                images[row] = packed
                bar.update()
            images.flush()
            rows = [(row, fingerprints[row], sizes[row], *done[row]) for row in sorted(done)]
            write_csv(part / "index.csv", pd.DataFrame(rows, columns=INDEX))
    return _read_index(part), open_images(part, key)


def publish_cache(folder: Path, table: pd.DataFrame) -> None:
    """Replace the cache at `folder` by the filled one, with its checksum."""
    part = _part(folder)
    if not part.exists():
        return
    key = read_json(part / "key.json")
    checksum = sha256(part / FILES[key["mode"]])
    write_json(part / "cache.json", key | {"names_hash": names_hash(table), "sha256": checksum})
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def choose_mode(rows: int, size: int, folder: Path) -> Mode:
    """array, unless it would take over half of the free disk, or more than half of the memory.

    An array larger than memory is read from the disk again in every epoch.
    """
    need = rows * size * size * 3
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists()))
    memory = 4 * need  # where the system does not tell
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "array" if 2 * need < min(free.free, memory) else "jpeg"


def verify_cache(folder: Path) -> None:
    """InputError if the pixels on disk are not those that were written."""
    facts = cache_facts(folder)
    file = folder / FILES[facts["key"]["mode"]]
    if sha256(file) != facts["sha256"]:
        raise InputError(f"{shown(folder)}: {file.name} is damaged: delete the folder and prepare")


def _part(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def _key(size: int, mode: Mode, preprocess: PreprocessConfig) -> dict:
    return {"version": VERSION, "size": size, "mode": mode, "preprocess": preprocess.model_dump()}


def _fingerprint(name: str, path: str) -> str:
    """A photograph's name, bytes and time of change, the latter 0 where there is no file."""
    if not path or not Path(path).exists():
        return f"{name} 0 0"
    stat = Path(path).stat()
    return f"{name} {stat.st_size} {stat.st_mtime_ns}"


def _read_index(folder: Path) -> pd.DataFrame:
    index = read_csv(folder / "index.csv", INDEX, text=("fingerprint", "problem"))
    return index.assign(problem=index["problem"].fillna(""))


def _known(folder: Path) -> dict[str, tuple[int, Fact]]:
    """fingerprint -> row and facts of every photograph in a cache's index."""
    index = _read_index(folder)
    facts = zip(index["width"], index["height"], index["problem"], strict=True)
    return dict(zip(index["fingerprint"], zip(index["row"], facts, strict=True), strict=True))


def _open_part(part: Path, fingerprints: list[str], key: dict) -> dict[int, Fact]:
    """Make the folder to fill; the facts of the rows that an interrupted build has completed."""
    rows, mark = len(fingerprints), part / "key.json"
    if mark.exists() and read_json(mark) == key | {"rows": rows} and (part / "index.csv").exists():
        known = _known(part).items()
        return {row: fact for name, (row, fact) in known if name == fingerprints[row]}
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    file, shape = part / FILES[key["mode"]], (rows, key["size"], key["size"], 3)
    try:
        if key["mode"] == "jpeg":
            file.touch()
            np.save(part / "places.npy", np.zeros((rows, 2), np.int64))
        else:
            np.lib.format.open_memmap(file, "w+", np.uint8, shape)
            # A memory map of a file with holes kills the process when the disk fills.
            if hasattr(os, "posix_fallocate"):
                with file.open("r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    except OSError as error:
        shutil.rmtree(part)
        raise InputError(
            f"{shown(part)}: {error.strerror}: the cache of {rows:,} images at {key['size']} px"
            f" needs {prod(shape) / 2**30:.2f} GiB; `cache: jpeg` in the data set's config about"
            " a tenth of it"
        ) from error
    write_json(mark, key | {"rows": rows})
    return {}
