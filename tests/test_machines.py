"""Several machines on one run: folds shared out by locks, and one fold on two torchrun nodes."""

import os
import re
import socket
import subprocess
import sys

import pandas as pd
import pytest
from conftest import tiny_run
from train import main as train

from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.paths import CODE, at
from lesions.training.run import BUSY_WAIT

HOLDER = """
import sys
from pathlib import Path
from lesions.training.state import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(demo) -> subprocess.Popen[str]:
    """Another process that holds the lock of fold 0 of the run `shared` until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(at("oof/shared/.fold0.lock"))]
    environment = os.environ | {"PYTHONPATH": str(CODE / "src")}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_fold_all_skips_a_fold_that_another_process_holds_and_takes_it_last(
    holder, monkeypatch, capsys
):
    with pytest.raises(InputError, match=rf"another process trains this fold: .*{holder.pid}"):
        train([*tiny_run("shared"), "--fold", "0"])
    done_before: list[str] = []

    def wait(seconds: float) -> None:
        if seconds != BUSY_WAIT:
            return
        done_before.extend(sorted(path.name for path in at("oof/shared").glob("fold*.json")))
        holder.communicate()

    monkeypatch.setattr("lesions.training.run.time.sleep", wait)
    assert train([*tiny_run("shared"), "--fold", "all"]) == 0
    assert done_before == ["fold1.json", "fold2.json"]
    printed = capsys.readouterr().out
    assert re.findall(r"shared fold (\d): out-of-fold", printed) == ["1", "2", "0"]
    assert printed.count("fold 0 is left for last") == 1


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
