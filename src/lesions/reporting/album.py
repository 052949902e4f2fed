"""The figures of one report, and the words its sections share."""

import numpy as np
from matplotlib.figure import Figure

from lesions.reporting import page, style


class Album:
    """The figures of one report: each becomes a card of the page and, by its name, a PNG."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}

    def card(self, name: str, title: str, figure: Figure, caption: str) -> str:
        self.figures[name] = figure
        return page.card(title, style.svg(figure, name, f"{title}. {caption}"), caption)


def percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


def slug(prefix: str, title: str) -> str:
    """A figure's name from its card's title: "errors_size_of_the_original"."""
    return f"{prefix}_{title.lower().replace(' ', '_')}"
