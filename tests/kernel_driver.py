"""Run a notebook as Kaggle does: read-only input, no network, 20 GB of working folder.

Where the system lets us (Linux namespaces), all three are real; `ISOLATED` says so. Elsewhere the
notebook runs the same, with nothing to stop it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = ["unshare", "--mount", "--net", "--map-root-user"]
MOUNTS = (
    'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && '
    'mount -t tmpfs -o size=20g none "$2" && exec "${@:3}"'
)
PRIVATE = ("KAGGLE", "LESIONS", "HF_", "PYTHON", "NO_ALBUMENTATIONS")


def _can_isolate() -> bool:
    try:
        test = [*NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(test, capture_output=True).returncode == 0
    except OSError:
        return False


ISOLATED = _can_isolate()


@dataclass
class Outcome:
    """What a session left: its working folder, what its cells printed, and whether one failed."""

    output: Path
    text: str
    failed: bool


def kernel_session(
    root: Path, notebook: str, mounts: dict[str, Path], **environment: str
) -> Outcome:
    """Run the notebook's JSON below `root`, with each folder of `mounts` copied to its name."""
    given, working, output = root / "input", root / "working", root / "output"
    given.mkdir(parents=True)
    working.mkdir()
    (root / "home").mkdir()
    for name, folder in mounts.items():
        shutil.copytree(folder, given / name)
    for folder, _, files in os.walk(given):
        for name in files:
            (Path(folder) / name).chmod(0o444)
    placed = notebook.replace("/kaggle/", f"{root}/")
    (root / "notebook.ipynb").write_text(placed, encoding="utf-8")
    command = [sys.executable, __file__, str(root / "notebook.ipynb"), str(working), str(output)]
    if ISOLATED:
        command = [*NAMESPACES, "bash", "-c", MOUNTS, "_", str(given), str(working), *command]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
    kept |= {"HOME": str(root / "home"), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, env=kept, capture_output=True, text=True, cwd=root, timeout=900)
    assert output.is_dir(), done.stdout + done.stderr
    return Outcome(output / "working", (output / "text").read_text(), done.returncode != 0)


def main(path: str, working: str, output: str) -> int:
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    # Sockets in files, of 107 characters at most: without a network not even the loopback is up.
    manager = AsyncKernelManager(transport="ipc", kernel_name="python3")
    manager.ip = f"{tempfile.mkdtemp(dir='/tmp')}/socket"
    resources = {"metadata": {"path": working}}
    text, failed = [], 0
    try:
        NotebookClient(notebook, km=manager, timeout=600, resources=resources).execute()
    except CellExecutionError as error:
        text, failed = [str(error)], 1
    printed = [item.get("text", "") for cell in notebook.cells for item in cell.get("outputs", [])]
    shutil.copytree(working, Path(output) / "working")
    (Path(output) / "text").write_text("".join([*printed, *text]), encoding="utf-8")
    nbformat.write(notebook, Path(output) / "executed.ipynb")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
