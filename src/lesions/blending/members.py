"""Members of a blend: predictions joined by image_name, refused where they do not match."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lesions.blending.predictions import read_oof, read_test
from lesions.errors import InputError, listed
from lesions.evaluation.multiclass import classes_in
from lesions.files import read_json
from lesions.paths import at, shown


@dataclass(frozen=True)
class Member:
    """One model's out-of-fold table and where it came from.

    `table` has image_name, target and prob, or with several classes prob_<class> and the class's
    name as target. `run` is None for a plain CSV, which carries neither task nor fold hash.
    """

    name: str
    table: pd.DataFrame
    files: list[Path]
    run: str | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The classes that it has a probability of; empty where it is one of yes or no."""
        return classes_in(self.table.columns)


def load_members(specs: Sequence[str]) -> list[Member]:
    """The members that the command names: runs, CSV files, or folders of either kind.

    A folder with fold*.csv is one member; any other folder is one member for each CSV in it.
    """
    members: list[Member] = []
    for spec in specs:
        members += _load(spec)
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        members = [Member(str(m.files[0]), m.table, m.files, m.run, m.facts) for m in members]
        names = [member.name for member in members]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"given twice: {listed(doubled)}: name each member once")
    return members


def _load(spec: str) -> list[Member]:
    folder, path = at("oof") / spec, Path(spec)
    if any(folder.glob("fold*.csv")):
        return [_load_run(spec, folder)]
    if path.is_dir():
        folds = sorted(path.glob("fold*.csv"))
        if folds:
            return [Member(path.name, _read_all(folds), folds)]
        files = sorted(path.glob("*.csv"))
        if not files:
            raise InputError(f"{spec}: a folder without CSV files")
        return [Member(file.stem, read_oof(file), [file]) for file in files]
    if path.is_file():
        return [Member(path.stem, read_oof(path), [path])]
    runs = sorted({shown(file.parent) for file in at("oof").rglob("fold*.csv")})
    raise InputError(
        f"{spec}: no run {shown(folder)}/ with fold*.csv and no such file; "
        f"runs here: {listed(runs, 12) or 'none'}; train it: "
        f"accelerate launch scripts/train.py --config configs/{spec}.yaml --fold 0"
    )


def _load_run(run: str, folder: Path) -> Member:
    """A run's folds; InputError where its folds do not belong together."""
    folds = sorted(folder.glob("fold*.csv"))
    facts: dict[str, str] = {}
    for file in folds:
        record = file.with_suffix(".json")
        if not record.is_file():
            raise InputError(f"{shown(record)}: missing beside {file.name}: train the fold again")
        found = read_json(record)
        for key in ("task", "fold_hash"):
            value = str(found.get(key))
            if facts.setdefault(key, value) != value:
                raise InputError(
                    f"{shown(record)}: {key} {value} but {facts[key]} in the run's other folds: "
                    "train the older folds again"
                )
    return Member(run, _read_all(folds), folds, run, facts)


def _read_all(files: list[Path]) -> pd.DataFrame:
    tables = {file: read_oof(file) for file in files}
    first = tables[files[0]]
    for file, table in tables.items():
        if list(table.columns) != list(first.columns):
            found, wanted = (classes_in(t.columns) or ["yes or no"] for t in (table, first))
            told = f"classes {listed(found, 12)}, but {listed(wanted, 12)} in {files[0].name}"
            raise InputError(f"{shown(file)}: {told}: train the older folds again")
    return pd.concat(tables.values(), ignore_index=True)


def check_members(members: Sequence[Member]) -> None:
    """InputError where members do not answer the same question on the same rows; it names them."""
    if len(members) < 2:
        raise InputError("a blend takes two or more members")
    for key in ("task", "fold_hash"):
        found = {member.name: member.facts[key] for member in members if key in member.facts}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{name}: {value}" for name, value in found.items())
            raise InputError(f"members differ in {key} ({told}): blend those that agree")
    if len({tuple(member.classes) for member in members}) > 1:
        told = "; ".join(f"{m.name}: {', '.join(m.classes) or 'one score'}" for m in members)
        raise InputError(f"members differ in classes ({told}): blend those that agree")
    for member in members:
        _check_scores(member.name, member.table)
        if not member.table["target"].isin(member.classes or [0, 1]).all():
            told = listed(member.classes, 12) or "0 or 1"
            raise InputError(f"{member.name}: targets must be {told}: is it of another task?")
    _check_rows({member.name: member.table for member in members})
    first = members[0]
    for member in members[1:]:
        other = member.table.set_index("image_name")["target"].reindex(first.table["image_name"])
        unequal = first.table["image_name"][(other.to_numpy() != first.table["target"].to_numpy())]
        if len(unequal):
            raise InputError(
                f"{first.name} and {member.name} disagree on the target of {len(unequal):,} "
                f"images ({listed(unequal, 3)}): another task or other labels"
            )


def _check_scores(name: str, table: pd.DataFrame) -> None:
    if (table.filter(regex="^prob").nunique() < 2).all():
        raise InputError(f"{name}: its column is constant, so it ranks nothing: leave it out")


def _check_rows(tables: dict[str, pd.DataFrame]) -> None:
    """InputError unless every table has each image once, and the same images."""
    for name, table in tables.items():
        doubled = table["image_name"][table["image_name"].duplicated()]
        if len(doubled):
            raise InputError(f"{name}: {len(doubled):,} doubled rows ({listed(doubled, 3)})")
    everything = pd.Index(pd.unique(pd.concat([t["image_name"] for t in tables.values()])))
    short = {
        name: everything.difference(pd.Index(table["image_name"]))
        for name, table in tables.items()
        if len(table) < len(everything)
    }
    if short:
        told = "; ".join(
            f"{name} lacks {len(ids):,} of {len(everything):,} images ({listed(ids, 3)})"
            for name, ids in short.items()
        )
        raise InputError(f"{told}: train the missing folds, or leave the member out")


def join_probs(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row an image, in the order of the first table, one column a member.

    With several classes the columns are pairs: (member, prob_<class>).
    """
    order = next(iter(tables.values()))["image_name"]
    probs = {
        name: table.set_index("image_name").filter(regex="^prob").reindex(order)
        for name, table in tables.items()
    }
    joined = pd.concat(probs, axis=1)
    return joined if joined.shape[1] > len(tables) else joined.droplevel(1, axis=1)


def load_tests(members: Sequence[Member], files: Sequence[str]) -> tuple[pd.DataFrame, list[Path]]:
    """Test probabilities, one row an image, one column a member, and the files they came from.

    A run's are submissions/<run>.csv; `files` are those of the other members, in their order.
    """
    given = [file for spec in files for file in _expand(Path(spec))]
    plain = [member.name for member in members if member.run is None]
    if len(given) != len(plain):
        raise InputError(
            f"{len(plain)} members are plain CSVs and {len(given)} --test files were given: "
            "give one for each, in the same order, or --no-test"
        )
    by_name = dict(zip(plain, given, strict=True))
    tables = {}
    for member in members:
        path = by_name.get(member.name) or at("submissions") / f"{member.run}.csv"
        if member.run is not None and not path.is_file():
            raise InputError(
                f"{shown(path)}: no test predictions: run python scripts/predict.py "
                f"--run {member.run}, or leave the test set out with --no-test"
            )
        tables[member.name] = read_test(path)
        by_name[member.name] = path
        if classes_in(tables[member.name].columns) != member.classes:
            told = ", ".join(f"prob_{name}" for name in member.classes) or "target, prob or pred"
            raise InputError(f"{shown(path)}: no column {told}, as {member.name} has out of fold")
        _check_scores(shown(path), tables[member.name])
    _check_rows(tables)
    return join_probs(tables), [by_name[member.name] for member in members]


def _expand(path: Path) -> list[Path]:
    return sorted(path.glob("*.csv")) if path.is_dir() else [path]
