"""Image cache and table -> batches whose content depends on (seed, epoch, row) alone."""

import hashlib
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from albumentations import Compose
from torch.utils.data import DataLoader, Dataset, Sampler

from lesions.data.augmentation import augment


def seed_of(*parts: int) -> int:
    """A 32-bit seed from whole numbers, unrelated for neighbouring ones."""
    digest = hashlib.blake2b(np.array(parts, np.int64).tobytes(), digest_size=4)
    return int.from_bytes(digest.digest(), "little")


class LesionDataset(Dataset):
    """Photographs of the image cache by (epoch, row).

    An item is a dict of
      image     uint8 (S, S, 3); normalised later, on the device
      metadata  float32 (C,)
      target    float32 scalar; NaN on an unlabelled row, so that a loss taken there shows
      row       int, the table row: predictions come back in any order, `row` takes them home
    """

    def __init__(
        self,
        images: np.ndarray,
        metadata: np.ndarray,
        target: np.ndarray,
        pipeline: Compose | None = None,
        seed: int = 0,
    ):
        self.images = images  # memory-mapped: the workers share one copy
        self.metadata = metadata
        self.target = target
        self.pipeline = pipeline
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> dict:
        epoch, row = item
        image = self.images[row]
        if self.pipeline is None:
            image = np.array(image)
        else:
            image = augment(self.pipeline, np.array(image), seed_of(self.seed, epoch, row))
        return {
            "image": image,
            "metadata": self.metadata[row],
            "target": self.target[row],
            "row": row,
        }


class TrainBatches(Sampler):
    """Micro-batches of (epoch, row), the share of one process; resumes at any step.

    An epoch is a permutation drawn from (seed, epoch), cut into whole steps of `batch_size` rows
    over all processes (the rest waits for another epoch); process `rank` takes every
    `processes`-th row of a step, in micro-batches of at most `micro_batch`.
    """

    def __init__(
        self, rows: np.ndarray, batch_size: int, micro_batch: int, seed: int,
        rank: int = 0, processes: int = 1,
    ):  # fmt: skip
        self.rows = rows
        self.batch_size = min(batch_size, len(rows) // processes * processes)
        self.micro_batch = micro_batch
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.steps = len(rows) // self.batch_size
        self.micro_batches = -(-self.batch_size // processes // micro_batch)  # of each step
        self.start(0, 0)

    def start(self, epoch: int, step: int) -> None:
        """Set what the next iteration yields: the rest of `epoch`, from its step `step` on."""
        self.epoch, self.first_step = epoch, step

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.micro_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        for step in range(self.first_step, self.steps):
            share = order[step * self.batch_size : (step + 1) * self.batch_size]
            for part in np.array_split(share[self.rank :: self.processes], self.micro_batches):
                yield [(self.epoch, int(row)) for row in part]


def build_loader(
    dataset: LesionDataset, batches: Sampler | list[list[tuple[int, int]]], workers: int
) -> DataLoader:
    """Batches as dicts of tensors; a worker that hangs for five minutes ends the run."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        timeout=300 if workers else 0,
        worker_init_fn=_quiet_worker,
    )


def eval_batches(
    rows: np.ndarray, batch_size: int, rank: int = 0, processes: int = 1
) -> list[list[tuple[int, int]]]:
    """Batches of (0, row) of one process; every process has as many, the last rows repeated."""
    share = -(-len(rows) // processes)
    padded = np.resize(rows, share * processes)[rank::processes]
    return [
        [(0, int(row)) for row in padded[start : start + batch_size]]
        for start in range(0, share, batch_size)
    ]


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
