"""A run's model card: what it was trained on, its scores with intervals, and its limits."""

from lesions.config import read_yaml, saved_config
from lesions.errors import InputError
from lesions.evaluation.scores import CLASS_LABELS, LABELS, score_rows
from lesions.inference.calibration import load_calibration
from lesions.oof import load_oof
from lesions.reporting.page import render
from lesions.runs import RunFiles

# Of the sources that this repository reads; input/README.md has their addresses.
LICENCES = {
    "isic2017": "CC0 1.0",
    "isic2018": "CC BY-NC 4.0",
    "isic2019": "CC BY-NC 4.0",
    "isic2020": "CC BY-NC 4.0",
    "ham10000": "CC BY-NC 4.0",
    "dermamnist": "CC BY-NC 4.0",
}


def build_card(run: RunFiles, name: str | None = None) -> str:
    """The card of a trained run in Markdown; `name` is what it will be called elsewhere.

    InputError where the run is not calibrated, since a card without a decision helps nobody.
    """
    oof = load_oof(run)
    calibration, problem = load_calibration(run)
    if calibration is None:
        raise InputError(str(problem))
    path = run.folder / "config.yaml"
    sources = oof.table["source"].value_counts()
    licences = {source: LICENCES.get(source, "ask its owner") for source in sources.index}
    return render(
        "card.md.j2",
        name=name or run.name,
        run=run.name,
        oof=oof,
        config=saved_config(read_yaml(path), path),
        calibration=calibration,
        fits={"all": calibration, **calibration.given},
        scores=score_rows(oof.codes, oof.probs, oof.task.classes, oof.groups),
        labels=LABELS,
        class_labels=CLASS_LABELS,
        groups=oof.table["group"].nunique(),
        sources=sources.to_dict(),
        licences=licences,
        free=set(licences.values()) == {"CC0 1.0"},
        facts=list(oof.facts.values()),
    )
