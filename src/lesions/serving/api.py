"""The REST application: photographs in, JSON out."""

from pathlib import Path
from typing import Annotated, Any, cast

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from jinja2 import Template
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartParser

from lesions.data.columns import OLDEST, SEX_WORDS, SITE_WORDS
from lesions.data.patients import Patient
from lesions.files import read_json
from lesions.inference.ensemble import Run
from lesions.inference.predictor import Prediction
from lesions.inference.wording import NOTICE, Verdict, sentence, verdict
from lesions.serving.service import FORMATS, RefusedError, Service, refusal, static

Age = Annotated[str | None, WithJsonSchema({"type": "number", "minimum": 0, "maximum": OLDEST})]
Sex = Annotated[str | None, WithJsonSchema({"type": "string", "enum": sorted(SEX_WORDS)})]
Site = Annotated[str | None, WithJsonSchema({"type": "string", "enum": sorted(SITE_WORDS)})]


class Fields(BaseModel):
    """What is known of the person, and whether a Grad-CAM overlay is wanted."""

    model_config = ConfigDict(extra="forbid")

    age: Age = Field(None, description="in years")
    sex: Sex = None
    site: Site = Field(None, description="where on the body")
    explain: bool = Field(False, description="also send a Grad-CAM overlay")

    def patient(self) -> Patient:
        return Patient(self.age, self.sex, self.site)

    @model_validator(mode="after")
    def _understood(self) -> "Fields":
        self.patient()  # its InputError is a ValueError: the answer is 422 with its message
        return self


class Answer(Prediction):
    """A prediction; what needs the run's calibration.json is null without it."""

    request_id: str
    run: str
    verdict: Verdict
    sentence: str
    notice: str
    cam: str | None = Field(description="Grad-CAM over the photograph, a PNG as a data URL")


class Problem(BaseModel):
    """Why there is no answer: a reason, or of wrong fields which and why."""

    detail: str | list[dict[str, Any]]
    request_id: str | None = None


MultiPartParser.spool_max_size = 1 << 40  # the guard has bounded uploads: none may touch a disk
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body is not what its content type says.",
        408: "The upload took too long.",
        413: "Too many bytes, pixels or scans.",
        415: "The content is no JPEG, PNG or WebP picture.",
        422: "A wrong field, or a broken picture.",
        429: "Too many photographs at once: wait a second.",
        503: "No answer in time.",
    }.items()
}
SCORES = ("rows", "auc", "average_precision", "log_loss", "balanced_accuracy", "macro_f1")
BINARY = {"type": "string", "format": "binary"}
FORM = {"photo": BINARY} | Fields.model_json_schema()["properties"]
SCHEMAS: dict[str, Any] = dict.fromkeys(FORMATS.values(), BINARY) | {
    "multipart/form-data": {"type": "object", "required": ["photo"], "properties": FORM}
}
BODY = {
    "required": True,
    "description": "The photograph: its bytes, or a form with a file and the fields.",
    "content": {kind: {"schema": schema} for kind, schema in SCHEMAS.items()},
}


def build_api(service: Service) -> FastAPI:
    """The application without page and guard: all below /api, /docs, and the card of the model."""
    app = FastAPI(title="Skin lesions", version="1", description=NOTICE, docs_url=None,
                  redoc_url=None)  # fmt: skip
    card = describe(service)
    app.add_exception_handler(RefusedError, cast(Any, refusal))

    @app.post("/api/predict", responses=REFUSALS, openapi_extra={"requestBody": BODY})
    async def predict(request: Request, fields: Annotated[Fields, Query()]) -> Answer:
        """Predict one photograph."""
        content, fields = await read_upload(request, fields)
        found, cam = await service.answer(content, fields.patient(), fields.explain)
        return Answer(
            **found.model_dump(),
            request_id=request.state.request_id,
            run=service.predictor.name,
            verdict=verdict(service.predictor, found),
            sentence=sentence(service.predictor, found),
            notice=NOTICE,
            cam=cam,
        )

    @app.get("/api/model", include_in_schema=False)  # its name in older versions
    @app.get("/api/info")
    async def info() -> dict[str, Any]:
        """What is answering: its training, its scores, its limits."""
        return card

    @app.get("/api/health")
    async def health() -> dict[str, str | int]:
        """Whether it answers; `busy` photographs wait or are predicted, `queue` at most."""
        busy = service.places.taken.total()
        return {"status": "ok", "busy": busy, "queue": service.limits.queue}

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        values = app.openapi() | {"address": request.base_url, "form": FORM}
        return HTMLResponse(filled("manual.html", **values))

    if card["card"]:

        @app.get(card["card"], include_in_schema=False)
        async def model_card() -> PlainTextResponse:
            return PlainTextResponse(card_path(service).read_text(encoding="utf-8"))

    return app


def filled(template: str, /, **values: Any) -> str:
    """A file of static/ as a template, with `values` escaped."""
    return Template(static(template), autoescape=True).render(**values)


def card_path(service: Service) -> Path:
    """Where the card of the first run lies, if it was released (scripts/release.py)."""
    return service.predictor.runs[0].files.folder / "README.md"


async def read_upload(request: Request, fields: Fields) -> tuple[bytes, Fields]:
    """The photograph's bytes, and the fields of the query and, over them, of the form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        return await request.body(), fields
    try:
        form = await request.form(max_files=1, max_fields=8, max_part_size=1024)
    except (HTTPException, KeyError, ValueError) as error:
        reason = getattr(error, "detail", "it cannot be read")
        raise RefusedError(400, f"the form is broken: {reason}") from None
    photos = [value for value in form.values() if isinstance(value, UploadFile)]
    if len(photos) != 1:
        raise RefusedError(422, "the form has no whole file: send it as photo=@...")
    words = {key: value for key, value in form.items() if isinstance(value, str) and value}
    try:
        fields = Fields.model_validate(fields.model_dump() | words)
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_context=False)
        ) from None
    return await photos[0].read(), fields


def describe(service: Service) -> dict[str, Any]:
    """The runs behind the service, what was measured of them, and what the server accepts."""
    predictor = service.predictor
    known, first = predictor.calibration, predictor.runs[0].calibration
    return {
        "name": predictor.name,
        "described": predictor.described,
        "task": predictor.task,
        "classes": predictor.classes,
        "members": [
            {
                "run": run.name,
                "weight": weight,
                "folds": [fold.number for fold in run.folds],
                "scores": [fold_scores(run, fold.number) for fold in run.folds],
                "preprocess": run.preprocess,
                "config": run.config,
                "table_hash": run.folds[0].header["table_hash"],
                "versions": run.folds[0].header["versions"],
            }
            for run, weight in zip(predictor.runs, predictor.weights, strict=True)
        ],
        "threshold": known and known.threshold,
        "calibration_error": known and known.calibration_error,
        "false_alarms": first and first.false_alarms,
        "missing": predictor.missing,
        "accepts": sorted(FORMATS.values()),
        "limits": service.limits,
        "card": "/card" if card_path(service).is_file() else None,
        "manual": "/docs",
        "notice": NOTICE,
    }


def fold_scores(run: Run, fold: int) -> dict[str, float]:
    """Rows and scores of a fold's held-out photographs, as fold<k>.json has them; {} without it."""
    path = run.files.file(fold, ".json")
    facts = read_json(path) if path.is_file() else {}
    return {name: facts[name] for name in SCORES if facts.get(name) is not None}
