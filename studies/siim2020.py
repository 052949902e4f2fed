"""Score public out-of-fold predictions and every way to blend them: docs/siim2020.md.

    python studies/siim2020.py siim2020_oof/oof --groups isic2020/train.csv

The members' scores with intervals by patient, each blending method in sample and nested, and the
gain over equal weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.blending.blend import study_blend
from lesions.blending.members import load_members
from lesions.cli import build_parser, run
from lesions.evaluation.intervals import bootstrap, delong
from lesions.evaluation.metrics import average_precision, partial_auc, roc_auc
from lesions.oof import Oof
from lesions.provenance import Results

MIN_TPR = 0.8  # of the partial AUC: the official score of ISIC 2024


def score_member(oof: Oof) -> dict[str, dict]:
    """AUC (by bootstrap and by DeLong), partial AUC, average precision."""
    metrics = {
        "auc": roc_auc,
        "partial_auc": partial_auc(MIN_TPR),
        "average_precision": average_precision,
    }
    target, prob = oof.positive.astype(int), oof.score
    found = {name: bootstrap(metric, target, prob, oof.groups) for name, metric in metrics.items()}
    found["delong"] = delong(target, prob, oof.groups)
    return {name: score.as_json() for name, score in found.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("members", nargs="+", help="CSV files or folders of CSV files")
    parser.add_argument("--groups", type=Path, required=True, help="CSV: image_name, patient_id")
    args, results = Results.parse(parser, "siim2020.json", arguments)
    members = load_members(args.members, args.groups)
    study = study_blend(members, source=None)
    print(study.as_text())
    found = study.as_json()
    # Names without folders: where the data lie on this machine is nobody's business.
    found["hashes"] = {Path(name).name: digest for name, digest in found["hashes"].items()}
    found["groups_from"] = args.groups.name
    found["member_scores"] = {oof.name: score_member(oof) for oof in members}
    results.write(found | {"min_tpr": MIN_TPR})


if __name__ == "__main__":
    run(main)
