"""The stock albumentations list that data/augmentation.py fuses: the usual way, for comparison."""

import albumentations as A

from lesions.config import AugmentConfig
from lesions.data.augmentation import (
    BRIGHTNESS,
    CONTRAST,
    HOLES,
    HUE,
    ROTATE,
    SATURATION,
    SCALE,
    SHIFT,
    VALUE,
)


def stock_transforms(config: AugmentConfig, size: int) -> list[A.BasicTransform]:
    """The transforms of `config` for square images of `size` pixels, each a pass of its own."""
    sides = max(1, size // 16), max(2, size // 6)
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
