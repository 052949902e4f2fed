"""Exported models beside the checkpoint they came from: same answers, how fast, how large."""

import copy
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from lesions.data.metadata import encode_metadata
from lesions.data.table import load_table
from lesions.evaluation.metrics import roc_auc
from lesions.inference.checkpoint import versions
from lesions.inference.ensemble import Fold, score_of
from lesions.inference.export import (
    EXPORTS,
    SUFFIXES,
    Predict,
    answering,
    open_onnx,
    open_torch,
    predict_by,
)
from lesions.inference.quantize import IMAGES, quantize_onnx
from lesions.paths import shown
from lesions.reporting.explanations import Explained
from lesions.reporting.summary import machine

LEAST_LOSS = 0.005  # of AUC, at which int8 is refused
BATCH = 8
TURNS = 25
CHUNK = 64
EAGER, BF16, INT8 = "eager", "bf16 channels_last", "int8"


class Rival(NamedTuple):
    """One way to compute a fold's probabilities, and its file."""

    predict: Predict
    path: Path


def export_fold(
    explained: Explained, fold: Fold, kinds: Sequence[str], int8: bool
) -> dict[str, Path]:
    """Write fold<k>.onnx, .pt2 and .int8.onnx beside the checkpoint, as asked for; their paths."""
    paths = {kind: explained.run.folder / f"fold{fold.number}{SUFFIXES[kind]}" for kind in kinds}
    for kind, path in paths.items():
        EXPORTS[kind](fold.model, fold.header, path)
    if int8:
        paths[INT8] = explained.run.folder / f"fold{fold.number}.int8.onnx"
        images, metadata = training_sample(explained, fold)
        quantize_onnx(paths["onnx"], paths[INT8], images, metadata)
    return paths


def training_sample(explained: Explained, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Photographs that the fold was trained on, and their metadata: always the same ones."""
    table, _ = load_table(explained.run.config.dataset)
    train = table[(table["split"] == "train") & (table["fold"] != fold.number)]
    some = train.sample(min(IMAGES, len(train)), random_state=0).sort_index()
    return arrays_of(explained, fold, some)


def arrays_of(
    explained: Explained, fold: Fold, rows: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """What the exported model takes of table rows: uint8 (N, S, S, 3) and float32 (N, C)."""
    images = np.stack([explained.images[position] for position in rows.index])
    kind = explained.run.config.data.metadata
    return images, encode_metadata(rows, kind, fold.header["neutral"])


def rivals_of(explained: Explained, fold: Fold, paths: Mapping[str, Path]) -> dict[str, Rival]:
    """Every way to compute the fold's probabilities, eager first, opened from its file."""
    checkpoint = explained.run.folder / f"fold{fold.number}.safetensors"
    taking = explained.run.config.data.metadata != "none"
    last: Any = copy.deepcopy(answering(fold.model))
    eager16 = predict_by(last.to(memory_format=torch.channels_last), taking)

    def half(images: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return eager16(images, metadata)

    eager = predict_by(answering(fold.model), taking)
    rivals = {EAGER: Rival(eager, checkpoint), BF16: Rival(half, checkpoint)}
    for kind, path in paths.items():
        opened = open_torch(path) if kind == "torch-export" else open_onnx(path)
        rivals[kind] = Rival(opened[0], path)
    return rivals


def compare_run(
    explained: Explained, kinds: Sequence[str], int8: bool, most: int | None = None
) -> dict[str, Any]:
    """Export the run's folds and compare all rivals on out-of-fold rows, `most` of each fold.

    AUC is that of the score: of many classes, malignant against benign. int8 that loses 0.005 of
    it or more is deleted, and the result's "refused" says so.
    """
    probs: dict[str, list[np.ndarray]] = {}
    scored, written = [], []
    times: dict[str, dict[str, float]] = {}
    folds = explained.run.folds
    for fold in folds:
        paths = export_fold(explained, fold, kinds, int8)
        rivals = rivals_of(explained, fold, paths)
        rows = explained.rows[explained.rows["fold"] == fold.number]
        rows = rows.sample(min(most or len(rows), len(rows)), random_state=0)
        for name, found in _probabilities(explained, fold, rows, rivals):
            probs.setdefault(name, []).append(found)
        if not times:
            times = milliseconds(rivals, *arrays_of(explained, fold, rows.iloc[:BATCH]))
        written.append(paths)
        scored.append(rows)
    rows = pd.concat(scored)
    whole = {name: np.concatenate(parts) for name, parts in probs.items()}
    sizes = {name: rival.path.stat().st_size for name, rival in rivals.items()}
    rivals_told = _table(explained.run.classes, rows, whole, times, sizes)
    refused = refuse_lossy(rivals_told, [paths[INT8] for paths in written if INT8 in paths])
    config = explained.run.config
    return {
        "run": explained.run.name,
        "to": list(kinds),
        "quantize": int8,
        "folds": [fold.number for fold in folds],
        "backbone": config.model.backbone,
        "image_size": config.data.image_size,
        "files": [path.name for paths in written for path in paths.values() if path.exists()],
        "rows": len(rows),
        "batch": BATCH,
        "turns": TURNS,
        "rivals": rivals_told,
        "refused": refused,
        "machine": machine(),
        "versions": versions() | _runtime(kinds),
    }


def _runtime(kinds: Sequence[str]) -> dict[str, str]:
    return {"onnxruntime": version("onnxruntime")} if "onnx" in kinds else {}


def refuse_lossy(told: Mapping[str, Mapping[str, Any]], files: Sequence[Path]) -> str | None:
    """Why the int8 `files` were deleted; None if they may stay."""
    if not files:
        return None
    lost = told[EAGER]["auc"] - told[INT8]["auc"]
    if lost < LEAST_LOSS:
        return None
    for path in files:
        path.unlink()
    return (
        f"int8 loses {lost:.4f} AUC, {LEAST_LOSS} or more: {', '.join(map(shown, files))} deleted;"
        " the ONNX file in float32 stays"
    )


def _probabilities(
    explained: Explained, fold: Fold, rows: pd.DataFrame, rivals: Mapping[str, Rival]
) -> Iterator[tuple[str, np.ndarray]]:
    images, metadata = arrays_of(explained, fold, rows)
    for name, rival in rivals.items():
        chunks = range(0, len(rows), CHUNK)
        parts = [rival.predict(images[i : i + CHUNK], metadata[i : i + CHUNK]) for i in chunks]
        yield name, np.concatenate(parts).astype(np.float64)


def milliseconds(
    rivals: Mapping[str, Rival], images: np.ndarray, metadata: np.ndarray
) -> dict[str, dict[str, float]]:
    """CPU milliseconds an image of one thread, least and median of turns taken one after another.

    CPU time, since other programs on the machine take wall time away.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    gc.collect()
    for turn in range(TURNS + 2):
        for name, rival in rivals.items():
            start = time.process_time()
            rival.predict(images, metadata)
            if turn >= 2:
                taken[name].append(1000 * (time.process_time() - start) / len(images))
    torch.set_num_threads(threads)
    return {n: {"least": min(t), "median": float(np.median(t))} for n, t in taken.items()}


def _table(
    classes: Sequence[str],
    rows: pd.DataFrame,
    probs: Mapping[str, np.ndarray],
    times: Mapping[str, Mapping[str, float]],
    sizes: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    positive = rows["positive"].to_numpy(int)
    return {
        name: {
            "difference": float(np.abs(found - probs[EAGER]).max()),
            "auc": roc_auc(positive, score_of(found, classes)),
            "bytes": sizes[name],
            "milliseconds": times[name],
            "speed": times[EAGER]["median"] / times[name]["median"],
        }
        for name, found in probs.items()
    }


def parity_text(result: Mapping[str, Any]) -> str:
    """The comparison as the script prints it."""
    lines = [
        f"{'':20}{'P differs':>11}{'AUC':>9}{'AUC gain':>10}{'MB':>7}{'ms/image':>10}{'speed':>8}"
    ]
    first = result["rivals"][EAGER]
    for name, told in result["rivals"].items():
        lines.append(
            f"{name:20}{told['difference']:>11.1e}{told['auc']:>9.4f}"
            f"{told['auc'] - first['auc']:>+10.4f}{told['bytes'] / 1e6:>7.1f}"
            f"{told['milliseconds']['median']:>10.2f}{told['speed']:>7.2f}x"
        )
    return "\n".join(lines)
