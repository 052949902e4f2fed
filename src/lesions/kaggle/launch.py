"""Run the scripts from a notebook, on every GPU that is there."""

import subprocess
import sys
from collections.abc import Sequence

from lesions.errors import InputError, listed
from lesions.paths import CODE

LEAST_COMPUTE = 7.0  # CUDA's compute capability that today's torch still has kernels for


def gpus() -> list[str]:
    """Names of the GPUs; InputError for one that today's torch does not run on, such as a P100."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    named = [line.rsplit(",", 1) for line in answer.splitlines() if "," in line]
    old = [name for name, compute in named if float(compute) < LEAST_COMPUTE]
    if old:
        raise InputError(f"{listed(old)}: too old for the installed torch: choose GPU T4 x2")
    return [name for name, _ in named]


def launch(name: str, arguments: list[str]) -> int:
    """Run a script by name on every GPU there is, or on the CPU; its exit code."""
    count = len(gpus())
    launcher = ["-m", "accelerate.commands.launch", "--num_processes", str(count),
                "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                *(["--multi_gpu"] if count > 1 else [])] if count else []  # fmt: skip
    return run_script(name, arguments, launcher)


def run_script(name: str, arguments: list[str], launcher: Sequence[str] = ()) -> int:
    """Run a script by name with its output in the notebook as it comes; its exit code."""
    command = [sys.executable, *launcher, str(CODE / "scripts" / f"{name}.py"), *arguments]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or []:
            print(line, end="", flush=True)
    return process.returncode
