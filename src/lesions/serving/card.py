"""GET /api/model: what is answering."""

from pydantic import BaseModel, Field

from lesions.inference.calibration_file import Cut, FalseAlarms
from lesions.inference.ensemble import Run
from lesions.serving.limits import FORMATS
from lesions.serving.service import Service
from lesions.serving.wording import NOTICE


class Member(BaseModel):
    """One run of what is served."""

    run: str
    weight: float
    backbone: str
    image_size: int
    metadata: str
    views: int
    folds: list[int]
    dataset: str
    table_hash: str
    versions: dict[str, str]


class ModelCard(BaseModel):
    """The model, what was measured of it, and what the server accepts."""

    name: str
    task: str
    classes: list[str]
    members: list[Member]
    threshold: Cut | None = Field(description="measured on folds that did not choose it")
    calibration_error: tuple[float, float] | None = Field(description="before and after")
    false_alarms: FalseAlarms | None = Field(description="of the warnings, on held-out rows")
    missing: list[str]
    accepts: list[str]
    max_bytes: int
    max_pixels: int
    notice: str


def model_card(service: Service) -> ModelCard:
    """The facts of the service's runs, from their checkpoints and calibration files."""
    predictor, limits = service.predictor, service.limits
    known, first = predictor.mix.calibration, predictor.runs[0].calibration
    return ModelCard(
        name=predictor.name,
        task=predictor.task,
        classes=predictor.classes,
        members=[
            _member(run, weight)
            for run, weight in zip(predictor.runs, predictor.mix.weights, strict=True)
        ],
        threshold=known and known.threshold,
        calibration_error=known and known.calibration_error,
        false_alarms=first and first.false_alarms,
        missing=predictor.missing,
        accepts=sorted(FORMATS.values()),
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        notice=NOTICE,
    )


def _member(run: Run, weight: float) -> Member:
    config, header = run.config, run.folds[0].header
    return Member(
        run=run.name,
        weight=weight,
        backbone=config.model.backbone,
        image_size=config.data.image_size,
        metadata=config.data.metadata,
        views=config.predict.views,
        folds=[fold.number for fold in run.folds],
        dataset=config.dataset,
        table_hash=header["table_hash"],
        versions=header["versions"],
    )
