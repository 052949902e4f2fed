"""Documentation pages made from results files, so that no measured number is typed by hand.

A page is a function from the content of `docs/results/<name>.json` to Markdown. To add one, write
the function and name it in PAGES; scripts/docs.py and its test do the rest.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lesions import files
from lesions.errors import InputError
from lesions.reporting.blending_page import blending_page
from lesions.reporting.explanations_page import explanations_page, export_page
from lesions.reporting.gate_page import gate_page
from lesions.reporting.ham10000_page import ablation_page, ham10000_page
from lesions.reporting.kaggle_page import kaggle_page
from lesions.reporting.measured_pages import (
    cache_page,
    near_duplicates_page,
    step_page,
    survival_page,
)
from lesions.reporting.performance import performance_page
from lesions.reporting.results_page import readme_block, results_page
from lesions.reporting.serving_page import serving_page
from lesions.reporting.study_doc import study_page

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


class Page(NamedTuple):
    """Where a page goes, which results it shows, and how; a `block` is a part of a written file."""

    path: str
    results: str
    write: Callable[[Mapping[str, Any]], str]
    block: bool = False


PAGES = (
    Page("docs/results.md", "real", results_page),
    Page("docs/siim2020.md", "siim2020", blending_page),
    Page("docs/audit.md", "audit", gate_page),
    Page("docs/near_duplicates.md", "near_duplicates", near_duplicates_page),
    Page("docs/cache.md", "cache", cache_page),
    Page("docs/survival.md", "survival", survival_page),
    Page("docs/step.md", "step", step_page),
    Page("docs/ham10000.md", "ham10000", ham10000_page),
    Page("docs/ham10000_ablation.md", "ham10000_ablation", ablation_page),
    Page("docs/performance.md", "performance", performance_page),
    Page("docs/kaggle.md", "kaggle_hours", kaggle_page),
    Page("docs/serving.md", "serving", serving_page),
    Page("docs/explanations.md", "explanations", explanations_page),
    Page("docs/export.md", "export", export_page),
    Page("docs/dermamnist.md", "dermamnist", study_page),
    Page("README.md", "real", readme_block, block=True),
)


def render(root: Path) -> dict[Path, str]:
    """Path -> whole content of every page below `root` whose results file is there."""
    pages = {}
    for page in PAGES:
        source = root / "docs" / "results" / f"{page.results}.json"
        path = root / page.path
        if not source.exists():
            if path.exists() and not page.block:
                raise InputError(f"{path.name} is written from {source}, which is not there")
            continue
        try:
            text = page.write(files.read_json(source))
        except KeyError as error:
            raise InputError(f"{source}: {page.path} needs the key {error}") from error
        pages[path] = _with_block(path, text) if page.block else text
    return pages


def _with_block(path: Path, text: str) -> str:
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    if written.count(BEGIN) != 1 or written.count(END) != 1:
        raise InputError(f"{path}: needs one line {BEGIN} and, below it, one line {END}")
    before, _, rest = written.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"
