"""Make calibration.json: training does it when a run's last fold is done, or calibrate.py."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import Config, read_yaml, saved_config, saved_preprocess
from lesions.data.cache import cached_images
from lesions.data.columns import PLACES, SITES
from lesions.data.metadata import GIVEN, build_blanks, encode_given, encode_metadata
from lesions.data.table import load_table
from lesions.data.tasks import Task
from lesions.errors import InputError
from lesions.evaluation.calibration import shift_prior
from lesions.evaluation.metrics import Floats
from lesions.files import read_csv, read_json, sha256, write_csv, write_json
from lesions.inference import calibration
from lesions.inference.accelerator import build_accelerator
from lesions.inference.calibration import Calibration, Person
from lesions.inference.checkpoint import load_folds
from lesions.inference.ensemble import blended, people_table, read_shares
from lesions.inference.predict import predict
from lesions.inference.unusual import fit_familiar
from lesions.oof import Oof, load_oof, table_rows
from lesions.paths import shown
from lesions.runs import RunFiles, find_run

PEOPLE = 64  # training rows over whose metadata an answer is averaged
LESS = [state for state in GIVEN if state != "all"]


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
    found = calibration.fit_calibration(oof, rule)
    found.weights = {path.name: sha256(path) for path in calibration.weights_of(files)}
    problem = None
    try:
        if files.blend:
            given = _blend_given(files.blend, oof)
        else:
            config = saved_config(read_yaml(files.folder / "config.yaml"), files.folder)
            found.people = _people(config, oof.table)
            given = given_probs(files, oof, config)
        for state, probs in given.items():
            found.given[state] = calibration.fit_calibration(replace(oof, probs=probs), rule)
        if not files.blend:
            folds = load_folds(files)
            table, facts = load_table(config.dataset)
            found.familiar, found.false_alarms = fit_familiar(folds, table, rows)
            if "preprocess" not in folds[0].header:
                found.preprocess = saved_preprocess(facts["config"], "table.json")
    except InputError as error:
        problem = str(error)
    if prevalence is not None:
        shares = found.positives / found.rows, prevalence
        for fit in (found, *found.given.values()):
            fit.shifts = shift_prior(fit, oof.task.malignant, *shares).shifts
        found.prevalence = prevalence
    path = calibration.calibration_path(files)
    write_json(path, found.model_dump())
    return path, found, problem


def given_path(folder: Path, fold: int) -> Path:
    """Where the out-of-fold predictions without some or all metadata lie, beside fold<k>.csv."""
    return folder / f"given{fold}.csv"


def write_given(
    folder: Path, fold: int, task: Task, names: pd.Series, probs: Mapping[str, np.ndarray]
) -> str:
    """Write given<k>.csv: image_name, given, and the columns of the probabilities; its SHA-256."""
    parts = [
        task.as_frame(found).assign(image_name=names.to_numpy(), given=given)
        for given, found in probs.items()
    ]
    path = given_path(folder, fold)
    write_csv(path, pd.concat(parts)[["image_name", "given", *task.columns]])
    return sha256(path)


def given_probs(files: RunFiles, own: Oof, config: Config) -> dict[str, Floats]:
    """A run's out-of-fold probabilities (N, C) by state, without some and without all metadata.

    {} of a run without metadata. A given<k>.csv that is missing or has changed is made again, for
    which InputError says what is missing.
    """
    if config.data.metadata == "none":
        return {}
    paths = {fold: given_path(files.folder, fold) for fold in files.numbers(".csv")}
    lacking = tuple(
        fold for fold, path in paths.items()
        if not path.exists() or files.hashes(fold).get("given") not in (None, sha256(path))
    )  # fmt: skip
    if lacking:
        _predict_given(replace(files, folds=lacking), own)
    columns = ["image_name", "given", *own.task.columns]
    table = pd.concat([read_csv(path, columns, text=columns[:2]) for path in paths.values()])
    found = {}
    for state in LESS:
        rows = table[table["given"] == state].drop_duplicates("image_name").set_index("image_name")
        probs = rows[own.task.columns].reindex(own.names).to_numpy(np.float64)
        if not ((probs >= 0) & (probs <= 1)).all():
            raise InputError(
                f"{shown(files.folder)}/given<k>.csv: lack probabilities of some images with"
                f" {state} given: delete them, then run python scripts/calibrate.py again"
            )
        found[state] = probs
    return found


def _predict_given(files: RunFiles, own: Oof) -> None:
    """Write given<k>.csv of the folds of `files`; InputError where photographs are missing."""
    folds = load_folds(files)
    config = folds[0].config
    people = _people(config, own.table)
    table, facts = load_table(config.dataset)
    now = saved_preprocess(facts["config"], "table.json").model_dump()
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
        rows = own.table[own.table["fold"] == fold.number]
        given = encode_given(table, kind, neutral)
        known = {state: given[state][None] for state in LESS}
        if people:
            encoded = encode_metadata(people_table(people), kind, neutral)
            blanks = build_blanks(config.data, neutral)
            known = {state: blanks.filled(given[state], encoded) for state in LESS}
        found = predict(
            fold.model.to(accelerator.device), images, rows["row"].to_numpy(), known,
            config.predict, accelerator, config.predict.views, f"{fold.title}, less given",
        )  # fmt: skip
        digest = write_given(files.folder, fold.number, own.task, rows["image_name"], found)
        written = read_json(files.file(fold.number, ".json"))
        if "sha256" in written:
            written["sha256"]["given"] = digest
            write_json(files.file(fold.number, ".json"), written)


def _blend_given(path: Path, oof: Oof) -> dict[str, Floats]:
    """What `given_probs` returns, of a blend; members without metadata answer as ever."""
    scale, weights = read_shares(path)
    parts, fits = [], []
    for name in weights:
        files = find_run(name, takes=("run",))
        own, (known, problem) = load_oof(files), calibration.load_calibration(files)
        config = saved_config(read_yaml(files.folder / "config.yaml"), files.folder)
        if scale == "rank" and known is None:
            raise InputError(str(problem))
        given = given_probs(files, own, config) or dict.fromkeys(LESS, own.probs)
        places = table_rows(own.table, oof.names, shown(path), f"the rows of {name}")
        parts.append({state: probs[places] for state, probs in given.items()})
        fits.append(known)
    return {
        state: blended(
            scale, [*weights.values()], [part[state] for part in parts],
            [known.of(state).quantiles for known in fits if known],
        )
        for state in LESS
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
