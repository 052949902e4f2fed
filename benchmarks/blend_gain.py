"""Does a blend gain on other patients what was predicted? On random halves of public predictions.

    python benchmarks/blend_gain.py siim2020_oof/oof --groups isic2020/train.csv

docs/blend_gain.md says how a gain is predicted and realised.
"""

import sys
from dataclasses import replace
from functools import partial
from multiprocessing import Pool as Processes
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.blending.blend import study_blend
from lesions.blending.members import load_members
from lesions.blending.nested import compare_methods
from lesions.blending.pool import Pool
from lesions.cli import build_parser, run
from lesions.provenance import Results


def try_halves(pool: Pool, patients: np.ndarray, seed: int) -> list[dict]:
    """Of every method, and of the one chosen, the predicted and the realised gain, both ways."""
    drawn = np.random.default_rng(seed).permutation(patients.max() + 1)
    half = (drawn < len(drawn) // 2)[patients]
    rows = []
    for own in (half, ~half):
        outcomes, chosen, _, choice = compare_methods(pool.take(own), patients[own])
        other, equal = pool.take(~own), next(iter(outcomes))
        alone = {"best alone": outcomes[chosen]}  # with the luck of having been chosen
        scored = {name: other.score(each.blend.apply(other)) for name, each in outcomes.items()}
        for name, outcome in (outcomes | alone | {"chosen": choice}).items():
            gain = outcome.gains[equal] if outcome.gains else None
            # The other half has as many patients, and adds what its rows alone make uncertain.
            rest = np.std(outcome.values - outcomes[equal].values)
            rows.append({
                "method": name,
                "is": chosen,
                "predicted": gain.value if gain else 0.0,
                "realised": scored[name if name in outcomes else chosen] - scored[equal],
                "in_sample": outcome.in_sample - outcomes[equal].in_sample,
                "half_width": norm.ppf(0.975) * np.hypot(gain.se if gain else 0, rest),
            })  # fmt: skip
    return rows


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """How far predictions are from what was gained, and how many intervals hold it."""
    error = rows["predicted"] - rows["realised"]
    return {
        "halves": len(rows),
        "predicted": rows["predicted"].mean(),
        "realised": rows["realised"].mean(),
        "in_sample": rows["in_sample"].mean(),
        "bias": error.mean(),
        "inside": (error.abs() <= rows["half_width"]).mean(),
        "half_width": rows["half_width"].median(),
        "gained": (rows["realised"] > 0).mean(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("members", nargs="+", help="CSV files or folders of CSV files")
    parser.add_argument("--groups", type=Path, required=True, help="CSV: image_name, patient_id")
    parser.add_argument("--halves", type=int, default=500, help="an even number (default 500)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default 2)")
    args, results = Results.parse(parser, "blend_gain.json", arguments)
    study = study_blend(load_members(args.members, args.groups), None, context=True)
    patients = pd.factorize(study.rows.groups)[0]
    pool = replace(study.pool, probs=study.pool.probs[: len(study.members)])  # no patient context
    work = partial(try_halves, pool, patients)
    with Processes(args.processes) as processes:
        done = processes.imap_unordered(work, range(args.halves // 2))
        halves = tqdm(done, total=args.halves // 2, disable=None)
        table = pd.DataFrame([row for found in halves for row in found])
    found = {name: summary(part) for name, part in table.groupby("method", sort=False)}
    del found[next(iter(study.outcomes))]  # equal weights: what the others are compared with
    alone = found.pop("best alone")
    print(pd.DataFrame(found).T.round(5).to_string())
    times = table.loc[table["method"] == "chosen", "is"].value_counts().to_dict()
    context = study.outcomes["patient_context"].gains["stacking"]
    print(f"patient context, gain over stacking without it: {context}")
    results.write(
        {
            "methods": found,
            "alone": alone,
            "chosen": times,
            "context": context.as_json(),
            "rows": len(patients),
            "patients": int(patients.max()) + 1,
            "members": len(pool.names),
        }
    )
    return 0


if __name__ == "__main__":
    run(main)
