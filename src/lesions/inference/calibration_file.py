"""oof/<run>/calibration.json: what a run knows about its own answers, made by calibrate.py."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lesions.config import PreprocessConfig
from lesions.errors import InputError
from lesions.files import read_json
from lesions.inference.unusual import Familiar
from lesions.paths import shown

NAME = "calibration.json"


class Cut(BaseModel):
    """The run's decision: positive is a score of at least `value`.

    The rates are of rows whose fold had no say in the threshold that was applied to it.
    """

    rule: str
    value: float
    sensitivity: float
    specificity: float


class FalseAlarms(BaseModel):
    """Shares of `rows` held-out training rows that are called unlike the training photographs."""

    rows: int
    size: float
    colour: float
    features: float
    any: float


class CalibrationFile(BaseModel):
    """The file's content; score means P(positive), of many classes P(any malignant one)."""

    model_config = ConfigDict(extra="forbid")

    run: str
    task: str
    rows: int
    positives: int
    weights: dict[str, str]  # file: SHA-256 of the weights it speaks for
    preprocess: PreprocessConfig | None = None
    temperature: float
    shifts: list[float]  # added to each class's log probability after the temperature
    log_loss: tuple[float, float]  # of the out-of-fold rows, as they are and corrected
    calibration_error: tuple[float, float]  # of the score, the same
    threshold: Cut
    quantiles: list[float]  # of the out-of-fold scores, evenly from the least to the greatest
    familiar: Familiar | None = None
    false_alarms: FalseAlarms | None = None


def load_calibration(path: Path) -> CalibrationFile | None:
    """The file at `path`; None if there is none, InputError if it is damaged."""
    if not path.exists():
        return None
    try:
        return CalibrationFile.model_validate(read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise InputError(
            f"{shown(path)}: {key}: {problem['msg']}: make it again with scripts/calibrate.py"
        ) from error
