"""Draw the embedded sample: ISIC 2019 and 2020 downloads in miniature, without a download.

Official file names, headers and quirks (missing values, two site vocabularies, duplicates,
`_downsampled` twins) over drawn lesions. The same arguments write the same bytes; a complete
sample is left as it is.

    python scripts/make_sample.py
    python scripts/make_sample.py --out input/sample --images 300 --seed 1
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import at, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--out", type=Path, help="folder to write (default input/sample)")
    parser.add_argument("--images", type=int, default=900, help="training images (default 900)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another sample")
    args = parser.parse_args(arguments)
    from lesions.data.sample import write_sample  # after parsing: --help answers at once

    out = args.out or at("input/sample")
    plan = write_sample(out, args.images, args.seed)
    for (source, split), rows in plan.groupby(["source", "split"]):
        known = f", {rows['target'].sum()} melanomas" if split == "train" else ", labels hidden"
        print(f"{shown(out)}/{source}: {len(rows)} {split} images{known}")
    return 0


if __name__ == "__main__":
    run(main)
