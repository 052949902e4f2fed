"""Make calibration.json: training does it when a run's last fold is done, or calibrate.py."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import Config, read_yaml, saved_config
from lesions.data.cache import cached_images
from lesions.data.columns import PLACES, SITES
from lesions.data.loading import LesionDataset
from lesions.data.metadata import GIVEN, build_blanks, encode_given, encode_metadata
from lesions.data.table import load_table
from lesions.data.tasks import Task
from lesions.errors import InputError
from lesions.evaluation.calibration import Scaling, shift_prior
from lesions.evaluation.metrics import Floats
from lesions.files import read_csv, read_json, sha256, write_csv, write_json
from lesions.inference.accelerator import build_accelerator
from lesions.inference.calibration import (
    Calibration,
    Fit,
    Person,
    calibration_path,
    fit_calibration,
    load_calibration,
    weights_of,
)
from lesions.inference.checkpoint import load_folds
from lesions.inference.ensemble import blended, people_table, preprocess_of, read_shares
from lesions.inference.predict import predict
from lesions.inference.unusual import fit_familiar
from lesions.oof import Oof, load_oof, table_rows
from lesions.paths import shown
from lesions.runs import RunFiles, find_run

PEOPLE = 64  # training rows over whose metadata an answer is averaged


def calibrate_run(
    spec: str | Path, rule: str = "recall", rows: int = 1000, prevalence: float | None = None
) -> tuple[Path, Calibration, str | None]:
    """Fit and write the calibration of a run or a blend.

    Returns the file, its content and, where photographs were needed and not at hand, why: `rows`
    held-out ones of each fold say what is usual. `prevalence` is the share of positives that the
    probabilities are meant for.
    """
    files = find_run(spec, takes=("run", "blend"))
    oof = load_oof(files)
    found = fit_calibration(oof, rule)
    found.weights = {path.name: sha256(path) for path in weights_of(files)}
    problem = None
    try:
        if files.blend:
            given = _blend_given(files.blend, oof)
        else:
            config = saved_config(read_yaml(files.folder / "config.yaml"), files.folder)
            found.people = _people(config, oof.table)
            given = given_probs(files, oof.task, oof.names, config, found.people)
        for state, probs in given.items():
            whole = fit_calibration(replace(oof, probs=probs), rule)
            found.given[state] = Fit(**whole.model_dump(include={*Fit.model_fields}))
        if not files.blend:
            folds = load_folds(files)
            table, facts = load_table(config.dataset)
            found.familiar, found.false_alarms = fit_familiar(folds, table, rows)
            if "preprocess" not in folds[0].header:
                found.preprocess = preprocess_of(facts)
    except InputError as error:
        problem = str(error)
    if prevalence is not None:
        shares = found.positives / found.rows, prevalence
        for fit in (found, *found.given.values()):
            scaling = Scaling(fit.temperature, fit.shifts)
            fit.shifts = shift_prior(scaling, oof.task.malignant, *shares).shifts
        found.prevalence = prevalence
    write_json(calibration_path(files), found.model_dump())
    return calibration_path(files), found, problem


def given_path(folder: Path, fold: int) -> Path:
    """Where the out-of-fold predictions without some or all metadata lie, beside fold<k>.csv."""
    return folder / f"given{fold}.csv"


def given_rows(task: Task, names: pd.Series, probs: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The content of given<k>.csv: image_name, given, and the columns of the probabilities."""
    parts = [
        task.as_frame(found).assign(image_name=names.to_numpy(), given=given)
        for given, found in probs.items()
    ]
    return pd.concat(parts)[["image_name", "given", *task.columns]]


def given_probs(
    files: RunFiles, task: Task, names: pd.Series, config: Config, people: list[Person]
) -> dict[str, Floats]:
    """Out-of-fold probabilities (N, C) of `names` by state, without some and without all metadata.

    {} of a run without metadata. A given<k>.csv that is missing or has changed is made again, for
    which InputError says what is missing.
    """
    if config.data.metadata == "none":
        return {}
    folds = files.numbers(".csv")
    lacking = tuple(fold for fold in folds if not _is_current(files, fold))
    if lacking:
        _predict_given(replace(files, folds=lacking), task, people)
    columns = ["image_name", "given", *task.columns]
    tables = [read_csv(given_path(files.folder, fold), columns, text=columns[:2]) for fold in folds]
    table = pd.concat(tables)
    found = {}
    for state in [name for name in GIVEN if name != "all"]:
        rows = table[table["given"] == state].drop_duplicates("image_name").set_index("image_name")
        probs = rows[task.columns].reindex(names).to_numpy(np.float64)
        if not ((probs >= 0) & (probs <= 1)).all():
            raise InputError(
                f"{shown(files.folder)}/given<k>.csv: lack probabilities of some images with"
                f" {state} given: delete them, then run python scripts/calibrate.py again"
            )
        found[state] = probs
    return found


def _is_current(files: RunFiles, fold: int) -> bool:
    path = given_path(files.folder, fold)
    return path.exists() and files.hashes(fold).get("given") in (None, sha256(path))


def _predict_given(files: RunFiles, task: Task, people: list[Person]) -> None:
    """Write given<k>.csv of the folds of `files`; InputError where photographs are missing."""
    folds = load_folds(files)
    config = folds[0].config
    table, facts = load_table(config.dataset)
    now = preprocess_of(facts).model_dump()
    if folds[0].header.get("preprocess", now) != now:
        raise InputError(f"{shown(files.folder)}: data set {config.dataset} was prepared again with"
                         " other preprocessing: prepare it as it was")  # fmt: skip
    images = cached_images(config.dataset, config.data.image_size, table)
    accelerator = build_accelerator(config.train.precision)
    if accelerator.num_processes > 1:  # training's main process alone is here
        raise InputError(f"{shown(files.folder)}: lacks given<k>.csv: run python"
                         f" scripts/calibrate.py --run {shown(files.folder)}")  # fmt: skip
    for fold in folds:
        kind, neutral = config.data.metadata, fold.header["neutral"]
        path = files.file(fold.number, ".csv")
        names = read_csv(path, ["image_name"], text=("image_name",))["image_name"]
        given = encode_given(table, kind, neutral)
        dataset = LesionDataset(images, given.pop("all"), np.zeros(len(table), np.float32))
        known = [metadata[None] for metadata in given.values()]
        if people:
            encoded = encode_metadata(people_table(people), kind, neutral)
            blanks = build_blanks(config.data, neutral)
            known = [blanks.filled(metadata, encoded) for metadata in given.values()]
        probs = predict(
            fold.model.to(accelerator.device), dataset, table_rows(table, names, shown(path)),
            known, config.predict, accelerator, config.predict.views, f"{fold.title}, less given",
        )  # fmt: skip
        path = given_path(files.folder, fold.number)
        write_csv(path, given_rows(task, names, dict(zip(given, probs, strict=True))))
        written = read_json(files.file(fold.number, ".json"))
        if "sha256" in written:
            written["sha256"]["given"] = sha256(path)
            write_json(files.file(fold.number, ".json"), written)


def _blend_given(path: Path, oof: Oof) -> dict[str, Floats]:
    """What `given_probs` returns, of a blend; members without metadata answer as ever."""
    facts = read_shares(path)
    parts, quantiles = [], []
    for name in facts.used:
        files = find_run(name, takes=("run",))
        own, (calibration, problem) = load_oof(files), load_calibration(files)
        config = saved_config(read_yaml(files.folder / "config.yaml"), files.folder)
        if facts.scale == "rank" and calibration is None:
            raise InputError(str(problem))
        given = given_probs(files, own.task, oof.names, config, _people(config, own.table))
        as_ever = own.probs[pd.Index(own.names).get_indexer(pd.Index(oof.names))]
        parts.append(given or dict.fromkeys([state for state in GIVEN if state != "all"], as_ever))
        quantiles.append(calibration)
    weights = [*facts.used.values()]
    return {
        state: blended(
            facts.scale, weights, [part[state] for part in parts],
            [known.of(state).quantiles for known in quantiles if known],
        )
        for state in parts[0]
    }  # fmt: skip


def _people(config: Config, table: pd.DataFrame) -> list[Person]:
    """Of a run whose training blanked nothing, rows of which all is known."""
    if config.data.metadata_dropout or config.data.metadata == "none" or "sex" not in table:
        return []
    known = table["age_approx"].notna() & (table["sex"] != "") & table["site"].isin(SITES)
    if "localization" in table:
        known &= table["localization"].isin(PLACES)
    rows = table.assign(localization=table.get("localization", ""))[known]
    drawn = np.random.default_rng(0).choice(len(rows), min(PEOPLE, len(rows)), replace=False)
    records = rows.iloc[drawn][list(Person.model_fields)].to_dict("records")
    return [Person.model_validate(record) for record in records]
