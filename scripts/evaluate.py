"""Score labelled photographs from elsewhere with a trained run: report's scores, with intervals.

    python scripts/evaluate.py --run effnet_b1 --images ISIC2018_Task3_Test_Input \\
        --labels ISIC2018_Task3_Test_GroundTruth.csv
    python scripts/evaluate.py --run effnet_b1 --images ISIC-2017_Test_v2_Data --labels \\
        ISIC-2017_Test_v2_Part3_GroundTruth.csv ISIC-2017_Test_v2_Data_metadata.csv
    python scripts/evaluate.py --run effnet_b1 --images isic/ --labels isic/metadata.csv --corrupt
    python scripts/evaluate.py --run effnet_b1 --images pad/images --labels pad/metadata.csv
    python scripts/evaluate.py --run effnet_b1 --images train-image.hdf5 --labels train-metadata.csv
    python scripts/evaluate.py --run effnet_b1 --images f/ --labels my.csv --map wart=benign scar=

Decisions are at the run's own threshold, probabilities are calibrated. Copies of training
photographs are counted and scored apart, where the run's data set is prepared. With a column
lesion_id lesions are scored too. --corrupt repeats the scores under blur, JPEG quality 30, less
light, hair and black corners. Writes submissions/<run>_<labels>.csv and, beside the run,
evaluated.jsonl: who scores a set again has seen its first answer, so that it is said. Photographs
that cannot be read are named and left out, and the exit code is 2.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, pairs, run
from lesions.provenance import Results


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", type=existing, required=True, help="a run, folder or blend.json")
    parser.add_argument("--images", required=True, type=Path, help="a folder, a zip, or an HDF5")
    parser.add_argument("--labels", required=True, type=Path, nargs="+", metavar="CSV",
                        help="image names and labels; further CSVs add age, sex, ...")  # fmt: skip
    parser.add_argument("--map", nargs="+", action="extend", default=[], metavar="WORD=DIAGNOSIS",
                        help="what a word of the CSV means; WORD= leaves its rows out")  # fmt: skip
    parser.add_argument("--available-only", action="store_true", help="score rows with photographs")
    parser.add_argument("--corrupt", action="store_true", help="also score damaged photographs")
    args, results = Results.parse(parser, "external.json", arguments)

    from lesions.data.columns import Report
    from lesions.data.labels import open_photos, read_labels
    from lesions.errors import InputError, listed

    report = Report(strict=True)
    words = {word: meant[-1] for word, meant in pairs("--map", args.map).items()}
    rows, read = open_photos(args.images, read_labels(args.labels, words, report), report)
    absent = rows.loc[rows["path"] == "", "image_name"]
    if len(absent) and not (args.available_only and len(absent) < len(rows)):
        raise InputError(f"{args.images}: no photograph of {len(absent):,} of {len(rows):,} rows"
                         f" ({listed(absent, 3)}): --available-only scores the others")  # fmt: skip

    from lesions.files import write_csv
    from lesions.inference.external import evaluate, open_set
    from lesions.inference.predictor import Predictor
    from lesions.paths import at, shown
    from lesions.reporting.page import render
    from lesions.runs import find_run

    predictor = Predictor.load(args.run)
    for problem in [*report.notes, *predictor.missing]:
        print(f"note: {problem}")
    found, oof, unread = evaluate(predictor, rows[rows["path"] != ""], read, args.corrupt)
    found |= {"run": predictor.name, "labels": args.labels[0].name, "absent": len(absent)}
    found["earlier"] = open_set(find_run(args.run), oof, found)
    path = at("submissions", f"{Path(predictor.name).name}_{args.labels[0].stem}.csv")
    table = oof.table.drop(columns=["path", "code", "target"])
    write_csv(path, table.join(oof.task.as_frame(oof.probs, oof.codes)))
    print(render("evaluate.md.j2", found=found))
    print(f"{shown(path)}: {len(oof.names):,} predictions")
    results.write(found)
    for name, problem in unread.items():
        print(f"not read: {name}: {problem}", file=sys.stderr)
    return 2 if unread else 0


if __name__ == "__main__":
    run(main)
