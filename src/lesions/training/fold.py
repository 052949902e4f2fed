"""Train one fold of a run and leave its files: where every score of this repository comes from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from accelerate import Accelerator

from lesions.config import Config, config_hash, differences, dump
from lesions.data.folds import require_whole_groups
from lesions.data.images import cached_images
from lesions.data.loading import LesionDataset, seed_of
from lesions.data.metadata import encode_metadata, fit_metadata
from lesions.data.table import load_table, task_targets
from lesions.data.tasks import classes_of
from lesions.errors import InputError, listed
from lesions.files import read_json, write_csv, write_json, write_text
from lesions.inference.checkpoint import save_model, versions
from lesions.inference.predict import predict
from lesions.models.classifier import LesionClassifier
from lesions.paths import at, shown
from lesions.training.log import FoldLog
from lesions.training.loop import FoldTrainer
from lesions.training.loss import build_loss
from lesions.training.outcome import answers, course_of, scores_of
from lesions.training.state import changes, load_state, locked, remove_state
from lesions.training.stop import StopRequest


@dataclass(frozen=True)
class FoldData:
    """A fold's rows and what a model may see of them."""

    table: pd.DataFrame
    task: str
    classes: list[str]  # of the task, in the order of the outputs; none: it asks yes or no
    scheme: dict[str, str | int]  # of the folds, and how many groups straddle them
    hashes: dict[str, str]  # of the table and of its folds
    dataset: LesionDataset
    neutral: dict[str, float]  # see data/metadata.py
    train_rows: np.ndarray
    valid_rows: np.ndarray


def train_fold(
    config: Config, run: str, fold: int, accelerator: Accelerator, stop: StopRequest | None = None
) -> dict:
    """Train `fold`, or go on with it; returns the content of its fold<k>.json.

    Writes oof/<run>/fold<k>.safetensors, .csv and, last, .json: a fold with its .json is done and
    is not trained again. Stopped if `stop` asks for it: the state is then saved.
    """
    stop = stop or StopRequest()
    folder = at("oof") / run
    data = load_fold(config, fold)
    result_path = folder / f"fold{fold}.json"
    if result_path.exists():
        return _finished(result_path, config, data.hashes)
    if not accelerator.is_main_process:
        return _train(config, run, fold, data, accelerator, stop)
    with locked(folder / f".fold{fold}.lock"):
        _claim(folder, config)
        return _train(config, run, fold, data, accelerator, stop)


def load_fold(config: Config, fold: int) -> FoldData:
    """The fold's data; InputError if the data set, the cache or the fold is not there."""
    table, facts = load_table(config.dataset)
    scheme = facts["config"]["scheme"]
    if scheme == "grouped":  # another is a published split, to be compared with on its own rows
        require_whole_groups(table, f"data set {config.dataset}")
    task, target = task_targets(table, facts, config.data.task)
    folds = int(table["fold"].max()) + 1
    if not 0 <= fold < folds:
        raise InputError(f"--fold {fold}: data set {config.dataset} has folds 0 to {folds - 1}")
    images = cached_images(config.dataset, config.data.image_size, table)
    in_fold = (table["fold"] == fold).to_numpy()
    labelled = target.notna()
    train_rows = np.flatnonzero((table["split"] == "train") & ~in_fold & labelled)
    neutral = fit_metadata(table.iloc[train_rows])
    metadata = encode_metadata(table, config.data.metadata, neutral)
    names = table["image_name"].tolist()
    return FoldData(
        table,
        task,
        classes_of(task),
        {"name": scheme, "straddling": facts["straddling"]},
        {"table": facts["table_hash"], "folds": facts["fold_hash"]},
        LesionDataset(images, metadata, target.to_numpy(np.float32), names=names),
        neutral,
        train_rows,
        np.flatnonzero(in_fold & labelled),
    )


def _train(
    config: Config, run: str, fold: int, data: FoldData, accelerator: Accelerator,
    stop: StopRequest,
) -> dict:  # fmt: skip
    state_path = at("oof") / run / "state" / f"fold{fold}.pt"
    state = load_state(state_path, config, data.hashes, accelerator.print)
    trainer = _build_trainer(config, run, fold, data, accelerator, stop)
    if state:
        trainer.resume(state)
        accelerator.print(f"going on at step {trainer.progress.step:,} of {trainer.steps:,}")
    _require_same_step(trainer.progress.step, accelerator)
    trainer.train(state_path, data.hashes)
    prob = predict(
        trainer.averaged, data.dataset, data.valid_rows, config.predict, accelerator,
        views=config.predict.views, title=f"fold {fold} out-of-fold",
    )  # fmt: skip
    target = data.dataset.target[data.valid_rows]
    oof = data.table.iloc[data.valid_rows][["image_name", "fold"]]
    oof = pd.concat([oof, answers(target, prob, data.classes, oof.index)], axis=1)
    shared = {
        "run": run,
        "fold": fold,
        "task": data.task,
        "classes": data.classes,
        "scheme": data.scheme,
        "config_hash": config_hash(config),
        "table_hash": data.hashes["table"],
        "fold_hash": data.hashes["folds"],
        "versions": versions(),
    }
    sources = data.table["source"].iloc[data.valid_rows].to_numpy()
    result = shared | scores_of(target, prob, sources, data.classes) | course_of(trainer)
    result["device"] = device_name(accelerator)
    if accelerator.is_main_process:
        header = shared | {"config": config.model_dump(), "neutral": data.neutral}
        stem = at("oof") / run / f"fold{fold}"
        save_model(stem.with_suffix(".safetensors"), trainer.averaged.state_dict(), header)
        write_csv(stem.with_suffix(".csv"), oof)
        write_json(stem.with_suffix(".json"), result)
        remove_state(state_path)
    accelerator.wait_for_everyone()
    return result


def _build_trainer(
    config: Config, run: str, fold: int, data: FoldData, accelerator: Accelerator,
    stop: StopRequest,
) -> FoldTrainer:  # fmt: skip
    """The trainer at its first step; says what it is going to do."""
    target = data.dataset.target[data.train_rows]
    torch.manual_seed(seed_of(config.seed, fold))
    classes = len(data.classes)
    model = LesionClassifier(config.model, data.dataset.metadata.shape[1], max(1, classes))
    log = FoldLog(at("oof") / run, fold, accelerator)
    trainer = FoldTrainer(
        config, fold, model, data.dataset, data.train_rows, data.valid_rows,
        build_loss(config.loss, target, max(2, classes)), accelerator, stop, log, data.classes,
    )  # fmt: skip
    if data.scheme["straddling"]:
        accelerator.print(
            f"LEAK: {config.dataset} is a published split ({data.scheme['name']}) with"
            f" {data.scheme['straddling']:,} groups in training and validation both: its scores"
            " flatter, and are for comparison with its authors' alone"
        )
    counts = np.unique(target, return_counts=True)[1]
    named = [f"{n:,} {name}" for n, name in zip(counts, data.classes, strict=False)]
    told = ", ".join(named) or f"{int(target.sum()):,} positive"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    accelerator.print(
        f"{run} fold {fold}: {config.model.backbone}, {parameters:,} parameters;"
        f" {len(target):,} images, {told}, to validate"
        f" {len(data.valid_rows):,}; {trainer.steps:,} steps of {trainer.batches.batch_size};"
        f" {accelerator.num_processes} process(es) on {device_name(accelerator)},"
        f" precision {accelerator.mixed_precision}; config in {shown(at('oof') / run)}/config.yaml"
    )
    log.event(
        "started", fold=fold, parameters=parameters, rows=len(target), steps=trainer.steps,
        classes=counts.tolist(), processes=accelerator.num_processes,
        device=device_name(accelerator), precision=str(accelerator.mixed_precision),
    )  # fmt: skip
    return trainer


def _require_same_step(step: int, accelerator: Accelerator) -> None:
    """InputError where the processes found different states: machines that share no folder."""
    mine = torch.tensor([step], device=accelerator.device)
    steps = accelerator.gather(mine).tolist()
    if len(set(steps)) > 1:
        raise InputError(
            f"the processes stand at different steps ({listed(steps)}): all machines have to see"
            " the same oof/ folder"
        )


def _finished(path: Path, config: Config, hashes: dict[str, str]) -> dict:
    result = read_json(path)
    now = {
        "config_hash": config_hash(config),
        "table_hash": hashes["table"],
        "fold_hash": hashes["folds"],
    }
    saved = path.parent / "config.yaml"
    if saved.exists() and not changes(yaml.safe_load(saved.read_text()), config):
        now["config_hash"] = result["config_hash"]  # it differs in what decides no number
    changed = differences({key: result[key] for key in now}, now)
    if changed:
        raise InputError(
            f"{shown(path)}: this fold was trained with other settings ({'; '.join(changed)}):"
            f" give the run another --name, or delete {shown(path.parent)}"
        )
    return result


def _claim(folder: Path, config: Config) -> None:
    """Write the run's config.yaml; InputError if the folder holds another config's folds."""
    path = folder / "config.yaml"
    begun = [*folder.glob("fold*.json"), *folder.glob("state/fold*.pt")]
    if path.exists() and begun:
        changed = changes(yaml.safe_load(path.read_text()), config)
        if changed:
            raise InputError(
                f"{shown(folder)} holds a run with other settings ({'; '.join(changed)}):"
                " give this one another --name, or delete the folder"
            )
    write_text(path, dump(config))


def device_name(accelerator: Accelerator) -> str:
    """The GPU's name, or the kind of device."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return accelerator.device.type
