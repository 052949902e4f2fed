"""The image cache: every photograph decoded and resized once, row = table row.

A cache is the folder input/prepared/<dataset>/<size>/ with images.npy (uint8 (N, S, S, 3), RGB),
index.csv, which says what each row was made from, and cache.json. It is made in <size>.part and
renamed when it is whole, so that what carries the name is never half a cache.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.data.decode import VERSION, UnreadableImage, decode
from lesions.data.table import names_hash
from lesions.errors import InputError
from lesions.files import read_csv, read_json, sha256, write_csv, write_json
from lesions.paths import shown

INDEX = ["row", "fingerprint", "bytes", "width", "height", "problem"]
SAVE_EVERY = 1000  # images: what an interrupted build does again at most


def load_images(folder: Path, table: pd.DataFrame, command: str) -> np.ndarray:
    """The finished cache of exactly this table: uint8 (N, S, S, 3), memory-mapped, read-only.

    InputError naming `command` if there is none, or if it belongs to another table.
    """
    if not (folder / "cache.json").exists():
        raise InputError(f"{shown(folder)}: no image cache: run {command}")
    facts = read_json(folder / "cache.json")
    if facts["version"] != VERSION or facts["names_hash"] != names_hash(table):
        raise InputError(f"{shown(folder)}: the image cache is of another table: run {command}")
    return np.load(folder / "images.npy", mmap_mode="r")


def build_cache(folder: Path, table: pd.DataFrame, size: int) -> pd.DataFrame:
    """Make or complete the cache of `table`, whose `path` says where each photograph lies.

    Returns the index, one row a table row: bytes, width, height, and the problem of an unreadable
    file, whose pixels are black ("" for the others). A row made before from the same file (name,
    bytes, time of change) is not decoded again, be it in a finished cache or an interrupted one.
    """
    index = fill_cache(folder, table, size)
    publish_cache(folder, table, size)
    return index


def fill_cache(folder: Path, table: pd.DataFrame, size: int) -> pd.DataFrame:
    """`build_cache` without the last step: the cache that carries the name stays as it is."""
    fingerprints, sizes = _fingerprints(table)
    index = _read_index(folder)
    if (folder / "cache.json").exists() and index["fingerprint"].tolist() == fingerprints:
        return index
    part = _part(folder)
    images = _open_part(part, table, size)
    facts = _copy_known(images, fingerprints, [part, folder])
    todo = [row for row in range(len(table)) if row not in facts]
    paths = table["path"].tolist()

    def one(row: int) -> tuple[int, int, str]:
        try:
            images[row], (width, height) = decode(Path(paths[row]), size)
        except UnreadableImage as error:
            images[row] = 0
            return 0, 0, str(error)
        return width, height, ""

    def save() -> pd.DataFrame:
        images.flush()
        rows = [(row, fingerprints[row], sizes[row], *facts[row]) for row in sorted(facts)]
        index = pd.DataFrame(rows, columns=INDEX)
        write_csv(part / "index.csv", index)
        return index

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(todo), desc=f"images at {size} px", unit="image", disable=None) as bar,
    ):
        for start in range(0, len(todo), SAVE_EVERY):
            block = todo[start : start + SAVE_EVERY]
            for row, fact in zip(block, pool.map(one, block), strict=True):
                facts[row] = fact
                bar.update()
            save()
    return save()


def publish_cache(folder: Path, table: pd.DataFrame, size: int) -> None:
    """Give a filled cache its name and its checksum, in place of the one before."""
    part = _part(folder)
    if not part.exists():
        return
    facts_json = {"version": VERSION, "size": size, "names_hash": names_hash(table)}
    write_json(part / "cache.json", facts_json | {"sha256": sha256(part / "images.npy")})
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)


def filled_images(folder: Path) -> np.ndarray:
    """The pixels that `fill_cache` has just completed, memory-mapped, published or not."""
    part = _part(folder)
    return np.load((part if part.exists() else folder) / "images.npy", mmap_mode="r")


def _part(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def verify_cache(folder: Path) -> None:
    """InputError if the pixels on disk are not those that were written."""
    if sha256(folder / "images.npy") != read_json(folder / "cache.json")["sha256"]:
        raise InputError(f"{shown(folder)}: images.npy is damaged: delete the folder and prepare")


def _fingerprints(table: pd.DataFrame) -> tuple[list[str], list[int]]:
    """What identifies each row's file, and its bytes (0 where there is no file)."""
    fingerprints, sizes = [], []
    for name, path in zip(table["image_name"], table["path"], strict=True):
        stat = Path(path).stat() if path and Path(path).exists() else None
        sizes.append(stat.st_size if stat else 0)
        fingerprints.append(f"{name} {sizes[-1]} {stat.st_mtime_ns if stat else 0}")
    return fingerprints, sizes


def _read_index(folder: Path) -> pd.DataFrame:
    if not (folder / "index.csv").exists():
        return pd.DataFrame(columns=INDEX)
    index = read_csv(folder / "index.csv", INDEX, text=("fingerprint", "problem"))
    return index.assign(problem=index["problem"].fillna(""))


def _open_part(part: Path, table: pd.DataFrame, size: int) -> np.memmap:
    """The array to fill: an interrupted build's of the same table, or a new one."""
    wanted = (len(table), size, size, 3)
    path = part / "images.npy"
    if path.exists() and (part / "index.csv").exists():
        images = np.lib.format.open_memmap(path, "r+")
        if images.shape == wanted:
            return images
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, wanted)
    try:
        # A memory map of a file with holes kills the process when the disk fills; reserve it all.
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        shutil.rmtree(part)
        need = np.prod(wanted) / 2**30
        raise InputError(
            f"{shown(part)}: {error.strerror}: the cache of {len(table):,} images at {size} px"
            f" needs {need:.2f} GiB"
        ) from error
    return images


def _copy_known(
    images: np.ndarray, fingerprints: list[str], folders: list[Path]
) -> dict[int, tuple[int, int, str]]:
    """Facts (width, height, problem) of the rows that need no decoding, their pixels in place."""
    row_of = {fingerprint: row for row, fingerprint in enumerate(fingerprints)}
    facts: dict[int, tuple[int, int, str]] = {}
    part = folders[0]
    for folder in folders:
        index = _read_index(folder)
        state = folder / "cache.json"
        if index.empty or (state.exists() and read_json(state)["version"] != VERSION):
            continue
        old = images if folder == part else np.load(folder / "images.npy", mmap_mode="r")
        columns = ("row", "fingerprint", "width", "height", "problem")
        for row, fingerprint, *fact in zip(*(index[c].tolist() for c in columns), strict=True):
            new = row_of.get(fingerprint)
            if new is None or new in facts or old.shape[1:] != images.shape[1:]:
                continue
            if old is not images:
                images[new] = old[row]
            elif new != row:
                continue
            facts[new] = (int(fact[0]), int(fact[1]), fact[2])
    return facts
