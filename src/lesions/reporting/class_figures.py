"""Figures of tasks with more than two classes: ROC of each, confusion, confidence."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.evaluation.calibration import equal_bins, reliability
from lesions.evaluation.metrics import Floats
from lesions.reporting.rates import rate
from lesions.reporting.scores import GRID, curve_bands
from lesions.reporting.style import BENIGN, INK, MELANOMA, MODEL, MUTED, bare, build_figure

REPLICATES = 100  # of each small curve's band


def plot_class_rocs(oof: pd.DataFrame, aucs: dict[str, str]) -> Figure:
    """ROC of each class against the rest, one small panel each with its band over groups."""
    lines = -(-len(aucs) // 3)
    figure, axes = build_figure(0.3 + 1.45 * lines, lines, 3)
    for panel in axes.ravel()[len(aucs) :]:
        panel.axis("off")
    for panel, (name, auc) in zip(axes.ravel(), aucs.items(), strict=False):
        one = oof.assign(target=(oof["target"] == name).astype(int), prob=oof[f"prob_{name}"])
        panel.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
        if one["target"].any():
            band = curve_bands(one, REPLICATES)[0]
            panel.fill_between(GRID, band.low, band.high, color=MODEL, alpha=0.2)
            panel.plot(GRID, band.value, color=MODEL, linewidth=1.4)
        panel.set_title(f"{name}  {auc}", fontsize=8.6)
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        panel.set_xticks([0, 0.5, 1], ["0", "", "1"])
        panel.set_yticks([0, 0.5, 1], ["0", "", "1"])
    axes[-1, 0].set(xlabel="others called it", ylabel="its own found")
    return figure


def plot_class_confusion(counts: Floats, classes: list[str]) -> Figure:
    """Counts (C, C) and shares of the row: rows the true class, columns the most probable one."""
    size = len(classes)
    figure, ((axes,),) = build_figure(0.7 + 0.46 * size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for i in range(size):
        for j in range(size):
            colour = MODEL if i == j else MELANOMA
            box = [j + 0.03, j + 0.97]
            alpha = 0.03 + 0.6 * shares[i, j] ** 0.7 if counts[i, j] else 0
            axes.fill_between(box, i + 0.03, i + 0.97, color=colour, alpha=alpha)
            if counts[i, j]:
                axes.text(j + 0.5, i + 0.45, f"{counts[i, j]:,.0f}", ha="center", fontsize=7.6)
                percent = f"{100 * shares[i, j]:.0f} %"
                axes.text(j + 0.5, i + 0.76, percent, ha="center", fontsize=6.4, color=MUTED)
    axes.set_xticks(np.arange(size) + 0.5, classes, color=INK)
    axes.set_yticks(np.arange(size) + 0.5, classes, color=INK)
    axes.xaxis.tick_top()
    axes.set(xlim=(0, size), ylim=(size, 0), ylabel="diagnosis")
    axes.set_xlabel("called")
    axes.xaxis.set_label_position("top")
    bare(axes, grid="")
    return figure


def plot_confidence(right: np.ndarray, confidence: np.ndarray, groups: pd.Series) -> Figure:
    """Share of right answers over the probability of the answer, in ten bins of equal count."""
    figure, ((axes,),) = build_figure(3.4)
    found = reliability(right, confidence)
    bins = equal_bins(confidence, 10)
    limits = [rate(right[bins == k], groups[bins == k]) for k in np.unique(bins)]
    low = min(0.9, found["forecast"].min(), *(limit.low for limit in limits))
    axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.vlines(
        found["forecast"], [x.low for x in limits], [x.high for x in limits], color=MODEL,
        alpha=0.4, lw=2,
    )  # fmt: skip
    axes.plot(found["forecast"], found["rate"], "o-", color=MODEL, linewidth=1, markersize=5)
    share, edges = np.histogram(confidence, 30, (low, 1))
    height = 0.18 * (1 - low) * share / max(share.max(), 1)
    axes.stairs(low + height, edges, baseline=low, color=BENIGN, fill=True, alpha=0.3)
    axes.set(xlim=(low - 0.01, 1.01), ylim=(low, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set(xlabel="probability of the answer", ylabel="answers that are right")
    return figure
