"""Train a run's folds one after the other, and calibrate the run when its last fold is done."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from accelerate import Accelerator

from lesions.config import Config, config_hash, differences, dump, read_yaml
from lesions.data.cache import verify_cache
from lesions.data.table import load_table, prepared
from lesions.data.tasks import Task
from lesions.errors import InputError, listed
from lesions.evaluation.scores import scores_text
from lesions.files import read_json, sha256, write_csv, write_json, write_text
from lesions.inference.calibration import calibrate_run
from lesions.inference.checkpoint import save_model, versions
from lesions.oof import load_oof
from lesions.paths import shown
from lesions.runs import find_run, run_folder
from lesions.training.fold import FoldData, load_fold
from lesions.training.loop import FoldTrainer, finite
from lesions.training.state import (
    changes,
    load_state,
    locked,
    remove_parts,
    remove_state,
    state_path,
)
from lesions.training.steps import epoch_scores
from lesions.training.stop import Stopped, StopRequest


def train_folds(
    config: Config, run: str, folds: Iterable[int], accelerator: Accelerator, stop: StopRequest
) -> int:
    """Train the folds of a run that are not done; the exit code, not 0 if stopped (see stop.py).

    When all folds of the data set are done, the run is calibrated and its scores are printed.
    """
    if config.train.tracker != "none":
        keys = pd.json_normalize(config.model_dump()).to_dict("records")[0]
        values = {k: v if isinstance(v, int | float) else str(v) for k, v in keys.items()}
        accelerator.init_trackers(run.replace("/", "-"), config=values)
    chosen = config.model_dump(exclude_defaults=True)
    accelerator.print(
        f"{shown(run_folder(run))}/config.yaml, where it differs from the defaults:\n"
        + yaml.safe_dump(chosen, sort_keys=False, default_flow_style=None)
    )
    trained = False
    with stop.listening(), _same_kernels(config.train.deterministic):
        for number, fold in enumerate(folds):
            # Not before the first one: a session that makes no progress would be repeated for ever.
            code = stop.agreed(0, accelerator) if number else 0
            if code:
                accelerator.print(f"stopped before fold {fold}; resume me")
                return code
            try:
                result, now = _train_fold(config, run, fold, accelerator, stop)
            except Stopped as stopped:
                return stopped.code
            trained |= now
            auc = "undefined" if result["auc"] is None else f"{result['auc']:.4f}"
            accelerator.print(
                f"{run} fold {fold}: out-of-fold AUC {auc}"
                f" on {result['rows']:,} images ({result['seconds'] / 60:.1f} min)"
            )
    accelerator.end_training()
    if accelerator.is_main_process:
        _complete(config, run, trained)
    return 0


def _train_fold(
    config: Config, run: str, fold: int, accelerator: Accelerator, stop: StopRequest
) -> tuple[dict[str, Any], bool]:
    """Train `fold`, or resume it: the content of its fold<k>.json, and whether it was trained now.

    Writes oof/<run>/fold<k>.safetensors, .csv and, last, .json. A fold that has all three, in
    agreement, is done and is not trained again. Raises Stopped if `stop` asks for it: the state is
    then saved.
    """
    folder = run_folder(run)
    data = load_fold(config, fold)
    _require_same_run(folder, config, data.hashes)
    result = _finished(folder, fold, accelerator.print)
    if result:
        if accelerator.is_main_process:
            remove_parts(folder, fold)
            remove_state(state_path(folder, fold))
        return result, False
    if not accelerator.is_main_process:
        return _train(config, run, fold, data, accelerator, stop), True
    with locked(folder / f".fold{fold}.lock"):
        remove_parts(folder, fold)
        verify_cache(prepared(config.dataset) / str(config.data.image_size))
        write_text(folder / "config.yaml", dump(config))
        return _train(config, run, fold, data, accelerator, stop), True


def _train(
    config: Config, run: str, fold: int, data: FoldData, accelerator: Accelerator,
    stop: StopRequest,
) -> dict[str, Any]:  # fmt: skip
    folder = run_folder(run)
    state = load_state(state_path(folder, fold), config, data.hashes, accelerator.print)
    trainer = FoldTrainer(config, fold, data, folder, accelerator, stop)
    trainer.announce(run)
    if state:
        trainer.resume(state)
        accelerator.print(f"resuming at step {trainer.progress.step:,} of {trainer.steps:,}")
    _require_same_step(trainer.progress.step, accelerator)
    trainer.train()
    probs, codes = trainer.predict(config.predict.views, "out-of-fold"), data.valid_codes
    rows = data.table.iloc[data.valid_rows].reset_index(drop=True)
    result = {
        "run": run,
        "fold": fold,
        "task": data.task.name,
        "classes": data.task.listed,
        "scheme": data.scheme,
        "config_hash": config_hash(config),
        "table_hash": data.hashes["table"],
        "fold_hash": data.hashes["folds"],
        "image_cache": data.hashes["images"],
        "versions": versions(),
    }
    scores = _scores(data.task, codes, probs, rows["source"])
    if accelerator.is_main_process:
        preprocess = data.hashes["images"]["key"]["preprocess"]
        header = result | {"config": config.model_dump(), "preprocess": preprocess}
        weights, csv = (folder / f"fold{fold}.{suffix}" for suffix in ("safetensors", "csv"))
        save_model(weights, trainer.averaged.state_dict(), header | {"neutral": data.neutral})
        oof = pd.concat([rows[["image_name", "fold"]], data.task.as_frame(probs, codes)], axis=1)
        write_csv(csv, oof)
        result["sha256"] = {"csv": sha256(csv), "safetensors": sha256(weights)}
        write_json(folder / f"fold{fold}.json", result | scores | trainer.facts())
        remove_state(state_path(folder, fold))
    accelerator.wait_for_everyone()
    return result | scores | trainer.facts()


def _scores(task: Task, codes: np.ndarray, probs: np.ndarray, source: pd.Series) -> dict[str, Any]:
    """Single numbers for fold<k>.json; `auc` of several classes is their mean."""
    parts = {name: (source == name).to_numpy() for name in sorted(set(source))}
    by_source = {name: epoch_scores(task, codes[s], probs[s])["auc"] for name, s in parts.items()}
    return {
        **finite(epoch_scores(task, codes, probs)),
        "auc_by_source": finite(by_source),
        "rows": len(codes),
        "positives": None if task.several else int(codes.sum()),
    }


def _require_same_step(step: int, accelerator: Accelerator) -> None:
    """InputError where the processes found different states: machines that share no folder."""
    mine = torch.tensor([step], device=accelerator.device)
    steps = accelerator.gather(mine).tolist()
    if len(set(steps)) > 1:
        raise InputError(
            f"the processes are at different steps ({listed(steps)}): all machines have to see"
            " the same oof/ folder"
        )


def _require_same_run(folder: Path, config: Config, hashes: dict[str, Any]) -> None:
    """InputError if the folder has folds of another config, or folds trained on other data."""
    results = sorted(folder.glob("fold*.json"))
    changed = []
    path = folder / "config.yaml"
    if path.exists() and (results or [*folder.glob("state/fold*.pt")]):
        changed += changes(read_yaml(path), config, path)
    keys = {"table_hash": "table", "fold_hash": "folds", "image_cache": "images"}
    now = {key: hashes[name] for key, name in keys.items()}
    for file in results:
        before = read_json(file)  # of an older version: it has no image_cache
        changed += differences({key: before.get(key, now[key]) for key in now}, now)
    if changed:
        raise InputError(
            f"{shown(folder)} holds folds with other settings ({listed(dict.fromkeys(changed))}):"
            " give this run another --name, or delete the folder"
        )


def _finished(folder: Path, fold: int, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The content of fold<k>.json if the fold is done: all three files are there and agree."""
    path = folder / f"fold{fold}.json"
    if not path.exists():
        return None
    result = read_json(path)
    known = result.get("sha256", {})
    wrong = []
    for suffix in ("csv", "safetensors"):
        file = path.with_suffix(f".{suffix}")
        if not file.exists():
            wrong.append(f"{shown(file)} is missing")
        elif known and sha256(file) != known[suffix]:
            wrong.append(f"{shown(file)} has changed")
    if wrong:
        say(f"{', '.join(wrong)}: fold {fold} is trained again")
        return None
    if not known:
        say(f"WARNING: {shown(path)} has no hashes of its files: an older version wrote it")
    return result


def _complete(config: Config, run: str, trained: bool) -> None:
    """Calibrate the run and print its out-of-fold scores, if all of its folds are done."""
    files, table = find_run(run), load_table(config.dataset)[0]
    if files.numbers(".json") != list(range(int(table["fold"].max()) + 1)):
        return
    if trained or not (files.folder / "calibration.json").exists():
        try:
            path, _, problem = calibrate_run(run)
            print(f"{shown(path)}: calibrated on the out-of-fold predictions")
            if problem:
                print(f"without what tells unusual photographs: {problem}")
        except InputError as error:
            print(f"not calibrated: {error}")
    oof = load_oof(run)
    print(scores_text(oof.codes, oof.probs, oof.task.classes, oof.groups, oof.table["source"]))
    print(f"{shown(files.folder)}: {len(oof.files)} folds, every image once")


@contextmanager
def _same_kernels(wanted: bool) -> Iterator[None]:
    """Restrict torch to deterministic kernels, if `wanted`; it raises where there is none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA looks when it starts
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
