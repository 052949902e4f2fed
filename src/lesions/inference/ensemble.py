"""What a predictor is made of: folds of a run from their self-describing files, or a blend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from torch import Tensor

from lesions.config import Config, PreprocessConfig
from lesions.data.tasks import MALIGNANT
from lesions.errors import InputError, listed
from lesions.evaluation.calibration import clipped_logit
from lesions.evaluation.metrics import Floats
from lesions.files import read_json, sha256
from lesions.inference.calibration_file import NAME, CalibrationFile, load_calibration
from lesions.inference.checkpoint import load_model
from lesions.models.classifier import LesionClassifier
from lesions.paths import at, shown


class Fold(NamedTuple):
    """One trained fold in evaluation mode on the CPU."""

    title: str  # run and number
    number: int
    model: LesionClassifier
    header: dict

    def forward(self, images: Tensor, metadata: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and the features (B, F) that entered the head."""
        seen: list[Tensor] = []
        hook = self.model.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            return self.model(images, metadata), seen[0]
        finally:
            hook.remove()


@dataclass(frozen=True)
class Run:
    """Folds of one run; `problem` says why there is no calibration."""

    name: str
    folder: Path
    folds: list[Fold]
    calibration: CalibrationFile | None
    problem: str | None

    @property
    def config(self) -> Config:
        return Config.model_validate(self.folds[0].header["config"])

    @property
    def task(self) -> str:
        return self.folds[0].header["task"]

    @property
    def classes(self) -> list[str]:
        return self.folds[0].header["classes"]

    @property
    def preprocess(self) -> PreprocessConfig:
        known = self.calibration and self.calibration.preprocess
        return known or PreprocessConfig()


@dataclass(frozen=True)
class Mix:
    """How runs become one answer, and what is known about that answer.

    `weights` are in the order of the runs; scale and power are those of blending/methods.py.
    """

    name: str
    weights: tuple[float, ...]
    scale: str
    power: float
    calibration: CalibrationFile | None
    problem: str

    def blended(self, probs: Sequence[Floats], runs: Sequence[Run]) -> Floats:
        """One (K,) of the runs' (K,). Ranks are places among each run's out-of-fold scores."""
        matrix, weights = np.stack(probs), np.asarray(self.weights)
        if self.scale == "prob" or len(runs) == 1:
            return weights @ matrix
        if self.scale == "logit":
            return expit(weights @ clipped_logit(matrix))
        ranks = np.stack([_rank(run, p) for run, p in zip(runs, matrix, strict=True)])
        return (weights @ ranks**self.power) ** (1 / self.power)


def load_ensemble(path: str | Path, folds: Sequence[int] | None) -> tuple[list[Run], Mix]:
    """The runs of `path`, all for one task, and how they are mixed; see `Predictor.load`."""
    given = Path(path)
    found = given if given.exists() else at("oof") / path
    if found.suffix == ".json":
        return _load_blend(found)
    if found.suffix == ".safetensors":
        folds, found = [_number(found)], found.parent
    run = load_run(found, folds)
    problem = run.problem or ""
    return [run], Mix(run.name, (1.0,), "prob", 1.0, run.calibration, problem)


def load_run(folder: Path, folds: Sequence[int] | None = None) -> Run:
    """The run in `folder`: every fold that is there, or those asked for."""
    files = sorted(folder.glob("fold*.safetensors"), key=_number)
    if folds is not None:
        files = [folder / f"fold{fold}.safetensors" for fold in folds]
    if not files:
        raise InputError(
            f"{shown(folder)}: no fold<k>.safetensors there: name a run below oof/, its folder, or"
            " a blend.json"
        )
    loaded = []
    for file in files:
        model, header = load_model(file)
        if header["fold"] != _number(file):
            raise InputError(f"{shown(file)}: holds fold {header['fold']}: give it its name back")
        title = f"{header['run']} fold {header['fold']}"
        loaded.append(Fold(title, header["fold"], model.float(), header))
    for key in ("task", "classes", "run"):
        values = {str(fold.header[key]) for fold in loaded}
        if len(values) > 1:
            raise InputError(f"{shown(folder)}: its folds differ in {key}: {listed(values)}")
    name = loaded[0].header["run"]
    calibration, problem = _calibration(folder / NAME, name, files)
    return Run(name, folder, loaded, calibration, problem)


def score_of(probs: np.ndarray, classes: Sequence[str]) -> Floats:
    """P(positive) of probabilities (..., K): of many classes, that of any malignant one."""
    if not classes:
        return np.asarray(probs, dtype=np.float64)[..., 0]
    chosen = np.isin(classes, MALIGNANT)
    return np.asarray(probs, dtype=np.float64)[..., chosen].sum(axis=-1)


def _load_blend(path: Path) -> tuple[list[Run], Mix]:
    facts = read_json(path)
    missing = [key for key in ("members", "weights", "scale", "power") if key not in facts]
    if missing:
        raise InputError(f"{shown(path)}: no {listed(missing)}: is it a blend.json?")
    used = [name for name in facts["members"] if facts["weights"][name]]
    runs = [load_run(at("oof") / name) for name in used]
    tasks = {run.name: run.task for run in runs}
    if len(set(tasks.values())) > 1 or any(run.classes for run in runs):
        raise InputError(f"{shown(path)}: its runs do not answer one yes-or-no question: {tasks}")
    weights = tuple(facts["weights"][name] for name in used)
    beside = path.with_name(f"{path.stem}_{NAME}")
    calibration, problem = _calibration(beside, shown(path), [path])
    mix = Mix(path.stem, weights, facts["scale"], facts["power"], calibration, problem or "")
    if facts["scale"] == "rank" and not all(run.calibration for run in runs):
        raise InputError(
            f"{shown(path)} blends ranks, which one photograph has only among its run's"
            f" out-of-fold scores: {listed(run.problem for run in runs if run.problem)}"
        )
    return runs, mix


def _calibration(
    path: Path, run: str, files: Sequence[Path]
) -> tuple[CalibrationFile | None, str | None]:
    command = f"run python scripts/calibrate.py --run {run}"
    lacks = "no calibrated probability, decision, percentile or warning of unusual photographs"
    found = load_calibration(path)
    if found is None:
        return None, f"{shown(path)} is missing, so there is {lacks}: {command}"
    changed = [file.name for file in files if found.weights.get(file.name) != sha256(file)]
    if changed:
        return None, f"{shown(path)} is of other weights than {listed(changed)}: {command}"
    return found, None


def _rank(run: Run, probs: Floats) -> Floats:
    assert run.calibration  # load_blend has made sure
    quantiles = run.calibration.quantiles
    return np.interp(probs, quantiles, np.linspace(0, 1, len(quantiles)))


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("fold")
    if not digits.isdigit():
        raise InputError(f"{shown(path)}: a fold's file is called fold<k>.safetensors")
    return int(digits)
