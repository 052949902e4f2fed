"""Figures of the data: how many images there are of what, and what goes together with what."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lesions.reporting.rates import draw_rate, percent_axis, rate
from lesions.reporting.style import (
    BENIGN,
    INK,
    MELANOMA,
    MODEL,
    MUTED,
    bare,
    build_figure,
    legend_above,
)
from lesions.reporting.words import Words

ABSENT = "not recorded"


def bands(values: pd.Series, edges: list[float], unit: str = "") -> pd.Series:
    """Each number's band as an ordered category, such as "45–60 years"; ABSENT comes last."""
    names = [f"under {edges[0]:g}{unit}"]
    names += [f"{a:g}–{b:g}{unit}" for a, b in pairwise(edges)]
    names += [f"{edges[-1]:g}{unit} and over"]
    cut = pd.cut(values, [-np.inf, *edges, np.inf], right=False, labels=names)
    return cut.cat.add_categories(ABSENT).fillna(ABSENT)


def factors(table: pd.DataFrame) -> dict[str, pd.Series]:
    """What lesions are told apart by: title -> ordered category of each row, empty ones last."""
    megapixels = table["width"] * table["height"] / 1e6
    found = {
        "Age": bands(table["age_approx"], [30, 45, 60, 75]),
        "Sex": _categories(table["sex"]),
        "Site": _categories(table["site"]),
        "Source": _categories(table["source"]),
        "Size of the original": bands(megapixels, [0.5, 1, 4, 12], " MP"),
    }
    if "images_per_patient" in table and table["images_per_patient"].notna().any():
        found["Images of the patient"] = bands(table["images_per_patient"], [5, 15, 40])
    return {title: values.cat.remove_unused_categories() for title, values in found.items()}


def by_size(parts: dict[str, pd.Series]) -> list[tuple[str, pd.Series]]:
    """The parts with most categories first: cards of like height stand side by side."""
    return sorted(parts.items(), key=lambda part: -len(part[1].cat.categories))


def _categories(values: pd.Series) -> pd.Series:
    order = [str(name) for name in values.value_counts().index]
    filled = values.fillna(ABSENT).astype(str)
    return filled.astype(pd.CategoricalDtype([*order, ABSENT], ordered=True))


def plot_factor(values: pd.Series, target: pd.Series, group: pd.Series, words: Words) -> Figure:
    """Images in each category, and the positives' share of them with its 95 % interval."""
    names = list(values.cat.categories)
    figure, ((left, right),) = build_figure(0.75 + 0.27 * max(len(names), 2), columns=2)
    for y, name in enumerate(names):
        here = (values == name).to_numpy()
        left.barh(y, here.sum(), color=BENIGN, alpha=0.75, height=0.62)
        left.barh(y, target[here].sum(), color=MELANOMA, height=0.62)
        left.text(here.sum(), y, f" {here.sum():,}", va="center", fontsize=8.4)
        draw_rate(right, y, rate(target[here].to_numpy(), group[here].to_numpy()), MELANOMA)
    left.set_yticks(range(len(names)), names, color=INK)
    right.set_yticks([])
    left.set(xlabel="images", ylim=(len(names) - 0.4, -0.6))
    left.set_xlim(0, left.get_xlim()[1] * 1.22)
    left.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    left.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    right.set(xlabel=f"of which {words.kind}", ylim=(len(names) - 0.4, -0.6))
    percent_axis(right)
    bare(left)
    bare(right)
    return figure


def plot_diagnoses(diagnosis: pd.Series, target: pd.Series) -> Figure:
    """Images of each diagnosis on a logarithmic scale, positives in their colour."""
    counts = diagnosis.fillna(ABSENT).value_counts()
    if len(counts) > 14:
        rest = counts.iloc[13:]
        counts = pd.concat([counts.iloc[:13], pd.Series({f"{len(rest)} others": rest.sum()})])
    malignant = set(diagnosis[target == 1].fillna(ABSENT))
    names, sizes = [str(name) for name in counts.index], [int(count) for count in counts]
    figure, ((axes,),) = build_figure(0.75 + 0.24 * max(len(names), 2))
    colours = [MELANOMA if name in malignant else BENIGN for name in names]
    axes.barh(range(len(names)), sizes, color=colours, alpha=0.85, height=0.66)
    for y, count in enumerate(sizes):
        axes.text(count, y, f" {count:,}", va="center", fontsize=8.4)
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="images, logarithmic", xscale="log")
    axes.set_xlim(0.8, max(sizes) * 5)
    axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.tick_params(which="minor", length=0)
    bare(axes)
    return figure


def plot_correlation(table: pd.DataFrame, words: Words) -> Figure:
    """Spearman correlation of the columns of `numbers(table)`, as a lower triangle."""
    columns = numbers(table, words)
    names = list(columns)
    matrix, size = columns.corr(method="spearman").to_numpy(), len(names)
    figure, ((axes,),) = build_figure(0.9 + 0.36 * size)
    for i in range(1, size):
        for j in range(i):
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


def numbers(table: pd.DataFrame, words: Words) -> pd.DataFrame:
    """What is known of an image as numbers, columns that are empty or constant left out."""
    columns = {
        words.kind: table["target"],
        "score": table["prob"],
        "age": table["age_approx"],
        "male": table["sex"].map({"male": 1.0, "female": 0.0}),
        "megapixels": table["width"] * table["height"] / 1e6,
        "file bytes": table.get("bytes"),
        "images of patient": table.get("images_per_patient"),
    }
    columns |= {name: (table["source"] == name) * 1.0 for name in sorted(set(table["source"]))[1:]}
    kept = {name: values for name, values in columns.items() if values is not None}
    return pd.DataFrame({name: v for name, v in kept.items() if v.nunique() > 1}, dtype=float)


def plot_test(oof: pd.DataFrame, test: pd.DataFrame, threshold: float, label: str) -> Figure:
    """Distribution of the scores on the test rows beside the out-of-fold ones."""
    figure, ((axes,),) = build_figure(3.3)
    edges = np.linspace(min(0, oof["prob"].min()), max(1, oof["prob"].max()), 41)
    for rows, colour, name in ((oof, MUTED, "out-of-fold"), (test, MODEL, "test")):
        share = np.histogram(rows["prob"], edges)[0] / max(len(rows), 1)
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.2)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=f"{name}, n = {len(rows):,}")
    axes.axvline(threshold, color=INK, linewidth=1)
    legend_above(axes)
    axes.set(xlabel=label, ylabel="share of the images", xlim=(edges[0], edges[-1]))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    return figure
