"""Load batches from the image cache; their content depends on (seed, epoch, row) alone."""

import ctypes
import hashlib
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from albumentations import Compose
from torch.utils.data import DataLoader, Dataset, Sampler, default_convert, get_worker_info
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from lesions.data.augmentation import augment
from lesions.data.metadata import Blanks
from lesions.errors import InputError, listed

Item = tuple[int, ...]  # epoch, row, and how often the row was drawn before in the epoch, if it was
TIMEOUT = 300  # seconds to wait for a worker's batch
MOST_WORKERS = 256
METADATA = -1  # ends the seed of what metadata dropout blanks, where a repeat stands in others
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
MOST_KEPT = 2**28  # bytes of freed memory that a process keeps


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
      row       int, the table row, by which predictions are put in order
    """

    def __init__(
        self, images: Any, metadata: np.ndarray, target: np.ndarray,
        pipeline: Compose | None = None, seed: int = 0, names: Sequence[str] = (),
    ):  # fmt: skip
        self.images = images  # rows of uint8 (S, S, 3), memory-mapped: the workers share one copy
        self.metadata, self.target = metadata, target
        self.pipeline, self.seed = pipeline, seed
        self.blanks: Blanks | None = None
        self.names = names  # of the rows, for `watched`: training gives them
        # The row each worker is reading, shared: the main process names it when a worker dies.
        self.at = torch.full((MOST_WORKERS,), -1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: Item) -> dict:
        batch = self.__getitems__([item])
        return {name: values[0].numpy() for name, values in batch.items()}

    def __getitems__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """The batch of `items`; every pixel is written once, into the batch."""
        worker = get_worker_info()
        rows = [item[1] for item in items]
        images = _batch_memory((len(items), *self.images.shape[1:]))
        places, at = images.numpy(), self.at.numpy()
        for place, item in enumerate(items):
            if worker:
                at[worker.id] = item[1]
            image = self.images[item[1]]
            if self.pipeline is not None:
                # Copied first: a warp reads in random order, which is slow in a mapped file.
                image = np.require(image, requirements="W")
                image = augment(self.pipeline, image, seed_of(self.seed, *item))
            places[place] = image
        if worker:
            at[worker.id] = -1
        metadata = self.metadata[rows]
        if self.blanks and self.blanks.share:
            seeds = (seed_of(self.seed, *item, METADATA) for item in items)
            metadata = self.blanks.drop(metadata, seeds)
        return {
            "image": images,
            "metadata": torch.from_numpy(metadata),
            "target": torch.from_numpy(self.target[rows]),
            "row": torch.tensor(rows),
        }


class TrainBatches(Sampler):
    """Micro-batches of (epoch, row) of one process; resumes at any step.

    An epoch is a permutation drawn from (seed, epoch), cut into whole steps of `batch_size` rows
    over all processes; the remainder is dropped. Process `rank` takes every `processes`-th row of a
    step, in micro-batches of at most `micro_batch`. With `classes`, the rows' classes, rows are
    drawn with replacement instead, each class as often as the others.
    """

    def __init__(
        self, rows: np.ndarray, batch_size: int, micro_batch: int, seed: int,
        rank: int = 0, processes: int = 1, classes: np.ndarray | None = None,
    ):  # fmt: skip
        self.rows = rows
        self.classes = classes
        self.batch_size = min(batch_size, len(rows) // processes * processes)
        self.micro_batch = micro_batch
        self.seed = seed
        self.rank, self.processes = rank, processes
        self.steps = len(rows) // self.batch_size
        self.micro_batches = -(-self.batch_size // processes // micro_batch)  # of each step
        self.start(0, 0)

    def start(self, epoch: int, step: int) -> None:
        """Let the next iteration yield the steps of `epoch` from `step` on."""
        self.epoch, self.first_step = epoch, step

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.micro_batches

    def __iter__(self) -> Iterator[list[Item]]:
        items = self._items()
        for step in range(self.first_step, self.steps):
            share = items[step * self.batch_size : (step + 1) * self.batch_size]
            mine = share[self.rank :: self.processes]
            for part in np.array_split(np.arange(len(mine)), self.micro_batches):
                yield [mine[place] for place in part]

    def _items(self) -> list[Item]:
        """The epoch's items in order, the same in every process."""
        draw = np.random.default_rng([self.seed, self.epoch])
        if self.classes is None:
            return [(self.epoch, int(row)) for row in draw.permutation(self.rows)]
        members = [self.rows[self.classes == known] for known in np.unique(self.classes)]
        # Every class in turn, then shuffled: counts differ by one at most.
        chosen = draw.permutation(np.arange(len(self.rows)) % len(members))
        rows = [int(draw.choice(members[which])) for which in chosen]
        repeats = pd.Series(rows).groupby(rows).cumcount().tolist()
        drawn = zip(rows, repeats, strict=True)
        return [(self.epoch, row, again) if again else (self.epoch, row) for row, again in drawn]


def build_loader(
    dataset: LesionDataset, batches: Sampler | list[list[tuple[int, int]]], workers: int
) -> DataLoader:
    """Batches as dicts of tensors; waiting TIMEOUT seconds for a worker is an error."""
    _keep_freed_memory()
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        timeout=TIMEOUT if workers else 0,
        worker_init_fn=_quiet_worker,
        collate_fn=default_convert,  # LesionDataset stacks its items itself
    )


def eval_batches(
    rows: np.ndarray, batch_size: int, rank: int = 0, processes: int = 1
) -> list[list[tuple[int, int]]]:
    """Batches of (0, row) of one process; rows repeat so that every process has as many."""
    share = -(-len(rows) // processes)
    items = [(0, int(row)) for row in np.resize(rows, share * processes)[rank::processes]]
    return [items[start : start + batch_size] for start in range(0, share, batch_size)]


@contextmanager
def watched(loader: DataLoader) -> Iterator[None]:
    """Turn the death or hang of a worker of `loader` into an InputError that names its image.

    The workers, which ignore signals, end with the block.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader"):
            raise
        dataset, iterator = loader.dataset, loader._iterator
        assert isinstance(dataset, LesionDataset)
        names = [dataset.names[row] for row in dataset.at.tolist() if row >= 0]
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            # Or torch raises again, anywhere, when it is told of their end.
            signal_handling._remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
            for worker in iterator._workers:  # one that hangs would keep this process from ending
                worker.kill()
                worker.join()
        raise InputError(
            f"a data-loader worker died or hung ({error}) at"
            f" {listed(names) or 'none, between two images'}: look at the image; if it is sound,"
            " memory may have run out: fewer train.workers"
        ) from error
    if isinstance(loader._iterator, _MultiProcessingDataLoaderIter):
        loader._iterator._shutdown_workers()
    loader._iterator = None


@cache
def _keep_freed_memory() -> None:
    """Let malloc reuse the memory of earlier batches, also in the forked workers.

    Memory that is returned to the system and requested again costs more time than filling it.
    """
    if sys.platform == "linux" and (libc := ctypes.CDLL(None)) and hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
        libc.mallopt(M_MMAP_THRESHOLD, MOST_KEPT)


def _batch_memory(shape: tuple[int, ...]) -> torch.Tensor:
    """Uninitialised uint8 of `shape`; from a worker the main process reads it without a copy."""
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, np.uint8))  # numpy asks for huge pages
    storage = torch.UntypedStorage._new_shared(prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, shape)  # type: ignore[call-overload]


def _quiet_worker(_: int) -> None:
    # A signal to the process group makes the main process save and stop: it needs its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
