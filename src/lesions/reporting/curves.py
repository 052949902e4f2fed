"""Training curves: loss and validation score by epoch, one line a fold."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lesions.files import read_csv
from lesions.oof import Oof
from lesions.reporting import style

LABELS = {
    "loss": ("training loss", style.BASELINE),
    "log_loss": ("validation loss", style.BASELINE),
    "auc": ("validation AUC", style.MODEL),
    "lr": ("learning rate", style.MUTED),
}


def plot_history(axes: Axes, folds: Mapping[int, pd.DataFrame], key: str) -> None:
    """`key` (of LABELS) of each epoch: a thin line a fold, their mean as the thick one.

    `folds` are histories, columns epoch and LABELS; a small dot is a fold's epoch of best AUC.
    """
    label, colour = LABELS[key]
    lines = {fold: history.set_index("epoch")[key].astype(float) for fold, history in folds.items()}
    for fold, line in lines.items():
        axes.plot(line.index, line, color=colour, linewidth=1, alpha=0.45)
        if key != "lr":  # the folds' learning rates are one line
            _note(axes, (line.index[-1], line.iloc[-1]), str(fold), colour)
        if key == "auc" and line.notna().any():
            axes.plot(line.index[int(line.argmax())], line.max(), "o", color=colour, markersize=4)
    mean = pd.DataFrame(lines).dropna().mean(axis=1)
    if len(lines) > 1 and len(mean):
        axes.plot(mean.index, mean, color=colour, linewidth=2.4)
        end = (mean.index[-1], mean.iloc[-1])
        axes.plot(*end, "o", color=colour, markeredgecolor=style.PAPER, markersize=6)
        _note(axes, end, f"    {end[1]:.3{'g' if key == 'lr' else 'f'}}", style.INK)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _note(axes: Axes, at: tuple[float, float], text: str, colour: str) -> None:
    if not np.isnan(at[1]):
        axes.annotate(text, at, xytext=(7, 0), textcoords="offset points", va="center",
                      color=colour, annotation_clip=False)  # fmt: skip


def draw_curves(folder: Path) -> None:
    """Write training_curves.png into a run's folder, from its history<k>.csv."""
    folds = {
        int(re.sub(r"\D", "", path.stem)): read_csv(path, ["epoch", "loss", "auc"])
        for path in sorted(folder.glob("history*.csv"))
    }
    if not folds:
        return
    with style.drawing():
        keys = _keys(folds)
        figure, axes = style.build_figure(2.5 * len(keys), rows=len(keys))
        for (panel,), key in zip(axes, keys, strict=True):
            plot_history(panel, folds, key)
        style.write_png(figure, folder / "training_curves.png")


def _keys(folds: Mapping[int, pd.DataFrame]) -> list[str]:
    """Those of LABELS that every history has: older ones have no validation loss."""
    return [key for key in LABELS if all(key in history for history in folds.values())]


def training_section(oof: Oof, drawn: dict[str, Figure]) -> list[dict[str, Any]]:
    """Draw losses, validation AUC and learning rate by epoch; each fold in numbers."""
    folds = {fold: facts for fold, facts in oof.facts.items() if facts.get("history")}
    if not folds:
        return []
    histories = {fold: pd.DataFrame(facts["history"]) for fold, facts in folds.items()}
    for key in _keys(histories):
        figure, ((axes,),) = style.build_figure(3.0)
        plot_history(axes, histories, key)
        drawn[LABELS[key][0].lower().replace(" ", "_")] = figure
    positives = pd.Series(oof.positive).groupby(oof.table["fold"]).sum()
    return [facts | {"fold": fold, "positives": positives[fold]} for fold, facts in folds.items()]
