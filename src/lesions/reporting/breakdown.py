"""Rows, rates and scores by part of the data, as lines of dots and bars."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from lesions.evaluation.conformal import AGES
from lesions.evaluation.intervals import Interval, Z
from lesions.reporting import style

ABSENT = "not recorded"
MOST_DIAGNOSES = 14
PROPERTIES = ["brightness", "contrast", "colour", "sharpness"]
SAMPLE = 3000  # images whose pixels are measured


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
        return Interval(reason="no rows")
    codes = pd.factorize(np.asarray(groups))[0]
    count = int(codes.max()) + 1
    share, effective = float(events.mean()), float(count)
    if 0 < share < 1 and count > 1:
        sums = np.bincount(codes, events - share)
        variance = count / (count - 1) * float(sums @ sums) / n**2
        effective = min(float(n), share * (1 - share) / variance) if variance else float(n)
    spread = np.sqrt(share * (1 - share) / effective + Z**2 / (4 * effective**2))
    centre = (share + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = float(Z * spread / (1 + Z**2 / effective))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def bands(values: pd.Series, edges: Sequence[float], unit: str = "") -> pd.Series:
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
        "age": bands(table["age_approx"], AGES),
        "sex": _categories(table["sex"]),
        "site": _categories(table["site"]),
        "source": _categories(table["source"]),
        "size of the original": bands(megapixels, [0.5, 1, 4, 12], " MP"),
    }
    if table["images_per_patient"].notna().any():
        found["images of the patient"] = bands(table["images_per_patient"], [5, 15, 40])
    found = {name: values.cat.remove_unused_categories() for name, values in found.items()}
    return dict(sorted(found.items(), key=lambda part: -len(part[1].cat.categories)))


def _categories(values: pd.Series) -> pd.Series:
    order = [*values[values != ""].value_counts().index, ABSENT]
    return values.replace("", ABSENT).astype(pd.CategoricalDtype(order, ordered=True))


class Part(NamedTuple):
    """A line of the table of AUCs: some rows, or without `rows` a baseline that sees no pixels."""

    name: str
    auc: Interval
    rows: int | None = None
    positive: int | None = None


def baseline_parts(shortcuts: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The AUCs without pixels that the audit wrote."""
    found = []
    for row in shortcuts:
        where = "" if row["source"] == "all" else f", {row['source']}"
        numbers = np.array([row["auc"], row["low"], row["high"]], float)  # of null NaN
        found.append(Part(f"metadata: {row['features']}{where}", Interval(*numbers.tolist())))
    return found


def plot_forest(parts: Sequence[Part]) -> Figure:
    """AUC with interval, a line for each part, from the top."""
    figure, ((axes,),) = style.build_figure(0.85 + 0.27 * len(parts))
    for y, part in enumerate(parts):
        if np.isnan(part.auc.value):
            axes.text(0.5, y, f"  {part.auc.reason or 'n/a'}", va="center", color=style.MUTED)
            continue
        colour, marker = (style.BASELINE, "D") if part.rows is None else (style.MODEL, "o")
        _draw_interval(axes, y, part.auc, colour, marker)
        style.note_beside(axes, y, f"{part.auc.value:.3f}")
    lows = [number for part in parts for number in (part.auc.value, part.auc.low)]
    style.name_rows(axes, [part.name for part in parts])
    axes.set_xlim(min(0.5, float(np.nanmin([0.52, *lows])) - 0.02), 1)
    axes.set(xlabel="AUC, 95 % interval")
    axes.axvline(0.5, **style.dashed(style.MUTED))
    return figure


def plot_errors(
    values: pd.Series, positive: np.ndarray, flagged: np.ndarray, groups: np.ndarray, words: Words
) -> Figure:
    """Positives missed and benign lesions flagged in each category, with intervals and n."""
    figure, panels = _two_panels(values)
    sides = (
        (positive, ~flagged, style.MELANOMA, f"{words.many} missed"),
        (~positive, flagged, style.BENIGN, "benign flagged"),
    )
    for panel, (kind, event, colour, title) in zip(panels, sides, strict=True):
        _draw_rates(panel, values[kind], event[kind], groups[kind], colour)
        for y, count in enumerate(values[kind].value_counts(sort=False)):
            style.note_beside(panel, y, f"{count:,}", style.MUTED)
        panel.set(xlabel=title)
    return figure


def plot_factor(
    values: pd.Series, positive: np.ndarray, groups: np.ndarray, words: Words
) -> Figure:
    """Images in each category, and the positives' share of them with its 95 % interval."""
    figure, (left, right) = _two_panels(values)
    _draw_counts(left, values.value_counts(sort=False), style.BENIGN)
    positives = values[positive].value_counts(sort=False)
    left.barh(range(len(positives)), positives, color=style.MELANOMA, height=0.64)
    left.set_xlim(0, left.get_xlim()[1] * 1.22)
    left.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    left.set(xlabel="images")
    _draw_rates(right, values, positive, groups, style.MELANOMA)
    right.set(xlabel=f"of which {words.kind}")
    return figure


def plot_diagnoses(diagnosis: pd.Series, positive: np.ndarray) -> Figure:
    """Images of each diagnosis on a logarithmic scale, positives in their colour."""
    named = diagnosis.replace("", ABSENT)
    counts = named.value_counts()
    if len(counts) > MOST_DIAGNOSES:
        rest = counts.iloc[MOST_DIAGNOSES - 1 :]
        others = pd.Series({f"{len(rest)} others": rest.sum()})
        counts = pd.concat([counts.iloc[: MOST_DIAGNOSES - 1], others])
    figure, ((axes,),) = style.build_figure(0.75 + 0.24 * max(len(counts), 2))
    colours = np.where(counts.index.isin(named[positive]), style.MELANOMA, style.BENIGN)
    axes.set(xlabel="images, logarithmic", xscale="log", xlim=(0.8, counts.max() * 5))
    _draw_counts(axes, counts, colours)
    axes.tick_params(which="minor", length=0)
    style.name_rows(axes, list(counts.index))
    return figure


def measure_pixels(images: Any, rows: np.ndarray) -> pd.DataFrame:
    """PROPERTIES of the images at `rows` of the cache, uint8 RGB.

    Mean and standard deviation of the grey values, colourfulness (Hasler & Suesstrunk, 2003), and
    the standard deviation of the Laplacian.
    """
    found = []
    for row in rows:
        image = np.asarray(images[row])
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
        axes = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
        colour = np.hypot(*axes.std(axis=1)) + 0.3 * np.hypot(*axes.mean(axis=1))
        sharpness = cv2.Laplacian(grey, cv2.CV_32F).std()
        found.append((grey.mean(), grey.std(), colour, sharpness))
    return pd.DataFrame(found, columns=PROPERTIES)


def plot_properties(images: Any, rows: np.ndarray, classes: np.ndarray) -> Figure:
    """PROPERTIES of the images at `rows` by class (N,), of SAMPLE images at most.

    Median, quartiles, and 5th to 95th percentile.
    """
    some = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
    measured = measure_pixels(images, rows[some]).groupby(np.asarray(classes)[some])
    parts = {str(name): part for name, part in measured}
    figure, axes = style.build_figure(0.8 + 0.5 * max(len(parts), 2), 2, 2)
    for panel, name in zip(axes.ravel(), PROPERTIES, strict=True):
        style.name_rows(panel, list(parts) if panel in axes[:, 0] else [""] * len(parts))
        panel.set(xlabel=name)
        for y, part in enumerate(parts.values()):
            least, low, median, high, most = np.percentile(part[name], [5, 25, 50, 75, 95])
            panel.plot([least, most], [y, y], color=style.BENIGN, linewidth=1, alpha=0.6)
            panel.plot([low, high], [y, y], color=style.BENIGN, linewidth=4, alpha=0.6)
            panel.plot(median, y, "o", color=style.BENIGN, markersize=5)
    return figure


def numbers(
    table: pd.DataFrame, positive: np.ndarray, score: np.ndarray | None, words: Words
) -> pd.DataFrame:
    """What is known of an image as numbers, columns that are missing or constant left out."""
    columns = {
        words.kind: positive,
        "score": score,
        "age": table["age_approx"],
        "male": table["sex"].map({"male": 1.0, "female": 0.0}),
        "megapixels": table["width"] * table["height"] / 1e6,
        "file bytes": table["bytes"],
        "images of patient": table["images_per_patient"],
    }
    columns |= {name: (table["source"] == name) * 1.0 for name in sorted(set(table["source"]))[1:]}
    found = pd.DataFrame(columns)
    return found.loc[:, found.nunique() > 1].astype(float)


def draw_parts(
    drawn: dict[str, Figure], prefix: str, parts: Mapping[str, pd.Series],
    plot: Callable[..., Figure], *of: Any,
) -> dict[str, str]:  # fmt: skip
    """The name in `drawn` of the figure of each part, "" where the table has no value of it."""
    found = dict.fromkeys(parts, "")
    for name, values in parts.items():
        if {ABSENT} != set(values.cat.categories):
            found[name] = f"{prefix}_{name.replace(' ', '_')}"
            drawn[found[name]] = plot(values, *of)
    return found


def _two_panels(values: pd.Series) -> tuple[Figure, np.ndarray]:
    """Two panels with a line for each category, named at the left one."""
    names = list(values.cat.categories)
    figure, axes = style.build_figure(0.75 + 0.28 * max(len(names), 2), columns=2)
    style.name_rows(axes[0, 0], names)
    style.name_rows(axes[0, 1], [""] * len(names))
    return figure, axes[0]


def _draw_counts(axes: Axes, counts: pd.Series, colour: Any) -> None:
    """A bar for each count, the number at its end."""
    bars = axes.barh(range(len(counts)), counts, color=colour, alpha=0.8, height=0.64)
    axes.bar_label(bars, fmt=" {:,.0f}", fontsize=8.4)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_rates(
    axes: Axes, values: pd.Series, event: np.ndarray, groups: np.ndarray, colour: str
) -> None:
    """The rate of `event` in each category with its interval, that of all rows dashed."""
    axes.axvline(rate(event, groups).value, **style.dashed(colour))
    for y, name in enumerate(values.cat.categories):
        here = (values == name).to_numpy()
        _draw_interval(axes, y, rate(event[here], groups[here]), colour)
    axes.set_xlim(0, min(1.02, max(axes.get_xlim()[1], 0.02)))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(style.percent)


def _draw_interval(axes: Axes, y: float, found: Interval, colour: str, marker: str = "o") -> None:
    """A bar over the interval and a marker at its value; nothing where there is no value."""
    if not np.isnan(found.value):
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=2.4, alpha=0.5)
        axes.plot(found.value, y, marker, color=colour, markersize=5, clip_on=False)
