"""How the loader's rate and memory grow with images, workers and processes."""

from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np

from lesions.data.augmentation import build_augmentation
from lesions.data.loader_speed import FUSED, consume, epoch_of, single_thread
from lesions.data.loading import LesionDataset
from lesions.timing import in_children, wall_seconds


def measure_growth(folder: Path, counts: list[int], workers: list[int], size: int) -> list[dict]:
    """Images a second (wall) and memory of the loader against images, workers and processes.

    The images are a memory-mapped array of `size` pixels, written once at its largest; each row of
    the result is one count, number of workers and number of processes that read the same rows.
    """
    path = folder / "growth.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (max(counts), size, size, 3))
    tile = np.random.default_rng(0).integers(0, 256, (500, size, size, 3), np.uint8)
    for start in range(0, max(counts), 500):
        images[start : start + 500] = tile[: max(counts) - start]
    images.flush()
    del images
    rows = []
    for count in counts:
        for number in workers:
            rows.append({"images": count, "workers": number, **_rate(path, count, number, 1)})
        rows.append({"images": count, "workers": 1, **_rate(path, count, 1, 2)})
    path.unlink()
    return rows


def _rate(path: Path, count: int, workers: int, processes: int) -> dict[str, Any]:
    """One epoch of at most 6,000 of `count` images in each of `processes`, all at once."""
    samples = min(count, 6000 // processes)

    @single_thread()
    def child() -> tuple[float, int]:
        images = np.load(path, mmap_mode="r")[:count]
        metadata = np.zeros((count, 9), np.float32)
        pipeline = build_augmentation(FUSED, images.shape[1])
        dataset = LesionDataset(images, metadata, metadata[:, 0], pipeline)
        loader = epoch_of(dataset, samples, workers)
        seconds = wall_seconds(lambda: consume(loader))
        return seconds, _private_bytes()

    found = in_children([child] * processes)
    return {
        "processes": processes,
        "images_per_second": round(samples * processes / max(seconds for seconds, _ in found), 1),
        "own_mb": round(max(memory for _, memory in found) / 2**20, 1),
    }


def _private_bytes() -> int:
    """What this process and its workers have written: the mapped images, shared, do not count."""
    total = 0
    for process in ("self", *(child.pid for child in active_children())):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                total += int(line.split()[1]) * 1024
    return total
