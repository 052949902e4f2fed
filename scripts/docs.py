"""Write the documentation pages of measured results, from docs/templates and docs/results.

python scripts/docs.py              write every such page of docs/ and the table in README.md
python scripts/docs.py --check      write nothing; exit 1 if a page differs from its results
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--root", type=Path, default=CODE, help="the checkout that holds docs/")
    args = parser.parse_args(arguments)

    from lesions.files import write_text
    from lesions.reporting.docs import render_pages

    pages = render_pages(args.root)
    if not pages:
        print("no results yet: docs/results has none of the files that pages are made from")
    read = {path: path.read_text("utf-8") if path.exists() else None for path in pages}
    stale = [path for path, text in pages.items() if read[path] != text]
    for path in stale:
        if not args.check:
            write_text(path, pages[path])
        print(f"{shown(path)}: {'differs from its results' if args.check else 'written'}")
    if args.check and stale:
        print("write them with: python scripts/docs.py")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    run(main)
