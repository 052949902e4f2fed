"""The loader beside the libraries that people use, each in its documented best form, in turns.

    python benchmarks/peers.py --images FOLDER FOLDER    # originals; without: drawn images

docs/performance.md says what is loaded how. A turn of a way is a forked process: its first epoch
warms up, its second is timed. A library that is not installed is skipped:
pip install -e ".[bench]"; pip install --no-deps mosaicml-streaming
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import albumentations as A
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import loader
from cache import CLASSES, by_class
from timing import in_child, in_turns, single_thread, times_as_fast

from lesions.cli import build_parser, run
from lesions.data.augmentation import build_augmentation
from lesions.data.cache import Mode
from lesions.files import read_json
from lesions.provenance import Results

SHARDS, MOST = 4, 256
OURS: dict[str, Mode] = {"array cache": "array", "JPEG cache": "jpeg"}
JITTER = 0.2, 0.2, 0.08, 0.03  # brightness, contrast, saturation and hue, as training has them


@dataclass
class Photos:
    """The files of an epoch, each once, in `folder`/images/0; other layouts of them beside."""

    name: str
    folder: Path
    batch: int

    @property
    def files(self) -> list[str]:
        return sorted(map(str, (self.folder / "images/0").iterdir()))


Build = Callable[[Photos, int, int], Iterable]  # of photographs, size, workers


def our_cache(photos: Photos, size: int, workers: int, mode: Mode = "array") -> DataLoader:
    table, fused = loader.table_of(photos.files), build_augmentation(loader.AUGMENT)
    dataset = loader.ours(photos.folder, table, size, mode, fused)
    samples = len(table) * -(-MOST // len(table))  # a few images would be over too soon
    return loader.epoch_of(dataset, samples, workers, photos.batch)


def winner(photos: Photos, size: int, workers: int) -> DataLoader:
    """The first place of SIIM-ISIC 2020, with the stock list in place of its heavier one."""
    table = loader.table_of(photos.files)
    dataset = loader.UsualDataset(table, loader.usual_transform(size))
    return loader.epoch_of(dataset, len(dataset), workers, photos.batch)


def timm_loader(photos: Photos, size: int, workers: int) -> DataLoader:
    """timm has no rotation outside its policies, and erases on the device: less to do than ours."""
    timm = import_module("timm.data")
    return timm.create_loader(
        timm.ImageDataset(str(photos.folder / "images")), (3, size, size), photos.batch,
        is_training=True,
        scale=(0.72, 1.0), vflip=0.5, color_jitter=JITTER, color_jitter_prob=0.5, re_prob=0.5,
        num_workers=workers, persistent_workers=workers > 0, device=torch.device("cpu"),
    ).loader  # uint8; what is around it normalises on the device  # fmt: skip


def torchvision_loader(photos: Photos, size: int, workers: int) -> DataLoader:
    v2, io = import_module("torchvision.transforms.v2"), import_module("torchvision.io")
    folders = import_module("torchvision.datasets")

    turn = v2.RandomAffine(45, (0.0625, 0.0625), (0.85, 1.15), None, v2.InterpolationMode.BILINEAR)
    transform = v2.Compose([
        v2.Resize((size, size), antialias=True), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(),
        v2.RandomApply([turn]), v2.RandomApply([v2.ColorJitter(*JITTER)]), v2.RandomErasing(0.5),
    ])  # fmt: skip
    decode = partial(io.decode_image, mode="RGB")
    data = folders.ImageFolder(photos.folder / "images", transform, loader=decode)
    return _loader(data, photos, workers, shuffle=True)


def datasets_loader(photos: Photos, size: int, workers: int) -> DataLoader:
    hf = import_module("datasets")
    stock = _stock(size)

    def transform(rows: dict[str, list]) -> dict[str, list]:
        return rows | {"image": [stock(np.array(image)) for image in rows["image"]]}

    table = hf.Dataset.from_dict({"image": photos.files, "label": [0] * len(photos.files)})
    data = table.cast_column("image", hf.Image(mode="RGB")).with_transform(transform)
    return _loader(data, photos, workers, shuffle=True)


def webdataset_loader(photos: Photos, size: int, workers: int) -> Iterable:
    wds = import_module("webdataset")
    shards = [str(path) for path in sorted((photos.folder / "shards").iterdir())]
    data = wds.WebDataset(shards, shardshuffle=SHARDS, empty_check=False).shuffle(1000)
    data = data.decode("rgb8").to_tuple("jpg", "cls").map_tuple(_stock(size), int)
    data = data.batched(photos.batch, collation_fn=default_collate)
    return wds.WebLoader(
        data, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )  # fmt: skip


def streaming_loader(photos: Photos, size: int, workers: int) -> DataLoader:
    streaming: Any = import_module("streaming")
    stock = _stock(size)

    class Streamed(streaming.StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return stock(np.array(row["image"].convert("RGB"))), row["label"]

    folder = str(photos.folder / "mds")
    data = Streamed(local=folder, shuffle=True, batch_size=photos.batch)
    return _loader(data, photos, workers)


# The distribution, its module, and what builds the loader.
WAYS: dict[str, tuple[str, str, Build]] = {
    "timm": ("timm", "timm.data", timm_loader),
    "torchvision v2": ("torchvision", "torchvision.datasets", torchvision_loader),
    "datasets": ("datasets", "datasets", datasets_loader),
    "WebDataset": ("webdataset", "webdataset", webdataset_loader),
    "MosaicML streaming": ("mosaicml-streaming", "streaming", streaming_loader),
    "winner's class": ("albumentations", "albumentations", winner),
    **{name: ("", "lesions", partial(our_cache, mode=mode)) for name, mode in OURS.items()},
}


def _stock(size: int) -> Callable[[np.ndarray], np.ndarray]:
    stock = loader.stock_transforms(loader.AUGMENT, size)
    pipeline = A.Compose([A.Resize(size, size), *stock])
    return lambda image: pipeline(image=image)["image"]


def _loader(data: Any, photos: Photos, workers: int, **how: Any) -> DataLoader:
    return DataLoader(
        data, photos.batch, num_workers=workers, persistent_workers=workers > 0, **how
    )  # fmt: skip


def originals(photos: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """About `count` copies of photographs in the mix of sizes of ISIC 2019 and 2020."""
    classes = by_class(photos, count)
    share = np.array([CLASSES[limit] for limit in classes])
    counts = np.maximum(1, np.diff(np.rint(np.cumsum(share / share.sum()) * count), prepend=0))
    return [
        files[number % len(files)]
        for files, most in zip(classes.values(), counts, strict=True)
        for number in range(int(most))
    ]


def lay_out(name: str, files: Sequence[Path], folder: Path, batch: int) -> Photos:
    """The files as every library wants them, in whole batches for every shard's share."""
    images = folder / "images/0"
    images.mkdir(parents=True)
    for number, path in enumerate(files[: len(files) // batch * batch]):
        shutil.copyfile(path, images / f"{number:04d}.jpg")
    photos = Photos(name, folder, batch)
    if find_spec("webdataset"):
        in_child(lambda: _write_shards(photos))
    if find_spec("streaming"):
        in_child(lambda: _write_mds(photos))
    return photos


def _write_shards(photos: Photos) -> None:
    wds = import_module("webdataset")

    (photos.folder / "shards").mkdir()
    pattern, share = str(photos.folder / "shards/%03d.tar"), len(photos.files) // SHARDS
    with wds.ShardWriter(pattern, maxcount=share, verbose=0) as writer:
        for path in map(Path, photos.files):
            writer.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": 0})


def _write_mds(photos: Photos) -> None:
    columns, out = {"image": "jpeg", "label": "int"}, str(photos.folder / "mds")
    with import_module("streaming").MDSWriter(out=out, columns=columns) as writer:
        for path in photos.files:
            writer.write({"image": Image.open(path), "label": 0})


@single_thread()
def second_epoch(build: Build, photos: Photos, size: int, workers: int) -> tuple[float, ...]:
    """Wall and CPU seconds an image of an epoch, its workers' included, and bytes written."""
    batches = build(photos, size, workers)
    _epoch(batches, size)
    cpu, begun = _cpu_seconds(), time.perf_counter()
    count = _epoch(batches, size)
    spent = time.perf_counter() - begun
    assert count % len(photos.files) == 0, f"{count} images of {len(photos.files)}"
    return spent / count, (_cpu_seconds() - cpu) / count, loader.private_bytes()


def _epoch(batches: Iterable, size: int) -> int:
    """How many images of `size` pixels come."""
    count = 0
    for batch in batches:
        while not isinstance(batch, torch.Tensor):
            batch = batch["image"] if isinstance(batch, dict) else batch[0]
        assert batch.shape[2] == size
        count += len(batch)
    return count


def _cpu_seconds() -> float:
    """Of this process and its living workers (Linux: the clock of another process)."""
    processes = os.getpid(), *(child.pid for child in active_children() if child.pid)
    return sum(time.clock_gettime(~process << 3 | 2) for process in processes)


def measure(
    photos: Photos, size: int, workers: Sequence[int], ways: dict[str, Build], repeats: int
) -> dict[str, Any]:
    """Of every way by workers: images/s (median, least, most), CPU ms an image, own MB.

    Ratios are ours against each peer: images/s at the most workers, and CPU at the fewest.
    """
    turns = in_turns(
        {
            (name, count): partial(in_child, partial(second_epoch, build, photos, size, count))
            for name, build in ways.items()
            for count in workers
        },
        repeats,
    )
    spans = {key: np.array(found).T for key, found in turns.items()}
    rows, few, many = [], workers[0], workers[-1]
    for (name, count), (wall, cpu, own) in spans.items():
        rows.append({
            "way": name, "workers": count, "cpu_ms": round(1000 * float(np.median(cpu)), 3),
            "images_per_second": [
                round(float(of(1 / wall)), 1) for of in (np.median, np.min, np.max)
            ],
            "own_mb": round(float(np.median(own)) / 2**20, 1),
        })  # fmt: skip
    ratios = [
        {"peer": peer, "cache": cache,
         "wall": times_as_fast(spans[peer, many][0], spans[cache, many][0]),
         "cpu": times_as_fast(spans[peer, few][1], spans[cache, few][1])}
        for peer in ways if peer not in OURS for cache in OURS
    ]  # fmt: skip
    return {"photos": photos.name, "size": size, "batch": photos.batch,
            "samples": len(photos.files), "rows": rows, "ratios": ratios}  # fmt: skip


def widen(case: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> None:
    """Let the ranges of the ratios hold those of the same case at other times."""
    for number, ratio in enumerate(case["ratios"]):
        for clock in ("wall", "cpu"):
            turns = [ratio[clock], *(one["ratios"][number][clock] for one in earlier)]
            ratio[clock]["low"] = min(turn["low"] for turn in turns)
            ratio[clock]["high"] = max(turn["high"] for turn in turns)


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders of originals")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 384], help="pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default 5)")
    parser.add_argument("--samples", type=int, nargs=2, default=[24, 256],
                        help="of an epoch: originals, 512 px JPEGs (default 24 256)")  # fmt: skip
    parser.add_argument("--earlier", type=Path, nargs="+", default=[], metavar="JSON",
                        help="results of other times, for the ranges of ratios")  # fmt: skip
    args, results = Results.parse(parser, "peers.json", arguments)
    before = [read_json(path)["cases"] for path in args.earlier]
    there = {name: bool(find_spec(way[1].split(".")[0])) for name, way in WAYS.items()}
    ways = {name: way[2] for name, way in WAYS.items() if there[name]}
    missing = {name: way[0] for name, way in WAYS.items() if not there[name]}
    for name, package in missing.items():
        print(f"{name}: skipped: {package} is not installed")
    found: dict[str, Any] = {
        "drawn": not args.images, "repeats": args.repeats, "times": 1 + len(before),
        "missing": sorted(missing.values()),
        "busy": [os.getloadavg()[0]], "cases": [],
        "versions": {name: version(WAYS[name][0]) for name in ways if name not in OURS},
    }  # fmt: skip
    for name in ways:
        import_module(WAYS[name][1])  # once, not in every turn's process
    with TemporaryDirectory() as place:
        drawn, (few, many) = Path(place), args.samples
        photos = loader.find_photos(args.images, drawn / "drawn")
        large = [Path(path) for path in loader.write_jpegs(photos, drawn / "512", 512)["path"]]
        sets = [
            lay_out("originals", originals(photos, drawn, few), drawn / "originals", few // 6),
            lay_out("512 px JPEGs", (large * many)[:many], drawn / "resized", many // 8),
        ]
        for size, laid in ((size, laid) for laid in sets for size in args.size):
            for mode in OURS.values():  # the cache is made once, not in a turn
                in_child(lambda: len(our_cache(laid, size, 0, mode)))  # noqa: B023
            case = measure(laid, size, args.workers, ways, args.repeats)
            widen(case, [cases[len(found["cases"])] for cases in before])
            found["cases"].append(case)
            for told in case["ratios"]:
                print(f"{laid.name} at {size} px: {told['cache']} {told['wall']['ratio']:.2f} times"
                      f" as fast as {told['peer']}", flush=True)  # fmt: skip
    results.write(found | {"busy": [*found["busy"], os.getloadavg()[0]]})
    return 0


if __name__ == "__main__":
    run(main)
