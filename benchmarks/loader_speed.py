"""The loader, the augmentation and the metadata, timed beside the field's usual way.

The usual way has the shape of the public solutions: a table row by pandas for each sample,
cv2.imread of a JPEG, albumentations with float Normalize and ToTensorV2, stacked float32 batches.
Each turn of each way is a forked process, so that neither finds the other's memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader, Dataset

from lesions.config import AugmentConfig
from lesions.data.augmentation import build_augmentation
from lesions.data.cache_speed import CLASSES, by_class
from lesions.data.images import build_cache, load_images
from lesions.data.loading import LesionDataset, build_loader, eval_batches
from lesions.data.sample import write_sample
from lesions.data.stores import Mode
from lesions.errors import InputError
from lesions.timing import cpu_seconds, in_child, in_turns, times_as_fast

BATCH = 64
COLUMNS = 14  # of metadata, as in the first place of SIIM-ISIC 2020
FUSED, STOCK = AugmentConfig(), AugmentConfig(fused=False)


class UsualDataset(Dataset):
    """One JPEG a row of a pandas table, float32 (3, S, S)."""

    def __init__(self, table: pd.DataFrame, transform: A.Compose):
        self.table, self.transform = table, transform
        self.columns = [f"m{column}" for column in range(COLUMNS)]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> tuple:
        image = np.asarray(cv2.imread(self.table.iloc[row]["path"]))
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        image = self.transform(image=image)["image"]
        metadata = torch.tensor(self.table.iloc[row][self.columns].to_numpy(np.float32))
        return (image, metadata), torch.tensor(self.table.iloc[row]["target"]).float()


def usual_transform(size: int) -> A.Compose:
    """The stock list after a resize (nothing where the size is right) and before Normalize."""
    stock = build_augmentation(STOCK, size).transforms
    return A.Compose([A.Resize(size, size), *stock, A.Normalize(), ToTensorV2()])


def find_photos(folders: Sequence[Path], drawn: Path, most: int = 48) -> list[Path]:
    """JPEGs anywhere below `folders`, at most `most` of them; without a folder drawn ones."""
    if not folders:
        write_sample(drawn, images=max(most, 40))  # it draws no fewer
        folders = [drawn]
    found = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg") and cv2.imread(str(path)) is not None
    )
    if not found:
        raise InputError(f"{', '.join(map(str, folders))}: no JPEG below")
    return [found[i] for i in np.linspace(0, len(found) - 1, min(most, len(found)), dtype=int)]


def write_jpegs(photos: Sequence[Path], folder: Path, size: int) -> pd.DataFrame:
    """The photographs as JPEGs of quality 95 at `size`, as resized data sets have them: a table."""
    paths = [folder / f"i{number:03d}.jpg" for number in range(len(photos))]
    folder.mkdir(parents=True, exist_ok=True)
    for photo, path in zip(photos, paths, strict=True):
        if not path.exists():
            pixels = np.asarray(cv2.imread(str(photo)))
            pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return table_of([str(path) for path in paths])


def table_of(paths: Sequence[str]) -> pd.DataFrame:
    """A table of `paths` with drawn metadata."""
    values = np.random.default_rng(0).random((len(paths), COLUMNS))
    table = pd.DataFrame(values, columns=[f"m{column}" for column in range(COLUMNS)])
    names = [Path(path).stem for path in paths]
    return table.assign(image_name=names, path=list(paths), target=0)


def ours(
    folder: Path, table: pd.DataFrame, size: int, mode: Mode, augmented: AugmentConfig | None
) -> LesionDataset:
    """The data set of the cache below `folder`, which is made if it is not there."""
    place = folder / mode / str(size)
    if not place.exists():
        build_cache(place, table, size, mode)
    pipeline = build_augmentation(augmented, size) if augmented else None
    metadata = np.zeros((len(table), COLUMNS), np.float32)
    images = load_images(place, table, "the benchmark again")
    return LesionDataset(images, metadata, np.zeros(len(table), np.float32), pipeline)


def epoch_of(dataset: Dataset, samples: int, workers: int = 0) -> DataLoader:
    """`samples` samples in batches, rows again and again in a drawn order."""
    count = len(dataset)  # type: ignore[arg-type]
    rows = np.resize(np.random.default_rng(0).permutation(count), samples)
    if isinstance(dataset, LesionDataset):
        return build_loader(dataset, eval_batches(rows, BATCH), workers)
    batches = [rows[start : start + BATCH].tolist() for start in range(0, samples, BATCH)]
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0
    )


def timed(dataset: Dataset, samples: int) -> Callable[[], float]:
    """A way for `in_turns`: CPU seconds a sample on one thread, after three batches to warm up."""

    @single_thread()
    def work() -> float:
        consume(epoch_of(dataset, 3 * BATCH))  # until batches lie where those before them lay
        loader = epoch_of(dataset, samples)
        return cpu_seconds(lambda: consume(loader)) / samples

    return lambda: in_child(work)


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for what is timed, and as many as before after it."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def consume(loader: DataLoader) -> None:
    for _ in loader:
        pass


@single_thread()
def measure_loader(
    photos: Sequence[Path], folder: Path, size: int, repeats: int, samples: int
) -> dict[str, Any]:
    """Seconds a sample of every way at `size`, and how often ours is as fast as each usual one."""
    large = write_jpegs(photos, folder / "jpegs512", 512)
    same = write_jpegs(photos, folder / f"jpegs{size}", size)
    usual = usual_transform(size)
    ways = {
        "512 px JPEGs, usual": timed(UsualDataset(large, usual), samples),
        "array, fused": timed(ours(folder, same, size, "array", FUSED), samples),
        "jpeg, fused": timed(ours(folder, same, size, "jpeg", FUSED), samples),
        "array, stock": timed(ours(folder, same, size, "array", STOCK), samples),
        "jpeg, stock": timed(ours(folder, same, size, "jpeg", STOCK), samples),
    }
    if size != 512:
        ways["same-size JPEGs, usual"] = timed(UsualDataset(same, usual), samples)
    found = in_turns(ways, repeats)
    usual_ways = [name for name in found if name.endswith("usual")]
    return {
        "size": size,
        "seconds": {name: float(np.median(seconds)) for name, seconds in found.items()},
        "ratios": {
            f"{name} against {base}": times_as_fast(found[base], found[name])
            for base in usual_ways
            for name in found
            if name not in usual_ways
        },
    }


def measure_originals(
    photos: Sequence[Path], size: int, repeats: int, most: int = 2
) -> list[float]:
    """CPU seconds a sample of the usual way on originals, in the mix of sizes of ISIC 2019/2020."""
    classes = by_class(photos, most)
    share = np.array([CLASSES[limit] for limit in classes])
    transform = usual_transform(size)

    def one(paths: list[Path]) -> Callable[[], float]:
        @single_thread()
        def child() -> float:
            dataset = UsualDataset(table_of([str(path) for path in paths]), transform)
            return cpu_seconds(lambda: [dataset[row] for row in range(len(paths))]) / len(paths)

        return child

    children = [one(paths) for paths in classes.values()]
    turns = [[in_child(child) for child in children] for _ in range(repeats)]
    return (np.array(turns) @ (share / share.sum())).tolist()
