"""How every figure looks: one palette, one set of sizes, SVG that follows the page's theme.

Figures are made without pyplot: no backend is chosen and nothing is kept open at import.
"""

import io
import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import parent_process
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lesions import files

# name: (on a light page, on a dark page). Melanoma and benign differ in lightness as well as hue,
# so that they stay apart in every common colour vision deficiency and in print.
PALETTE = {
    "ink": ("#1d2733", "#e6eaee"),
    "muted": ("#5b6876", "#9daab7"),
    "grid": ("#dde2e7", "#323d49"),
    "melanoma": ("#c2410c", "#ff9259"),
    "benign": ("#2f6db5", "#74b0f0"),
    "model": ("#0f766e", "#3fc7b4"),
    "baseline": ("#8a6d1b", "#d9b64a"),
    "paper": ("#fffffe", "#161c23"),
}
INK, MUTED, GRID, MELANOMA, BENIGN, MODEL, BASELINE, PAPER = (
    light for light, _ in PALETTE.values()
)

WIDTH = 4.2  # inches of one card, 302 points: at this size its text suits a phone as well
RULES = Path(__file__).parent / "templates" / "figure.mplstyle"


def drawing() -> AbstractContextManager[None]:
    """The rules, for as long as figures are made and saved: other figures keep their own."""
    muted = ("axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    colours: dict[Any, Any] = {"text.color": INK, "grid.color": GRID, **dict.fromkeys(muted, MUTED)}
    return matplotlib.rc_context(colours | {"svg.hashsalt": "lesions"}, RULES)


def build_figure(height: float = 3.3, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure of one card's width and its axes, always as an array of shape (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots(rows, columns, squeeze=False)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A category a line, from the top, without a frame: for rows of dots and bars."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set(ylim=(len(names) - 0.4, -0.6))
    axes.grid(False, axis="y")
    axes.spines[:].set_visible(False)


def dashed(colour: str) -> dict[str, Any]:
    """How a line of reference is drawn: chance, the mean of all rows."""
    return {"color": colour, "linewidth": 0.9, "linestyle": (0, (4, 4))}


def percent(share: float, _: Any) -> str:
    """The tick label of a share, for set_major_formatter: no process takes a lambda."""
    return f"{100 * share:.3g} %"


def note_beside(axes: Axes, y: float, text: str, colour: str = INK) -> None:
    """A number at the right of a row of dots and bars."""
    axes.annotate(
        text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center", fontsize=8.6, color=colour, annotation_clip=False,
    )  # fmt: skip


def legend_above(axes: Axes) -> None:
    """The legend above the axes, where it can cover nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2)


def another_process() -> Executor:
    """One process that draws; it ends with this one, however this one ends."""
    return ProcessPoolExecutor(1, initializer=_follow)


def _follow() -> None:
    signal(SIGINT, SIG_IGN)  # Ctrl-C reaches both, and this one is ended by the other
    parent: Any = parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class SavedFigures(dict[str, Figure]):
    """Figures by name, each written as <name>.png by `pool` while the next one is made."""

    def __init__(self, pool: Executor, folder: Path, inline: bool = True):
        super().__init__()
        self.pool, self.folder, self.inline = pool, folder, inline
        self.saved: dict[str, Future[str]] = {}

    def __setitem__(self, name: str, figure: Figure) -> None:
        super().__setitem__(name, figure)
        self.saved[name] = self.pool.submit(_save, figure, name, self.folder, self.inline)

    def svgs(self) -> dict[str, str]:
        """The SVG of each figure by name, "" if not `inline`, once all are written."""
        return {name: saved.result() for name, saved in self.saved.items()}


def _save(figure: Figure, name: str, folder: Path, inline: bool) -> str:
    with drawing():
        text = svg(figure, name) if inline else ""
        write_png(figure, folder / f"{name}.png")
    return text


def svg(figure: Figure, name: str) -> str:
    """The figure as an inline SVG element whose colours are the page's CSS variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # it is laid out now, and need not be again for the PNG
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Several figures share a page: ids stay unique, and those nothing points to go.
    used = set(re.findall(r"(?:url\(#|xlink:href=\"#)([^\")]+)", text))
    text = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text
    )
    text = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    for role, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{role})")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        r'<svg class="figure" viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
        flags=re.DOTALL,
    )


def write_png(figure: Figure, path: Path) -> None:
    """The same figure on white at 160 dpi, for slides and issues."""
    with files.atomic(path) as part:
        figure.savefig(part, format="png", dpi=160, facecolor="white", metadata={"Software": None})
