"""Galleries: which photographs to show, and the photographs as tiles of a page."""

from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.data.cache import cached_images
from lesions.data.table import prepared
from lesions.errors import InputError
from lesions.evaluation.metrics import all_columns
from lesions.oof import Oof
from lesions.reporting.breakdown import ABSENT
from lesions.reporting.sections import Decisions
from lesions.reporting.style import WIDTH, build_figure

TILES = 8
PIXELS = 224  # a tile is never larger, so that a report stays a few megabytes


@dataclass(frozen=True)
class Tile:
    """A photograph as a data URI, its alternative text, and three lines below it."""

    uri: str
    alt: str
    lines: tuple[str, str, str]


def galleries(
    oof: Oof, decided: Decisions | None, calibrated: np.ndarray, images: Any,
    sheets: dict[str, Figure],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every gallery as the template takes it, a figure of it in `sheets`; no tiles without images.

    The numbers beside the photographs are probabilities of the stored calibration; `of` counts the
    rows that a gallery was chosen from.
    """
    codes, called, several = oof.codes, oof.probs.argmax(axis=1), oof.task.several
    names = oof.task.classes if several else ("benign", "positive")
    picks: dict[str, tuple[pd.DataFrame, int]] = {}

    def pick(name: str, where: np.ndarray, by: np.ndarray, number: np.ndarray, label: Any) -> None:
        rows = oof.table.assign(number=number, label=label)
        picks[name] = choose(rows, where, by), int(where.sum())

    if decided:
        risk, positive, flagged = oof.task.score(calibrated), oof.positive, decided.flagged
        random = np.random.default_rng(0).random(len(risk))
        for name, where, by in (
            ("false_negatives", positive & ~flagged, risk),
            ("false_positives", ~positive & flagged, -risk),
            ("unsure_positive", positive, decided.margin),
            ("unsure_benign", ~positive, decided.margin),
            ("sample_positive", positive, random),
            ("sample_benign", ~positive, random),
        ):
            pick(name, where, by, risk, oof.table["diagnosis"])
    for k, (name, prob) in enumerate(zip(names, all_columns(calibrated).T, strict=True)):
        if several:  # the wrong predictions of the highest probability
            sure = calibrated[np.arange(len(called)), called]
            arrows = [f"{name} → {names[other]}" for other in called]
            pick(f"errors_{name}", (codes == k) & (called != k), -sure, sure, arrows)
        own = highest_to_lowest(oof.table.assign(number=prob)[codes == k])
        picks[f"confidence_{name}"] = own, len(own)
    found = []
    for name, (rows, of) in picks.items():
        picked = rows.to_dict("records")
        shown = [] if images is None else [tile_of(row, images) for row in picked]
        if shown:
            sheets[name] = plot_sheet(picked, images)
        found.append({"name": name, "tiles": shown, "of": of})
    return found


def samples(rows: pd.DataFrame, images: Any) -> list[dict[str, Any]]:
    """A gallery of each `label`, the most frequent first: a random handful, each group once."""
    random, found = np.random.default_rng(0).random(len(rows)), []
    for label, of in rows["label"].value_counts().items():
        picked = choose(rows, (rows["label"] == label).to_numpy(), random).to_dict("records")
        found.append({"name": label, "tiles": [tile_of(row, images) for row in picked], "of": of})
    return found


def pair_tiles(pairs: pd.DataFrame, rows: pd.Series, images: Any) -> list[Tile]:
    """The listed near-duplicates side by side; `rows` is the place in the cache by image_name."""
    found = []
    for place, (one, other, score, decision) in enumerate(pairs.itertuples(index=False), 2):
        if one in rows and other in rows:
            pair = np.hstack([tile(images, rows[name], PIXELS // 2) for name in (one, other)])
            first = f"row {place} · {'' if pd.isna(score) else f'{score:.3f}'} {decision}"
            found.append(Tile(data_uri(pair), f"{one} beside {other}", (first, one, other)))
    return found


def nearest_images(dataset: str, table: pd.DataFrame, wanted: int) -> tuple[Any, str]:
    """The image cache of the size nearest to the wanted one; or None, and the next command."""
    folder, reason = prepared(dataset), ""
    sizes = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()]
    for size in sorted(sizes or [wanted], key=lambda size: abs(size - wanted)):
        try:
            return cached_images(dataset, size, table), ""
        except InputError as error:
            reason = reason or str(error)
    return None, f"No image cache: {reason}"


def choose(rows: pd.DataFrame, where: np.ndarray, by: np.ndarray) -> pd.DataFrame:
    """The TILES rows of `where` with the lowest `by`; each group once, as its images are alike."""
    order = np.flatnonzero(where)[np.argsort(by[where], kind="stable")]
    return rows.iloc[order].drop_duplicates("group").head(TILES)


def highest_to_lowest(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the highest, the median and the lowest `number`, each group once."""
    rows = rows.sort_values("number", ascending=False, kind="stable").drop_duplicates("group")
    middle = max(0, len(rows) // 2 - 1)
    places = [*range(3), middle, middle + 1, *range(len(rows) - 3, len(rows))]
    places = sorted({place for place in places if 0 <= place < len(rows)})
    names = ["highest" if p < 3 else "median" if p <= middle + 1 else "lowest" for p in places]
    return rows.iloc[places].assign(label=names)


def tile_of(row: Mapping[Hashable, Any], images: Any) -> Tile:
    """The photograph of a row; `images` is the cache, in the order of table.csv."""
    label, known = row["label"] or ABSENT, describe(row)
    number = f"{row['number']:.3f} · " if "number" in row else ""
    lines = (f"{number}{label}", known, row["image_name"])
    return Tile(data_uri(tile(images, row["row"])), f"{label}, {known}", lines)


def tile(images: Any, position: int, most: int = PIXELS) -> np.ndarray:
    """The photograph at a position: uint8 RGB, `most` pixels a side at most."""
    image = np.asarray(images[position])
    if image.shape[0] > most:
        image = cv2.resize(image, (most, most), interpolation=cv2.INTER_AREA)
    return image


def data_uri(image: np.ndarray) -> str:
    """The RGB image as a JPEG that stands in the page itself."""
    _, jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
    return "data:image/jpeg;base64," + b64encode(jpeg.tobytes()).decode()


def plot_sheet(rows: Sequence[Mapping[Hashable, Any]], images: Any) -> Figure:
    """Rows of a gallery as one picture, four tiles a line, number and label above each."""
    lines = -(-len(rows) // 4)
    figure, ((axes,),) = build_figure(lines * 1.2 * WIDTH / 4)
    for k, row in enumerate(rows):
        x, y = k % 4, 1.2 * (k // 4)
        axes.imshow(tile(images, row["row"]), extent=(x, x + 0.96, y + 1.16, y + 0.2))
        label = row["label"].replace("$", r"\$")  # no formula, whatever a table holds
        axes.text(x, y + 0.16, f"{row['number']:.3f}  {label}", fontsize=7)
    axes.set(xlim=(0, 4), ylim=(1.2 * lines, 0))
    axes.axis("off")
    return figure


def describe(row: Mapping[Hashable, Any]) -> str:
    """Who is in the photograph, as far as is known: "female, 45, torso"."""
    age = "" if pd.isna(row["age_approx"]) else f"{row['age_approx']:.0f}"
    return ", ".join(filter(None, [row["sex"], age, row["site"]]))
