"""blend.png: how alike the members are, and what each further pick gains in and out of sample."""

from pathlib import Path

import numpy as np
import pandas as pd

from lesions.blending.class_pool import AnyPool
from lesions.files import atomic

RANKS = "Rank correlation of the members"


def draw_blend(pool: AnyPool, gains: pd.DataFrame, baselines: dict[str, float], path: Path) -> None:
    """Correlation of the members beside the gain curve of hill climbing, written to `path`.

    `baselines` are nested scores by what to call them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(pool.names)
    side = 4.2 + 0.16 * len(names)
    figure = Figure(figsize=(2 * side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    what = "Correlation of the members' probabilities" if pool.classes else RANKS
    _draw_correlation(left, names, pool.correlation(), what)
    _draw_gains(right, gains, baselines, pool.label)
    with atomic(path) as part:
        figure.savefig(part, dpi=130, format="png")


def _draw_correlation(axes, names: list[str], correlation: np.ndarray, title: str) -> None:
    low = correlation.min()
    image = axes.imshow(correlation, cmap="Blues", vmin=low - 0.1 * (1 - low), vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= 20:
        middle = (low + 1) / 2
        for i, row in enumerate(correlation):
            for j, value in enumerate(row):
                colour = "white" if value > middle else "black"
                axes.text(
                    j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour
                )
    axes.set_title(title, loc="left", fontsize=11)
    axes.figure.colorbar(image, ax=axes, shrink=0.75)


def _draw_gains(axes, gains: pd.DataFrame, baselines: dict[str, float], label: str) -> None:
    axes.plot(gains["picks"], gains["in_sample"], color="#9aa5b1", label="hill climbing, in sample")
    axes.plot(
        gains["picks"], gains["nested"], color="#1f5fa8", marker="o", markersize=3.5,
        label="hill climbing, on held-out groups",
    )  # fmt: skip
    for (name, value), style in zip(baselines.items(), "-:", strict=False):
        axes.axhline(value, color="#c0392b", linestyle=style, linewidth=1, label=name)
    axes.set_xlabel("members picked, with replacement")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("What each pick gains", loc="left", fontsize=11)
