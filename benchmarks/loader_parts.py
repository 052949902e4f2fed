"""Parts of the loader by themselves: augmentation, validation, metadata, uint8 batches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import Dataset

from lesions.data.augmentation import build_augmentation
from lesions.data.loader_speed import (
    BATCH,
    FUSED,
    STOCK,
    consume,
    epoch_of,
    ours,
    single_thread,
    table_of,
    write_jpegs,
)
from lesions.data.loading import LesionDataset
from lesions.timing import cpu_seconds, in_child, in_turns, times_as_fast, wall_seconds

LARGE = 2**28  # bytes


class FloatDataset(Dataset):
    """Ours, normalised to float32 (3, S, S) on the CPU and stacked by torch, as most do."""

    def __init__(self, dataset: LesionDataset):
        self.dataset, self.last = dataset, A.Compose([A.Normalize(), ToTensorV2()])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict:
        found = self.dataset[(0, row)]
        return found | {"image": self.last(image=found["image"])["image"]}


def compared(
    usual: Callable[[], float], quick: Callable[[], float], repeats: int
) -> dict[str, Any]:
    """Both ways in turns, each in a process of its own: median seconds and their ratio."""
    ways = {"usual": lambda: in_child(usual), "ours": lambda: in_child(quick)}
    found = in_turns(ways, repeats)
    seconds = {name: float(np.median(values)) for name, values in found.items()}
    return {"seconds": seconds, **times_as_fast(found["usual"], found["ours"])}


def measure_augmentation(image: np.ndarray, repeats: int, samples: int) -> dict[str, Any]:
    """The list alone on one photograph, uint8 out: stock albumentations and the fused one.

    Each draws what it does: with few samples one of them would have more to do.
    """

    def way(pipeline: A.Compose) -> Callable[[], float]:
        def work() -> None:
            for _ in range(samples):
                pipeline(image=image)

        @single_thread()
        def child() -> float:
            pipeline.set_random_seed(None)
            work()
            return cpu_seconds(work) / samples

        return child

    stock, fused = (build_augmentation(config, len(image)) for config in (STOCK, FUSED))
    return compared(way(stock), way(fused), repeats)


def measure_validation(dataset: LesionDataset, repeats: int, samples: int) -> dict[str, Any]:
    """The loader without augmentation, and plainly copying the same rows into batches."""
    # More than any cache holds, or copying alone would be measured within it.
    times = -(-LARGE // np.asarray(dataset.images).nbytes)
    images = np.concatenate([dataset.images] * times)
    metadata = np.zeros((len(images), 9), np.float32)
    dataset = LesionDataset(images, metadata, metadata[:, 0])
    order = np.resize(np.random.default_rng(0).permutation(len(images)), samples)

    def copied() -> float:
        # Two, in turns: whoever reads a batch holds it while the next is made.
        batches = np.ones((2, BATCH, *images.shape[1:]), np.uint8)

        def work() -> None:
            for place, row in enumerate(order):
                np.copyto(batches[place // BATCH % 2, place % BATCH], images[row])

        work()
        return cpu_seconds(work) / samples

    @single_thread()
    def loaded() -> float:
        for _ in range(3):
            consume(epoch_of(dataset, samples))
        loader = epoch_of(dataset, samples)
        return cpu_seconds(lambda: consume(loader)) / samples

    return compared(copied, loaded, repeats)


def measure_metadata(rows: int, repeats: int) -> dict[str, Any]:
    """A row by pandas for each sample, as most do, and a batch by array: seconds a sample."""
    table = table_of([f"i{row}.jpg" for row in range(rows)])
    columns = [name for name in table.columns if name.startswith("m")]
    metadata, target = table[columns].to_numpy(np.float32), table["target"].to_numpy(np.float32)

    def usual() -> float:
        def work() -> None:
            for row in range(BATCH):
                str(table.iloc[row]["path"])
                torch.tensor(table.iloc[row][columns].to_numpy(np.float32))
                torch.tensor(table.iloc[row]["target"]).float()

        return cpu_seconds(work) / BATCH

    def arrays() -> float:
        def work() -> None:
            for batch in range(200):
                chosen = list(range(batch, batch + BATCH))
                torch.from_numpy(metadata[chosen]), torch.from_numpy(target[chosen])

        return cpu_seconds(work) / (200 * BATCH)

    return compared(usual, arrays, repeats)


def measure_batches(dataset: LesionDataset, repeats: int, samples: int) -> dict[str, Any]:
    """Wall seconds a sample with 2 workers: float32 batches made on the CPU, and uint8 ones."""

    def way(data: Dataset) -> Callable[[], float]:
        def child() -> float:
            loader = epoch_of(data, samples, workers=2)
            consume(loader)
            return wall_seconds(lambda: consume(loader)) / samples

        return child

    return compared(way(FloatDataset(dataset)), way(dataset), repeats)


def measure_parts(
    photos: Sequence[Path], folder: Path, sizes: Sequence[int], repeats: int, samples: int
) -> dict[str, Any]:
    """Every part at every size; metadata and uint8 batches, which know no size, once."""
    augmentation, validation = [], []
    for size in sizes:
        table = write_jpegs(photos, folder / f"jpegs{size}", size)
        dataset = ours(folder, table, size, "array", None)
        image = np.array(dataset.images[len(table) // 2])
        augmentation.append({"size": size} | measure_augmentation(image, repeats, 8 * samples))
        validation.append({"size": size} | measure_validation(dataset, repeats, 10 * samples))
    fused = ours(folder, table, sizes[0], "array", FUSED)
    return {
        "augmentation": augmentation,
        "validation": validation,
        "metadata": measure_metadata(30_000, repeats),
        "batches": {"size": sizes[0]} | measure_batches(fused, repeats, 4 * samples),
    }
