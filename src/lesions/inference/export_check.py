"""Exported models beside the checkpoint they came from: same probabilities, how fast, how large."""

import copy
import gc
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from lesions.data.table import load_table
from lesions.evaluation.metrics import Floats, roc_auc
from lesions.inference.checkpoint import Fold, versions
from lesions.inference.explain import Explained, arrays_of
from lesions.inference.export import (
    EXPORTS,
    IMAGES,
    SUFFIXES,
    Predict,
    WithProbabilities,
    open_onnx,
    open_torch,
    predict_by,
    quantize_onnx,
)
from lesions.paths import shown

LEAST_LOSS = 0.005  # of AUC, at which int8 is refused
BATCH = 8
TURNS = 25
CHUNK = 64
EAGER, BF16, INT8 = "eager", "bf16 channels_last", "int8"


class Format(NamedTuple):
    """One way to compute a fold's probabilities, and its file."""

    predict: Predict
    path: Path


def export_run(
    explained: Explained, kinds: Sequence[str], int8: bool, most: int | None = None
) -> dict[str, Any]:
    """Export the run's folds and compare all formats on out-of-fold rows, `most` of each fold.

    AUC is that of the score: of several classes, malignant against benign. int8 that loses 0.005
    of it or more is deleted, and the result's "refused" says so.
    """
    run = explained.run
    probs: dict[str, list[Floats]] = {}
    scored, written = [], []
    times: dict[str, dict[str, float]] = {}
    for fold in run.folds:
        paths = export_fold(explained, fold, kinds, int8)
        formats = open_formats(explained, fold, paths)
        rows = explained.rows[explained.rows["fold"] == fold.number]
        rows = rows.sample(min(most or len(rows), len(rows)), random_state=0)
        images, metadata = arrays_of(explained, fold, rows)
        for name, made in formats.items():
            parts = [
                made.predict(images[i : i + CHUNK], metadata[i : i + CHUNK])
                for i in range(0, len(rows), CHUNK)
            ]
            probs.setdefault(name, []).append(np.concatenate(parts).astype(np.float64))
        times = times or milliseconds(formats, images[:BATCH], metadata[:BATCH])
        written.append(paths)
        scored.append(rows["positive"])
    positive = pd.concat(scored).to_numpy(int)
    whole = {name: np.concatenate(parts) for name, parts in probs.items()}
    compared = {
        name: {
            "difference": float(np.abs(found - whole[EAGER]).max()),
            "auc": roc_auc(positive, run.task.score(found)),
            "bytes": formats[name].path.stat().st_size,
            "milliseconds": times[name],
            "speed": times[EAGER]["median"] / times[name]["median"],
        }
        for name, found in whole.items()
    }
    refused = refuse_lossy(compared, [paths[INT8] for paths in written if INT8 in paths])
    return {
        "run": run.name,
        "to": list(kinds),
        "quantize": int8,
        "folds": [fold.number for fold in run.folds],
        "backbone": run.config.model.backbone,
        "image_size": run.config.data.image_size,
        "files": [path.name for paths in written for path in paths.values() if path.exists()],
        "rows": len(positive),
        "batch": BATCH,
        "turns": TURNS,
        "rivals": compared,
        "refused": refused,
        "versions": versions()
        | ({"onnxruntime": version("onnxruntime")} if "onnx" in kinds else {}),
    }


def export_fold(
    explained: Explained, fold: Fold, kinds: Sequence[str], int8: bool
) -> dict[str, Path]:
    """Write fold<k>.onnx, .pt2 and .int8.onnx beside the checkpoint, as asked for; their paths."""
    run = explained.run
    header = fold.header | {"preprocess": run.preprocess.model_dump()}
    if run.calibration:
        header["calibration"] = run.calibration.model_dump(include={"temperature", "shifts"})
        header["threshold"] = run.calibration.threshold.value
    paths = {kind: run.files.file(fold.number, SUFFIXES[kind]) for kind in kinds}
    for kind, path in paths.items():
        EXPORTS[kind](fold.model, header, path)
    if int8:
        # Photographs that the fold was trained on, always the same ones.
        table, _ = load_table(run.config.dataset)
        train = table[(table["split"] == "train") & (table["fold"] != fold.number)]
        some = train.sample(min(IMAGES, len(train)), random_state=0).sort_index()
        sample = arrays_of(explained, fold, some.assign(row=some.index))
        paths[INT8] = run.files.file(fold.number, ".int8.onnx")
        quantize_onnx(paths["onnx"], paths[INT8], *sample)
    return paths


def open_formats(explained: Explained, fold: Fold, paths: Mapping[str, Path]) -> dict[str, Format]:
    """Every way to compute the fold's probabilities, eager first, opened from its file."""
    checkpoint = explained.run.files.file(fold.number, ".safetensors")
    taking = explained.run.config.data.metadata != "none"
    eager = WithProbabilities(fold.model).eval()
    last: Any = copy.deepcopy(eager)
    eager16 = predict_by(last.to(memory_format=torch.channels_last), taking)

    def half(images: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            return eager16(images, metadata)

    formats = {
        EAGER: Format(predict_by(eager, taking), checkpoint),
        BF16: Format(half, checkpoint),
    }
    for kind, path in paths.items():
        opened = open_torch(path) if kind == "torch-export" else open_onnx(path)
        formats[kind] = Format(opened[0], path)
    return formats


def refuse_lossy(compared: Mapping[str, Mapping[str, Any]], files: Sequence[Path]) -> str | None:
    """Why the int8 `files` were deleted; None if they may stay."""
    if not files:
        return None
    lost = compared[EAGER]["auc"] - compared[INT8]["auc"]
    if lost < LEAST_LOSS:
        return None
    for path in files:
        path.unlink()
    return (
        f"int8 loses {lost:.4f} AUC, {LEAST_LOSS} or more: {', '.join(map(shown, files))} deleted;"
        " the ONNX file in float32 stays"
    )


def milliseconds(
    formats: Mapping[str, Format], images: np.ndarray, metadata: np.ndarray
) -> dict[str, dict[str, float]]:
    """CPU milliseconds an image of one thread, least and median of turns taken one after another.

    CPU time, since other programs on the machine take wall time away.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {name: [] for name in formats}
    gc.collect()
    for turn in range(TURNS + 2):
        for name, made in formats.items():
            start = time.process_time()
            made.predict(images, metadata)
            if turn >= 2:
                taken[name].append(1000 * (time.process_time() - start) / len(images))
    torch.set_num_threads(threads)
    return {n: {"least": min(t), "median": float(np.median(t))} for n, t in taken.items()}


def as_text(result: Mapping[str, Any]) -> str:
    """The comparison as the script prints it."""
    first = result["rivals"][EAGER]
    rows = {
        name: {
            "P differs": f"{found['difference']:.1e}",
            "AUC": f"{found['auc']:.4f}",
            "AUC gain": f"{found['auc'] - first['auc']:+.4f}",
            "MB": f"{found['bytes'] / 1e6:.1f}",
            "ms/image": f"{found['milliseconds']['median']:.2f}",
            "speed": f"{found['speed']:.2f}x",
        }
        for name, found in result["rivals"].items()
    }
    return pd.DataFrame(rows).T.to_string()
