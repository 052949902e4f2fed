"""docs/results.md and the README's table: the run on real photographs."""

from collections.abc import Mapping, Sequence
from typing import Any

from lesions.reporting.markdown import interval, joined, table

Scores = Mapping[str, Any]


def results_page(results: Mapping[str, Any]) -> str:
    """docs/results.md: the real run, from its data to its held-out scores."""
    return (
        "\n\n".join(
            [
                "<!-- Written by scripts/docs.py from docs/results/real.json: do not edit. -->",
                "# Results on real photographs",
                _data_text(results),
                "## Commands",
                "```\n" + "\n".join(results["commands"]) + "\n```",
                "## Out-of-fold AUC",
                OOF_TEXT,
                _auc_table(results, "oof"),
                "## Blending",
                _blend_text(results),
                "## Held-out AUC",
                TEST_TEXT,
                _auc_table(results, "test"),
                "## Reading the intervals",
                READING,
                "## Runs",
                _run_table(results["runs"]),
                "## Machine and versions",
                _machine_text(results),
            ]
        )
        + "\n"
    )


OOF_TEXT = (
    "Every image is scored by a model that saw neither it nor another image of its group (patient, "
    "lesion, duplicate). In brackets: 95 % intervals by a bootstrap over groups."
)
TEST_TEXT = (
    "Groups set aside before the folds were made, predicted once by the mean of the fold models; "
    "nothing was chosen on them."
)
READING = (
    "An interval says how much a score would move if other patients had been photographed, with "
    "the same model: 95 of 100 such intervals hold the score on the population that the images "
    "came from. It does not cover another clinic, another camera, or another random seed. "
    "Patients and lesions are drawn, not images, because images of one patient are alike; drawing "
    "images would make the intervals too narrow. Two overlapping intervals do not mean that two "
    "models are equal, since both are scored on the same images: compare them by a paired test, "
    "which `scripts/blend.py` prints. A model is worth its cost to the degree that it beats the "
    "rows without pixels, which only know who was photographed and how."
)


def readme_block(results: Mapping[str, Any]) -> str:
    """The README's table: one row a model, out-of-fold and held-out, the model without pixels."""
    rows = [
        [f"`{run['run']}`", _score(run["oof"]), _score(run.get("test"))] for run in results["runs"]
    ]
    blend = results.get("blend")
    if blend:
        shown = blend.get("nested") or blend["oof"]
        rows.append([f"blend ({blend['chosen']})", _score(shown), _score(blend.get("test"))])
    rows += [
        [f"no pixels: {shortcut['features']}", interval(shortcut), ""]
        for shortcut in _overall(results["no_pixel"])
    ]
    data = results["data"]
    return "\n\n".join(
        [
            f"Melanoma against the rest on {data['rows']:,} real photographs of "
            f"{joined(list(data['sources']))} ({data['positives']:,} melanomas), AUC with 95 % "
            "intervals over patients and lesions:",
            table(["model", "out-of-fold", "held out"], rows),
            "Commands, scores by source and how to read them: [docs/results.md](docs/results.md).",
        ]
    )


def _data_text(results: Mapping[str, Any]) -> str:
    data = results["data"]
    rows = [
        [name, f"{part['rows']:,}", f"{part['positives']:,}", f"{part.get('test_rows', 0):,}"]
        for name, part in data["sources"].items()
    ]
    return (
        f"Melanoma against everything else on {data['rows']:,} photographs, {data['positives']:,} "
        f"of them melanomas, in {data['groups']:,} groups (images that share a patient or a "
        "lesion, or are copies of each other). A group is never in two folds, nor in folds and "
        "test.\n\n" + table(["source", "images", "melanomas", "held out"], rows)
    )


def _auc_table(results: Mapping[str, Any], part: str) -> str:
    sources = list(results["data"]["sources"])
    rows = []
    for run in results["runs"]:
        if run.get(part):
            rows.append([f"`{run['run']}`", *(_score(run[part], s) for s in ("overall", *sources))])
    blend = results.get("blend") or {}
    if blend.get("test" if part == "test" else "oof"):
        scores = blend["test"] if part == "test" else blend.get("nested") or blend["oof"]
        name = f"**blend** ({blend['chosen']}" + (")" if part == "test" else ", nested)")
        rows.append([name, *(_score(scores, source) for source in ("overall", *sources))])
    if part == "oof":
        rows += _no_pixel_rows(results["no_pixel"], sources)
    return table(["model", "overall", *sources], rows) if rows else "Not measured."


def _no_pixel_rows(no_pixel: Sequence[Scores], sources: list[str]) -> list[list[str]]:
    by_name: dict[str, dict[str, str]] = {}
    for shortcut in no_pixel:
        part = shortcut.get("source") or "overall"
        by_name.setdefault(shortcut["features"], {})[part] = interval(shortcut)
    return [
        [f"no pixels: {name}", *(cells.get(source, "") for source in ("overall", *sources))]
        for name, cells in by_name.items()
    ]


def _blend_text(results: Mapping[str, Any]) -> str:
    blend = results.get("blend")
    if not blend:
        return "Not measured."
    weights = joined([f"`{run}` {blend['weights'][run]:.3f}" for run in blend["members"]])
    rows = [["in-sample: weights chosen on the rows that are scored", _score(blend["oof"])]]
    if blend.get("nested"):
        rows.append(["nested: weights chosen on the other groups", _score(blend["nested"])])
    if blend.get("test"):
        rows.append(["held out", _score(blend["test"])])
    return (
        f"Chosen: {blend['chosen']}, with the weights {weights}. The nested figure is the one to "
        "believe: weights that are scored on the rows they were chosen on flatter themselves.\n\n"
        + table(["estimate", "AUC"], rows)
    )


def _run_table(runs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"`{run['run']}`",
            run.get("question") or "",
            f"`{run['backbone']}`",
            f"{run['image_size']}",
            f"{run['parameters'] / 1e6:.2f} M",
            f"{run['seconds'] / 60:.0f} min",
            f"{run['images_per_second']:.0f}",
            _epochs(run),
        ]
        for run in runs
    ]
    header = ["run", "question", "backbone", "pixels", "parameters", "all folds", "images/s"]
    header += ["last / best epoch"]
    return table(header, rows)


def _epochs(run: Mapping[str, Any]) -> str:
    """Mean validation AUC over folds, one view: the epoch that is kept, and the best one."""
    means = [sum(run[key]) / len(run[key]) for key in ("last_auc", "best_auc") if run.get(key)]
    return " / ".join(f"{mean:.3f}" for mean in means)


def _machine_text(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    versions = joined([f"{name} {version}" for name, version in results["versions"].items()])
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB of memory; "
        f"{versions}. Commit `{results['commit']}`."
    )


def _overall(no_pixel: Sequence[Scores]) -> list[Scores]:
    return [shortcut for shortcut in no_pixel if not shortcut.get("source")]


def _score(scores: Mapping[str, Scores] | None, part: str = "overall") -> str:
    return interval((scores or {}).get(part))
