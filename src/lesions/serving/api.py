"""The REST application: photographs in, JSON out."""

from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from lesions.data.columns import OLDEST, SITE_WORDS
from lesions.inference.predictor import Patient
from lesions.serving.card import ModelCard, model_card
from lesions.serving.limits import FORMATS, RefusedError
from lesions.serving.manual import manual
from lesions.serving.service import Service
from lesions.serving.wording import NOTICE, sentence

Site = Enum("Site", [(word, word) for word in sorted(SITE_WORDS)])  # type: ignore[misc]


class Fields(BaseModel):
    """What is known of the person, and whether a Grad-CAM overlay is wanted."""

    model_config = ConfigDict(extra="forbid")

    age: float | None = Field(None, ge=0, le=OLDEST, allow_inf_nan=False, description="in years")
    sex: Literal["female", "male"] | None = None
    site: Site | None = Field(None, description="where on the body")
    explain: bool = Field(False, description="also send a Grad-CAM overlay")

    @property
    def patient(self) -> Patient:
        return Patient.parse(self.age, self.sex, self.site.value if self.site else None)


class Answer(BaseModel):
    """A prediction; what needs the run's calibration.json is null without it."""

    request_id: str
    run: str
    probs: dict[str, float] = Field(description="by class; of a yes-or-no task that of yes")
    calibrated: dict[str, float] | None = Field(description="the same, corrected")
    score: float = Field(description="of yes, or of any malignant class; uncorrected")
    positive: bool | None = Field(description="the score reaches the run's threshold")
    threshold: float | None
    percentile: float | None = Field(description="among the training photographs' scores")
    spread: float = Field(description="standard deviation of the score over folds and views")
    dropout_spread: float | None = Field(description="the same over random dropout masks")
    by_fold: dict[str, float]
    unusual: list[str] = Field(description="in which ways it is unlike the training photographs")
    width: int
    height: int
    sentence: str
    notice: str
    cam: str | None = Field(description="Grad-CAM over the photograph, a PNG as a data URL")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str
    request_id: str


class WrongField(BaseModel):
    """Which fields are wrong, and how."""

    detail: list[dict[str, Any]]


class Health(BaseModel):
    """The server is up; `busy` photographs wait or are being predicted, `queue` at most."""

    status: Literal["ok"]
    busy: int
    queue: int


class InMemoryParser(MultiPartParser):
    """Uploads stay in memory: the guard has bounded them, and none may touch a disk."""

    spool_max_size = 1 << 40


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not what its content type says."},
    408: {"model": Problem, "description": "The upload took too long."},
    413: {"model": Problem, "description": "Too many bytes, or too many pixels."},
    415: {"model": Problem, "description": "The content is no JPEG, PNG or WebP picture."},
    422: {"model": Problem | WrongField, "description": "A wrong field, or a broken picture."},
    429: {"model": Problem, "description": "Too many photographs at once: wait a second."},
    503: {"model": Problem, "description": "No answer in time."},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "required": True,
        "description": "The photograph: its bytes, or a form with a file and the fields.",
        "content": dict.fromkeys(FORMATS.values(), _BINARY)
        | {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {
                        "photo": {"type": "string", "format": "binary"},
                        "age": {"type": "number", "minimum": 0, "maximum": OLDEST},
                        "sex": {"type": "string", "enum": ["female", "male"]},
                        "site": {"type": "string", "enum": sorted(SITE_WORDS)},
                        "explain": {"type": "boolean"},
                    },
                }
            }
        },
    }
}


def build_api(service: Service) -> FastAPI:
    """The application without page and guard: /api/predict, /api/model, /api/health, /docs."""
    app = FastAPI(title="Skin lesions", version="1", description=NOTICE, docs_url=None,
                  redoc_url=None)  # fmt: skip
    card = model_card(service)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        headers = {"retry-after": "1"} if error.status in (429, 503) else None
        told = {"detail": error.reason, "request_id": request.state.request_id}
        return JSONResponse(told, error.status, headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        told = {"detail": "internal error", "request_id": request.state.request_id}
        return JSONResponse(told, 500)

    @app.post("/api/predict", responses=REFUSALS, openapi_extra=BODY)
    async def predict(request: Request, fields: Annotated[Fields, Query()]) -> Answer:
        """Predict one photograph."""
        content, fields = await read_upload(request, fields)
        told, cam = await service.answer(content, fields.patient, fields.explain)
        known = service.predictor.mix.calibration
        return Answer(
            request_id=request.state.request_id,
            run=service.predictor.name,
            threshold=known.threshold.value if known else None,
            sentence=sentence(service.predictor, told),
            notice=NOTICE,
            cam=cam,
            **asdict(told),
        )

    @app.get("/api/model")
    async def model() -> ModelCard:
        """What is answering: its training, its scores, its limits."""
        return card

    @app.get("/api/health")
    async def health() -> Health:
        """Whether it answers, and how busy it is."""
        return Health(status="ok", busy=service.busy, queue=service.limits.queue)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(manual(app.openapi()))

    return app


async def read_upload(request: Request, fields: Fields) -> tuple[bytes, Fields]:
    """The photograph's bytes, and the fields of the query and, over them, of the form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        return await request.body(), fields
    try:
        parser = InMemoryParser(
            request.headers, request.stream(), max_files=1, max_fields=8, max_part_size=1000
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", None) or "it cannot be read"
        raise RefusedError(400, f"the form is broken: {reason}") from None
    photos = [value for value in form.values() if isinstance(value, UploadFile)]
    if len(photos) != 1:
        raise RefusedError(422, "the form has no file: send it as photo=@...")
    words = {key: value for key, value in form.items() if isinstance(value, str) and value}
    try:
        fields = Fields.model_validate(fields.model_dump(mode="json") | words)
    except ValidationError as error:
        raise RequestValidationError(
            [item | {"loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        ) from None
    return await photos[0].read(), fields
