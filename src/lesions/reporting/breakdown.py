"""The data and the errors by part: age, sex, site, source, image size, images of a patient."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from lesions.evaluation.intervals import Interval, Z, undefined
from lesions.reporting.style import (
    BENIGN,
    INK,
    MELANOMA,
    MUTED,
    bare,
    build_figure,
    dashed,
    note_beside,
    percent_ticks,
)

ABSENT = "not recorded"
MOST_DIAGNOSES = 14


class Words(NamedTuple):
    """What positive lesions are called: "is melanoma", "a melanoma", "melanomas"."""

    kind: str
    one: str
    many: str


def words_of(task: str) -> Words:
    """The words for a task's positive lesions; of several classes, those for malignant ones."""
    if task == "melanoma":
        return Words("melanoma", "melanoma", "melanomas")
    return Words("malignant", "malignant lesion", "malignant lesions")


def rate(events: ArrayLike, groups: ArrayLike) -> Interval:
    """The share of rows with an event, and Wilson's interval on the effective number of rows.

    The effective number is that of independent rows whose share would vary as much as this one
    does between groups (linearised cluster variance); with 0 or all events, the groups' number.
    """
    events = np.asarray(events, dtype=float)
    n = len(events)
    if not n:
        return undefined("no rows")
    codes = pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1
    share = float(events.mean())
    effective = float(count)
    if 0 < share < 1 and count > 1:
        sums = np.bincount(codes, events - share)
        variance = count / (count - 1) * float(sums @ sums) / n**2
        effective = min(float(n), share * (1 - share) / variance) if variance else float(n)
    spread = np.sqrt(share * (1 - share) / effective + Z**2 / (4 * effective**2))
    centre = (share + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = float(Z * spread / (1 + Z**2 / effective))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), np.nan)


def bands(values: pd.Series, edges: list[float], unit: str = "") -> pd.Series:
    """Each number's band as an ordered category, such as "45–60"; ABSENT comes last."""
    names = [f"under {edges[0]:g}{unit}"]
    names += [f"{a:g}–{b:g}{unit}" for a, b in pairwise(edges)]
    names += [f"{edges[-1]:g}{unit} and over"]
    cut = pd.cut(values, [-np.inf, *edges, np.inf], right=False, labels=names)
    return cut.cat.add_categories(ABSENT).fillna(ABSENT)


def factors(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The parts that images fall into: name -> ordered category of each row, ABSENT last.

    Parts with most categories come first, so that cards of like height stand side by side.
    """
    megapixels = table["width"] * table["height"] / 1e6
    found = {
        "age": bands(table["age_approx"], [30, 45, 60, 75]),
        "sex": _categories(table["sex"]),
        "site": _categories(table["site"]),
        "source": _categories(table["source"]),
        "size of the original": bands(megapixels, [0.5, 1, 4, 12], " MP"),
    }
    if "images_per_patient" in table and table["images_per_patient"].notna().any():
        found["images of the patient"] = bands(table["images_per_patient"], [5, 15, 40])
    found = {name: values.cat.remove_unused_categories() for name, values in found.items()}
    return dict(sorted(found.items(), key=lambda part: -len(part[1].cat.categories)))


def _categories(values: pd.Series) -> pd.Series:
    known = values.replace("", np.nan)
    order = [str(name) for name in known.value_counts().index]
    filled = known.fillna(ABSENT).astype(str)
    return filled.astype(pd.CategoricalDtype([*order, ABSENT], ordered=True))


def plot_errors(
    values: pd.Series, positive: np.ndarray, flagged: np.ndarray, groups: np.ndarray, words: Words
) -> Figure:
    """Positives missed and benign lesions flagged in each category, with intervals and n."""
    names = list(values.cat.categories)
    figure, axes = build_figure(0.75 + 0.29 * max(len(names), 2), columns=2)
    missed = f"{words.many} missed"
    sides = (
        (positive, ~flagged, MELANOMA, missed),
        (~positive, flagged, BENIGN, "benign flagged"),
    )
    for panel, (kind, event, colour, title) in zip(axes[0], sides, strict=True):
        panel.axvline(rate(event[kind], groups[kind]).value, **dashed(colour))
        for y, name in enumerate(names):
            here = (values == name).to_numpy() & kind
            _draw_rate(panel, y, rate(event[here], groups[here]), colour)
            note_beside(panel, y, f"{here.sum():,}", MUTED)
        panel.set(xlabel=title)
        _share_axis(panel)
    _name_rows(axes[0, 0], names)
    _name_rows(axes[0, 1], [""] * len(names))
    return figure


def plot_factor(
    values: pd.Series, positive: np.ndarray, groups: np.ndarray, words: Words
) -> Figure:
    """Images in each category, and the positives' share of them with its 95 % interval."""
    names = list(values.cat.categories)
    figure, ((left, right),) = build_figure(0.75 + 0.27 * max(len(names), 2), columns=2)
    for y, name in enumerate(names):
        here = (values == name).to_numpy()
        left.barh(y, here.sum(), color=BENIGN, alpha=0.75, height=0.62)
        left.barh(y, positive[here].sum(), color=MELANOMA, height=0.62)
        left.text(here.sum(), y, f" {here.sum():,}", va="center", fontsize=8.4)
        _draw_rate(right, y, rate(positive[here], groups[here]), MELANOMA)
    left.set(xlabel="images")
    left.set_xlim(0, left.get_xlim()[1] * 1.22)
    left.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    left.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    right.set(xlabel=f"of which {words.kind}")
    _share_axis(right)
    _name_rows(left, names)
    _name_rows(right, [""] * len(names))
    return figure


def plot_diagnoses(diagnosis: pd.Series, positive: np.ndarray) -> Figure:
    """Images of each diagnosis on a logarithmic scale, positives in their colour."""
    named = diagnosis.replace("", np.nan).fillna(ABSENT)
    counts = named.value_counts()
    if len(counts) > MOST_DIAGNOSES:
        rest = counts.iloc[MOST_DIAGNOSES - 1 :]
        others = pd.Series({f"{len(rest)} others": rest.sum()})
        counts = pd.concat([counts.iloc[: MOST_DIAGNOSES - 1], others])
    found = set(named[positive])
    names, sizes = [str(name) for name in counts.index], [int(count) for count in counts]
    figure, ((axes,),) = build_figure(0.75 + 0.24 * max(len(names), 2))
    colours = [MELANOMA if name in found else BENIGN for name in names]
    axes.barh(range(len(names)), sizes, color=colours, alpha=0.85, height=0.66)
    for y, count in enumerate(sizes):
        axes.text(count, y, f" {count:,}", va="center", fontsize=8.4)
    axes.set(xlabel="images, logarithmic", xscale="log")
    axes.set_xlim(0.8, max(sizes) * 5)
    axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.tick_params(which="minor", length=0)
    _name_rows(axes, names)
    return figure


def plot_correlation(columns: pd.DataFrame) -> Figure:
    """Spearman correlation of the columns, as a lower triangle."""
    names = list(columns)
    matrix, size = columns.corr(method="spearman").to_numpy(), len(names)
    figure, ((axes,),) = build_figure(0.9 + 0.36 * size)
    for i, j in zip(*np.tril_indices(size, -1), strict=True):
        r = matrix[i, j]
        if np.isnan(r):
            continue
        colour = MELANOMA if r > 0 else BENIGN
        box = [j + 0.03, j + 0.97]
        axes.fill_between(box, i + 0.03, i + 0.97, color=colour, alpha=0.06 + 0.75 * abs(r))
        text = f"{r:.2f}".replace("-", "−")
        axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=8.4)
    axes.set_xticks(np.arange(size - 1) + 0.5, names[:-1], rotation=40, ha="right")
    axes.set_yticks(np.arange(1, size) + 0.5, names[1:])
    axes.tick_params(labelcolor=INK)
    axes.set(xlim=(0, size - 1), ylim=(size, 1))
    bare(axes, grid="")
    return figure


def numbers(
    table: pd.DataFrame, positive: np.ndarray, score: np.ndarray, words: Words
) -> pd.DataFrame:
    """What is known of an image as numbers, columns that are empty or constant left out."""
    columns = {
        words.kind: positive,
        "score": score,
        "age": table["age_approx"],
        "male": table["sex"].map({"male": 1.0, "female": 0.0}),
        "megapixels": table["width"] * table["height"] / 1e6,
        "file bytes": table.get("bytes"),
        "images of patient": table.get("images_per_patient"),
    }
    columns |= {name: (table["source"] == name) * 1.0 for name in sorted(set(table["source"]))[1:]}
    found = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    return found.loc[:, found.nunique() > 1].astype(float)


def _draw_rate(axes: Axes, y: float, found: Interval, colour: str) -> None:
    """A dot at the rate and a bar over its interval; nothing where there are no rows."""
    if not np.isnan(found.value):
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=2.4, alpha=0.5)
        axes.plot(found.value, y, "o", color=colour, markersize=4.6, clip_on=False)


def _share_axis(axes: Axes) -> None:
    """An x axis of shares: from 0, in per cent, three ticks at most."""
    axes.set_xlim(0, min(1.02, max(axes.get_xlim()[1], 0.02)))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    percent_ticks(axes.xaxis)


def _name_rows(axes: Axes, names: list[str]) -> None:
    """A category a line, from the top."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set(ylim=(len(names) - 0.4, -0.6))
    bare(axes)
