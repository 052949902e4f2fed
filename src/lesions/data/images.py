"""The image cache: every photograph decoded and resized once, row = table row.

A cache is the folder input/prepared/<dataset>/<size>/ with the pixels (data/stores.py), index.csv,
which says what each row was made from, and cache.json. It is made in <size>.part and renamed when
it is whole, so that what carries the name is never half a cache.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.config import PreprocessConfig
from lesions.data.decode import VERSION, UnreadableImage, decode
from lesions.data.stores import FILES, ArrayStore, JpegImages, JpegStore, Mode, open_images
from lesions.data.table import names_hash, prepared
from lesions.errors import InputError
from lesions.files import read_csv, read_json, sha256, write_csv, write_json
from lesions.paths import shown

INDEX = ["row", "fingerprint", "bytes", "width", "height", "problem"]
SAVE_EVERY = 1000  # images: what an interrupted build does again at most
Images = np.ndarray | JpegImages
Fact = tuple[int, int, str]  # width, height, problem


def cached_images(dataset: str, size: int, table: pd.DataFrame) -> np.ndarray:
    """The images of a prepared data set's `table` at `size` pixels; see `load_images`."""
    command = f"python scripts/prepare.py --dataset {dataset} --size {size}"
    return load_images(prepared(dataset) / str(size), table, command)


def load_images(folder: Path, table: pd.DataFrame, command: str) -> np.ndarray:
    """The finished cache of exactly this table: by row uint8 (S, S, 3), read-only.

    An array, or of a cache of JPEGs what can be read by row like one.

    InputError naming `command` if there is none, or if it belongs to another table, or was made
    with another preprocessing than the table beside it asks for.
    """
    if not (folder / "cache.json").exists():
        raise InputError(f"{shown(folder)}: no image cache: run {command}")
    facts = read_json(folder / "cache.json")
    if facts["version"] != VERSION or facts["names_hash"] != names_hash(table):
        raise InputError(f"{shown(folder)}: the image cache is of another table: run {command}")
    beside = folder.parent / "table.json"
    config = read_json(beside).get("config", {}) if beside.exists() else {}
    wanted = PreprocessConfig(**config.get("preprocess", {}))
    if PreprocessConfig(**facts.get("preprocess", {})) != wanted:
        raise InputError(f"{shown(folder)}: made with another preprocessing: run {command}")
    return cast(np.ndarray, open_images(folder, facts.get("mode", "array"), facts["size"]))


def build_cache(
    folder: Path,
    table: pd.DataFrame,
    size: int,
    mode: Mode = "array",
    preprocess: PreprocessConfig | None = None,
) -> pd.DataFrame:
    """Make or complete the cache of `table`, whose `path` says where each photograph lies.

    Returns the index, one row a table row: bytes, width, height, and the problem of an unreadable
    file, whose pixels are black ("" for the others). A row made before from the same file (name,
    bytes, time of change) is not decoded again, be it in a finished cache or an interrupted one.
    """
    index = fill_cache(folder, table, size, mode, preprocess)
    publish_cache(folder, table)
    return index


def fill_cache(
    folder: Path,
    table: pd.DataFrame,
    size: int,
    mode: Mode = "array",
    preprocess: PreprocessConfig | None = None,
) -> pd.DataFrame:
    """`build_cache` without the last step: the cache that carries the name stays as it is."""
    key = _key(size, mode, preprocess or PreprocessConfig())
    fingerprints, sizes = _fingerprints(table)
    index = _read_index(folder)
    if _key_of(folder) == key and index["fingerprint"].tolist() == fingerprints:
        shutil.rmtree(_part(folder), ignore_errors=True)
        verify_cache(folder)
        return index
    part = _part(folder)
    store, resumed = _open_store(part, len(table), key)
    facts = _resumed(part, fingerprints) if resumed else {}
    if _key_of(folder) == key:
        facts |= _copied(store, folder, key, fingerprints, facts)
    todo = [row for row in range(len(table)) if row not in facts]
    paths = table["path"].tolist()

    def one(row: int) -> tuple[Fact, bytes | np.ndarray]:
        try:
            image, (width, height) = decode(Path(paths[row]), size, preprocess)
        except UnreadableImage as error:
            return (0, 0, str(error)), store.packed(np.zeros((size, size, 3), np.uint8))
        return (width, height, ""), store.packed(image)

    def save() -> pd.DataFrame:
        store.flush()
        rows = [(row, fingerprints[row], sizes[row], *facts[row]) for row in sorted(facts)]
        index = pd.DataFrame(rows, columns=INDEX)
        write_csv(part / "index.csv", index)
        return index

    with (
        ThreadPoolExecutor(cpu_count()) as pool,
        tqdm(total=len(todo), desc=f"images at {size} px", unit="image", disable=None) as bar,
    ):
        for start in range(0, len(todo), SAVE_EVERY):
            block = todo[start : start + SAVE_EVERY]
            for row, (fact, packed) in zip(block, pool.map(one, block), strict=True):
                store.put(row, packed)
                facts[row] = fact
                bar.update()
            save()
    return save()


def publish_cache(folder: Path, table: pd.DataFrame) -> None:
    """Give a filled cache its name and its checksum, in place of the one before."""
    part = _part(folder)
    if not part.exists():
        return
    key = read_json(part / "key.json")
    checksum = sha256(part / FILES[key["mode"]])
    write_json(part / "cache.json", key | {"names_hash": names_hash(table), "sha256": checksum})
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)


def filled_images(folder: Path) -> Images:
    """The pixels that `fill_cache` has just completed, published or not."""
    part = _part(folder)
    facts = read_json(part / "key.json" if part.exists() else folder / "cache.json")
    return open_images(part if part.exists() else folder, facts["mode"], facts["size"])


def verify_cache(folder: Path) -> None:
    """InputError if the pixels on disk are not those that were written."""
    facts = read_json(folder / "cache.json")
    file = folder / FILES[facts.get("mode", "array")]
    if sha256(file) != facts["sha256"]:
        raise InputError(f"{shown(folder)}: {file.name} is damaged: delete the folder and prepare")


def _part(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def _key(size: int, mode: Mode, preprocess: PreprocessConfig) -> dict:
    """What decides the pixels, besides the files: a cache of another key is made anew."""
    return {"version": VERSION, "size": size, "mode": mode, "preprocess": preprocess.model_dump()}


def _key_of(folder: Path) -> dict | None:
    if not (folder / "cache.json").exists():
        return None
    facts = read_json(folder / "cache.json")
    preprocess = PreprocessConfig(**facts.get("preprocess", {}))
    return _key(facts["size"], facts.get("mode", "array"), preprocess) | {
        "version": facts["version"]
    }


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


def _open_store(part: Path, rows: int, key: dict) -> tuple[ArrayStore | JpegStore, bool]:
    """The store to fill, and whether it is an interrupted build's of the same key and length."""
    kind = ArrayStore if key["mode"] == "array" else JpegStore
    mark = part / "key.json"
    if mark.exists() and read_json(mark) == key | {"rows": rows} and (part / "index.csv").exists():
        return kind(part, rows, key["size"], new=False), True
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        store = kind(part, rows, key["size"], new=True)
    except OSError as error:
        shutil.rmtree(part)
        need = rows * key["size"] ** 2 * 3 / 2**30
        raise InputError(
            f"{shown(part)}: {error.strerror}: the cache of {rows:,} images at {key['size']} px"
            f" needs {need:.2f} GiB; `cache: jpeg` in the data set's config about a tenth of it"
        ) from error
    write_json(mark, key | {"rows": rows})
    return store, False


def _resumed(part: Path, fingerprints: list[str]) -> dict[int, Fact]:
    """Facts of the rows that an interrupted build has done, as far as their files are the same."""
    return {row: fact for row, fingerprint, fact in _rows(part) if fingerprints[row] == fingerprint}


def _copied(
    store: ArrayStore | JpegStore,
    folder: Path,
    key: dict,
    fingerprints: list[str],
    known: dict[int, Fact],
) -> dict[int, Fact]:
    """Facts of the rows that the finished cache has, now in the store too."""
    old = open_images(folder, key["mode"], key["size"])
    row_of = {fingerprint: row for row, fingerprint in enumerate(fingerprints)}
    facts: dict[int, Fact] = {}
    for row, fingerprint, fact in _rows(folder):
        new = row_of.get(fingerprint)
        if new is None or new in known or new in facts:
            continue
        store.put(new, old.packed(row).tobytes() if isinstance(old, JpegImages) else old[row])
        facts[new] = fact
    return facts


def _rows(folder: Path) -> list[tuple[int, str, Fact]]:
    index = _read_index(folder)
    facts = zip(index["width"], index["height"], index["problem"], strict=True)
    return [
        (int(row), fingerprint, (int(width), int(height), problem))
        for row, fingerprint, (width, height, problem) in zip(
            index["row"], index["fingerprint"], facts, strict=True
        )
    ]
