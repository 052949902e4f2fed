"""Error rates of parts of the data, with intervals that know that a patient's images are alike."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from lesions.reporting.style import BENIGN, INK, MELANOMA, MUTED, bare, build_figure
from lesions.reporting.words import Words

Z = 1.959964  # of a two-sided 95 % interval


class Rate(NamedTuple):
    """A share of `n` rows with its 95 % interval; NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int


def rate(events: ArrayLike, groups: ArrayLike) -> Rate:
    """The share of rows with an event, and Wilson's interval on the effective number of rows.

    The effective number is that of independent rows whose share would vary as much as this one
    does between groups (linearised cluster variance); with 0 or all events, the groups' number.
    """
    events = np.asarray(events, dtype=float)
    n = len(events)
    if not n:
        return Rate(np.nan, np.nan, np.nan, 0)
    codes = pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1
    share = float(events.mean())
    effective = float(count)
    if 0 < share < 1 and count > 1:
        sums = np.bincount(codes, events - share)
        variance = count / (count - 1) * float(sums @ sums) / n**2
        effective = min(float(n), share * (1 - share) / variance) if variance else float(n)
    return Rate(share, *_wilson(share, effective), n)


def _wilson(share: float, n: float) -> tuple[float, float]:
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def plot_errors(
    values: pd.Series, target: np.ndarray, flagged: np.ndarray, groups: np.ndarray, words: Words
) -> Figure:
    """Positives missed and benign lesions flagged in each category, with intervals and n."""
    names = list(values.cat.categories)
    figure, axes = build_figure(0.75 + 0.29 * max(len(names), 2), columns=2)
    missed = f"{words.many} missed"
    sides = ((1, ~flagged, MELANOMA, missed), (0, flagged, BENIGN, "benign flagged"))
    for panel, (kind, event, colour, title) in zip(axes[0], sides, strict=True):
        overall = rate(event[target == kind], groups[target == kind])
        panel.axvline(overall.value, color=colour, linewidth=0.9, linestyle=(0, (4, 4)))
        for y, name in enumerate(names):
            here = (values == name).to_numpy() & (target == kind)
            found = rate(event[here], groups[here])
            draw_rate(panel, y, found, colour, "o" if kind else "s")
            panel.annotate(
                f"{found.n:,}",
                (1.0, y),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.2,
                color=MUTED,
                annotation_clip=False,
            )
        panel.set(ylim=(len(names) - 0.4, -0.6), xlabel=title)
        percent_axis(panel)
        bare(panel)
    axes[0, 0].set_yticks(range(len(names)), names, color=INK)
    axes[0, 1].set_yticks([])
    return figure


def draw_rate(axes: Axes, y: float, found: Rate, colour: str, marker: str = "o") -> None:
    """A dot at the rate and a bar over its interval; nothing where there are no rows."""
    if found.n:
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=2.4, alpha=0.5)
        axes.plot(found.value, y, marker, color=colour, markersize=4.6, clip_on=False)


def percent_axis(axes: Axes) -> None:
    """An x axis of shares: from 0, in per cent, three ticks at most."""
    axes.set_xlim(0, min(1.02, max(axes.get_xlim()[1], 0.02)))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
