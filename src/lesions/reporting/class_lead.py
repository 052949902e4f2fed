"""The top of a report on more than two classes: the strip of figures, and what they mean."""

import numpy as np
import pandas as pd

from lesions.evaluation.intervals import Interval
from lesions.evaluation.multiclass import LABELS
from lesions.reporting import page
from lesions.reporting.class_sections import Answers
from lesions.reporting.page import KeyFigure
from lesions.reporting.results import Results


def class_key_figures(results: Results, answers: Answers, auc: pd.DataFrame) -> list[KeyFigure]:
    """The macro scores, AUC as malignant or not (`auc` of `report.auc_by_part`), and the images."""
    figures = [
        KeyFigure(label[0].upper() + label[1:], *_texts(answers.report.scores[name]))
        for name, label in LABELS.items()
    ]
    both = auc.iloc[0]
    found = Interval(both["auc"], both["low"], both["high"], np.nan, both["reason"])
    figures.append(KeyFigure("AUC, malignant or not", *_texts(found)))
    groups = results.oof["group"].nunique()
    figures.append(KeyFigure("Images", f"{len(results.oof):,}", f"in {groups:,} groups"))
    counts = pd.Series(answers.counts.sum(axis=1), results.classes)
    rarest = f"{counts.idxmin()}: {counts.min():,.0f} images"
    figures.append(KeyFigure("Classes", f"{len(results.classes)}", f"rarest {rarest}"))
    return figures


def _texts(found: Interval) -> tuple[str, str]:
    if np.isnan(found.value):
        return "n/a", found.reason or ""
    known = "" if np.isnan(found.low) else f"{found.low:.3f} – {found.high:.3f}"
    return f"{found.value:.3f}", known


def class_lead(results: Results, answers: Answers) -> str:
    """The most probable class as an answer, in plain words, as HTML."""
    scores = answers.report.scores
    right, even = scores["accuracy"], scores["balanced_accuracy"]
    if np.isnan(right.value):
        return page.lead(f"<p>No scores: {right.reason}.</p>")
    text = (
        f"<p>Of 100 images <b>{100 * right.value:.0f}</b>{_range(right)} get the right one of "
        f"{len(results.classes)} diagnoses; were every diagnosis equally common, it would be "
        f"<b>{100 * even.value:.0f}</b>{_range(even)}.</p>"
        '<p class="fine">The answer is the most probable class, by a model that was trained on no '
        "image of the same group.</p>"
    )
    hit = round(100 * right.value)
    pictures = page.hundred(hit, "model", f"Of 100 images {hit} are called right.")
    found = answers.report.classes.get("mel", {}).get("recall")
    if found and not np.isnan(found.value):
        caught = round(100 * found.value)
        told = f"Of 100 melanomas {caught} are called melanoma."
        pictures += page.hundred(caught, "melanoma", told)
    return page.lead(text, pictures)


def _range(rate: Interval) -> str:
    """ " (88–92)", as a 95 % interval of a percentage; empty where there is none."""
    return "" if np.isnan(rate.low) else f" ({100 * rate.low:.0f}–{100 * rate.high:.0f})"
