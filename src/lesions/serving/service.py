"""What the server accepts, and the worker that predicts it."""

import base64
from asyncio import to_thread, wait_for, wrap_future
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from ipaddress import IPv6Network, ip_address
from pathlib import Path

import cv2
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse

from lesions.data.decode import UnreadableImage, check_work
from lesions.data.patients import Patient
from lesions.errors import InputError
from lesions.inference.predictor import Prediction, Predictor

STATIC = Path(__file__).parent / "static"
FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
TOGETHER = 4  # photographs: of more the first would wait for the last
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Limits:
    """Bounds of what is accepted, each with the status of what is beyond it.

    Of `queue` and `connections` one client has half at most, so that it shuts out nobody.
    """

    max_bytes: int = 20_000_000  # of a photograph: 413
    max_pixels: int = 40_000_000  # by its header, before decoding: 413
    queue: int = 32  # photographs that are sent, wait or are predicted at once: 429
    header_seconds: float = 10  # for a request's header: the connection is closed
    body_seconds: float = 60  # for an upload: 408
    decode_seconds: float = 10  # for a photograph to become pixels: 422
    answer_seconds: float = 30  # for the prediction, waiting included: 503
    connections: int = 128  # 503, a client's own 429


class Places:
    """Places that clients take and release; one client never has more than half of them."""

    def __init__(self, total: int):
        self.total = total
        self.taken: Counter[str] = Counter()

    def take(self, peer: tuple | None) -> str | None:
        """Whose place it is, to be released by; None if there is none for the client.

        A client is an IPv4 address, or a network of IPv6, which one machine has for itself.
        """
        client = str(peer[0]) if peer else ""
        if ":" in client:
            client = str(IPv6Network((int(ip_address(client.partition("%")[0])), 64), strict=False))
        if max(self.taken.total() + 1 - self.total, 2 * self.taken[client] + 2 - self.total) > 0:
            return None
        self.taken[client] += 1
        return client

    def release(self, client: str | None) -> None:
        if client is not None:
            self.taken[client] -= 1
            self.taken += Counter()  # forgets clients without a place


class RefusedError(Exception):
    """A request that is answered with `status` and a reason that its sender can act on."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def refusal(request: Request, error: RefusedError) -> JSONResponse:
    """The answer to a request that is refused."""
    headers = {
        405: {"allow": "GET, HEAD, POST"},
        408: {"connection": "close"},  # the rest of the upload is not read
        413: {"connection": "close"},
        429: {"retry-after": "1"},
        503: {"retry-after": "1"},
    }.get(error.status)
    problem = {"detail": str(error), "request_id": request.state.request_id}
    return JSONResponse(problem, error.status, headers)


def check_photo(content: bytes, limits: Limits) -> None:
    """RefusedError unless the bytes begin like a photograph of an accepted size; decodes nothing.

    The type is told by the content, never by a name or a header of the request.
    """
    if not content:
        raise RefusedError(422, "the file is empty")
    webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    if not webp and not content.startswith(SIGNATURES):
        raise RefusedError(415, "this is no JPEG, PNG or WebP picture")
    try:
        with Image.open(BytesIO(content), formats=list(FORMATS)) as image:
            check_work(image, content, limits.max_pixels)
    except UnreadableImage as error:
        raise RefusedError(413, str(error)) from None
    except Exception:  # Pillow's readers raise errors of any type for damaged content
        raise RefusedError(422, "the picture is broken: its header cannot be read") from None


class Service:
    """Predictions of photographs in memory; some of those that wait are computed together."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor = predictor
        self.limits = limits
        self.places = Places(limits.queue)
        # Photograph, patient, whether a Grad-CAM overlay is wanted, and the answer to be.
        self._waiting: deque[tuple[bytes, Patient, bool, Future]] = deque()
        # One worker: the network uses all cores, and dropout's masks are drawn from global state.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")

    async def answer(
        self, content: bytes, patient: Patient, cam: bool
    ) -> tuple[Prediction, str | None]:
        """The prediction and, if asked for, the Grad-CAM overlay as a PNG's data URL."""
        await to_thread(check_photo, content, self.limits)
        done: Future = Future()
        self._waiting.append((content, patient, cam, done))
        self._pool.submit(self._work)
        try:
            return await wait_for(wrap_future(done), self.limits.answer_seconds)
        except TimeoutError:
            raise RefusedError(503, "no answer in time: try again later") from None
        except UnreadableImage as error:
            raise RefusedError(422, f"the picture is broken: {error}") from None
        except InputError as error:
            raise RefusedError(422, str(error)) from None

    def _work(self) -> None:
        """Answer the photographs that have waited longest; other calls may have left none."""
        waiting = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
        jobs = [job for job in waiting if job[-1].set_running_or_notify_cancel()]
        answers: list[Prediction | Exception]
        try:
            photos, patients = [job[0] for job in jobs], [job[1] for job in jobs]
            answers = list(self.predictor.predict_many(photos, patients))
        except Exception as error:
            answers = [error] * len(jobs)
        for (photo, patient, cam, done), found in zip(jobs, answers, strict=True):
            try:
                if isinstance(found, Exception):
                    raise found
                overlay = None
                if cam:
                    drawn = self.predictor.explain(photo, patient, found)
                    png = cv2.imencode(".png", drawn[..., ::-1])[1]
                    overlay = data_url(png.tobytes(), "png")
                done.set_result((found, overlay))
            except Exception as error:
                done.set_exception(error)


def data_url(content: bytes, kind: str) -> str:
    """A picture's bytes as an address that a page can show without another request."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def static(name: str) -> str:
    """The text of a file of static/."""
    return (STATIC / name).read_text(encoding="utf-8")


def example(number: int) -> bytes:
    """A drawn lesion of data/sample.py as a JPEG: 0 a melanoma, 1 and 2 nevi."""
    return (STATIC / f"example{number}.jpg").read_bytes()
