"""Hill climbing, the costly step of blending, against scikit-learn's AUC in a loop.

python benchmarks/blending.py
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from timing import compare, cpu_seconds

from lesions.blending.methods import climb
from lesions.blending.pool import Pool, build_pool
from lesions.cli import build_parser, run
from lesions.provenance import Results


def simulated(rows: int, members: int) -> Pool:
    """Members of unequal skill that share most of their errors; 1.76 % positives."""
    generator = np.random.default_rng(0)
    target = (generator.random(rows) < 0.0176).astype(int)
    common = generator.normal(size=rows) + 1.6 * target
    noise = generator.normal(size=(rows, members)) * generator.uniform(0.6, 1.2, members)
    probs = expit(0.8 * common[:, None] + noise).T[:, :, None]
    return build_pool(probs, [f"m{i}" for i in range(members)], ("melanoma",), target)


def climb_with_sklearn(pool: Pool, most: int) -> tuple[list[int], list[float]]:
    """The same search as `climb`, one `roc_auc_score` a step, as the field writes it."""
    ranks = rankdata(pool.probs[:, :, 0], axis=1)
    total, picks, aucs = np.zeros(len(pool.target)), list[int](), list[float]()
    while len(picks) < most:
        tried = [roc_auc_score(pool.target, total + row) for row in ranks]
        best = int(np.argmax(tried))
        if aucs and tried[best] <= aucs[-1]:
            break
        picks.append(best)
        aucs.append(float(tried[best]))
        total += ranks[best]
    return picks, aucs


def measure_climb(rows: int, members: int, picks: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of both searches, their ratio, and whether they pick and score alike."""
    pool, found = simulated(rows, members), {}

    def way(name: str, search: Callable[[Pool, int], Any]) -> Callable[[], float]:
        return lambda: cpu_seconds(lambda: found.update({name: search(pool, picks)}))

    ways = {"sklearn": way("sklearn", climb_with_sklearn), "ours": way("ours", climb)}
    compared = compare(ways, repeats)
    return {
        "rows": rows,
        "columns": members,
        "picks": len(found["ours"][0]),
        "same_picks": found["ours"][0] == found["sklearn"][0],
        "auc_difference": float(np.abs(np.subtract(found["ours"][1], found["sklearn"][1])).max()),
        **compared,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--rows", type=int, default=58_457, help="default: ISIC 2019 and 2020")
    parser.add_argument("--members", type=int, default=30, help="of the blend (default 30)")
    parser.add_argument("--picks", type=int, default=5, help="of the hill climbing (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default 3)")
    args, results = Results.parse(parser, "blending.json", arguments)
    found = measure_climb(args.rows, args.members, args.picks, args.repeats)
    print(
        f"hill climbing, {found['rows']:,} x {found['columns']}: {found['seconds']['ours']:.2f} s,"
        f" {found['ratio']:.1f} times as fast as scikit-learn's AUC in a loop"
    )
    results.write({"climb": found})
    return 0


if __name__ == "__main__":
    run(main)
