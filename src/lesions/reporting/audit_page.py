"""An audit (evaluation/audit.py) to read: a few aligned lines, and one HTML page."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from lesions.reporting.page import KeyFigure, Section, build_page, card, table
from lesions.reporting.style import BASELINE, INK, MUTED, bare, build_figure, drawing, svg

TITLES = {"table": "these folds", "legacy": "legacy folds"}  # legacy: Deotte's
POSITIVES = {"melanoma": "melanomas", "malignant": "malignant"}
SHORTCUTS = (
    "Out-of-fold AUC of gradient-boosted trees that see no photograph, on the table's own folds, "
    "with 95 % intervals over groups. A source's model is trained on that source alone. What a "
    "model with pixels scores above these rows it has seen in the pixels; the rest it may owe to "
    "who was photographed and how."
)
GATE = (
    "A link joins images that must stay together. One that lies in two folds, or in a fold and "
    "the test rows, lets a model be scored on what it was trained on."
)
BALANCE = "Share of each fold's images. Folds that differ in these score differently for no merit."


def audit_text(audit: dict[str, Any]) -> str:
    """The audit for the terminal; its last line says whether it passed."""
    gate, largest = audit["gate"], audit["balance"]["largest"]
    lines = [headline(audit), "", *columns(*_links(audit)), ""]
    if any(row["lesions"] for row in gate["schemes"]["table"]["siblings"]):
        lines += [*columns(*_siblings(audit)), ""]
    shared = [f"{row['shared']:,} {row['kind']}" for row in audit["overlap"] if row["shared"]]
    lines += [f"train and test share: {', '.join(shared) or 'nothing'}", ""]
    lines += columns(*_folds(audit))
    points = ", ".join(f"{name} {value:.1f}" for name, value in largest["points"].items())
    lines += [
        f"largest distance from the mean fold: images {largest['rows']:.2%},"
        f" share of {_word(audit)} {largest['positive_share']:.2%}",
        f"largest distance of a share from the whole's, in points: {points}",
        "",
        *columns(*_shortcuts(audit)),
        "",
        verdict(audit),
    ]
    return "\n".join(lines)


def verdict(audit: dict[str, Any]) -> str:
    """ "audit passed", or "audit FAILED: " and why."""
    problems = audit["gate"]["problems"]
    return f"audit FAILED: {'; '.join(problems)}" if problems else "audit passed"


def headline(audit: dict[str, Any]) -> str:
    """What was audited, in a line."""
    folds = audit["balance"]["folds"]
    rows, positives = (sum(fold[key] for fold in folds) for key in ("rows", "positives"))
    return (
        f"{audit['dataset']}: {rows:,} images in {len(folds)} folds, {positives:,} {_word(audit)};"
        f" table {audit['table_hash']}, folds {audit['fold_hash']}"
    )


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a plain table: the first column left, the others right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for first, *others in cells:
        right = (value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *right]).rstrip()


def audit_page(audit: dict[str, Any]) -> str:
    """The audit as one HTML file that needs nothing beside it."""
    passed, schemes = audit["gate"]["passed"], audit["gate"]["schemes"]
    largest = audit["balance"]["largest"]
    best = max(_of_source(audit, "all"), key=lambda score: score["auc"], default=None)
    figures = [
        KeyFigure("The gate", "passed" if passed else "FAILED", "links inside folds"),
        KeyFigure("Links that straddle", _straddling(schemes["table"]), "of every kind"),
        KeyFigure("Fold sizes", _spread(largest["rows"]), "largest distance from the mean"),
        KeyFigure(f"Share of {_word(audit)}", f"± {largest['positive_share']:.2%}", "relative"),
    ]
    if best:
        figures.append(KeyFigure("AUC without pixels", f"{best['auc']:.3f}", best["features"]))
    sections = [
        Section("gate", "The gate", GATE, _gate_cards(audit)),
        Section("shortcuts", "Without pixels", SHORTCUTS, _shortcut_cards(audit)),
        Section("balance", "Balance", BALANCE, _balance_cards(audit)),
    ]
    words = "\n".join(f"<p>{escape(text)}</p>" for text in [verdict(audit)])
    versions = ", ".join(f"{name} {number}" for name, number in audit["versions"].items())
    return build_page(
        f"Audit of {audit['dataset']}",
        headline(audit),
        figures,
        f'<div class="lead"><div>{words}</div></div>',
        sections,
        f"<p>{escape(versions)}</p>",
    )


def _gate_cards(audit: dict[str, Any]) -> list[str]:
    shared = [
        [row["kind"], *(f"{row[key]:,}" for key in ("shared", "train_images", "test_images"))]
        for row in audit["overlap"]
    ]
    return [
        card("Links that lie in two folds", table(*_links(audit)), width="wide"),
        card(
            "Scored beside their own lesion",
            table(*_siblings(audit)),
            "Images whose model was trained on another photograph of the same lesion.",
            "wide",
        ),
        card(
            "Shared by training and test rows",
            table(["kind", "shared", "training images", "test images"], shared),
        ),
    ]


def _shortcut_cards(audit: dict[str, Any]) -> list[str]:
    cards = []
    if audit["shortcuts"]:
        alt = "AUC of the models without pixels with their intervals, as in the table beside"
        with drawing():
            picture = svg(plot_shortcuts(audit["shortcuts"]), "shortcuts", alt)
        cards.append(card("AUC without pixels", picture, "0.5 is chance. Lines: 95 % intervals."))
    return [*cards, card("The same as numbers", table(*_shortcuts(audit)), width="double")]


def _balance_cards(audit: dict[str, Any]) -> list[str]:
    shares = audit["balance"]["shares"]
    parts = [key for key in shares[0] if key not in ("feature", "value")]
    cards = [card("Size", table(*_folds(audit)), width="wide")]
    for feature in dict.fromkeys(row["feature"] for row in shares):
        rows = [
            [row["value"], *("" if row[part] is None else f"{row[part]:.1%}" for part in parts)]
            for row in shares
            if row["feature"] == feature
        ]
        header = [feature, *(part if part in ("all", "test") else f"fold {part}" for part in parts)]
        cards.append(card(feature.capitalize(), table(header, rows), width="wide"))
    return cards


def plot_shortcuts(shortcuts: Sequence[dict[str, Any]]) -> Figure:
    """A dot with its interval for each score, in the order given from the top."""
    figure, ((axes,),) = build_figure(0.6 + 0.24 * len(shortcuts))
    for y, score in enumerate(shortcuts):
        if score["low"] is not None:
            axes.plot([score["low"], score["high"]], [y, y], color=BASELINE)
        axes.plot(score["auc"], y, "o", color=BASELINE, markersize=4)
    axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)))
    labels = [
        score["features"] + ("" if score["source"] == "all" else f", {score['source']}")
        for score in shortcuts
    ]
    axes.set_yticks(range(len(shortcuts)), labels, color=INK)
    axes.set(ylim=(len(shortcuts) - 0.5, -0.5), xlim=(0.4, 1), xlabel="out-of-fold AUC")
    bare(axes)
    return figure


def _links(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    schemes = audit["gate"]["schemes"]
    header = ["links", "number", "images"]
    header += [f"torn by {TITLES[name]}" for name in schemes]
    rows = [
        [row["kind"], f"{row['links']:,}", f"{row['images']:,}"]
        for row in schemes["table"]["links"]
    ]
    for scheme in schemes.values():
        for row, counted in zip(rows, scheme["links"], strict=True):
            row.append(f"{counted['straddling']:,}" if counted["links"] else "-")
    return header, rows


def _straddling(scheme: dict[str, Any]) -> str:
    return f"{sum(row['straddling'] for row in scheme['links']):,}"


def _siblings(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["scored beside their own lesion", "images", _word(audit), "lesions"]
    rows = []
    for name, scheme in audit["gate"]["schemes"].items():
        for row in scheme["siblings"]:
            pairs = [("images_exposed", "images"), ("positives_exposed", "positives")]
            shares = [_share(row[part], row[whole]) for part, whole in pairs]
            lesions = f"{row['lesions_straddling']:,} of {row['lesions']:,}"
            rows.append([f"{TITLES[name]}, {row['source']}", *shares, lesions])
    return header, rows


def _folds(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            str(fold["fold"]),
            f"{fold['rows']:,}",
            f"{fold['groups']:,}",
            f"{fold['positives']:,}",
            f"{fold['positive_share']:.2%}",
        ]
        for fold in audit["balance"]["folds"]
    ]
    return ["fold", "images", "groups", _word(audit), "share"], rows


def _shortcuts(audit: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    scores = [*audit["shortcuts"], *audit["not_scored"]]
    cells = {(score["features"], score["source"]): _auc(score) for score in scores}
    sources = list(dict.fromkeys(score["source"] for score in scores))
    rows = [
        [features, *(cells.get((features, source), "") for source in sources)]
        for features in dict.fromkeys(score["features"] for score in scores)
    ]
    return ["AUC without pixels", *sources], rows


def _word(audit: dict[str, Any]) -> str:
    return POSITIVES[audit["task"]]


def _of_source(audit: dict[str, Any], source: str) -> list[dict[str, Any]]:
    return [score for score in audit["shortcuts"] if score["source"] == source]


def _auc(score: dict[str, Any]) -> str:
    """ "0.674 [0.645, 0.702]", or "n/a (why)"."""
    if "auc" not in score:
        return f"n/a ({score['reason']})"
    if score["low"] is None:
        return f"{score['auc']:.3f}"
    return f"{score['auc']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _spread(distance: float) -> str:
    return f"± {distance:.2%}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})" if whole else "-"
