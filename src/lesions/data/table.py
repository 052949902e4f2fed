"""Sources -> the one table: one row an image, with groups and folds."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import DatasetConfig, saved_preprocess
from lesions.data import folds
from lesions.data.columns import Report, common_rows
from lesions.data.folds import ENDS, NO_PAIRS
from lesions.data.photographs import dermamnist_file, image_paths, same_content, short_names
from lesions.data.sources import READERS, add_deotte, read_duplicates, read_source
from lesions.data.tasks import targets
from lesions.errors import InputError, listed
from lesions.files import read_csv, read_json, write_csv, write_json
from lesions.paths import at, shown

COLUMNS = [
    "image_name", "source", "split", "patient_id", "lesion_id", "diagnosis", "target",
    "sex", "age_approx", "site", "width", "height", "bytes", "images_per_patient",
    "group", "fold", "path",
]  # fmt: skip
ISIC = r"ISIC_\d{7,}(_downsampled)?"
OPTIONAL = ["localization"]  # after these, where a source gives it: HAM10000
TEXT = ("image_name", "source", "split", "patient_id", "lesion_id", "diagnosis", "sex", "site",
        "localization", "group", "path")  # fmt: skip


def read_sources(config: DatasetConfig, report: Report, unpack: bool = False) -> pd.DataFrame:
    """The rows of all sources with `group` and, where an image was found, its `path` ("" else).

    Images are grouped before any row is left out, so that a row without a photograph still links
    others. Problems of any file go into the report. With `unpack` photographs are also looked for
    in archives.
    """
    nothing = pd.DataFrame(columns=["image_name"], dtype=str)
    tables, listed_pairs = [common_rows(nothing, "").assign(path="")], [NO_PAIRS]
    for name, source in config.sources.items():
        reader, folder = source.reader or name, at(source.folder).resolve()
        try:
            table = read_source(name, source, folder, report)
        except InputError as error:
            report.add(str(error))
            continue
        given = [at(path) for path in source.images]
        if reader == "dermamnist":
            if given:
                report.add("dermamnist: its npz has labels and pixels: give --input, not --images")
            given = [path for path in [dermamnist_file(folder)] if path]
        table["path"] = image_paths(table, reader, folder, given, report, unpack)
        table["image_name"] = short_names(table["image_name"])
        derived = targets(table["diagnosis"], config.task)
        if reader == "generic":
            _check_own(name, table, derived, config, report)
        table["target"] = derived.fillna(table["target"])
        tables.append(table)
        listed_pairs.append(read_duplicates(folder, report))
    table = pd.concat(tables, ignore_index=True).fillna({"path": "", "localization": ""})
    table = _keep_apart(table)
    pairs = pd.concat(listed_pairs, ignore_index=True)
    if config.deotte:
        table = add_deotte(table, at(config.deotte), report)
    bare = table.loc[(table["split"] == "train") & table["target"].isna(), "image_name"]
    if len(bare) and not report.problems:  # a wrong target has been reported where it stands
        report.add(f"training rows without a diagnosis or target: {listed(bare)}")
    target = table.drop_duplicates("image_name").set_index("image_name")["target"]
    for one, two in pairs[ENDS].itertuples(index=False):
        if abs(target.get(one, np.nan) - target.get(two, np.nan)) > 0:
            report.add(
                f"{one} and {two} are listed as duplicates but have different targets: correct one"
            )
    table = table.assign(bytes=np.nan, fold=-1, images_per_patient=images_per_patient(table))
    table = folds.add_groups(table, pairs)
    return _set_aside(table, report) if config.scheme == "grouped" else table


def _check_own(
    name: str, rows: pd.DataFrame, derived: pd.Series, config: DatasetConfig, report: Report
) -> None:
    """Report a source whose targets and diagnoses differ, and note its official split."""
    differ = (derived - rows["target"]).abs() > 0
    if differ.any():
        report.add(
            f"source {name}: target and diagnosis differ in {differ.sum():,} rows under task"
            f" {config.task}, such as {listed(rows.loc[differ, 'image_name'], 3)}: map one of them"
            " under `columns`, or set the `task` that both mean"
        )
    test, val = (int((rows["official"] == part).sum()) for part in ("test", "val"))
    if config.scheme == "grouped" and test + val:
        report.notes.append(
            f"source {name}: {test:,} official test rows stay out of the folds, {val:,} validation"
            " rows are folded like training rows; `scheme: official` keeps the whole split"
        )


def _keep_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The table with names that two sources share made different, as in clinic_IMG_0001.

    ISIC's ids, which all published sources have, and files of equal bytes are one photograph.
    """
    names, path = table["image_name"], table["path"]
    own = ~table["source"].isin([*READERS]) & ~names.str.fullmatch(ISIC)
    own &= table.groupby(names)["source"].transform("nunique") > 1
    first = path.groupby(names).transform("first")
    pairs = zip(names[own], path[own], first[own], strict=True)
    differ = [name for name, one, two in pairs if not one or not same_content(one, two)]
    apart = own & names.isin(differ)
    return table.assign(image_name=names.mask(apart, table["source"] + "_" + names))


def _set_aside(table: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The table without a test part of unlabelled rows that belong to a training group."""
    trained = table.loc[table["split"] == "train", "group"]
    bare = (table["split"] == "test") & table["target"].isna() & table["group"].isin(trained)
    bare &= ~table["source"].isin([*READERS])
    if bare.any():
        rows = table[bare]
        report.notes.append(
            f"{len(rows):,} unlabelled rows ({listed(rows['image_name'])}) are of patients or"
            f" lesions with labelled ones ({listed(rows['patient_id'].unique())}): set aside,"
            " neither trained on nor test rows; scripts/predict.py --images predicts them"
        )
    return table.assign(split=table["split"].mask(bare, "quarantined"))


def images_per_patient(table: pd.DataFrame) -> pd.Series:
    """Images of each row's patient within its split, NaN without a patient id.

    Counted over both splits, test rows would leak into training.
    """
    patients = table["patient_id"].where(table["patient_id"] != "")
    return patients.groupby([patients, table["split"]]).transform("size").astype(float)


def one_row_a_name(table: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The table with each image name once: of two sources with one name, the first listed stays."""
    once = table.drop_duplicates(["image_name", "source"])
    targets = once.groupby("image_name")["target"].nunique(dropna=False)
    if (targets > 1).any():
        report.add(
            f"sources disagree about the target of {listed(targets.index[targets > 1])}:"
            " leave one of them out"
        )
    kept = table.drop_duplicates("image_name").reset_index(drop=True)
    if again := len(once) - len(kept):
        said = "photographs are in two sources: the row of the first is used"
        report.notes.append(f"{again:,} {said}")
    twice = table.loc[table.duplicated(["image_name", "source"]), "image_name"]
    if len(twice) and not report.problems:  # else reported where it stands
        report.add(f"names that stand twice in a source: {listed(twice.unique())}")
    return kept


def finish_table(table: pd.DataFrame, config: DatasetConfig) -> pd.DataFrame:
    """The table with folds, and with held-out test rows if the data set asks for some.

    No group lies in two parts, except in a published split, which is kept as it is.
    """
    if config.scheme != "grouped":
        if config.holdout:
            raise InputError(f"holdout: scheme {config.scheme} has its own test rows, or none")
        part = folds.SCHEMES[config.scheme](table, config)
        lost = (table["split"] == "quarantined").to_numpy() & (part != folds.TEST)
        out = (part == folds.OUT) | lost  # test rows stay, whatever their photographs
        split = np.select([out, part == folds.TEST], ["quarantined", "test"], "train")
        table = table.assign(split=split, fold=np.where(split == "train", part, -1))
    else:
        diagnoses = config.stratify == "diagnosis"
        if config.holdout:
            train = table["split"] == "train"
            shares = [config.holdout, 1 - config.holdout]
            part = folds.split_groups(table[train], shares, config.seed, diagnoses)
            table = table.copy()
            table.loc[train, "split"] = np.where(part == 0, "test", "train")
        if mixed := folds.straddling(table):
            raise InputError(
                f"{len(mixed):,} groups have both training and test rows ({listed(mixed)}), of one"
                " patient, lesion or photograph: correct the table, leave `official` out of its"
                " `columns` to have the test part drawn anew, or keep it with `scheme: official`"
            )
        table = folds.add_folds(table, config.folds, config.seed, diagnoses)
    return table[[name for name in COLUMNS + OPTIONAL if name in table]]


def prepared(dataset: str) -> Path:
    """The folder of a data set's table and caches."""
    return at("input/prepared", dataset)


def save_table(dataset: str, table: pd.DataFrame, config: DatasetConfig) -> dict:
    """Write table.csv and table.json, its facts and hashes; returns the facts."""
    folder = prepared(dataset)
    write_csv(folder / "table.csv", table)
    train = table[table["split"] == "train"]
    facts = {
        "dataset": dataset,
        "table_hash": table_hash(table),
        "fold_hash": folds.fold_hash(table),
        "rows": len(table),
        "groups": int(table["group"].nunique()),
        "positives": int(train["target"].sum()),
        "splits": table["split"].value_counts().to_dict(),
        "sources": {
            source: {"rows": len(rows), "positives": int(rows["target"].sum())}
            for source, rows in train.groupby("source")
        },
        "straddling": len(folds.straddling(table)),  # groups in two folds of a published split
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
    facts = read_json(folder / "table.json", ("table_hash", "fold_hash", "config"))
    saved_preprocess(facts["config"], folder / "table.json")
    table = read_csv(folder / "table.csv", COLUMNS, TEXT)
    table = table.fillna({name: "" for name in TEXT})
    if table_hash(table) != facts["table_hash"]:
        raise InputError(f"{shown(folder / 'table.csv')} does not match its hash: run {command}")
    return table, facts


def task_targets(table: pd.DataFrame, facts: dict, task: str | None) -> tuple[str, pd.Series]:
    """The task, the data set's own if None, and each row's code, float64: NaN without a label."""
    if task is None:
        return facts["config"]["task"], table["target"].astype(float)
    return task, targets(table["diagnosis"], task)


def table_hash(table: pd.DataFrame) -> str:
    """Sixteen hex digits of the table's content, without the paths of the photographs."""
    content = table.drop(columns="path").to_csv(index=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def names_hash(table: pd.DataFrame) -> str:
    """Sixteen hex digits of the image names in their order."""
    return hashlib.sha256("\n".join(table["image_name"]).encode()).hexdigest()[:16]
