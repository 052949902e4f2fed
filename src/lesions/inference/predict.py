"""A model and table rows -> probabilities, on any number of processes; a run -> its test rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lesions.config import Config, PredictConfig
from lesions.data.cache import cached_images, verify_cache
from lesions.data.metadata import encode_metadata
from lesions.data.table import load_table, prepared
from lesions.errors import InputError, listed
from lesions.files import sha256
from lesions.inference.checkpoint import Fold
from lesions.inference.ensemble import Run
from lesions.models.classifier import LesionClassifier
from lesions.oof import load_oof
from lesions.paths import shown
from lesions.provenance import commit

if TYPE_CHECKING:  # photographs of one's own need neither it nor albumentations
    from accelerate import Accelerator


@torch.no_grad()
def predict(
    model: LesionClassifier, images: np.ndarray, rows: np.ndarray, known: dict[str, np.ndarray],
    config: PredictConfig, accelerator: "Accelerator", views: int, title: str,
) -> dict[str, np.ndarray]:  # fmt: skip
    """P(class) of `rows` (of `images`, all different) by each of `known`: float64 (N, C).

    Each of `known` is (S, all rows, M), S versions of the encoded metadata: probabilities are means
    over them and over `views`, each of which the backbone sees once. Of a yes-or-no model C is 1,
    P(yes). The processes share the rows; all of them get the whole result. InputError if a row
    comes back without a number.
    """
    from lesions.data.loading import LesionDataset, build_loader, eval_batches

    model.eval()
    device, quiet = accelerator.device, not accelerator.is_main_process or None
    zeros = np.zeros((len(images), 1), np.float32)  # for the metadata and targets of a batch
    batches = eval_batches(
        rows, config.batch_size, accelerator.process_index, accelerator.num_processes
    )
    loader = build_loader(LesionDataset(images, zeros, zeros[:, 0]), batches, workers=0)
    seen: list[np.ndarray] = []
    given: list[np.ndarray] = []
    for batch in tqdm(loader, title, unit="batch", leave=False, disable=quiet):
        image, row = batch["image"].to(device, non_blocking=True), batch["row"].numpy()
        each = [torch.from_numpy(table[:, row]).to(device) for table in known.values()]
        parts = []
        for view in views_of(image, views):
            with accelerator.autocast():
                looked = model.see(view)
                found = [mean_probabilities(model, looked, versions) for versions in each]
            parts.append(torch.stack(found, dim=1))
        prob = torch.stack(parts).mean(dim=0)  # (B, K, C)
        place, prob = accelerator.gather((batch["row"].to(device), prob))
        seen.append(place.cpu().numpy())
        given.append(prob.cpu().numpy())
    probs = np.full((len(images), *given[0].shape[1:]), np.nan)
    probs[np.concatenate(seen)] = np.concatenate(given)  # a repeated row overwrites itself
    missing = int(np.isnan(probs[rows]).any(axis=(1, 2)).sum())
    if missing:
        raise InputError(
            f"{title}: {missing:,} of {len(rows):,} rows got no finite prediction: the network, or"
            " the --pretrained weights it started from, has numbers that are too large: train with"
            " a lower train.lr, with train.precision=fp32 or from other weights"
        )
    return dict(zip(known, probs[rows].swapaxes(0, 1), strict=True))


def views_of(images: Tensor, count: int) -> list[Tensor]:
    """`count` views of a batch (B, S, S, 3): 1 identity; 4 with both flips; 8 all turns too.

    Of a batch (B, views, 4 F) of cached features, the first `count`.
    """
    if images.ndim == 3:
        return list(images.unbind(1))[:count]
    flips = [images, images.flip(2), images.flip(1), images.flip(1, 2)]
    if count == 8:
        flips += [view.transpose(1, 2) for view in flips]
    return flips[:count]


def mean_probabilities(model: LesionClassifier, seen: Tensor, versions: Tensor) -> Tensor:
    """Probabilities (B, C) of what the model has seen, mean over versions (S, B, M) of metadata."""
    found = [probabilities(model.decide(seen, metadata)) for metadata in versions]
    return torch.stack(found).mean(dim=0)


def probabilities(logit: Tensor) -> Tensor:
    """Logits (B, C) as probabilities (B, C): of yes where C is 1, else of classes, summing to 1."""
    return logit.sigmoid() if logit.shape[1] == 1 else logit.softmax(dim=1)


def predict_run(run: Run, config: Config, accelerator: "Accelerator") -> pd.DataFrame:
    """image_name and the mean probability over folds and views of every test row, in table order.

    The probability is `target`, of a task with several classes prob_<class> for each. A row whose
    photograph cannot be read gets the mean of the others: it has to be in the file. InputError if
    a fold is missing, the cache is damaged, or the run was trained on another table or other
    preprocessing.
    """
    if (config.data, config.model) != (run.config.data, run.config.model):
        raise InputError("--set: data and model of a trained run are fixed: set predict.views=8")
    table, facts = load_table(config.dataset)
    test = np.flatnonzero(table["split"] == "test")
    if not len(test):
        raise InputError(f"data set {config.dataset} has no test rows")
    run.require_same_data(facts)
    missing = set(range(int(table["fold"].max()) + 1)) - {fold.number for fold in run.folds}
    if missing and run.files.folds is None:
        raise InputError(
            f"{shown(run.files.file(min(missing), '.safetensors'))}: not trained yet: run"
            f" scripts/train.py for fold {min(missing)}, or name the folds to average with --folds"
        )
    if accelerator.is_main_process:
        verify_cache(prepared(config.dataset) / str(config.data.image_size))
    parts = [_predict_rows(run, fold, config, accelerator, table, test) for fold in run.folds]
    mean = pd.concat(parts).groupby("image_name").mean()
    found = mean.loc[table["image_name"].iloc[test]].reset_index()
    unread = ((table["bytes"].iloc[test] == 0) | (table["width"].iloc[test] == 0)).to_numpy()
    if unread.any():
        found.loc[unread, mean.columns] = found.loc[~unread, mean.columns].mean().to_numpy()
        accelerator.print(f"{unread.sum():,} unreadable test photographs got the mean probability")
    return found.rename(columns={"prob": "target"})


def _predict_rows(
    run: Run, fold: Fold, config: Config, accelerator: "Accelerator", table: pd.DataFrame,
    rows: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    """image_name and the fold's probabilities of some rows of the table."""
    images = cached_images(config.dataset, config.data.image_size, table)
    metadata = encode_metadata(table, config.data.metadata, fold.header["neutral"])
    probs = predict(
        fold.model.to(accelerator.device), images, rows, {"all": metadata[None]}, config.predict,
        accelerator, config.predict.views, fold.title,
    )["all"]  # fmt: skip
    fold.model.cpu()
    return run.task.as_frame(probs).assign(image_name=table["image_name"].to_numpy()[rows])


def melanoma_oof(run: Run, config: Config, accelerator: "Accelerator") -> pd.DataFrame | None:
    """Out-of-fold image_name, fold, target and prob of melanoma, to blend with yes-or-no runs.

    Of every row that the data set calls melanoma or not: those that are of no class of the run,
    such as benign ones without a diagnosis, are predicted here. None if its target is another, or
    without out-of-fold files.
    """
    table, facts = load_table(config.dataset)
    if facts["config"].get("task", "melanoma") != "melanoma" or not run.files.numbers(".csv"):
        return None
    oof = load_oof(run.files)
    parts = [oof.task.as_frame(oof.probs).assign(image_name=oof.names)]
    for fold in run.folds:
        inside = (table["fold"] == fold.number) & table["target"].notna()
        rows = np.flatnonzero(inside & ~table["image_name"].isin(oof.names))
        if len(rows):
            parts.append(_predict_rows(run, fold, config, accelerator, table, rows))
    whole = pd.concat(parts)[["image_name", "prob_mel"]].rename(columns={"prob_mel": "prob"})
    return table[["image_name", "fold", "target"]].merge(whole, on="image_name", validate="1:1")


def take_column(submission: pd.DataFrame, name: str) -> pd.DataFrame:
    """image_name and, as target, the probability of one class: the competition's two columns."""
    if f"prob_{name}" not in submission:
        classes = [str(column).removeprefix("prob_") for column in submission.columns[1:]]
        raise InputError(f"--column {name}: the run's columns are {listed(classes, 9)}")
    return submission[["image_name"]].assign(target=submission[f"prob_{name}"])


def trace(run: Run, config: Config, csv: Path, column: str | None) -> dict[str, Any]:
    """What submissions/<run>.json says of the file `csv`: what it was made of, as hashes."""
    weights = [run.files.file(fold.number, ".safetensors") for fold in run.folds]
    return {
        "run": run.name,
        "sha256": sha256(csv),
        "weights": {path.name: sha256(path) for path in weights},
        "table_hash": run.folds[0].header["table_hash"],
        "fold_hash": run.folds[0].header["fold_hash"],
        "commit": commit(),
        "views": config.predict.views,
        "column": column,
    }
