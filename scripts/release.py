"""Pack a trained run for others: half-precision weights, card, licence, checksums, one zip.

    python scripts/release.py ham10000/lite/lite0 --fold 0     # models/lite0 and models/lite0.zip

The folder is an ordinary run: --run takes it by its name, and the zip as it is. Predictions of the
rows that it was scored on stay out of it, as their labels are licensed data.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("run", type=existing, metavar="RUN", help="a trained run")
    parser.add_argument("--fold", type=int, action="append", help="this fold alone; repeatable")
    parser.add_argument("--name", help="its name below models/, by default the run's last part")
    args = parser.parse_args(arguments)

    from lesions.paths import at, shown
    from lesions.reporting.release import write_release

    name = args.name or Path(args.run).name
    folder, packed = write_release(args.run, args.fold, at("models", name))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{shown(folder)}: {size / 2**20:.1f} MB; packed: {shown(packed)}")
    print(f"next: python scripts/predict.py --run {name} --images photo.jpg")


if __name__ == "__main__":
    run(main)
