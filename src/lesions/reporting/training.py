"""Figures of the training: loss and validation AUC by epoch, one line a fold."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lesions.reporting.style import BASELINE, INK, MODEL, PAPER, build_figure

LABELS = {"loss": "training loss", "auc": "validation AUC"}


def plot_history(folds: list[dict[str, Any]], key: str) -> Figure:
    """`key` (loss or auc) of each epoch: a thin line a fold, their mean as the thick one."""
    colour = BASELINE if key == "loss" else MODEL
    figure, ((axes,),) = build_figure(3.0)
    ends: list[tuple[float, int]] = []
    lines = []
    for fold in folds:
        epochs = [entry["epoch"] for entry in fold["history"]]
        values = [entry[key] for entry in fold["history"]]
        values = [np.nan if value is None else value for value in values]
        lines.append(dict(zip(epochs, values, strict=True)))
        axes.plot(epochs, values, color=colour, linewidth=1, alpha=0.45)
        ends.append((values[-1], fold["fold"]))
        if key == "auc":
            best = int(np.nanargmax(values)) if not np.isnan(values).all() else 0
            axes.plot(epochs[best], values[best], "o", color=colour, markersize=4, alpha=0.7)
    shared = sorted(set.intersection(*(set(line) for line in lines)))
    if len(lines) > 1:
        mean = [float(np.mean([line[epoch] for line in lines])) for epoch in shared]
        axes.plot(shared, mean, color=colour, linewidth=2.4)
        axes.plot(shared[-1], mean[-1], "o", color=colour, markeredgecolor=PAPER, markersize=6)
        axes.annotate(
            f"{mean[-1]:.3f}",
            (shared[-1], mean[-1]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            annotation_clip=False,
        )
    axes.set(xlabel="epoch", ylabel=LABELS[key])
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
