"""Do 95 % intervals hold the truth 95 times in 100? Simulated data sets, where the truth is known.

python benchmarks/coverage.py                       10 minutes on 2 cores
python benchmarks/coverage.py --repetitions 100     a look

docs/coverage.md says what is simulated. Beside the reported interval: the naive bootstrap over
images, and other intervals from the same resamples of groups.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import Pool as Processes
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, softmax
from scipy.stats import norm
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.blending.methods import equal, stacking
from lesions.blending.nested import SPLITS, Outcome, judge, nested_scores, split_groups
from lesions.blending.pool import build_pool
from lesions.cli import build_parser, run
from lesions.evaluation import intervals, metrics
from lesions.evaluation.intervals import Interval, bootstrap_values, effective_groups
from lesions.evaluation.metrics import Floats, Metric, roc_auc
from lesions.provenance import Results

IMAGES = 4000
PATIENTS = 2056
SHARE = 0.018  # of positives, as in ISIC 2020
CLASSES = np.array([0.67, 0.11, 0.11, 0.055, 0.035, 0.01, 0.01])
SCALE = 250  # how many times larger the population is
FEW = 5  # every so many repetitions: images as patients, paired differences, nested gains

macro_f1 = metrics.of_confusion(lambda matrix: metrics.mean_of_classes(metrics.class_f(matrix)))


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


PARTIAL = "partial AUC above 0.80 sensitivity"
METRICS: dict[Callable[..., Drawn], dict[str, Metric]] = {
    draw_patients: {
        "AUC": roc_auc,
        "average precision": metrics.average_precision,
        PARTIAL: metrics.partial_auc(0.8),
    },
    draw_lesions: {
        "balanced accuracy, 7 classes": metrics.balanced_accuracy,
        "macro-F1, 7 classes": macro_f1,
    },
}
DIFFERENCE, GAIN = "paired difference of two AUCs", "nested gain of a blend over equal weights"
MOST = {PARTIAL: 0.2}  # else 1


@cache
def truth() -> dict[str, float]:
    """The metrics in a large population."""
    found: dict[str, float] = {}
    for draw, scores in METRICS.items():
        drawn = draw(np.random.default_rng(1), SCALE)
        found |= {name: score(drawn.codes, drawn.scores[0]) for name, score in scores.items()}
    return found


def true_auc(weights: Sequence[float]) -> float:
    """The AUC of a weighted sum of `draw_patients`' models, which is normal in both classes."""
    share = np.array(weights)
    variance = 1.3**2 + 0.7**2 + (0.6**2 + 0.4**2) * share @ share
    return float(norm.cdf(share @ np.linspace(1.9, 2.2, len(share)) / np.sqrt(2 * variance)))


def repeat(seed: int) -> list[tuple[str, str, bool, float]]:
    """One simulated data set: (metric, interval, whether it holds the truth, width)."""
    found = []
    for draw, scores in METRICS.items():
        drawn, metric = draw(np.random.default_rng([3, seed])), metrics.together(scores.values())
        values = metric.all(drawn.codes, drawn.scores[0])
        ours = bootstrap_values(metric, drawn.codes, [drawn.scores[0]], drawn.groups)[:, 0].T
        count = effective_groups(drawn.codes, drawn.groups)
        limits = [
            {
                "reported": intervals.summarise(value, each, count),
                "bias-corrected": intervals.summarise(value, each),
                "percentile": percentile(each),
                "logit": symmetric(value, each, MOST.get(name, 1.0)),
            }
            for name, value, each in zip(scores, values, ours, strict=True)
        ]
        if draw is draw_patients:
            limits[0]["DeLong"] = intervals.delong(drawn.codes, drawn.scores[0], drawn.groups)
        if seed % FEW == 0:
            images = np.arange(len(drawn.codes))
            naive = bootstrap_values(metric, drawn.codes, [drawn.scores[0]], images)[:, 0].T
            for kinds, each in zip(limits, naive, strict=True):
                kinds["over images"] = percentile(each)
        for name, kinds in zip(scores, limits, strict=True):
            found += [(name, kind, *judged(truth()[name], each)) for kind, each in kinds.items()]
    if seed % FEW == 0:
        found += repeat_difference(seed) + repeat_gain(seed)
    return found


def repeat_difference(seed: int) -> list[tuple[str, str, bool, float]]:
    drawn = draw_patients(np.random.default_rng([4, seed]), models=2)
    real = true_auc([0, 1]) - true_auc([1, 0])
    value = roc_auc(drawn.codes, drawn.scores[1]) - roc_auc(drawn.codes, drawn.scores[0])
    found, images = [], np.arange(len(drawn.codes))
    for kind, groups in {"reported": drawn.groups, "over images": images}.items():
        values = bootstrap_values(roc_auc, drawn.codes, [*drawn.scores], groups)
        count = effective_groups(drawn.codes, groups)
        known = intervals.compare(value, values[:, 1] - values[:, 0], count)
        found.append((DIFFERENCE, kind, *judged(real, known)))
    return found


def repeat_gain(seed: int) -> list[tuple[str, str, bool, float]]:
    """The nested gain of stacking over equal weights; its truth is what the same blends gain."""
    drawn = draw_patients(np.random.default_rng([5, seed]), models=4)
    pool = build_pool(expit(drawn.scores)[:, :, None], "abcd", ("melanoma",), drawn.codes)
    splits = [split_groups(pool.target, drawn.groups, seed) for seed in range(SPLITS)]
    fitted = [stacking(pool.take(parts != part)) for parts in splits for part in np.unique(parts)]
    alike = equal(pool, "logit")
    real = float(np.mean([true_auc(blend.weights) for blend in fitted]) - true_auc(alike.weights))
    ways = {"equal": lambda _: alike, "stacking": stacking}
    nested = {name: [nested_scores(fit, pool, p) for p in splits] for name, fit in ways.items()}
    found, images = [], np.arange(len(drawn.codes))
    for kind, groups in {"over images": images, "reported": drawn.groups}.items():
        outcomes: dict[str, Outcome] = {}
        for name, fit in ways.items():
            outcomes[name] = judge(fit(pool), nested[name], pool, groups, outcomes)
        gain = outcomes["stacking"].gains["equal"]
        found.append((GAIN, kind, *judged(real, gain)))
    values = outcomes["stacking"].values - outcomes["equal"].values
    count = effective_groups(drawn.codes, drawn.groups)
    rows = intervals.compare(gain.value, values, count)
    return [*found, (GAIN, "rows alone", *judged(real, rows))]


def percentile(values: Floats) -> Interval:
    return Interval(0, *np.nanquantile(values, [0.025, 0.975]).tolist())


def symmetric(value: float, values: Floats, most: float) -> Interval:
    """The value plus and minus 1.96 standard errors, in the logit of its share of `most`."""
    share, error = value / most, np.nanstd(values, ddof=1) / most
    half = norm.ppf(0.975) * error / max(share * (1 - share), 1e-9)
    ends = expit(logit(np.clip(share, 1e-9, 1 - 1e-9)) + np.array([-half, half])) * most
    return Interval(value, *ends.tolist())


def judged(true: float, found: Interval) -> tuple[bool, float]:
    """Whether the interval holds the truth, and its width."""
    return found.low <= true <= found.high, found.high - found.low


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--repetitions", type=int, default=2000, help="data sets (default 2000)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default 2)")
    args, results = Results.parse(parser, "coverage.json", arguments)
    collected: dict[str, dict[str, list[list[float]]]] = {}
    with Processes(args.processes) as processes:
        drawn = processes.imap_unordered(repeat, range(args.repetitions), chunksize=5)
        for found in tqdm(drawn, total=args.repetitions, desc="data sets", disable=None):
            for name, kind, *outcome in found:
                collected.setdefault(name, {}).setdefault(kind, []).append(outcome)
        processes.close()
        processes.join()
    seconds = sum(os.times()[:4])  # of the processor, those of the processes included
    rows = []
    for name, kinds in collected.items():
        row: dict[str, Any] = {"score": name, "goal": 0.03 if name in (DIFFERENCE, GAIN) else 0.015}
        for kind, outcomes in kinds.items():
            holds, widths = np.array(outcomes, dtype=float).T
            row[kind] = {"coverage": float(holds.mean()), "width": float(np.median(widths))}
            row[kind]["data_sets"] = len(holds)
        rows.append(row)
        shares = ", ".join(f"{kind} {100 * row[kind]['coverage']:.1f} %" for kind in kinds)
        print(f"{name:42} {row['reported']['data_sets']:5} data sets: {shares}")
    print(f"{seconds:.0f} s of CPU time")
    results.write({"rows": rows, "images": IMAGES, "patients": PATIENTS, "cpu_seconds": seconds})
    return 0


if __name__ == "__main__":
    run(main)
