"""A report: one HTML page that needs nothing beside it, and its figures as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions import files
from lesions.errors import InputError
from lesions.evaluation.confusion import number_needed_to_biopsy
from lesions.evaluation.intervals import Interval, auc_interval, score_table
from lesions.reporting import materials, page, sections, style
from lesions.reporting.album import Album
from lesions.reporting.class_lead import class_key_figures, class_lead
from lesions.reporting.class_sections import (
    answer,
    class_errors_section,
    class_galleries_section,
    class_scores_section,
    collapse_results,
)
from lesions.reporting.decisions import Decisions, decide
from lesions.reporting.page import KeyFigure, Section
from lesions.reporting.results import Results


@dataclass(frozen=True)
class Report:
    """The page as text, and its figures by name."""

    html: str
    figures: dict[str, Figure]

    def write(self, path: Path, pictures: Path) -> None:
        """The page to `path`, each figure to `pictures`/<name>.png."""
        with style.drawing():
            for name, figure in self.figures.items():
                style.write_png(figure, pictures / f"{name}.png")
        files.write_text(path, self.html)


def build_report(results: Results, recall: float = 0.9, further: Sequence[Section] = ()) -> Report:
    """The report on `results`, with the threshold that still catches `recall` of the positives.

    With several classes their own sections come first, and the others ask: malignant or not? Then
    come `further` sections.
    """
    asked = collapse_results(results) if results.classes else results
    try:
        decided, why_not = decide(asked.oof, recall), ""
    except InputError as error:  # the panels that need a threshold say so; the others stand
        decided, why_not = None, f"No threshold, no curves: {error}."
    auc = auc_by_part(asked)
    figures = key_figures(asked, auc)
    top = lead(asked, decided) if decided else page.lead(f"<p>{escape(why_not)}</p>")
    album, parts = Album(), list[Section]()
    with style.drawing():
        if results.classes:
            answers = answer(results)
            figures, top = class_key_figures(results, answers, auc), class_lead(results, answers)
            parts.append(class_scores_section(results, album, answers))
            parts.append(class_errors_section(results, album, answers))
            parts.append(class_galleries_section(results, album, answers))
        parts += _answer_sections(asked, album, auc, decided, why_not, bool(results.classes))
        parts += further
        parts.append(materials.data_section(asked, album))
        if results.blend:
            parts.append(materials.blend_section(results.blend))
        else:
            parts.append(materials.training_section(results, album))
    html = page.build_page(
        results.name,
        f"Report on out-of-fold predictions · data set {results.dataset}",
        figures,
        top,
        parts,
        "".join(page.folded(title, text) for title, text in results.details.items()),
    )
    return Report(html, album.figures)


def _answer_sections(
    results: Results,
    album: Album,
    auc: pd.DataFrame,
    decided: Decisions | None,
    why_not: str,
    collapsed: bool,
) -> list[Section]:
    """The sections on yes or no; `collapsed` from several classes, which the titles then say."""
    parts = [sections.scores_section(results, album, auc, decided, why_not)]
    if decided:
        parts.append(sections.decisions_section(results, album, decided))
        parts.append(materials.galleries_section(results, album, decided))
    parts.append(sections.test_section(results, album, decided))
    if not collapsed:
        return parts
    intro = "The probabilities of the malignant classes added up. "
    parts[0] = replace(parts[0], intro=intro + parts[0].intro)
    return [replace(one, title=f"Malignant or not: {one.title.lower()}") for one in parts]


def auc_by_part(results: Results) -> pd.DataFrame:
    """AUC with interval overall, by source, by fold, on labelled test rows, and without pixels.

    Columns part, kind (model or baseline), rows, positives, auc, low, high, reason.
    """
    oof = results.oof
    scores = score_table(oof, by="source" if oof["source"].nunique() > 1 else None)
    scores["part"] = scores["part"].replace("all", "all folds")
    extra = []
    if oof["fold"].nunique() > 1:
        extra += [(f"fold {fold}", rows) for fold, rows in oof.groupby("fold")]
    labelled = results.test.dropna(subset=["target"])
    if len(labelled):
        extra.append(("held-out test", labelled))
    rows = [
        {
            "part": name,
            "rows": len(part),
            "positives": int(part["target"].sum()),
            **auc_interval(part["target"], part["prob"], part["group"]).__dict__,
        }
        for name, part in extra
    ]
    model = pd.concat([scores, pd.DataFrame(rows).rename(columns={"value": "auc"})])
    columns = ["features", "auc", "low", "high", "source"]
    shortcuts = pd.DataFrame(results.shortcuts or [], columns=columns)
    shortcuts["source"] = shortcuts["source"].replace("all", None)
    where = shortcuts["source"].map(lambda name: f", {name}" if isinstance(name, str) else "")
    shortcuts["part"] = "no pixels: " + shortcuts["features"] + where
    table = pd.concat([model.assign(kind="model"), shortcuts.assign(kind="baseline")])
    numbers = {name: float for name in ("auc", "low", "high", "rows", "positives")}
    return table.astype(numbers).reset_index(drop=True)


def key_figures(results: Results, auc: pd.DataFrame) -> list[KeyFigure]:
    """The strip: AUC overall, by source and held out, without pixels, and what it rests on."""
    model = auc[(auc["kind"] == "model") & ~auc["part"].str.startswith("fold ")]
    titles = {"all folds": "AUC, out-of-fold", "held-out test": "AUC, held-out test"}
    figures = [
        KeyFigure(titles.get(row["part"], f"AUC on {row['part']}"), *_auc_text(row))
        for row in model.to_dict("records")
    ]
    baselines = auc[auc["kind"] == "baseline"]
    if baselines["source"].isna().any():
        baselines = baselines[baselines["source"].isna()]
    if len(baselines):
        best = baselines.sort_values("auc").to_dict("records")[-1]
        figures.append(KeyFigure("AUC without pixels", _auc_text(best)[0], best["features"]))
    else:
        figures.append(KeyFigure("AUC without pixels", "–", "not audited"))
    groups = results.oof["group"].nunique()
    positives = int(results.oof["target"].sum())
    share = f"{100 * positives / len(results.oof):.1f} % of the images"
    figures.append(KeyFigure("Images", f"{len(results.oof):,}", f"in {groups:,} groups"))
    figures.append(KeyFigure(results.words.title, f"{positives:,}", share))
    return figures


def _auc_text(row: dict) -> tuple[str, str]:
    if np.isnan(row["auc"]):
        return "n/a", row["reason"] or ""
    known = not np.isnan(row["low"])
    return f"{row['auc']:.3f}", f"{row['low']:.3f} – {row['high']:.3f}" if known else ""


def lead(results: Results, decided: Decisions) -> str:
    """The operating point in plain words, as HTML."""
    alarms, words = 1 - decided.specificity.value, results.words
    needed = number_needed_to_biopsy(results.oof["target"], decided.flagged)
    fitted = (
        "The rates are those of thresholds fitted in the same way on the other folds, so that no "
        "image helps to choose the threshold it is judged by."
        if decided.across_folds
        else "With one fold there are no others to fit it on: the rates flatter it a little."
    )
    text = (
        f"<p>At this threshold <b>{_percent(decided.sensitivity)}</b> of {words.many} are caught"
        f"{_range(decided.sensitivity)}; of 100 benign lesions <b>{100 * alarms:.0f}</b> are sent "
        f"for biopsy{_range(decided.specificity, complement=True)}. That is "
        f"{needed:.1f} biopsies for each {words.one} found.</p>"
        f'<p class="fine">The threshold, {decided.threshold.value:.4f}, is the highest one with '
        f"{escape(decided.threshold.rule)} on the out-of-fold predictions. {fitted}</p>"
    )
    caught = round(100 * decided.sensitivity.value)
    pictures = page.hundred(caught, "melanoma", f"Of 100 {words.many} {caught} are caught.")
    flagged = round(100 * alarms)
    pictures += page.hundred(flagged, "benign", f"Of 100 benign lesions {flagged} are flagged.")
    return page.lead(text, pictures)


def _percent(rate: Interval) -> str:
    return f"{100 * rate.value:.0f} %"


def _range(rate: Interval, complement: bool = False) -> str:
    """ " (88–92)", as a 95 % interval of a percentage; empty where there is none."""
    if np.isnan(rate.low):
        return ""
    low, high = (1 - rate.high, 1 - rate.low) if complement else (rate.low, rate.high)
    return f" ({100 * low:.0f}–{100 * high:.0f})"
