"""Several machines on one run: folds shared out by locks, and one fold on two torchrun nodes."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd
import pytest
from conftest import tiny_run
from train import main as train

from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.paths import CODE, at
from lesions.training.run import BUSY_WAIT

HOLDER = """
import os, sys, time
from pathlib import Path
from lesions.training.state import locked
with locked(Path(sys.argv[1])):
    if worker := os.fork():
        print(worker, flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(demo) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds the lock of fold 0 of the run `shared`, and its worker's id."""
    command = [sys.executable, "-c", HOLDER, str(at("oof/shared/.fold0.lock"))]
    environment = os.environ | {"PYTHONPATH": str(CODE / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        yield process, worker
        process.kill()
        os.kill(worker, signal.SIGKILL)


def test_fold_all_skips_a_fold_of_another_process_and_takes_it_last(holder, monkeypatch, capsys):
    process, worker = holder
    held = f"another process trains this fold: process {process.pid} on"
    with pytest.raises(InputError, match=held):
        train([*tiny_run("shared"), "--fold", "0"])
    done_before: list[str] = []

    def wait(seconds: float) -> None:
        if seconds != BUSY_WAIT:
            return
        done_before.extend(sorted(path.name for path in at("oof/shared").glob("fold*.json")))
        process.kill()
        process.wait()
        os.kill(worker, 0)  # is alive

    monkeypatch.setattr("lesions.training.run.time.sleep", wait)
    assert train([*tiny_run("shared"), "--fold", "all"]) == 0
    assert done_before == ["fold1.json", "fold2.json"]
    printed = capsys.readouterr().out
    assert re.findall(r"shared fold (\d): out-of-fold", printed) == ["1", "2", "0"]
    assert printed.count("fold 0 is left for last") == 1
    own = f"process {os.getpid()} on"
    assert at("oof/shared/.fold0.lock").read_text().startswith(own)


@pytest.mark.slow
def test_two_processes_train_every_row_once_and_two_torchrun_nodes_byte_for_byte_the_same(demo):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two_nodes = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1",
                 f"--master_port={port}"]  # fmt: skip
    launches = {
        "nodes": [[*two_nodes, f"--node_rank={rank}"] for rank in (0, 1)],
        "processes": [["--standalone", "--nproc_per_node=2"]],
    }
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for run, options in launches.items():
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *option, "--",
                 "scripts/train.py", *tiny_run(run), "--fold", "0"],
                cwd=CODE, env=environment, stderr=subprocess.PIPE, text=True,
            )
            for option in options
        ]  # fmt: skip
        for process in started:
            problem = process.communicate(timeout=300)[1]
            assert process.returncode == 0, problem[-3000:]
    nodes, processes = (at("oof", run, "fold0.csv") for run in launches)
    assert nodes.read_bytes() == processes.read_bytes()
    table, oof = load_table("demo")[0], pd.read_csv(nodes)
    held_out = table["image_name"][(table["fold"] == 0) & (table["split"] == "train")]
    assert oof["image_name"].tolist() == held_out.tolist() and oof["prob"].between(0, 1).all()
