"""What the server accepts, and how it says no."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Limits:
    """Bounds that hold for every client, each with what happens beyond it."""

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
        raise RefusedError(
            413,
            f"{width} x {height} pixels are too many: at most {limits.max_pixels / 1e6:g} million",
        )


def too_large(limits: Limits) -> RefusedError:
    return RefusedError(413, f"the file is too large: at most {limits.max_bytes / 1e6:g} MB")
