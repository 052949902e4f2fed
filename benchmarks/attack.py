"""Damaged and hostile input of every kind, by fixed seeds: an answer, one sentence, or a traceback.

    python benchmarks/attack.py --seconds 60 --out docs/results/robustness.json

docs/robustness.md says what is damaged. Exit code 2 with a message, or a status of 4xx with one,
counts as a sentence; what else ends the script is a traceback.
"""

import contextlib
import http.client
import io
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import quote, urlsplit

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from lesions.cli import build_parser, run
from lesions.config import load_config, load_dataset_config
from lesions.data.decode import UnreadableImage, decode
from lesions.data.photographs import unpacked
from lesions.data.sample import write_sample
from lesions.errors import InputError
from lesions.files import sha256, write_json
from lesions.paths import CODE, at
from lesions.provenance import Results
from lesions.runs import find_run
from lesions.training.state import previous, save_state, state_path
from lesions.training.steps import Stepper

SLOW = 20  # seconds that no file may take
JUNK: list[Any] = [
    None, "", "x", "..", "\0", -1, 2**70, 0.5, float("nan"), float("inf"), True, [], [[]], {},
    {"a": 1}, "9" * 400, "é\r\n", ["x"], "<NA>",
]  # fmt: skip
WORDS = [
    "", ".", "..", "/no/where", "../../x",
    "-1", "²", "1e999", "nan", "None", "\0", "a" * 5000, "é💥",
    "a\nb", "[", "{", "*x", "!!python/object:os.system {}", "2026-11-26", "{[1]: 2}", "99999999999",
    "/dev/null", "/etc/passwd", "/proc/self/mem", "oof", "tiny", "0", "1",
]  # fmt: skip

Draw = np.random.Generator
Attack = Callable[[], Any]


def script(name: str) -> Callable[[list[str]], int]:
    """The `main` of a script."""
    return import_module(name).main


class Outcome(NamedTuple):
    """How an attack ended: answer, sentence or traceback; what was said, and the seconds."""

    kind: str
    said: str
    seconds: float


def outcome(attack: Attack) -> Outcome:
    """Call it as a script's `main` is called."""
    said, begun, code = io.StringIO(), time.monotonic(), None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            run(lambda: found if isinstance(found := attack(), int) else 0)
        except SystemExit as end:
            code = end.code
        except Exception as error:
            place = extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            said.write(f"{type(error).__name__} in {where}: {error}")
    kind = {0: "answer", 2: "sentence"}.get(code if isinstance(code, int) else -1, "traceback")
    if kind == "sentence" and not said.getvalue().strip():
        kind = "traceback"
    return Outcome(kind, said.getvalue().strip()[-300:], time.monotonic() - begun)


def damaged(content: bytes, draw: Draw) -> bytes:
    """Some bytes changed, cut out, repeated or zeroed, mostly near the beginning; 1 in 20 whole."""
    if draw.random() < 0.05:
        return content
    data, size = bytearray(content), len(content)
    for _ in range(int(draw.integers(1, 5))):
        start = int(size * draw.random() ** draw.integers(1, 5))
        length = int(draw.integers(1, 40))
        part = bytes(draw.integers(0, 256, length, np.uint8))
        kind = draw.integers(5)
        if kind == 0:
            data[start : start + 1] = part[:1]
        elif kind == 1:
            data[start : start + length] = b""
        elif kind == 2:
            data[start:start] = data[start : start + 20 * length]
        elif kind == 3:
            data[start : start + 30 * length] = bytes(30 * length)
        else:
            data[start : start + length] = part
    return bytes(data[: int(size * draw.random())] if draw.random() < 0.1 else data)


def replaced(value: Any, draw: Draw) -> Any:
    """A JSON value with one value anywhere in it replaced by junk, or left out."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, copy = keys[int(draw.integers(len(keys)))], value.copy()
        if draw.random() < 0.1:
            del copy[key]
        else:
            copy[key] = replaced(copy[key], draw)
        return copy
    return JUNK[int(draw.integers(len(JUNK)))]


def swapped(text: str, draw: Draw) -> str:
    """A CSV with a cell, a row or a separator changed."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(int(draw.integers(1, 4))):
        row = rows[int(len(rows) * draw.random() ** 2)]
        place, kind = int(draw.integers(len(row))), draw.integers(5)
        if kind == 4:
            rows.append(row.copy())
        elif kind == 0:
            row.insert(place, "1")
        elif kind == 1 and len(row) > 1:
            del row[place]
        else:
            row[place] = str([*JUNK, *WORDS][int(draw.integers(len(JUNK) + len(WORDS)))])
    return "\n".join(",".join(row) for row in rows)


def changed(content: bytes, kind: str, draw: Draw) -> bytes:
    """A file's content, damaged byte by byte or, of JSON and CSV, value by value."""
    if draw.random() < 0.3 or kind not in ("json", "csv"):
        return damaged(content, draw)
    if kind == "csv":
        return swapped(content.decode(), draw).encode("utf-8", "replace")
    return json.dumps(replaced(json.loads(content), draw)).encode()


def pictures() -> list[bytes]:
    """One small picture of each format that is read, with EXIF."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    exif, made = Image.Exif(), []
    exif.update({0x0112: 6, 0x010E: "a lesion", 0x011A: 72.0})
    for kind, how in (
        ("JPEG", {"exif": exif}), ("JPEG", {"progressive": True, "exif": exif}),
        ("PNG", {"exif": exif}), ("WEBP", {"exif": exif}), ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}), ("BMP", {}),
    ):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **how)
        made.append(file.getvalue())
    return made


def on_images(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    files = pictures()

    def read(content: bytes) -> None:
        try:
            decode(content, 32)
        except UnreadableImage as error:
            raise InputError(str(error)) from error

    while True:
        content = damaged(files[int(draw.integers(len(files)))], draw)
        yield partial(read, content)


def on_archives(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    with zipfile.ZipFile(folder / "whole.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number, content in enumerate(pictures()):
            file.writestr(f"photos/{number}.jpg", content)
    images = np.zeros((2, 28, 28, 3), np.uint8)
    np.savez_compressed(
        folder / "whole.npz", train_images=images, val_images=images, test_images=images
    )
    run_folder = at("oof/attacked")
    names = ["config.yaml", *(f"fold0.{suffix}" for suffix in ("csv", "json", "safetensors"))]
    sums = "".join(f"{sha256(run_folder / name)}  {name}\n" for name in names)
    with zipfile.ZipFile(folder / "whole.run.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("SHA256SUMS", sums)
        for name in names:
            file.write(run_folder / name, name)

    readers: dict[str, Callable[[Path], Any]] = {
        ".zip": unpacked,
        ".npz": unpacked,
        ".run.zip": find_run,
    }
    while True:
        suffix = str(draw.choice(list(readers)))
        path = folder / f"damaged{suffix}"
        path.write_bytes(damaged((folder / f"whole{suffix}").read_bytes(), draw))
        yield partial(readers[suffix], path)


def on_tables(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    blend, prepare, submit, predict = map(script, ("blend", "prepare", "submit", "predict"))
    oof = at("oof/attacked/fold0.csv").read_bytes()
    sample = at("input/sample/isic2020/sample_submission.csv")
    (folder / "photo.png").write_bytes(pictures()[2])
    people = b"image_name,age,sex,site\nphoto,55,female,torso\n"
    predicted = ["--run", "attacked", "--images", str(folder / "photo.png"),
                 "--out", str(folder / "o.csv"), "--metadata"]  # fmt: skip
    sources = sorted(at("input/sample").glob("*/*.csv"))
    shutil.copytree(at("input/sample"), folder / "sample")
    places = [f"{name}={folder / 'sample' / name}" for name in ("isic2019", "isic2020")]
    inputs = [word for place in places for word in ("--input", place)]
    path = folder / "table.csv"
    while True:
        kind = draw.integers(6)
        if kind == 0:
            path.write_bytes(changed(oof, "csv", draw))
            yield lambda: blend([str(path), "attacked", "--no-test", "--out", str(folder)])
        elif kind == 1:
            path.write_bytes(changed(sample.read_bytes(), "csv", draw))
            sent, known = [(path, sample), (sample, path)][int(draw.integers(2))]
            yield partial(submit, [str(sent), "--sample", str(known), "--dry-run",
                                   "--earlier", str(path)])  # fmt: skip
        elif kind == 2:
            path.write_bytes(changed(people, "csv", draw))
            yield lambda: predict([*predicted, str(path)])
        else:
            whole = sources[int(draw.integers(len(sources)))]
            target = folder / "sample" / whole.relative_to(at("input/sample"))
            target.write_bytes(changed(whole.read_bytes(), "csv", draw))
            yield lambda: prepare(["--dataset", "demo", "--tables-only", *inputs])
            shutil.copy(whole, target)


def on_configs(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    path = folder / "attacked.yaml"
    configs, data = sorted((CODE / "configs").glob("*.yaml")), CODE / "configs/datasets/demo.yaml"
    while True:
        key = str(draw.choice(["train.lr", "model.backbone_args", "data", "seed", "x.y", "loss"]))
        change = f"{key}={WORDS[int(draw.integers(len(WORDS)))]}"
        if draw.random() < 0.5:
            path.write_bytes(damaged(configs[int(draw.integers(len(configs)))].read_bytes(), draw))
            yield partial(load_config, path, [change])
        else:
            path.write_bytes(damaged(data.read_bytes(), draw))
            yield partial(load_dataset_config, str(path.with_suffix("")))


def on_files(folder: Path, draw: Draw, suffixes: tuple[str, ...]) -> Generator[Attack, None, None]:
    """The files of a run and of a prepared data set, read by predict.py and calibrate.py."""
    calibrate, predict = script("calibrate"), script("predict")
    (folder / "photo.png").write_bytes(pictures()[2])
    places = [at("oof/attacked"), at("input/prepared/demo"), at("input/prepared/demo/32")]
    files = [path for place in places for path in sorted(place.iterdir())]
    files = [path for path in files if path.suffix in suffixes]
    images = ["--images", str(folder / "photo.png"), "--out", str(folder / "o.json")]
    blend = {"members": ["attacked"], "weights": {"attacked": 1.0}, "scale": "prob"}
    write_json(at("submissions/blend.json"), blend)
    files += [at("submissions/blend.json")] if ".json" in suffixes else []
    while True:
        path = files[int(draw.integers(len(files)))]
        whole = path.read_bytes()
        path.write_bytes(changed(whole, path.suffix[1:], draw))
        if path.name == "blend.json" or (path.suffix != ".csv" and draw.random() < 0.5):
            run = "blend.json" if path.name == "blend.json" else "attacked"
            yield partial(predict, ["--run", run, *images])
        else:
            yield lambda: calibrate(["--run", "attacked", "--rows", "10"])
        path.write_bytes(whole)


def on_pretrained(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    """Files of weights that a run is to start from; what is accepted is trained for three steps."""
    train, own = script("train"), at("oof/attacked/fold0.safetensors")
    torch.save({"state_dict": load_file(own), "epoch": 3}, folder / "whole.pth")
    while True:
        whole = (own, folder / "whole.pth")[int(draw.integers(2))]
        path = folder / f"damaged{whole.suffix}"
        path.write_bytes(damaged(whole.read_bytes(), draw))
        words = [*attacked("started"), "--fold", "0", "--pretrained", str(path)]
        yield partial(train, words)
        shutil.rmtree(at("oof/started"), ignore_errors=True)


class Killed(BaseException):
    """Stands for kill -9: nothing in the program may catch it."""


def on_states(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    """The state that a killed run resumes from: its bytes, or its values under a true checksum."""
    train, command = script("train"), [*attacked("killed"), "--fold", "0"]
    step, made = Stepper.step, iter((True, True, False))

    def step_or_die(self: Stepper, *given: Any) -> None:
        if not next(made):
            raise Killed
        step(self, *given)

    with patch.object(Stepper, "step", step_or_die), contextlib.suppress(Killed):
        outcome(lambda: train([*command, "--set", "train.save_steps=1"]))
    shutil.copytree(at("oof/killed"), folder / "killed")
    path = state_path(at("oof/killed"), 0)
    state = torch.load(state_path(folder / "killed", 0), weights_only=True)
    while True:
        if draw.random() < 0.5:
            path.write_bytes(damaged(path.read_bytes(), draw))
        else:
            save_state(path, replaced(state, draw))
        if draw.random() < 0.5:
            previous(path).unlink(missing_ok=True)
        yield lambda: train(command)
        shutil.rmtree(at("oof/killed"))
        shutil.copytree(folder / "killed", at("oof/killed"))


def on_server(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    """Photographs, forms and whole requests, sent to a server of the run in this process."""
    serving = import_module("serving")
    limits = serving.Limits(max_bytes=100_000, header_seconds=1, body_seconds=1)
    photos = pictures()[:4]
    with serving.served(serving.Predictor.load("attacked"), limits) as address:
        host, port = urlsplit(address).netloc.split(":")
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of each broken head

        def ask(head: bytes, content: bytes) -> None:
            with socket.create_connection((host, int(port)), 60) as line:
                line.sendall(head + content)
                if not head.endswith(b"Connection: close\r\n\r\n"):
                    line.shutdown(socket.SHUT_WR)  # else the server would wait for more
                reply = http.client.HTTPResponse(line)
                try:
                    reply.begin()
                    said = reply.read().decode()
                except http.client.RemoteDisconnected:
                    reply.status, said = 400, "no whole request"  # it is closed without an answer
            health = http.client.HTTPConnection(host, int(port), timeout=60)
            health.request("GET", "/api/health")
            if reply.status >= 500 or health.getresponse().status != 200:
                raise RuntimeError(f"{reply.status} {said}")
            if reply.status >= 400:
                raise InputError(f"{reply.status} {said}")

        while True:
            content = damaged(photos[int(draw.integers(len(photos)))], draw)
            words = [
                str([*JUNK, *WORDS][int(at)]) for at in draw.integers(len(JUNK + WORDS), size=4)
            ]
            fields = dict(zip(("age", "sex", "site", "explain"), words, strict=True))
            kept = [key for key in fields if draw.random() < 0.3]
            kind, query = "image/jpeg", "&".join(f"{key}={quote(fields[key])}" for key in kept)
            if draw.random() < 0.4:
                kind = "multipart/form-data; boundary=x"
                parts = [f'name="{key}"\r\n\r\n{fields[key]}'.encode() for key in kept]
                parts.append(b'name="photo"; filename="a"\r\n\r\n' + content)
                content = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n"
                                   for part in parts) + b"--x--\r\n"  # fmt: skip
                content = damaged(content, draw) if draw.random() < 0.5 else content
            head = "\r\n".join([
                f"POST /api/predict?{query} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}",
                f"Content-Length: {len(content)}", "Connection: close", "\r\n",
            ]).encode()  # fmt: skip
            yield partial(ask, damaged(head, draw) if draw.random() < 0.2 else head, content)


def on_values(folder: Path, draw: Draw) -> Generator[Attack, None, None]:
    """Options of the scripts. None is given all that it needs to begin an hour of work."""
    options = {  # what each is called with, and what is added
        "train --config configs/demo/mobilenetv3.yaml":
            ["--config", "--fold", "--set", "--name", "--pretrained", "--max-hours"],
        "predict --run attacked":
            ["--run", "--folds", "--set", "--images", "--age", "--sex", "--site", "--out"],
        "calibrate --run attacked": ["--run", "--rows", "--prevalence", "--rule"],
        "blend attacked --out ../..": ["", "--method", "--groups", "--source", "--test"],
        "report": ["--run", "--recall"],
        "explain --run attacked --out ../../explain": ["--run", "--images", "--age", "--site"],
        "export --run no-such-run": ["--run", "--to", "--folds"],
        "serve --run no-such-run": ["--run", "--folds", "--host", "--port"],
        "prepare --dataset demo --tables-only":
            ["--dataset", "--size", "--input", "--images", "--set"],
        "audit --dataset demo": ["--dataset", "--legacy", "--json"],
        "submit --dry-run": ["", "--sample", "--earlier"],
        "kaggle_push --write ../../kernel": ["", "--size"],
    }  # fmt: skip
    mains = {command: script(command.split()[0]) for command in options}
    here = folder / "two/below"  # .. has no photographs, of which there may be thousands
    here.mkdir(parents=True)
    while True:
        command = list(options)[int(draw.integers(len(options)))]
        words = command.split()[1:]
        for option in draw.choice(options[command], int(draw.integers(1, 3)), replace=False):
            value = WORDS[int(draw.integers(len(WORDS)))]
            words += [word for word in (str(option), value) if word or option]
        with contextlib.chdir(here):
            yield partial(mains[command], words)


KINDS: dict[str, Callable[[Path, Draw], Generator[Attack, None, None]]] = {
    "photographs": on_images,
    "archives": on_archives,
    "CSV": on_tables,
    "YAML and --set": on_configs,
    "JSON": partial(on_files, suffixes=(".json", ".yaml")),
    "weights and predictions": partial(on_files, suffixes=(".safetensors", ".csv", ".npy")),
    "--pretrained": on_pretrained,
    "states of a killed run": on_states,
    "options": on_values,
}
if find_spec("gradio"):  # the serve extra
    KINDS["requests to the server"] = on_server


QUICK = ("photographs", "archives", "YAML and --set")  # the others run whole scripts: more time


def attack(built: Path, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Outcomes by kind; each kind attacks its own copy of the root `built`, in its share of time.

    `tracebacks` has each different one, `slow` what took over SLOW seconds.
    """
    counts, faults, slow = {}, dict[str, str](), []
    shares = {kind: 1 if kind in QUICK else 4 for kind in KINDS}
    for kind, attacks in KINDS.items():
        found: Counter[str] = Counter(dict.fromkeys(("answer", "sentence", "traceback"), 0))
        with tempfile.TemporaryDirectory() as copy, tempfile.TemporaryDirectory() as folder:
            shutil.copytree(built, copy, dirs_exist_ok=True)
            with patch.dict(os.environ, LESIONS_ROOT=copy):
                ends = time.monotonic() + seconds * shares[kind] / sum(shares.values())
                making = attacks(Path(folder), np.random.default_rng(seed))
                with contextlib.closing(making):
                    for each in making:
                        ended = outcome(each)
                        found[ended.kind] += 1
                        if ended.kind == "traceback":
                            faults.setdefault(f"{kind}: {ended.said[:60]}", ended.said)
                        if ended.seconds > SLOW:
                            slow.append(f"{kind}: {ended.seconds:.0f} s: {ended.said}")
                        if time.monotonic() > ends:
                            break
        counts[kind] = dict(found)
        print(f"{kind:26} {dict(found)}", flush=True)
    return {"seconds": seconds, "seed": seed, "counts": counts, "tracebacks": list(faults.values()),
            "slow": slow}  # fmt: skip


def build_run(folder: Path) -> None:
    """A root with oof/attacked, a run of seconds on a drawn data set."""
    with patch.dict(os.environ, LESIONS_ROOT=str(folder)):
        write_sample(at("input/sample"), images=90)
        script("prepare")(["--dataset", "demo", "--size", "32"])
        script("train")(attacked("attacked"))


def attacked(name: str) -> list[str]:
    """Arguments of train.py for a run of three steps."""
    changes = ["train.epochs=1", "train.batch_size=16", "train.micro_batch=16", "train.workers=0",
               "data.image_size=32"]  # fmt: skip
    words = [word for change in changes for word in ("--set", change)]
    return ["--config", "configs/demo/mobilenetv3.yaml", "--name", name, *words]


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of attacks (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    args, results = Results.parse(parser, "robustness.json", arguments)
    with tempfile.TemporaryDirectory() as folder:
        build_run(Path(folder))
        found = attack(Path(folder), args.seconds, args.seed)
    for fault in [*found["tracebacks"], *found["slow"]]:
        print(fault, "\n")
    results.write(found)
    return int(bool(found["tracebacks"] or found["slow"]))


if __name__ == "__main__":
    run(main)
