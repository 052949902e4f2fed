"""How the loader, the blend and the table scripts grow: 1k to 60k images, 0 to 2 workers.

    python scripts/bench_growth.py --tables input    # its isic2019/ and isic2020/ as well

Writes the part "growth" of docs/results/performance.json.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 60_000])
    parser.add_argument("--size", type=int, default=64, help="pixels (default 64)")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 58_457, 400_000])
    parser.add_argument("--members", type=int, nargs="+", default=[4, 15, 60])
    parser.add_argument("--tables", type=Path, help="a folder with isic2019/ and isic2020/")
    parser.add_argument("--out", type=Path, default=CODE / "docs/results/performance.json")
    args = parser.parse_args(arguments)

    from lesions.blending.speed import measure_blend_growth
    from lesions.data.loader_growth import measure_growth
    from lesions.reporting.performance import save_part

    with TemporaryDirectory() as place:
        found = {"size": args.size}
        found["loader"] = measure_growth(Path(place), args.images, [0, 1, 2], args.size)
        found["blend"] = measure_blend_growth(args.rows, args.members)
        found["tables"] = whole_tables(args.tables.resolve(), Path(place)) if args.tables else []
    save_part(args.out, "growth", found)
    return 0


def whole_tables(tables: Path, root: Path) -> list[dict]:
    """CPU seconds of preparing and auditing the 58,457 rows, start included."""
    places = [f"--input={name}={tables / name}" for name in ("isic2019", "isic2020")]
    commands = {
        "prepare.py --dataset isic --tables-only": ["prepare.py", "--tables-only", *places],
        "audit.py --dataset isic": ["audit.py"],
    }
    rows = []
    for name, (script, *options) in commands.items():
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [sys.executable, str(CODE / "scripts" / script), "--dataset", "isic", *options]
        environment = os.environ | {"LESIONS_ROOT": str(root)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        rows.append({"command": name, "seconds": round(after - before, 1)})
    return rows


if __name__ == "__main__":
    run(main)
