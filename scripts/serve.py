"""Serve a trained run: a web page at /, REST below /api, its manual at /docs.

    python scripts/serve.py --run effnet_b1
    python scripts/serve.py --run submissions/blend.json --port 8000
    curl --data-binary @photo.jpg 'http://127.0.0.1:7860/api/predict?age=55&sex=female'

--run is a run's name, its folder, one fold's weights, or a blend.json. Only this machine can reach
the server unless --host says otherwise (0.0.0.0: everybody who can reach the machine; there is no
password). Photographs are not kept. Stop it with Ctrl-C.
Needs the extra packages: pip install -e '.[serve]'
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, existing, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", type=existing, help="such as effnet_b1 (default: that of models/)")
    parser.add_argument("--folds", type=int, nargs="+", help="only these (default: all)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="default 7860")
    parser.add_argument("--max-mb", type=float, default=20, help="of a photograph (default 20)")
    parser.add_argument("--max-megapixels", type=float, default=40, help="default 40")
    args = parser.parse_args(arguments)

    import logging
    from importlib.util import find_spec

    from lesions.errors import InputError, listed

    needed = ("fastapi", "uvicorn", "gradio", "python_multipart")
    missing = [name for name in needed if not find_spec(name)]
    if missing and find_spec("torch"):  # without it the whole environment is missing
        raise InputError(f"not installed: {listed(missing)}: pip install -e '.[serve]'")

    from lesions.inference.predictor import Predictor
    from lesions.serving.server import address_of, build_server, listen
    from lesions.serving.service import Limits

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("lesions").setLevel(logging.INFO)
    predictor = Predictor.load(args.run, args.folds)
    for problem in predictor.missing:
        print(f"note: {problem}")
    limits = Limits(int(args.max_mb * 1e6), int(args.max_megapixels * 1e6))
    place = listen(args.host, args.port)
    server = build_server(predictor, place, limits)
    print(f"model {predictor.described}")
    print(f"{address_of(place)}  (manual: /docs; end: Ctrl-C)", flush=True)
    server.run([place])
    return 0 if server.started else 2


if __name__ == "__main__":
    run(main)
