"""Prepare a data set: sources -> table, image caches, quarantine, folds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import DatasetConfig, load_dataset_config
from lesions.data import near_duplicates
from lesions.data.cache import choose_mode, fill_cache, publish_cache
from lesions.data.columns import Report
from lesions.data.decode import PLAIN, UnreadableImage, decode
from lesions.data.table import (
    check_images,
    finish_table,
    one_row_a_name,
    prepared,
    read_sources,
    save_table,
)
from lesions.errors import InputError
from lesions.files import write_csv
from lesions.paths import shown

SMALL = "near_duplicates"  # the cache in which near-duplicates are searched
SHOWN = 60  # problems printed at most
CHECKED = 5000  # photographs that are decoded although a table is wrong, at most


def prepare(
    dataset: str, sizes: Sequence[int], changes: Sequence[str], folders: dict[str, list[str]],
    images: dict[str, list[str]], available_only: bool, quarantine: bool,
) -> dict:  # fmt: skip
    """Write table.csv, table.json and a cache for each of `sizes`; returns the table's facts.

    `folders` and `images` give a source's folder of CSVs and its places of photographs. Without
    sizes the table is made from the CSVs alone.
    """
    config = _with_places(load_dataset_config(dataset, changes), folders, images)
    report = Report()
    table = read_sources(config, report, unpack=bool(sizes))
    for note in report.notes:
        print(f"note: {note}")
    if sizes and available_only:
        there = table["path"] != ""
        print(f"{(~there).sum():,} rows have no photograph here; {there.sum():,} are used")
        table = table[there]
    elif sizes:
        check_images(table, report)
    if sizes and table.empty and not report.problems:
        report.add(f"{dataset}: no photograph found: say where with --images SOURCE=FOLDER")
    table = one_row_a_name(table, report)
    if report.problems:
        _check_photographs(table, report, sizes)
    _refuse(report, dataset)
    problem = pd.Series("", table.index)
    caches = [str(size) for size in sizes]
    if sizes:
        table, problem = _fill_caches(table, dataset, sizes, config, report, quarantine)
    if sizes and config.near_duplicates:
        table = _link_near_duplicates(table, dataset)
        caches.append(SMALL)
    table = finish_table(table, config)
    for name in caches:
        publish_cache(prepared(dataset) / name, table)
    listing = prepared(dataset) / "quarantine.csv"
    listing.unlink(missing_ok=True)
    if (problem != "").any():
        columns = ["image_name", "source", "split", "path", "problem"]
        write_csv(listing, table.assign(problem=problem).loc[problem != "", columns])
    return save_table(dataset, table, config)


def _fill_caches(
    table: pd.DataFrame, dataset: str, sizes: Sequence[int], config: DatasetConfig,
    report: Report, quarantine: bool,
) -> tuple[pd.DataFrame, pd.Series]:  # fmt: skip
    """The table with bytes, width and height, and the problem of each unreadable photograph.

    Unreadable training rows get the split `quarantined`, or are an InputError that lists them
    without `quarantine`. Test rows always stay.
    """
    for size in sizes:
        folder = prepared(dataset) / str(size)
        mode = choose_mode(len(table), size, folder) if config.cache == "auto" else config.cache
        index, _ = fill_cache(folder, table, size, mode, config.preprocess)
    bad = (index["problem"] != "").to_numpy()
    # A source may give the size of originals that are here as smaller copies.
    known = {name: table[name].fillna(index[name]).astype(int) for name in ("width", "height")}
    known = {name: values.mask(bad, 0) for name, values in known.items()}
    table = table.assign(bytes=index["bytes"], **known)
    if not bad.any():
        return table, index["problem"]
    for path, problem in zip(table["path"][bad], index["problem"][bad], strict=True):
        report.problem(Path(path), problem)
    train = bad & (table["split"] == "train").to_numpy()
    if train.any() and not quarantine:
        report.add("replace the files, or add --quarantine to train without them")
        _refuse(report, dataset)
    print("\n".join(report.problems))
    print(f"{train.sum():,} are left out of training; test rows get a neutral prediction")
    return table.assign(split=table["split"].mask(train, "quarantined")), index["problem"]


def _link_near_duplicates(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The table with near-duplicates in one group, found in a cache of its own."""
    folder = prepared(dataset) / SMALL
    index, images = fill_cache(folder, table, near_duplicates.SIZE, "array", PLAIN)
    readable = (index["problem"] == "").to_numpy()
    pairs = prepared(dataset) / "near_duplicates.json"
    table, facts = near_duplicates.link_near_duplicates(table, np.asarray(images), readable, pairs)
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in facts.items())
    print(f"near-duplicates: {counts}")
    return table


def _with_places(
    config: DatasetConfig, folders: dict[str, list[str]], images: dict[str, list[str]]
) -> DatasetConfig:
    unknown = {*folders, *images} - set(config.sources)
    if unknown:
        raise InputError(
            f"no source {', '.join(sorted(unknown))} in this data set:"
            f" it has {', '.join(config.sources)}"
        )
    sources = dict(config.sources)
    for name, given in folders.items():
        sources[name] = sources[name].model_copy(update={"folder": given[-1]})
    for name, given in images.items():
        places = [str(Path(place).resolve()) for place in given]
        sources[name] = sources[name].model_copy(update={"images": places})
    return config.model_copy(update={"sources": sources})


def _check_photographs(table: pd.DataFrame, report: Report, sizes: Sequence[int]) -> None:
    """Add unreadable photographs to a report of wrong tables, where that takes seconds."""
    table = table[table["path"] != ""]
    if not sizes or len(table) > CHECKED:
        return
    for path in table["path"]:
        try:
            decode(Path(path), 32)
        except UnreadableImage as error:
            report.problem(Path(path), str(error))


def _refuse(report: Report, dataset: str) -> None:
    """InputError with all problems; a list too long to print is written to problems.csv."""
    listing = prepared(dataset) / "problems.csv"
    if len(report.problems) > SHOWN:
        write_csv(listing, pd.DataFrame({"problem": report.problems}))
        rest = f"all {len(report.problems):,} are listed in {shown(listing)}"
        report.problems[SHOWN - 1 :] = [rest]
    report.check()
    listing.unlink(missing_ok=True)
