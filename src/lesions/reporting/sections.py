"""The numbers and figures of each section of a report, as the template takes them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.errors import InputError
from lesions.evaluation import intervals, metrics
from lesions.evaluation.calibration import calibration_error, clipped_logit, equal_bins
from lesions.evaluation.conformal import AGES, lowest
from lesions.evaluation.intervals import Interval, bootstrap
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import LABELS, decision_scores, score_rows
from lesions.evaluation.thresholds import RULES, Threshold, by_recall, net_benefit
from lesions.inference.calibration import Calibration, cross_fit, cross_sets
from lesions.oof import Oof
from lesions.reporting import breakdown, figures
from lesions.reporting.breakdown import Part, Words
from lesions.reporting.style import BENIGN, MELANOMA, MODEL, MUTED

FEWER = 300  # resamples for a long list of measures
FIFTHS = pd.Index(["least certain fifth", "second", "third", "fourth", "most certain fifth"])
RISKS = np.linspace(0.01, 0.4, 40)


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
    rates = {"sensitivity": metrics.sensitivity, "specificity": metrics.specificity}
    found = intervals.bootstrap_each(rates, positive, crossed.flagged, oof.groups)
    sensitivity, right = found.values()
    at = None if oof.task.several else calibration.apply(np.array([[threshold.value]]))[0, 0]
    return Decisions(
        threshold=threshold,
        threshold_risk=at,
        flagged=crossed.flagged,
        probs=crossed.probs,
        margin=np.abs(clipped_logit(score) - clipped_logit(threshold.value)),
        by=crossed.by,
        sensitivity=sensitivity,
        false_positive_rate=Interval(1 - right.value, 1 - right.high, 1 - right.low),
        biopsies=metrics.number_needed_to_biopsy(positive, crossed.flagged),
    )


def data_section(
    drawn: dict[str, Figure], rows: pd.DataFrame, positive: np.ndarray, score: Floats | None,
    words: Words, images: Any, classes: np.ndarray,
) -> dict[str, str]:  # fmt: skip
    """Draw what the images are; by part of the data the figure of its images.

    `rows` are of the table, and their place in it; `images` are its cache, None without one;
    `classes` (N,) tell the rows apart by pixels.
    """
    drawn["diagnoses"] = breakdown.plot_diagnoses(rows["diagnosis"], positive)
    of = (positive, rows["group"].to_numpy(), words)
    parts = breakdown.factors(rows)
    columns = breakdown.numbers(rows, positive, score, words)
    if columns.shape[1] > 1:
        drawn["correlation"] = figures.plot_correlation(columns)
    found = breakdown.draw_parts(drawn, "data", parts, breakdown.plot_factor, *of)
    if images is not None:
        places = rows["row"].to_numpy()
        drawn["image_properties"] = breakdown.plot_properties(images, places, classes)
    return found


@dataclass
class Sections:
    """A method a section: what the template takes of it; its figures go into `drawn`.

    Without `decided` there are no curves and no errors at a threshold; `test` are predictions of
    the test rows, with codes of -1 where there is no label.
    """

    oof: Oof
    test: Oof | None
    decided: Decisions | None
    calibrated: Floats
    words: Words
    drawn: dict[str, Figure] = field(default_factory=dict)
    off_curve: bool = False  # whether the operating point lies off the ROC curve

    def parts(self) -> list[tuple[str, Oof]]:
        """The rows by name: of all folds, each source, each fold, and the labelled test rows."""
        oof, parts = self.oof, [("all folds", self.oof)]
        for column, prefix in (("source", ""), ("fold", "fold ")):
            values = sorted(set(oof.table[column]))
            for value in values if len(values) > 1 else []:
                rows = (oof.table[column] == value).to_numpy()
                parts.append((f"{prefix}{value}", oof.take(rows)))
        if self.test is not None and (self.test.codes >= 0).any():
            parts.append(("held-out test", self.test.take(self.test.codes >= 0)))
        return parts

    def auc(self, baselines: list[Part]) -> list[Part]:
        """The AUC of positive or not of each part, and then the baselines."""
        found = []
        for name, part in self.parts():
            auc = intervals.delong(part.positive, part.score, part.groups)
            found.append(Part(name, auc, len(part.codes), int(part.positive.sum())))
        self.drawn["auc"] = breakdown.plot_forest(found + baselines)
        return found + baselines

    def measures(self, decided: Decisions) -> dict[str, Interval]:
        """Measures of ranking, decisions and probabilities, beside the curves."""
        oof, drawn = self.oof, self.drawn
        positive, score, groups = oof.positive, oof.score, oof.groups
        roc, precision = figures.curve_bands(positive, score, groups)
        caught, false_alarms = decided.sensitivity.value, decided.false_positive_rate.value
        right, share = float(positive[decided.flagged].mean()), float(positive.mean())
        on_curve = float(np.interp(false_alarms, figures.GRID, roc[0]))
        self.off_curve = abs(on_curve - caught) > 0.005
        name = f"AUC {metrics.roc_auc(positive, score):.3f}"
        drawn["roc"] = figures.plot_curve(roc, name, (false_alarms, caught))
        drawn["precision_recall"] = figures.plot_curve(
            precision, "model", (caught, right), (share, share), figures.PRECISION_RECALL
        )
        kinds = [("benign", score[~positive], BENIGN)]
        kinds.append((self.words.kind, score[positive], MELANOMA))
        drawn["score_distribution"] = self.histogram(kinds, decided)
        risk = oof.task.score(decided.probs)
        return decision_scores(positive, score, decided.flagged, risk, groups, FEWER)

    def histogram(self, parts: list[tuple[str, np.ndarray, str]], decided: Decisions) -> Figure:
        """Raw scores of (name, scores, colour), and the threshold."""
        label = "predicted score" if self.oof.is_probability else "rank of the blended score"
        return figures.plot_histogram(parts, decided.threshold.value, label)

    def errors(self, decided: Decisions) -> dict[str, str]:
        """Confusion, calibration, decision curve; by part the figure of its error rates."""
        oof, drawn = self.oof, self.drawn
        positive, groups, risk = oof.positive, oof.groups, oof.task.score(decided.probs)
        counts = metrics.build_confusion(~positive, ~decided.flagged)
        drawn["confusion"] = figures.plot_confusion(
            counts, [self.words.kind, "benign"], ["flagged", "not flagged"]
        )
        lines = [(f"calibrated, cross-fitted by {decided.by}", risk)]
        if oof.is_probability:
            lines.insert(0, ("uncalibrated", oof.score))
        axes = ("predicted probability", f"observed frequency of {self.words.many}")
        drawn["calibration"] = figures.plot_reliability(lines, positive, groups, axes, True)
        worth = net_benefit(RISKS)
        band, everybody = figures.band_of(worth, positive, risk, groups), np.ones(len(risk))
        curve = figures.plot_decision_curve(RISKS, band, worth.all(positive, everybody))
        drawn["decision_curve"] = curve
        fifths = pd.Categorical.from_codes(equal_bins(decided.margin, 5), FIFTHS, ordered=True)
        parts = breakdown.factors(oof.table) | {"certainty": pd.Series(fifths)}
        of = (positive, decided.flagged, groups, self.words)
        return breakdown.draw_parts(drawn, "errors", parts, breakdown.plot_errors, *of)

    def classes(self) -> dict[str, Any]:
        """Scores over all classes and of each one, confusion, confidence; empty for yes or no.

        Confidence is judged with the cross-fitted probabilities, where there are some.
        """
        oof, drawn = self.oof, self.drawn
        if not oof.task.several:
            return {}
        codes, names, groups = oof.codes, oof.task.classes, oof.groups
        parts = {
            name: score_rows(part.codes, part.probs, names, part.groups)
            for name, part in self.parts()
        }
        overall, classes = parts["all folds"]
        called = oof.probs.argmax(axis=1)
        counts = metrics.build_confusion(codes, called, len(names))
        images = dict(zip(names, counts.sum(axis=1).astype(int), strict=True))
        drawn["class_roc"], drawn["class_precision_recall"] = figures.plot_class_curves(
            codes, oof.probs, groups, classes
        )
        drawn["class_confusion"] = figures.plot_confusion(counts, names, names)
        probs = self.decided.probs if self.decided else self.calibrated
        right, sure = called == codes, probs[np.arange(len(codes)), called]
        lines = [("uncalibrated", oof.probs.max(axis=1)), ("calibrated", sure)]
        axes = ("probability of the predicted class", "accuracy")
        drawn["class_calibration"] = figures.plot_reliability(lines, right, groups, axes, False)
        pairs = pd.MultiIndex.from_product([names, names])
        swaps = pd.Series((counts - np.diag(np.diagonal(counts))).ravel(), pairs)
        return {
            "overall": {LABELS[name]: found for name, found in overall.items()},
            "classes": classes,
            "class_parts": parts,
            "images_of": images,
            "class_kappa": bootstrap(metrics.kappa, codes, called, groups, FEWER),
            "class_error": bootstrap(calibration_error, right, sure, groups, FEWER),
            "class_loss": bootstrap(metrics.log_loss, codes, probs, groups, FEWER),
            "swaps": swaps[swaps > 0].nlargest(10),
        }

    def sets(self) -> list[dict[str, Any]]:
        """Coverage and size of the sets of the malignant lesions of each age, and of each class.

        Beside those of one cut for all rows, which covers 90 % of them and promises no part that.
        """
        oof, probs = self.oof, metrics.all_columns(self.oof.probs)
        try:
            held, known = cross_sets(oof)
        except InputError:
            return []
        true = probs[np.arange(len(probs)), oof.codes]
        one = probs >= lowest(true, np.arange(len(true)))
        ages = breakdown.bands(oof.table["age_approx"], AGES)
        positive, many = oof.positive, self.words.many
        parts = {f"all {many}": positive}
        parts |= {f"{many}, age {age}": positive & (ages == age) for age in ages.cat.categories}
        names = oof.task.classes if oof.task.several else ("benign", self.words.kind)
        parts |= {name: oof.codes == k for k, name in enumerate(names)}
        found = []
        for name, rows in parts.items():
            where, every = np.flatnonzero(rows & known), np.flatnonzero(rows)
            if len(every):
                ways = ((held, where), (one, every))
                shares = [intervals.exact(h[w, oof.codes[w]].sum(), len(w)) for h, w in ways]
                sizes = [h[w].sum(axis=1).mean() for h, w in ways if len(w)]
                found.append({"name": name, "rows": len(every), "without": len(every) - len(where),
                              "shares": shares, "sizes": sizes})  # fmt: skip
        return found

    def held_out(self) -> dict[str, Any] | None:
        """The test rows' scores beside the out-of-fold ones; the rates of both at the threshold."""
        oof, test, decided, many = self.oof, self.test, self.decided, self.words.many
        if test is None or decided is None:
            return None if test is None else {"rows": len(test.table)}
        called = decided.threshold.apply(test.score) == 1
        scores = [("out-of-fold", oof.score, MUTED), ("test", test.score, MODEL)]
        self.drawn["test_distribution"] = self.histogram(scores, decided)
        flagged = {"flagged": (decided.flagged.mean(), called.mean())}
        for source in sorted(set(test.table["source"])):
            before = decided.flagged[(oof.table["source"] == source).to_numpy()]
            now = called[(test.table["source"] == source).to_numpy()]
            flagged[f"flagged, {source}"] = (before.mean() if len(before) else None, now.mean())
        known, labelled = test.codes >= 0, {}
        kinds = [
            (f"{many} flagged (sensitivity)", decided.sensitivity, test.positive),
            ("benign flagged (false positive rate)", decided.false_positive_rate, ~test.positive),
        ]
        for name, fitted, kind in kinds if known.any() else []:
            rows = known & kind
            labelled[name] = (fitted, breakdown.rate(called[rows], test.groups[rows]))
        return {"rows": len(test.table), "flagged": flagged, "labelled": labelled}
