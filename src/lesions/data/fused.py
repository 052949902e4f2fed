"""The list of data/augmentation.py in three transforms: one warp, one table a channel, holes.

Stock transforms each pass over all pixels. Here flips and quarter turns cost a transposition at
most, and nothing where the image is warped anyway: a warp of a turned image is a turned warp.
Hue, saturation and value take their tables together, brightness and contrast the same.
"""

from math import cos, floor, radians, sin
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np
from albucore import multiply_add, sz_lut

# Tables of x + k between 0 and 255, and of (x + k) modulo 180 (OpenCV's hues): a slice each.
_RAMP = np.clip(np.arange(-255, 511), 0, 255).astype(np.uint8)
_HUES = (np.arange(180 + 256) % 180).astype(np.uint8)


class Turn(NamedTuple):
    """A symmetry of the square: first transposed, then mirrored across."""

    transposed: bool = False
    flip_x: bool = False  # left to right
    flip_y: bool = False

    def matrix(self) -> tuple[int, int, int, int]:
        """Of (x, y) from the centre to where it goes: rows of a 2 x 2 matrix."""
        x, y = 1 - 2 * self.flip_x, 1 - 2 * self.flip_y
        return (0, x, y, 0) if self.transposed else (x, 0, 0, y)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The turned image; `image` itself where nothing moves."""
        if self.transposed:
            image = cv2.transpose(image)
        if self.flip_x or self.flip_y:
            image = cv2.flip(image, -1 if self.flip_x and self.flip_y else int(self.flip_x))
        return image


# Quarter turns against the clock after the flips of A.RandomRotate90's draw 0 to 3.
_QUARTERS = ((False, False, False), (True, False, True), (False, True, True), (True, True, False))


def turn_of(flip_x: bool, flip_y: bool, quarters: int) -> Turn:
    """Both flips first, then `quarters` quarter turns against the clock."""
    transposed, x, y = _QUARTERS[quarters]
    if transposed:
        flip_x, flip_y = flip_y, flip_x
    return Turn(transposed, x != flip_x, y != flip_y)


def warp_matrix(
    turn: Turn, shift: tuple[int, int], scale: tuple[float, float], degrees: float, size: int
) -> np.ndarray:
    """`turn`, then A.Affine's scale, rotation and shift about the centre: 2 x 3, for cv2."""
    a, b, c, d = turn.matrix()
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    xx, xy, yx, yy = cosine * scale[0], sine * scale[1], -sine * scale[0], cosine * scale[1]
    xx, xy, yx, yy = xx * a + xy * c, xx * b + xy * d, yx * a + yy * c, yx * b + yy * d
    centre = (size - 1) / 2
    return np.array(
        [
            [xx, xy, centre + shift[0] - (xx + xy) * centre],
            [yx, yy, centre + shift[1] - (yx + yy) * centre],
        ]
    )


class FusedGeometry(A.ImageOnlyTransform):
    """Flips, quarter turns, shift, scale and rotation of square images, each with its p."""

    def __init__(
        self, flip: float, rotate90: float, warp: float, shift: float,
        scale: tuple[float, float], rotate: float,
    ):  # fmt: skip
        super().__init__(p=1)
        self.flip, self.rotate90, self.warp = flip, rotate90, warp
        self.shift, self.scale, self.rotate = shift, scale, rotate

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """The turn, and the warp that includes it where there is one."""
        chance, between = self.py_random.random, self.py_random.uniform
        size = params["shape"][0]
        flips = chance() < self.flip, chance() < self.flip
        quarters = self.py_random.randrange(4) if chance() < self.rotate90 else 0
        turn = turn_of(*flips, quarters)
        if chance() >= self.warp:
            return {"turn": turn, "matrix": None}
        far = self.shift * size
        shift = int(between(-far, far)), int(between(-far, far))
        scale = between(*self.scale), between(*self.scale)
        degrees = between(-self.rotate, self.rotate)
        return {"turn": turn, "matrix": warp_matrix(turn, shift, scale, degrees, size)}

    def apply(self, img: np.ndarray, turn: Turn, matrix: np.ndarray | None, **_: Any) -> np.ndarray:
        if matrix is None:
            return turn.apply(img)
        # The border mirrors the photograph: no black corners to learn from.
        return cv2.warpAffine(img, matrix, img.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


class FusedColour(A.ImageOnlyTransform):
    """A.HueSaturationValue, then A.RandomBrightnessContrast, each with its p."""

    def __init__(
        self, hue_saturation: float, brightness_contrast: float, hue: float, saturation: float,
        value: float, brightness: float, contrast: float,
    ):  # fmt: skip
        super().__init__(p=1)
        self.hue_saturation, self.brightness_contrast = hue_saturation, brightness_contrast
        self.hue, self.saturation, self.value = hue, saturation, value
        self.brightness, self.contrast = brightness, contrast

    def get_params(self) -> dict[str, Any]:
        """Limits of the shifts where they apply, None where they do not."""
        chance, between = self.py_random.random, self.py_random.uniform
        shifts = alpha_beta = None
        if chance() < self.hue_saturation:
            shifts = tuple(between(-x, x) for x in (self.hue, self.saturation, self.value))
        if chance() < self.brightness_contrast:
            alpha = 1 + between(-self.contrast, self.contrast)
            alpha_beta = alpha, 255 * between(-self.brightness, self.brightness)
        return {"shifts": shifts, "alpha_beta": alpha_beta}

    def apply(
        self, img: np.ndarray, shifts: tuple[float, float, float] | None,
        alpha_beta: tuple[float, float] | None, **_: Any,
    ) -> np.ndarray:  # fmt: skip
        if shifts:
            img = shift_hsv(img, *shifts)
        return multiply_add(img, *alpha_beta, inplace=bool(shifts)) if alpha_beta else img


class Holes(A.ImageOnlyTransform):
    """A.CoarseDropout, which takes several times as long: 1 to `most` black rectangles."""

    def __init__(self, p: float, most: int, sides: tuple[int, int]):
        super().__init__(p=p)
        self.most, self.sides = most, sides  # pixels, both included

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Where the holes are; of square images."""
        between, size = self.py_random.randint, params["shape"][0]
        holes = []
        for _ in range(between(1, self.most)):
            height, width = between(*self.sides), between(*self.sides)
            top, left = between(0, size - height), between(0, size - width)
            holes.append((slice(top, top + height), slice(left, left + width)))
        return {"holes": holes}

    def apply(self, img: np.ndarray, holes: list[tuple[slice, slice]], **_: Any) -> np.ndarray:
        img = img.copy()
        for hole in holes:
            img[hole] = 0
        return img


def shift_hsv(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """The image with its hue (of 180), saturation and value (of 255) shifted; grey stays grey."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    planes = cv2.split(hsv)
    hues = floor(hue) % 180
    saturations = _shift_table(saturation).copy()
    saturations[0] = 0
    tables = _HUES[hues : hues + 256], saturations, _shift_table(value)
    for plane, table in zip(planes, tables, strict=True):
        sz_lut(plane, table)
    cv2.merge(planes, dst=hsv)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


def _shift_table(shift: float) -> np.ndarray:
    start = 255 + int(shift)
    return _RAMP[start : start + 256]
