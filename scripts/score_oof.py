"""Score public out-of-fold predictions and every way to blend them: docs/results/siim2020.json.

The members' scores with intervals by patient, each method in sample and nested, the gain over equal
weights, and how long the costly steps take beside scikit-learn.

    python scripts/score_oof.py siim2020_oof/oof --groups isic2020/train.csv
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("members", nargs="+", help="CSV files or folders of CSV files")
    parser.add_argument("--groups", required=True, help="CSV of image_name and patient_id")
    parser.add_argument(
        "--out", type=Path, default=CODE / "docs/results/siim2020.json", help="the file to write"
    )
    args = parser.parse_args(arguments)

    from lesions.blending import speed
    from lesions.blending.members import load_members
    from lesions.blending.outcome import score_members, study_blend
    from lesions.files import write_json

    study = study_blend(load_members(args.members), args.groups)
    print(study.as_text())
    groups = study.rows["group"].to_numpy()
    result = study.as_json()
    # Names without folders: where the data lie on this machine is nobody's business.
    result["hashes"] = {Path(name).name: digest for name, digest in result["hashes"].items()}
    result["groups_from"] = f"{study.origin.split()[0]} of {Path(args.groups).name}"
    result["member_scores"] = score_members(study)
    result["speed"] = {
        "bootstrap": speed.time_bootstrap(study.pool.target, study.pool.probs[:, 0], groups),
        "hill_climb": speed.time_climb(speed.simulate_pool()),
    }
    write_json(args.out, result)
    climbed = result["speed"]["hill_climb"]
    print(f"hill climbing {climbed['ratio']:.1f} times as fast as scikit-learn's AUC in a loop")
    print(f"wrote {shown(args.out)}")
    return 0


if __name__ == "__main__":
    run(main)
