"""The saved state from which a killed fold resumes, and the lock against a second process."""

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lesions.config import Config, differences, saved_config
from lesions.errors import InputError, listed
from lesions.files import atomic
from lesions.paths import shown

# What may change between two parts of a run: no number depends on it.
FREE = {"train": {"workers", "save_minutes", "save_steps", "tracker"}}
KEYS = ("config", "hashes", "progress", "model", "ema", "optimizer", "scaler", "best")
SEAL = b"lesions sha256 "  # then 64 hex digits: the end of every state file


def state_path(folder: Path, fold: int) -> Path:
    """Where a fold's newest state lies."""
    return folder / "state" / f"fold{fold}.pt"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, sealed with a checksum; the file before it is kept beside.

    InputError on a full disk, with the bytes it takes; both older files are then unchanged.
    """
    buffer = io.BytesIO()  # torch reports a full disk without saying so; a plain write does
    torch.save(state, buffer)
    content = buffer.getvalue()  # not getbuffer: Python 3.12.1 crashes on one left in a traceback
    try:
        with atomic(path) as part:
            with part.open("wb") as file:
                file.write(content)
                file.write(SEAL + hashlib.sha256(content).hexdigest().encode())
                file.flush()
                os.fsync(file.fileno())
            # Only now: the file before it stays in its place until this one is whole.
            if path.exists():
                path.replace(previous(path))
    except InputError as error:
        raise InputError(
            f"{error}: saving takes {len(content):,} bytes,"
            f" {shutil.disk_usage(path.parent).free:,} are free. What was saved before is whole:"
            " make room, then run the same command again"
        ) from error


def load_state(
    path: Path, config: Config, hashes: Mapping[str, Any], say: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """The saved state, or the one before it where that one is damaged, or None if there is none.

    InputError if it was saved under another config, table, folds or pixels: it lists what differs.
    """
    damaged = []
    for file in (path, previous(path)):
        if not file.exists():
            continue
        content = file.read_bytes()
        body, seal = content[: -len(SEAL) - 64], content[-len(SEAL) - 64 :]
        if seal != SEAL + hashlib.sha256(body).hexdigest().encode():
            damaged.append(f"{shown(file)}: damaged (its checksum differs)")
            continue
        try:
            state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            before = {**hashes, **state["hashes"]}  # an older version knew fewer of them
            changed = changes(state["config"], config, file) + differences(before, hashes)
            if missing := {*KEYS} - {*state}:
                raise LookupError(missing)
        except (RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, AttributeError):
            damaged.append(f"{shown(file)}: not a state of this version")
            continue
        if changed:
            raise InputError(
                f"{shown(file)}: was saved with other settings ({listed(changed)}):"
                " undo the change, give the run another --name, or delete the file"
            )
        if damaged:
            say(f"{damaged[0]}: resuming from {file.name}, the one before it")
        return state
    if damaged:
        raise InputError(f"{'; '.join(damaged)}: delete to start from the beginning")
    return None


def previous(path: Path) -> Path:
    """Where the state before the newest lies: fold0.pt -> fold0.previous.pt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def remove_state(folder: Path, fold: int) -> None:
    """Delete both state files of a fold that is done."""
    for path in (state_path(folder, fold), previous(state_path(folder, fold))):
        path.unlink(missing_ok=True)


def remove_parts(folder: Path, fold: int) -> None:
    """Delete the temporary files that this fold's killed runs have left; others' are in use."""
    for name in (f".fold{fold}.*.part", f".history{fold}.*.part", f"state/.fold{fold}.*.part"):
        for part in folder.glob(name):
            part.unlink(missing_ok=True)


def changes(saved: Mapping[str, Any], config: Config, where: Path) -> list[str]:
    """Lines "key: old -> new" for what decides a run's numbers and differs from `saved`.

    Keys that `saved`, read from `where`, does not know yet count as having today's default.
    """
    before = saved_config(saved, where).model_dump(exclude=FREE)
    return differences(before, config.model_dump(exclude=FREE))


class Busy(InputError):
    """Another process trains this fold."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file for the block; Busy, which names the holder, if another process has it.

    The system releases it when the process ends, however it ends. It is this process's alone:
    data-loader workers that outlive their killed trainer do not hold it, as they would by flock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise Busy(
                f"{shown(path.parent)}: another process trains this fold: {file.read().strip()}"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
