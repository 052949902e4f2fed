"""docs/audit.md: the full competition table through the gate, beside the public folds."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import interval, table

COMMANDS = (
    "python scripts/prepare.py --dataset isic --tables-only\n"
    "python scripts/audit.py --dataset isic --legacy DEOTTE_CSVS --json docs/results/audit.json"
)
LEAK = (
    "A photograph is exposed when another of the same lesion is in the part that its fold's model "
    "trains on. `grouped` are the folds made here; `legacy` are the TFRecord folds that most "
    "public solutions of 2020 share."
)
SHORTCUTS = (
    "A gradient-boosted model on columns of the table alone, scored out-of-fold on the same folds, "
    "95 % intervals over groups. What it reaches was not learned from skin: a model of photographs "
    "has to be read beside it."
)


def gate_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/audit.py measured."""
    schemes = results["gate"]["schemes"]
    names = {"table": "grouped"}
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/audit.json: do not edit. -->",
        "# The audit of ISIC 2019 + 2020",
        f"Folds `{results['fold_hash']}` of table `{results['table_hash']}`.",
        f"```\n{COMMANDS}\n```",
        "## Who is scored beside their own lesion",
        LEAK,
        table(
            ["folds", "source", "images exposed", "melanomas exposed", "lesions torn apart"],
            [
                [f"`{names.get(name, name)}`", part["source"], *_exposed(part)]
                for name, scheme in schemes.items()
                for part in scheme["siblings"]
            ],
        ),
        "## Balance of the folds",
        _balance(results["balance"]),
        "## What a model without pixels scores",
        SHORTCUTS,
        _shortcuts(results["shortcuts"]),
    ]
    return "\n\n".join(parts) + "\n"


def _exposed(part: Mapping[str, Any]) -> list[str]:
    pairs = (
        ("images_exposed", "images"),
        ("positives_exposed", "positives"),
        ("lesions_straddling", "lesions"),
    )
    return [_share(part[some], part[every]) for some, every in pairs]


def _share(some: int, every: int) -> str:
    return f"{some:,} of {every:,} ({some / every:.1%})" if every else "none"


def _balance(balance: Mapping[str, Any]) -> str:
    rows = [
        [
            str(fold["fold"]),
            f"{fold['rows']:,}",
            f"{fold['groups']:,}",
            f"{fold['positives']:,}",
            f"{fold['positive_share']:.3%}",
        ]
        for fold in balance["folds"]
    ]
    largest = balance["largest"]
    return (
        table(["fold", "images", "groups", "melanomas", "share"], rows)
        + f"\n\nLargest relative distance from the mean fold: {largest['rows']:.2%} of the images, "
        f"{largest['positive_share']:.2%} of the share of melanomas."
    )


def _shortcuts(shortcuts: list[Mapping[str, Any]]) -> str:
    sources = list(dict.fromkeys(score["source"] for score in shortcuts))
    features = dict.fromkeys(score["features"] for score in shortcuts)
    cells = {(score["features"], score["source"]): interval(score) for score in shortcuts}
    rows = [[name, *(cells.get((name, source), "") for source in sources)] for name in features]
    return table(["columns", *sources], rows)
