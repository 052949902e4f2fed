"""Write the documentation pages of measured results, from docs/templates and docs/results.

python scripts/docs.py              write every such page of docs/, README.md and CITATION.cff
python scripts/docs.py --check      write nothing; exit 1 if a page differs from its results

A template names its results by their file: `cache.sizes` is `sizes` of docs/results/cache.json.
`project` is that table of pyproject.toml, which holds the one public address.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions import __version__
from lesions.cli import build_parser, run
from lesions.paths import CODE, shown

OPTIONAL = {"gpu"}  # results that not every machine can measure
AT_THE_TOP = ("README.md", "CITATION.cff")


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--root", type=Path, default=CODE, help="the checkout that holds docs/")
    args = parser.parse_args(arguments)

    from lesions.files import write_text

    pages = render_pages(args.root)
    written = {path: path.read_text(encoding="utf-8") for path in pages if path.exists()}
    if not pages:
        print("no results yet: docs/results has none of the files that pages are made from")
    stale = {path: text for path, text in pages.items() if text != written.get(path)}
    for path, text in stale.items():
        if not args.check:
            write_text(path, text)
        print(f"{shown(path)}: {'differs from its results' if args.check else 'written'}")
    if args.check and stale:
        print("write them with: python scripts/docs.py")
    return int(args.check and bool(stale))


def render_pages(root: Path) -> dict[Path, str]:
    """Path -> content of every page below `root` whose results files are there.

    InputError for a page whose results are missing, or lack something that its template names.
    """
    from jinja2 import UndefinedError, meta

    from lesions.errors import InputError, listed
    from lesions.files import read_json
    from lesions.reporting.page import environment, render

    found = {path.stem: read_json(path) for path in (root / "docs/results").glob("*.json")}
    project = tomllib.loads((CODE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    code = [*CODE.glob("src/**/*.py"), *CODE.glob("scripts/*.py")]
    lines = round(sum(path.read_text(encoding="utf-8").count("\n") for path in code), -3)
    values: dict[str, Any] = {"project": project, "version": __version__, "lines": lines, **found}
    pages = {}
    for path in sorted((CODE / "docs/templates").glob("[!_]*.j2")):
        parsed = environment().parse(path.read_text(encoding="utf-8"))
        needed = meta.find_undeclared_variables(parsed) - {*environment().globals} - OPTIONAL
        page = root / ("" if path.stem in AT_THE_TOP else "docs") / path.stem
        missing = sorted(needed - {*values})
        if missing and page.exists() and page.parent != root:
            raise InputError(
                f"{page}: its results are missing: docs/results/{missing[0]}.json;"
                " measure them again, or delete the page and its template"
            )
        if missing:
            continue
        try:
            text = render(path.name, **values)
        except UndefinedError as error:
            raise InputError(
                f"docs/templates/{path.name}: {error}; its results are {listed(needed)} of"
                " docs/results"
            ) from error
        text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip() + "\n"
        mark = "# {}" if page.stem == "CITATION" else "<!-- {} -->\n"
        note = f"Written by scripts/docs.py from docs/templates/{path.name}: do not edit."
        pages[page] = f"{mark.format(note)}\n{text}"
    return pages


if __name__ == "__main__":
    run(main)
