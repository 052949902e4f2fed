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
from lesions.reporting.gallery import PIXELS, nearest_images, pair_tiles, samples
from lesions.reporting.page import percent, render
from lesions.reporting.sections import data_section
from lesions.reporting.style import drawing, svg

PAIRS = 2 * STOP  # of near-duplicates that are shown


def write_data_report(dataset: str) -> Path:
    """Write report.html beside the prepared table; its path."""
    table, facts = load_table(dataset)
    folder, words = prepared(dataset), breakdown.words_of(facts["config"]["task"])
    table = table.assign(row=np.arange(len(table)))
    known = table[(table["split"] == "train") & table["target"].notna()].reset_index(drop=True)
    positive = (known["target"] == 1).to_numpy()
    kinds = np.where(positive, words.kind, "benign")
    known["label"] = known["diagnosis"].where(known["diagnosis"] != "", kinds)
    images, no_images = nearest_images(dataset, table, PIXELS)
    listing, pairs = folder / "near_duplicates.csv", []
    if images is not None and listing.exists():
        rows = table.set_index("image_name")["row"]
        listed = read_csv(listing, text=("decision",)).fillna({"decision": ""}).head(PAIRS)
        pairs = pair_tiles(listed, rows, images)
    drawn: dict[str, Figure] = {}
    with drawing():
        parts = data_section(drawn, known, positive, None, words, images, known["label"].to_numpy())
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
        ids = [rows[c][rows[c] != ""].nunique() for c in ("group", "patient_id", "lesion_id")]
        found[", ".join(map(str, name))] = [len(rows), int((rows["target"] == 1).sum()), *ids]
    return dict(sorted(found.items(), key=lambda part: -part[1][0]))


def audit_pages(audit: dict[str, Any]) -> tuple[str, str]:
    """The audit as text, whose last line says whether it passed, and as one HTML file."""
    word, figures = breakdown.words_of(audit["task"]).many, {}
    links = pd.DataFrame(audit["gate"]["links"]).set_axis(
        ["links", "number", "images", "in two folds", "images exposed", f"{word} exposed"], axis=1
    )
    folds = pd.DataFrame(audit["balance"]["folds"])
    folds["share"] = folds["positive_share"].map(lambda share: percent(share, 2))
    folds = folds[["fold", "rows", "groups", "positives", "share"]]
    folds = folds.rename(columns={"rows": "images", "positives": word})
    tables = {
        name: table.map(lambda value: value if isinstance(value, str) else f"{value:,}")
        for name, table in {"links": links, "folds": folds}.items()
    }
    tables["shortcuts"] = _shortcuts([*audit["shortcuts"], *audit["not_scored"]])
    texts = []
    for table in filter(len, tables.values()):  # the first column to the left
        first = table.columns[0]
        texts.append(table.set_index(first).rename_axis(index=None, columns=first).to_string())
    if audit["shortcuts"]:
        with drawing():
            forest = breakdown.plot_forest(breakdown.baseline_parts(audit["shortcuts"]))
            figures["shortcuts"] = Markup(svg(forest, "shortcuts"))
    shares = _shares(audit["balance"]["shares"])
    values = {"audit": audit, "word": word, "figures": figures, "shares": shares}
    text = render("audit.txt.j2", tables=texts, **values)
    return text, render("audit.html.j2", tables=tables, **values)


def _shortcuts(scores: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """AUCs without pixels: a line for each set of features, a column for each source."""
    rows: dict[str, dict[str, str]] = {}
    for score in scores:
        line = rows.setdefault(score["features"], {"metadata-only AUC": score["features"]})
        line[score["source"]] = format_interval({**score, "value": score.get("auc")})
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
