"""The one door to a run's out-of-fold predictions: read, checked, joined to their table by name."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.config import read_yaml, saved_config
from lesions.data.table import load_table, task_targets
from lesions.data.tasks import TASKS, Task, build_task, task_in
from lesions.errors import InputError, listed
from lesions.files import read_csv, read_json, sha256
from lesions.paths import at, shown
from lesions.runs import RunFiles, find_run


@dataclass(frozen=True)
class Oof:
    """Predictions of rows that the model did not see, one row an image.

    `table` has image_name, fold (-1 unknown), target (the code), group, source ("" unknown) and
    row, the place in table.csv (-1 without one); where the data set is prepared, all columns of its
    table.csv. Its index is 0..N-1, in the order of the files.
    `probs` are float64 (N, C) in the order of `task.classes`, `codes` int64 (N,): data/tasks.py.
    `facts` are fold<k>.json by fold, of a run alone; `blend` is blend.json, of a blend alone.
    """

    name: str
    task: Task
    table: pd.DataFrame
    probs: np.ndarray
    codes: np.ndarray
    files: list[Path]
    groups_from: str  # which column of which file `group` is, for people to read
    test_sources: tuple[str, ...] = ()  # the sources that the data set's test rows are of
    run: RunFiles | None = None
    dataset: str | None = None
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    blend: dict[str, Any] | None = None

    @property
    def names(self) -> pd.Series:
        """image_name of each row."""
        return self.table["image_name"]

    @property
    def groups(self) -> np.ndarray:
        """The group of each row, (N,): patient, lesion or duplicates, which stay together."""
        return self.table["group"].to_numpy()

    @property
    def score(self) -> np.ndarray:
        """P(positive) of each row, (N,)."""
        return self.task.score(self.probs)

    @property
    def positive(self) -> np.ndarray:
        """Whether each row is positive, bool (N,)."""
        return self.task.positive(self.codes)

    @property
    def is_probability(self) -> bool:
        """Whether `probs` are meant as probabilities: a blend of ranks only orders rows."""
        return self.blend is None or self.blend.get("scale") != "rank"

    def take(self, rows: np.ndarray) -> "Oof":
        """The same of some rows: positions, or a mask."""
        table = self.table.iloc[np.arange(len(self.table))[rows]].reset_index(drop=True)
        return replace(self, table=table, probs=self.probs[rows], codes=self.codes[rows])

    def of_source(self, source: str | None = None) -> "Oof":
        """The rows of one source, by default of those that the test rows are of.

        Merged sources differ in their share of positives, which lifts the AUC of any model.
        """
        found = sorted(set(self.table["source"]) - {""})
        if source and source not in found:
            raise InputError(f"--source {source}: the rows are of {listed(found) or 'none known'}")
        wanted = [source] if source else sorted(set(found) & set(self.test_sources))
        if not wanted or wanted == found:
            return self
        taken = self.take(self.table["source"].isin(wanted).to_numpy())
        return replace(taken, groups_from=f"{self.groups_from}, rows of {listed(wanted)} alone")


def load_oof(spec: str | Path | RunFiles, groups: Path | None = None) -> Oof:
    """Read out-of-fold predictions: of a run, of a blend, or of CSV files from elsewhere.

    `spec` is what find_run takes, a CSV file, or a folder of fold*.csv. A CSV from elsewhere has
    image_name, target, and prob, pred or prob_<class>. `groups` is a CSV of image_name and group
    or patient_id, and where known source and split; it stands in for the prepared table.

    InputError for rows that are missing, doubled or unknown, for values that are no probabilities,
    and for a table that was edited, or prepared anew since the run was trained.
    """
    if not isinstance(spec, RunFiles):
        if Path(spec).suffix == ".csv" and Path(spec).is_file():
            return _read(Path(spec).stem, [Path(spec)], None, groups)
        spec = find_run(spec)
    if spec.blend is not None:
        return _load_blend(spec, spec.blend)
    files = [spec.file(fold, ".csv") for fold in spec.numbers(".csv")]
    if not files:
        raise InputError(
            f"{shown(spec.folder)}: no fold<k>.csv: train it: accelerate launch --quiet"
            f" scripts/train.py --config configs/{spec.name}.yaml --fold 0"
        )
    if (spec.folder / "config.yaml").is_file() or spec.folder.is_relative_to(at("oof")):
        return _load_run(spec, files, groups)
    return _read(spec.name, files, None, groups)


def load_test(path: Path, task: Task) -> tuple[pd.Series, np.ndarray]:
    """Read test predictions: image_name (N,) and probabilities (N, C) in the order of the file.

    A single score is called target, prob or pred. InputError for a file of another task, and for
    one with target and probabilities, as out-of-fold predictions have.
    """
    table = read_csv(path, ["image_name"], text=("image_name",))
    probs = _probabilities(table, path, ("target", "prob", "pred"))
    if "target" in table and set(table.columns) & {"prob", "pred", *probs}:
        raise InputError(
            f"{shown(path)}: it has target and probabilities, as out-of-fold predictions have:"
            " give predictions of the test set"
        )
    if list(probs) != task.columns:
        needed = listed(task.columns if task.several else ["target", "prob", "pred"], 12)
        raise InputError(f"{shown(path)}: no column {needed}, as out of fold")
    _require_once(table.assign(file=shown(path)))
    return table["image_name"], probs.to_numpy()


def table_rows(table: pd.DataFrame, names: pd.Series, where: str) -> np.ndarray:
    """The position in `table` of each of `names`, (N,); InputError for a name it does not have."""
    rows = pd.Index(table["image_name"]).get_indexer(pd.Index(names))
    if (rows < 0).any():
        raise InputError(
            f"{where}: {int((rows < 0).sum()):,} images are not in table.csv"
            f" ({listed(names[rows < 0], 3)}): it was prepared again since: predict again, or"
            " prepare it as it was"
        )
    return rows


def _load_run(run: RunFiles, files: list[Path], groups: Path | None) -> Oof:
    facts = {}
    for fold in run.numbers(".csv"):
        path = run.file(fold, ".json")
        if not path.is_file():
            raise InputError(f"{shown(path)}: missing beside its .csv: train the fold again")
        facts[fold] = read_json(path)
        first = facts[min(facts)]
        for key in ("task", "classes", "table_hash", "fold_hash"):
            if facts[fold].get(key) != first.get(key):
                raise InputError(
                    f"{shown(path)}: {key} {facts[fold].get(key)}, but {first.get(key)} in"
                    f" fold{min(facts)}.json: train the older folds again"
                )
    path = run.folder / "config.yaml"
    config = saved_config(read_yaml(path), path)
    oof = _read(run.name, files, _task(first["task"], run.folder), groups)
    oof = replace(oof, run=run, dataset=config.dataset, facts=facts)
    if groups:
        return oof
    oof, table = _joined(oof, config.data.task, first)
    for fold in facts:
        names = table.loc[(table["fold"] == fold) & table["code"].notna(), "image_name"]
        lacking = names[~names.isin(oof.names)]
        if len(lacking):
            raise InputError(
                f"{shown(run.file(fold, '.csv'))}: lacks {len(lacking):,} of the {len(names):,}"
                f" images of its fold ({listed(lacking, 3)}): train the fold again"
            )
    return oof


def _load_blend(run: RunFiles, path: Path) -> Oof:
    blend = read_json(path)
    if not isinstance(blend, dict) or "chosen" not in blend:
        raise InputError(f"{shown(path)}: not a blend: python scripts/blend.py RUN RUN makes one")
    file = path.with_name(f"{path.stem}_oof.csv")
    if blend.get("oof", {}).get("sha256", "") not in ("", file.is_file() and sha256(file)):
        raise InputError(f"{shown(file)} is not the one that {path.name} names: blend again")
    dataset, asked = blend.get("dataset"), blend.get("task")
    for member in blend["members"]:  # blends of older versions name no data set
        config = at("oof", member, "config.yaml")
        if "dataset" not in blend and dataset is None and config.is_file():
            saved = saved_config(read_yaml(config), config)
            dataset, asked = saved.dataset, saved.data.task
    if dataset is None:
        return replace(_read(path.stem, [file], None, file), run=run, blend=blend)
    asked = asked or load_table(dataset)[1]["config"]["task"]
    oof = replace(_read(path.stem, [file], _task(asked, path), None), run=run, blend=blend)
    return _joined(replace(oof, dataset=dataset), asked, blend)[0]


def _task(name: str, where: Path) -> Task:
    if name not in TASKS:
        raise InputError(f"{shown(where)}: task {name} is none of {listed(TASKS, 12)}")
    return build_task(name)


def _read(name: str, files: Sequence[Path], task: Task | None, groups: Path | None) -> Oof:
    """The rows of the files as they are, with the groups of `groups` or each its own."""
    parts: list[pd.DataFrame] = []
    for path in files:
        table = read_csv(path, ["image_name", "target"], text=("image_name",))
        probs = _probabilities(table, path, ("prob", "pred"))
        wanted = task.columns if task else list(parts[0])[4:] if parts else list(probs)
        if list(probs) != wanted:
            raise InputError(
                f"{shown(path)}: columns {listed(probs, 12)}, but {listed(wanted, 12)} in the"
                " task of the run, or its other folds: train the older folds again"
            )
        fold = pd.to_numeric(table["fold"], errors="coerce") if "fold" in table else np.nan
        own = table[["image_name", "target"]].assign(fold=fold, file=shown(path))
        parts.append(own.join(probs))
    rows = pd.concat(parts, ignore_index=True)
    _require_once(rows)
    task = task or task_in(rows.columns)
    assert task is not None
    try:
        codes = task.codes(rows["target"])
    except ValueError as error:
        raise InputError(f"{shown(files[0])}: {error}: is it of another task?") from error
    table = rows[["image_name"]].assign(fold=rows["fold"].fillna(-1).astype(int), target=codes)
    table = table.assign(group=rows["image_name"], source="", row=-1)
    values, origin = rows[task.columns].to_numpy(np.float64), "none: each image its own group"
    oof = Oof(name, task, table, values, codes, list(files), origin)
    return _grouped(oof, groups) if groups else oof


def _probabilities(table: pd.DataFrame, path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Columns prob_<class>, or prob from the first of `names`; InputError without either."""
    columns = [name for name in map(str, table.columns) if name.startswith("prob_")]
    columns = columns or [name for name in names if name in table][:1]
    if not columns:
        raise InputError(f"{shown(path)}: no column {', '.join(names)} or prob_<class>")
    numbers = table[columns].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    bad = ~np.isfinite(numbers).all(axis=1)
    low, high = numbers.min(axis=None), numbers.max(axis=None)
    odd = (numbers.sum(axis=1) - 1).abs() > 1e-3
    where = f"{shown(path)}: {listed(columns, 12)}"
    if bad.any():
        raise InputError(f"{where} is not a number in {int(bad.sum()):,} rows")
    if low < 0 or high > 1:
        raise InputError(f"{where} runs from {low:g} to {high:g}: give probabilities, 0 to 1")
    if columns[0] in names:
        return numbers.set_axis(["prob"], axis=1)
    if odd.any():
        raise InputError(
            f"{shown(path)}: the probabilities of {int(odd.sum()):,} rows do not sum to 1, "
            f"first those of {table['image_name'][odd].iloc[0]}"
        )
    return numbers


def _require_once(rows: pd.DataFrame) -> None:
    """InputError for a doubled image_name that says in which `file` it stands."""
    doubled = rows.loc[rows["image_name"].duplicated(), "image_name"]
    if len(doubled):
        there = listed(rows.loc[rows["image_name"] == doubled.iloc[0], "file"].unique())
        raise InputError(f"{there}: {len(doubled):,} doubled rows ({listed(doubled, 3)})")


def _joined(oof: Oof, task: str | None, facts: dict[str, Any]) -> tuple[Oof, pd.DataFrame]:
    """The rows with all that their data set's table knows; that table with each row's `code`."""
    assert oof.dataset is not None and oof.run is not None
    table, known = load_table(oof.dataset)
    where = shown(oof.run.blend or oof.run.folder)
    stated = {key: facts[key] for key in ("table_hash", "fold_hash") if facts.get(key)}
    if not stated:
        print(f"warning: {where} names no table.csv: the one that is there now is taken",
              file=sys.stderr)  # fmt: skip
    for key, value in stated.items():
        if value != known[key]:
            raise InputError(
                f"{where} is of {key} {value}, but data set {oof.dataset} has {known[key]}: train"
                " again, or prepare it as it was"
            )
    rows = table_rows(table, oof.names, where)
    table["code"] = task_targets(table, known, task)[1]
    joined = table.iloc[rows].reset_index(drop=True)
    for column, told in (("code", "target"), ("fold", "fold")):
        found = oof.table[told]
        unequal = (joined[column] != found) & (found != -1)
        if unequal.any():
            raise InputError(
                f"{where}: another {told} than table.csv has, of {int(unequal.sum()):,} images"
                f" ({listed(joined['image_name'][unequal], 3)}): train again"
            )
    origin = f"group of {shown(at('input/prepared', oof.dataset, 'table.csv'))}"
    joined = joined.drop(columns="code").assign(target=oof.codes, row=rows)
    return replace(oof, table=joined, groups_from=origin, test_sources=_tested(table)), table


def _grouped(oof: Oof, path: Path) -> Oof:
    """The rows with the groups, and where the file has them the sources, of a CSV."""
    table = read_csv(path, ["image_name"], text=("image_name", "group", "patient_id"))
    column = next((name for name in ("group", "patient_id") if name in table.columns), None)
    if column is None:
        raise InputError(f"{shown(path)}: no column group or patient_id")
    known = table.drop_duplicates("image_name").set_index("image_name")
    strange = oof.names[~oof.names.isin(known.index)]
    if len(strange):
        raise InputError(f"{shown(path)}: lacks {len(strange):,} images ({listed(strange, 3)})")
    matched = known.loc[oof.names].reset_index()
    # An image without a patient is its own group; the prefix keeps it apart from any id.
    group = matched[column].where(matched[column].notna(), "image " + oof.names)
    source = matched["source"].fillna("").astype(str) if "source" in table else ""
    tested = _tested(table) if {"source", "split"} <= set(table) else ()
    found = oof.table.assign(group=group, source=source)
    origin = f"{column} of {shown(path)}"
    return replace(oof, table=found, groups_from=origin, test_sources=tested)


def _tested(table: pd.DataFrame) -> tuple[str, ...]:
    """The sources that the test rows are of."""
    return tuple(sorted(table.loc[table["split"] == "test", "source"].dropna().unique()))
