"""How well near-duplicate photographs are found, measured on HAM10000 with planted copies.

    python scripts/near_duplicates.py --input input/ham10000 --images input/ham10000/images
    python scripts/near_duplicates.py --input input/ham10000 --images FOLDER --rows 60000

Plants 200 copies of each kind among the 10,015 photographs; writes recall by kind, precision, and
the pairs found between different lesions to docs/results/near_duplicates.json. --rows times that
many images, too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of HAM10000_metadata.csv")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--each", type=int, default=200, help="copies of each kind (default 200)")
    parser.add_argument("--rows", type=int, default=0, help="time so many images too")
    parser.add_argument("--limit", type=int, help="the first so many photographs only")
    parser.add_argument("--out", type=Path, help="default docs/results/near_duplicates.json")
    args = parser.parse_args(arguments)

    import cv2
    import numpy as np

    from lesions.data.columns import Report
    from lesions.data.decode import decode
    from lesions.data.sources import read_ham10000
    from lesions.data.near_duplicates import SIZE
    from lesions.data.planted import measure, time_many
    from lesions.errors import InputError
    from lesions.files import write_json
    from lesions.paths import at, shown

    table = read_ham10000(args.input, Report(strict=True)).iloc[: args.limit]
    paths = {name: args.images / f"{name}.jpg" for name in table["image_name"]}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]}: no such photograph ({len(missing):,} are missing)")
    result = measure(table, lambda name: np.asarray(cv2.imread(str(paths[name]))), args.each)
    if args.rows:
        images = np.stack([decode(path, SIZE)[0] for path in paths.values()])
        result["many"] = time_many(images, args.rows)
    out = args.out or at() / "docs" / "results" / "near_duplicates.json"
    write_json(out, result)
    print(
        f"recall {result['recall_all']:.3f}, precision {result['precision']:.4f};"
        f" {len(result['real_pairs_of_different_lesions'])} pairs of different lesions among"
        f" {result['photographs']:,} photographs; {result['cpu_seconds']} s of CPU: {shown(out)}"
    )
    return 0


if __name__ == "__main__":
    run(main)
