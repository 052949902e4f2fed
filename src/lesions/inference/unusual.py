"""Is a photograph like those a run was trained on: its size, its colours, the network's features.

One distance serves colours and features: the mean squared deviation in units of the training
photographs' own spread. It is coarse on purpose; its false alarms are counted on rows that neither
the network nor the limit has seen.
"""

from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, Field

from lesions.data.cache import cached_images
from lesions.data.metadata import encode_metadata
from lesions.evaluation.metrics import Floats
from lesions.inference.checkpoint import Fold

QUANTILE = 0.99  # of the held-out rows' distances: the limit

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Typical(BaseModel):
    """Mean and spread of some quantities, and the distance beyond which they are unusual."""

    mean: list[Finite]
    scale: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    limit: float = Field(ge=0)

    def distance(self, values: Floats) -> Floats:
        """Mean squared deviation of each row of `values` (N, F) in units of the scale, (N,)."""
        deviation = (values - np.asarray(self.mean)) / np.asarray(self.scale)
        return (deviation**2).mean(axis=1).astype(float)

    def unlike(self, values: Floats) -> np.ndarray:
        """Which rows of `values` (N, F) are beyond the limit, bool (N,)."""
        return self.distance(values) > self.limit


class Familiar(BaseModel):
    """What the training photographs of a run are like."""

    least_side: int  # pixels of the shorter side that nearly all originals have; 0 unknown
    most_stretched: float  # longer side over shorter; 0 unknown
    colour: Typical
    features: dict[str, Typical]  # by fold

    def odd_size(self, width: int, height: int) -> str | None:
        """Why a photograph's size is unusual, or None."""
        least, ratio = min(width, height), max(width, height) / min(width, height)
        if least < self.least_side:
            return (
                f"small: {width} x {height} pixels, nearly all training photographs have at least"
                f" {self.least_side} on the shorter side"
            )
        if self.most_stretched and ratio > self.most_stretched:
            return f"stretched: {width} x {height} pixels, unlike nearly all training photographs"
        return None

    def unlike(
        self, fold: int, image: np.ndarray, size: tuple[int, int], features: Floats
    ) -> list[str]:
        """Each way in which a photograph differs from the training's; [] for an ordinary one.

        `image` is as the network sees it, `size` the file's, `features` (F,) are those of `fold`.
        """
        found = [self.odd_size(*size)]
        if self.colour.unlike(colours([image]))[0]:
            found.append("unusual colours: brightness or hue is unlike the training photographs")
        known = self.features.get(str(fold))
        if known and known.unlike(features[None])[0]:
            found.append("unlike the training photographs: perhaps no skin lesion")
        return [reason for reason in found if reason]


class FalseAlarms(BaseModel):
    """Shares of `rows` held-out training rows that are called unlike the training photographs."""

    rows: int
    size: float
    colour: float
    features: float
    any: float


def fit_typical(values: Floats, held_out: Floats) -> Typical:
    """Mean and spread of `values` (N, F), with the limit at the QUANTILE of rows `held_out`."""
    scale = values.std(axis=0)
    scale = np.maximum(scale, 1e-3 + 0.01 * scale.max())  # a constant column counts for little
    mean, spread = ([_short(x) for x in column] for column in (values.mean(axis=0), scale))
    found = Typical(mean=mean, scale=spread, limit=0)
    limit = _short(float(np.quantile(found.distance(held_out), QUANTILE)))
    return found.model_copy(update={"limit": limit})


def colours(images: Sequence[np.ndarray]) -> Floats:
    """Mean and spread of lightness, red-green and blue-yellow of uint8 RGB images: (N, 6)."""
    found = []
    for image in images:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(float)
        found.append([*lab.mean(axis=0), *np.log1p(lab.std(axis=0))])
    return np.array(found)


def fit_familiar(
    folds: Sequence[Fold], table: pd.DataFrame, rows: int
) -> tuple[Familiar, FalseAlarms]:
    """What is usual, by `rows` training rows of each fold, and the false alarms on held-out ones.

    The held-out rows are halved by group: one half gives the limits, the other the false alarms.
    """
    config = folds[0].config
    images = cached_images(config.dataset, config.data.image_size, table)
    train = table[(table["split"] == "train") & (table["width"] > 0)]
    draw = np.random.default_rng(0)
    features: dict[str, Typical] = {}
    parts = []
    for fold in folds:
        inside = train["fold"] == fold.number
        seen, unseen = (_drawn(draw, train.index[where], rows) for where in (~inside, inside))
        pixels, others = images[seen], images[unseen]
        found = image_features(fold, others, table.loc[unseen])
        late = pd.factorize(train.loc[unseen, "group"])[0] % 2 == 1
        known = fit_typical(image_features(fold, pixels, table.loc[seen]), found[~late])
        features[str(fold.number)] = known
        sizes = train.loc[unseen, ["width", "height"]].to_numpy(int)
        parts.append((colours(pixels), colours(others), known.unlike(found), late, sizes))
    own, shades, alarms, late, sizes = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    sides = train[["width", "height"]].to_numpy(float)
    stretched = np.quantile(sides.max(axis=1) / sides.min(axis=1), 0.995) * 1.05
    familiar = Familiar(
        least_side=int(np.quantile(sides.min(axis=1), 0.005)),
        most_stretched=_short(float(stretched)),
        colour=fit_typical(own, shades[~late]),
        features=features,
    )
    odd = [familiar.odd_size(width, height) is not None for width, height in sizes]
    flags = np.stack([odd, familiar.colour.unlike(shades), alarms], axis=1)[late]
    shares = [*flags.mean(axis=0), flags.any(axis=1).mean()]
    names = ("size", "colour", "features", "any")
    rounded = {name: round(float(share), 4) for name, share in zip(names, shares, strict=True)}
    return familiar, FalseAlarms(rows=len(flags), **rounded)


@torch.no_grad()
def image_features(fold: Fold, images: np.ndarray, table: pd.DataFrame) -> Floats:
    """The backbone's pooled features of uint8 images (N, S, S, 3), (N, F), on a GPU if there is."""
    metadata = encode_metadata(table, fold.config.data.metadata, fold.header["neutral"])
    width = fold.model.backbone.head_hidden_size
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fold.model.to(device)
    found = []
    for start in range(0, len(images), 32):
        part = slice(start, start + 32)
        pixels = torch.from_numpy(np.array(images[part])).to(device)
        seen = fold.model.see(pixels)
        features = fold.fused(seen, torch.from_numpy(metadata[part]).to(device))
        found.append(features[:, :width].cpu().numpy())
    fold.model.cpu()
    return np.concatenate(found).astype(np.float64)


def _drawn(draw: np.random.Generator, rows: pd.Index, most: int) -> np.ndarray:
    """At most `most` of the table's rows, in the table's order: the cache is read forwards."""
    return np.sort(draw.choice(rows.to_numpy(), min(most, len(rows)), replace=False))


def _short(value: float) -> float:
    """Five significant digits: the file is read by people too."""
    return float(f"{value:.5g}")
