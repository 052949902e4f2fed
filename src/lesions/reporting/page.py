"""Pages from templates: the Jinja2 environment of reports (HTML) and of docs pages (Markdown)."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesions.evaluation.intervals import format_interval
from lesions.evaluation.scores import CLASS_LABELS, LABELS
from lesions.paths import CODE
from lesions.reporting.style import PALETTE


def render(template: str, **values: Any) -> str:
    """The text of a template in reporting/templates or docs/templates, filled in with `values`.

    Values are escaped in <name>.html.j2 and stand as they are in every other file. A value that
    the template names and nobody gives is an error.
    """
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """The environment of all pages; the filter "count" writes 12345 as "12,345"."""
    made = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", CODE / "docs/templates"]),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"palette": PALETTE, "labels": LABELS, "class_labels": CLASS_LABELS}
    made.filters |= {"interval": format_interval, "percent": percent, "count": "{:,.0f}".format}
    return made


def percent(share: float | None, digits: int = 1) -> str:
    """The filter "percent": 0.123 as "12.3 %", "n/a" where there is no share."""
    return "n/a" if share is None or share != share else f"{100 * share:.{digits}f} %"
