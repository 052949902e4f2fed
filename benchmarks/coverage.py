"""Do 95 % intervals hold the truth 95 times in 100? Simulated data sets, where the truth is known.

python benchmarks/coverage.py                       20 minutes on 2 cores
python benchmarks/coverage.py --repetitions 100     a look

Each data set has 4,000 images: 1.8 % positives of 2,056 patients of uneven size, or seven classes,
two of them of 1 %, of lesions photographed once or more. Patients and lesions shift the scores of
all their images. The truth is the score of a population of a million images of the same kind.
Beside the reported interval: the naive bootstrap over images, and two other intervals from the same
resamples, bias-corrected and symmetric in the logit.
"""

import sys
from collections.abc import Callable
from functools import cache
from multiprocessing import Pool as Processes
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, softmax
from scipy.stats import norm
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.blending.methods import METHODS
from lesions.blending.nested import nested_scores, split_groups
from lesions.blending.pool import build_pool
from lesions.cli import build_parser, run
from lesions.evaluation.intervals import bootstrap_values, compare, summarise
from lesions.evaluation.metrics import (
    Floats,
    Metric,
    average_precision,
    balanced_accuracy,
    class_f,
    mean_of_classes,
    of_confusion,
    partial_auc,
    roc_auc,
)
from lesions.provenance import Results

IMAGES = 4000
PATIENTS = 2056
SHARE = 0.018  # of positives, as in ISIC 2020
CLASSES = np.array([0.67, 0.11, 0.11, 0.055, 0.035, 0.01, 0.01])
SCALE = 250  # how many times larger the population is
FEW = 5  # every so many repetitions of what is dear: paired differences, nested gains

macro_f1 = of_confusion(lambda matrix: mean_of_classes(class_f(matrix)))


class Drawn(NamedTuple):
    """Codes (N,), the scores (K, N) of K models or the predicted class (1, N), groups (N,)."""

    codes: np.ndarray
    scores: Floats
    groups: np.ndarray


def draw_patients(generator: np.random.Generator, scale: int = 1, models: int = 1) -> Drawn:
    """Binormal scores: each patient shifts them, and has more or fewer positives than others."""
    sizes = 1 + generator.negative_binomial(0.1, 0.1 / (0.1 + 0.96), PATIENTS * scale)
    groups = np.repeat(np.arange(len(sizes)), sizes)[: IMAGES * scale]
    risk, shift = generator.normal(size=(2, len(sizes)))
    target = generator.random(len(groups)) < expit(logit(SHARE) - 1.2 + 1.7 * risk[groups])
    common = 1.3 * shift[groups] + 0.7 * generator.normal(size=len(groups))
    skills = np.linspace(1.9, 2.2, models)[:, None]
    own = generator.normal(size=(models, len(sizes)))[:, groups]
    own = 0.6 * own + 0.4 * generator.normal(size=(models, len(groups)))
    return Drawn(target.astype(int), skills * target + common + own, groups)


def draw_lesions(generator: np.random.Generator, scale: int = 1) -> Drawn:
    """Predicted classes; the images of a lesion share their class and part of the error."""
    sizes = 1 + generator.negative_binomial(0.3, 0.3 / (0.3 + 0.75), 2600 * scale)
    groups = np.repeat(np.arange(len(sizes)), sizes)[: IMAGES * scale]
    classes = generator.choice(len(CLASSES), len(sizes), p=CLASSES / CLASSES.sum())
    noise = generator.normal(size=(len(sizes), len(CLASSES)))[groups]
    noise = noise + 0.4 * generator.normal(size=(len(groups), len(CLASSES)))
    logits = np.log(CLASSES) * 0.6 + 2.2 * np.eye(len(CLASSES))[classes[groups]] + noise
    return Drawn(classes[groups], softmax(logits, axis=1).argmax(axis=1)[None], groups)


METRICS: dict[str, tuple[Metric, Callable[..., Drawn]]] = {
    "AUC": (roc_auc, draw_patients),
    "average precision": (average_precision, draw_patients),
    "partial AUC above 0.80 sensitivity": (partial_auc(0.8), draw_patients),
    "balanced accuracy, 7 classes": (balanced_accuracy, draw_lesions),
    "macro-F1, 7 classes": (macro_f1, draw_lesions),
}
DIFFERENCE, GAIN = "paired difference of two AUCs", "nested gain of a blend over equal weights"
LIMITS = {"AUC": 1.0, "partial AUC above 0.80 sensitivity": 0.2}


@cache
def truth(name: str) -> float:
    """The metric in a large population; of the paired difference, the AUCs' difference."""
    generator = np.random.default_rng(1)
    if name == DIFFERENCE:
        drawn = draw_patients(generator, SCALE, 2)
        return roc_auc(drawn.codes, drawn.scores[1]) - roc_auc(drawn.codes, drawn.scores[0])
    metric, draw = METRICS[name]
    drawn = draw(generator, SCALE)
    return metric(drawn.codes, drawn.scores[0])


@cache
def population() -> Drawn:
    """100,000 images, on which what a blend really gains is measured."""
    return draw_patients(np.random.default_rng(2), 25, 4)


def repeat(seed: int) -> list[tuple[str, str, bool, float]]:
    """One simulated data set: (metric, interval, whether it holds the truth, width)."""
    found = []
    for name, (metric, draw) in METRICS.items():
        drawn = draw(np.random.default_rng([3, seed]))
        value = metric(drawn.codes, drawn.scores[0])
        values = bootstrap_values(metric, drawn.codes, [drawn.scores[0]], drawn.groups)[:, 0]
        rows = bootstrap_values(metric, drawn.codes, [drawn.scores[0]])[:, 0]
        limits = {
            "reported": percentile(values),
            "bias-corrected": bias_corrected(value, values),
            "logit": symmetric(value, values, LIMITS.get(name, 1.0)),
            "over images": percentile(rows),
        }
        found += [(name, kind, *judged(truth(name), *pair)) for kind, pair in limits.items()]
    if seed % FEW == 0:
        found += repeat_difference(seed) + repeat_gain(seed)
    return found


def repeat_difference(seed: int) -> list[tuple[str, str, bool, float]]:
    drawn = draw_patients(np.random.default_rng([4, seed]), models=2)
    value = roc_auc(drawn.codes, drawn.scores[1]) - roc_auc(drawn.codes, drawn.scores[0])
    found = []
    for kind, groups in {"reported": drawn.groups, "over images": None}.items():
        values = bootstrap_values(roc_auc, drawn.codes, list(drawn.scores), groups)
        known = compare(value, values[:, 1] - values[:, 0]).difference
        found.append((DIFFERENCE, kind, *judged(truth(DIFFERENCE), known.low, known.high)))
    return found


def repeat_gain(seed: int) -> list[tuple[str, str, bool, float]]:
    """The nested gain of stacking; its truth is what the same blends gain in the population."""
    drawn, whole = draw_patients(np.random.default_rng([5, seed]), models=4), population()
    names = tuple("abcd")
    pool, large = (
        build_pool(expit(each.scores)[:, :, None], names, ("melanoma",), each.codes)
        for each in (drawn, whole)
    )
    parts = split_groups(pool.target, drawn.groups)
    fits = [METHODS["stacking"], METHODS["mean"]]
    scores = [nested_scores(fit, pool, parts) for fit in fits]
    value = pool.score(scores[0]) - pool.score(scores[1])
    real = [
        np.mean(
            [large.score(fit(pool.take(parts != part)).apply(large)) for part in np.unique(parts)]
        )
        for fit in fits
    ]
    found = []
    for kind, groups in {"reported": drawn.groups, "over images": None}.items():
        values = bootstrap_values(roc_auc, drawn.codes, [each[:, 0] for each in scores], groups)
        known = compare(value, values[:, 0] - values[:, 1]).difference
        found.append((GAIN, kind, *judged(float(real[0] - real[1]), known.low, known.high)))
    return found


def percentile(values: Floats) -> tuple[float, float]:
    found = summarise(0.0, values)
    return found.low, found.high


def bias_corrected(value: float, values: Floats) -> tuple[float, float]:
    """Efron 1981: percentiles moved by the share of resamples below the value."""
    values = values[~np.isnan(values)]
    below = (np.mean(values < value) + np.mean(values <= value)) / 2
    shift = norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    low, high = np.quantile(values, norm.cdf(2 * shift + norm.ppf([0.025, 0.975])))
    return float(low), float(high)


def symmetric(value: float, values: Floats, most: float) -> tuple[float, float]:
    """The value plus and minus 1.96 standard errors, in the logit of its share of `most`."""
    share, error = value / most, np.nanstd(values, ddof=1) / most
    half = norm.ppf(0.975) * error / max(share * (1 - share), 1e-9)
    low, high = expit(logit(np.clip(share, 1e-9, 1 - 1e-9)) + np.array([-half, half])) * most
    return float(low), float(high)


def judged(true: float, low: float, high: float) -> tuple[bool, float]:
    return low <= true <= high, high - low


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=2000, help="data sets (default 2000)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default 2)")
    results = Results(parser, "coverage.json")
    args = parser.parse_args(arguments)
    results.check(args)
    collected: dict[str, dict[str, list[list[float]]]] = {}
    with Processes(args.processes) as processes:
        drawn = processes.imap_unordered(repeat, range(args.repetitions), chunksize=5)
        quiet = not sys.stderr.isatty()
        for found in tqdm(drawn, total=args.repetitions, desc="data sets", disable=quiet):
            for name, kind, *outcome in found:
                collected.setdefault(name, {}).setdefault(kind, []).append(outcome)
    rows = []
    for name, kinds in collected.items():
        row: dict[str, Any] = {"score": name, "goal": 0.03 if name in (DIFFERENCE, GAIN) else 0.015}
        for kind, outcomes in kinds.items():
            holds, widths = np.array(outcomes, dtype=float).T
            row[kind] = {"coverage": float(holds.mean()), "width": float(np.median(widths))}
        rows.append(row | {"data_sets": len(holds)})
        shares = ", ".join(f"{kind} {100 * row[kind]['coverage']:.1f} %" for kind in kinds)
        print(f"{name:42} {len(holds):5} data sets: {shares}")
    results.write({"rows": rows, "images": IMAGES, "patients": PATIENTS})
    return 0


if __name__ == "__main__":
    run(main)
