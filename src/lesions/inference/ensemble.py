"""What a predictor is made of: the folds of a run, and how runs are blended."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError
from scipy.special import expit

from lesions.config import Config, PreprocessConfig, saved_preprocess
from lesions.data.cache import cached_images
from lesions.data.metadata import NOTHING, Blanks, build_blanks
from lesions.data.table import load_table
from lesions.data.tasks import Task
from lesions.errors import InputError, listed
from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.metrics import Floats
from lesions.files import read_json
from lesions.inference.calibration import Calibration, Person, load_calibration
from lesions.inference.checkpoint import Fold, load_folds
from lesions.paths import at, shown
from lesions.runs import RunFiles, find_run


@dataclass(frozen=True)
class Run:
    """Folds of one run; `problems` say what is missing beside them, and the next command."""

    files: RunFiles
    folds: list[Fold]
    calibration: Calibration | None
    preprocess: PreprocessConfig  # what a photograph went through before training
    problems: list[str]

    @property
    def name(self) -> str:
        return self.files.name

    @cached_property
    def config(self) -> Config:
        return self.folds[0].config

    @cached_property
    def task(self) -> Task:
        header = self.folds[0].header
        return Task(header["task"], tuple(header["classes"]) or (header["task"],))

    @cached_property
    def blanks(self) -> list[Blanks]:
        """Of each fold, the encoded metadata of somebody of whom nothing is known."""
        return [build_blanks(self.config.data, fold.header["neutral"]) for fold in self.folds]

    def people(self) -> pd.DataFrame:
        """Rows over whose metadata an answer is averaged where a field is not given.

        InputError without any: trained on rows as they are, the network takes an unknown age, sex
        or site for a sign that the lesion is benign.
        """
        if not (self.calibration and self.calibration.people):
            where = shown(self.files.folder)
            raise InputError(
                f"{where} was trained without metadata dropout and would call most lesions benign"
                " where age, sex or site is not given: give all three, or run python"
                f" scripts/calibrate.py --run {where}"
            )
        return people_table(self.calibration.people)

    def load_data(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Table and photographs, by row, of the run's data set; InputError if it has changed."""
        dataset, size = self.config.dataset, self.config.data.image_size
        table, facts = load_table(dataset)
        self.require_same_data(facts)
        return table, cached_images(dataset, size, table)

    def require_same_data(self, facts: dict) -> None:
        """InputError if the prepared data set (its table's `facts`) is not that of the training."""
        for name, own, given in (
            ("folds", self.folds[0].header["fold_hash"], facts["fold_hash"]),
            ("preprocess", self.preprocess, saved_preprocess(facts["config"], "table.json")),
        ):
            if own != given:
                raise InputError(
                    f"{shown(self.files.folder)} was trained with {name} {own}, data set"
                    f" {self.config.dataset} now has {given}: train again, or prepare it as it was"
                )


def people_table(people: Sequence[Person]) -> pd.DataFrame:
    """Table rows of these people, without a photograph."""
    return pd.DataFrame([NOTHING | person.model_dump() for person in people])


def blended(
    scale: str, weights: Sequence[float], probs: Sequence[Floats], quantiles: Sequence[list[float]]
) -> Floats:
    """One (..., C) of the runs'. A rank is a place among a run's out-of-fold scores."""
    matrix = np.stack(probs)
    if scale == "prob" or len(probs) == 1:
        return np.tensordot(weights, matrix, 1)
    if scale == "logit":
        mean = expit(np.tensordot(weights, clipped_logit(matrix), 1))
        return mean / mean.sum(axis=-1, keepdims=True) if mean.shape[-1] > 1 else mean
    places = [np.linspace(0, 1, len(known)) for known in quantiles]
    return np.tensordot(weights, np.stack(list(map(np.interp, matrix, quantiles, places))), 1)


def load_run(spec: str | Path | RunFiles | None, folds: Sequence[int] | None = None) -> Run:
    """The run that `spec` means with all its trained folds, or those asked for."""
    files = spec if isinstance(spec, RunFiles) else find_run(spec, takes=("run", "weights"))
    if folds is not None:
        files = replace(files, folds=tuple(folds))
    loaded = load_folds(files)
    calibration, problem = load_calibration(files)
    header, where = loaded[0].header, shown(files.folder)
    own = (header["task"], max(2, len(header["classes"])))
    if calibration and (calibration.task, len(calibration.shifts)) != own:
        raise InputError(
            f"{where}/calibration.json is for task {calibration.task}, the weights for {own[0]}:"
            f" run python scripts/calibrate.py --run {where}"
        )
    preprocess, doubt = _preprocess(header, calibration, where)
    problems = [text for text in (problem, doubt) if text]
    if calibration and header["config"]["data"]["metadata"] != "none" and not calibration.given:
        problems.append(
            f"{where}: calibration.json is of photographs with age, sex and site alone: where one"
            " is not given, its threshold may not fit: run python scripts/calibrate.py --run"
            f" {where}"
        )
    return Run(files, loaded, calibration, preprocess, problems)


def _preprocess(
    header: dict, calibration: Calibration | None, where: str
) -> tuple[PreprocessConfig, str | None]:
    """The checkpoint's own preprocessing; of older ones the next best, and a warning."""
    if "preprocess" in header:
        return saved_preprocess(header, where), None
    facts = at("input/prepared", header["config"]["dataset"], "table.json")
    if calibration and calibration.preprocess:
        found, source = calibration.preprocess, "calibration.json's is taken"
    elif facts.exists():
        config = read_json(facts, ["config"])["config"]
        found, source = saved_preprocess(config, facts), f"that of {shown(facts)} is taken"
    else:
        found, source = PreprocessConfig(), "none is assumed"
    return found, (
        f"{where}: its weights are of an older version and do not say how photographs were"
        f" preprocessed: {source}"
    )


class Shares(BaseModel):
    """What blend.json says of its members, besides what was measured of them."""

    members: list[str]
    weights: dict[str, float]
    scale: Literal["prob", "logit", "rank"]
    power: float = Field(1.0, ge=1, le=1)  # earlier versions had others


def read_shares(path: Path) -> tuple[str, dict[str, float]]:
    """A blend.json's scale, and its members with a weight, and it; InputError if it is none."""
    try:
        found = Shares.model_validate(read_json(path))
    except ValidationError as error:
        wrong = listed(".".join(map(str, each["loc"])) for each in error.errors())
        raise InputError(
            f"{shown(path)}: is it a blend.json of this version? Wrong are {wrong or 'all keys'}:"
            " run scripts/blend.py again"
        ) from error
    shares = np.array([found.weights.get(name, np.nan) for name in found.members])
    if not ((shares >= 0).all() and abs(shares.sum() - 1) < 1e-3):  # of NaN neither is true
        raise InputError(
            f"{shown(path)}: weights {found.weights} are not shares of its members that sum to"
            " 1: run scripts/blend.py again"
        )
    used = {name: found.weights[name] for name in found.members if found.weights[name]}
    return found.scale, used
