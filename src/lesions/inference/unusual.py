"""Is a photograph like those a run was trained on: its size, its colours, the network's features.

One distance serves colours and features: the mean squared deviation in units of the training
photographs' own spread. It is coarse on purpose; how often it cries wolf is measured on rows that
neither the network nor the limit has seen (scripts/calibrate.py).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import BaseModel

from lesions.evaluation.metrics import Floats

QUANTILE = 0.99  # of the held-out rows' distances: the limit


class Typical(BaseModel):
    """Mean and spread of some quantities, and the distance beyond which they are unusual."""

    mean: list[float]
    scale: list[float]
    limit: float = float("inf")

    def distance(self, values: Floats) -> Floats:
        """Mean squared deviation of each row of `values` (N, F) in units of the scale, (N,)."""
        return (
            (((values - np.asarray(self.mean)) / np.asarray(self.scale)) ** 2).mean(axis=1)
        ).astype(float)

    def limited(self, held_out: Floats) -> "Typical":
        """The same with its limit at the QUANTILE of the rows `held_out` (N, F)."""
        return self.model_copy(
            update={"limit": short(float(np.quantile(self.distance(held_out), QUANTILE)))}
        )


class Familiar(BaseModel):
    """What the training photographs of a run are like."""

    least_side: int  # pixels of the shorter side that nearly all originals have; 0 unknown
    most_stretched: float  # longer side over shorter; 0 unknown
    colour: Typical
    features: dict[str, Typical]  # by fold


def fit_typical(values: Floats) -> Typical:
    """Mean and spread of the columns of `values` (N, F), without a limit yet."""
    scale = values.std(axis=0)
    scale = np.maximum(scale, 1e-3 + 0.01 * scale.max())  # a constant column must not shout
    return Typical(mean=[short(x) for x in values.mean(axis=0)], scale=[short(x) for x in scale])


def colours(images: Sequence[np.ndarray]) -> Floats:
    """Mean and spread of lightness, red-green and blue-yellow of uint8 RGB images: (N, 6)."""
    told = []
    for image in images:
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(float)
        told.append([*lab.mean(axis=0), *np.log1p(lab.std(axis=0))])
    return np.array(told)


def odd_size(familiar: Familiar, width: int, height: int) -> str | None:
    """Why a photograph's size is unusual, or None."""
    least, ratio = min(width, height), max(width, height) / min(width, height)
    if least < familiar.least_side:
        return (
            f"small: {width} x {height} pixels, nearly all training photographs have at least"
            f" {familiar.least_side} on the shorter side"
        )
    if familiar.most_stretched and ratio > familiar.most_stretched:
        return f"stretched: {width} x {height} pixels, unlike nearly all training photographs"
    return None


def unlike(
    familiar: Familiar, fold: str, image: np.ndarray, size: tuple[int, int], features: Floats
) -> list[str]:
    """Each way in which a photograph is unlike the training's, in words; [] for an ordinary one.

    `image` is as the network sees it, `size` the file's, `features` (F,) are those of `fold`.
    """
    found = [odd_size(familiar, *size)]
    if familiar.colour.distance(colours([image]))[0] > familiar.colour.limit:
        found.append("unusual colours: brightness or hue is unlike the training photographs")
    known = familiar.features.get(fold)
    if known and known.distance(features[None])[0] > known.limit:
        found.append("unlike the training photographs: perhaps no skin lesion")
    return [reason for reason in found if reason]


def short(value: float) -> float:
    """Five significant digits: the file is read by people too."""
    return float(f"{value:.5g}")
