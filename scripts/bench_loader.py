"""Time the loader and its parts against the field's usual way: CPU time, one thread, in turns.

    python scripts/bench_loader.py --images FOLDER FOLDER    # originals; without: drawn images

Writes the part "loader" of docs/results/performance.json, from which scripts/docs.py makes
docs/performance.md.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="folders of originals")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--repeats", type=int, default=9, help="turns (default 9)")
    parser.add_argument("--samples", type=int, default=128, help="of a turn (default 128)")
    parser.add_argument("--out", type=Path, default=CODE / "docs/results/performance.json")
    args = parser.parse_args(arguments)

    from lesions.blending.speed import simulate_pool, time_climb
    from lesions.data.loader_parts import measure_parts
    from lesions.data.loader_speed import find_photos, measure_loader, measure_originals
    from lesions.reporting.performance import save_part
    from lesions.timing import times_as_fast

    with TemporaryDirectory() as place:
        photos = find_photos(args.images, Path(place) / "drawn")
        found = {"photos": len(photos), "drawn": not args.images, "repeats": args.repeats}
        found["sizes"] = [
            measure_loader(photos, Path(place), size, args.repeats, args.samples)
            for size in args.size
        ]
        found |= measure_parts(photos, Path(place), args.size, args.repeats, args.samples)
        if args.images:
            usual = measure_originals(photos, args.size[0], args.repeats)
            ours = [found["sizes"][0]["seconds"]["array, fused"]] * len(usual)
            found["originals"] = times_as_fast(usual, ours)
    found["climb"] = time_climb(simulate_pool())
    save_part(args.out, "loader", found)
    return 0


if __name__ == "__main__":
    run(main)
