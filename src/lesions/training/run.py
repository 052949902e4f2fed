"""Train a run's folds one after the other, and calibrate the run when its last fold is done."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lesions.config import Config, config_hash, differences, dump, read_yaml
from lesions.data.cache import verify_cache
from lesions.data.folds import fold_warnings
from lesions.data.table import load_table, prepared
from lesions.errors import InputError, listed
from lesions.evaluation.scores import scores_text
from lesions.files import read_json, sha256, write_csv, write_json, write_text
from lesions.inference.accelerator import tracking
from lesions.inference.calibrate import calibrate_run, write_given
from lesions.inference.checkpoint import save_model, versions
from lesions.oof import load_oof
from lesions.paths import shown
from lesions.runs import RunFiles, run_folder
from lesions.training import state
from lesions.training.fold import FoldData, load_fold
from lesions.training.loop import FoldTrainer, finite
from lesions.training.state import Busy
from lesions.training.steps import epoch_scores
from lesions.training.stop import Stopped, StopRequest

BUSY_WAIT = 10.0  # seconds between looks at folds that other processes train


def train_folds(
    config: Config, run: str, folds: Sequence[int], accelerator: Accelerator, stop: StopRequest
) -> int:
    """Train the folds of a run that are not done; the exit code, not 0 if stopped (see stop.py).

    Of several folds, those that other processes train are skipped, and waited for last: on n
    machines the same command shares the folds out. A single one that is taken is refused as Busy.
    When all folds of the data set are done, the run is calibrated and its scores are printed.
    """
    chosen, files = config.model_dump(exclude_defaults=True), RunFiles(run, run_folder(run))
    accelerator.print(
        f"{shown(files.folder)}/config.yaml, where it differs from the defaults:\n"
        + yaml.safe_dump(chosen, sort_keys=False, default_flow_style=None)
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA looks when it starts
    torch.use_deterministic_algorithms(config.train.deterministic)
    table = load_table(config.dataset)[0]
    for warning in fold_warnings(table):
        accelerator.print(f"WARNING: {warning}")
    with stop.listening():
        waiting, busy, first = list(folds), set[int](), True
        while waiting:
            # Not before the first one: a session that makes no progress would be repeated for ever.
            if not first and (code := stop.agreed(0, accelerator)):
                accelerator.print(f"stopped before fold {waiting[0]}; resume me")
                return code
            if busy.issuperset(waiting):
                time.sleep(BUSY_WAIT)
            fold, first = waiting.pop(0), False
            try:
                result = _train_fold(config, files, fold, accelerator, stop)
            except Stopped as stopped:
                return stopped.code
            except Busy as error:
                if len(folds) == 1:
                    raise
                if fold not in busy:
                    accelerator.print(f"{error}; fold {fold} is left for last")
                busy.add(fold)
                waiting.append(fold)
                continue
            auc = "undefined" if result["auc"] is None else f"{result['auc']:.4f}"
            accelerator.print(
                f"{run} fold {fold}: out-of-fold AUC {auc}"
                f" on {result['rows']:,} images ({result['seconds'] / 60:.1f} min)"
            )
    accelerator.end_training()
    all_folds = list(range(int(table["fold"].max()) + 1))
    if accelerator.is_main_process and files.numbers(".json") == all_folds:
        _complete(files)
    return 0


def _train_fold(
    config: Config, files: RunFiles, fold: int, accelerator: Accelerator, stop: StopRequest
) -> dict[str, Any]:
    """Train `fold`, or resume it, and return the content of its fold<k>.json.

    Writes oof/<run>/fold<k>.safetensors, .csv and, last, .json. A fold that has all three, in
    agreement, is done and is not trained again. Raises Stopped if `stop` asks for it: the state is
    then saved; Busy, in all processes, if another program trains the fold.
    """
    folder, data = files.folder, load_fold(config, fold)
    _require_same_run(folder, config, data.hashes)
    with ExitStack() as stack:
        taken: list[Busy | None] = [None]
        if accelerator.is_main_process:
            try:
                stack.enter_context(state.locked(folder / f".fold{fold}.lock"))
            except Busy as error:
                taken = [error]
        if holder := broadcast_object_list(taken)[0]:
            raise holder
        result = _finished(files, fold, accelerator.print)
        if accelerator.is_main_process:
            state.remove_parts(folder, fold)
            if result:
                state.remove_state(folder, fold)
            else:
                verify_cache(prepared(config.dataset) / str(config.data.image_size))
                write_text(folder / "config.yaml", dump(config))
        return result or _train(config, files, fold, data, accelerator, stop)


def _train(
    config: Config, files: RunFiles, fold: int, data: FoldData, accelerator: Accelerator,
    stop: StopRequest,
) -> dict[str, Any]:  # fmt: skip
    folder, task = files.folder, data.task
    path = state.state_path(folder, fold)
    saved = state.load_state(path, config, data.hashes, accelerator.print)
    trainer = FoldTrainer(config, fold, data, files, accelerator, stop)
    trainer.announce()
    if saved:
        trainer.resume(saved)
    with tracking(accelerator, config, files.name, f"fold{fold}"):
        trainer.train()
    given = trainer.predict(config.predict.views, "out-of-fold", list(data.given))
    probs, codes = given.pop("all"), data.codes(data.valid_rows)
    rows = data.table.iloc[data.valid_rows].reset_index(drop=True)
    origin = {
        "run": files.name,
        "fold": fold,
        "task": task.name,
        "classes": task.listed,
        "scheme": data.scheme,
        "config_hash": config_hash(config),
        **data.hashes,
        "versions": versions(),
    }
    by_source = rows.groupby("source").indices.items()
    aucs = {str(name): epoch_scores(task, codes[at], probs[at])["auc"] for name, at in by_source}
    result = {
        **origin,
        **finite(epoch_scores(task, codes, probs)),
        "auc_by_source": finite(aucs),
        "rows": len(codes),
        "positives": None if task.several else int(codes.sum()),
        **trainer.facts(),
    }
    if accelerator.is_main_process:
        header = origin | {
            "config": config.model_dump(),
            "preprocess": data.hashes["image_cache"]["key"]["preprocess"],
            "neutral": data.neutral,
        }
        weights, csv = (files.file(fold, suffix) for suffix in (".safetensors", ".csv"))
        save_model(weights, trainer.stepper.averaged.state_dict(), header)
        write_csv(csv, rows[["image_name", "fold"]].join(task.as_frame(probs, codes)))
        (folder / "calibration.json").unlink(missing_ok=True)  # of other predictions
        hashes = {"csv": sha256(csv), "safetensors": sha256(weights)}
        if given:
            hashes["given"] = write_given(folder, fold, task, rows["image_name"], given)
        write_json(files.file(fold, ".json"), result | {"sha256": hashes})
        state.remove_state(folder, fold)
    accelerator.wait_for_everyone()
    return result


def _require_same_run(folder: Path, config: Config, hashes: dict[str, Any]) -> None:
    """InputError if the folder has folds of another config, or folds trained on other data."""
    results = sorted(folder.glob("fold*.json"))
    changed: list[str] = []
    path = folder / "config.yaml"
    if path.exists() and (results or [*folder.glob("state/fold*.pt")]):
        changed += state.changes(read_yaml(path), config, path)
    for file in results:
        before = hashes | read_json(file, ("task",))  # an older version wrote no image_cache
        changed += differences({key: before[key] for key in hashes}, hashes)
    if changed:
        raise InputError(
            f"{shown(folder)} holds folds with other settings ({listed(dict.fromkeys(changed))}):"
            " give this run another --name, or delete the folder"
        )


def _finished(files: RunFiles, fold: int, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The content of fold<k>.json if the fold is done: all three files are there and agree."""
    path = files.file(fold, ".json")
    if not path.exists():
        return None
    for suffix in (".csv", ".safetensors"):
        file = files.file(fold, suffix)
        if not file.exists() or files.changed(fold, suffix):
            wrong = "has changed" if file.exists() else "is missing"
            say(f"{shown(file)} {wrong}: fold {fold} is trained again")
            return None
    result: dict[str, Any] = read_json(path)
    if "sha256" not in result:
        say(f"WARNING: {shown(path)} has no hashes of its files: an older version wrote it")
    return result


def _complete(files: RunFiles) -> None:
    """Calibrate a run whose folds are all done, and print its out-of-fold scores."""
    if not (files.folder / "calibration.json").exists():
        try:
            path, _, problem = calibrate_run(files.name)
            print(f"{shown(path)}: calibrated on the out-of-fold predictions")
            if problem:
                print(f"without what tells unusual photographs: {problem}")
        except InputError as error:
            print(f"not calibrated: {error}")
    oof = load_oof(files)
    print(scores_text(oof.codes, oof.probs, oof.task.classes, oof.groups, oof.table["source"]))
    print(f"{shown(files.folder)}: {len(oof.files)} folds, every image once")
