"""A run's own answers explained, each by the fold that did not see the photograph.

Sure hits, misses and false alarms, as a page of their own or as a section of a report.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from lesions.data.decode import UnreadableImage
from lesions.data.images import cached_images
from lesions.data.metadata import encode_metadata
from lesions.data.table import load_table
from lesions.data.tasks import MALIGNANT
from lesions.errors import InputError
from lesions.files import read_csv, write_bytes
from lesions.inference.answers import find_photos
from lesions.inference.ensemble import Fold, Run, load_run, score_of
from lesions.inference.explain import grad_cam, metadata_effects, overlay
from lesions.inference.predictor import Patient, Predictor
from lesions.paths import at, shown
from lesions.reporting import page
from lesions.reporting.gallery import data_uri, describe, tile

TILES = 8
BATCH = 64
SHORT = {"age_approx": "age", "images_per_patient": "images", "localization": "place"}

# A tile is twice as wide here as in other galleries.
PAIRS = (
    "<style>.pairs .tiles img{aspect-ratio:2}"
    "@media (min-width:68rem){.pairs .tiles{grid-template-columns:repeat(4,1fr)}}</style>"
)
GALLERIES = {
    "sure_hits": ("Sure hits", "Found, with the highest scores."),
    "misses": ("Misses", "Not found, the lowest score first: what spoke for the wrong answer?"),
    "false_alarms": ("False alarms", "Called positive without being it, the highest score first."),
}


@dataclass(frozen=True)
class Explained:
    """A run and its out-of-fold rows: table rows, indexed by table position, with added columns.

    `score` is P(positive) and `positive` the truth; `output` and `against` say which logit speaks
    for the answer that the run gave, and with which sign; `answer` names it.
    """

    run: Run
    rows: pd.DataFrame
    threshold: float
    images: np.ndarray


def load_explained(name: str, folds: Sequence[int] | None = None) -> Explained:
    """The run oof/<name> with all its trained folds, or `folds`: predictions and photographs."""
    run = load_run(at("oof") / name, folds)
    config = run.config
    table, facts = load_table(config.dataset)
    if run.folds[0].header["fold_hash"] != facts["fold_hash"]:
        raise InputError(
            f"{shown(run.folder)} was trained on other folds than the prepared data set"
            f" {config.dataset} has now: train again, or prepare as it was"
        )
    images = cached_images(config.dataset, config.data.image_size, table)
    columns = [f"prob_{name}" for name in run.classes] or ["prob"]
    needed = ["image_name", "fold", "target", *columns]
    predictions = pd.concat(
        read_csv(run.folder / f"fold{fold.number}.csv", needed, ("image_name",))
        for fold in run.folds
    ).set_index("image_name")
    rows = table[table["image_name"].isin(predictions.index)].drop(columns=["fold", "target"])
    told = predictions.loc[rows["image_name"]].set_index(rows.index)
    rows = rows.assign(fold=told["fold"], target=told["target"])
    threshold = run.calibration.threshold.value if run.calibration else 0.5
    return Explained(run, _answered(rows, told[columns].to_numpy(), run, threshold), threshold,
                     images)  # fmt: skip


def _answered(rows: pd.DataFrame, probs: np.ndarray, run: Run, threshold: float) -> pd.DataFrame:
    score = score_of(probs, run.classes)
    if run.classes:
        best = probs.argmax(axis=1)
        return rows.assign(
            score=score, output=best, against=False, answer=np.array(run.classes)[best],
            positive=rows["target"].isin(MALIGNANT),
        )  # fmt: skip
    against = score < threshold
    return rows.assign(
        score=score, output=0, against=against, positive=rows["target"] == 1,
        answer=np.where(against, f"no {run.task}", run.task),
    )  # fmt: skip


def explained_batches(
    explained: Explained, rows: pd.DataFrame
) -> Iterator[tuple[np.ndarray, Fold, torch.Tensor, torch.Tensor, int, bool]]:
    """Places in `rows`, then the fold that did not see them, and what `grad_cam` takes of them."""
    folds = {fold.number: fold for fold in explained.run.folds}
    kind = explained.run.config.data.metadata
    keys = rows[["fold", "output", "against"]].to_numpy(int)
    for key in np.unique(keys, axis=0):
        fold, output, against = folds[key[0]], int(key[1]), bool(key[2])
        places = np.flatnonzero((keys == key).all(axis=1))
        for start in range(0, len(places), BATCH):
            some = places[start : start + BATCH]
            part = rows.iloc[some]
            pixels = np.stack([explained.images[position] for position in part.index])
            metadata = encode_metadata(part, kind, fold.header["neutral"])
            yield some, fold, torch.from_numpy(pixels), torch.from_numpy(metadata), output, against


def choose_explained(explained: Explained) -> dict[str, pd.DataFrame]:
    """The rows of each gallery, the most telling first, each group once."""
    rows = explained.rows
    found = rows["score"] >= explained.threshold
    order = {
        "sure_hits": rows[rows["positive"] & found].sort_values("score", ascending=False),
        "misses": rows[rows["positive"] & ~found].sort_values("score"),
        "false_alarms": rows[~rows["positive"] & found].sort_values("score", ascending=False),
    }
    return {name: some.drop_duplicates("group").head(TILES) for name, some in order.items()}


def explain_rows(explained: Explained, rows: pd.DataFrame) -> list[tuple[np.ndarray, str]]:
    """Of each row the photograph beside its overlay, uint8 RGB, and what its metadata did."""
    results: dict[int, tuple[np.ndarray, str]] = {}
    for places, fold, images, metadata, output, against in explained_batches(explained, rows):
        maps = grad_cam(fold.model, images, metadata, output, against)
        part = rows.iloc[places]
        effects = metadata_effects(fold.model, fold.header, images, part, output)
        for place, image, cam, moved in zip(
            places, images.numpy(), maps, effects.to_dict("records"), strict=True
        ):
            told = ", ".join(f"{SHORT.get(str(n), n)} {v:+.2f}" for n, v in moved.items())
            pair = [tile(half[None], 0) for half in (image, overlay(image, cam))]
            results[place] = (np.hstack(pair), told)
    return [results[place] for place in range(len(rows))]


def explanations_section(explained: Explained) -> tuple[page.Section, dict[str, np.ndarray]]:
    """The galleries as a section of a report, and each pair of pictures by its file's name."""
    cards, pictures = [], {}
    for name, rows in choose_explained(explained).items():
        title, caption = GALLERIES[name]
        if rows.empty:
            cards.append(page.missing(title, "There are none."))
            continue
        entries = []
        for (pair, moved), row in zip(
            explain_rows(explained, rows), rows.to_dict("records"), strict=True
        ):
            pictures[f"{name}_{row['image_name']}"] = pair
            alt = f"{row['diagnosis']}, {describe(row)}, beside its Grad-CAM"
            first = f"{row['score']:.3f} · {row['diagnosis']} · {row['answer']}"
            below = (moved or describe(row), str(row["image_name"]))
            entries.append((data_uri(pair), alt, first, *below))
        body = f'{PAIRS}<div class="pairs">{page.tiles(entries)}</div>'
        cards.append(page.card(title, body, caption, "wide"))
    return page.Section("explanations", "Explanations", _intro(explained), cards), pictures


def explanations_page(explained: Explained) -> tuple[str, dict[str, np.ndarray]]:
    """The section as a page of its own, and its pictures."""
    section, pictures = explanations_section(explained)
    rows = explained.rows
    figures = [
        page.KeyFigure("images", f"{len(rows):,}", "each explained by the fold without it"),
        page.KeyFigure("positive", f"{rows['positive'].sum():,}", explained.run.task),
        page.KeyFigure("threshold", f"{explained.threshold:.3f}", "positive at or above it"),
    ]
    name = explained.run.name
    told = escape(f"python scripts/explain.py --run {name}")
    text = page.lead("<p>Each photograph stands beside what spoke for the answer it got.</p>")
    return page.build_page(
        name, "Where the model looks", figures, text, [section], f"<p><code>{told}</code></p>"
    ), pictures


def _intro(explained: Explained) -> str:
    text = (
        "Each photograph beside its Grad-CAM: what speaks for the answer that the model gave, "
        "yellow the most of that photograph. The map is as coarse as the network's last one; it "
        "shows where, not why."
    )
    if explained.run.config.data.metadata == "none":
        return text
    return f"{text} Below: what the output's probability would lose without a field of metadata."


def explain_photographs(
    name: str, places: Sequence[str], patient: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Each photograph's overlay, the mean of the run's folds, by its file's name.

    InputError for one that cannot be read, or two of one name.
    """
    predictor, who = Predictor.load(name), Patient.parse(**patient)
    pictures: dict[str, np.ndarray] = {}
    for photo in find_photos(places):
        if photo.stem in pictures:
            raise InputError(f"{photo}: a second photograph of that name: explain it by itself")
        try:
            told = predictor.predict(photo, who)
            pictures[photo.stem] = predictor.explain(photo, who, told)
        except UnreadableImage as error:
            raise InputError(f"{photo}: not read: {error}: leave it out") from error
    return pictures


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write each picture, uint8 RGB, as a PNG of its name."""
    for name, picture in pictures.items():
        _, png = cv2.imencode(".png", picture[:, :, ::-1])
        write_bytes(folder / f"{name}.png", png.tobytes())
