"""Export a run's folds as ONNX or as torch.export programs, and compare them with the checkpoint.

    python scripts/export.py --run effnet_b1 --to onnx               -> oof/effnet_b1/fold<k>.onnx
    python scripts/export.py --run effnet_b1 --to onnx --quantize    and fold<k>.int8.onnx
    python scripts/export.py --run effnet_b1 --to torch-export --folds 0

A file takes uint8 photographs (batch, S, S, 3) and, where the run uses it, encoded metadata; it
gives probabilities, normalises by itself, and carries the checkpoint's header and the calibration
under "lesions". Needs the extra: pip install onnx onnxscript onnxruntime. int8 that loses 0.005 AUC
is deleted. --run is a run's name, its folder, or one fold's weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run
from lesions.provenance import Results


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", type=existing, help="such as effnet_b1 (default: that of models/)")
    parser.add_argument("--to", nargs="+", required=True, choices=["onnx", "torch-export"])
    parser.add_argument("--quantize", action="store_true", help="int8 as well, made from the ONNX")
    parser.add_argument("--folds", type=int, nargs="+", help="only these (default: all)")
    args, results = Results.parse(parser, "export.json", arguments)
    if args.quantize and "onnx" not in args.to:
        parser.error("--quantize makes int8 from the ONNX file: add --to onnx")

    from lesions.errors import InputError
    from lesions.inference.explain import load_explained
    from lesions.inference.export import as_text, export_run, require
    from lesions.paths import shown

    if "onnx" in args.to:
        require("onnx", "onnxscript", "onnxruntime")
    explained = load_explained(args.run, args.folds)
    for problem in explained.run.problems:
        print(f"note: {problem}")
    result = export_run(explained, args.to, args.quantize)
    print(as_text(result))
    for name in result["files"]:
        print(f"written: {shown(explained.run.files.folder / name)}")
    results.write(result)
    if result["refused"]:
        raise InputError(result["refused"])
    return 0


if __name__ == "__main__":
    run(main)
