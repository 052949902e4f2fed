"""What a killed fold goes on from, and the lock that keeps a second run out."""

import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lesions.config import Config, differences
from lesions.errors import InputError, listed
from lesions.files import write_bytes
from lesions.paths import shown


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file before it stays whole until this one is."""
    content = io.BytesIO()  # torch reports a full disk without saying so; a plain write does
    torch.save(state, content)
    write_bytes(path, content.getvalue())


def load_state(path: Path, config: Config, hashes: dict[str, str]) -> dict[str, Any] | None:
    """The saved state, or None if there is none.

    InputError if it was saved under another config, table or folds: it lists the differences.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise InputError(f"{shown(path)}: damaged ({error}): delete it to start anew") from error
    changed = differences(state["config"], config.model_dump()) + differences(
        state["hashes"], hashes
    )
    if changed:
        raise InputError(
            f"{shown(path)}: was saved with other settings ({listed(changed)}):"
            " undo the change, give the run another --name, or delete the file"
        )
    return state


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file for the block; InputError that names the holder if another run has it.

    The system lets go of it when the process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{shown(path.parent)}: another run is at this fold: {file.read().strip()}"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
