"""A fold's data: which rows are trained on, which are scored, and what a model sees of them."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from tqdm import tqdm

from lesions.config import Config
from lesions.data.cache import cache_facts, cached_images
from lesions.data.folds import require_whole_groups
from lesions.data.loading import LesionDataset, build_loader, eval_batches
from lesions.data.metadata import encode_given, fit_metadata
from lesions.data.table import load_table, prepared, task_targets
from lesions.data.tasks import Task, build_task
from lesions.files import atomic
from lesions.inference.predict import views_of
from lesions.models.classifier import LesionClassifier


@dataclass(frozen=True)
class FoldData:
    """A fold's rows and what a model may see of them."""

    table: pd.DataFrame
    task: Task
    scheme: dict[str, str | int]  # of the folds, and how many groups straddle them
    hashes: dict[str, Any]  # of the table and its folds; of the image cache its key, too
    images: np.ndarray  # of all rows: uint8 (N, S, S, 3), or features of `cached_features`
    target: np.ndarray  # of all rows: float32 (N,), NaN where there is none
    given: dict[str, np.ndarray]  # all rows' metadata, by how much of them is given
    neutral: dict[str, float]  # see data/metadata.py
    train_rows: np.ndarray
    valid_rows: np.ndarray

    def codes(self, rows: np.ndarray) -> np.ndarray:
        """The codes (see data/tasks.py) of some of these rows, int64 (N,)."""
        return self.target[rows].astype(np.int64)


def load_fold(config: Config, fold: int) -> FoldData:
    """The fold's data; InputError if the data set or the cache does not exist."""
    table, facts = load_table(config.dataset)
    scheme = facts["config"]["scheme"]
    if scheme == "grouped":  # the others are published splits, to compare with on their own rows
        require_whole_groups(table, f"data set {config.dataset}")
    task, target = task_targets(table, facts, config.data.task)
    images = cached_images(config.dataset, config.data.image_size, table)
    in_fold = (table["fold"] == fold).to_numpy()
    labelled = target.notna()
    train_rows = np.flatnonzero((table["split"] == "train") & ~in_fold & labelled)
    neutral = fit_metadata(table.iloc[train_rows])
    given = encode_given(table, config.data.metadata, neutral)
    if not config.data.metadata_dropout:  # such a run's answer is another one without metadata:
        given = {"all": given["all"]}  # inference/calibrate.py averages over people
    return FoldData(
        table,
        build_task(task),
        {"name": scheme, "straddling": facts["straddling"]},
        {
            "table_hash": facts["table_hash"],
            "fold_hash": facts["fold_hash"],
            "image_cache": cache_facts(prepared(config.dataset) / str(config.data.image_size)),
        },
        images,
        target.to_numpy(np.float32),
        given,
        neutral,
        train_rows,
        np.flatnonzero(in_fold & labelled),
    )


@torch.no_grad()
def cached_features(
    model: LesionClassifier, data: FoldData, config: Config, accelerator: Accelerator
) -> np.ndarray:
    """The pooled features of every view of the training rows, by table row: uint8 (N, views, 4 F).

    For a backbone that does not learn: once for all epochs, folds and heads. They are float32 as
    bytes, which the loader of images carries and `model.see` reads. The file is named after the
    weights, the pixels and the views that it is of.
    """
    views, model = config.predict.views, model.to(accelerator.device).eval()
    of = [views, data.hashes["image_cache"], data.hashes["table_hash"]]
    digest = hashlib.sha256(repr(of).encode())
    for tensor in model.backbone.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    name = f"{config.model.backbone}_{config.data.image_size}"
    path = prepared(config.dataset) / "features" / name / f"{digest.hexdigest()[:12]}.npy"
    with accelerator.main_process_first():
        if not path.exists():
            shape = len(data.table), views, model.backbone.head_hidden_size
            rows = np.flatnonzero(data.table["split"] == "train")
            batches = eval_batches(rows, min(64, config.predict.batch_size))
            dataset = LesionDataset(data.images, data.given["all"], data.target)
            loader = build_loader(dataset, batches, 0)
            with atomic(path) as part:
                features = np.lib.format.open_memmap(part, "w+", np.float32, shape)
                for batch in tqdm(loader, name, unit="batch", disable=None):
                    image = batch["image"].to(accelerator.device)
                    with accelerator.autocast():
                        seen = [model.see(view).float() for view in views_of(image, views)]
                    features[batch["row"].numpy()] = torch.stack(seen, dim=1).cpu().numpy()
                features.flush()
    return np.load(path, mmap_mode="r").view(np.uint8)
