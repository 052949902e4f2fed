"""One decoder for training, test and serving: a photograph file -> uint8 RGB pixels."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from lesions.config import PreprocessConfig
from lesions.data.preprocess import fitted

VERSION = 1  # raise it when the same file would give other pixels: caches are made anew
MAX_PIXELS = 120_000_000  # the largest photographs published have 24 million
MAX_BYTES = 2**30  # more than MAX_PIXELS of 16 bits take without any compression
# A progressive JPEG is decoded anew for each scan, and a scan may be of 10 bytes. Photographs have
# up to 20 scans, with embedded previews 40; libtiff has the same limit.
MAX_SCANS = 100
MAX_WORK = 1_200_000_000  # scans times pixels, about two seconds: 50 scans of 24 million
START_OF_SCAN = b"\xff\xda"
# Those of photographs.SUFFIXES; others, such as EPS, run foreign interpreters.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
PLAIN = PreprocessConfig()
HOLE, GREY = bytes(64), 128  # of a file that was not written or sent whole
LISTEN = (
    "import cv2, numpy, sys;"
    "cv2.imdecode(numpy.frombuffer(sys.stdin.buffer.read(), 'u1'), cv2.IMREAD_REDUCED_COLOR_8)"
)

ORIENTATION = 0x0112  # the EXIF tag, from 1 (upright) to 8
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = [TURNS[orientation] for orientation in (5, 6, 7, 8)]
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4,
           2: cv2.IMREAD_REDUCED_COLOR_2, 1: cv2.IMREAD_COLOR}  # fmt: skip

Image.MAX_IMAGE_PIXELS = None  # the limit above is checked before anything is decoded
cv2.setNumThreads(1)  # the callers decode several photographs at once


class UnreadableImage(ValueError):
    """Why a file is no usable photograph."""


def decode(
    photo: Path | bytes, size: int, preprocess: PreprocessConfig = PLAIN
) -> tuple[np.ndarray, tuple[int, int]]:
    """The photograph as uint8 RGB (size, size, 3), and its (width, height) as it is looked at.

    `photo` is a file's path or content. It is squashed to a square, or whatever `preprocess` says.
    A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves at least 1.5 times `size`, then averaged
    down: several times faster than a full decode. The EXIF orientation is applied, to width and
    height as well.

    Raises UnreadableImage for a missing, empty, truncated, oversized or non-image file.
    """
    content = photo if isinstance(photo, bytes) else _content(Path(photo))
    if not content:
        raise UnreadableImage("empty file")
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            deep = any(";16" in str(tile[3]) for tile in image.tile)
            turn = TURNS.get(check_work(image, content))
            width, height = image.size[::-1] if turn in SIDEWAYS else image.size
            # Less one: Pillow rounds down where the decoder rounds up, as 767 pixels to 384.
            least = (size * 11 // 5 if preprocess.circle else size * 3 // 2) - 1
            pixels = plain_jpeg(image, content, least) if turn is None else None
            if pixels is None:
                image.draft("RGB", (least, least))
                pixels = _rgb(image if turn is None else image.transpose(turn))
                if deep and pixels.max(initial=0) < 16:  # 12 of 16 bits, of which 8 were read
                    raise UnreadableImage("nearly black: save its colours with 8 bits")
            if content.startswith(b"\xff\xd8"):
                _require_sound(content, pixels, "progressive" in image.info)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow's readers raise errors of any type for damaged content
        raise UnreadableImage(str(error) or type(error).__name__) from error
    return fitted(pixels, size, preprocess), (width, height)


def check_work(image: Image.Image, content: bytes, most: int = MAX_PIXELS) -> int:
    """The EXIF orientation; UnreadableImage for more than `most` pixels, or too much to decode."""
    width, height = image.size
    if width * height > most:
        raise UnreadableImage(f"{width} x {height} = {width * height:,} pixels, more than {most:,}")
    scans = content.count(START_OF_SCAN) if content.startswith(b"\xff\xd8") else 0
    most_scans = min(MAX_SCANS, MAX_WORK // max(1, width * height))
    if scans > most_scans:
        raise UnreadableImage(f"{scans:,} scans, more than {most_scans}: no photograph")
    return image.getexif().get(ORIENTATION, 1)


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise UnreadableImage("not a file" if path.exists() else "no such file")
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableImage(f"more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from error


def plain_jpeg(image: Image.Image, content: bytes, least: int) -> np.ndarray | None:
    """The pixels of an upright colour JPEG by OpenCV, which is faster; None for other images.

    OpenCV also decodes a file that is cut short: one without the JPEG end marker is left to Pillow,
    which reports it.
    """
    whole = content.rstrip(b"\0").endswith(b"\xff\xd9")
    if image.format != "JPEG" or image.mode != "RGB" or not whole:
        return None
    fits = min(image.size) // least
    scale = next(scale for scale in REDUCED if scale <= max(fits, 1))
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[scale])
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _require_sound(content: bytes, pixels: np.ndarray, progressive: bool) -> None:
    """UnreadableImage for a JPEG with a hole, which libjpeg fills with grey and only warns of.

    The warning goes to the standard error of the process, so that one is started to hear it: for
    files with a run of zeros, pictures with libjpeg's grey in a corner (the last, or turned), and
    progressive files, whose other scans fill a hole with blurred colours.
    """
    ends = np.r_[-8:8]
    corners = pixels.take(ends, 0, mode="wrap").take(ends, 1, mode="wrap")
    if progressive or HOLE in content or (corners == GREY).all(axis=2).any():
        command = [sys.executable, "-c", LISTEN]
        said = subprocess.run(command, input=content, capture_output=True, check=False).stderr
        if b"JPEG" in said:
            raise UnreadableImage(f"damaged: {said.decode(errors='replace').strip()}")


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 RGB; grey of more than 8 bits is scaled, what is transparent is white."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_scaled(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _scaled(values: np.ndarray) -> np.ndarray:
    """Grey values of a usual range as uint8: 0 to 1, or 8, 10, 12 or 16 bits."""
    least, most = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and least >= 0 and most <= 1:
        return (values * 255).round().astype(np.uint8)
    full = next((full for full in (256, 1024, 4096, 65_536) if least >= 0 and most < full), None)
    if full is None:
        raise UnreadableImage(f"grey values from {least:g} to {most:g}: save it with 8 or 16 bits")
    return (values.astype(np.int64) * 256 // full).astype(np.uint8)
