"""The sections on what went in: photographs, data, training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lesions.evaluation.multiclass import LABELS
from lesions.reporting import data, gallery, page, training
from lesions.reporting.album import Album, slug
from lesions.reporting.decisions import Decisions
from lesions.reporting.page import Section
from lesions.reporting.results import Results


def galleries_section(results: Results, album: Album, decided: Decisions) -> Section:
    """The photographs where the model is wrong, sure and unsure."""
    chosen = gallery.choose_galleries(results.oof, decided.flagged, decided.margin, results.words)
    return Section(
        "images",
        "Photographs",
        "As the model sees them. Each lesion or patient is shown once a row; the number is the "
        f"{results.score_label}, the threshold {decided.threshold.value:.3f}.",
        [gallery_card(results, album, one) for one in chosen],
    )


def gallery_card(results: Results, album: Album, chosen: gallery.Gallery) -> str:
    """The gallery's photographs, or why there are none to show."""
    if results.images is None:
        return page.missing(
            chosen.title,
            f"No image cache: python scripts/prepare.py --dataset {results.dataset} makes it.",
        )
    if not len(chosen.rows):
        return page.missing(chosen.title, "There are none.")
    entries = []
    for position, row in zip(
        chosen.rows.index.to_numpy(), chosen.rows.to_dict("records"), strict=True
    ):
        picture = gallery.data_uri(gallery.tile(results.images, int(position)))
        diagnosis = data.ABSENT if pd.isna(row["diagnosis"]) else str(row["diagnosis"])
        what = gallery.describe(row)
        entries.append(
            (
                picture,
                f"{diagnosis}, {what}",
                f"{row['prob']:.3f} · {diagnosis}",
                what,
                str(row["image_name"]),
            )
        )
    album.figures[chosen.name] = gallery.plot_sheet(chosen, results.images)
    return page.card(chosen.title, page.tiles(entries), chosen.caption, "wide")


def data_section(results: Results, album: Album) -> Section:
    """What the images are of: classes, who, where from, what goes with what, a handful of each."""
    oof = results.oof
    cards = [
        album.card(
            "diagnoses",
            "Diagnoses",
            data.plot_diagnoses(oof["diagnosis"], oof["target"]),
            f"Orange counts as {results.words.kind}.",
        )
    ]
    cards.append(
        album.card(
            "correlation",
            "What goes together",
            data.plot_correlation(oof, results.words),
            "Spearman correlation; a score that follows the size of the file has learnt the "
            "camera, not the lesion.",
        )
    )
    for title, values in data.by_size(data.factors(oof)):
        if set(values.cat.categories) == {data.ABSENT}:
            cards.append(page.missing(title, "Not recorded in table.csv."))
            continue
        figure = data.plot_factor(values, oof["target"], oof["group"], results.words)
        cards.append(album.card(slug("data", title), title, figure, ""))
    samples = gallery.choose_samples(oof, results.words)
    cards += [gallery_card(results, album, one) for one in samples]
    return Section(
        "data",
        "Data",
        f"{len(oof):,} images with a target in {oof['group'].nunique():,} groups; a group is "
        "whatever must stay together: a patient, a lesion, copies of a photograph.",
        cards,
    )


def training_section(results: Results, album: Album) -> Section:
    """Loss and validation AUC by epoch, and each fold in figures."""
    folds = [fold for fold in results.folds if fold.get("history")]
    if not folds:
        reason = "There is no fold<k>.json with a history beside the predictions."
        return Section("training", "Training", "", [page.missing("Training", reason)])
    rows = [
        [
            f"fold {fold['fold']}",
            f"{fold['rows']:,}",
            "" if fold["positives"] is None else f"{fold['positives']:,}",
            _number(fold["last_auc"]),
            _number(fold["best_auc"]),
            f"{fold['best_epoch']}",
            f"{fold['seconds'] / 60:.1f}",
            f"{fold['images_per_second']:.0f}",
        ]
        for fold in folds
    ]
    header = ["", "images", results.words.many, "last AUC", "best AUC", "at epoch", "minutes"]
    return Section(
        "training",
        "Training",
        "A thin line a fold, the thick one their mean. The last epoch is the one that counts: "
        "the best one (small dots) is chosen on the rows it is scored on.",
        [
            album.card("loss", "Training loss", training.plot_history(folds, "loss"), ""),
            album.card("validation_auc", "Validation AUC", training.plot_history(folds, "auc"), ""),
            page.card("Folds", page.table([*header, "images/s"], rows), width="wide"),
        ],
    )


def blend_section(blend: Mapping[str, Any]) -> Section:
    """The members with their weights, and what each method of blending is worth."""
    scores = blend.get("member_scores", {})
    objective = blend.get("objective", "auc")
    members = [
        [name, _number(scores.get(name, {}).get(objective)), _number(blend["weights"].get(name), 3)]
        for name in blend["members"]
    ]
    methods = []
    for name, found in blend["methods"].items():
        low, high = found["interval"]
        methods.append(
            [
                f"{name} (chosen)" if name == blend["chosen"] else name,
                _number(found["in_sample"]),
                f"{_number(found['nested'])}  {_number(low, 3)} – {_number(high, 3)}",
                _number(found["p_against_equal"], 3),
            ]
        )
    header = ["", "in sample", "nested, 95 % interval", "p against equal weights"]
    return Section(
        "blend",
        "Blend",
        "In sample, weights are scored on the rows they were chosen on; nested, on groups they "
        "never saw. Every score in this report is a nested one.",
        [
            page.card("Members", page.table(["", LABELS.get(objective, "AUC"), "weight"], members)),
            page.card("Methods", page.table(header, methods), blend.get("reason", ""), "double"),
        ],
    )


def _number(value: float | None, digits: int = 4) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
