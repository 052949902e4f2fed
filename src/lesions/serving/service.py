"""One model, one worker, a short queue: what the REST routes and the page both ask."""

import base64
import threading
from asyncio import wait_for, wrap_future
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np

from lesions.data.decode import UnreadableImage
from lesions.data.drawing import draw_photo
from lesions.inference.predictor import Patient, Prediction, Predictor
from lesions.serving.limits import Limits, RefusedError, check_photo


class Answer(NamedTuple):
    told: Prediction
    cam: str | None  # a PNG as a data URL


class Service:
    """Predictions of photographs in memory, one at a time; the others wait, or are refused."""

    def __init__(self, predictor: Predictor, limits: Limits | None = None):
        self.predictor = predictor
        self.limits = limits or Limits()
        # One worker: the network uses all cores, and dropout's masks are drawn from global state.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._lock = threading.Lock()
        self._busy = 0

    @property
    def busy(self) -> int:
        """Photographs that wait or are being predicted."""
        return self._busy

    def warm_up(self) -> None:
        """Predict a drawn lesion once, so that the first visitor does not wait for it."""
        self._work(example(0), Patient(), True)

    async def answer(self, content: bytes, patient: Patient, cam: bool) -> Answer:
        """The prediction, and the Grad-CAM overlay if asked for; RefusedError if there is none."""
        with self._lock:
            if self._busy >= self.limits.queue:
                raise RefusedError(429, "too many photographs at once: try again in a second")
            self._busy += 1
        job = self._pool.submit(self._work, content, patient, cam)
        job.add_done_callback(self._done)
        try:
            return await wait_for(wrap_future(job), self.limits.answer_seconds)
        except TimeoutError:
            raise RefusedError(503, "no answer in time: try again later") from None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, _: Future) -> None:
        with self._lock:
            self._busy -= 1

    def _work(self, content: bytes, patient: Patient, cam: bool) -> Answer:
        check_photo(content, self.limits)
        try:
            told = self.predictor.predict(content, patient)
        except UnreadableImage as error:
            raise RefusedError(422, f"the picture is broken: {error}") from None
        if not cam:
            return Answer(told, None)
        return Answer(told, data_url(self.predictor.explain(content, patient, told)))


def data_url(image: np.ndarray) -> str:
    """uint8 RGB (H, W, 3) as a PNG that a page can show without another request."""
    return "data:image/png;base64," + base64.b64encode(_encoded(image, ".png")).decode()


def example(number: int) -> bytes:
    """A drawn lesion as a JPEG, one of the embedded sample's kind: 0 a melanoma, else a nevus."""
    row: dict[Hashable, Any] = {
        "person": number, "photo": number, "lesion": number, "width": 600, "height": 450,
        "diagnosis": "NV" if number else "MEL", "score": 0.0 if number else 3.0,
    }  # fmt: skip
    return _encoded(draw_photo(7, row), ".jpg")


def _encoded(image: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()
