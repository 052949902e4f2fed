"""docs/explanations.md and docs/export.md: where a run looks, and what its exports are worth."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.focus import verdict
from lesions.reporting.markdown import joined, table
from lesions.reporting.parity import BF16, EAGER, INT8

READING = (
    "Energy is the sum of a map. The disc is centred and of the lesion's area: photographs are "
    "taken with the lesion in the middle, so a map that knows nothing but the middle scores "
    "what the column `disc on lesion` says. A model that looks at rulers or corners loses to "
    "the disc. The maps are as coarse as the last feature map, and are enlarged smoothly: they "
    "spill over small lesions. Intervals: 95 %, by a bootstrap over lesions."
)


def explanations_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/explain.py --masks measured."""
    told, covered = results["all"], results["occlusion"]
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/explanations.json: do not edit. -->",
        "# Where the model looks",
        f"```\npython scripts/explain.py --run {results['run']} --masks input/ham10000/masks\n```",
        f"**{verdict(told)}**",
        f"`{results['run']}` (`{results['backbone']}`, {results['image_size']} pixels, task "
        f"{results['task']}): Grad-CAM of the answer that the model gave, by the fold that did not "
        f"see the photograph, on {results['photographs']:,} photographs of {results['lesions']:,} "
        "lesions with the segmentation masks of HAM10000 (Tschandl et al., 2020). "
        f"{results['empty']:,} maps are empty and are left out.",
        READING,
        _shares({"all": told}),
        "## By outcome",
        _shares(results["outcomes"]),
        "## By diagnosis",
        _shares(results["diagnoses"]),
        "## Occlusion as a check",
        f"The same for what covering each of 8 x 8 cells takes from the answer's logit, on "
        f"{covered['photographs']:,} photographs drawn at random; rank correlation with Grad-CAM's "
        f"share on the lesion: {covered['spearman']:.2f}.",
        _shares({"occlusion": covered}),
    ]
    return "\n\n".join(parts) + "\n"


def _shares(rows: Mapping[str, Mapping[str, Any]]) -> str:
    names = ("inside", "disc", "more", "overlap", "area")
    header = ["", "photographs", "on the lesion", "on the disc", "difference", "disc on lesion"]
    body = [
        [title, f"{told['photographs']:,}", *(_share(told.get(name)) for name in names)]
        for title, told in rows.items()
    ]
    return table([*header, "lesion's area"], body)


def _share(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    text = f"{found['value']:.1%}"
    if found["low"] is None:
        return text
    return f"{text} ({found['low']:.1%} to {found['high']:.1%})"


def export_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/export.py measured."""
    rivals, machine = results["rivals"], results["machine"]
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/export.json: do not edit. -->",
        "# Exported models",
        f"```\n{_command(results)}\n```",
        f"`{results['run']}` (`{results['backbone']}`, {results['image_size']} pixels), "
        f"{_folds(results['folds'])}. One view, {results['rows']:,} out-of-fold photographs that "
        "the fold never saw. Difference: the largest of any probability from eager float32. AUC is "
        "that of the question asked, of several classes that of malignant against benign. "
        "Photographs go in as uint8, normalisation is inside each file, and each file carries the "
        "checkpoint's header.",
        table(
            ["", "largest difference", "AUC", "against eager", "file", "ms/image", "times as fast"],
            [[name, *_cells(told, rivals[EAGER])] for name, told in rivals.items()],
        ),
        f"CPU time of one thread of {machine['cpu']}, batches of {results['batch']}, median "
        f"(least) of {results['turns']} turns in which all were run one after another. `{BF16}` "
        f"needs a processor with bfloat16. {_int8(results)}"
        f"torch {results['versions']['torch']}" + _runtime(results["versions"]) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _command(results: Mapping[str, Any]) -> str:
    quantize = " --quantize" if results["quantize"] else ""
    folds = " ".join(map(str, results["folds"]))
    return (
        f"python scripts/export.py --run {results['run']} --to {' '.join(results['to'])}{quantize}"
        f" --folds {folds} --out docs/results/export.json"
    )


def _folds(folds: list[int]) -> str:
    return f"fold {folds[0]}" if len(folds) == 1 else f"folds {joined([str(f) for f in folds])}"


def _cells(told: Mapping[str, Any], eager: Mapping[str, Any]) -> list[str]:
    took = told["milliseconds"]
    return [
        f"{told['difference']:.1g}",
        f"{told['auc']:.4f}",
        f"{told['auc'] - eager['auc']:+.4f}",
        f"{told['bytes'] / 1e6:.1f} MB",
        f"{took['median']:.2f} ({took['least']:.2f})",
        f"{told['speed']:.2f}",
    ]


def _int8(results: Mapping[str, Any]) -> str:
    if INT8 not in results["rivals"]:
        return ""
    refused = " Here it was: its file is deleted." if results["refused"] else ""
    rule = "int8 is calibrated on training photographs, and refused if it loses 0.005 AUC or more."
    return f"{rule}{refused} "


def _runtime(versions: Mapping[str, str]) -> str:
    return f", onnxruntime {versions['onnxruntime']}" if "onnxruntime" in versions else ""
