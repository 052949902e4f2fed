"""What an image costs before it is in a batch: is the cache as fast as memory, would tensors be?"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from lesions.config import Config
from lesions.data.augmentation import augment, build_augmentation
from lesions.data.images import cached_images
from lesions.data.table import load_table

ROWS, BATCH, ROUNDS = 1024, 128, 3


def measure_speed(config: Config) -> dict[str, Any]:
    """Microseconds of CPU time an image, the least of a few interleaved rounds each.

    `cache` copies it from the memory-mapped cache, `memory` from one array in memory; `augment` is
    the run's own augmentation, `tensors` a warp alone, of whole batches as float tensors.
    """
    table, _ = load_table(config.dataset)
    size = config.data.image_size
    cached = cached_images(config.dataset, size, table)
    rows = np.random.default_rng(0).permutation(len(table))[:ROWS]
    memory = np.array(cached)
    pipeline = build_augmentation(config.augment, size)
    place = np.empty((size, size, 3), np.uint8)

    def copy(images: Any) -> None:
        for row in rows:
            place[:] = images[row]

    def each() -> None:
        for row in rows:
            augment(pipeline, np.require(memory[row], requirements="W"), int(row))

    ways: dict[str, Callable[[], None]] = {
        "cache": lambda: copy(cached),
        "memory": lambda: copy(memory),
        "augment": each,
        "tensors": lambda: warp_batches(memory[rows]),
    }
    found = {name: min(_seconds(way) for _ in range(ROUNDS)) for name, way in ways.items()}
    return {"pixels": size, "microseconds": {n: 1e6 * s / len(rows) for n, s in found.items()}}


def warp_batches(images: np.ndarray) -> None:
    """A random affine warp of images (N, S, S, 3) batch by batch, as grid_sample does it."""
    turns = torch.Generator().manual_seed(0)
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float()
        noise = 0.1 * torch.randn(len(batch), 2, 3, generator=turns)
        grid = F.affine_grid(torch.eye(2, 3) + noise, list(batch.shape), align_corners=False)
        F.grid_sample(batch, grid, padding_mode="border", align_corners=False).byte()


def _seconds(way: Callable[[], None]) -> float:
    begun = time.process_time()
    way()
    return time.process_time() - begun
