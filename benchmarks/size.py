"""Lines and statements of Python by package, beside the budget: make size.

    python benchmarks/size.py

Exit code 1 where a budget is exceeded, or where lines are packed.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]
# With all that followed the house; rebuilt alone it was to have 12,500, 3,000 and 8,000.
BUDGETS = {"src + scripts": 14_000, "benchmarks + studies": 4_500, "tests": 10_500}
# Statements a line: lines a statement may fall by 5 % below those of the code before it was rebuilt
# (counted without its page writers, whose lines were prose that stands in templates now).
PACKED = 10_540 / 16_803 / 0.95


def count(paths: Iterable[Path]) -> tuple[int, int, int]:
    """Files, lines and statements of Python files."""
    texts = [path.read_text(encoding="utf-8") for path in paths]
    statements = (sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(t))) for t in texts)
    return len(texts), sum(text.count("\n") for text in texts), sum(statements)


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],
        cwd=CODE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    parts: dict[str, list[Path]] = {}
    totals: dict[str, list[Path]] = {name: [] for name in BUDGETS}
    for path in (CODE / name for name in listed.stdout.splitlines() if (CODE / name).is_file()):
        inside = path.relative_to(CODE).parts
        package = "/".join(inside[1:3]) if len(inside) > 3 else "lesions (modules)"
        parts.setdefault(package if inside[0] == "src" else inside[0], []).append(path)
        for total, collected in totals.items():
            if inside[0] in total.split(" + "):
                collected.append(path)
    print(f"{'':24} {'files':>6} {'lines':>7} {'statements':>11}")
    for name, paths in sorted(parts.items()):
        number, lines, statements = count(paths)
        print(f"{name:24} {number:6} {lines:7,} {statements:11,}")
    exceeded = []
    print()
    for name, paths in totals.items():
        number, lines, statements = count(paths)
        packed = statements / max(lines, 1)
        print(f"{name:24} {number:6} {lines:7,} {statements:11,}   of {BUDGETS[name]:,} lines;"
              f" {packed:.3f} statements a line")  # fmt: skip
        if lines > BUDGETS[name] or (name == "src + scripts" and packed > PACKED):
            exceeded.append(name)
    if exceeded:
        print(f"over the budget: {', '.join(exceeded)}")
    return int(bool(exceeded))


if __name__ == "__main__":
    sys.exit(main())
