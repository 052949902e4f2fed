"""The costly steps of blending: hill climbing against scikit-learn in a loop, and the bootstrap.

python benchmarks/blending.py
"""

import sys
from collections.abc import Callable
from functools import partial
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
from lesions.evaluation.intervals import REPLICATES, bootstrap
from lesions.evaluation.metrics import roc_auc
from lesions.provenance import Results

ROWS, MEMBERS = 58_457, 30  # ISIC 2019 and 2020 together; a large blend


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


def measure_growth(rows: list[int], members: list[int], picks: int) -> list[dict[str, Any]]:
    """CPU seconds of `climb`, first against rows, then against members."""
    sizes = [(count, members[1]) for count in rows]
    sizes += [(rows[1], count) for count in members if count != members[1]]
    found = []
    for count, columns in sizes:
        pool = simulated(count, columns)
        seconds = cpu_seconds(partial(climb, pool, picks))
        found.append({"rows": count, "columns": columns, "seconds": seconds})
    return found


def measure_bootstrap(rows: int) -> dict[str, Any]:
    """CPU seconds that the interval of one AUC takes, with about 16 rows a group."""
    pool = simulated(rows, 1)
    groups, prob = np.arange(rows) // 16, pool.probs[0, :, 0]
    seconds = cpu_seconds(lambda: bootstrap(roc_auc, pool.target, prob, groups))
    return {"rows": rows, "replicates": REPLICATES, "seconds": seconds}


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, ROWS, 400_000])
    parser.add_argument("--members", type=int, nargs="+", default=[4, 15, 60])
    parser.add_argument("--picks", type=int, default=5, help="of the hill climbing (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default 3)")
    results = Results(parser, "blending.json")
    args = parser.parse_args(arguments)
    results.check(args)
    climbed = measure_climb(args.rows[1], MEMBERS, args.picks, args.repeats)
    drawn = measure_bootstrap(args.rows[1])
    growth = measure_growth(args.rows, args.members, args.picks)
    print(
        f"hill climbing, {climbed['rows']:,} x {climbed['columns']}:"
        f" {climbed['seconds']['ours']:.2f} s, {climbed['ratio']:.1f} times as fast as"
        " scikit-learn's AUC in a loop"
    )
    print(f"{drawn['replicates']:,} replicates of AUC on {drawn['rows']:,} rows:"
          f" {drawn['seconds']:.1f} s")  # fmt: skip
    for row in growth:
        print(f"hill climbing, {row['rows']:,} x {row['columns']}: {row['seconds']:.2f} s")
    results.write({"climb": climbed, "bootstrap": drawn, "growth": growth})
    return 0


if __name__ == "__main__":
    run(main)
