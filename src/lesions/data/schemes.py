"""Splits that others published, for a like-for-like comparison; ours are in data/folds.py.

Most of them put photographs of one lesion on both sides: a score on them flatters, and is only to
be set beside another score on the same split. `fold` is -1 on rows that are trained on and never
scored; rows that a scheme leaves out get the split `quarantined`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lesions.config import DatasetConfig
from lesions.errors import InputError


def published_split(table: pd.DataFrame, config: DatasetConfig) -> pd.DataFrame:
    """The table with `split` and `fold` of config.scheme; the rows in the publisher's order.

    InputError if the table lacks what the scheme goes by.
    """
    split, fold = SCHEMES[config.scheme](table, config)
    return table.assign(split=split, fold=np.where(split == "train", fold, -1))


def legacy(table: pd.DataFrame, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """Chris Deotte's `tfrecord` modulo the folds, as SIIM-ISIC 2020's first place used it.

    Patients of 2020 are whole, lesions of 2019 are not; duplicates (tfrecord -1) are left out.
    """
    record = table["tfrecord"].fillna(-1)
    if (record < 0).all():
        raise InputError("scheme legacy: no `tfrecord`: give Deotte's CSVs with `deotte: FOLDER`")
    split = table["split"].mask((table["split"] == "train") & (record < 0), "quarantined")
    return split.to_numpy(object), (record % config.folds).astype(int).to_numpy()


def official(table: pd.DataFrame, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """The publisher's split: its validation rows are fold 0, its test rows the test rows."""
    told = table["official"]
    if not (told == "val").any():
        raise InputError("scheme official: no source of this data set has validation rows")
    split = told.map({"train": "train", "val": "train", "test": "test"}).fillna("quarantined")
    return split.to_numpy(object), np.where(told == "val", 0, -1)


def system001(table: pd.DataFrame, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """HAM10000, 8,012 images to train and 2,003 to validate, drawn by image: lesions straddle."""
    _require(table, "ham10000", 10_015)
    _, val = _cut(np.arange(len(table)), table["diagnosis"], 0.2, config.seed)
    return _parts(len(table), val=val)


def system002(table: pd.DataFrame, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """HAM10000, validated and tested on lesions with one image: 926 and 618 of them.

    Trained on the other single images and all images of the other lesions, nevi excepted (6,181);
    2,290 further nevi are left out. Its seeds were 9, 333 and 666.
    """
    _require(table, "ham10000", 10_015)
    diagnosis = table["diagnosis"]
    alone = table.groupby("lesion_id")["image_name"].transform("size") == 1
    _, rest = _cut(np.flatnonzero(alone), diagnosis, 0.28, config.seed)
    val, test = _cut(rest, diagnosis, 0.4, config.seed)
    out = np.flatnonzero(~alone & (diagnosis == "nv"))
    return _parts(len(table), val, test, out)


def system003(table: pd.DataFrame, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """ISIC 2020 alone, five folds stratified by target and drawn by image: patients straddle."""
    from sklearn.model_selection import StratifiedKFold

    train = np.flatnonzero(table["split"] == "train")
    if set(table["source"]) != {"isic2020"} or len(train) != 33_126:
        raise InputError("scheme system003: is of the 33,126 training rows of isic2020 alone")
    fold = np.full(len(table), -1)
    cut = StratifiedKFold(5, shuffle=True, random_state=config.seed)
    for part, (_, rows) in enumerate(cut.split(train, table["target"].iloc[train])):
        fold[train[rows]] = part
    return table["split"].to_numpy(object), fold


def system004(table: pd.DataFrame, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """HAM10000, 7,009 / 1,503 / 1,503 images, drawn by image: lesions straddle."""
    _require(table, "ham10000", 10_015)
    diagnosis = table["diagnosis"]
    rest, test = _cut(np.arange(len(table)), diagnosis, 0.15, config.seed)
    _, val = _cut(rest, diagnosis, 0.15 / 0.85, config.seed)
    return _parts(len(table), val, test)


SCHEMES: dict[str, Callable] = {
    "legacy": legacy,
    "official": official,
    "system001": system001,
    "system002": system002,
    "system003": system003,
    "system004": system004,
}


def _require(table: pd.DataFrame, source: str, rows: int) -> None:
    if set(table["source"]) != {source} or len(table) != rows:
        raise InputError(
            f"this scheme is of the {rows:,} rows of {source}, in file order; here are"
            f" {len(table):,} of {', '.join(sorted(set(table['source'])))}"
        )


def _cut(
    rows: np.ndarray, diagnosis: pd.Series, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's split of the rows by diagnosis, as those systems called it."""
    from sklearn.model_selection import train_test_split

    return train_test_split(rows, test_size=share, random_state=seed, stratify=diagnosis.iloc[rows])


def _parts(
    rows: int, val: np.ndarray, test: np.ndarray | None = None, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    split, fold = np.full(rows, "train", object), np.full(rows, -1)
    fold[val] = 0
    if test is not None:
        split[test] = "test"
    if out is not None:
        split[out] = "quarantined"
    return split, fold
