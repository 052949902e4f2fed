"""Figures of how well the scores separate the classes: ROC, PR, distributions, AUC by part."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.evaluation.intervals import resamples
from lesions.evaluation.metrics import Floats, build_curve
from lesions.reporting.style import (
    BASELINE,
    BENIGN,
    INK,
    MELANOMA,
    MODEL,
    MUTED,
    PAPER,
    bare,
    build_figure,
    legend_above,
)
from lesions.reporting.words import Words

BAND_REPLICATES = 300  # percentiles of a curve settle sooner than those of a number
GRID = np.linspace(0, 1, 201)


class Band(NamedTuple):
    """A curve over GRID with its pointwise 95 % limits, each float64 (201,)."""

    value: Floats
    low: Floats
    high: Floats


def curve_bands(oof: pd.DataFrame, replicates: int = BAND_REPLICATES) -> tuple[Band, Band]:
    """ROC (sensitivity over 1 - specificity) and PR (precision over recall), groups resampled."""
    target, prob = oof["target"].to_numpy(), oof["prob"].to_numpy()
    curves = [_curves(target, prob, np.ones((1, len(oof))))]
    for weight in resamples(oof["group"].to_numpy(), len(oof), replicates):
        curves.append(_curves(target, prob, weight))
    roc, precision = (np.concatenate(part) for part in zip(*curves, strict=True))
    return tuple(
        Band(lines[0], *np.nanpercentile(lines[1:], [2.5, 97.5], axis=0))
        for lines in (roc, precision)
    )  # type: ignore[return-value]


def _curves(target: np.ndarray, prob: np.ndarray, weight: Floats) -> tuple[Floats, Floats]:
    """Each weighting's ROC and PR over GRID: two float64 (B, 201)."""
    curve = build_curve(target, prob, weight)
    before = np.concatenate([np.zeros((len(weight), 1)), curve.tp[:, :-1]], axis=1)
    precision = curve.tp / np.maximum(curve.tp + curve.fp, 1e-300)
    roc_lines, pr_lines = [], []
    for b in range(len(weight)):
        if not curve.positives[b] or not curve.negatives[b]:
            continue
        # Between two scores of positives the curve runs flat: both ends of each step are given.
        x = np.column_stack([curve.fp_above[b], curve.fp[b]]).ravel() / curve.negatives[b]
        y = np.column_stack([before[b], curve.tp[b]]).ravel() / curve.positives[b]
        roc_lines.append(np.interp(GRID, np.r_[0, x, 1], np.r_[0, y, 1]))
        recall = curve.tp[b] / curve.positives[b]
        at = np.searchsorted(recall, GRID - 1e-12).clip(max=len(recall) - 1)
        pr_lines.append(precision[b, at])
    return np.array(roc_lines).reshape(-1, 201), np.array(pr_lines).reshape(-1, 201)


def plot_roc(band: Band, point: tuple[float, float], auc: str, words: Words) -> Figure:
    """ROC with its band; `point` is the operating point (1 - specificity, sensitivity)."""
    figure, ((axes,),) = build_figure(3.7)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.fill_between(GRID, band.low, band.high, color=MODEL, alpha=0.2)
    axes.plot(GRID, band.value, color=MODEL)
    _mark(axes, point, "operating point")
    axes.text(0.98, 0.05, f"AUC {auc}", ha="right", fontsize=11, color=MODEL)
    axes.set(xlabel="benign lesions flagged (1 − specificity)", ylabel=f"{words.many} caught")
    _percent(axes)
    return figure


def plot_precision(band: Band, share: float, point: tuple[float, float], words: Words) -> Figure:
    """PR with its band, the positives' `share` as the level of a coin, and the operating point."""
    figure, ((axes,),) = build_figure(3.7)
    axes.axhline(share, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.text(0.01, share + 0.015, f"guessing: {100 * share:.1f} %", color=MUTED, fontsize=8.4)
    axes.fill_between(GRID, band.low, band.high, color=MODEL, alpha=0.2)
    axes.plot(GRID, band.value, color=MODEL)
    _mark(axes, point, "operating point")
    axes.set(
        xlabel=f"{words.many} caught (recall)", ylabel=f"flagged lesions that are {words.kind}"
    )
    _percent(axes)
    return figure


def _mark(axes, point: tuple[float, float], text: str) -> None:
    axes.plot(*point, "o", color=INK, markersize=6, markeredgecolor=PAPER, zorder=5)
    right = point[0] > 0.62
    axes.annotate(
        text,
        point,
        xytext=(-8 if right else 8, -11),
        textcoords="offset points",
        ha="right" if right else "left",
        color=INK,
        fontsize=8.6,
    )


def _percent(axes) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    labels = ["0", "25 %", "50 %", "75 %", "100 %"]
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)


def plot_histogram(oof: pd.DataFrame, threshold: float, label: str, words: Words) -> Figure:
    """Share of each class by predicted score, with the threshold."""
    figure, ((axes,),) = build_figure(3.3)
    low, high = min(0, oof["prob"].min()), max(1, oof["prob"].max())
    edges = np.linspace(low, high, 41)
    for value, colour, name in ((0, BENIGN, "benign"), (1, MELANOMA, words.kind)):
        scores = oof.loc[oof["target"] == value, "prob"].to_numpy()
        share = np.histogram(scores, edges)[0] / max(len(scores), 1)
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=f"{name}, n = {len(scores):,}")
    axes.axvline(threshold, color=INK, linewidth=1)
    axes.annotate(
        f" threshold {threshold:.3f}",
        (threshold, 1),
        xycoords=("data", "axes fraction"),
        va="top",
        ha="left" if threshold < (low + high) * 0.6 else "right",
        fontsize=8.6,
    )
    legend_above(axes)
    axes.set(xlabel=label, ylabel="share of the class", xlim=(low, high))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    return figure


def plot_forest(scores: pd.DataFrame) -> Figure:
    """AUC with interval, a row a part: columns part, kind (model, baseline), auc, low, high."""
    scores = scores.reset_index(drop=True)
    figure, ((axes,),) = build_figure(0.85 + 0.27 * len(scores))
    for y, row in scores.iterrows():
        colour = {"model": MODEL, "baseline": BASELINE}[row["kind"]]
        if np.isnan(row["auc"]):
            axes.text(0.5, y, "  " + (row["reason"] or "n/a"), va="center", color=MUTED)
            continue
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.4, alpha=0.55)
        axes.plot(row["auc"], y, "o" if row["kind"] == "model" else "D", color=colour, markersize=5)
        axes.annotate(
            f"{row['auc']:.3f}",
            (1.02, y),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    lows = scores["low"].fillna(scores["auc"]).dropna()
    axes.set_yticks(range(len(scores)), scores["part"], color=INK)
    axes.set(ylim=(len(scores) - 0.4, -0.6), xlabel="AUC (dots) and 95 % interval (bars)")
    axes.set_xlim(min(0.5, lows.min() - 0.02) if len(lows) else 0.5, 1)
    axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    bare(axes)
    return figure


def plot_confusion(counts: np.ndarray, kind: str) -> Figure:
    """Counts (2, 2), rows the truth (`kind`, benign), columns the call (flagged, cleared)."""
    figure, ((axes,),) = build_figure(2.9)
    outcomes = (("caught", "missed"), ("false alarm", "rightly cleared"))
    for i, colour in enumerate((MELANOMA, BENIGN)):
        total = max(int(counts[i].sum()), 1)
        for j in range(2):
            share = counts[i, j] / total
            axes.fill_between(
                [j + 0.015, j + 0.985], i + 0.02, i + 0.98, color=colour, alpha=0.08 + 0.5 * share
            )
            axes.text(j + 0.5, i + 0.43, f"{counts[i, j]:,}", ha="center", fontsize=15)
            axes.text(j + 0.5, i + 0.72, f"{outcomes[i][j]}, {100 * share:.1f} %", ha="center")
    axes.set_xticks([0.5, 1.5], ["flagged", "cleared"], color=INK)
    axes.set_yticks([0.5, 1.5], [kind, "benign"], color=INK)
    axes.xaxis.tick_top()
    axes.set(xlim=(0, 2), ylim=(2, 0))
    bare(axes, grid="")
    return figure
