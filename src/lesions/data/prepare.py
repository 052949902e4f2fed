"""The whole preparation of a data set: sources -> table, image caches, quarantine, folds."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lesions.config import DatasetConfig, SourceConfig, load_dataset_config
from lesions.data.images import build_cache
from lesions.data.table import (
    finish_table,
    one_row_a_name,
    prepared,
    read_sources,
    require_images,
    save_table,
)
from lesions.errors import InputError
from lesions.files import write_csv
from lesions.paths import shown


def prepare(
    dataset: str,
    sizes: Sequence[int],
    changes: Sequence[str] = (),
    folders: dict[str, list[str]] | None = None,
    images: dict[str, list[str]] | None = None,
    available_only: bool = False,
    quarantine: bool = False,
) -> dict:
    """Write table.csv, table.json and a cache for each of `sizes`; returns the table's facts.

    `folders` and `images` say for a source where its CSVs and its photographs lie. Without sizes
    the table is made from the CSVs alone.
    """
    config = load_dataset_config(dataset, changes)
    config = _with_places(config, folders or {}, images or {})
    table = read_sources(config)
    if not sizes:
        return save_table(dataset, finish_table(one_row_a_name(table), config), config)
    if available_only:
        there = table["path"] != ""
        print(f"{(~there).sum():,} rows have no photograph here; {there.sum():,} are taken")
        table = table[there]
    require_images(table)
    if table.empty:
        raise InputError(f"{dataset}: no photograph found: say where with --images SOURCE=FOLDER")
    table = one_row_a_name(table)
    for size in sizes:
        index = build_cache(prepared(dataset) / str(size), table, size)
    table = table.assign(width=index["width"], height=index["height"], bytes=index["bytes"])
    table = _set_aside(table, index["problem"], dataset, quarantine)
    return save_table(dataset, finish_table(table, config), config)


def _with_places(
    config: DatasetConfig, folders: dict[str, list[str]], images: dict[str, list[str]]
) -> DatasetConfig:
    unknown = {*folders, *images} - set(config.sources)
    if unknown:
        raise InputError(
            f"no source {', '.join(sorted(unknown))} in this data set:"
            f" it has {', '.join(config.sources)}"
        )
    sources = {
        name: SourceConfig(
            folder=folders.get(name, [source.folder])[-1],
            images=[str(Path(place).resolve()) for place in images.get(name, [])] or source.images,
        )
        for name, source in config.sources.items()
    }
    return config.model_copy(update={"sources": sources})


def _set_aside(
    table: pd.DataFrame, problem: pd.Series, dataset: str, quarantine: bool
) -> pd.DataFrame:
    """The table with unreadable training rows marked `quarantined`; test rows always stay."""
    bad = problem != ""
    listing = prepared(dataset) / "quarantine.csv"
    if not bad.any():
        listing.unlink(missing_ok=True)
        return table
    found = table.loc[bad, ["image_name", "source", "split", "path"]].assign(problem=problem[bad])
    write_csv(listing, found)
    train = bad & (table["split"] == "train")
    first = found.iloc[0]
    said = (
        f"{len(found):,} photographs cannot be read, all listed in {shown(listing)};"
        f" the first: {first['path']}: {first['problem']}"
    )
    if train.any() and not quarantine:
        raise InputError(f"{said}\nreplace the files, or add --quarantine to train without them")
    print(f"{said}; {train.sum():,} are left out of training, test rows get a neutral prediction")
    return table.assign(split=table["split"].mask(train, "quarantined"))
