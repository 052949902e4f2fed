"""Galleries: which photographs to show, and the photographs as tiles of a page."""

from base64 import b64encode
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

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


@dataclass(frozen=True)
class Gallery:
    """Rows of the table, most telling first; `number` is shown over each, `label` beside it.

    `of` counts the rows that the gallery was chosen from.
    """

    name: str
    rows: pd.DataFrame
    of: int


def galleries(
    oof: Oof, decided: Decisions | None, calibrated: np.ndarray, images: Any,
    sheets: dict[str, Figure],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every gallery as the template takes it, a figure of it in `sheets`; no tiles without images.

    The numbers beside the photographs are probabilities of the stored calibration.
    """
    chosen = _by_threshold(oof, decided, oof.task.score(calibrated)) if decided else []
    if oof.task.several:
        chosen += _errors_by_class(oof, calibrated)
    found = []
    for gallery in chosen:
        shown = [] if images is None else tiles(gallery, images)
        if shown:
            sheets[gallery.name] = plot_sheet(gallery, images)
        found.append({"name": gallery.name, "tiles": shown, "of": gallery.of})
    return found


def _by_threshold(oof: Oof, decided: Decisions, risk: np.ndarray) -> list[Gallery]:
    """Errors, sure and least certain predictions, then a random handful of either kind."""
    positive, flagged, margin = oof.positive, decided.flagged, decided.margin
    rows = oof.table.assign(number=risk, label=oof.table["diagnosis"])
    random = np.random.default_rng(0).random(len(rows))
    order = {
        "false_negatives": (positive & ~flagged, risk),
        "false_positives": (~positive & flagged, -risk),
        "sure_positive": (positive & flagged, -risk),
        "sure_benign": (~positive & ~flagged, risk),
        "unsure_positive": (positive, margin),
        "unsure_benign": (~positive, margin),
        "sample_positive": (positive, random),
        "sample_benign": (~positive, random),
    }
    return [choose(name, rows, *which) for name, which in order.items()]


def _errors_by_class(oof: Oof, calibrated: np.ndarray) -> list[Gallery]:
    """Of each class the rows whose wrong prediction has the highest probability."""
    called, names = oof.probs.argmax(axis=1), np.array(oof.task.classes)
    sure = calibrated[np.arange(len(called)), called]
    arrow = [f"{names[i]} → {names[j]}" for i, j in zip(oof.codes, called, strict=True)]
    rows, wrong = oof.table.assign(number=sure, label=arrow), called != oof.codes
    return [
        choose(f"errors_{name}", rows, wrong & (oof.codes == k), -sure)
        for k, name in enumerate(names)
    ]


def choose(name: str, rows: pd.DataFrame, where: np.ndarray, by: np.ndarray) -> Gallery:
    """The TILES rows of `where` with the lowest `by`; each group once, as its images are alike."""
    order = np.flatnonzero(where)[np.argsort(by[where], kind="stable")]
    return Gallery(name, rows.iloc[order].drop_duplicates("group").head(TILES), int(where.sum()))


def tiles(gallery: Gallery, images: Any) -> list[Tile]:
    """The gallery's photographs; `images` is the cache, in the order of table.csv."""
    found = []
    for row in gallery.rows.to_dict("records"):
        label, known = _text(row["label"]) or ABSENT, describe(row)
        first = f"{row['number']:.3f} · {label}"
        uri = data_uri(tile(images, row["row"]))
        found.append(Tile(uri, f"{label}, {known}", (first, known, str(row["image_name"]))))
    return found


def tile(images: Any, position: int) -> np.ndarray:
    """The photograph at a position: uint8 RGB, PIXELS a side at most."""
    image = np.asarray(images[position])
    if image.shape[0] > PIXELS:
        image = cv2.resize(image, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
    return image


def data_uri(image: np.ndarray) -> str:
    """The RGB image as a JPEG that stands in the page itself."""
    _, jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
    return "data:image/jpeg;base64," + b64encode(jpeg.tobytes()).decode()


def plot_sheet(gallery: Gallery, images: Any) -> Figure:
    """The gallery as one picture, four tiles a line, number and label above each."""
    lines = max(1, -(-len(gallery.rows) // 4))
    figure, axes = build_figure(0.25 + lines * (WIDTH / 4 + 0.2), lines, 4)
    for panel in axes.ravel():
        panel.axis("off")
    for panel, row in zip(axes.ravel(), gallery.rows.to_dict("records"), strict=False):
        panel.imshow(tile(images, row["row"]))
        label = _text(row["label"]).replace("$", r"\$")  # no formula, whatever a table holds
        panel.set_title(f"{row['number']:.3f}  {label}", fontsize=7)
    return figure


def describe(row: Mapping[Hashable, Any]) -> str:
    """Who is in the photograph, as far as is known: "female, 45, torso"."""
    age = "" if pd.isna(row["age_approx"]) else f"{row['age_approx']:.0f}"
    return ", ".join(filter(None, [_text(row["sex"]), age, _text(row["site"])]))


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
