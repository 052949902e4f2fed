"""The sections on what came out: scores, decisions and errors, test."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lesions.evaluation import calibration, confusion, metrics
from lesions.evaluation.intervals import bootstrap
from lesions.reporting import data, decisions, page, rates, scores
from lesions.reporting.album import Album, percent, slug
from lesions.reporting.decisions import Decisions
from lesions.reporting.page import Section
from lesions.reporting.results import Results

MEASURE_REPLICATES = 300


def scores_section(
    results: Results, album: Album, auc: pd.DataFrame, decided: Decisions | None, why_not: str
) -> Section:
    """AUC by part, ROC, PR, scores by class; `why_not` is shown where there are no curves."""
    words = results.words
    baseline = (
        "Diamonds know who was photographed and how, and see no pixel: what the model adds is the "
        "distance to them."
        if results.shortcuts
        else "The scores of models without pixels are absent: python scripts/audit.py --dataset "
        f"{results.dataset} writes them."
    )
    forest = album.card(
        "auc",
        "AUC by source, fold and without pixels",
        scores.plot_forest(auc),
        f"Intervals by a bootstrap over groups. {baseline}",
    )
    numbers = page.card(
        "AUC as a table",
        page.table(["", f"{words.many} of images", "AUC, 95 % interval"], _auc_rows(auc)),
    )
    if decided is None:
        return Section("scores", "Scores", why_not, [forest, numbers])
    return Section(
        "scores",
        "Scores",
        f"How well the model orders {words.many} above other lesions, on images that neither "
        "it nor an image of the same group was trained on.",
        [
            forest,
            *_curve_cards(results, album, decided, f"{auc['auc'].iloc[0]:.3f}"),
            page.card(
                "Other measures",
                page.table(["", "value", "95 % interval"], measure_rows(results.oof, decided)),
                "Of the order (first three), of the decisions at the threshold (next four), and "
                f"of the calibrated risk (last three). Intervals from {MEASURE_REPLICATES} "
                "resamples of the groups.",
            ),
            numbers,
        ],
    )


def _curve_cards(results: Results, album: Album, decided: Decisions, auc: str) -> list[str]:
    oof, caught, words = results.oof, decided.sensitivity.value, results.words
    roc, precision = scores.curve_bands(oof)
    right = float(oof["target"][decided.flagged].mean())
    share = float(oof["target"].mean())
    return [
        album.card(
            "roc",
            "ROC curve",
            scores.plot_roc(roc, decided.point, auc, words),
            "Shaded: 95 % of the curves if other patients had been drawn.",
        ),
        album.card(
            "precision_recall",
            "Precision and recall",
            scores.plot_precision(precision, share, (caught, right), words),
            f"How many of the flagged lesions are {words.kind} depends on how common {words.many} "
            f"are: here {percent(share)} of the images.",
        ),
        album.card(
            "score_distribution",
            "Scores by class",
            scores.plot_histogram(oof, decided.threshold.value, results.score_label, words),
            "Where the two overlap, no threshold is right.",
        ),
    ]


def _auc_rows(auc: pd.DataFrame) -> list[list[str]]:
    rows = []
    for row in auc.to_dict("records"):
        measured = not np.isnan(row["rows"])  # elsewhere, by the audit, where not
        counts = f"{row['positives']:,.0f} of {row['rows']:,.0f}" if measured else ""
        value = f"{row['auc']:.4f}  " if not np.isnan(row["auc"]) else ""
        rows.append(
            [f"{row['part']}", counts, value + limits(row["low"], row["high"], row["reason"])]
        )
    return rows


def limits(low: float, high: float, reason: str | None) -> str:
    """An interval as a table shows it, or why there is none."""
    return reason or "n/a" if np.isnan(low) else f"{low:.3f} – {high:.3f}"


def measure_rows(oof: pd.DataFrame, decided: Decisions) -> list[list[str]]:
    """Name, value and interval of what AUC does not say, for the page's table."""
    measures: list[tuple[str, metrics.Metric, ArrayLike]] = [
        ("average precision", metrics.average_precision, oof["prob"]),
        ("partial AUC above 80 % sensitivity", metrics.partial_auc(0.8), oof["prob"]),
        ("specificity at 95 % sensitivity", metrics.specificity_at(0.95), oof["prob"]),
        ("F1", confusion.f1, decided.flagged),
        ("F2", confusion.f2, decided.flagged),
        ("balanced accuracy", confusion.balanced_accuracy, decided.flagged),
        ("Cohen's kappa", confusion.kappa, decided.flagged),
        ("Brier score", calibration.brier, decided.risk),
        ("expected calibration error", calibration.calibration_error, decided.risk),
        ("calibration slope", calibration.calibration_slope, decided.risk),
    ]
    rows = []
    for name, metric, prob in measures:
        found = bootstrap(metric, oof["target"], prob, oof["group"], MEASURE_REPLICATES)
        value = "n/a" if np.isnan(found.value) else f"{found.value:.3f}"
        rows.append([name, value, limits(found.low, found.high, found.reason)])
    return rows


def decisions_section(results: Results, album: Album, decided: Decisions) -> Section:
    """Confusion, calibration, decision curve and error rates by part."""
    oof, words = results.oof, results.words
    held = (
        "each fold is judged by the threshold of the other folds"
        if decided.across_folds
        else "there is one fold only, so the threshold is judged on the rows it was fitted on"
    )
    cards = [
        album.card(
            "confusion",
            "At the threshold",
            scores.plot_confusion(decisions.confusion_counts(oof, decided.flagged), words.kind),
            f"Images of all folds; {held}.",
        ),
        album.card(
            "calibration",
            "Calibration",
            decisions.plot_calibration(oof, decided.risk, results.is_probability, words),
            "Tenths of the images by predicted risk. On the dotted line, of 100 lesions with a "
            f"predicted risk of 20 %, 20 are {words.kind}. A loss that weights the rare class up "
            "moves raw scores to the right. Axes are logarithmic.",
        ),
        album.card(
            "decision_curve",
            "Is acting on it worth it?",
            decisions.plot_decision_curve(oof, decided.risk),
            f"Net benefit counts a {words.one} found as 1 and a needless biopsy at the odds of the "
            "risk one acts at. A model is of use where it lies above both lines.",
        ),
    ]
    return Section(
        "decisions",
        "Decisions and errors",
        "One threshold for everybody errs more in some parts than in others. Dots are shares, "
        "bars 95 % intervals that allow for a patient's images being alike, grey numbers the "
        "images behind each dot, dotted lines the share over all.",
        [*cards, *_error_cards(results, album, decided)],
    )


def _error_cards(results: Results, album: Album, decided: Decisions) -> list[str]:
    oof = results.oof
    parts = data.factors(oof) | {"Certainty": decisions.certainty(decided.margin)}
    target, groups = oof["target"].to_numpy(), oof["group"].to_numpy()
    cards = []
    for name, values in data.by_size(parts):
        title = f"Errors by {name.lower()}"
        if set(values.cat.categories) == {data.ABSENT}:
            cards.append(page.missing(title, "Not recorded in table.csv."))
            continue
        figure = rates.plot_errors(values, target, decided.flagged, groups, results.words)
        cards.append(album.card(slug("errors", name), title, figure, ""))
    return cards


def test_section(results: Results, album: Album, decided: Decisions | None) -> Section:
    """The test rows' scores beside the out-of-fold ones, and what the threshold makes of them."""
    title, oof, test = "Test", results.oof, results.test
    if not len(test) or decided is None:
        reason = f"No test predictions yet: python scripts/predict.py --run {results.name}"
        if len(test):
            reason = "There is no threshold to compare at."
        return Section("test", title, "", [page.missing("Test predictions", reason)])
    return Section(
        "test",
        title,
        f"{len(test):,} images that no part of the training saw. The threshold comes from the "
        "out-of-fold predictions and is applied here once.",
        [
            album.card(
                "test_distribution",
                "Scores on the test images",
                data.plot_test(oof, test, decided.threshold.value, results.score_label),
                "The test score is the mean of several models, so it is a little less extreme; "
                "a shape that is quite different means other images or another preparation."
                if results.is_probability
                else "Ranks among the test images, so both are flat by construction.",
            ),
            page.card(
                "At the threshold",
                page.table(["", "out-of-fold", "test"], _test_rows(results, decided)),
                "In brackets a 95 % interval."
                if test["target"].notna().any()
                else "The test rows have no target.",
                "double",
            ),
        ],
    )


def _test_rows(results: Results, decided: Decisions) -> list[list[str]]:
    """What the threshold makes of the out-of-fold and of the test rows, by source and class."""
    oof, test, caught = results.oof, results.test, f"{results.words.many} caught"
    called = decided.threshold.apply(test["prob"]) == 1
    rows = [["flagged", percent(decided.flagged.mean()), percent(called.mean())]]
    for source in sorted(set(test["source"])):
        before, now = (oof["source"] == source).to_numpy(), (test["source"] == source).to_numpy()
        shown = percent(decided.flagged[before].mean()) if before.any() else "not trained on"
        rows.append([f"flagged, {source}", shown, percent(called[now].mean())])
    known = test["target"].notna().to_numpy()
    if known.any():
        target = test["target"].to_numpy()
        for value, event, name in ((1, called, caught), (0, ~called, "benign cleared")):
            here = rates.rate(event[target == value], test["group"][target == value])
            before = decided.sensitivity if value else decided.specificity
            shown = f"{percent(here.value)} ({100 * here.low:.0f}–{100 * here.high:.0f})"
            rows.append([name, percent(before.value), shown])
    return rows
