"""Where a run looks: Grad-CAM of its out-of-fold predictions, or of photographs of your own.

    python scripts/explain.py --run effnet_b1                        -> oof/effnet_b1/explain.html
    python scripts/explain.py --run effnet_b1 --images photo.jpg folder/ --age 55 --sex female

The overlays go to oof/<run>/explain/ as PNG. --run is a run's name, its folder, or one fold's
weights; with --images also a blend.json, of which the first run is explained. Research and
education only, not a medical device.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", type=existing, help="such as effnet_b1 (default: that of models/)")
    parser.add_argument("--images", nargs="+", help="photographs, or folders of them")
    parser.add_argument("--age", help="years; with --images")
    parser.add_argument("--sex", help="female or male; with --images")
    parser.add_argument("--site", help="such as torso; with --images")
    parser.add_argument("--out", type=Path, help="another place for what is written")
    args = parser.parse_args(arguments)

    from lesions.data.patients import Patient, find_photos
    from lesions.files import write_text
    from lesions.inference.explain import load_explained
    from lesions.inference.predictor import Predictor
    from lesions.paths import shown
    from lesions.reporting import explanations
    from lesions.reporting.page import render

    if args.images:
        photos, patient = find_photos(args.images), Patient(args.age, args.sex, args.site)
        predictor = Predictor.load(args.run)
        print(f"model {predictor.described}")
        for problem in predictor.missing:
            print(f"note: {problem}")
        pictures = explanations.explain_photographs(predictor, photos, patient)
        out = args.out or predictor.runs[0].files.folder / "explain"
        explanations.write_pictures(out, pictures)
        print(f"{len(pictures):,} overlays in {shown(out)}")
        return 0
    explained = load_explained(args.run)
    galleries, pictures = explanations.explained_galleries(explained)
    text = render(
        "explanations.html.j2", run=explained.run.name, task=explained.run.task.name,
        rows=len(explained.rows), positives=int(explained.rows["positive"].sum()),
        threshold=explained.threshold, explained=galleries,
    )  # fmt: skip
    out = args.out or explained.run.files.folder / "explain.html"
    write_text(out, text)
    explanations.write_pictures(out.with_suffix(""), pictures)
    print(f"{shown(out)}, and {len(pictures)} overlays in {shown(out.with_suffix(''))}")
    return 0


if __name__ == "__main__":
    run(main)
