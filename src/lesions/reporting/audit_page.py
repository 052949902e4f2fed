"""An audit (evaluation/audit.py) to read: tables for the terminal, and one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from lesions.evaluation.intervals import format_interval
from lesions.reporting.breakdown import baseline_parts, plot_forest, words_of
from lesions.reporting.page import percent, render
from lesions.reporting.style import drawing, svg


def audit_text(audit: dict[str, Any]) -> str:
    """The audit for the terminal; its last line says whether it passed."""
    texts = []
    for table in _tables(audit).values():
        if len(table):  # the first column to the left
            first = table.columns[0]
            texts.append(table.set_index(first).rename_axis(index=None, columns=first).to_string())
    return render("audit.txt.j2", audit=audit, word=words_of(audit["task"]).many, tables=texts)


def audit_page(audit: dict[str, Any]) -> str:
    """The audit as one HTML file that needs nothing beside it."""
    figures = {}
    if audit["shortcuts"]:
        with drawing():
            forest = plot_forest(baseline_parts(audit["shortcuts"]))
            figures["shortcuts"] = Markup(svg(forest, "shortcuts"))
    return render(
        "audit.html.j2", audit=audit, word=words_of(audit["task"]).many, tables=_tables(audit),
        shares=_shares(audit["balance"]["shares"]), figures=figures,
    )  # fmt: skip


def _tables(audit: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Links, folds and shortcuts, as text."""
    word = words_of(audit["task"]).many
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
