"""The training augmentation, one albumentations pipeline seeded by sample."""

import os
import random

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network on import otherwise
import albumentations as A
import numpy as np

from lesions.config import AugmentConfig
from lesions.data.fused import FusedColour, FusedGeometry, Holes

SHIFT, SCALE, ROTATE = 0.0625, (0.85, 1.15), 45.0  # of the side; of the size; degrees
HUE, SATURATION, VALUE = 10.0, 20.0, 10.0  # of 180, 255 and 255
BRIGHTNESS, CONTRAST = 0.2, 0.2
HOLES = 4  # at most


def build_augmentation(config: AugmentConfig, size: int) -> A.Compose:
    """uint8 (S, S, 3) in, uint8 (S, S, 3) out; draws nothing before its seed is set."""
    sides = max(1, size // 16), max(2, size // 6)
    listed = _fused(config, sides) if config.fused else _stock(config, sides)
    return A.Compose([*listed, _mild_warp(config.mild_warp)] if config.mild_warp else listed)


def augment(pipeline: A.Compose, image: np.ndarray, seed: int) -> np.ndarray:
    """One draw: equal seeds give equal pixels in whatever worker process.

    Left to itself albumentations 2.0.8 repeats its draws between workers and epochs; its own
    `set_random_seed` gives every transform the same draws, so that all of them apply or none.
    """
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return pipeline(image=image)["image"]


def _stock(config: AugmentConfig, sides: tuple[int, int]) -> list[A.BasicTransform]:
    # strict: albumentations otherwise passes over a misspelt argument with a warning.
    return [
        A.HorizontalFlip(p=config.flip),
        A.VerticalFlip(p=config.flip),
        A.RandomRotate90(p=config.rotate90),
        A.Affine(
            translate_percent=(-SHIFT, SHIFT),
            scale=SCALE,
            rotate=(-ROTATE, ROTATE),
            border_mode=2,  # cv2.BORDER_REFLECT: no black corners to learn from
            p=config.shift_scale_rotate,
            strict=True,
        ),
        A.HueSaturationValue(HUE, SATURATION, VALUE, p=config.hue_saturation, strict=True),
        A.RandomBrightnessContrast(BRIGHTNESS, CONTRAST, p=config.brightness_contrast, strict=True),
        A.CoarseDropout((1, HOLES), sides, sides, p=config.coarse_dropout, strict=True),
    ]


def _mild_warp(p: float) -> A.BasicTransform:
    """What ImageDataGenerator makes of 20 degrees and 0.1 for shift, shear and zoom.

    Its shear is in degrees; x and y are zoomed apart; the border is continued.
    """
    return A.Affine(
        translate_percent=(-0.1, 0.1),
        scale={"x": (0.9, 1.1), "y": (0.9, 1.1)},
        rotate=(-20, 20),
        shear=(-0.1, 0.1),
        border_mode=1,  # cv2.BORDER_REPLICATE
        p=p,
        strict=True,
    )


def _fused(config: AugmentConfig, sides: tuple[int, int]) -> list[A.BasicTransform]:
    return [
        FusedGeometry(
            config.flip, config.rotate90, config.shift_scale_rotate, SHIFT, SCALE, ROTATE
        ),
        FusedColour(
            config.hue_saturation, config.brightness_contrast, HUE, SATURATION, VALUE,
            BRIGHTNESS, CONTRAST,
        ),
        Holes(config.coarse_dropout, HOLES, sides),
    ]  # fmt: skip
