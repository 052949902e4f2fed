"""Prepare a data set: sources -> table, image caches, quarantine, folds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import DatasetConfig
from lesions.data import near_duplicates
from lesions.data.cache import choose_mode, fill_cache, publish_cache
from lesions.data.columns import Report
from lesions.data.decode import PLAIN, UnreadableImage, decode
from lesions.data.table import finish_table, one_row_a_name, prepared, read_sources, save_table
from lesions.errors import InputError, listed
from lesions.files import write_csv
from lesions.paths import shown

SMALL = "near_duplicates"  # the cache in which near-duplicates are searched
SHOWN = 60  # problems printed at most
CHECKED = 5000  # photographs that are decoded although a table is wrong, at most


def prepare(
    dataset: str, config: DatasetConfig, sizes: Sequence[int], folders: dict[str, list[str]],
    images: dict[str, list[str]], available_only: bool, quarantine: bool, review: Path | None,
) -> dict:  # fmt: skip
    """Write table.csv, table.json and a cache for each of `sizes`; returns the table's facts.

    `folders` and `images` give a source's folder of CSVs and its places of photographs. Without
    sizes the table is made from the CSVs alone. `review` are a person's decisions on pairs of
    near-duplicates, which are kept.
    """
    if review and not (sizes and config.near_duplicates):
        raise InputError("--review needs photographs, and --set near_duplicates=true")
    config = _with_places(config, folders, images)
    report, folder = Report(), prepared(dataset)
    table = read_sources(config, report, unpack=bool(sizes))
    if sizes:
        table = _with_photographs(table, available_only, report)
        if table.empty and not report.problems:
            report.add(f"{dataset}: no photograph found: say where with --images SOURCE=FOLDER")
    table = one_row_a_name(table, report)
    print("".join(f"note: {note}\n" for note in report.notes), end="")
    _refuse(report, folder, table["path"].tolist() if sizes else [])
    (folder / "quarantine.csv").unlink(missing_ok=True)
    caches = [str(size) for size in sizes]
    if sizes:
        table = _fill_caches(table, folder, sizes, config, report, quarantine)
    if sizes and config.near_duplicates:
        _, pixels = fill_cache(folder / SMALL, table, near_duplicates.SIZE, "array", PLAIN)
        table, found = near_duplicates.link_near_duplicates(
            table, np.asarray(pixels), folder / f"{SMALL}.json", review
        )
        print(found, end="")
        caches.append(SMALL)
    table = finish_table(table, config)
    for name in caches:
        publish_cache(folder / name, table)
    return save_table(dataset, table, config)


def _with_photographs(table: pd.DataFrame, available_only: bool, report: Report) -> pd.DataFrame:
    """All rows, those without a photograph reported; with `available_only` the others alone."""
    there = table["path"] != ""
    if available_only:
        print(f"{(~there).sum():,} rows have no photograph here; {there.sum():,} are used")
        return table[there]
    if not there.all():
        rows = table["source"].value_counts()
        lines = "".join(
            f"\n    {source}: {len(names):,} of {rows[source]:,}: {listed(names, 3)}"
            for source, names in table[~there].groupby("source")["image_name"]
        )
        report.add(
            f"photographs are missing:{lines}\n    download them (input/README.md), name their"
            " folder with --images SOURCE=FOLDER, or go on with --available-only"
        )
    return table


def _fill_caches(
    table: pd.DataFrame, folder: Path, sizes: Sequence[int], config: DatasetConfig,
    report: Report, quarantine: bool,
) -> pd.DataFrame:  # fmt: skip
    """The table with bytes, width and height; quarantine.csv lists unreadable photographs.

    Unreadable training rows get the split `quarantined`, or are an InputError that lists them
    without `quarantine`. Test rows always stay.
    """
    for size in sizes:
        part = folder / str(size)
        mode = choose_mode(len(table), size, part) if config.cache == "auto" else config.cache
        index, _ = fill_cache(part, table, size, mode, config.preprocess)
    problem, bad = index["problem"], (index["problem"] != "").to_numpy()
    # A source may give the size of originals that are here as smaller copies.
    sides = {name: table[name].fillna(index[name]).astype(int) for name in ("width", "height")}
    sides = {name: values.mask(bad, 0) for name, values in sides.items()}
    table = table.assign(bytes=index["bytes"], **sides)
    if not bad.any():
        return table
    for path, what in zip(table["path"][bad], problem[bad], strict=True):
        report.problem(Path(path), what)
    train = bad & (table["split"] == "train").to_numpy()
    if train.any() and not quarantine:
        report.add("replace the files, or add --quarantine to train without them")
        _refuse(report, folder)
    print("\n".join(report.problems))
    print(f"{train.sum():,} are left out of training; test rows get a neutral prediction")
    table = table.assign(split=table["split"].mask(train, "quarantined"), problem=problem)
    columns = ["image_name", "source", "split", "path", "problem"]
    write_csv(folder / "quarantine.csv", table.loc[bad, columns])
    return table.drop(columns="problem")


def _with_places(
    config: DatasetConfig, folders: dict[str, list[str]], images: dict[str, list[str]]
) -> DatasetConfig:
    """The config with the folders and image places of the command line in their sources."""
    sources = dict(config.sources)
    for name in folders | images:
        if name not in sources:
            raise InputError(f"no source {name} in this data set: it has {', '.join(sources)}")
        old, places = sources[name], [str(Path(place).resolve()) for place in images.get(name, [])]
        given = {"folder": folders.get(name, [old.folder])[-1], "images": places or old.images}
        sources[name] = old.model_copy(update=given)
    return config.model_copy(update={"sources": sources})


def _refuse(report: Report, folder: Path, photographs: Sequence[str] = ()) -> None:
    """InputError with all problems; a list too long to print is written to problems.csv.

    Where a table is wrong, unreadable photographs are told at the same time, if that takes seconds.
    """
    listing = folder / "problems.csv"
    listing.unlink(missing_ok=True)
    if not report.problems:
        return
    for path in filter(None, photographs if len(photographs) <= CHECKED else []):
        try:
            decode(Path(path), 32)
        except UnreadableImage as error:
            report.problem(Path(path), str(error))
    lines, count = report.problems, len(report.problems)
    if count > SHOWN:
        write_csv(listing, pd.DataFrame({"problem": lines}))
        lines = [*lines[: SHOWN - 1], f"all {count:,} are listed in {shown(listing)}"]
    raise InputError(f"{count:,} problems:\n  " + "\n  ".join(lines) if count > 1 else lines[0])
