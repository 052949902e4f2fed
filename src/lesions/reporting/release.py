"""A trained run packed for others: models/<name>/, an ordinary run folder, and a zip of it."""

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from safetensors import safe_open

from lesions.errors import InputError
from lesions.files import atomic, read_json, sha256, write_bytes, write_json, write_text
from lesions.inference.calibrate import calibrate_run, given_path
from lesions.oof import load_oof
from lesions.paths import CODE, shown
from lesions.reporting.report import build_card
from lesions.runs import SUMS, RunFiles, find_run


def write_release(spec: str, folds: Sequence[int] | None, target: Path) -> tuple[Path, Path]:
    """Write `target` and a zip of it beside it, and return both paths.

    Weights are stored in half precision. Calibration and card are made anew from the held-out
    rows of these folds, which stay out of the folder: their labels are licensed data. InputError
    where the data set is not at hand, from which the calibration learns what is usual.
    """
    run = find_run(spec, takes=("run",))
    run = replace(run, folds=tuple(folds) if folds else None)
    with TemporaryDirectory() as place:
        made = RunFiles(target.name, Path(place))
        shutil.copy(run.folder / "config.yaml", made.folder)
        for fold in run.numbers(".safetensors"):
            _copy_fold(run, made, fold)
        _, _, problem = calibrate_run(made.folder)
        if problem:
            raise InputError(problem)
        write_text(made.folder / "README.md", build_card(load_oof(made)))
        shutil.copy(CODE / "LICENSE", made.folder)
        for fold in made.numbers(".safetensors"):
            made.file(fold, ".csv").unlink()
            given_path(made.folder, fold).unlink(missing_ok=True)
            _rehash(made, fold)
        files = sorted(path for path in made.folder.iterdir() if path.name != SUMS)
        write_text(made.folder / SUMS, "".join(f"{sha256(path)}  {path.name}\n" for path in files))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made.folder, target)
    packed = target.with_suffix(".zip")
    with atomic(packed) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(target.iterdir()):
            archive.write(path, path.name)
    return target, packed


def _copy_fold(run: RunFiles, made: RunFiles, fold: int) -> None:
    """Copy a fold's files, its weights in half precision."""
    path = run.file(fold, ".safetensors")
    if run.changed(fold, ".safetensors"):
        raise InputError(f"{shown(path)}: has changed since it was trained: train the fold again")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path).items()
    half = {name: t.half() if t.is_floating_point() else t for name, t in tensors}
    if not all(torch.isfinite(tensor).all() for tensor in half.values()):
        raise InputError(f"{shown(path)}: has weights beyond half precision (65,504)")
    write_bytes(made.file(fold, ".safetensors"), safetensors.torch.save(half, metadata=metadata))
    shutil.copy(run.file(fold, ".csv"), made.folder)
    shutil.copy(run.file(fold, ".json"), made.folder)
    if given_path(run.folder, fold).exists():
        shutil.copy(given_path(run.folder, fold), made.folder)
    _rehash(made, fold)


def _rehash(made: RunFiles, fold: int) -> None:
    """Let fold<k>.json know the files that lie beside it now."""
    facts = read_json(made.file(fold, ".json"))
    beside = {kind: made.file(fold, f".{kind}") for kind in ("csv", "safetensors")}
    beside["given"] = given_path(made.folder, fold)
    facts["sha256"] = {kind: sha256(path) for kind, path in beside.items() if path.exists()}
    write_json(made.file(fold, ".json"), facts)
