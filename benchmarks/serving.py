"""A served run on this machine: how fast it answers, and what it says to bad files.

python benchmarks/serving.py --run real/mobilenetv2 --bad-inputs FOLDER
"""

import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from struct import pack
from typing import Any
from urllib.parse import urlparse
from zlib import crc32

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from timing import in_turns, times_as_fast, wall_seconds

from lesions.cli import build_parser, run
from lesions.data.patients import Patient
from lesions.inference.checkpoint import versions
from lesions.inference.predictor import IMAGES, Predictor
from lesions.provenance import Results
from lesions.serving.server import address_of, build_server, listen
from lesions.serving.service import Limits, example

Reply = tuple[int, str, float]  # status, reason, seconds


@contextmanager
def served(
    predictor: Predictor, limits: Limits | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """The address of a server of `predictor` on a free port, in a thread of this process."""
    place = listen(host, 0)
    server = build_server(predictor, place, limits)
    thread = threading.Thread(target=server.run, args=([place],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield address_of(place).rstrip("/")
    finally:
        server.should_exit = True
        thread.join(20)


def measure(address: str, clients: int, requests: int, explain: bool = False) -> dict:
    """Requests a second and latencies in ms of `clients` that ask again once they are answered."""
    photos = [example(number) for number in range(3)]

    def one(number: int) -> Reply:
        return post(address, photos[number % len(photos)], explain)

    one(0)
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        replies = list(pool.map(one, range(requests)))
    spent = time.perf_counter() - begun
    seconds = np.array([reply[2] for reply in replies if reply[0] == 200])
    return {
        "clients": clients,
        "requests": requests,
        "explain": explain,
        "answered": len(seconds),
        "refused": sum(reply[0] == 429 for reply in replies),
        "per_second": round(len(seconds) / spent, 1),
        "ms": {f"p{p}": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 95, 99)},
    }


def photographs(predictor: Predictor, count: int, repeats: int = 3) -> dict:
    """Photographs a second: one at a time, together, and what the backbones alone would allow."""
    photos, nobody = [example(number % 3) for number in range(count)], Patient()

    @torch.inference_mode()
    def backbones() -> None:
        for one in predictor.runs:
            pixels = one.config.data.image_size
            views = torch.zeros(count * one.config.predict.views, pixels, pixels, 3).byte()
            for fold in one.folds:
                for part in views.split(IMAGES):
                    fold.model.see(part)

    ways = {
        "one at a time": lambda: [predictor.predict(photo, nobody) for photo in photos],
        "together": lambda: list(predictor.predict_many(photos, [nobody] * count)),
        "backbones": backbones,
    }
    turns = in_turns({name: partial(wall_seconds, way) for name, way in ways.items()}, repeats)
    return {
        "per_second": {name: count / float(np.median(times)) for name, times in turns.items()},
        "of_one": times_as_fast(turns["one at a time"], turns["together"]),
        "of_ceiling": times_as_fast(turns["backbones"], turns["together"]),
    }


def bad_inputs(address: str, limits: Limits, files: Sequence[Path]) -> list[dict]:
    """What the server says to made-up broken files and to `files`: name, status, reason."""
    photo = example(1)
    tried = {
        "an empty file": b"",
        "a text": b"This is no picture.",
        "a GIF": b"GIF89a" + bytes(200),
        "a JPEG cut in half": photo[: len(photo) // 2],
        "a JPEG's first 20 bytes": photo[:20],
        "more bytes than allowed": photo + bytes(limits.max_bytes),
        "a PNG of 50,000 x 50,000 pixels": huge_png(),
    } | {path.name: path.read_bytes() for path in files}
    told = []
    for name, content in tried.items():
        status, reason, _ = post(address, content)
        told.append({"input": name, "status": status, "reason": reason})
    return told


def post(address: str, content: bytes, explain: bool = False) -> Reply:
    begun = time.perf_counter()
    place = urlparse(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=120)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connection.request("POST", f"/api/predict?explain={str(explain).lower()}", content)
        answer = connection.getresponse()
        told = json.loads(answer.read())
    finally:
        connection.close()
    return answer.status, str(told.get("detail", "")), time.perf_counter() - begun


def huge_png(width: int = 50_000, height: int = 50_000) -> bytes:
    """The beginning of a PNG that claims its size: decoding it would take gigabytes."""
    parts = [(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", bytes(16))]
    chunks = [
        pack(">I", len(body)) + name + body + pack(">I", crc32(name + body)) for name, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--run", default="demo/resnet10t", help="a run (default demo/resnet10t)")
    parser.add_argument("--requests", type=int, default=100, help="of each kind (default 100)")
    parser.add_argument("--bad-inputs", type=Path, help="a folder of broken and odd files")
    args, results = Results.parse(parser, "serving.json", arguments)
    predictor, limits = Predictor.load(args.run), Limits()
    first = predictor.runs[0]
    files = sorted(p for p in args.bad_inputs.iterdir() if p.is_file()) if args.bad_inputs else []
    found: dict[str, Any] = {
        "run": predictor.name, "backbone": first.config.model.backbone,
        "image_size": first.config.data.image_size, "folds": len(first.folds),
        "views": first.config.predict.views, "queue": limits.queue, "busy": os.getloadavg()[0],
        "versions": versions(), "loads": [],
    }  # fmt: skip
    found["photographs"] = photographs(predictor, max(4, args.requests // 3))
    with served(predictor, limits) as address:
        for clients, explain in ((1, False), (8, False), (1, True), (50, False)):
            load = measure(address, clients, args.requests, explain)
            found["loads"].append(load)
            print(f"{clients:3} clients: {load['per_second']} answers/s, {load['ms']} ms")
        found["bad_inputs"] = bad_inputs(address, limits, files)
    results.write(found)
    return 0


if __name__ == "__main__":
    run(main)
