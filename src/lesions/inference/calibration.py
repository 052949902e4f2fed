"""A run's calibration: true probabilities, a threshold, and what an ordinary photograph is.

It is fitted on the out-of-fold predictions, for each of three states of the metadata (all given,
age and sex, nothing), and stored as oof/<run>/calibration.json (of a blend
<name>_calibration.json). Reports, predict.py, serve.py and export.py all read it here;
calibrate.py beside this file writes it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field, ValidationError, field_validator

from lesions.config import PreprocessConfig
from lesions.errors import InputError, listed
from lesions.evaluation.calibration import (
    Finite,
    Scaling,
    across_parts,
    calibration_error,
    check_fit,
    fit_scaling,
)
from lesions.evaluation.conformal import Sets, age_bands, fit_sets
from lesions.evaluation.metrics import Floats, log_loss
from lesions.evaluation.thresholds import RULES, Threshold
from lesions.files import read_json, sha256
from lesions.inference.unusual import FalseAlarms, Familiar
from lesions.oof import Oof
from lesions.paths import shown
from lesions.runs import RunFiles

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


class Fit(Scaling, extra="forbid"):
    """What one state of the metadata says; score means P(positive), P(any malignant class)."""

    log_loss: tuple[Finite, Finite]  # of the out-of-fold rows, before and after
    calibration_error: tuple[Share, Share]  # of the score, before and after
    threshold: Cut
    quantiles: list[Share] = Field(min_length=2)  # of the out-of-fold scores, evenly spaced
    sets: Sets | None = None  # None in files of older versions

    @field_validator("quantiles")
    @classmethod
    def _sorted(cls, quantiles: list[float]) -> list[float]:
        if (np.diff(quantiles) < 0).any():
            raise ValueError("must not fall")
        return quantiles

    def percentile(self, score: float) -> float:
        """The share of the out-of-fold scores below `score`, in percent; ties count half."""
        places = [np.searchsorted(self.quantiles, score, side) for side in ("left", "right")]
        return float(100 * (np.mean(places) / len(self.quantiles)))


class Person(BaseModel, extra="forbid"):
    """Metadata of a training row, over which runs that know no unknown ones are averaged."""

    age_approx: Finite
    sex: str
    site: str
    localization: str


class Calibration(Fit):
    """The file's content: the fit of rows as they are, and those of rows with less metadata."""

    run: str
    task: str
    rows: int
    positives: int
    weights: dict[str, str]  # file: SHA-256 of the weights that it belongs to
    preprocess: PreprocessConfig | None = None  # of checkpoints whose header does not say it
    prevalence: float | None = Field(None, gt=0, lt=1)  # None: that of the out-of-fold rows
    cross_fitted: str = "fold"  # fold or group: what the estimates are cross-fitted by
    given: dict[str, Fit] = Field({})  # by state, as in data/metadata.py; older versions had none
    people: list[Person] = Field([])
    familiar: Familiar | None = None
    false_alarms: FalseAlarms | None = None

    def of(self, state: str) -> Fit:
        """The fit for a photograph of which so much is given."""
        return self.given.get(state, self)


class CrossFit(NamedTuple):
    """Calibrated probabilities (N, C) and decisions (N,) of rows that no fit has seen."""

    probs: Floats
    flagged: np.ndarray
    by: str  # fold, or group where there is one fold or a blend has used them all


def load_calibration(files: RunFiles) -> tuple[Calibration | None, str | None]:
    """The run's or the blend's calibration; or None, and what is wrong and the next command.

    InputError for a damaged file.
    """
    path, weights = calibration_path(files), weights_of(files)
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


def cross_sets(oof: Oof) -> tuple[np.ndarray, np.ndarray]:
    """Which classes are in the set of each row by the other parts' cuts, bool (N, C or 2).

    And which rows have a set, (N,).
    """
    parts, ages = _parts(oof)[0], _ages(oof)
    held, known = np.empty((len(parts), max(2, len(oof.task.classes))), bool), parts == parts
    for part in np.unique(parts):
        own = parts == part
        sets = _sets(oof.take(~own))
        held[own] = sets.apply(oof.probs[own], ages[own])
        known[own] = np.array([not why for why in sets.problems])[age_bands(ages[own])]
    return held, known


def _ages(oof: Oof) -> np.ndarray:
    ages = oof.table.get("age_approx", np.nan)  # a foreign file has none
    return np.broadcast_to(np.asarray(ages, dtype=float), len(oof.table))


def _sets(oof: Oof) -> Sets:
    task = oof.task
    return fit_sets(oof.codes, oof.probs, task.classes, task.malignant, _ages(oof), oof.groups)


def fit_calibration(oof: Oof, rule: str) -> Calibration:
    """The calibration of out-of-fold predictions, without weights and photographs."""
    target, score = oof.positive.astype(int), oof.score
    crossed, cut = cross_fit(oof, RULES[rule]), RULES[rule](target, score)
    sets, (held, known) = _sets(oof), cross_sets(oof)
    if (found := known & oof.positive).any():
        sets.malignant_covered = float(held[found, oof.codes[found]].mean())
        sets.size = float(held[known].sum(axis=1).mean())
    return Calibration(
        **dict(fit_scaling(oof.codes, oof.probs)),
        run=oof.name,
        task=oof.task.name,
        rows=len(target),
        positives=int(target.sum()),
        weights={},
        cross_fitted=crossed.by,
        log_loss=(log_loss(oof.codes, oof.probs), log_loss(oof.codes, crossed.probs)),
        calibration_error=(
            calibration_error(target, score),
            calibration_error(target, oof.task.score(crossed.probs)),
        ),
        threshold=Cut(
            **cut._asdict(),
            sensitivity=float(crossed.flagged[target == 1].mean()),
            specificity=float(1 - crossed.flagged[target == 0].mean()),
        ),
        quantiles=np.quantile(score, np.linspace(0, 1, STEPS)).tolist(),
        sets=sets,
    )


def calibration_path(files: RunFiles) -> Path:
    return files.folder / (f"{files.name}_calibration.json" if files.blend else "calibration.json")


def weights_of(files: RunFiles) -> list[Path]:
    """The files whose content decides the predictions: weights, or the blend's own."""
    if files.blend:
        return [files.blend]
    return [files.file(fold, ".safetensors") for fold in files.numbers(".safetensors")]


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
