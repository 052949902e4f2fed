"""Documentation pages: docs/templates/<page>.md.j2 filled in with docs/results/*.json.

A template names its results by their file: `cache.sizes` is `sizes` of docs/results/cache.json.
`labels` are the names of the scores of several classes.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError, meta

from lesions.errors import InputError, listed
from lesions.evaluation.scores import LABELS
from lesions.files import read_json
from lesions.reporting.page import environment

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def render_pages(root: Path) -> dict[Path, str]:
    """Path -> content of every page below `root` whose results files are there.

    InputError for a page whose results are missing, or lack something that its template names.
    """
    results = {path.stem: read_json(path) for path in (root / "docs/results").glob("*.json")}
    pages = {}
    for name in environment().list_templates(filter_func=lambda name: name.endswith(".md.j2")):
        path = root / ("README.md" if name == "README.md.j2" else f"docs/{name[:-3]}")
        missing = sorted(_needed(name) - set(results))
        if missing and path.exists() and path.name != "README.md":
            raise InputError(
                f"{path}: its results are missing: docs/results/{missing[0]}.json;"
                " measure them again, or delete the page and its template"
            )
        if not missing:
            pages[path] = _render(name, results, path)
    return pages


def _needed(name: str) -> set[str]:
    """The results files that a template cannot do without, by name."""
    made = environment()
    assert made.loader is not None
    parsed = made.parse(made.loader.get_source(made, name)[0])
    optional = {"labels", "gpu"}  # gpu: measured where there is one
    return meta.find_undeclared_variables(parsed) - set(made.globals) - optional


def _render(name: str, results: dict[str, Any], path: Path) -> str:
    try:
        text = environment().get_template(name).render(results, labels=LABELS)
    except UndefinedError as error:
        raise InputError(
            f"docs/templates/{name}: {error}; its results are {listed(_needed(name))}"
            " of docs/results"
        ) from error
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    if path.name != "README.md":
        note = f"<!-- Written by scripts/docs.py from docs/templates/{name}: do not edit. -->"
        return f"{note}\n\n{text}"
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    if written.count(BEGIN) != 1 or written.count(END) != 1:
        raise InputError(f"{path}: needs one line {BEGIN} and, below it, one line {END}")
    before, _, rest = written.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}"
