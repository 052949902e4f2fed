"""How the loader and the table scripts grow: 1k to 60k images, 0 to 2 workers, whole tables.

python benchmarks/growth.py --tables input    # a folder with isic2019/ and isic2020/, as well
"""

import os
import resource
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from loader import consume, epoch_of, fused
from timing import in_children, single_thread, wall_seconds

from lesions.cli import build_parser, run
from lesions.data.loading import LesionDataset
from lesions.paths import CODE
from lesions.provenance import Results


def measure_growth(folder: Path, counts: list[int], workers: list[int], size: int) -> list[dict]:
    """Images a second (wall) and memory of the loader against images, workers and processes.

    The images are a memory-mapped array of `size` pixels, written once at its largest; each row of
    the result is one count, number of workers and number of processes that read the same rows.
    """
    path = folder / "growth.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (max(counts), size, size, 3))
    tile = np.random.default_rng(0).integers(0, 256, (500, size, size, 3), np.uint8)
    for start in range(0, max(counts), 500):
        images[start : start + 500] = tile[: max(counts) - start]
    images.flush()
    del images
    rows = []
    for count in counts:
        for number in workers:
            rows.append({"images": count, "workers": number, **_rate(path, count, number, 1)})
        rows.append({"images": count, "workers": 1, **_rate(path, count, 1, 2)})
    path.unlink()
    return rows


def _rate(path: Path, count: int, workers: int, processes: int) -> dict[str, Any]:
    """One epoch of at most 6,000 of `count` images in each of `processes`, all at once."""
    samples = min(count, 6000 // processes)

    @single_thread()
    def child() -> tuple[float, int]:
        images = np.load(path, mmap_mode="r")[:count]
        metadata = np.zeros((count, 9), np.float32)
        pipeline = fused(images.shape[1])
        dataset = LesionDataset(images, metadata, metadata[:, 0], pipeline)
        loader = epoch_of(dataset, samples, workers)
        seconds = wall_seconds(lambda: consume(loader))
        return seconds, _private_bytes()

    found = in_children([child] * processes)
    return {
        "processes": processes,
        "images_per_second": round(samples * processes / max(seconds for seconds, _ in found), 1),
        "own_mb": round(max(memory for _, memory in found) / 2**20, 1),
    }


def _private_bytes() -> int:
    """What this process and its workers have written: the mapped images, shared, do not count."""
    total = 0
    for process in ("self", *(child.pid for child in active_children())):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                total += int(line.split()[1]) * 1024
    return total


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


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 60_000])
    parser.add_argument("--size", type=int, default=64, help="pixels (default 64)")
    parser.add_argument("--tables", type=Path, help="a folder with isic2019/ and isic2020/")
    results = Results(parser, "growth.json")
    args = parser.parse_args(arguments)
    results.check(args)
    with TemporaryDirectory() as place:
        loader = measure_growth(Path(place), args.images, [0, 1, 2], args.size)
        tables = whole_tables(args.tables.resolve(), Path(place)) if args.tables else []
    for row in loader:
        print(
            f"{row['images']:,} images, {row['workers']} workers, {row['processes']} processes:"
            f" {row['images_per_second']:,.0f} images/s, {row['own_mb']:.0f} MB"
        )
    for row in tables:
        print(f"{row['command']}: {row['seconds']} s of CPU")
    results.write({"size": args.size, "loader": loader, "tables": tables})
    return 0


if __name__ == "__main__":
    run(main)
