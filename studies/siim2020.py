"""Score public out-of-fold predictions and every way to blend them: docs/siim2020.md.

    python studies/siim2020.py siim2020_oof/oof --groups isic2020/train.csv

The members' scores with intervals by patient, each blending method in sample and nested, and the
gain over equal weights.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.blending.blend import study_blend
from lesions.blending.members import load_members
from lesions.cli import build_parser, run
from lesions.evaluation.intervals import bootstrap, delong
from lesions.evaluation.metrics import (
    Floats,
    Metric,
    average_precision,
    partial_auc,
    ratio,
    roc_auc,
)
from lesions.oof import Oof
from lesions.provenance import Results

MIN_TPR = 0.8  # of the partial AUC: the official score of ISIC 2024


def auc_within(groups: np.ndarray) -> Metric:
    """The metric "share of ordered pairs among pairs of the same group", ties half.

    A group that the bootstrap draws twice is two groups.
    """
    _, codes = np.unique(groups.astype(str), return_inverse=True)

    def many(target: Any, prob: Any, weight: Floats) -> Floats:
        positive = np.asarray(target) == 1
        distinct, rank = np.unique(np.asarray(prob, dtype=np.float64), return_inverse=True)
        key = codes.astype(np.int64) * len(distinct) + rank
        rising = np.flatnonzero(~positive)[np.argsort(key[~positive], kind="stable")]
        below = np.zeros((len(weight), len(rising) + 1))
        np.cumsum(weight[:, rising] > 0, axis=1, out=below[:, 1:])
        edges = [codes[positive], codes[positive] + 1]
        start, end = (np.searchsorted(key[rising], edge * len(distinct)) for edge in edges)
        first = np.searchsorted(key[rising], key[positive], side="left")
        last = np.searchsorted(key[rising], key[positive], side="right")
        beaten = (below[:, first] + below[:, last]) / 2 - below[:, start]
        hits, pairs = weight[:, positive], below[:, end] - below[:, start]
        return ratio((hits * beaten).sum(axis=1), (hits * pairs).sum(axis=1))

    return Metric(many)


def score_member(oof: Oof) -> dict[str, dict]:
    """AUC (by bootstrap and DeLong, and within patients), partial AUC, average precision."""
    metrics = {
        "auc": roc_auc,
        "within_group": auc_within(oof.groups),
        "partial_auc": partial_auc(MIN_TPR),
        "average_precision": average_precision,
    }
    target, prob = oof.positive.astype(int), oof.score
    found = {name: bootstrap(metric, target, prob, oof.groups) for name, metric in metrics.items()}
    found["delong"] = delong(target, prob, oof.groups)
    return {name: score.as_json() for name, score in found.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("members", nargs="+", help="CSV files or folders of CSV files")
    parser.add_argument("--groups", type=Path, required=True, help="CSV: image_name, patient_id")
    results = Results(parser, "siim2020.json")
    args = parser.parse_args(arguments)
    results.check(args)
    members = load_members(args.members, args.groups)
    study = study_blend(members, source=None)
    print(study.as_text())
    found = study.as_json()
    # Names without folders: where the data lie on this machine is nobody's business.
    found["hashes"] = {Path(name).name: digest for name, digest in found["hashes"].items()}
    found["groups_from"] = args.groups.name
    found["member_scores"] = {oof.name: score_member(oof) for oof in members}
    results.write(found | {"min_tpr": MIN_TPR})
    return 0


if __name__ == "__main__":
    run(main)
