"""How long the two costly steps take: hill climbing beside scikit-learn, and the bootstrap."""

import time
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from lesions.blending.methods import climb
from lesions.blending.pool import Pool, build_pool
from lesions.evaluation.intervals import REPLICATES, auc_interval

SIZE = 58_457, 30  # ISIC 2019 and 2020 together; a large blend


def simulate_pool(rows: int = SIZE[0], columns: int = SIZE[1], seed: int = 0) -> Pool:
    """Members of unequal skill that share most of their errors; 1.76 % positives."""
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < 0.0176).astype(int)
    common = generator.normal(size=rows) + 1.6 * target
    noise = generator.normal(size=(rows, columns)) * generator.uniform(0.6, 1.2, columns)
    probs = expit(0.8 * common[:, None] + noise)
    return build_pool(pd.DataFrame(probs, columns=[f"m{i}" for i in range(columns)]), target)


def climb_with_sklearn(pool: Pool, most: int) -> tuple[list[int], list[float]]:
    """The same search as `climb`, one `roc_auc_score` a step, as the field writes it."""
    from sklearn.metrics import roc_auc_score

    total, picks, aucs = np.zeros(len(pool.target)), list[int](), list[float]()
    while len(picks) < most:
        tried = [roc_auc_score(pool.target, total + column) for column in pool.ranks.T]
        best = int(np.argmax(tried))
        if aucs and tried[best] <= aucs[-1]:
            break
        picks.append(best)
        aucs.append(float(tried[best]))
        total += pool.ranks[:, best]
    return picks, aucs


def time_climb(pool: Pool, picks: int = 5, repeats: int = 3) -> dict[str, Any]:
    """Median CPU seconds of both searches, their ratio, and whether they pick and score alike."""
    ours, theirs = [], []
    for _ in range(repeats):
        start = time.process_time()
        found = climb(pool, picks)
        ours.append(time.process_time() - start)
        start = time.process_time()
        expected = climb_with_sklearn(pool, picks)
        theirs.append(time.process_time() - start)
    return {
        "rows": len(pool.target),
        "columns": len(pool.names),
        "picks": len(found[0]),
        "same_picks": found[0] == expected[0],
        "auc_difference": float(np.abs(np.subtract(found[1], expected[1])).max()),
        "seconds": median(ours),
        "seconds_sklearn": median(theirs),
        "ratio": median(theirs) / median(ours),
    }


def time_bootstrap(target: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """CPU seconds that the interval of one AUC takes."""
    start = time.process_time()
    auc_interval(target, prob, groups)
    seconds = time.process_time() - start
    return {"rows": len(target), "replicates": REPLICATES, "seconds": seconds}


def measure_blend_growth(rows: list[int], members: list[int]) -> list[dict[str, Any]]:
    """CPU seconds of `climb` to 5 picks, first against rows, then against members."""
    sizes = [(count, members[1]) for count in rows]
    sizes += [(rows[1], count) for count in members if count != members[1]]
    found = []
    for count, columns in sizes:
        pool = simulate_pool(count, columns)
        start = time.process_time()
        climb(pool, 5)
        seconds = time.process_time() - start
        found.append({"rows": count, "columns": columns, "seconds": seconds})
    return found
