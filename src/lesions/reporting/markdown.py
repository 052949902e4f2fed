"""Numbers and tables as the documentation's Markdown shows them."""

from collections.abc import Mapping, Sequence
from typing import Any


def interval(score: Mapping[str, Any] | None) -> str:
    """The AUC as "0.912 (0.899–0.924)"; n/a where it is undefined, empty if not measured."""
    if not score:
        return ""
    if score.get("auc") is None:
        return "n/a"
    text = f"{score['auc']:.3f}"
    if score.get("low") is None:
        return text
    return f"{text} ({score['low']:.3f}–{score['high']:.3f})"


def joined(names: Sequence[str]) -> str:
    """The names as "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is set to the right."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    align = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(header), align, *escaped])
