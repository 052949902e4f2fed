"""Predict a run's test rows, or photographs of your own.

    python scripts/predict.py --run effnet_b1                      -> submissions/effnet_b1.csv
    python scripts/predict.py --run eight_classes --column mel     -> ..._mel.csv, ..._mel_oof.csv
    python scripts/predict.py --run effnet_b1 --images photo.jpg folder/ --age 55 --site torso
    python scripts/predict.py --run effnet_b1 --images folder/ --metadata people.csv

--run is a run's name, its folder, or one fold's weights; with --images also a blend.json.
Without --images: every fold and every view of the test rows, averaged by image, in the table's
order; a .json beside the .csv names the weights. --column takes one class, image_name and target,
to submit; of melanoma its out-of-fold rows are written too, to blend with yes-or-no runs: blend.py
submissions/..._mel_oof.csv effnet_b1 --test submissions/..._mel.csv.

With --images: prints a table and writes --out, and needs nothing but the run's folder. --age, --sex
and --site are of one person; --metadata is a CSV of image_name, age, sex and site, an empty cell
for what is not known. A photograph that cannot be read is named, the others are predicted, and the
exit code is 2.
"""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run
from lesions.files import write_csv, write_json
from lesions.paths import at, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", type=existing, help="such as effnet_b1 (default: that of models/)")
    parser.add_argument("--folds", type=int, nargs="+", help="such as 0 1 (default: all)")
    parser.add_argument("--set", action="append", default=[], help="such as predict.views=8")
    parser.add_argument("--column", help="of several classes, the one to submit, such as mel")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="photographs, or folders")
    parser.add_argument("--age", help="of the person, in years")
    parser.add_argument("--sex", help="female or male")
    parser.add_argument("--site", help="such as torso, 'lower extremity', head/neck")
    parser.add_argument("--metadata", type=Path, metavar="CSV", help="image_name, age, sex, site")
    parser.add_argument("--out", type=Path, help=".csv, .json; default submissions/RUN_images.csv")
    args = parser.parse_args(arguments)
    if args.images and (args.set or args.column):
        parser.error("--set and --column are for test rows, not for --images")
    if args.metadata and (not args.images or args.age or args.sex or args.site):
        parser.error("--metadata goes with --images, in place of --age, --sex and --site")
    return predict_photographs(args) if args.images else predict_rows(args)


def predict_rows(args: Namespace) -> int:
    from lesions.config import saved_config
    from lesions.inference.accelerator import build_accelerator
    from lesions.inference.ensemble import load_run
    from lesions.inference.predict import melanoma_oof, predict_run, take_column, trace

    trained = load_run(args.run, args.folds)
    config = saved_config(trained.config.model_dump(), "--set", args.set)
    accelerator = build_accelerator(config.train.precision)
    submission = predict_run(trained, config, accelerator)
    path = at("submissions", f"{trained.name}.csv")
    if args.column:
        submission = take_column(submission, args.column)
        path = path.with_name(f"{path.stem}_{args.column}.csv")
    oof = melanoma_oof(trained, config, accelerator) if args.column == "mel" else None
    if accelerator.is_main_process:
        write_csv(path, submission)
        write_json(path.with_suffix(".json"), trace(trained, config, path, args.column))
        if oof is not None:
            write_csv(path.with_name(f"{path.stem}_oof.csv"), oof)
        mean = f", mean {submission['target'].mean():.4f}" if "target" in submission else ""
        print(f"{shown(path)}: {len(submission):,} images{mean}")
    return 0


def predict_photographs(args: Namespace) -> int:
    from lesions.data.patients import Patient, find_photos, read_patients
    from lesions.errors import InputError, listed

    photos, patient = find_photos(args.images), Patient(args.age, args.sex, args.site)
    if args.out and args.out.suffix not in (".csv", ".json"):
        raise InputError(f"--out {args.out}: name a .csv or a .json")
    patients = read_patients(args.metadata, photos) if args.metadata else {}

    from lesions.data.decode import UnreadableImage
    from lesions.inference.predictor import Predictor
    from lesions.inference.wording import DISCLAIMER, as_records, as_table, as_text

    predictor = Predictor.load(args.run, args.folds)
    path = args.out or at("submissions", f"{Path(predictor.name).name}_images.csv")
    print(f"model {predictor.described}")
    for problem in predictor.missing:
        print(f"note: {problem}")
    people = [patients.get(photo, patient) for photo in photos]
    found = predictor.predict_all(photos, people, "photographs")
    answers = dict(zip(map(str, photos), found, strict=True))
    print(as_text(predictor, answers))
    if path.suffix == ".json":
        write_json(path, as_records(answers))
    else:
        write_csv(path, as_table(predictor, answers))
    print(f"{shown(path)}: {len(answers):,} photographs. {DISCLAIMER}")
    unread = [name for name, answer in answers.items() if isinstance(answer, UnreadableImage)]
    if unread:
        print(f"not read: {len(unread):,} of {len(photos):,}: {listed(unread)}", file=sys.stderr)
    return 2 if unread else 0


if __name__ == "__main__":
    run(main)
