"""training_curves.png: loss and validation AUC of every fold trained so far, by epoch."""

import re
from pathlib import Path

from lesions.files import read_csv
from lesions.reporting.style import BASELINE, MODEL, build_figure, drawing, write_png


def draw_curves(folder: Path) -> None:
    """Write training_curves.png into a run's folder, from its history<k>.csv."""
    paths = sorted(folder.glob("history*.csv"), key=lambda path: path.stem)
    if not paths:
        return
    with drawing():
        figure, axes = build_figure(5.0, rows=2)
        for path in paths:
            history = read_csv(path, ["epoch", "loss", "auc"])
            fold = re.sub(r"\D", "", path.stem)
            for (axis,), key, colour in zip(axes, ("loss", "auc"), (BASELINE, MODEL), strict=True):
                axis.plot(history["epoch"], history[key], ".-", color=colour, alpha=0.6)
                end = (history["epoch"].iloc[-1], history[key].iloc[-1])
                axis.annotate(fold, end, xytext=(4, 0), textcoords="offset points", va="center")
        for (axis,), label in zip(axes, ("training loss", "validation AUC"), strict=True):
            axis.set(xlabel="epoch", ylabel=label)
            axis.xaxis.get_major_locator().set_params(integer=True)
        write_png(figure, folder / "training_curves.png")
