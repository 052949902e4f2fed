"""A run's out-of-fold predictions explained: Grad-CAM of true positives and of both errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from lesions.data.decode import UnreadableImage
from lesions.data.patients import Patient
from lesions.errors import InputError
from lesions.files import write_bytes
from lesions.inference import explain
from lesions.inference.explain import Explained, explained_batches
from lesions.inference.predictor import Predictor
from lesions.reporting.gallery import Tile, choose, data_uri, describe, tile

SHORT = {"age_approx": "age", "images_per_patient": "images", "localization": "place"}


def explained_galleries(explained: Explained) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the explanations' templates show, and each pair of pictures by its file's name."""
    score, positive = (explained.rows[name].to_numpy() for name in ("score", "positive"))
    found = score >= explained.threshold
    order = {
        "sure_hits": (positive & found, -score),
        "misses": (positive & ~found, score),
        "false_alarms": (~positive & found, -score),
    }
    galleries, pictures = [], {}
    for name, which in order.items():
        rows, tiles = choose(explained.rows, *which), []
        pairs = _explain_rows(explained, rows)
        for (pair, moved), row in zip(pairs, rows.to_dict("records"), strict=True):
            pictures[f"{name}_{row['image_name']}"] = pair
            alt = f"{row['diagnosis']}, {describe(row)}, beside its Grad-CAM"
            first = f"{row['score']:.3f} · {row['diagnosis']} · {row['answer']}"
            lines = (first, moved or describe(row), str(row["image_name"]))
            tiles.append(Tile(data_uri(pair), alt, lines))
        galleries.append({"name": name, "tiles": tiles})
    takes_metadata = explained.run.config.data.metadata != "none"
    return {"metadata": takes_metadata, "galleries": galleries}, pictures


def _explain_rows(explained: Explained, rows: pd.DataFrame) -> list[tuple[np.ndarray, str]]:
    """Of each row the photograph beside its overlay, uint8 RGB, and its metadata's effects."""
    results: dict[Any, tuple[np.ndarray, str]] = {}
    for part, fold, images, metadata, output, against in explained_batches(explained, rows):
        maps = explain.grad_cam(fold.model, images, metadata, output, against)
        effects = explain.metadata_effects(fold.model, fold.header, images, part, output)
        # not to_dict: of a table without columns pandas 2 returns no rows
        for image, cam, (row, moved) in zip(images.numpy(), maps, effects.iterrows(), strict=True):
            text = ", ".join(f"{SHORT.get(str(n), n)} {v:+.2f}" for n, v in moved.items())
            pair = [tile(half[None], 0) for half in (image, explain.overlay(image, cam))]
            results[row] = (np.hstack(pair), text)
    return [results[row] for row in rows.index]


def explain_photographs(
    predictor: Predictor, photos: list[Path], patient: Patient
) -> dict[str, np.ndarray]:
    """Each photograph's overlay, the mean of the run's folds, by its file's name.

    InputError for one that cannot be read, or two of one name.
    """
    pictures: dict[str, np.ndarray] = {}
    for photo in photos:
        if photo.stem in pictures:
            raise InputError(f"{photo}: a second photograph of that name: explain it by itself")
        try:
            found = predictor.predict(photo, patient)
            pictures[photo.stem] = predictor.explain(photo, patient, found)
        except UnreadableImage as error:
            raise InputError(f"{photo}: not read: {error}: leave it out") from error
    return pictures


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write each picture, uint8 RGB, as a PNG of its name."""
    for name, picture in pictures.items():
        _, png = cv2.imencode(".png", picture[:, :, ::-1])
        write_bytes(folder / f"{name}.png", png.tobytes())
