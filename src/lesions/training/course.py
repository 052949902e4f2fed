"""A run's folds one after the other: what was stopped goes on, what is done is not done again."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
import yaml
from accelerate import Accelerator

from lesions.config import Config
from lesions.data.table import load_table
from lesions.evaluation.intervals import score_table
from lesions.evaluation.multiclass import LABELS, classes_in, report_classes
from lesions.files import read_csv
from lesions.paths import at, shown
from lesions.training.fold import train_fold
from lesions.training.stop import Stopped, StopRequest


def train_folds(
    config: Config, run: str, folds: Iterable[int], accelerator: Accelerator, stop: StopRequest
) -> int:
    """Train the folds of a run; the exit code, other than 0 if it was stopped (see stop.py)."""
    if config.train.tracker != "none":
        accelerator.init_trackers(run.replace("/", "-"), config=flat(config.model_dump()))
    accelerator.print(
        yaml.safe_dump(config.model_dump(), sort_keys=False, default_flow_style=None, width=100)
    )
    with stop.listening(), same_kernels(config.train.deterministic):
        for number, fold in enumerate(folds):
            # Not before the first one: a session in which nothing gets on would be repeated.
            code = stop.agreed(0, accelerator) if number else 0
            if code:
                accelerator.print(f"stopped before fold {fold}; resume me")
                return code
            try:
                result = train_fold(config, run, fold, accelerator, stop)
            except Stopped as stopped:
                return stopped.code
            auc = "undefined" if result["auc"] is None else f"{result['auc']:.4f}"
            accelerator.print(
                f"{run} fold {fold}: out-of-fold AUC {auc}"
                f" on {result['rows']:,} images ({result['seconds'] / 60:.1f} min)"
            )
    accelerator.end_training()
    return 0


@contextmanager
def same_kernels(wanted: bool) -> Iterator[None]:
    """Let torch compute by deterministic kernels alone, if `wanted`; it raises without one."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA looks when it starts
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def oof_table(config: Config, run: str, folds: Iterable[int]) -> str:
    """Out-of-fold scores of the whole run, with intervals by group, as text.

    AUC overall and of each source, or of many classes the macro scores and the AUC of each.
    """
    columns, paths = ["image_name", "target"], [at("oof") / run / f"fold{fold}.csv" for fold in folds]
    parts = [read_csv(path, columns, text=("image_name",)) for path in paths]
    known = load_table(config.dataset)[0][["image_name", "group", "source"]]
    oof = pd.concat(parts).drop(columns="fold").merge(known, on="image_name", validate="1:1")
    probs = oof.filter(regex="^prob_")
    lines = _source_lines(oof) if probs.empty else _class_lines(oof, probs)
    return "\n".join([*lines, f"{shown(at('oof') / run)}: {len(parts)} folds, every image once"])


def _source_lines(oof: pd.DataFrame) -> list[str]:
    lines = [f"{'out of fold':24} {'images':>8} {'positive':>8}  AUC [95 %]"]
    for row in score_table(oof).to_dict("records"):
        auc = f"{row['auc']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
        lines.append(
            f"{row['part']:24} {row['rows']:8,} {row['positives']:8,}  {row['reason'] or auc}"
        )
    return lines


def _class_lines(oof: pd.DataFrame, probs: pd.DataFrame) -> list[str]:
    classes = classes_in(probs)
    found = report_classes(oof["target"], probs, classes, oof["group"])
    lines = [f"{'out of fold':24} {'images':>8}  score [95 %]"]
    lines += [f"{LABELS[name]:24} {len(oof):8,}  {score}" for name, score in found.scores.items()]
    for name, scores in found.classes.items():
        lines.append(f"{'AUC of ' + name:24} {(oof['target'] == name).sum():8,}  {scores['auc']}")
    return lines


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested keys joined by dots, anything but numbers as text: all that every tracker takes."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value if isinstance(value, int | float) else str(value)
    return leaves
