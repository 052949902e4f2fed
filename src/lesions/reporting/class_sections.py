"""The sections on tasks with more than two classes, and the same rows as malignant or not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lesions.data.tasks import MALIGNANT
from lesions.evaluation.calibration import calibration_error
from lesions.evaluation.confusion import build_confusion
from lesions.evaluation.intervals import Interval, bootstrap
from lesions.evaluation.metrics import Floats
from lesions.evaluation.multiclass import (
    LABELS,
    ClassReport,
    class_scores,
    codes_of,
    collapse,
    log_loss,
    report_classes,
)
from lesions.reporting import class_figures, page, scores
from lesions.reporting.album import Album
from lesions.reporting.gallery import TILES, Gallery
from lesions.reporting.materials import gallery_card
from lesions.reporting.page import Section
from lesions.reporting.results import Results


@dataclass(frozen=True)
class Answers:
    """What the most probable class makes of the out-of-fold rows, and its scores.

    `called` (N,) names, `counts` (C, C) with the true class as row.
    """

    probs: Floats
    called: np.ndarray
    counts: Floats
    report: ClassReport


def answer(results: Results) -> Answers:
    """The answers of the out-of-fold rows."""
    oof, classes = results.oof, results.classes
    probs = class_probs(oof, classes)
    codes, best = codes_of(oof["target"], classes), probs.argmax(axis=1)
    counts = build_confusion(codes, best, np.ones((1, len(oof))), len(classes))[0]
    report = report_classes(oof["target"], probs, classes, oof["group"])
    return Answers(probs, np.array(classes)[best], counts, report)


def class_probs(table: pd.DataFrame, classes: list[str]) -> Floats:
    """The columns prob_<class> as an array (N, C)."""
    return table[[f"prob_{name}" for name in classes]].to_numpy(np.float64)


def collapse_results(results: Results) -> Results:
    """The same rows as a question of yes or no: is it one of the malignant classes?"""

    def collapsed(table: pd.DataFrame) -> pd.DataFrame:
        known = table["target"].isin(results.classes)
        target = table["target"].isin(MALIGNANT).astype(float).where(known)
        prob = collapse(class_probs(table, results.classes), results.classes, MALIGNANT)
        return table.assign(target=target, prob=prob)

    oof = collapsed(results.oof).astype({"target": int})
    return replace(results, task="malignant", classes=[], oof=oof, test=collapsed(results.test))


def class_scores_section(results: Results, album: Album, answers: Answers) -> Section:
    """Macro scores by fold, and each class against the rest."""
    classes = answers.report.classes
    counts = answers.counts.sum(axis=1)
    forest = pd.DataFrame(
        [
            {"part": f"{name}, {n:,.0f}", "kind": "model", "auc": auc.value, **_limits(auc)}
            for (name, auc), n in zip(_aucs(answers).items(), counts, strict=True)
        ]
    )
    rows = [
        [name, f"{n:,.0f}", *(_told(found[key]) for key in ("auc", "recall", "precision"))]
        for (name, found), n in zip(classes.items(), counts, strict=True)
    ]
    aucs = {
        name: "n/a" if np.isnan(a.value) else f"{a.value:.3f}" for name, a in _aucs(answers).items()
    }
    return Section(
        "classes",
        "Diagnoses",
        "Each class against all others, and their plain means: a rare class counts as much as a "
        "common one. Every image is scored by a model that was trained on no image of its group.",
        [
            page.card(
                "All classes at once",
                page.table(["", *LABELS.values()], _macro_rows(results, answers)),
                "Intervals by a bootstrap over groups. " + _floor(answers, results.classes),
                "wide",
            ),
            album.card(
                "class_auc",
                "AUC of each class",
                scores.plot_forest(forest),
                "Against the rest; the number of images beside the name.",
            ),
            album.card(
                "class_roc",
                "ROC of each class",
                class_figures.plot_class_rocs(results.oof, aucs),
                "Against the rest. Shaded: 95 % of the curves if other groups had been drawn.",
            ),
            page.card(
                "Each class",
                page.table(["", "images", "AUC", "recall", "precision"], rows),
                "Recall and precision of the most probable class.",
                "double",
            ),
        ],
    )


def _aucs(answers: Answers) -> dict[str, Interval]:
    return {name: found["auc"] for name, found in answers.report.classes.items()}


def _limits(found: Interval) -> dict[str, float | str | None]:
    return {"low": found.low, "high": found.high, "reason": found.reason}


def _told(found: Interval) -> str:
    if np.isnan(found.value):
        return "n/a"
    known = "" if np.isnan(found.low) else f"  {found.low:.3f} – {found.high:.3f}"
    return f"{found.value:.3f}{known}"


def _macro_rows(results: Results, answers: Answers) -> list[list[str]]:
    """The macro scores of all folds, of each, of each source, and held out."""
    oof, test = results.oof, results.test[results.test["target"].isin(results.classes)]
    parts: list[tuple[str, Mapping[str, Interval]]] = [("all folds", answers.report.scores)]
    for column, name in (("fold", "fold "), ("source", "")):
        if oof[column].nunique() > 1:
            parts += [(f"{name}{key}", _part(rows, results)) for key, rows in oof.groupby(column)]
    if len(test):
        parts.append(("held-out test", _part(test, results)))
    return [[name, *(_told(found[key]) for key in LABELS)] for name, found in parts]


def _part(rows: pd.DataFrame, results: Results) -> Mapping[str, Interval]:
    probs = class_probs(rows, results.classes)
    return class_scores(rows["target"], probs, results.classes, rows["group"])


def _floor(answers: Answers, classes: list[str]) -> str:
    counts = answers.counts.sum(axis=1)
    most = int(counts.argmax())
    return (
        f"Calling everything {classes[most]} would have an accuracy of "
        f"{counts[most] / counts.sum():.3f} and a balanced accuracy of "
        f"{1 / (counts > 0).sum():.3f}."
    )


def class_errors_section(results: Results, album: Album, answers: Answers) -> Section:
    """Who is taken for whom, and whether the probability of the answer is true."""
    oof, best = results.oof, answers.probs.max(axis=1)
    right = (answers.called == oof["target"].to_numpy()).astype(int)
    error = bootstrap(calibration_error, right, best, oof["group"])
    loss = bootstrap(
        log_loss, codes_of(oof["target"], results.classes), answers.probs, oof["group"]
    )
    return Section(
        "confusion",
        "Confusion",
        "The answer is the most probable class; no threshold is chosen.",
        [
            album.card(
                "class_confusion",
                "Diagnoses and answers",
                class_figures.plot_class_confusion(answers.counts, results.classes),
                "Images of all folds, and their share of the row.",
            ),
            album.card(
                "class_calibration",
                "Is the answer as sure as it says?",
                class_figures.plot_confidence(right, best, oof["group"]),
                f"Tenths of the images; in blue how many there are. Expected calibration error "
                f"{_told(error)}, log loss {_told(loss)}.",
            ),
            page.card(
                "Most common errors",
                page.table(["", "images", "of the class"], _swaps(results, answers)),
            ),
        ],
    )


def _swaps(results: Results, answers: Answers, most: int = 10) -> list[list[str]]:
    """The most common errors: true class and answer, images, share of the true class."""
    counts = answers.counts - np.diag(np.diagonal(answers.counts))
    rows = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[:most]:
        i, j = divmod(int(cell), len(results.classes))
        if counts[i, j]:
            share = f"{100 * counts[i, j] / answers.counts[i].sum():.1f} %"
            name = f"{results.classes[i]} called {results.classes[j]}"
            rows.append([name, f"{counts[i, j]:,.0f}", share])
    return rows


def class_galleries_section(results: Results, album: Album, answers: Answers) -> Section:
    """The photographs that the model is most wrong about, class by class."""
    cards = [gallery_card(results, album, one) for one in choose_worst(results, answers)]
    return Section(
        "worst",
        "Worst errors",
        "As the model sees them, the surest wrong answer first; each lesion or patient is shown "
        "once a row. Below: the probability of the answer, the diagnosis → the answer.",
        cards,
    )


def choose_worst(results: Results, answers: Answers) -> list[Gallery]:
    """Of each class the rows with the surest wrong answers; `prob` is the answer's."""
    oof = results.oof.assign(prob=answers.probs.max(axis=1), called=answers.called)
    wrong = oof[oof["called"] != oof["target"]].sort_values("prob", ascending=False, kind="stable")
    galleries = []
    for name in results.classes:
        rows = wrong[wrong["target"] == name].drop_duplicates("group").head(TILES)
        shown = rows.assign(diagnosis=rows["target"].astype(str) + " → " + rows["called"])
        missed = int((wrong["target"] == name).sum())
        count = int((oof["target"] == name).sum())
        caption = f"{missed:,} of {count:,} images of {name} are called something else."
        galleries.append(Gallery(f"errors_{name}", f"{name} called something else", caption, shown))
    return galleries
