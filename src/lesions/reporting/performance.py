"""docs/performance.md: goals and what was measured, growth, the GPU part, what did not pay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesions import files
from lesions.reporting.ablation import ablation_section
from lesions.reporting.feeding import cost_table, feeding_table
from lesions.reporting.markdown import table
from lesions.reporting.summary import machine

# Times as fast as the usual way, at 256 and 512 pixels: issue "Speed", measured in turns.
GOALS = {
    ("array", "512 px JPEGs"): {256: 5.0, 512: 4.0},
    ("jpeg", "512 px JPEGs"): {256: 4.0, 512: 3.0},
    ("array", "same-size JPEGs"): {256: 4.0},
    ("jpeg", "same-size JPEGs"): {256: 3.0},
}
AUGMENTATION = {256: 1.7, 512: 1.5}
VALIDATION, METADATA, BATCHES, ORIGINALS = 0.6, 100.0, 2.0, 35.0
CLIMB, STEP, INFERENCE, CACHE = 15.0, 2.0, 1.5, {256: 6.0, 512: 4.0}
UNPAID = (
    "Other JPEG decoders for the JPEG cache (simplejpeg, torchvision): a sample takes at most 8 % "
    "less, which is less than a dependency is worth. What costs is 4:4:4 itself: 4:2:0 decodes 1.5 "
    "times as fast and loses colour edges.",
    "One colour matrix in place of the hue table: another augmentation; the tables reach the goals "
    "with the stock list's very pixels.",
    "`cv2.LUT` with one table a channel: slower than splitting, stringzilla's tables and merging.",
    "Warping with the source in the memory-mapped file: 1.3 times slower than copying it first.",
)
Results = Mapping[str, Any]


def save_part(path: Path, name: str, found: Any) -> None:
    """Write `found` as the part `name` of the results file, the other parts as they were."""
    parts = files.read_json(path) if path.exists() else {}
    for other in ("cache", "step", "kaggle_hours", "ham10000_ablation_fused"):
        beside = path.parent / f"{other}.json"
        if beside.exists():
            parts[other] = files.read_json(beside)
    files.write_json(path, parts | {name: found, "machine": machine()})


def performance_page(results: Results) -> str:
    """The page, from the parts that the benchmarks have written."""
    loader, growth = results["loader"], results.get("growth")
    described = results["machine"]
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/performance.json: do not edit. -->",
        "# Speed beside the usual way",
        '```\nmake bench PHOTOS="folders of originals"\nmake bench-gpu\n```',
        f"{described['cpu']}, {described['cores']} cores, shared with other work. CPU time of one "
        f"thread, {loader['repeats']} turns of each way one after the other: median, and in "
        "brackets the least and the most. The usual way: a pandas row for each sample, "
        "`cv2.imread` of a resized JPEG, albumentations with float Normalize and ToTensorV2, "
        "float32 batches, an eager float32 model, scikit-learn for blending. Ours: the default "
        "`augment.fused=true`, pixel for pixel the stock list to within one grey level in 256 "
        f"(see the tests). {_photos(loader)}",
        "## Goals",
        table(["what", "goal", "times as fast", "reached"], _goal_rows(results)),
        "The validation loader is measured as a share of copying the same rows.",
        *_trained_with(results.get("ham10000_ablation_fused")),
        "## The loader, milliseconds a sample",
        _loader_table(loader),
        "## Growth",
        growth_text(growth) if growth else "Not measured.",
        "## Cores that feed a GPU",
        feeding_table(loader),
        "## What the ensemble costs",
        cost_table(results.get("kaggle_hours")),
        "## On a GPU",
        gpu_text(results.get("gpu")),
        "## What did not pay",
        "\n".join(f"- {line}" for line in UNPAID),
    ]
    return "\n\n".join(parts) + "\n"


def _trained_with(compared: Results | None) -> list[str]:
    """Whether the fused augmentation trains as well as the stock list; see scripts/ablate.py."""
    if compared is None:
        return []
    return ["## HAM10000 trained with the stock list and the fused one", ablation_section(compared)]


def _photos(loader: Results) -> str:
    kind = "drawn images" if loader["drawn"] else "real photographs"
    return f"{loader['photos']} {kind}."


def _goal_rows(results: Results) -> list[list[str]]:
    loader = results["loader"]
    rows = []
    for part in loader["sizes"]:
        for (mode, base), goals in GOALS.items():
            found = part["ratios"].get(f"{mode}, fused against {base}, usual")
            if found and part["size"] in goals:
                name = f"{part['size']} px, {mode} cache, against {base}"
                rows.append(_row(name, goals[part["size"]], found))
    if loader.get("originals"):
        rows.append(_row("256 px, array cache, against originals", ORIGINALS, loader["originals"]))
    for part in loader["augmentation"]:
        rows.append(_row(f"augmentation at {part['size']} px", AUGMENTATION[part["size"]], part))
    for part in loader["validation"]:
        rows.append(_row(f"validation loader at {part['size']} px", VALIDATION, part))
    rows.append(_row("metadata of a sample", METADATA, loader["metadata"]))
    rows.append(_row("uint8 batches, 2 workers, wall time", BATCHES, loader["batches"]))
    for part in results.get("cache", {}).get("sizes", []):
        ratios = part["ratios"]
        found = {"ratio": part["ratio"], "low": min(ratios), "high": max(ratios)}
        rows.append(_row(f"cache build at {part['size']} px", CACHE[part["size"]], found))
    if "step" in results:
        rows.append(_row("CPU training step", STEP, results["step"]))
    if "inference" in results:
        rows.append(_row("CPU inference, 4 views", INFERENCE, results["inference"]))
    ratio = loader["climb"]["ratio"]
    rows.append(_row("hill climbing, 58,457 x 30", CLIMB, {"ratio": ratio}))
    return rows


def _row(name: str, goal: float, found: Results) -> list[str]:
    shown = f"{found['ratio']:,.2f}" if found["ratio"] < 100 else f"{found['ratio']:,.0f}"
    if "low" in found:
        shown += f" ({found['low']:,.1f} to {found['high']:,.1f})"
    return [name, f"{goal:g}", shown, "yes" if found["ratio"] >= goal else "**no**"]


def _loader_table(loader: Results) -> str:
    names = list(loader["sizes"][0]["seconds"])
    rows = []
    for name in names:
        cells = [part["seconds"].get(name) for part in loader["sizes"]]
        rows.append([name, *("" if cell is None else f"{1e3 * cell:.2f}" for cell in cells)])
    return table(["way", *(f"{part['size']} px" for part in loader["sizes"])], rows)


def growth_text(growth: Results) -> str:
    """Tables of the loader, the blend, and preparing and auditing the whole tables."""
    parts = [
        f"The loader on memory-mapped images of {growth['size']} pixels, wall time on a machine "
        "shared with other work; memory is what the processes wrote themselves, workers included.",
        table(
            ["images", "workers", "processes", "images/s", "own memory"],
            [
                [f"{row['images']:,}", str(row["workers"]), str(row["processes"]),
                 f"{row['images_per_second']:,.0f}", f"{row['own_mb']:.0f} MB"]
                for row in growth["loader"]
            ],
        ),
        "Hill climbing of 5 picks, CPU seconds:",
        table(
            ["rows", "members", "seconds"],
            [
                [f"{row['rows']:,}", str(row["columns"]), f"{row['seconds']:.2f}"]
                for row in growth["blend"]
            ],
        ),
    ]  # fmt: skip
    if growth.get("tables"):
        rows = [[row["command"], f"{row['seconds']:.1f}"] for row in growth["tables"]]
        parts += ["The whole tables, CPU seconds:", table(["command", "seconds"], rows)]
    return "\n\n".join(parts)


def gpu_text(gpu: Results | None) -> str:
    """What scripts/bench_gpu.py measured, or that it was not run on a GPU."""
    if not gpu:
        return (
            "Not measured: no GPU was at hand. `make bench-gpu` measures it where there is one: "
            "images/s and memory of the four configs against float32 and stock mixed precision, "
            "eager and compiled, the wait for data, inference, and the shares of the card's limits."
        )
    header = ["config", "way", "images/s", "peak memory", "of copy rate", "of matrix rate"]
    rows = [
        [f"`{row['config']}`", row["way"], f"{row['images_per_second']:,.0f}",
         f"{row['peak_gb']:.1f} GB", *(f"{row[key]:.0%}" if row.get(key) else ""
         for key in ("copy_share", "matrix_share"))]
        for row in gpu["training"]
    ]  # fmt: skip
    inference = gpu["inference"]
    return "\n\n".join(
        [
            f"{gpu['device']}: {gpu['copy_gb_per_second']:,.0f} GB/s copied, "
            f"{gpu['matrix_tflops']:,.0f} TFLOP/s in matrices, both measured.",
            table(header, rows),
            f"Waiting for data: {gpu['waiting']:.0%} of the step. Inference with "
            f"{inference['views']} views made on the device: {inference['ratio']:.2f} times the "
            "images/s of a pass for each view.",
        ]
    )
