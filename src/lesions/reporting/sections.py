"""The numbers and figures of each section of a report, as the template takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.evaluation import metrics
from lesions.evaluation.calibration import calibration_error, clipped_logit, equal_bins, fit_scaling
from lesions.evaluation.intervals import Interval, bootstrap, bootstrap_values
from lesions.evaluation.metrics import Floats, roc_auc
from lesions.evaluation.scores import LABELS, score_rows
from lesions.evaluation.thresholds import RULES, Threshold, by_recall, decision_curve, net_benefit
from lesions.inference.calibration import Calibration, cross_fit
from lesions.oof import Oof
from lesions.reporting import breakdown, figures
from lesions.reporting.breakdown import ABSENT, Part, Words
from lesions.reporting.style import BENIGN, MELANOMA, MODEL, MUTED

MEASURE_REPLICATES = 300
FIFTHS = ["least certain fifth", "second", "third", "fourth", "most certain fifth"]
RISKS = np.linspace(0.01, 0.4, 40)
Figures = dict[str, Figure]


@dataclass(frozen=True)
class Decisions:
    """The threshold, and what it makes of the out-of-fold rows.

    `threshold` is chosen on all rows; `flagged` (N,) and `probs` (N, C), calibrated, are
    cross-fitted: no row is judged by a threshold or calibration that saw its target. `margin` (N,)
    is the distance to the threshold in log odds, `by` what the parts were: fold or group.
    """

    threshold: Threshold
    threshold_risk: float | None  # the calibrated probability at the threshold, of yes or no
    flagged: np.ndarray
    probs: Floats
    margin: np.ndarray
    by: str
    sensitivity: Interval
    false_positive_rate: Interval
    biopsies: float


def decide(oof: Oof, calibration: Calibration, recall: float | None) -> Decisions:
    """Decisions at the calibration's threshold, or at the one that has at least `recall`.

    InputError where the rows do not allow one (one class, too few).
    """
    positive, score = oof.positive, oof.score

    def rule(target: Any, prob: Any) -> Threshold:
        if recall is not None:
            return by_recall(target, prob, recall)
        found = (one(target, prob) for one in RULES.values())
        return next(cut for cut in found if cut.rule == calibration.threshold.rule)

    threshold, crossed = rule(positive, score), cross_fit(oof, rule)
    flagged = crossed.flagged
    miss = bootstrap(metrics.specificity, positive, flagged, oof.groups)
    at = None if oof.task.several else calibration.apply(np.array([[threshold.value]]))[0, 0]
    return Decisions(
        threshold=threshold,
        threshold_risk=at,
        flagged=flagged,
        probs=crossed.probs,
        margin=np.abs(clipped_logit(score) - clipped_logit(threshold.value)),
        by=crossed.by,
        sensitivity=bootstrap(metrics.sensitivity, positive, flagged, oof.groups),
        false_positive_rate=Interval(1 - miss.value, 1 - miss.high, 1 - miss.low, miss.se),
        biopsies=metrics.number_needed_to_biopsy(positive, flagged),
    )


def parts_of(oof: Oof, test: Oof | None) -> list[tuple[str, Oof]]:
    """The rows by name: of all folds, each source, each fold, and the labelled test rows."""
    parts = [("all folds", oof)]
    for column, prefix in (("source", ""), ("fold", "fold ")):
        values = sorted(set(oof.table[column]))
        for value in values if len(values) > 1 else []:
            parts.append((f"{prefix}{value}", oof.take((oof.table[column] == value).to_numpy())))
    if test is not None and (test.codes >= 0).any():
        parts.append(("held-out test", test.take(test.codes >= 0)))
    return parts


def auc_parts(oof: Oof, test: Oof | None) -> list[Part]:
    """The AUC of positive or not, of each of `parts_of`."""
    found = []
    for name, part in parts_of(oof, test):
        auc = bootstrap(roc_auc, part.positive, part.score, part.groups)
        found.append(Part(name, auc, len(part.codes), int(part.positive.sum())))
    return found


def scores_section(
    oof: Oof, decided: Decisions | None, auc: Sequence[Part], words: Words, drawn: Figures
) -> list[tuple[str, Interval]]:
    """Draw AUC by part and, with a threshold, the curves; the measures beside them."""
    drawn["auc"] = breakdown.plot_forest(auc)
    if decided is None:
        return []
    positive, score, groups = oof.positive, oof.score, oof.groups
    roc, precision = figures.curve_bands(positive, score, groups)
    caught, false_alarms = decided.sensitivity.value, decided.false_positive_rate.value
    right, share = float(positive[decided.flagged].mean()), float(positive.mean())
    name = f"AUC {auc[0].auc.value:.3f}"
    drawn["roc"] = figures.plot_curve(roc, name, (false_alarms, caught))
    drawn["precision_recall"] = figures.plot_curve(
        precision, "model", (caught, right), (share, share), figures.PRECISION_RECALL
    )
    kinds = [("benign", score[~positive], BENIGN), (words.kind, score[positive], MELANOMA)]
    label = score_label(oof)
    drawn["score_distribution"] = figures.plot_histogram(kinds, decided.threshold.value, label)
    risk = oof.task.score(decided.probs)
    measures = [
        ("average precision", metrics.average_precision, score),
        ("partial AUC above 80 % sensitivity", metrics.partial_auc(0.8), score),
        ("specificity at 95 % sensitivity", metrics.specificity_at(0.95), score),
        ("F1", metrics.f1, decided.flagged),
        ("F2", metrics.f2, decided.flagged),
        ("balanced accuracy", metrics.balanced_accuracy, decided.flagged),
        ("Cohen's kappa", metrics.kappa, decided.flagged),
        ("Brier score", metrics.brier, risk),
        ("expected calibration error", calibration_error, risk),
    ]
    slope = 1 / fit_scaling(positive, risk[:, None]).temperature
    return [
        *(
            (name, bootstrap(metric, positive, prob, groups, MEASURE_REPLICATES))
            for name, metric, prob in measures
        ),
        ("calibration slope", Interval(slope)),
    ]


def score_label(oof: Oof) -> str:
    """What the axis of the raw score is called."""
    return "predicted score" if oof.is_probability else "rank of the blended score"


def decisions_section(
    oof: Oof, decided: Decisions | None, words: Words, drawn: Figures
) -> dict[str, str]:
    """Draw confusion, calibration, decision curve and error rates; the parts of the last."""
    if decided is None:
        return {}
    positive, groups, risk = oof.positive, oof.groups, oof.task.score(decided.probs)
    counts = metrics.build_confusion(~positive, ~decided.flagged)
    drawn["confusion"] = figures.plot_confusion(
        counts, [words.kind, "benign"], ["flagged", "not flagged"]
    )
    lines = [(f"calibrated, cross-fitted by {decided.by}", risk)]
    if oof.is_probability:
        lines.insert(0, ("uncalibrated", oof.score))
    axes = ("predicted probability", f"observed frequency of {words.many}")
    drawn["calibration"] = figures.plot_reliability(lines, positive, groups, axes, True)
    worth = bootstrap_values(net_benefit(RISKS), positive, [risk], groups, MEASURE_REPLICATES)
    band = np.percentile(worth[:, 0], [2.5, 97.5], axis=0)
    curve = decision_curve(positive, risk, RISKS)
    drawn["decision_curve"] = figures.plot_decision_curve(curve, band)
    fifth = pd.CategoricalDtype(FIFTHS, ordered=True)
    certainty = pd.Series(np.array(FIFTHS)[equal_bins(decided.margin, 5)]).astype(fifth)
    parts = breakdown.factors(oof.table) | {"certainty": certainty}
    return _drawn_parts("errors", parts, drawn, lambda values: breakdown.plot_errors(
        values, positive, decided.flagged, groups, words
    ))  # fmt: skip


def data_section(oof: Oof, words: Words, drawn: Figures) -> dict[str, str]:
    """Draw diagnoses, correlation, and the images by part; the parts of the last."""
    positive, groups = oof.positive, oof.groups
    drawn["diagnoses"] = breakdown.plot_diagnoses(oof.table["diagnosis"], positive)
    columns = breakdown.numbers(oof.table, positive, oof.score, words)
    drawn["correlation"] = figures.plot_correlation(columns)
    return _drawn_parts("data", breakdown.factors(oof.table), drawn, lambda values:
                        breakdown.plot_factor(values, positive, groups, words))  # fmt: skip


def _drawn_parts(
    prefix: str, parts: Mapping[str, pd.Series], drawn: Figures,
    plot: Callable[[pd.Series], Figure],
) -> dict[str, str]:  # fmt: skip
    """The figure of each part by its name, "" where the table has no value of it."""
    found = {}
    for name, values in parts.items():
        known = {ABSENT} != set(values.cat.categories)
        found[name] = f"{prefix}_{name.replace(' ', '_')}" if known else ""
        if known:
            drawn[found[name]] = plot(values)
    return found


def classes_section(
    oof: Oof, decided: Decisions | None, calibrated: Floats, test: Oof | None, drawn: Figures
) -> dict[str, Any]:
    """Scores over all classes and of each one, confusion, confidence; empty for yes or no.

    Confidence is judged with the cross-fitted probabilities, where there are some.
    """
    if not oof.task.several:
        return {}
    codes, names, groups = oof.codes, oof.task.classes, oof.groups
    parts = [
        (name, score_rows(part.codes, part.probs, names, part.groups))
        for name, part in parts_of(oof, test)
    ]
    called = oof.probs.argmax(axis=1)
    counts = metrics.build_confusion(codes, called, len(names))
    images = dict(zip(names, counts.sum(axis=1).astype(int), strict=True))
    aucs = {name: found["auc"] for name, found in parts[0][1].classes.items()}
    drawn["class_auc"] = breakdown.plot_forest(
        [Part(f"{name}, {images[name]:,}", auc, images[name]) for name, auc in aucs.items()]
    )
    drawn["class_roc"] = figures.plot_class_rocs(codes, oof.probs, groups, aucs)
    drawn["class_confusion"] = figures.plot_confusion(counts, names, names)
    probs = decided.probs if decided else calibrated
    right, sure = called == codes, probs[np.arange(len(codes)), called]
    lines = [("uncalibrated", oof.probs.max(axis=1)), ("calibrated", sure)]
    axes = ("probability of the predicted class", "accuracy")
    drawn["class_calibration"] = figures.plot_reliability(lines, right, groups, axes, False)
    pairs = pd.MultiIndex.from_product([names, names])
    swaps = pd.Series((counts - np.diag(np.diagonal(counts))).ravel(), pairs)
    return {
        "overall": {LABELS[name]: found for name, found in parts[0][1].overall.items()},
        "class_parts": parts,
        "images_of": images,
        "class_error": bootstrap(calibration_error, right, sure, groups, MEASURE_REPLICATES),
        "class_loss": bootstrap(metrics.log_loss, codes, probs, groups, MEASURE_REPLICATES),
        "swaps": swaps[swaps > 0].nlargest(10),
    }


def test_section(
    oof: Oof, decided: Decisions | None, test: Oof | None, words: Words, drawn: Figures
) -> dict[str, Any] | None:
    """Draw the test rows' scores beside the out-of-fold ones; the rates of both at the threshold.

    None without test predictions.
    """
    if test is None or decided is None:
        return None if test is None else {"rows": len(test.table)}
    called, groups = decided.threshold.apply(test.score) == 1, test.groups
    scores = [("out-of-fold", oof.score, MUTED), ("test", test.score, MODEL)]
    label = score_label(oof)
    drawn["test_distribution"] = figures.plot_histogram(scores, decided.threshold.value, label)
    flagged = {"flagged": (decided.flagged.mean(), called.mean())}
    for source in sorted(set(test.table["source"])):
        before = decided.flagged[(oof.table["source"] == source).to_numpy()]
        now = called[(test.table["source"] == source).to_numpy()]
        flagged[f"flagged, {source}"] = (before.mean() if len(before) else None, now.mean())
    known, labelled = test.codes >= 0, {}
    kinds = [
        (f"{words.many} flagged (sensitivity)", decided.sensitivity, test.positive),
        ("benign flagged (false positive rate)", decided.false_positive_rate, ~test.positive),
    ]
    for name, before, kind in kinds if known.any() else []:
        rows = known & kind
        labelled[name] = (before, breakdown.rate(called[rows], groups[rows]))
    return {"rows": len(test.table), "flagged": flagged, "labelled": labelled}
