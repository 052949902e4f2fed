"""How a cache keeps its pixels: as one memory-mapped array, or as packed JPEGs a tenth the size.

A store being filled takes rows in any order, says which it has, and can be gone on with; a finished
one is read by row. Both kinds are one file and one checksum.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from lesions.errors import InputError
from lesions.paths import shown

Mode = Literal["array", "jpeg"]
FILES: dict[Mode, str] = {"array": "images.npy", "jpeg": "images.bin"}


def choose_mode(rows: int, size: int, folder: Path) -> Mode:
    """array, unless it would take over half of the free disk, or more than half of the memory.

    An array larger than memory is read from the disk again in every epoch.
    """
    need = rows * size * size * 3
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    memory = 4 * need  # where the system does not tell
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "array" if need < free / 2 and need < memory / 2 else "jpeg"


class ArrayStore:
    """uint8 (N, S, S, 3) in a .npy file; every byte of it is reserved from the start."""

    mode: Mode = "array"

    def __init__(self, folder: Path, rows: int, size: int, new: bool):
        path = folder / FILES["array"]
        shape = (rows, size, size, 3)
        if not new:
            self.images = np.lib.format.open_memmap(path, "r+")
            return
        self.images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        # A memory map of a file with holes kills the process when the disk fills.
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    @staticmethod
    def packed(image: np.ndarray) -> np.ndarray:
        return image

    def put(self, row: int, packed: Any) -> None:
        self.images[row] = packed

    def flush(self) -> None:
        self.images.flush()


class JpegStore:
    """JPEGs of quality 95 without colour subsampling, one after the other, and where each lies."""

    mode: Mode = "jpeg"

    def __init__(self, folder: Path, rows: int, size: int, new: bool):
        self.folder = folder
        self.path = folder / FILES["jpeg"]
        self.places = np.full((rows, 2), -1, np.int64)
        if not new:
            self.places = np.load(folder / "places.npy")
        self.path.touch()
        # What was written after the last save is written again.
        os.truncate(self.path, max(0, int(self.places.sum(axis=1).max(initial=0))))
        self.file = self.path.open("ab")

    @staticmethod
    def packed(image: np.ndarray) -> bytes:
        how = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
               cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
        return cv2.imencode(".jpg", image[..., ::-1], how)[1].tobytes()

    def put(self, row: int, packed: Any) -> None:
        self.places[row] = self.file.tell(), len(packed)
        self.file.write(packed)

    def flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        np.save(self.folder / "places.npy", self.places)


class JpegImages:
    """The rows of a finished JPEG store, each decoded as it is read: uint8 (S, S, 3)."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, folder: Path, size: int):
        self.path = folder / FILES["jpeg"]
        self.places = np.load(folder / "places.npy")
        self.shape = (len(self.places), size, size, 3)
        self.content: np.ndarray | None = None  # mapped by whoever reads: processes do not share it

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

    def __getstate__(self) -> dict:
        return self.__dict__ | {"content": None}


def open_images(folder: Path, mode: Mode, size: int) -> np.ndarray | JpegImages:
    """The pixels of a store by row, read-only."""
    if mode == "array":
        return np.load(folder / FILES["array"], mmap_mode="r")
    return JpegImages(folder, size)
