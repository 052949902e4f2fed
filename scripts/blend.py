"""Blend runs by name, or out-of-fold CSV files: choose weights, prove their gain, write the test.

Every method is scored on patients that did not choose its weights, beside its in-sample figure and
equal weights. Those are taken unless the interval of a gain over them lies above zero. Writes
blend.csv (to submit), blend.json (weights, estimates, hashes), blend.png and blend_oof.csv.

    python scripts/blend.py effnet_b1 effnet_b3 effnet_b4 resnest50
    python scripts/blend.py folder_of_oof_csvs --test folder_of_submissions --groups train.csv

Methods: rank_mean, mean, single, subset, hill_climb, stacking; with several classes mean, single,
subset, hill_climb, for the --objective.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("members", type=existing, nargs="+", help="runs, CSVs or folders of CSVs")
    parser.add_argument("--method", default="auto", help="auto (default) or one of the methods")
    parser.add_argument("--objective", help="of several classes: macro_auc (default), macro_f1,"
                        " accuracy or balanced_accuracy")  # fmt: skip
    parser.add_argument("--groups", type=Path, help="CSV of image_name and group or patient_id")
    parser.add_argument("--source", help="score rows of this source; default: the test set's")
    parser.add_argument("--test", nargs="+", default=[], help="test CSVs, or a folder of them, "
                        "named as the members that are CSVs")  # fmt: skip
    parser.add_argument("--patient-context", action="store_true", help="also try stacking with "
                        "each row's rank and deviation within its patient")  # fmt: skip
    parser.add_argument("--no-test", action="store_true", help="weights and estimates alone")
    parser.add_argument("--out", type=Path, help="folder to write to; default: submissions")
    args = parser.parse_args(arguments)

    from lesions.blending.blend import study_blend, write_blend
    from lesions.blending.members import load_members, load_tests
    from lesions.errors import InputError
    from lesions.evaluation.scores import LABELS
    from lesions.oof import load_groups
    from lesions.paths import at, shown

    members = load_members(args.members, args.groups)
    # Before any fitting: a missing test file is told at once.
    patients = load_groups(args.groups) if args.patient_context and args.groups else None
    if args.patient_context and (not patients or members[0].task.several):
        raise InputError(
            "--patient-context: for melanoma or not, with the patients of all images: give --groups"
            " CSV, of a prepared data set its input/prepared/<name>/table.csv"
        )
    tests = None if args.no_test else load_tests(members, args.test, patients)
    study = study_blend(members, args.source, args.method, args.objective, args.patient_context)
    if study.rows.groups_from.startswith("none"):
        print("NO GROUPS: every image counts as a patient of its own, so intervals come out too")
        print("narrow and gains too sure; give --groups CSV (image_name, patient_id)\n")
    print(study.as_text())
    out = args.out or at("submissions")
    written = write_blend(study, tests, out)
    print(f"wrote {', '.join(written)} in {shown(out)}")
    best = max(study.scores, key=lambda name: study.scores[name].value)
    print(
        f"{study.chosen}: nested {LABELS[study.pool.objective]} {study.outcome.nested}; on the same"
        f" {len(study.rows.names):,} rows the best member, {best}: {study.scores[best]}"
    )
    return 0


if __name__ == "__main__":
    run(main)
