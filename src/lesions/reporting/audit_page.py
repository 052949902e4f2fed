"""An audit (evaluation/audit.py) to read: tables for the terminal, and one HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from lesions.evaluation.intervals import format_interval
from lesions.reporting.breakdown import baseline_parts, plot_forest
from lesions.reporting.page import percent, render
from lesions.reporting.style import drawing, svg

SCHEMES = {"table": "these folds", "legacy": "legacy folds"}  # legacy: Deotte's
POSITIVES = {"melanoma": "melanomas", "malignant": "malignant"}


def audit_text(audit: dict[str, Any]) -> str:
    """The audit for the terminal; its last line says whether it passed."""
    largest, word = audit["balance"]["largest"], POSITIVES[audit["task"]]
    shared = [f"{row['shared']:,} {row['kind']}" for row in audit["overlap"] if row["shared"]]
    points = ", ".join(f"{name} {value:.1f}" for name, value in largest["points"].items())
    return "\n\n".join(
        [
            _headline(audit),
            *(_aligned(table) for table in _tables(audit).values() if len(table)),
            f"train and test share: {', '.join(shared) or 'nothing'}",
            f"largest distance from the mean fold: images {largest['rows']:.2%},"
            f" share of {word} {largest['positive_share']:.2%}\n"
            f"largest distance of a share from that of all images, in points: {points}",
            verdict(audit),
        ]
    )


def _aligned(table: pd.DataFrame) -> str:
    """The table as text, its first column to the left."""
    first = table.columns[0]
    return table.set_index(first).rename_axis(index=None, columns=first).to_string()


def verdict(audit: dict[str, Any]) -> str:
    """ "audit passed", or "audit FAILED: " and why."""
    problems = audit["gate"]["problems"]
    return f"audit FAILED: {'; '.join(problems)}" if problems else "audit passed"


def audit_page(audit: dict[str, Any]) -> str:
    """The audit as one HTML file that needs nothing beside it."""
    links = audit["gate"]["schemes"]["table"]["links"]
    overall = [score for score in audit["shortcuts"] if score["source"] == "all"]
    figures = {}
    if audit["shortcuts"]:
        with drawing():
            forest = plot_forest(baseline_parts(audit["shortcuts"]))
            figures["shortcuts"] = Markup(svg(forest, "shortcuts"))
    return render(
        "audit.html.j2",
        audit=audit,
        headline=_headline(audit),
        verdict=verdict(audit),
        word=POSITIVES[audit["task"]],
        straddling=sum(row["straddling"] for row in links),
        best=max(overall, key=lambda score: score["auc"], default=None),
        tables=_tables(audit),
        shares=_shares(audit["balance"]["shares"]),
        figures=figures,
    )


def _headline(audit: dict[str, Any]) -> str:
    folds = audit["balance"]["folds"]
    rows, positives = (sum(fold[key] for fold in folds) for key in ("rows", "positives"))
    return (
        f"{audit['dataset']}: {rows:,} images in {len(folds)} folds, {positives:,}"
        f" {POSITIVES[audit['task']]}; table {audit['table_hash']}, folds {audit['fold_hash']}"
    )


def _tables(audit: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Links, siblings, folds and shortcuts, as text."""
    return {
        "links": _links(audit["gate"]["schemes"]),
        "siblings": _siblings(audit["gate"]["schemes"], POSITIVES[audit["task"]]),
        "folds": _folds(audit["balance"]["folds"], POSITIVES[audit["task"]]),
        "shortcuts": _shortcuts([*audit["shortcuts"], *audit["not_scored"]]),
    }


def _links(schemes: Mapping[str, Any]) -> pd.DataFrame:
    found = pd.DataFrame(
        [
            {"links": row["kind"], "number": f"{row['links']:,}", "images": f"{row['images']:,}"}
            for row in schemes["table"]["links"]
        ]
    )
    for name, scheme in schemes.items():
        found[f"split by {SCHEMES[name]}"] = [
            f"{row['straddling']:,}" if row["links"] else "-" for row in scheme["links"]
        ]
    return found


def _siblings(schemes: Mapping[str, Any], word: str) -> pd.DataFrame:
    """Images whose model was trained on another photograph of the same lesion."""
    if not any(row["lesions"] for row in schemes["table"]["siblings"]):
        return pd.DataFrame()
    return pd.DataFrame(
        [
            {
                "same lesion in training": f"{SCHEMES[name]}, {row['source']}",
                "images": _share(row["images_exposed"], row["images"]),
                word: _share(row["positives_exposed"], row["positives"]),
                "lesions": f"{row['lesions_straddling']:,} of {row['lesions']:,}",
            }
            for name, scheme in schemes.items()
            for row in scheme["siblings"]
        ]
    )


def _folds(folds: Sequence[Mapping[str, Any]], word: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "fold": str(fold["fold"]),
                "images": f"{fold['rows']:,}",
                "groups": f"{fold['groups']:,}",
                word: f"{fold['positives']:,}",
                "share": percent(fold["positive_share"], 2),
            }
            for fold in folds
        ]
    )


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


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({percent(part / whole)})" if whole else "-"
