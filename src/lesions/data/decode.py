"""One decoder for training, test and serving: a photograph file -> uint8 RGB pixels."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lesions.config import PreprocessConfig
from lesions.data.preprocess import fitted

VERSION = 1  # raise it when the same file would give other pixels: caches are made anew
MAX_PIXELS = 120_000_000  # the largest photographs published have 24 million
# Those of photographs.SUFFIXES; others, such as EPS, run foreign interpreters.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
PLAIN = PreprocessConfig()

ORIENTATION = 0x0112  # the EXIF tag
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4,
           2: cv2.IMREAD_REDUCED_COLOR_2, 1: cv2.IMREAD_COLOR}  # fmt: skip

Image.MAX_IMAGE_PIXELS = None  # the limit above is checked before anything is decoded
cv2.setNumThreads(1)  # the callers decode several photographs at once


class UnreadableImage(ValueError):
    """Why a file is no usable photograph."""


def decode(
    photo: Path | bytes, size: int, preprocess: PreprocessConfig = PLAIN
) -> tuple[np.ndarray, tuple[int, int]]:
    """The photograph as uint8 RGB (size, size, 3), and the (width, height) of its file.

    `photo` is a file's path or content. It is squashed to a square, or whatever `preprocess` says.
    A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves at least 1.5 times `size`, then averaged
    down: several times faster than a full decode. The EXIF orientation is applied; width and
    height are those before it.

    Raises UnreadableImage for a missing, empty, truncated, oversized or non-image file.
    """
    try:
        content = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
        if not content:
            raise UnreadableImage("empty file")
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImage(
                    f"{width} x {height} = {width * height:,} pixels, more than {MAX_PIXELS:,}"
                )
            # Less one: Pillow rounds down where the decoder rounds up, as 767 pixels to 384.
            least = (size * 11 // 5 if preprocess.circle else size * 3 // 2) - 1
            pixels = plain_jpeg(image, content, least)
            if pixels is None:
                image.draft("RGB", (least, least))
                ImageOps.exif_transpose(image, in_place=True)  # avoids a copy of upright images
                pixels = _rgb(image)
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image of a known format ({', '.join(FORMATS)})") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken content
        raise UnreadableImage(str(error)) from error
    return fitted(pixels, size, preprocess), (width, height)


def plain_jpeg(image: Image.Image, content: bytes, least: int) -> np.ndarray | None:
    """The pixels of an upright colour JPEG by OpenCV, which is faster; None for other images.

    OpenCV also decodes a file that is cut short: one without the JPEG end marker is left to Pillow,
    which reports it.
    """
    whole = content.rstrip(b"\0").endswith(b"\xff\xd9")
    if image.format != "JPEG" or image.mode != "RGB" or not whole:
        return None
    if image.getexif().get(ORIENTATION, 1) != 1:
        return None
    fits = min(image.size) // least
    scale = next(scale for scale in REDUCED if scale <= max(fits, 1))
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[scale])
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
