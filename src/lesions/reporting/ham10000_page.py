"""docs/ham10000.md and the ablation's page: published systems beside this recipe, and the truth."""

from collections.abc import Mapping
from typing import Any

from lesions.evaluation.multiclass import LABELS
from lesions.reporting.ablation import ablation_section
from lesions.reporting.markdown import table

Results = Mapping[str, Any]

NAMES = LABELS | {
    "malignant_auc": "AUC, malignant against benign",
    "malignant_recall": "malignant recall",
    "malignant_accuracy": "accuracy at that recall",
}
INTRO = (
    "Three earlier systems classify HAM10000 (10,015 photographs of 7,470 lesions). Each is set"
    " beside one recipe of this repository, trained on the training rows of that system's own"
    " split and scored on the rows it scored; and the same recipe is scored on five folds that"
    " keep every lesion whole, which is what the split's leak is worth. Intervals are 95 %, over"
    " lesions; a published number has none, so the interval of a difference is that of ours."
)
LEAK = (
    "The *seen* column is the share of scored photographs whose lesion is also in training:"
    " scores on those flatter. The lesion-whole column is the one to believe."
)
RULES = (
    "Nothing is chosen on scored rows: the last epoch's moving average is kept, the most probable"
    " class is the answer, and the malignant threshold keeps 90 % recall on out-of-fold predictions"
    " of the split's own training rows. *Weighed* answers divide the probabilities by a power of"
    " the class shares, chosen for macro-F1 on such rows too, so that rare classes are called more"
    " often: accuracy goes down, mean recall up."
)


def ham10000_page(results: Results) -> str:
    """docs/ham10000.md, from what scripts/rivals.py compared."""
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/ham10000.json: do not edit. -->",
        "# HAM10000: published systems, and what is left without the leak",
        INTRO,
        "```\nscripts/ham10000.sh\n```",
        "## On their own splits",
        LEAK,
        *(_rival(rival) for rival in results["rivals"]),
        RULES,
        "## With lesions whole",
        _grouped(results["grouped"]),
        "## What was trained",
        _trained(results),
    ]
    return "\n\n".join(parts) + "\n"


def ablation_page(results: Results) -> str:
    """docs/ham10000_ablation.md, from what scripts/ablate.py compared."""
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/ham10000_ablation.json: no edits. -->",
        "# HAM10000: one change at a time",
        "What the parts of the published systems bring, which their authors did not measure: each"
        " alone, on the same folds with lesions whole.",
        "```\npython scripts/ablate.py configs/ham10000/ablation.yaml\n```",
        ablation_section(results),
        f"{sum(results['seconds'].values()) / 60:.0f} minutes of training in all, on"
        f" {_machine(results['machine'])}.",
    ]
    return "\n\n".join(parts) + "\n"


def _rival(rival: Results) -> str:
    rows = []
    for name, score in rival["scores"].items():
        ours, theirs = score["ours"], score["theirs"]
        rows.append([
            NAMES[name],
            f"{theirs:.3f}",
            _score(ours),
            _score(ours, minus=theirs),
            "passed" if score["passed"] else "not passed",
            _score(rival["weighed"].get(name)),
            _score(score["grouped"]),
        ])  # fmt: skip
    header = ["", "theirs", "ours", "difference", "", "ours, weighed", "ours, lesions whole"]
    kind = "validation" if rival["part"] == "val" else "test"
    return (
        f"**System {rival['system']}**, {rival['rows']:,} {kind} images, {rival['seen']:.1%} seen"
        f" ({rival['source']}):\n\n" + table(header, rows)
    )


def _grouped(grouped: Results) -> str:
    overall = [
        [NAMES[name], _score(score), _score(grouped["weighed"][name])]
        for name, score in grouped["scores"].items()
    ]
    overall.append([NAMES["malignant_auc"], _score(grouped["malignant_auc"]), ""])
    classes = grouped["classes"]
    keys = list(next(iter(classes.values())))
    by_class = [[name, *(_score(scores[key]) for key in keys)] for name, scores in classes.items()]
    return (
        f"`{grouped['run']}`, {grouped['rows']:,} images of {grouped['groups']:,} lesions, every"
        " image predicted once by a model that saw no image of its lesion:\n\n"
        + table(["", "most probable class", "weighed"], overall)
        + "\n\n"
        + table(["class", *(key.replace("_", " ") for key in keys)], by_class)
    )


def _trained(results: Results) -> str:
    rows = [
        [
            f"`{run}`",
            f"`{facts['backbone']}`" + ("" if facts["pretrained"] else ", random weights"),
            f"{facts['image_size']}",
            f"{facts['epochs']}",
            f"{facts['folds']}",
            f"{facts['seconds'] / 3600:.2f}",
        ]
        for run, facts in results["runs"].items()
    ]
    one = next(iter(results["runs"].values()))
    return (
        table(["run", "backbone", "pixels", "epochs", "folds", "hours"], rows)
        + f"\n\nImageNet weights, {one['metadata']} metadata, {one['views']} views at prediction;"
        " photographs were at hand at 200 x 150 pixels alone. Trained on"
        f" {_machine(results['machine'])} ({one['device']}), commit `{results['commit']}`."
        "\n\nWhat a missed number is missed for, by experiment: the rows `112 pixels` and `random"
        " weights` of [ham10000_ablation.md](ham10000_ablation.md) show how much more pixels and"
        " first weights are worth than any part of the recipe; the systems above used 224 or 240"
        " pixels and trained 22 to 60 epochs."
    )


def _score(score: Results | None, minus: float | None = None) -> str:
    if not score or score["value"] is None:
        return ""
    form = "{:.3f}" if minus is None else "{:+.3f}"
    value, low, high = (
        "n/a" if score[key] is None else form.format(score[key] - (minus or 0))
        for key in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


def _machine(machine: Results) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores"
