"""Kill real training processes with SIGKILL, resume them, and compare every byte with a run that
was never killed: weights, optimiser state, out-of-fold file, history.

    python benchmarks/survival.py                 # 20 points, 5 of them on two processes

Half of the points lie within a save. Works in a temporary folder; exit code 1 if a byte differs.
"""

import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.config import load_config
from lesions.data.sample import write_sample
from lesions.errors import InputError
from lesions.files import sha256
from lesions.inference.checkpoint import versions
from lesions.paths import CODE, at
from lesions.provenance import Results

CONFIG = CODE / "configs/demo/mobilenetv3.yaml"
CHANGES = [
    "train.epochs=2", "train.batch_size=16", "train.micro_batch=8", "train.save_steps=1",
    "data.image_size=32", "train.keep=best",
]  # fmt: skip
SAVES = 8  # of such a run: one a step, one an epoch
PATIENCE = 300  # seconds a run may take


class Point(NamedTuple):
    """When a run is killed: within its save number `save`, or `delay` seconds after it."""

    save: int
    within: bool
    delay: float
    processes: int
    workers: tuple[int, int]  # before and after


def kill_points(points: int, two_processes: int, seed: int) -> dict[str, Any]:
    """Kill and resume a run at `points` random points; how many ended with the same bytes."""
    at("oof").mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    os.environ["PYTHONPATH"] = str(CODE / "src")  # for the server, which imports once for all
    context.set_forkserver_preload(["lesions.training.run"])
    draw = random.Random(seed)
    plan = [
        Point(
            save=draw.randint(1, SAVES - 1),
            within=number % 2 == 0,
            delay=draw.random() * 0.2,
            processes=2 if number < two_processes else 1,
            workers=(draw.choice([0, 2]), draw.choice([0, 2])),
        )
        for number in range(points)
    ]
    expected = {}
    for processes in sorted({point.processes for point in plan}):
        _finish(_start(context, f"whole{processes}", processes, 0))
        expected[processes] = fingerprint(at("oof") / f"whole{processes}")
    tried = []
    for number, point in enumerate(plan):
        name = f"killed{number}"
        shutil.rmtree(at("oof") / name, ignore_errors=True)
        killed_at, within = _kill(context, name, point)
        _finish(_start(context, name, point.processes, point.workers[1]))
        found = fingerprint(at("oof") / name)
        differing = [part for part in found if found[part] != expected[point.processes][part]]
        tried.append(
            point._asdict() | {"within": within, "saved_steps": killed_at, "differing": differing}
        )
        verdict = f"differs in {', '.join(differing)}" if differing else "identical"
        print(f"{number + 1}: {tried[-1]}: {verdict}", flush=True)
    return {
        "config": CONFIG.relative_to(CODE).as_posix(),
        "changes": CHANGES,
        "versions": versions(),
        "points": points,
        "identical": sum(not entry["differing"] for entry in tried),
        "within_a_save": sum(entry["within"] for entry in tried),
        "on_two_processes": sum(entry["processes"] == 2 for entry in tried),
        "tried": tried,
    }


def fingerprint(folder: Path) -> dict[str, str]:
    """Digests of all that has to be the same; the state's last save without its seconds."""
    state = torch.load(folder / "state/fold0.pt", weights_only=True)
    state["progress"].pop("seconds")
    kept = ("model", "ema", "optimizer", "progress", "best")
    parts = {part: _digest(state[part]) for part in kept}
    # The file's header has the run's name, which differs.
    parts["weights"] = _digest(load_file(folder / "fold0.safetensors"))
    return parts | {name: sha256(folder / name) for name in ("fold0.csv", "history0.csv")}


def _digest(value: Any) -> str:
    """Of nested values and tensors, with the type and shape of each."""
    if isinstance(value, torch.Tensor):
        value = (value.dtype, value.shape, value.contiguous().numpy().tobytes())
    elif isinstance(value, dict | list | tuple):
        value = [_digest(part) for part in (value.items() if isinstance(value, dict) else value)]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _start(context: Any, name: str, processes: int, workers: int) -> list[ForkServerProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        if processes > 1:
            environment |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
        process = context.Process(target=_train, args=(name, workers, environment))
        process.start()
        started.append(process)
    return started


def _train(name: str, workers: int, environment: dict[str, str]) -> None:
    """One process of a run, as scripts/train.py does it; its last state stays."""
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # of data-loader workers, as on Linux
    os.setpgid(0, 0)  # killed with its data-loader workers, as a machine that goes down does
    torch.set_num_threads(1)
    from lesions.inference.accelerator import build_accelerator
    from lesions.training import run as training
    from lesions.training.stop import StopRequest

    training.state.remove_state = lambda folder, fold: None
    config = load_config(CONFIG, [*CHANGES, f"train.workers={workers}"])
    quiet = (at("oof") / f"{name}.log").open("a")
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        accelerator = build_accelerator(config.train.precision)
        training.train_folds(config, name, [0], accelerator, StopRequest())


def _finish(processes: list[ForkServerProcess]) -> None:
    for process in processes:
        process.join(PATIENCE)
        if process.exitcode != 0:
            _kill_all(processes)
            raise InputError(f"a run that should have finished ended with {process.exitcode}")


def _kill(context: Any, name: str, point: Point) -> tuple[int, bool]:
    """Start the run and kill it at the point: the step last saved, and whether it was saving."""
    state = at("oof") / name / "state"
    processes = _start(context, name, point.processes, point.workers[0])
    deadline = time.monotonic() + PATIENCE
    seen: set[int] = set()  # times of the newest state file: one a save
    while len(seen) < point.save - point.within or (point.within and not _parts(state)):
        with contextlib.suppress(FileNotFoundError):
            seen.add((state / "fold0.pt").stat().st_mtime_ns)
        if not processes[0].is_alive() or time.monotonic() > deadline:
            _kill_all(processes)
            raise InputError(f"{name}: over before it could be killed: see {at('oof') / name}.log")
        time.sleep(0.0005)
    if not point.within:
        time.sleep(point.delay)
    _kill_all(processes)
    within = bool(_parts(state))
    newest = state / "fold0.pt"
    if not newest.exists():
        return 0, within
    return torch.load(newest, weights_only=True)["progress"]["step"], within


def _parts(state: Path) -> list[Path]:
    return list(state.glob(".*.part"))


def _kill_all(processes: list[ForkServerProcess]) -> None:
    for process in processes:
        if process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.join()


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--points", type=int, default=20, help="default 20")
    parser.add_argument("--two-processes", type=int, default=5, help="of these, on two processes")
    parser.add_argument("--seed", type=int, default=0)
    args, results = Results.parse(parser, "survival.json", arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LESIONS_ROOT"] = folder
        write_sample(at("input/sample"), images=90)
        prepare = [str(CODE / "scripts/prepare.py"), "--dataset", "demo", "--size", "32"]
        subprocess.run([sys.executable, *prepare], check=True)
        outcome = kill_points(args.points, args.two_processes, args.seed)
    results.write(outcome)
    print(f"{outcome['identical']} of {outcome['points']} identical")
    return int(outcome["identical"] < outcome["points"])


if __name__ == "__main__":
    run(main)
