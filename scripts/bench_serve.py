"""Time a served run on this machine, try bad files on it, and take a picture of its page.

    python scripts/bench_serve.py --run real/mobilenetv2 --bad-inputs FOLDER

Writes docs/results/serving.json, from which scripts/docs.py makes docs/serving.md, and, where
chromium and playwright are here, docs/serving.png: the page with a drawn lesion.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.paths import CODE


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", default="demo/resnet10t", help="a folder below oof/")
    parser.add_argument("--requests", type=int, default=100, help="of each kind (default 100)")
    parser.add_argument("--bad-inputs", type=Path, help="a folder of broken and odd files")
    parser.add_argument("--out", type=Path, default=CODE / "docs" / "results" / "serving.json")
    args = parser.parse_args(arguments)

    import os
    import shutil

    from lesions.files import write_json
    from lesions.inference.checkpoint import versions
    from lesions.inference.predictor import Predictor
    from lesions.reporting.summary import machine
    from lesions.serving.limits import Limits
    from lesions.serving.speed import bad_inputs, measure, screenshot, served

    predictor, limits = Predictor.load(args.run), Limits()
    first = predictor.runs[0]
    files = sorted(p for p in args.bad_inputs.iterdir() if p.is_file()) if args.bad_inputs else []
    with served(predictor, limits) as address:
        loads = [(1, False), (1, True), (4, False), (50, False)]
        found: dict[str, Any] = {
            "run": predictor.name, "backbone": first.config.model.backbone,
            "image_size": first.config.data.image_size, "folds": len(first.folds),
            "views": first.config.predict.views, "queue": limits.queue,
            "busy": os.getloadavg()[0],
            "loads": [measure(address, n, args.requests, explain) for n, explain in loads],
            "bad_inputs": bad_inputs(address, limits, files),
            "machine": machine(), "versions": versions(),
        }  # fmt: skip
        browser = shutil.which("chromium")
        if browser:
            screenshot(address, browser, args.out.parents[1] / "serving.png")
    write_json(args.out, found)
    for load in found["loads"]:
        print(f"{load['clients']:3} clients: {load['per_second']} answers/s, {load['ms']} ms")
    return 0


if __name__ == "__main__":
    run(main)
