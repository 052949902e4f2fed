"""A run's calibration: true probabilities, a threshold, and what an ordinary photograph is.

It is fitted on the out-of-fold predictions when a run's last fold is done, or by calibrate.py, and
stored as oof/<run>/calibration.json (of a blend <name>_calibration.json). Reports, predict.py,
serve.py and export.py all read it here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lesions.config import PreprocessConfig
from lesions.data.table import load_table
from lesions.data.tasks import Task
from lesions.errors import InputError, listed
from lesions.evaluation.calibration import (
    Scaling,
    across_parts,
    calibration_error,
    check_fit,
    fit_scaling,
    shift_prior,
)
from lesions.evaluation.metrics import Floats, log_loss
from lesions.evaluation.thresholds import RULES, Threshold
from lesions.files import read_json, sha256, write_json
from lesions.inference.checkpoint import load_folds
from lesions.inference.unusual import FalseAlarms, Familiar, Finite, fit_familiar
from lesions.oof import Oof, load_oof
from lesions.paths import shown
from lesions.runs import RunFiles, find_run

STEPS = 401  # quantiles kept of the out-of-fold scores
PARTS = 5  # groups of rows that take turns where there are no folds to take them

Share = Annotated[float, Field(ge=0, le=1)]


class Cut(BaseModel):
    """The run's decision: positive is a score of at least `value`.

    The rates are cross-fitted: each row is judged by the threshold of the other folds.
    """

    rule: str
    value: Finite
    sensitivity: Share
    specificity: Share


class Calibration(BaseModel):
    """The file's content; score means P(positive), of several classes P(any malignant one)."""

    model_config = ConfigDict(extra="forbid")

    run: str
    task: str
    rows: int
    positives: int
    weights: dict[str, str]  # file: SHA-256 of the weights that it belongs to
    preprocess: PreprocessConfig | None = None  # of checkpoints whose header does not say it
    temperature: float = Field(gt=0, allow_inf_nan=False)
    shifts: list[Finite]  # added to each class's log probability after the temperature
    prevalence: float | None = Field(None, gt=0, lt=1)  # None: that of the out-of-fold rows
    cross_fitted: str = "fold"  # fold or group: what the estimates below are cross-fitted by
    log_loss: tuple[Finite, Finite]  # of the out-of-fold rows, before and after
    calibration_error: tuple[Share, Share]  # of the score, before and after
    threshold: Cut
    quantiles: list[Share] = Field(min_length=2)  # of the out-of-fold scores, evenly spaced
    familiar: Familiar | None = None
    false_alarms: FalseAlarms | None = None

    @field_validator("quantiles")
    @classmethod
    def _sorted(cls, quantiles: list[float]) -> list[float]:
        if (np.diff(quantiles) < 0).any():
            raise ValueError("must not fall")
        return quantiles

    def apply(self, probs: Floats) -> Floats:
        """Calibrated probabilities in the shape of `probs`, (..., C)."""
        return Scaling(self.temperature, self.shifts).apply(probs)

    def percentile(self, score: float) -> float:
        """The share of the out-of-fold scores below `score`, in percent; ties count half."""
        places = [np.searchsorted(self.quantiles, score, side) for side in ("left", "right")]
        return float(100 * (np.mean(places) / len(self.quantiles)))


class CrossFit(NamedTuple):
    """Calibrated probabilities (N, C) and decisions (N,) of rows that no fit has seen."""

    probs: Floats
    flagged: np.ndarray
    by: str  # fold, or group where there is one fold or a blend has used them all


def load_calibration(files: RunFiles) -> tuple[Calibration | None, str | None]:
    """The run's or the blend's calibration; or None, and what is wrong and the next command.

    InputError for a damaged file.
    """
    path, weights = _place(files), _weights(files)
    command = f"run python scripts/calibrate.py --run {shown(files.blend or files.folder)}"
    if not path.exists():
        lacks = "no calibrated probability, decision, percentile or warning of unusual photographs"
        return None, f"{shown(path)} is missing, so there is {lacks}: {command}"
    try:
        found = Calibration.model_validate(read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise InputError(f"{shown(path)}: {key}: {problem['msg']}: {command}") from error
    changed = [file.name for file in weights if found.weights.get(file.name) != sha256(file)]
    if changed:
        return None, f"{shown(path)} belongs to other weights than {listed(changed)}: {command}"
    return found, None


def calibrate_run(
    spec: str | Path, rule: str = "recall", rows: int = 500, prevalence: float | None = None
) -> tuple[Path, Calibration, str | None]:
    """Fit and write the calibration of a run or a blend.

    Returns the file, its content and, where training photographs were not at hand, why not: of
    each fold `rows` that it was trained on say what is usual, and as many others what is not.
    `prevalence` is the share of positives that the probabilities are meant for.
    """
    files = find_run(spec, takes=("run", "blend"))
    oof = load_oof(files)
    found = fit_calibration(oof, rule)
    changes: dict = {"weights": {path.name: sha256(path) for path in _weights(files)}}
    if prevalence is not None:
        fitted, trained = Scaling(found.temperature, found.shifts), found.positives / found.rows
        shifted = shift_prior(fitted, oof.task.malignant, trained, prevalence)
        changes |= {"shifts": shifted.shifts, "prevalence": prevalence}
    problem = None
    if not files.blend:
        try:
            changes |= _of_photographs(files, rows)
        except InputError as error:
            problem = str(error)
    found = found.model_copy(update=changes)
    write_json(_place(files), found.model_dump())
    return _place(files), found, problem


def given_path(folder: Path, fold: int) -> Path:
    """Where the out-of-fold predictions without some or all metadata lie, beside fold<k>.csv."""
    return folder / f"given{fold}.csv"


def given_rows(task: Task, names: pd.Series, probs: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The content of given<k>.csv: image_name, given, and the columns of the probabilities."""
    parts = [task.as_frame(found).assign(image_name=names.to_numpy(), given=given)
             for given, found in probs.items()]  # fmt: skip
    return pd.concat(parts)[["image_name", "given", *task.columns]]


def cross_fit(oof: Oof, rule: Callable[[ArrayLike, ArrayLike], Threshold]) -> CrossFit:
    """Calibrate and decide each part of the rows by what the other parts say.

    The parts are the folds. Of one fold alone, or of a blend, whose weights come from all folds,
    they are groups of rows. InputError where the rows are too few or all alike.
    """
    parts, by = _parts(oof)
    target = oof.positive.astype(int)
    check_fit(target, oof.score)
    flagged = across_parts(rule, target, oof.score, parts) == 1
    return CrossFit(across_parts(fit_scaling, oof.codes, oof.probs, parts), flagged, by)


def fit_calibration(oof: Oof, rule: str) -> Calibration:
    """The calibration of out-of-fold predictions, without weights and photographs."""
    target, score = oof.positive.astype(int), oof.score
    crossed, cut = cross_fit(oof, RULES[rule]), RULES[rule](target, score)
    temperature, shifts = fit_scaling(oof.codes, oof.probs)
    return Calibration(
        run=oof.name,
        task=oof.task.name,
        rows=len(target),
        positives=int(target.sum()),
        weights={},
        temperature=temperature,
        shifts=shifts,
        cross_fitted=crossed.by,
        log_loss=(log_loss(oof.codes, oof.probs), log_loss(oof.codes, crossed.probs)),
        calibration_error=(
            calibration_error(target, score),
            calibration_error(target, oof.task.score(crossed.probs)),
        ),
        threshold=Cut(
            rule=cut.rule,
            value=cut.value,
            sensitivity=float(crossed.flagged[target == 1].mean()),
            specificity=float(1 - crossed.flagged[target == 0].mean()),
        ),
        quantiles=np.quantile(score, np.linspace(0, 1, STEPS)).tolist(),
    )


def _of_photographs(files: RunFiles, rows: int) -> dict:
    """The parts `preprocess`, `familiar` and `false_alarms` of the file."""
    folds = load_folds(files)
    table, facts = load_table(folds[0].config.dataset)
    familiar, alarms = fit_familiar(folds, table, rows)
    found: dict = {"familiar": familiar, "false_alarms": alarms}
    if "preprocess" not in folds[0].header:
        found["preprocess"] = PreprocessConfig(**facts["config"].get("preprocess", {}))
    return found


def _parts(oof: Oof) -> tuple[np.ndarray, str]:
    folds = oof.table["fold"].to_numpy()
    if oof.blend is None and len(np.unique(folds)) > 1:
        return folds, "fold"
    # Groups with a positive row are dealt out first, so that every part gets some.
    positive = oof.table.assign(positive=oof.positive).groupby("group")["positive"].max()
    if len(positive) < 2:
        raise InputError("cannot calibrate: all rows are of one fold and one group")
    order = positive.sort_values(ascending=False, kind="stable").index
    return order.get_indexer(pd.Index(oof.table["group"])) % PARTS, "group"


def _place(files: RunFiles) -> Path:
    return files.folder / (f"{files.name}_calibration.json" if files.blend else "calibration.json")


def _weights(files: RunFiles) -> list[Path]:
    """The files whose content decides the predictions: weights, or the blend's own."""
    if files.blend:
        return [files.blend]
    return [files.file(fold, ".safetensors") for fold in files.numbers(".safetensors")]
