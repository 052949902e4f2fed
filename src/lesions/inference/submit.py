"""A trained run -> its submission: folds and views averaged by image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from accelerate import Accelerator

from lesions.config import Config, differences
from lesions.data.images import cached_images
from lesions.data.loading import LesionDataset
from lesions.data.metadata import encode_metadata
from lesions.data.table import load_table
from lesions.errors import InputError, listed
from lesions.inference.checkpoint import load_model
from lesions.inference.predict import predict
from lesions.paths import at, shown


def predict_test(
    run: str, config: Config, accelerator: Accelerator, folds: Sequence[int] | None = None
) -> pd.DataFrame:
    """image_name and target (the mean probability) of every test row, in the table's order.

    Of a task with classes prob_<class> instead of target. A row whose photograph cannot be read
    gets the mean of the others: it has to be in the file. InputError if a fold is missing, or was
    trained on another table than the present one.
    """
    table, facts = load_table(config.dataset)
    test = np.flatnonzero(table["split"] == "test")
    if not len(test):
        raise InputError(f"data set {config.dataset} has no test rows")
    wanted = range(int(table["fold"].max()) + 1) if folds is None else folds
    predictions = [
        _predict_fold(run, fold, config, table, facts, test, accelerator) for fold in wanted
    ]
    mean = pd.concat(predictions).groupby("image_name").mean()
    names = table["image_name"].iloc[test]
    submission = mean.loc[names].reset_index()
    unread = (table["bytes"].iloc[test] == 0) | (table["width"].iloc[test] == 0)
    if unread.any():
        readable = submission.loc[~unread.to_numpy(), mean.columns]
        submission.loc[unread.to_numpy(), mean.columns] = readable.mean().to_numpy()
        accelerator.print(f"{unread.sum():,} unreadable test photographs got the mean probability")
    return submission


def _predict_fold(
    run: str, fold: int, config: Config, table: pd.DataFrame, facts: dict, test: np.ndarray,
    accelerator: Accelerator,
) -> pd.DataFrame:  # fmt: skip
    path = at("oof") / run / f"fold{fold}.safetensors"
    if not path.exists():
        raise InputError(
            f"{shown(path)}: not trained yet: run scripts/train.py for fold {fold}, or name the"
            " folds to average with --folds"
        )
    model, header = load_model(path, task=config.data.task or facts["config"]["task"])
    trained = Config.model_validate(header["config"])
    if (trained.model, trained.data) != (config.model, config.data):
        changed = differences(trained.model_dump(), config.model_dump())
        raise InputError(
            f"{shown(path)} is a checkpoint of another model than config.yaml beside it:"
            f" {listed(changed)}"
        )
    if header["fold_hash"] != facts["fold_hash"]:
        raise InputError(
            f"{shown(path)} was trained on folds {header['fold_hash']}, the table now has"
            f" {facts['fold_hash']}: train again, or prepare as it was"
        )
    images = cached_images(config.dataset, config.data.image_size, table)
    metadata = encode_metadata(table, config.data.metadata, header["neutral"])
    dataset = LesionDataset(images, metadata, table["target"].to_numpy(np.float32))
    prob = predict(
        model.to(accelerator.device), dataset, test, config.predict, accelerator,
        views=config.predict.views, title=f"{run} fold {fold} test",
    )  # fmt: skip
    columns = [f"prob_{name}" for name in header["classes"]] or ["target"]
    told = pd.DataFrame(prob.reshape(len(test), -1), columns=columns)
    return told.assign(image_name=table["image_name"].iloc[test].to_numpy())
