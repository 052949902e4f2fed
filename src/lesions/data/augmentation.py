"""The training augmentation: one albumentations pipeline, seeded by sample.

It is the stock list of flips, RandomRotate90, Affine, HueSaturationValue, RandomBrightnessContrast
and CoarseDropout in one transform. Stock transforms each pass over all pixels. Here flips and
quarter turns are a transposition, or part of the warp's matrix where the image is warped; hue,
saturation and value take one table each, and brightness and contrast one together.
"""

import os
import random
from itertools import product
from math import cos, floor, radians, sin
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network on import otherwise
import albumentations as A
import cv2
import numpy as np
from albucore import multiply_add, sz_lut

from lesions.config import AugmentConfig

HOLES = 4  # at most

# Tables of x + k between 0 and 255, and of (x + k) modulo 180 (OpenCV's hues): a slice each.
_RAMP = np.clip(np.arange(-255, 511), 0, 255).astype(np.uint8)
_HUES = (np.arange(180 + 256) % 180).astype(np.uint8)


def build_augmentation(config: AugmentConfig) -> A.Compose:
    """uint8 (S, S, 3) in, uint8 (S, S, 3) out; to be seeded by `augment` before each image."""
    # Keras' ImageDataGenerator with rotation 20 degrees and shift, shear and zoom 0.1: its shear is
    # in degrees; x and y are zoomed apart; the border is continued.
    mild_warp = A.Affine(
        translate_percent=(-0.1, 0.1),
        scale={"x": (0.9, 1.1), "y": (0.9, 1.1)},
        rotate=(-20, 20),
        shear=(-0.1, 0.1),
        border_mode=cv2.BORDER_REPLICATE,
        p=config.mild_warp,
        strict=True,  # albumentations otherwise only warns of a misspelt argument
    )
    fused = FusedList(config)
    return A.Compose([fused, mild_warp] if config.mild_warp else [fused])


def augment(pipeline: A.Compose, image: np.ndarray, seed: int) -> np.ndarray:
    """One draw: equal seeds give equal pixels in any worker process.

    Left to itself albumentations 2.0.8 repeats its draws between workers and epochs; its own
    `set_random_seed` gives every transform the same draws, so that all of them apply or none.
    """
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return pipeline(image=image)["image"]


def turn_matrix(flip_x: bool, flip_y: bool, quarters: int) -> np.ndarray:
    """(2, 2): both flips, then counter-clockwise quarter turns, of (x, y) from the centre."""
    flips = np.diag([1.0 - 2 * flip_x, 1.0 - 2 * flip_y])
    return np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), quarters) @ flips


# Made once: there are sixteen, by both flips and the quarter turns.
TURNS = {key: turn_matrix(*key) for key in product((False, True), (False, True), range(4))}


def turned(image: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The image turned by one of TURNS; `image` itself for the identity."""
    if not turn[0, 0]:
        image = cv2.transpose(image)
    flip_x, flip_y = turn.sum(axis=1) < 0
    if flip_x or flip_y:
        image = cv2.flip(image, -1 if flip_x and flip_y else int(flip_x))
    return image


def warp_matrix(
    turn: np.ndarray, shift: tuple[int, int], scale: tuple[float, ...], degrees: float, size: int
) -> np.ndarray:
    """`turn`, then A.Affine's scale, rotation and shift about the centre: 2 x 3, for cv2."""
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    linear = np.array([[cosine, sine], [-sine, cosine]]) * scale @ turn
    centre = (size - 1) / 2
    moved = centre + np.array(shift) - linear.sum(axis=1) * centre
    return np.column_stack([linear, moved])


class FusedList(A.ImageOnlyTransform):
    """The stock list for square images, each transform with its p."""

    def __init__(self, p: AugmentConfig):
        super().__init__(p=1)
        self.each = p

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        return self._holes(self._colours(self._geometry(img)))

    def _geometry(self, img: np.ndarray) -> np.ndarray:
        """Flips, quarter turns, and A.Affine's shift, scale and rotation."""
        chance, between = self.py_random.random, self.py_random.uniform
        flips = chance() < self.each.flip, chance() < self.each.flip
        quarters = self.py_random.randrange(4) if chance() < self.each.rotate90 else 0
        turn, size = TURNS[*flips, quarters], len(img)
        if chance() >= self.each.shift_scale_rotate:
            return turned(img, turn)
        most = self.each
        far = most.shift * size
        shift = int(between(-far, far)), int(between(-far, far))
        scale = tuple(between(1 - most.scale, 1 + most.scale) for _ in "xy")
        matrix = warp_matrix(turn, shift, scale, between(-most.rotate, most.rotate), size)
        # A mirrored border: black corners would be learnt from.
        return cv2.warpAffine(img, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)

    def _colours(self, img: np.ndarray) -> np.ndarray:
        """A.HueSaturationValue, then A.RandomBrightnessContrast."""
        chance, between = self.py_random.random, self.py_random.uniform
        most, shifted = self.each, chance() < self.each.hue_saturation
        if shifted:
            ranges = most.hue, most.saturation, most.value
            img = shift_hsv(img, *(between(-far, far) for far in ranges))
        if chance() < most.brightness_contrast:
            alpha = 1 + between(-most.contrast, most.contrast)
            beta = 255 * between(-most.brightness, most.brightness)
            img = multiply_add(img, alpha, beta, inplace=shifted)
        return img

    def _holes(self, img: np.ndarray) -> np.ndarray:
        """1 to HOLES black rectangles: A.CoarseDropout, several times as fast."""
        if not self.each.coarse_dropout or self.py_random.random() >= self.each.coarse_dropout:
            return img
        between, size = self.py_random.randint, len(img)
        sides = max(1, size // 16), max(2, size // 6)
        img = img.copy()
        for _ in range(between(1, HOLES)):
            height, width = between(*sides), between(*sides)
            top, left = between(0, size - height), between(0, size - width)
            img[top : top + height, left : left + width] = 0
        return img


def shift_hsv(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """The image with its hue (of 180), saturation and value (of 255) shifted; grey stays grey."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    planes = cv2.split(hsv)
    hues, start_s, start_v = floor(hue) % 180, 255 + int(saturation), 255 + int(value)
    saturations = _RAMP[start_s : start_s + 256].copy()
    saturations[0] = 0
    tables = _HUES[hues : hues + 256], saturations, _RAMP[start_v : start_v + 256]
    for plane, table in zip(planes, tables, strict=True):
        sz_lut(plane, table)
    cv2.merge(planes, dst=hsv)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)
