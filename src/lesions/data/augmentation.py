"""The training augmentation, one albumentations pipeline seeded by sample."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network on import otherwise
import albumentations as A
import numpy as np

from lesions.config import AugmentConfig


def build_augmentation(config: AugmentConfig, size: int) -> A.Compose:
    """uint8 (S, S, 3) in, uint8 (S, S, 3) out; draws nothing before its seed is set.

    strict: albumentations otherwise passes over a misspelt argument with a warning.
    """
    hole = (max(1, size // 16), max(2, size // 6))
    return A.Compose(
        [
            A.HorizontalFlip(p=config.flip),
            A.VerticalFlip(p=config.flip),
            A.RandomRotate90(p=config.rotate90),
            A.Affine(
                translate_percent=(-0.0625, 0.0625),
                scale=(0.85, 1.15),
                rotate=(-45, 45),
                border_mode=2,  # cv2.BORDER_REFLECT: no black corners to learn from
                p=config.shift_scale_rotate,
                strict=True,
            ),
            A.HueSaturationValue(10, 20, 10, p=config.hue_saturation, strict=True),
            A.RandomBrightnessContrast(0.2, 0.2, p=config.brightness_contrast, strict=True),
            A.CoarseDropout(
                num_holes_range=(1, 4),
                hole_height_range=hole,
                hole_width_range=hole,
                p=config.coarse_dropout,
                strict=True,
            ),
        ]
    )


def augment(pipeline: A.Compose, image: np.ndarray, seed: int) -> np.ndarray:
    """One draw: equal seeds give equal pixels in whatever worker process.

    Left to itself albumentations 2.0.8 repeats its draws between workers and epochs.
    """
    pipeline.set_random_seed(seed)
    return pipeline(image=image)["image"]
