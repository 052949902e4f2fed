"""The members of a blend: out-of-fold and test predictions joined by name, or refused."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lesions.errors import InputError, listed
from lesions.evaluation.metrics import Floats
from lesions.files import read_json, sha256
from lesions.oof import Groups, Oof, load_groups, load_oof, load_test, require_none, table_rows
from lesions.paths import shown
from lesions.runs import find_run

KIND_OF_FILE = re.compile(r"(^|[ _.-])(oof|submissions?|sub|test|pred(iction)?s?)(?=[ _.-]|$)")


@dataclass(frozen=True)
class Tests:
    """Test rows of all members, by name: probabilities (K, N, C), and what they came from."""

    names: pd.Series
    probs: Floats
    files: list[Path]
    weights: dict[str, dict[str, str]]  # of each run: weights file -> sha256
    patients: np.ndarray | None = None


def load_members(specs: Sequence[str], groups: Path | None = None) -> list[Oof]:
    """The members that the command names: runs, CSV files, or folders of either kind.

    A folder with fold*.csv is one member; any other folder is one member for each CSV in it.
    """
    members: list[Oof] = []
    known = load_groups(groups) if groups else None
    for spec in specs:
        path = Path(spec)
        files = [path] if path.is_file() and path.suffix == ".csv" else sorted(path.glob("*.csv"))
        if not files or any(path.glob("fold*.csv")):
            members.append(load_oof(find_run(spec, takes=("run",)), known))
        else:
            members += [load_oof(file, known) for file in files]
    if len({member.name for member in members}) < len(members):
        members = [replace(member, name=str(member.files[0])) for member in members]
    names = pd.Series([member.name for member in members])
    if names.duplicated().any():
        raise InputError(f"given twice: {listed(names[names.duplicated()])}: name each once")
    return members


def check_members(members: Sequence[Oof]) -> None:
    """InputError where members do not answer the same question on the same rows; it names them."""
    if len(members) < 2:
        raise InputError("a blend takes two or more members")
    facts = {m.name: next(iter(m.facts.values())) for m in members if m.facts}
    found = {key: {n: fact.get(key) for n, fact in facts.items()} for key in ("task", "fold_hash")}
    found["classes"] = {m.name: ", ".join(m.task.listed) or "one score" for m in members}
    for key, values in found.items():
        if len(set(values.values())) > 1:
            told = "; ".join(f"{name}: {value}" for name, value in values.items())
            raise InputError(f"members differ in {key} ({told}): blend those that agree")
    _check_rows({member.name: (member.names, member.probs) for member in members})
    first = pd.Series(members[0].codes, members[0].names)
    for member in members[1:]:
        unequal = member.names[first.reindex(member.names).to_numpy() != member.codes]
        wrong = f"{members[0].name} and {member.name} disagree on the target"
        require_none(unequal, wrong, "they are of another task, or of other labels")


def load_tests(
    members: Sequence[Oof], given: Sequence[str], patients: Groups | None = None
) -> Tests:
    """The members' test rows: a run's are submissions/<run>.csv, `given` those of CSV members.

    Given files belong to the member of the same name, but for words such as oof and submission:
    submission_b3.csv to oof_b3.csv. InputError for predictions that are not those of the weights
    that a run has now, for rows that are out-of-fold rows, and for scores that are upside down.
    """
    paths = _pair(members, given)
    found, weights = {}, {}
    for member in members:
        path = paths[member.name]
        names, _ = found[shown(path)] = load_test(path, member.task)
        wrong = f"{shown(path)}: it has out-of-fold rows of {member.name}"
        require_none(names[names.isin(member.names)], wrong, "give predictions of the test set")
        if member.run:
            weights[member.name] = _weights_behind(path, member)
    old = [name for name, files in weights.items() if not files]
    if old:
        print(f"warning: no record of the weights behind the test predictions of {listed(old)},"
              " which an older version made", file=sys.stderr)  # fmt: skip
    _check_rows(found)
    order, _ = found[shown(paths[members[0].name])]
    stacked = [probs[pd.Index(names).get_indexer(order)] for names, probs in found.values()]
    for name, probs in list(zip(found, stacked, strict=True))[1:]:
        against = spearmanr(stacked[0].ravel(), probs.ravel(), alternative="less")
        if against.pvalue < 1e-6:
            value = f"its rank correlation with {next(iter(found))} is {against.statistic:.2f}"
            raise InputError(f"{name} is upside down: {value}: give 1 - prob of it")
    groups = None
    if patients:
        rows = table_rows(patients.table, order, "patients of test rows", patients.file)
        groups = patients.table["group"].to_numpy()[rows]
    return Tests(order, np.stack(stacked), list(paths.values()), weights, groups)


def _pair(members: Sequence[Oof], given: Sequence[str]) -> dict[str, Path]:
    """The test file of each member, by name."""
    files: list[Path] = []
    for spec in map(Path, given):
        files += sorted(spec.glob("*.csv")) if spec.is_dir() else [spec]
    plain = [member.name for member in members if member.run is None]
    owners = {_key(name): name for name in plain}
    found = {owners.get(_key(file.stem)): file for file in files}
    if len(files) != len(plain) or set(found) != set(plain):
        raise InputError(
            f"members that are CSV files: {listed(plain, 30) or 'none'}; --test"
            f" files: {listed([file.name for file in files], 30) or 'none'}: give one of the same"
            " name for each (oof_b3.csv: submission_b3.csv), or --no-test"
        )
    for member in members:
        if member.run:
            found[member.name] = path = member.test_file
            if not path.is_file():
                raise InputError(
                    f"{shown(path)}: no test predictions: run python scripts/predict.py "
                    f"--run {member.run.name}, or leave the test set out with --no-test"
                )
    return {member.name: found[member.name] for member in members}


def _key(name: str) -> str:
    return KIND_OF_FILE.sub("", Path(name).stem.lower()).strip(" _.-")


def _weights_behind(path: Path, member: Oof) -> dict[str, str]:
    """sha256 of the weights files that a run's test predictions are of; empty if not recorded."""
    record = path.with_suffix(".json")
    if not record.is_file():
        return {}
    assert member.run
    facts, again = read_json(record), f"run python scripts/predict.py --run {member.run.name}"
    if facts["sha256"] != sha256(path):
        raise InputError(f"{shown(path)} is not the file that {record.name} names: {again}")
    known = {Path(file).name: digest for file, digest in facts["weights"].items()}
    here = {file.name: sha256(file) for file in member.run.folder.glob("fold*.safetensors")}
    changed = listed(sorted(name for name in here if here[name] != known.get(name)))
    if changed:
        told = f"{changed} of {shown(member.run.folder)} changed since it was predicted"
        raise InputError(f"{shown(path)}: {told}: {again}")
    return known


def _check_rows(found: dict[str, tuple[pd.Series, Floats]]) -> None:
    """InputError unless all have the same images and scores that differ."""
    everything = pd.Series(pd.unique(pd.concat([names for names, _ in found.values()])))
    for name, (names, probs) in found.items():
        if (probs == probs[:1]).all():
            raise InputError(f"{name}: its column is constant, so it ranks nothing: leave it out")
        wrong = f"{name} lacks, of the {len(everything):,} of all members"
        lacking = everything[~everything.isin(names)]
        require_none(lacking, wrong, "train the missing folds, or leave the member out")
