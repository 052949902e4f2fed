"""How long a user waits at the shell: for what is wrong, a first step, a first answer, a report.

    python benchmarks/waiting.py                                              # the drawn sample
    python benchmarks/waiting.py --also "report --run RUN" "audit --dataset D"  # commands of yours

Every command is a process of its own, started in turns: seconds by the clock and of the CPU.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from serving import post
from timing import in_turns

from lesions.cli import build_parser, run
from lesions.data.sample import write_sample
from lesions.paths import CODE, at
from lesions.provenance import Results
from lesions.serving.service import example

SHIPPED = "ham10000_lite0"
WRONG = [
    line.split()
    for line in f"""audit --dataset nope
audit --folds no.csv --table no.csv
blend nope
calibrate --run nope
download nope
evaluate --run {SHIPPED} --images x --labels x.csv
explain --run nope --images x.jpg
export --run nope
predict --run {SHIPPED} --images x.jpg
prepare --dataset nope
prepare --dataset isic
release nope
report --run nope
runs
serve --run nope
submit no.csv --dry-run
train --config effnet_b1 --set dataset=nope
train --config effnet_b1 --set train.lrr=3""".splitlines()
]
TRAIN = ["train", "--config", "demo/resnet10t", "--fold", "0", "--max-hours", "0", "--name"]
Spent = tuple[float, float]  # seconds: wall, CPU


def spent(command: list[str], code: int, root: str | None = None) -> Spent:
    """Of one script, or of python -c, which must end with `code`."""
    before, begun = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    script = command if command[0] == "-c" else [f"{CODE}/scripts/{command[0]}.py", *command[1:]]
    where = os.environ | ({"LESIONS_ROOT": root} if root else {})
    done = subprocess.run([sys.executable, *script], env=where, capture_output=True, text=True)
    wall, after = time.perf_counter() - begun, getrusage(RUSAGE_CHILDREN)
    assert done.returncode == code, f"{command}: {done.returncode}: {done.stderr[-800:]}"
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step(root: str) -> Spent:
    """Of a training that stops, resumable, after its first step."""
    return spent([*TRAIN, f"first{time.monotonic_ns()}"], 75, root)


def first_answer() -> Spent:
    """From starting a server of the shipped run to its first prediction."""
    before, begun = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, f"{CODE}/scripts/serve.py", "--run", SHIPPED, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = next(line.split("/  ")[0] for line in server.stdout if line.startswith("http"))
        status = post(address, example(1))[0]
        wall = time.perf_counter() - begun
        server.terminate()
    after = getrusage(RUSAGE_CHILDREN)
    assert status == 200, status
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def afresh(command: list[str]) -> Spent:
    """Of a script in a root of its own, that has the originals and nothing made of them."""
    with TemporaryDirectory() as root:
        Path(root, "input").mkdir()
        for folder in at("input").iterdir():
            if folder.name != "prepared":
                Path(root, "input", folder.name).symlink_to(folder)
        return spent(command, 0, root)


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--also", nargs="+", default=[], help="commands of your own data")
    args, results = Results.parse(parser, "waiting.json", arguments)
    with TemporaryDirectory() as root:
        write_sample(Path(root) / "input/sample", images=90)
        spent(["prepare", "--dataset", "demo", "--size", "64"], 0, root)
        ways: dict[tuple[str, str], Callable[[], Spent]] = {
            ("wrong input", " ".join(words)): partial(spent, words, 2, f"{root}/none")
            for words in WRONG
        }
        ways["imports", "import torch, timm"] = partial(spent, ["-c", "import torch, timm"], 0)
        ways["first step", " ".join(TRAIN[:5])] = partial(first_step, root)
        ways["first answer", f"serve --run {SHIPPED}"] = first_answer
        for command in args.also:
            words = command.split()
            work = partial(afresh, words) if words[0] == "prepare" else partial(spent, words, 0)
            ways[words[0], command] = work
        turns = in_turns(ways, args.repeats)
    rows: list[dict[str, Any]] = []
    for (what, command), found in turns.items():
        wall, cpu = (
            [round(float(of(times)), 2) for of in (np.median, np.min, np.max)]
            for times in zip(*found, strict=True)
        )
        print(f"{command}: {wall[0]:.2f} s, CPU {cpu[0]:.2f} s")
        rows.append({"what": what, "command": command, "wall": wall, "cpu": cpu})
    results.write({"busy": os.getloadavg()[0], "repeats": args.repeats, "rows": rows})


if __name__ == "__main__":
    run(main)
