"""Galleries: which photographs to show, and the photographs as tiles of a page."""

from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
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
    oof: Oof,
    decided: Decisions | None,
    calibrated: np.ndarray,
    images: Any,
    sheets: dict[str, Figure],
) -> dict[str, list[dict[str, Any]]]:
    """The photographs: `galleries` by the threshold and `worst`, errors by class.

    The numbers beside them are probabilities of the stored calibration. Each gallery becomes a
    figure in `sheets` as well.
    """
    chosen, worst = [], []
    if decided:
        risk = oof.task.score(calibrated)
        chosen = choose_galleries(oof.table, oof.positive, decided.flagged, risk, decided.margin)
    if oof.task.several:
        called = oof.probs.argmax(axis=1)
        sure = calibrated[np.arange(len(called)), called]
        worst = choose_worst(oof.table, oof.codes, called, sure, oof.task.classes)
    counts = np.bincount(oof.codes, minlength=len(oof.task.classes))

    def shown(one: Gallery) -> dict[str, Any]:
        found = [] if images is None else tiles(one, images)
        if found:
            sheets[one.name] = plot_sheet(one, images)
        return {"name": one.name, "tiles": found, "of": one.of}

    return {
        "galleries": [shown(one) for one in chosen],
        "worst": [
            shown(one) | {"class": name, "rows": rows}
            for one, name, rows in zip(worst, oof.task.classes, counts, strict=False)
        ],
    }


def choose_galleries(
    table: pd.DataFrame, positive: np.ndarray, flagged: np.ndarray, risk: np.ndarray,
    margin: np.ndarray,
) -> list[Gallery]:  # fmt: skip
    """Errors, sure and least certain predictions, then a random handful of either kind.

    `risk` is the calibrated probability that is shown, `margin` the distance to the threshold.
    """
    rows = table.assign(number=risk, label=table["diagnosis"])
    order = {
        "false_negatives": (positive & ~flagged, risk),
        "false_positives": (~positive & flagged, -risk),
        "sure_positive": (positive & flagged, -risk),
        "sure_benign": (~positive & ~flagged, risk),
        "unsure_positive": (positive, margin),
        "unsure_benign": (~positive, margin),
    }
    chosen = [_first(name, rows, *which) for name, which in order.items()]
    random = np.random.default_rng(0).random(len(rows))
    chosen.append(_first("sample_positive", rows, positive, random))
    chosen.append(_first("sample_benign", rows, ~positive, random))
    return chosen


def choose_worst(
    table: pd.DataFrame, codes: np.ndarray, called: np.ndarray, sure: np.ndarray,
    classes: Sequence[str],
) -> list[Gallery]:  # fmt: skip
    """Of each class the rows whose wrong prediction `called` has the highest probability `sure`."""
    names = np.array(classes)
    arrow = [f"{true} → {found}" for true, found in zip(names[codes], names[called], strict=True)]
    rows, wrong = table.assign(number=sure, label=arrow), called != codes
    return [
        _first(f"errors_{name}", rows, wrong & (codes == k), -sure)
        for k, name in enumerate(classes)
    ]


def _first(name: str, rows: pd.DataFrame, where: np.ndarray, by: np.ndarray) -> Gallery:
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
