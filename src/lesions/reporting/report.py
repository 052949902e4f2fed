"""A report on a run or a blend: one HTML page that needs nothing beside it, its figures as PNG."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from lesions import files
from lesions.config import Config, read_yaml, saved_config
from lesions.errors import InputError
from lesions.evaluation.scores import LABELS, score_rows
from lesions.inference.calibration import fit_calibration, load_calibration
from lesions.oof import Oof, load_oof
from lesions.paths import at, shown
from lesions.reporting import figures, page, style
from lesions.reporting.breakdown import baseline_parts, words_of
from lesions.reporting.curves import training_section
from lesions.reporting.gallery import galleries, nearest_images
from lesions.reporting.sections import Sections, data_section, decide
from lesions.runs import RunFiles, find_run

if TYPE_CHECKING:
    from accelerate import Accelerator

# Of the sources that this repository reads; input/README.md has their addresses.
SHARED = ("isic2018", "isic2019", "isic2020", "ham10000", "dermamnist")
LICENCES = dict.fromkeys(SHARED, "CC BY-NC 4.0") | {"isic2017": "CC0 1.0"}


def write_report(
    run: RunFiles, recall: float | None, explained: Mapping[str, Any] | None
) -> tuple[Path, int]:
    """Write the page, which needs nothing beside it, and its figures as PNG in a folder.

    Decisions are those of the run's calibration, or of the threshold that has `recall`.
    `explained` are the galleries of reporting/explanations.py. The page's path, and the number of
    figures.
    """
    oof = load_oof(run)
    if oof.prepared is None:
        raise InputError(
            f"{shown(run.blend or run.folder)}: the images are in no prepared table, as no member"
            " is a run below oof/: there is nothing to report beside blend.json"
        )
    table, facts = oof.prepared
    source = run.blend or run.folder / "config.yaml"
    images, no_images = _images(run, oof, table)
    words = words_of("malignant" if oof.task.several else oof.task.name)
    stored, _ = load_calibration(run)
    calibration, decided, why_not = stored, None, ""
    try:
        calibration = stored or fit_calibration(oof, "recall")
        decided = decide(oof, calibration, recall)
    except InputError as error:  # the panels that need a threshold say so; the others stand
        why_not = str(error)
    calibrated = calibration.apply(oof.probs) if calibration else oof.probs
    test = oof.of_test() if oof.test_file.exists() else None
    if test and not oof.is_probability:  # ranks of a blend are ranked among themselves
        test = replace(test, probs=pd.DataFrame(test.probs).rank(pct=True).to_numpy())
    names = np.array(oof.task.classes if oof.task.several else ("benign", words.kind))
    shortcuts = _shortcuts(oof, facts)
    path = run.folder / (f"{run.blend.stem}_report.html" if run.blend else "report.html")
    with style.drawing(), style.another_process() as pool:
        drawn = style.SavedFigures(pool, path.with_suffix(""))
        sheets = style.SavedFigures(pool, path.with_suffix(""), inline=False)  # of photographs
        made = Sections(oof, test, decided, calibrated, words, drawn)
        values = {
            "auc": made.auc(baseline_parts(shortcuts)),
            "measures": made.measures(decided) if decided else {},
            "error_parts": made.errors(decided) if decided else {},
            "data_parts": data_section(
                drawn, oof.table, oof.positive, oof.score, words, images, names[oof.codes]
            ),
            "test": made.held_out(),
            "folds": training_section(oof, drawn),
            "galleries": galleries(oof, decided, calibrated, images, sheets),
            "sets": made.sets(),
            "off_curve": made.off_curve,
            "members": _members(oof, drawn),
            **made.classes(),
        }
        if stored and not run.blend:
            files.write_text(run.folder / "card.md", build_card(oof))
        sheets.svgs()  # raises what went wrong in writing them
        values["figures"] = {name: Markup(text) for name, text in drawn.svgs().items()}
    values |= {
        "oof": oof, "words": words, "decided": decided, "why_not": why_not,
        "no_images": no_images, "shortcuts": shortcuts, "calibration": calibration,
        "explained": explained, "source": source.name,
        "settings": source.read_text(encoding="utf-8"),
    }  # fmt: skip
    text = page.render("report.html.j2", **values)
    files.write_text(path, text)
    files.write_text(path.with_suffix(".md"), page.render("report.md.j2", path=path, **values))
    _write_checklist(run, oof, path, text)
    return path, len(drawn) + len(sheets)


def track_results(accelerator: "Accelerator", config: Config, name: str) -> None:
    """Write the run's report and hand it on, if every fold is done, as the part `all` of the run.

    W&B gets the page; TensorBoard, which shows none, its text.
    """
    from lesions.inference.accelerator import tracking  # it imports torch

    run = find_run(name)
    oof = load_oof(run)
    if len(oof.facts) < oof.folds:
        return
    page, _ = write_report(run, None, None)
    figures = {path.stem: path for path in sorted(page.with_suffix("").glob("*.png"))}
    figures["training_curves"] = run.folder / "training_curves.png"
    found = score_rows(oof.codes, oof.probs, oof.task.classes, oof.groups).overall
    with tracking(accelerator, config, name, "all"):
        for tracker in accelerator.trackers:
            tracker.log({f"out-of-fold {LABELS[key]}": score.value for key, score in found.items()})
            to = tracker.tracker
            if tracker.name == "wandb":
                wandb = import_module("wandb")
                to.log({key: wandb.Image(str(path)) for key, path in figures.items()})
                to.log({"report": wandb.Html(page.read_text(encoding="utf-8"))})
                continue
            for key, path in figures.items():
                pixels = np.asarray(Image.open(path).convert("RGB"))
                to.add_image(key, pixels, dataformats="HWC")
            to.add_text("report", page.with_suffix(".md").read_text(encoding="utf-8"))


def _write_checklist(run: RunFiles, oof: Oof, path: Path, text: str) -> None:
    """Write checklist.md, whose links are those parts of the page and files that there are."""
    audit = at("input/prepared", str(oof.dataset), "audit.html")
    sections = re.findall(r'<section id="(\w+)"', text)
    targets = {f"report.html#{name}": f"{path.name}#{name}" for name in sections}
    known = [file for file in (*run.folder.glob("*.*"), audit) if file.is_file()]
    targets |= {file.name: os.path.relpath(file, run.folder) for file in known}
    name = f"{run.blend.stem}_checklist.md" if run.blend else "checklist.md"
    text = page.render("checklist.md.j2", name=oof.name, targets=targets)
    files.write_text(path.with_name(name), text)


def _members(oof: Oof, drawn: dict[str, Figure]) -> str:
    """Draw a blend's weights and the correlation of its members; or why they cannot be."""
    if not oof.blend:
        return ""
    weights = oof.blend["weights"]
    drawn["weights"] = figures.plot_weights({name: weights[name] or 0.0 for name in weights})
    try:
        members = {name: load_oof(name) for name in oof.blend["members"]}
    except InputError as error:
        return str(error)
    scores = {name: pd.Series(each.score, each.names) for name, each in members.items()}
    drawn["member_correlation"] = figures.plot_correlation(pd.DataFrame(scores).reindex(oof.names))
    return ""


def _images(run: RunFiles, oof: Oof, table: pd.DataFrame) -> tuple[Any, str]:
    """The image cache of the size nearest to the run's own; or None, and the next command.

    A blend's size is that of its first member that is here.
    """
    members = oof.blend["members"] if oof.blend else []
    paths = [at("oof", name, "config.yaml") for name in members] or [run.folder / "config.yaml"]
    config = next((path for path in paths if path.is_file()), paths[0])
    wanted = saved_config(read_yaml(config), config).data.image_size
    return nearest_images(str(oof.dataset), table, wanted)


def _shortcuts(oof: Oof, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The audit's scores without pixels, of one source where the rows are of one.

    The audit scores the data set's own task: none are shown beside a run of another one.
    """
    path = at("input/prepared", str(oof.dataset), "audit.json")
    asked = "malignant" if oof.task.several else oof.task.name
    if asked != facts["config"].get("task", "melanoma") or not path.exists():
        return []
    scores = files.read_json(path)["shortcuts"]
    only = oof.table["source"].unique()
    own = [row | {"source": "all"} for row in scores if len(only) == 1 and row["source"] == only[0]]
    return own or scores


def build_card(oof: Oof) -> str:
    """The card of a trained run in Markdown.

    InputError where the run is not calibrated, since a card without a decision helps nobody.
    """
    assert oof.run is not None
    calibration, problem = load_calibration(oof.run)
    if calibration is None:
        raise InputError(str(problem))
    path = oof.run.folder / "config.yaml"
    sources = oof.table["source"].value_counts()
    licences = {source: LICENCES.get(source, "ask its owner") for source in sources.index}
    return page.render(
        "card.md.j2", oof=oof, config=saved_config(read_yaml(path), path), calibration=calibration,
        fits={"all": calibration, **calibration.given},
        scores=score_rows(oof.codes, oof.probs, oof.task.classes, oof.groups),
        groups=oof.table["group"].nunique(), sources=sources.to_dict(), licences=licences,
        free=set(licences.values()) == {"CC0 1.0"}, facts=list(oof.facts.values()),
    )  # fmt: skip
