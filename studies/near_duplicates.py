"""How well near-duplicate photographs are found: copies planted among those of HAM10000, by kind.

    python studies/near_duplicates.py --input input/ham10000 --images input/ham10000/images

Also the time of 60,000 images, which are six overlapping parts of each photograph.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.data.columns import Report
from lesions.data.near_duplicates import REVIEWED, SAME, SIZE, STOP, find_near_duplicates
from lesions.data.sources import read_ham10000
from lesions.errors import InputError
from lesions.provenance import Results


def _encoded(picture: np.ndarray, quality: int = 85) -> np.ndarray:
    packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def _cropped(picture: np.ndarray, rng: np.random.Generator, percent: int = 95) -> np.ndarray:
    """So much of either side, from anywhere."""
    height, width = np.array(picture.shape[:2]) * percent // 100
    top = rng.integers(picture.shape[0] - height + 1)
    left = rng.integers(picture.shape[1] - width + 1)
    return picture[top : top + height, left : left + width]


def _scaled(picture: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    return np.clip(picture * factor, 0, 255).astype(np.uint8)


def _rotated(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.rot90(picture, int(rng.integers(1, 4)))


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "re-encoded at quality 40": lambda picture, rng: _encoded(picture, 40),
    "resized to 60 %": lambda p, rng: cv2.resize(p, None, fx=0.6, fy=0.6, interpolation=3),
    "squashed to a square": lambda p, rng: cv2.resize(p, (128, 128), interpolation=3),
    "cropped by 5 %": _cropped,
    "5 % cut off each side": lambda p, rng: p[p.shape[0] // 20 : -(p.shape[0] // 20),
                                              p.shape[1] // 20 : -(p.shape[1] // 20)],
    "flipped": lambda picture, rng: picture[:, ::-1],
    "rotated by 90 degrees": _rotated,
    "brightness by 25 %": lambda picture, rng: _scaled(picture, rng.choice([0.75, 1.25])),
    "each colour by up to 15 %": lambda p, rng: _scaled(p, rng.uniform(0.85, 1.15, 3)),
    "cropped, rotated, brighter": lambda p, rng: _scaled(_rotated(_cropped(p, rng), rng), 1.15),
}  # fmt: skip


def measure(table: pd.DataFrame, load: Callable[[str], np.ndarray], each: int) -> dict:
    """Recall of planted copies by kind, precision, and false pairs among real photographs.

    `table` has image_name and lesion_id; `load` gives a photograph as uint8 BGR. Every copy is of
    another photograph and saved as JPEG again. Pairs of one lesion are not counted as false.
    """
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(table))[: each * len(KINDS)].reshape(len(KINDS), -1)
    names = table["image_name"].tolist()
    originals = [_small(load(name)) for name in names]
    copies = [
        _small(_encoded(np.ascontiguousarray(change(load(names[row]), rng))))
        for change, chosen in zip(KINDS.values(), rows, strict=True)
        for row in chosen
    ]
    found, seconds, _ = _timed(originals + copies)
    drawn = (_cropped(picture, rng, 60) for picture in map(load, names) for _ in range(6))
    many = [_small(part) for part in drawn][:60_000]
    _, cpu, wall = _timed(many)
    source = np.concatenate([np.arange(len(names)), rows.reshape(-1)])
    pairs = set(zip(found["first"], found["second"], strict=True))
    hits = [(int(row), len(names) + copy) in pairs for copy, row in enumerate(rows.reshape(-1))]
    lesion = table["lesion_id"].to_numpy()[source]
    first, second = found["first"].to_numpy(), found["second"].to_numpy()
    real = second < len(names)
    other = lesion[first] != lesion[second]
    return {
        "photographs": len(names),
        "planted": len(copies),
        "threshold": SAME,
        "reviewed": REVIEWED,
        "stop": STOP,
        "recall": {
            kind: float(np.mean(part))
            for kind, part in zip(KINDS, np.array(hits).reshape(len(KINDS), -1), strict=True)
        },
        "recall_all": float(np.mean(hits)),
        "precision": float(1 - other.mean()),
        "real_pairs_of_different_lesions": [
            [names[a], names[b], round(float(score), 3)]
            for a, b, score in found[real & other].itertuples(index=False)
        ],
        "share_of_all_real_pairs_of_different_lesions": float((real & other).sum())
        / (len(names) * (len(names) - 1) / 2),
        "cpu_seconds": round(seconds, 1),
        "many": {"images": len(many), "cpu_seconds": cpu, "wall_seconds": wall},
    }


def _timed(images: list[np.ndarray]) -> tuple[pd.DataFrame, float, float]:
    """The pairs found, and seconds of all cores and of the clock."""
    together = np.stack(images)
    began, wall = time.process_time(), time.perf_counter()
    found = find_near_duplicates(together)
    return found, time.process_time() - began, time.perf_counter() - wall


def _small(picture: np.ndarray) -> np.ndarray:
    shown = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(shown, cv2.COLOR_BGR2RGB)


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of HAM10000_metadata.csv")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--each", type=int, default=200, help="copies of each kind (default 200)")
    args, results = Results.parse(parser, "near_duplicates.json", arguments)
    table = read_ham10000(args.input, Report(strict=True))
    paths = {name: args.images / f"{name}.jpg" for name in table["image_name"]}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]}: no such photograph ({len(missing):,} are missing)")
    found = measure(table, lambda name: np.asarray(cv2.imread(str(paths[name]))), args.each)
    print(f"recall {found['recall_all']:.3f}, precision {found['precision']:.4f};"
          f" {len(found['real_pairs_of_different_lesions'])} pairs of different lesions;"
          f" {found['cpu_seconds']} s of CPU")  # fmt: skip
    results.write(found)


if __name__ == "__main__":
    run(main)
