"""Sources -> the one table: one row an image, with groups and folds."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import DatasetConfig
from lesions.data.folds import add_folds, fold_hash, require_whole_groups, split_groups
from lesions.data.groups import add_groups
from lesions.data.sources import IMAGE_FOLDERS, READERS, read_duplicates
from lesions.errors import InputError, listed
from lesions.files import read_csv, read_json, write_csv, write_json
from lesions.paths import PREPARED, ROOT, shown

COLUMNS = [
    "image_name", "source", "split", "patient_id", "lesion_id", "diagnosis", "target",
    "sex", "age_approx", "site", "width", "height", "bytes", "images_per_patient",
    "group", "fold", "path",
]  # fmt: skip
TEXT = ("image_name", "source", "split", "patient_id", "lesion_id", "diagnosis", "sex", "site",
        "group", "path")  # fmt: skip
SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG")


def read_sources(config: DatasetConfig) -> pd.DataFrame:
    """The rows of all sources with `group` and, where an image was found, its `path` ("" else).

    Images are linked into groups before anything is left out, so that a row without a photograph
    still ties together the ones it links.
    """
    tables, pairs = [], []
    for name, source in config.sources.items():
        if name not in READERS:
            raise InputError(f"unknown source '{name}': there is {', '.join(READERS)}")
        folder = (ROOT / source.folder).resolve()
        if not folder.is_dir():
            raise InputError(f"{shown(folder)}: no such folder: input/README.md says what goes in")
        table = READERS[name](folder)
        tables.append(table.assign(path=_image_paths(table, name, folder, source.images)))
        pairs.append(read_duplicates(folder))
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(width=np.nan, height=np.nan, bytes=np.nan, fold=-1)
    # Counted within a split: counting over both would let the test rows speak in training.
    patients = table["patient_id"].where(table["patient_id"] != "")
    counts = patients.groupby([patients, table["split"]]).transform("size")
    table = table.assign(images_per_patient=counts)
    return add_groups(table, pd.concat(pairs, ignore_index=True))[COLUMNS]


def one_row_a_name(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each image name once.

    A photograph that two sources publish under one name stays where it is listed first; InputError
    if the two disagree about the target.
    """
    twice = table[table["image_name"].duplicated(keep=False)]
    labels = twice.groupby("image_name")["target"].nunique(dropna=False)
    if (labels > 1).any():
        raise InputError(
            f"sources disagree about the target of {listed(labels.index[labels > 1])}:"
            " leave one of them out"
        )
    return table.drop_duplicates("image_name").reset_index(drop=True)


def require_images(table: pd.DataFrame) -> None:
    """InputError that lists, per source, how many photographs are missing and the first names."""
    missing = table[table["path"] == ""]
    if missing.empty:
        return
    lines = [
        f"  {source}: {len(rows):,} of {(table['source'] == source).sum():,}:"
        f" {listed(rows['image_name'], 3)}"
        for source, rows in missing.groupby("source")
    ]
    raise InputError(
        "photographs are missing:\n" + "\n".join(lines) + "\n  download them (input/README.md),"
        " name their folder with --images SOURCE=FOLDER, or go on with --available-only"
    )


def finish_table(table: pd.DataFrame, config: DatasetConfig) -> pd.DataFrame:
    """The table with its held-out test rows, if the data set asks for some, and its folds."""
    if config.holdout:
        train = table["split"] == "train"
        shares = [config.holdout, 1 - config.holdout]
        part = split_groups(table[train], shares, config.seed)
        table = table.copy()
        table.loc[train, "split"] = np.where(part == 0, "test", "train")
    table = add_folds(table, config.folds, config.seed)
    require_whole_groups(table, "the new table")
    return table


def prepared(dataset: str) -> Path:
    """The folder of a data set's table and caches."""
    return PREPARED / dataset


def save_table(dataset: str, table: pd.DataFrame, config: DatasetConfig) -> dict:
    """Write table.csv and table.json, its facts and hashes; returns the facts."""
    folder = prepared(dataset)
    write_csv(folder / "table.csv", table)
    train = table[table["split"] == "train"]
    facts = {
        "dataset": dataset,
        "table_hash": table_hash(table),
        "fold_hash": fold_hash(table),
        "rows": len(table),
        "groups": int(table["group"].nunique()),
        "positives": int(train["target"].sum()),
        "splits": table["split"].value_counts().to_dict(),
        "sources": {
            source: {"rows": len(rows), "positives": int(rows["target"].sum())}
            for source, rows in train.groupby("source")
        },
        "config": config.model_dump(),
    }
    write_json(folder / "table.json", facts)
    return facts


def load_table(dataset: str) -> tuple[pd.DataFrame, dict]:
    """A prepared data set's table and facts; InputError if it is missing or was edited."""
    folder = prepared(dataset)
    command = f"python scripts/prepare.py --dataset {dataset}"
    if not (folder / "table.json").exists():
        raise InputError(f"{shown(folder)}: no table: run {command}")
    facts = read_json(folder / "table.json")
    table = read_csv(folder / "table.csv", COLUMNS, TEXT)
    table[list(TEXT)] = table[list(TEXT)].fillna("")
    if table_hash(table) != facts["table_hash"]:
        raise InputError(f"{shown(folder / 'table.csv')} does not match its hash: run {command}")
    return table, facts


def table_hash(table: pd.DataFrame) -> str:
    """Sixteen hex digits of the table's content; where the photographs lie does not count."""
    content = table.drop(columns="path").to_csv(index=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def names_hash(table: pd.DataFrame) -> str:
    """Sixteen hex digits of the image names in their order: which row is which photograph."""
    return hashlib.sha256("\n".join(table["image_name"]).encode()).hexdigest()[:16]


def _image_paths(table: pd.DataFrame, name: str, folder: Path, extra: list[str]) -> pd.Series:
    """The file of each row, searched in the given folders or the source's own; "" if none."""
    paths = pd.Series("", index=table.index)
    for split, names in IMAGE_FOLDERS[name].items():
        own = [folder / below for below in names]
        found: dict[str, str] = {}
        for place in [ROOT / path for path in extra] if extra else own:
            if extra and not place.is_dir():
                raise InputError(f"{shown(place)}: no such image folder")
            for file in sorted(place.iterdir()) if place.is_dir() else []:
                if file.suffix in SUFFIXES:
                    found.setdefault(file.stem, str(file.resolve()))
        rows = table["split"] == split
        paths[rows] = table.loc[rows, "image_name"].map(found).fillna("")
    return paths
