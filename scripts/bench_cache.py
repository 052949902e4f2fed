"""Speed and fidelity of making the image cache, against cv2.imread and an area resize.

    python scripts/bench_cache.py --images FOLDER FOLDER --size 256 512

The folders hold photographs at published size, anywhere below. One core, CPU time, the two ways in
turn; the mix of sizes is that of ISIC 2019 and 2020. Writes docs/results/cache.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--size", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--repeats", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--most", type=int, default=8, help="files of each size class (default 8)")
    parser.add_argument("--out", type=Path, help="default docs/results/cache.json")
    args = parser.parse_args(arguments)

    from lesions.data.cache_speed import measure
    from lesions.errors import InputError
    from lesions.files import write_json
    from lesions.paths import at, shown

    files = [path for folder in args.images for path in folder.rglob("*")]
    paths = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
    if not paths:
        raise InputError(f"{', '.join(map(str, args.images))}: no JPEG below")
    results = []
    for size in args.size:
        result = measure(paths, size, args.repeats, args.most)
        results.append(result)
        print(
            f"{size} px: {result['ratio']:.1f} times as fast as a full decode"
            f" ({result['images_per_second']:.0f} images/s a core), PSNR median"
            f" {result['psnr_median']:.1f} dB, least {result['psnr_least']:.1f} dB"
        )
    out = args.out or at() / "docs" / "results" / "cache.json"
    write_json(out, {"folders": [folder.name for folder in args.images], "sizes": results})
    print(f"written to {shown(out)}")
    return 0


if __name__ == "__main__":
    run(main)
