"""Where things are: the only module that knows the repository's folders."""

import os
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]  # the checkout: src/lesions is two folders below
# In an installed wheel configs/ and models/ lie here, and the root is the folder one works in.
WHEEL = Path(__file__).parent / "packaged"


def at(*parts: str | Path) -> Path:
    """A path below the repository's root, such as at("oof", run) or at("input/prepared", name).

    LESIONS_ROOT moves the root, all but configs/, which belongs to the code: a Kaggle kernel mounts
    the code read-only and writes elsewhere. It is read at every call, so that a test redirects
    every module at once.
    """
    inside = Path(*parts)
    if inside.parts[:1] == ("configs",):
        return shipped(inside)
    root = Path.cwd() if WHEEL.is_dir() else CODE
    return Path(os.environ.get("LESIONS_ROOT", root)).resolve() / inside


def shipped(inside: str | Path) -> Path:
    """A path that comes with the code, below configs or models."""
    return (WHEEL if WHEEL.is_dir() else CODE) / inside


def shown(path: str | Path) -> str:
    """The path as a message prints it: relative to the root where it lies inside."""
    path = Path(path)
    return str(path.relative_to(at())) if path.is_relative_to(at()) else str(path)
