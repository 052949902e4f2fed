"""Where a run looks: Grad-CAM of its hits, misses and false alarms, of photographs, or measured.

    python scripts/explain.py --run effnet_b1                        -> oof/effnet_b1/explain.html
    python scripts/explain.py --run effnet_b1 --images photo.jpg folder/ --age 55 --sex female
    python scripts/explain.py --run ham10000/mobilenetv2 --masks input/ham10000/masks

The overlays go to oof/<run>/explain/ as PNG. --masks writes docs/results/explanations.json: the
share of the maps that lies on the lesion. Research and education only, not a medical device.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import at, shown


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", required=True, help="a folder below oof/")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--images", nargs="+", help="photographs, or folders of them")
    what.add_argument("--masks", type=Path, help="folder of <image_name>_segmentation.png")
    parser.add_argument("--age", type=float, help="years; with --images")
    parser.add_argument("--sex", help="female or male; with --images")
    parser.add_argument("--site", help="such as torso; with --images")
    parser.add_argument("--out", type=Path, help="another place for what is written")
    args = parser.parse_args(arguments)

    from lesions.files import write_json, write_text
    from lesions.reporting import explanations
    from lesions.reporting.focus import measure_focus, verdict

    folder = at("oof") / args.run
    if args.images:
        patient = {"age": args.age, "sex": args.sex, "site": args.site}
        pictures = explanations.explain_photographs(args.run, args.images, patient)
        out = args.out or folder / "explain"
        explanations.write_pictures(out, pictures)
        print(f"{len(pictures):,} overlays in {shown(out)}")
        return 0
    explained = explanations.load_explained(args.run)
    if args.masks:
        result = measure_focus(explained, args.masks)
        out = args.out or at() / "docs" / "results" / "explanations.json"
        write_json(out, result)
        print(f"{result['photographs']:,} photographs: {verdict(result['all'])}")
        print(f"written to {shown(out)}; python scripts/docs.py makes the page")
        return 0
    text, pictures = explanations.explanations_page(explained)
    out = args.out or folder / "explain.html"
    write_text(out, text)
    explanations.write_pictures(out.with_suffix(""), pictures)
    print(f"{shown(out)}, and {len(pictures)} overlays in {shown(out.with_suffix(''))}")
    return 0


if __name__ == "__main__":
    run(main)
