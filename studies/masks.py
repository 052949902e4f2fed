"""How much of a run's Grad-CAM lies on the lesion, by segmentation masks of dermatologists.

    python studies/masks.py --run ham10000/mobilenetv2 --masks input/ham10000/masks

A centred disc of the lesion's area is the opponent: docs/explanations.md.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.config import PreprocessConfig
from lesions.data.decode import decode
from lesions.errors import InputError
from lesions.evaluation.intervals import bootstrap, format_interval
from lesions.evaluation.metrics import Floats, mean
from lesions.inference.explain import Explained, explained_batches, grad_cam, load_explained
from lesions.paths import shown
from lesions.provenance import Results

SUFFIX = "_segmentation.png"


def masked_rows(explained: Explained, folder: Path) -> pd.DataFrame:
    """The run's out-of-fold rows with a mask <image_name>_segmentation.png in `folder`."""
    if explained.run.preprocess.circle:
        raise InputError("preprocess.circle crops each photograph: masks would not fit")
    names = {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
    rows = explained.rows[explained.rows["image_name"].isin(names)]
    if rows.empty:
        raise InputError(
            f"{shown(folder)}: no <image_name>{SUFFIX} of a photograph of {explained.run.name}"
        )
    return rows


def load_masks(explained: Explained, names: pd.Series, folder: Path) -> np.ndarray:
    """Which part of each pixel is lesion, as the model sees the photograph: float32 (N, S, S)."""
    size = explained.run.config.data.image_size
    fit = PreprocessConfig(fit=explained.run.preprocess.fit)
    masks = [decode(folder / f"{name}{SUFFIX}", size, fit)[0][:, :, 0] for name in names]
    return np.stack(masks).astype(np.float32) / 255


def centred_discs(area: Floats, size: int) -> np.ndarray:
    """For each of `area`, in pixels, the pixels nearest to the centre: float32 (N, size, size)."""
    offset = np.arange(size) - (size - 1) / 2
    distance = (offset[:, None] ** 2 + offset**2).ravel()
    place = np.empty(size * size)
    place[np.argsort(distance, kind="stable")] = np.arange(size * size)
    return (place < np.round(area)[:, None]).astype(np.float32).reshape(-1, size, size)


def shares(maps: np.ndarray, masks: np.ndarray) -> dict[str, Floats]:
    """Shares by image of maps and masks (N, S, S); NaN for a map of nothing.

    inside and disc: of the map's energy, on the lesion and on the centred disc of its area; more:
    their difference; overlap: of the disc, on the lesion; area: of the picture, the lesion.
    """
    discs = centred_discs(masks.sum((1, 2)), masks.shape[1])
    energy, area = maps.sum((1, 2), dtype=np.float64), discs.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = (maps * masks).sum((1, 2)) / energy
        disc = (maps * discs).sum((1, 2)) / energy
        overlap = (discs * masks).sum((1, 2)) / area
    return {
        "inside": inside, "disc": disc, "more": inside - disc, "overlap": overlap,
        "area": masks.mean((1, 2), dtype=np.float64),
    }  # fmt: skip


def image_shares(explained: Explained, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """`shares` of each of `rows` by Grad-CAM, in their order, without those whose map is empty."""
    parts = []
    with tqdm(total=len(rows), unit="image", leave=False, disable=None) as bar:
        for part, fold, images, metadata, output, against in explained_batches(explained, rows):
            maps = grad_cam(fold.model, images, metadata, output, against)
            masks = load_masks(explained, part["image_name"], folder)
            parts.append(pd.DataFrame(shares(maps, masks), index=part.index))
            bar.update(len(part))
    told = pd.concat(parts).loc[rows.index]
    return rows.join(told).dropna(subset=["inside"])


def measure_focus(explained: Explained, folder: Path) -> dict[str, Any]:
    """What docs/explanations.md shows of the run, with the masks in `folder`."""
    rows = masked_rows(explained, folder)
    told = image_shares(explained, rows, folder)
    found = told["score"] >= explained.threshold
    outcomes = {
        "found": told["positive"] & found,
        "missed": told["positive"] & ~found,
        "false alarm": ~told["positive"] & found,
        "rightly cleared": ~told["positive"] & ~found,
    }
    config = explained.run.config
    return {
        "run": explained.run.name,
        "task": explained.run.task.name,
        "backbone": config.model.backbone,
        "image_size": config.data.image_size,
        "photographs": len(rows),
        "lesions": int(rows["group"].nunique()),
        "empty": len(rows) - len(told),
        "all": summary(told),
        "outcomes": {name: summary(told[chosen]) for name, chosen in outcomes.items()},
        "diagnoses": {str(name): summary(part) for name, part in told.groupby("diagnosis")},
    }


def summary(told: pd.DataFrame) -> dict[str, Any]:
    """Photographs, and each share's mean with its interval over lesions."""
    if told.empty:
        return {"photographs": 0}
    groups = told["group"].to_numpy()
    shares_of = told[["inside", "disc", "more", "overlap", "area"]].astype(np.float64)
    values = {name: bootstrap(mean, column, column, groups) for name, column in shares_of.items()}
    return {"photographs": len(told)} | {str(n): value.as_json() for n, value in values.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", required=True, help="a run")
    parser.add_argument("--masks", type=Path, required=True, help=f"folder of <image_name>{SUFFIX}")
    args, results = Results.parse(parser, "explanations.json", arguments)
    found = measure_focus(load_explained(args.run), args.masks)
    print(f"{found['photographs']:,} photographs of {found['run']}, shares of the map's energy:")
    for name, what in (("inside", "on the lesion"), ("disc", "on a centred disc of its area")):
        share = found["all"][name]
        print(f"{what}: {format_interval(share['value'], share['low'], share['high'])}")
    results.write(found)
    return 0


if __name__ == "__main__":
    run(main)
