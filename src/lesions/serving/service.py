"""What the server accepts, and one worker that predicts it: the REST routes' and the page's."""

import base64
import threading
from asyncio import wait_for, wrap_future
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from lesions.data.decode import UnreadableImage
from lesions.data.sample import draw_photo
from lesions.inference.predictor import Patient, Prediction, Predictor

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Limits:
    """Bounds that hold for every client, each with the status of what is beyond it."""

    max_bytes: int = 20_000_000  # of a photograph: 413
    max_pixels: int = 40_000_000  # by its header, before decoding: 413
    queue: int = 16  # photographs that wait or are predicted at once: 429
    readers: int = 32  # uploads at once: 429
    header_seconds: float = 10  # for a request's header: the connection is closed
    body_seconds: float = 60  # for an upload: 408
    answer_seconds: float = 30  # for the prediction, waiting included: 503
    connections: int = 128  # 503


class RefusedError(Exception):
    """A request that is answered with `status` and a reason that its sender can act on."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


def check_photo(content: bytes, limits: Limits) -> None:
    """RefusedError unless the bytes begin like a photograph of an accepted size; decodes nothing.

    The type is told by the content, never by a name or a header of the request.
    """
    if not content:
        raise RefusedError(422, "the file is empty")
    if len(content) > limits.max_bytes:
        raise too_large(limits)
    webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    if not webp and not content.startswith(SIGNATURES):
        raise RefusedError(415, "this is no JPEG, PNG or WebP picture")
    try:
        with Image.open(BytesIO(content), formats=list(FORMATS)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise RefusedError(422, "the picture is broken: its header cannot be read") from None
    if width * height > limits.max_pixels:
        most = f"at most {limits.max_pixels / 1e6:g} million"
        raise RefusedError(413, f"{width} x {height} pixels are too many: {most}")


def too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"the file is too large: at most {limits.max_bytes / 1e6:g} MB")


class Service:
    """Predictions of photographs in memory, one at a time; others wait, or are refused."""

    def __init__(self, predictor: Predictor, limits: Limits | None = None):
        self.predictor = predictor
        self.limits = limits or Limits()
        self.busy = 0  # photographs that wait or are being predicted
        # One worker: the network uses all cores, and dropout's masks are drawn from global state.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Predict a drawn lesion once, so that the first visitor does not wait for it."""
        self._work(example(0), Patient(), True)

    async def answer(
        self, content: bytes, patient: Patient, cam: bool
    ) -> tuple[Prediction, str | None]:
        """The prediction and, if asked for, the Grad-CAM overlay as a PNG's data URL."""
        with self._lock:
            if self.busy >= self.limits.queue:
                raise RefusedError(429, "too many photographs at once: try again in a second")
            self.busy += 1
        job = self._pool.submit(self._work, content, patient, cam)
        job.add_done_callback(self._done)
        try:
            return await wait_for(wrap_future(job), self.limits.answer_seconds)
        except TimeoutError:
            raise RefusedError(503, "no answer in time: try again later") from None

    def _done(self, _: Future) -> None:
        with self._lock:
            self.busy -= 1

    def _work(self, content: bytes, patient: Patient, cam: bool) -> tuple[Prediction, str | None]:
        check_photo(content, self.limits)
        try:
            found = self.predictor.predict(content, patient)
        except UnreadableImage as error:
            raise RefusedError(422, f"the picture is broken: {error}") from None
        if not cam:
            return found, None
        overlay = encoded(self.predictor.explain(content, patient, found), ".png")
        return found, data_url(overlay, "png")


def data_url(content: bytes, kind: str) -> str:
    """A picture's bytes as an address that a page can show without another request."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def encoded(image: np.ndarray, suffix: str) -> bytes:
    """uint8 RGB (H, W, 3) as the bytes of a file of that suffix."""
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def example(number: int) -> bytes:
    """A drawn lesion as a JPEG, one of the embedded sample's kind: 0 a melanoma, else a nevus."""
    row: dict[Hashable, Any] = {
        "person": number, "photo": number, "lesion": number, "width": 600, "height": 450,
        "diagnosis": "NV" if number else "MEL", "score": 0.0 if number else 3.0,
    }  # fmt: skip
    return encoded(draw_photo(7, row), ".jpg")
