"""Galleries: which photographs to look at, and the photographs themselves."""

from base64 import b64encode
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.reporting.style import WIDTH, build_figure
from lesions.reporting.words import Words

TILES = 8
PIXELS = 224  # a tile is never larger, so that a report stays a few megabytes

# name: title and caption, with the words for the positive lesions
TITLES = {
    "false_negatives": (
        "Missed {many}",
        "{title} below the threshold, the lowest score first.",
    ),
    "false_positives": (
        "False alarms",
        "Benign lesions above the threshold, the highest score first.",
    ),
    "sure_positive": (
        "Surest {many}",
        "{title} with the highest scores: what the model has learnt to see.",
    ),
    "sure_benign": (
        "Surest benign lesions",
        "Benign lesions with the lowest scores.",
    ),
    "unsure_positive": (
        "Least certain {many}",
        "{title} nearest to the threshold, on either side.",
    ),
    "unsure_benign": (
        "Least certain benign lesions",
        "Benign lesions nearest to the threshold, on either side.",
    ),
}


@dataclass(frozen=True)
class Gallery:
    """Rows of the joined table, most telling first, under a title."""

    name: str
    title: str
    caption: str
    rows: pd.DataFrame


def choose_galleries(
    oof: pd.DataFrame, flagged: np.ndarray, margin: np.ndarray, words: Words
) -> list[Gallery]:
    """The galleries of errors and of confidence; `margin` is each row's distance to the threshold.

    A group is shown once in a gallery: ten photographs of one lesion say little.
    """
    positive = (oof["target"] == 1).to_numpy()
    missed, alarms = positive & ~flagged, ~positive & flagged
    caught, cleared = positive & flagged, ~positive & ~flagged
    rising, nearest = oof["prob"], pd.Series(margin, oof.index)
    order = {
        "false_negatives": (missed, rising),
        "false_positives": (alarms, -rising),
        "sure_positive": (caught, -rising),
        "sure_benign": (cleared, rising),
        "unsure_positive": (positive, nearest),
        "unsure_benign": (~positive, nearest),
    }
    galleries = []
    for name, (chosen, by) in order.items():
        rows = oof.loc[by[chosen].sort_values(kind="stable").index]
        rows = rows.drop_duplicates("group").head(TILES)
        title, caption = (text.format(many=words.many, title=words.title) for text in TITLES[name])
        galleries.append(Gallery(name, title, caption, rows))
    return galleries


def choose_samples(oof: pd.DataFrame, words: Words) -> list[Gallery]:
    """A random handful of each class, always the same one, a group once."""
    galleries = []
    for value, name, title in ((1, "positive", words.title), (0, "benign", "Benign lesions")):
        rows = oof[oof["target"] == value].drop_duplicates("group")
        rows = rows.sample(min(TILES, len(rows)), random_state=0)
        galleries.append(Gallery(f"sample_{name}", title, "Drawn at random.", rows))
    return galleries


def tile(images: np.ndarray, position: int) -> np.ndarray:
    """The photograph at a table position: uint8 RGB, PIXELS a side at most."""
    image = np.asarray(images[position])
    if image.shape[0] > PIXELS:
        image = cv2.resize(image, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
    return image


def data_uri(image: np.ndarray) -> str:
    """The RGB image as a JPEG that stands in the page itself."""
    _, jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 86])
    return "data:image/jpeg;base64," + b64encode(jpeg.tobytes()).decode()


def plot_sheet(gallery: Gallery, images: np.ndarray) -> Figure:
    """The gallery as one picture, four tiles a row, the score above each."""
    lines = max(1, -(-len(gallery.rows) // 4))
    figure, axes = build_figure(0.25 + lines * (WIDTH / 4 + 0.2), lines, 4)
    for panel in axes.ravel():
        panel.axis("off")
    rows = zip(gallery.rows.index.to_numpy(), gallery.rows.to_dict("records"), strict=True)
    for panel, (position, row) in zip(axes.ravel(), rows, strict=False):
        panel.imshow(tile(images, int(position)))
        panel.set_title(f"{row['prob']:.3f}  {row['diagnosis']}", fontsize=7)
    return figure


def describe(row: Mapping[Hashable, Any]) -> str:
    """Who is in the photograph, as far as is known: "female, 45, torso"."""
    age = "" if pd.isna(row["age_approx"]) else f"{row['age_approx']:.0f}"
    facts = [row["sex"], age, row["site"]]
    return ", ".join(str(fact) for fact in facts if fact and not pd.isna(fact))
