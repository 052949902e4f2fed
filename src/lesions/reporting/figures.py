"""Figures of how well probabilities separate and match the truth: curves, bins, matrices."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lesions.evaluation.calibration import equal_bins
from lesions.evaluation.intervals import bootstrap_values, format_interval
from lesions.evaluation.metrics import Curve, Floats, Metric, of_curve
from lesions.reporting import style
from lesions.reporting.breakdown import rate

BAND_REPLICATES = 300  # percentiles of a curve settle sooner than those of a number
CLASS_REPLICATES = 100  # of each small curve's band
GRID = np.linspace(0, 1, 201)
ROC = ("false positive rate (1 − specificity)", "true positive rate (recall)")
PRECISION_RECALL = ("recall (sensitivity)", "precision")


def band_of(
    metric: Metric, positive: np.ndarray, score: np.ndarray, groups: np.ndarray,
    replicates: int = BAND_REPLICATES,
) -> Floats:  # fmt: skip
    """A metric's numbers, and the pointwise 95 % limits of each by resampled groups, (3, S)."""
    drawn = bootstrap_values(metric, positive, [score], groups, replicates)[:, 0]
    limits = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return np.vstack([metric.all(positive, score), limits])


def curve_bands(
    positive: np.ndarray, score: np.ndarray, groups: np.ndarray, replicates: int = BAND_REPLICATES
) -> list[Floats]:
    """`band_of` ROC (sensitivity over 1 - specificity) and PR (precision over recall) over GRID."""
    return np.split(band_of(curve_lines, positive, score, groups, replicates), 2, axis=1)


@of_curve
def curve_lines(curve: Curve) -> Floats:
    """ROC and then PR over GRID of each weighting, (B, 402); NaN without one of the classes."""
    lines = np.full((len(curve.hits), 2, len(GRID)), np.nan)
    for b in np.flatnonzero((curve.positives > 0) & (curve.negatives > 0)):
        # Between two scores of positives the ROC runs flat: both ends of each step are given.
        x = np.column_stack([curve.fp_above[b], curve.fp[b]]).ravel() / curve.negatives[b]
        recall = curve.tp[b] / curve.positives[b]
        y = np.column_stack([np.r_[0, recall[:-1]], recall]).ravel()
        lines[b, 0] = np.interp(GRID, np.r_[0, x, 1], np.r_[0, y, 1])
        at = np.searchsorted(recall, GRID - 1e-12).clip(max=len(recall) - 1)
        lines[b, 1] = curve.tp[b, at] / np.maximum(curve.tp[b, at] + curve.fp[b, at], 1e-300)
    return lines.reshape(len(lines), -1)


def draw_band(axes: Axes, band: Floats, label: str = "", x: Floats = GRID) -> None:
    """The model's curve, its limits shaded: `band` (3, N) as in `curve_bands`."""
    axes.fill_between(x, band[1], band[2], color=style.MODEL, alpha=0.2)
    axes.plot(x, band[0], color=style.MODEL, label=label)


def plot_curve(
    band: Floats, label: str, point: tuple[float, float],
    guessing: tuple[float, float] = (0, 1), labels: tuple[str, str] = ROC,
) -> Figure:  # fmt: skip
    """A ROC or PR curve with its band, the operating point (x, y), and guessing at x = 0 and 1."""
    figure, ((axes,),) = style.build_figure(3.7)
    draw_band(axes, band, label)
    name = "guessing" if guessing[0] != guessing[1] else f"guessing: {100 * guessing[0]:.1f} %"
    axes.plot([0, 1], guessing, **style.dashed(style.MUTED), label=name)
    axes.plot(*point, "o", color=style.INK, markersize=6, markeredgecolor=style.PAPER, zorder=5)
    left = point[0] > 0.62
    axes.annotate(
        "operating point", point, xytext=(-8 if left else 8, -11), textcoords="offset points",
        ha="right" if left else "left", fontsize=8.6,
        bbox={"facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
    )  # fmt: skip
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=labels[0], ylabel=labels[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
        axis.set_major_formatter(style.percent)
    style.legend_above(axes)
    return figure


def plot_class_curves(
    codes: np.ndarray, probs: Floats, groups: np.ndarray, classes: Mapping[str, Mapping]
) -> tuple[Figure, Figure]:
    """One-vs-rest ROC and PR curves, a small panel a class with its band over groups.

    `classes` are the scores of each class, as score_rows returns them.
    """
    lines = -(-len(classes) // 3)
    drawn = [style.build_figure(0.3 + 1.45 * lines, lines, 3) for _ in range(2)]
    for k, (name, scores) in enumerate(classes.items()):
        rows = codes == k
        bands = curve_bands(rows, probs[:, k], groups, CLASS_REPLICATES) if rows.any() else ()
        guesses = ([0, 1], [rows.mean()] * 2)
        for i, (_, axes) in enumerate(drawn):
            panel, number = axes.ravel()[k], scores[("auc", "average_precision")[i]].value
            panel.plot([0, 1], guesses[i], **style.dashed(style.MUTED))
            if bands:
                draw_band(panel, bands[i])
            panel.set_title(f"{name}  {format_interval(number)}", fontsize=8.6)
            panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_ticks([0, 0.5, 1], ["0", "", "1"])
    for (_, axes), labels in zip(drawn, (ROC, PRECISION_RECALL), strict=True):
        for panel in axes.ravel()[len(classes) :]:
            panel.axis("off")
        axes[-1, 0].set(xlabel=labels[0].split(" (")[0], ylabel=labels[1].split(" (")[0])
    return drawn[0][0], drawn[1][0]


def plot_weights(weights: Mapping[str, float]) -> Figure:
    """The weight of each member of a blend."""
    figure, ((axes,),) = style.build_figure(0.75 + 0.27 * max(len(weights), 2))
    places, lengths = range(len(weights)), list(weights.values())
    axes.barh(places, lengths, color=style.MODEL, alpha=0.8, height=0.64)
    style.name_rows(axes, list(weights))
    for y, weight in enumerate(lengths):
        style.note_beside(axes, y, f"{weight:.3f}")
    axes.set(xlabel="weight")
    return figure


def plot_histogram(
    parts: Sequence[tuple[str, np.ndarray, str]], threshold: float, label: str
) -> Figure:
    """Shares of the rows by score, one outline for each (name, scores, colour); the threshold."""
    figure, ((axes,),) = style.build_figure(3.3)
    low = min(0, *(scores.min() for _, scores, _ in parts if len(scores)))
    high = max(1, *(scores.max() for _, scores, _ in parts if len(scores)))
    edges = np.linspace(low, high, 41)
    for name, scores, colour in parts:
        share = np.histogram(scores, edges)[0] / max(len(scores), 1)
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.22)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=f"{name}, n = {len(scores):,}")
    axes.axvline(threshold, color=style.INK, linewidth=1, label=f"threshold {threshold:.3f}")
    style.legend_above(axes)
    axes.set(xlabel=label, ylabel="share of the images", xlim=(low, high))
    axes.yaxis.set_major_formatter(style.percent)
    return figure


def plot_reliability(
    lines: Sequence[tuple[str, np.ndarray]], event: np.ndarray, groups: np.ndarray,
    labels: tuple[str, str], logarithmic: bool,
) -> Figure:  # fmt: skip
    """Observed frequency of `event` over the predicted probability, in ten bins of equal count.

    `lines` are (name, probabilities), the one that matters last; `labels` those of the axes.
    """
    figure, ((axes,),) = style.build_figure(3.7)
    styles = [(style.MODEL, "o"), (style.BASELINE, "D")][: len(lines)][::-1]
    floor = 1e-4 if logarithmic else 0.0
    lowest = 0.9
    for (name, prob), (colour, marker) in zip(lines, styles, strict=True):
        bins = equal_bins(prob, 10)
        limits = [rate(event[bins == k], groups[bins == k]) for k in np.unique(bins)]
        forecast = np.array([prob[bins == k].mean() for k in np.unique(bins)])
        share, low, high = np.array([(x.value, x.low, x.high) for x in limits]).T
        low = np.maximum(low, floor)
        axes.vlines(forecast, low, high, color=colour, alpha=0.4, lw=2)
        share = np.where((share == 0) & logarithmic, np.nan, share)
        axes.plot(forecast, share, f"{marker}-", color=colour, lw=1, markersize=5, label=name)
        lowest = min(lowest, forecast.min(), *low[low > 1e-4], 1.0)
    lowest = float(np.clip(lowest / 1.5, 1e-4, 0.05)) if logarithmic else max(0.0, lowest - 0.02)
    axes.plot([lowest, 1], [lowest, 1], **style.dashed(style.MUTED))
    scale, ends = "log" if logarithmic else "linear", (lowest, 1.05 if logarithmic else 1.02)
    axes.set(xscale=scale, yscale=scale, xlim=ends, ylim=ends, xlabel=labels[0], ylabel=labels[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(style.percent)
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.legend(loc="upper left")
    return figure


def plot_decision_curve(risks: Floats, band: Floats, everybody: Floats) -> Figure:
    """Net benefit at `risks` (N,): the model's, a `band_of` (3, N), and everybody's (N,)."""
    figure, ((axes,),) = style.build_figure(3.4)
    draw_band(axes, 1000 * band, "model", risks)
    axes.plot(risks, 1000 * everybody, color=style.BENIGN, label="biopsy everybody")
    axes.axhline(0, color=style.INK, linewidth=1, label="biopsy nobody")
    top = 1000 * max(band[0].max(), everybody.max(), 0.001)
    axes.set(ylim=(-0.18 * top, 1.12 * top), xlim=(0, risks.max()))
    axes.xaxis.set_major_formatter(style.percent)
    axes.set(xlabel="threshold probability", ylabel="net benefit per 1,000 images")
    axes.legend(loc="upper right")
    return figure


def plot_confusion(counts: Floats, names: Sequence[str], called: Sequence[str]) -> Figure:
    """Counts (C, C) and their shares of the row: rows the true class, columns the predicted one."""
    size, shares = len(names), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    digits, font, height = (1, 12, 2.9) if size == 2 else (0, 6.8, 0.7 + 0.46 * size)
    figure, ((axes,),) = style.build_figure(height)
    for i, j in np.ndindex(counts.shape):
        if size == 2 or counts[i, j]:
            text = f"{counts[i, j]:,.0f}\n{100 * shares[i, j]:.{digits}f} %"
            alpha = 0.03 + 0.6 * shares[i, j] ** 0.7
            _draw_cell(axes, i, j, style.MODEL if i == j else style.MELANOMA, alpha, text, font)
    axes.set_xticks(np.arange(size) + 0.5, called, color=style.INK)
    axes.set_yticks(np.arange(size) + 0.5, names, color=style.INK)
    axes.xaxis.tick_top()
    axes.set(xlim=(0, size), ylim=(size, 0), ylabel="true class", xlabel="predicted class")
    axes.xaxis.set_label_position("top")
    return figure


def plot_correlation(columns: pd.DataFrame) -> Figure:
    """Spearman correlation of the columns, as a lower triangle."""
    names = list(columns)
    matrix, size = columns.corr(method="spearman").to_numpy(), len(names)
    figure, ((axes,),) = style.build_figure(0.9 + 0.36 * size)
    for i, j in np.ndindex(size, size):
        r = float(matrix[i, j])
        if j < i and not np.isnan(r):
            text, colour = f"{r:.2f}".replace("-", "−"), style.MELANOMA if r > 0 else style.BENIGN
            _draw_cell(axes, i, j, colour, 0.06 + 0.75 * abs(r), text, 8.4)
    axes.set_xticks(np.arange(size - 1) + 0.5, names[:-1], rotation=40, ha="right", color=style.INK)
    axes.set_yticks(np.arange(1, size) + 0.5, names[1:], color=style.INK)
    axes.set(xlim=(0, size - 1), ylim=(size, 1))
    return figure


def _draw_cell(
    axes: Axes, i: int, j: int, colour: str, alpha: float, text: str, size: float
) -> None:
    """The cell of a matrix in line i and column j; it has no grid and no frame."""
    axes.fill_between([j + 0.02, j + 0.98], i + 0.02, i + 0.98, color=colour, alpha=alpha)
    axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=size)
    axes.grid(False)
    axes.spines[:].set_visible(False)
