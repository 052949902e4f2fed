"""Pages on a prepared data set: what it holds, before anything is trained, and its audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lesions.data.near_duplicates import STOP
from lesions.data.table import load_table, prepared
from lesions.evaluation.intervals import format_interval
from lesions.files import read_csv, write_text
from lesions.reporting import breakdown
from lesions.reporting.figures import plot_correlation
from lesions.reporting.gallery import PIXELS, nearest_images, pair_tiles, samples
from lesions.reporting.page import percent, render
from lesions.reporting.style import drawing, svg

PAIRS = 2 * STOP  # of near-duplicates that are shown


def write_data_report(dataset: str) -> Path:
    """Write report.html beside the prepared table; its path."""
    table, facts = load_table(dataset)
    folder, words = prepared(dataset), breakdown.words_of(facts["config"]["task"])
    table = table.assign(row=np.arange(len(table)))
    known = table[(table["split"] == "train") & table["target"].notna()].reset_index(drop=True)
    positive, groups = (known["target"] == 1).to_numpy(), known["group"].to_numpy()
    named = known["diagnosis"] != ""
    known["label"] = known["diagnosis"].where(named, np.where(positive, words.kind, "benign"))
    images, no_images = nearest_images(dataset, table, PIXELS)
    listing, pairs = folder / "near_duplicates.csv", []
    if images is not None and listing.exists():
        rows = table.set_index("image_name")["row"]
        listed = read_csv(listing, text=("decision",)).fillna({"decision": ""}).head(PAIRS)
        pairs = pair_tiles(listed, rows, images)
    with drawing():
        drawn: dict[str, Figure] = {
            "diagnoses": breakdown.plot_diagnoses(known["diagnosis"], positive)
        }
        parts = breakdown.draw_parts(drawn, "data", breakdown.factors(known),
                                     breakdown.plot_factor, positive, groups, words)  # fmt: skip
        columns = breakdown.numbers(known, positive, None, words)
        if columns.shape[1] > 1:
            drawn["correlation"] = plot_correlation(columns)
        if images is not None:
            drawn["image_properties"] = breakdown.plot_properties(
                images, known["row"].to_numpy(), known["label"].to_numpy()
            )
        figures = {name: Markup(svg(figure, name)) for name, figure in drawn.items()}
    text = render(
        "data.html.j2", facts=facts, words=words, figures=figures, data_parts=parts,
        classes=_counts(known, ["label"]), sources=_counts(table, ["source", "split"]),
        galleries=[] if images is None else samples(known, images), no_images=no_images,
        pairs=pairs, stop=STOP,
    )  # fmt: skip
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _counts(table: pd.DataFrame, by: list[str]) -> dict[str, list[int]]:
    """Images, positives, groups, patients and lesions of each part, largest first."""
    found = {}
    for name, rows in table.groupby(by):
        ids = [rows[column][rows[column] != ""].nunique() for column in ("patient_id", "lesion_id")]
        positives = int((rows["target"] == 1).sum())
        found[", ".join(map(str, name))] = [len(rows), positives, rows["group"].nunique(), *ids]
    return dict(sorted(found.items(), key=lambda part: -part[1][0]))


def audit_text(audit: dict[str, Any]) -> str:
    """The audit for the terminal; its last line says whether it passed."""
    texts = []
    for table in _tables(audit).values():
        if len(table):  # the first column to the left
            first = table.columns[0]
            texts.append(table.set_index(first).rename_axis(index=None, columns=first).to_string())
    return render(
        "audit.txt.j2", audit=audit, word=breakdown.words_of(audit["task"]).many, tables=texts
    )


def audit_page(audit: dict[str, Any]) -> str:
    """The audit as one HTML file that needs nothing beside it."""
    figures, word = {}, breakdown.words_of(audit["task"]).many
    if audit["shortcuts"]:
        with drawing():
            forest = breakdown.plot_forest(breakdown.baseline_parts(audit["shortcuts"]))
            figures["shortcuts"] = Markup(svg(forest, "shortcuts"))
    return render(
        "audit.html.j2", audit=audit, word=word, tables=_tables(audit),
        shares=_shares(audit["balance"]["shares"]), figures=figures,
    )  # fmt: skip


def _tables(audit: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Links, folds and shortcuts, as text."""
    word = breakdown.words_of(audit["task"]).many
    links = pd.DataFrame(audit["gate"]["links"]).set_axis(
        ["links", "number", "images", "in two folds", "images exposed", f"{word} exposed"], axis=1
    )
    folds = pd.DataFrame(audit["balance"]["folds"])
    folds["share"] = folds["positive_share"].map(lambda share: percent(share, 2))
    folds = folds[["fold", "rows", "groups", "positives", "share"]]
    return {
        "links": _grouped(links),
        "folds": _grouped(folds).rename(columns={"rows": "images", "positives": word}),
        "shortcuts": _shortcuts([*audit["shortcuts"], *audit["not_scored"]]),
    }


def _grouped(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, its counts as "12,345"."""
    return table.map(lambda value: value if isinstance(value, str) else f"{value:,}")


def _shortcuts(scores: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """AUCs without pixels: a line for each set of features, a column for each source."""
    rows: dict[str, dict[str, str]] = {}
    for score in scores:
        line = rows.setdefault(score["features"], {"metadata-only AUC": score["features"]})
        line[score["source"]] = format_interval(
            score.get("auc"), score.get("low"), score.get("high"), reason=score.get("reason")
        )
    return pd.DataFrame(rows.values()).fillna("")


def _shares(shares: Sequence[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Of each feature the share of its values in all images, in each fold and in the test rows."""
    table = pd.DataFrame(shares)
    parts = [str(name) for name in table if name not in ("feature", "value")]
    names = {name: name if name in ("all", "test") else f"fold {name}" for name in parts}
    table[parts] = table[parts].map(lambda share: "" if pd.isna(share) else percent(share))
    return {
        str(feature): rows.drop(columns="feature").rename(columns=names | {"value": str(feature)})
        for feature, rows in table.groupby("feature", sort=False)
    }
