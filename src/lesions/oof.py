"""The one door to a run's out-of-fold predictions: read, checked, joined to their table by name."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lesions.config import read_yaml, saved_config
from lesions.data.table import load_table, task_targets
from lesions.data.tasks import Task, build_task, task_in
from lesions.errors import InputError, listed
from lesions.files import read_csv, read_json, sha256
from lesions.paths import at, shown
from lesions.runs import RunFiles, find_run


class Groups(NamedTuple):
    """Groups from a CSV: image_name, group, source and split; and which column of which file."""

    table: pd.DataFrame
    file: str
    origin: str


@dataclass(frozen=True)
class Oof:
    """Predictions of rows that the model did not see, one row an image.

    `table` has image_name, fold (-1 unknown), target (the code), group, source ("" unknown) and
    row, the place in table.csv (-1 without one); where the data set is prepared, all columns of its
    table.csv. Its index is 0..N-1, in the order of the files.
    `probs` are float64 (N, C) in the order of `task.classes`, `codes` int64 (N,): data/tasks.py.
    `facts` are fold<k>.json by fold, of a run alone; `blend` is blend.json, of a blend alone;
    `prepared` the whole table.csv and table.json, where there are some.
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
    prepared: tuple[pd.DataFrame, dict[str, Any]] | None = None

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

    @property
    def folds(self) -> int:
        """How many folds the prepared table has."""
        assert self.prepared is not None
        return int(self.prepared[0]["fold"].max()) + 1

    @property
    def test_file(self) -> Path:
        """Where predict.py or blend.py writes the test predictions."""
        assert self.run is not None
        blend = self.run.blend
        return blend.with_suffix(".csv") if blend else at("submissions", f"{self.run.name}.csv")

    def of_test(self) -> "Oof":
        """The same model's predictions of the test rows; codes are -1 where there is no label."""
        assert self.prepared is not None
        (table, facts), path = self.prepared, self.test_file
        names, probs = load_test(path, self.task)
        rows = table_rows(table, names, shown(path))
        codes = task_targets(table, facts, self.task.name)[1].fillna(-1).to_numpy(int)[rows]
        joined = table.iloc[rows].reset_index(drop=True).assign(row=rows)
        return replace(self, table=joined, probs=probs, codes=codes, files=[path])

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


def load_oof(spec: str | Path | RunFiles, groups: Groups | None = None) -> Oof:
    """Read out-of-fold predictions: of a run, of a blend, or of CSV files from elsewhere.

    `spec` is what find_run takes, a CSV file, or a folder of fold*.csv. A CSV from elsewhere has
    image_name, target, and prob, pred or prob_<class>. `groups` stand in for the prepared table.

    InputError for rows that are missing, doubled or unknown, for values that are no probabilities,
    and for a table that was edited, or prepared anew since the run was trained.
    """
    if not isinstance(spec, RunFiles):
        if Path(spec).suffix == ".csv" and Path(spec).is_file():
            return _read_oof(Path(spec).stem, [Path(spec)], groups=groups)
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
    return _read_oof(spec.name, files, groups=groups)


def load_test(path: Path, task: Task) -> tuple[pd.Series, np.ndarray]:
    """Read test predictions: image_name (N,) and probabilities (N, C) in the order of the file.

    A single score is called prob, pred or target. InputError for a file of another task, and for
    one with target and probabilities, as out-of-fold predictions have.
    """
    rows = _read([path], ["image_name"], ("prob", "pred", "target"), task)
    if "target" in rows:
        raise InputError(
            f"{shown(path)}: it has target and probabilities, as out-of-fold predictions have:"
            " give predictions of the test set"
        )
    return rows["image_name"], rows[task.columns].to_numpy()


def table_rows(
    table: pd.DataFrame, names: pd.Series, where: str, known: str = "table.csv"
) -> np.ndarray:
    """The position in `table` of each of `names`, (N,); InputError for a name it does not have."""
    rows = pd.Index(table["image_name"]).get_indexer(pd.Index(names))
    cure = f"predict again, or make {known} as it was"
    require_none(names[rows < 0], f"{where}: not in {known}", cure)
    return rows


def require_none(names: pd.Series, wrong: str, cure: str) -> None:
    """InputError "`wrong`: 5 images (the first of `names`): `cure`" unless `names` is empty."""
    if len(names):
        raise InputError(f"{wrong}: {len(names):,} images ({listed(names, 3)}): {cure}")


def load_groups(path: Path) -> Groups:
    """Read a CSV of image_name, group or patient_id, and where known source and split."""
    known = read_csv(path, ["image_name"], text=("image_name", "group", "patient_id"))
    known = known.drop_duplicates("image_name")
    column = next((name for name in ("group", "patient_id") if name in known), None)
    if column is None:
        raise InputError(f"{shown(path)}: no column group or patient_id")
    # An image without a patient is its own group; the prefix keeps it apart from any id.
    group = known[column].where(known[column].notna(), "image " + known["image_name"])
    source = known["source"].fillna("").astype(str) if "source" in known else ""
    table = known.assign(group=group, source=source, split=known.get("split", ""))
    table = table[["image_name", "group", "source", "split"]]
    return Groups(table, shown(path), f"{column} of {shown(path)}")


def _load_run(run: RunFiles, files: list[Path], groups: Groups | None) -> Oof:
    path = run.folder / "config.yaml"
    config = saved_config(read_yaml(path), path)
    facts = {}
    for fold in run.numbers(".csv"):
        path = run.file(fold, ".json")
        if not path.is_file():
            raise InputError(f"{shown(path)}: missing beside its .csv: train the fold again")
        facts[fold] = read_json(path, ("task",))  # what else lacks costs a warning
        if run.changed(fold, ".csv"):
            raise InputError(
                f"{shown(run.file(fold, '.csv'))}: has changed since {path.name} was written: copy"
                " both files again, or train the fold again"
            )
        first = facts[min(facts)]
        for key in ("task", "classes", "table_hash", "fold_hash"):
            if facts[fold].get(key) != first.get(key):
                raise InputError(
                    f"{shown(path)}: {key} {facts[fold].get(key)}, but {first.get(key)} in"
                    f" fold{min(facts)}.json: train the older folds again"
                )
    oof = _read_oof(run.name, files, build_task(first["task"]), groups)
    oof = replace(oof, run=run, dataset=config.dataset, facts=facts)
    return oof if groups else _prepared(oof, config.data.task, first)


def _load_blend(run: RunFiles, path: Path) -> Oof:
    blend = read_json(path)
    if not isinstance(blend, dict) or not {"chosen", "dataset", "oof"} <= set(blend):
        raise InputError(f"{shown(path)}: not a blend of this version: run scripts/blend.py again")
    file = path.with_name(f"{path.stem}_oof.csv")
    if not file.is_file() or blend["oof"]["sha256"] != sha256(file):
        raise InputError(f"{shown(file)} is not the one that {path.name} names: blend again")
    if not (dataset := blend["dataset"]):
        return replace(_read_oof(path.stem, [file], groups=load_groups(file)), run=run, blend=blend)
    oof = _read_oof(path.stem, [file], build_task(blend["task"]))
    return _prepared(replace(oof, run=run, blend=blend, dataset=dataset), blend["task"], blend)


def _read(
    files: Sequence[Path], needed: Sequence[str], single: Sequence[str], task: Task | None
) -> pd.DataFrame:
    """The files' image_name, fold and target, where they have them, and prob or prob_<class>.

    prob is the first of the columns `single`; without `task` the first file says which classes.
    """
    parts: list[pd.DataFrame] = []
    columns = task.columns if task else []
    for path in files:
        table = read_csv(path, needed, text=("image_name",))
        given = [name for name in map(str, table) if name.startswith("prob_")]
        given = given or [name for name in single if name in table][:1]
        probs = table[given].apply(pd.to_numeric, errors="coerce").astype(np.float64)
        probs.columns = ["prob" if name in single else name for name in given]
        columns = columns or list(probs)
        if list(probs) != columns or not columns:
            lacking = single if columns in ([], ["prob"]) else columns
            raise InputError(f"{shown(path)}: no column {listed(lacking, 12)}, but"
                             f" {listed(table, 12)}: is it of another task?")  # fmt: skip
        unequal = (probs.sum(axis=1) - 1).abs() > 1e-3
        for wrong, rows in (
            ("is no number", ~np.isfinite(probs).all(axis=1)),
            ("is not within 0 to 1", ((probs < 0) | (probs > 1)).any(axis=1)),
            ("does not sum to 1", unequal & (columns != ["prob"])),
        ):
            where = f"{shown(path)}: {listed(given, 12)} {wrong}"
            require_none(table["image_name"][rows], where, "predict them again")
        kept = [n for n in ("image_name", "fold", "target") if n in table and n not in given]
        parts.append(table[kept].assign(file=shown(path)).join(probs))
    whole = pd.concat(parts, ignore_index=True)
    doubled = whole[whole["image_name"].duplicated(keep=False)]
    there = f"{listed(doubled['file'].unique())}: twice"
    require_none(doubled["image_name"].drop_duplicates(), there, "predict each once")
    return whole


def _read_oof(
    name: str, files: list[Path], task: Task | None = None, groups: Groups | None = None
) -> Oof:
    """The rows of the files with those groups; without them each image is its own group."""
    rows = _read(files, ["image_name", "target"], ("prob", "pred"), task)
    task = task or task_in(rows.columns)
    assert task is not None
    try:
        codes = task.codes(rows["target"])
    except ValueError as error:
        raise InputError(f"{shown(files[0])}: {error}: is it of another task?") from error
    fold = pd.to_numeric(rows.get("fold", pd.Series(-1, rows.index)), errors="coerce")
    fold = fold.where(fold.between(0, 2**31), -1).astype(int)
    table = rows[["image_name"]].assign(fold=fold, target=codes, group=rows["image_name"])
    table = table.assign(source="", row=-1)
    values, origin = rows[task.columns].to_numpy(np.float64), "none: each image its own group"
    oof = Oof(name, task, table, values, codes, files, origin)
    if groups is None:
        return oof
    places = table_rows(groups.table, oof.names, oof.name, groups.file)
    return _joined(oof, groups.table, places, groups.origin, fold=table["fold"], row=-1)


def _prepared(oof: Oof, task: str | None, facts: Mapping[str, Any]) -> Oof:
    """The rows with all columns of their data set's table.csv, which has to be that of `facts`."""
    assert oof.dataset is not None and oof.run is not None
    table, known = load_table(oof.dataset)
    where = shown(oof.run.blend or oof.run.folder)
    if not facts.get("table_hash"):
        print(f"warning: {where} names no table.csv: the one that is there now is taken",
              file=sys.stderr)  # fmt: skip
    for key in ("table_hash", "fold_hash"):
        if facts.get(key) and facts[key] != known[key]:
            raise InputError(
                f"{where} is of {key} {facts[key]}, but data set {oof.dataset} has {known[key]}:"
                " train again, or prepare it as it was"
            )
    rows, codes = table_rows(table, oof.names, where), task_targets(table, known, task)[1]
    for column, values in (("target", codes), ("fold", table["fold"])):
        found = oof.table[column].to_numpy()
        unequal = (values.to_numpy()[rows] != found) & (found != -1)
        wrong = f"{where}: another {column} than table.csv has"
        require_none(oof.names[unequal], wrong, "train again")
    for fold in oof.facts:
        names = table.loc[(table["fold"] == fold) & codes.notna(), "image_name"]
        wrong = f"{shown(oof.run.file(fold, '.csv'))}: lacks, of the {len(names):,} of its fold"
        require_none(names[~names.isin(oof.names)], wrong, "train the fold again")
    origin = f"group of {shown(at('input/prepared', oof.dataset, 'table.csv'))}"
    return replace(_joined(oof, table, rows, origin, row=rows), prepared=(table, known))


def _joined(oof: Oof, table: pd.DataFrame, rows: np.ndarray, origin: str, **columns: Any) -> Oof:
    """The rows with what `table` says of them at the positions `rows`, and further `columns`."""
    joined = table.iloc[rows].reset_index(drop=True).assign(target=oof.codes, **columns)
    tested = set(table.loc[table["split"] == "test", "source"]) - {""}
    return replace(oof, table=joined, groups_from=origin, test_sources=tuple(sorted(tested)))
