"""Speed and fidelity of making the image cache, against cv2.imread and an area resize.

    python benchmarks/cache.py --images FOLDER FOLDER --size 256 512

The folders hold photographs at published size, anywhere below. docs/cache.md says what is timed.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from timing import cpu_seconds, in_turns, single_thread

from lesions.cli import build_parser, run
from lesions.data.decode import decode, plain_jpeg
from lesions.errors import InputError
from lesions.provenance import Results

# Share of each size among ISIC 2019 and 2020 (Deotte's CSVs, 69,380 images), by million pixels.
CLASSES = {0.5: 0.25, 1.2: 0.22, 3.0: 0.163, 19.0: 0.095, 120.0: 0.272}


def full_decode(path: Path, size: int) -> np.ndarray:
    """What most public solutions do: all pixels decoded, then averaged down."""
    pixels = cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2RGB)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def bare_decode(path: Path, size: int) -> np.ndarray | None:
    """The scaled decode alone: what is left if reading, resizing and checking cost nothing."""
    content = path.read_bytes()
    with Image.open(path) as image:
        return plain_jpeg(image, content, size * 3 // 2 - 1)


def find_jpegs(folders: Sequence[Path]) -> list[Path]:
    """JPEGs anywhere below `folders`, by name; InputError if there is none."""
    files = [path for folder in folders for path in folder.rglob("*")]
    found = sorted(path for path in files if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise InputError(f"{', '.join(map(str, folders))}: no JPEG below")
    return found


def by_class(paths: Sequence[Path], most: int) -> dict[float, list[Path]]:
    """Up to `most` JPEGs of each class of CLASSES, named by its upper limit in million pixels."""
    found: dict[float, list[Path]] = {limit: [] for limit in CLASSES}
    for path in sorted(paths):
        with Image.open(path) as image:
            if image.format == "JPEG":
                pixels = image.width * image.height / 1e6
                found[min(limit for limit in CLASSES if pixels <= limit)].append(path)
    # Spread over the names, which begin with the origin.
    return {
        limit: [files[i] for i in np.linspace(0, len(files) - 1, min(most, len(files)), dtype=int)]
        for limit, files in found.items()
        if files
    }


def measure(paths: Sequence[Path], size: int, repeats: int, most: int) -> dict:
    """CPU ms by class, the ratio on the realistic mix (median of the turns), its ceiling, PSNR."""
    classes = by_class(paths, most)
    share = np.array([CLASSES[limit] for limit in classes])
    ways = (full_decode, lambda path, size: decode(path, size)[0], bare_decode)

    def seconds(make: Callable, files: Sequence[Path]) -> float:
        return cpu_seconds(lambda: [make(path, size) for path in files]) / len(files)

    timed = {
        f"{limit} {way}": partial(seconds, make, files)
        for limit, files in classes.items()
        for way, make in enumerate(ways)
    }
    with single_thread():
        turns = np.array([*in_turns(timed, repeats).values()])
    times = turns.reshape(len(classes), len(ways), repeats).transpose(2, 1, 0)
    psnr = [
        _psnr(full_decode(path, size), decode(path, size)[0])
        for files in classes.values()
        for path in files
    ]
    mix = times @ (share / share.sum())
    middle = np.median(times, axis=0) * 1e3
    return {
        "size": size,
        "files": len(psnr),
        "ratio": round(float(np.median(mix[:, 0] / mix[:, 1])), 2),
        "ceiling": round(float(np.median(mix[:, 0] / mix[:, 2])), 2),
        "ratios": (mix[:, 0] / mix[:, 1]).round(2).tolist(),
        "images_per_second": round(float(1 / np.median(mix[:, 1])), 1),
        "psnr_median": round(float(np.median(psnr)), 1),
        "psnr_least": round(min(psnr), 1),
        "classes": {
            f"up to {limit:g} Mpx": {
                "share": CLASSES[limit],
                "files": len(classes[limit]),
                "full_decode_ms": round(float(middle[0, column]), 2),
                "cache_ms": round(float(middle[1, column]), 2),
            }
            for column, limit in enumerate(classes)
        },
    }


def _psnr(one: np.ndarray, two: np.ndarray) -> float:
    """Decibels, 100 where the two are equal."""
    error = float(((one.astype(float) - two) ** 2).mean())
    return min(100.0, 10 * float(np.log10(255**2 / max(error, 1e-12))))


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--most", type=int, default=8, help="files of each size class (default 8)")
    args, results = Results.parse(parser, "cache.json", arguments)
    paths, found = find_jpegs(args.images), []
    for size in args.size:
        found.append(measure(paths, size, args.repeats, args.most))
        print(
            f"{size} px: {found[-1]['ratio']:.1f} times as fast as a full decode"
            f" ({found[-1]['images_per_second']:.0f} images/s a core), PSNR median"
            f" {found[-1]['psnr_median']:.1f} dB, least {found[-1]['psnr_least']:.1f} dB"
        )
    results.write({"sizes": found})
    return 0


if __name__ == "__main__":
    run(main)
