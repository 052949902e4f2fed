"""Is a photograph like those a run was trained on: its size, its colours, the network's features.

One distance serves colours and features: Mahalanobis's, along the principal axes of held-out
training photographs and in one spread beside them (Tipping and Bishop, 1999). The network has not
seen them or another photograph of their groups, and each is judged by a fit without its group.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, model_validator

from lesions.data.cache import cached_images
from lesions.errors import InputError
from lesions.evaluation.calibration import Finite
from lesions.evaluation.metrics import Floats

if TYPE_CHECKING:  # torch takes seconds to import, and a report needs none
    from lesions.inference.checkpoint import Fold

QUANTILE = 0.99  # of the held-out rows' distances: the limit
PARTS = 5  # of the groups, which take turns to be judged
AXES, NUMBERS = 64, 80_000  # most that are kept, of a fold: calibration.json stays below 1.5 MB


class Typical(BaseModel):
    """What some quantities are like, and the distance beyond which they are unusual."""

    mean: list[Finite]
    scale: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]  # spread along each axis
    axes: str | None = None  # float16 (K, F) in base64; None: the quantities, as in older files
    rest: float = Field(1.0, gt=0, allow_inf_nan=False)  # spread in any direction beside the axes
    limit: float = Field(ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "Typical":
        if not np.isfinite(self.matrix).all():
            raise ValueError("axes must be finite")
        return self

    @cached_property
    def matrix(self) -> Floats:
        """The axes, (K, F)."""
        if self.axes is None:
            return np.eye(len(self.mean))
        numbers = np.frombuffer(b64decode(self.axes), np.float16).astype(np.float64)
        return numbers.reshape(len(self.scale), len(self.mean))

    def distance(self, values: Floats) -> Floats:
        """Mean squared deviation of each row of `values` (N, F) in units of the spread, (N,)."""
        off = values - np.asarray(self.mean)
        along = off @ self.matrix.T
        beside = ((off - along @ self.matrix) ** 2).sum(axis=1) / self.rest**2
        return (((along / self.scale) ** 2).sum(axis=1) + beside) / len(self.mean)

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


def fit_typical(values: Floats, groups: np.ndarray) -> tuple[Typical, np.ndarray]:
    """What `values` (N, F) are like, and which of the rows are called unusual, bool (N,).

    The limit is the QUANTILE of distances by fits without the row's part of the groups; a row is
    judged by the other parts' limit.
    """
    parts = pd.factorize(groups)[0] % PARTS
    distances, flagged = np.zeros(len(values)), np.zeros(len(values), bool)
    pieces = [parts == part for part in np.unique(parts)]
    for own in pieces:
        others = values[~own] if len(pieces) > 1 else values
        distances[own] = _spread(others).distance(values[own])
    for own in pieces:
        limit = np.quantile(distances[~own], QUANTILE) if len(pieces) > 1 else 0
        flagged[own] = distances[own] > limit
    limit = _short(float(np.quantile(distances, QUANTILE)))
    return _spread(values).model_copy(update={"limit": limit}), flagged


def _spread(values: Floats) -> Typical:
    rows, columns = values.shape
    mean = values.mean(axis=0)
    _, sizes, axes = np.linalg.svd(values - mean, full_matrices=False)
    variances = sizes**2 / max(rows - 1, 1)
    least = 1e-4 * variances.sum() / columns + 1e-9  # a constant column counts for little
    kept = max(1, min(AXES, NUMBERS // columns, rows // 8, columns))
    beside = variances[kept:].sum() / (columns - kept) if kept < columns else variances.max()
    return Typical(
        mean=[_short(x) for x in mean],
        scale=[_short(float(x)) for x in np.sqrt(np.maximum(variances[:kept], least))],
        axes=b64encode(axes[:kept].astype(np.float16).tobytes()).decode(),
        rest=_short(float(np.sqrt(max(beside, least)))),
        limit=0,
    )


def colours(images: Sequence[np.ndarray]) -> Floats:
    """Mean and spread of lightness, red-green and blue-yellow of uint8 RGB images: (N, 6)."""
    labs = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in images)
    mean, spread = np.array([cv2.meanStdDev(lab) for lab in labs])[..., 0].swapaxes(0, 1)
    return np.hstack([mean, np.log1p(spread)])


def fit_familiar(
    folds: Sequence["Fold"], table: pd.DataFrame, rows: int
) -> tuple[Familiar, FalseAlarms]:
    """What is usual, by `rows` held-out rows of each fold, and how many of them are called not."""
    if rows < 10:
        raise InputError(f"--rows {rows}: what is usual takes at least 10 photographs of each fold")
    config = folds[0].config
    images = cached_images(config.dataset, config.data.image_size, table)
    train = table[(table["split"] == "train") & (table["width"] > 0)]
    draw = np.random.default_rng(0)
    features: dict[str, Typical] = {}
    shades, chosen, alarms = [], [], []
    for fold in folds:
        inside = train.index[train["fold"] == fold.number].to_numpy()
        # In the table's order: the cache is read forwards.
        drawn = np.sort(draw.choice(inside, min(rows, len(inside)), replace=False))
        pixels = np.stack([images[row] for row in drawn])  # a JPEG cache reads one row at a time
        groups = train.loc[drawn, "group"].to_numpy()
        features[str(fold.number)], flagged = fit_typical(image_features(fold, pixels), groups)
        shades.append(colours(list(pixels)))
        chosen.append(drawn)
        alarms.append(flagged)
    held_out = train.loc[np.concatenate(chosen)]
    colour, shaded = fit_typical(np.concatenate(shades), held_out["group"].to_numpy())
    sides = train[["width", "height"]].to_numpy(float)
    stretched = np.quantile(sides.max(axis=1) / sides.min(axis=1), 0.995) * 1.05
    familiar = Familiar(
        least_side=int(np.quantile(sides.min(axis=1), 0.005)),
        most_stretched=_short(float(stretched)),
        colour=colour,
        features=features,
    )
    sizes = held_out[["width", "height"]].to_numpy(int)
    odd = [familiar.odd_size(width, height) is not None for width, height in sizes]
    flags = pd.DataFrame({"size": odd, "colour": shaded, "features": np.concatenate(alarms)})
    shares = flags.assign(any=flags.any(axis=1)).mean().round(4)
    return familiar, FalseAlarms(rows=len(flags), **shares)


def image_features(fold: "Fold", images: np.ndarray) -> Floats:
    """The backbone's pooled features of uint8 images (N, S, S, 3), (N, F), on a GPU if there is."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = fold.model.to(device)
    with torch.no_grad():
        parts = (model.see(part.to(device)) for part in torch.from_numpy(images).split(32))
        found = [model.pooled(part).float().cpu() for part in parts]
    model.cpu()
    return torch.cat(found).double().numpy()


def _short(value: float) -> float:
    """Five significant digits: the file is read by people too."""
    return float(f"{value:.5g}")
