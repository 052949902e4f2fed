"""The loader and its parts against the field's usual way: CPU time, one thread, in turns.

    python benchmarks/loader.py --images FOLDER FOLDER    # originals; without: drawn images

docs/performance.md says what the usual way is. Each turn of each way is a forked process, so that
neither finds the other's memory.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pandas as pd
import torch
from albumentations.pytorch import ToTensorV2
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from cache import find_jpegs
from timing import cpu_seconds, in_child, in_turns, single_thread, times_as_fast, wall_seconds

from lesions.cli import build_parser, run
from lesions.config import AugmentConfig
from lesions.data.augmentation import HOLES, build_augmentation
from lesions.data.cache import Mode, fill_cache, load_images, publish_cache
from lesions.data.decode import PLAIN
from lesions.data.loading import LesionDataset, build_loader, eval_batches
from lesions.data.sample import write_sample
from lesions.provenance import Results

BATCH = 64
COLUMNS = 14  # of metadata, as in the first place of SIIM-ISIC 2020
GROWTH = 64  # pixels of the images that growth is measured on
AUGMENT = AugmentConfig()


def stock_transforms(config: AugmentConfig, size: int) -> list[A.BasicTransform]:
    """The stock list that the augmentation of training fuses, each transform a pass of its own."""
    sides = max(1, size // 16), max(2, size // 6)
    # strict: albumentations otherwise passes over a misspelt argument with a warning.
    return [
        A.HorizontalFlip(p=config.flip),
        A.VerticalFlip(p=config.flip),
        A.RandomRotate90(p=config.rotate90),
        A.Affine(
            translate_percent=(-config.shift, config.shift),
            scale=(1 - config.scale, 1 + config.scale),
            rotate=(-config.rotate, config.rotate),
            border_mode=2,  # cv2.BORDER_REFLECT: no black corners to learn from
            p=config.shift_scale_rotate,
            strict=True,
        ),
        A.HueSaturationValue(
            config.hue, config.saturation, config.value, p=config.hue_saturation, strict=True
        ),
        A.RandomBrightnessContrast(
            config.brightness, config.contrast, p=config.brightness_contrast, strict=True
        ),
        A.CoarseDropout((1, HOLES), sides, sides, p=config.coarse_dropout, strict=True),
    ]


class UsualDataset(Dataset):
    """The data set of the first place of SIIM-ISIC 2020: a pandas row each, float32 (3, S, S)."""

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
    stock = stock_transforms(AUGMENT, size)
    return A.Compose([A.Resize(size, size), *stock, A.Normalize(), ToTensorV2()])


def find_photos(folders: Sequence[Path], drawn: Path, most: int = 48) -> list[Path]:
    """JPEGs anywhere below `folders`, at most `most` of them; without a folder drawn ones."""
    if not folders:
        write_sample(drawn, images=max(most, 40))  # it draws no fewer
        folders = [drawn]
    found = find_jpegs(folders)
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
    folder: Path, table: pd.DataFrame, size: int,
    mode: Mode = "array", pipeline: A.Compose | None = None,
) -> LesionDataset:  # fmt: skip
    """The data set of the cache below `folder`, which is made if it is not there."""
    place = folder / mode / str(size)
    if not place.exists():
        fill_cache(place, table, size, mode, PLAIN)
        publish_cache(place, table)
    metadata = np.zeros((len(table), COLUMNS), np.float32)
    images = load_images(place, table, "the benchmark again")
    return LesionDataset(images, metadata, np.zeros(len(table), np.float32), pipeline)


def epoch_of(dataset: Dataset, samples: int, workers: int = 0, batch: int = BATCH) -> DataLoader:
    """`samples` samples in batches, rows again and again in a drawn order."""
    count = len(dataset)  # type: ignore[arg-type]
    rows = np.resize(np.random.default_rng(0).permutation(count), samples)
    if isinstance(dataset, LesionDataset):
        return build_loader(dataset, eval_batches(rows, batch), workers)
    batches = [rows[start : start + batch].tolist() for start in range(0, samples, batch)]
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0
    )


def consume(loader: DataLoader) -> None:
    for _ in loader:
        pass


def timed(dataset: Dataset, samples: int) -> Callable[[], float]:
    """A way for `in_turns`: CPU seconds a sample of the loader, in a process of its own."""

    @single_thread()
    def child() -> float:
        *_, last = (cpu_seconds(lambda: consume(epoch_of(dataset, samples))) for _ in range(4))
        return last / samples  # the others warm up

    return lambda: in_child(child)


def measure_loader(
    photos: Sequence[Path], folder: Path, size: int, repeats: int, samples: int
) -> dict[str, Any]:
    """How many times as fast ours is at `size` as each usual way."""
    large = write_jpegs(photos, folder / "jpegs512", 512)
    same = write_jpegs(photos, folder / f"jpegs{size}", size)
    usual, fused = usual_transform(size), build_augmentation(AUGMENT)
    quick: dict[str, Dataset] = {
        "array, fused": ours(folder, same, size, "array", fused),
        "jpeg, fused": ours(folder, same, size, "jpeg", fused),
    }
    bases: dict[str, Dataset] = {"512 px JPEGs, usual": UsualDataset(large, usual)}
    if size != 512:
        bases["same-size JPEGs, usual"] = UsualDataset(same, usual)
    ways = {name: timed(dataset, samples) for name, dataset in (bases | quick).items()}
    found = in_turns(ways, repeats)
    return {
        "size": size,
        "ratios": {
            f"{name} against {base}": times_as_fast(found[base], found[name])
            for base, name in product(bases, quick)
        },
    }


def measure_growth(folder: Path, counts: Sequence[int]) -> dict[str, Any]:
    """Images/s and memory of epochs of at most 6,000 of so many mapped images, by workers."""
    path = folder / "growth.npy"
    image = np.random.default_rng(0).integers(0, 256, (GROWTH, GROWTH, 3), np.uint8)
    np.save(path, np.broadcast_to(image, (max(counts), *image.shape)))

    @single_thread()
    def child(count: int, samples: int, workers: int) -> tuple[float, int]:
        metadata = np.zeros((count, COLUMNS), np.float32)
        mapped = np.load(path, mmap_mode="r")[:count]
        dataset = LesionDataset(mapped, metadata, metadata[:, 0], build_augmentation(AUGMENT))
        loader = epoch_of(dataset, samples, workers)
        return wall_seconds(lambda: consume(loader)), private_bytes()

    rows = []
    for count, workers in product(counts, (0, 1, 2)):
        samples = min(count, 6000)
        seconds, memory = in_child(partial(child, count, samples, workers))
        rate, own = round(samples / seconds, 1), round(memory / 2**20, 1)
        rows.append({
            "images": count, "workers": workers, "images_per_second": rate, "own_mb": own,
        })  # fmt: skip
    return {"size": GROWTH, "rows": rows}


def private_bytes() -> int:
    """What this process and its workers have written: the mapped images, shared, do not count."""
    total = 0
    for process in ("self", *(child.pid for child in active_children())):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                total += int(line.split()[1]) * 1024
    return total


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders of originals")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--growth", type=int, nargs="+", default=[1000, 10_000, 60_000],
                        help="images, for rate and memory against them")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=9, help="turns (default 9)")
    parser.add_argument("--samples", type=int, default=128, help="of a turn (default 128)")
    args, results = Results.parse(parser, "loader.json", arguments)
    repeats, samples = args.repeats, args.samples
    with TemporaryDirectory() as name:
        place = Path(name)
        photos = find_photos(args.images, place / "drawn")
        sizes = [measure_loader(photos, place, size, repeats, samples) for size in args.size]
        found: dict[str, Any] = {
            "photos": len(photos), "drawn": not args.images, "repeats": repeats, "sizes": sizes,
        }  # fmt: skip
        if sys.platform == "linux":  # which tells a process's own memory
            found["growth"] = measure_growth(place, args.growth)
    for part in sizes:
        for ways, told in part["ratios"].items():
            print(f"{part['size']} px, {ways}: {told['ratio']:.2f} times as fast")
    results.write(found)
    return 0


if __name__ == "__main__":
    run(main)
