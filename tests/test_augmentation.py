"""The fused augmentation is the stock list: the same pixels for the same draws, as often."""

import albumentations as A
import cv2
import numpy as np
import pytest
from albumentations.augmentations.geometric import functional as geometry
from albumentations.augmentations.pixel import functional as pixels
from loader import stock_transforms
from scipy.stats import ks_2samp

from lesions.config import AugmentConfig
from lesions.data.augmentation import (
    augment,
    build_augmentation,
    shift_hsv,
    turn_matrix,
    turned,
    warp_matrix,
)

SIZE = 96
NEVER = dict.fromkeys(
    ("flip", "rotate90", "shift_scale_rotate", "hue_saturation", "brightness_contrast",
     "coarse_dropout"), 0.0,
)  # fmt: skip


def both(config: AugmentConfig, size: int) -> tuple[A.Compose, A.Compose]:
    """The stock list and ours."""
    return A.Compose(stock_transforms(config, size)), build_augmentation(config)


def photograph(seed: int = 0) -> np.ndarray:
    """Skin colours, smooth, with grey and saturated patches."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers((120, 60, 40), (250, 190, 170), (6, 6, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    image[:9, :9], image[-9:, :9], image[:9, -9:] = 0, 128, (255, 0, 60)
    return image


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
def test_a_turn_and_a_warp_are_those_of_the_stock_list(flip_x, flip_y, quarters):
    image = photograph()
    expected = image[:, ::-1] if flip_x else image
    expected = expected[::-1] if flip_y else expected
    expected = np.ascontiguousarray(geometry.rot90(expected, quarters))
    turn = turn_matrix(flip_x, flip_y, quarters)
    assert np.array_equal(turned(image, turn), expected)
    shift, scale, degrees = (4, -5), (0.9, 1.12), 33.0
    stock = geometry.create_affine_transformation_matrix(
        dict(zip("xy", shift, strict=True)), {"x": 0, "y": 0}, dict(zip("xy", scale, strict=True)),
        degrees, geometry.center((SIZE, SIZE)),
    )  # fmt: skip
    how = cv2.INTER_LINEAR, 0, cv2.BORDER_REFLECT, (SIZE, SIZE)
    expected = geometry.warp_affine(expected, stock, *how)
    matrix = warp_matrix(turn, shift, scale, degrees, SIZE)
    warped = cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    error = np.abs(warped.astype(int) - expected)
    assert error.max() <= 2 and error.mean() < 0.05


@pytest.mark.parametrize("shifts", [(9.7, 19.2, 8.8), (-9.7, -19.2, -8.8), (-0.4, 0.6, 0.0)])
def test_colours_are_those_of_the_stock_list(shifts):
    image = photograph(1)
    expected = pixels.shift_hsv(image.copy(), *shifts)
    assert np.array_equal(shift_hsv(image, *shifts), expected)
    assert np.array_equal(image, photograph(1))


def test_brightness_and_contrast_are_those_of_the_stock_list():
    """The least-squares line through the greys that are not cut off gives the stock's pixels."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    pipeline = build_augmentation(AugmentConfig(**NEVER | {"brightness_contrast": 1}))
    for seed in range(20):
        found = augment(pipeline, ramp, seed)
        inside = (found > 0) & (found < 255)
        alpha, beta = np.polyfit(ramp[inside], found[inside], 1)
        stock = A.RandomBrightnessContrast(p=1).apply(ramp, alpha=alpha, beta=beta)
        assert np.abs(stock.astype(int) - found).max() <= 1
        assert 0.79 < alpha < 1.21 and -52 < beta < 52


def draws(pipeline: A.Compose, count: int = 500) -> np.ndarray:
    """What is where after `count` draws: coordinates and colours at three places, (count, 9)."""
    axis = np.linspace(20, 230, 32).astype(np.uint8)
    x, y = np.meshgrid(axis, axis)
    image = np.stack([x, y, np.full_like(x, 90)], axis=2)
    places = ([10, 16, 25], [12, 16, 9])
    return np.array([augment(pipeline, image, seed)[places].ravel() for seed in range(count)])


@pytest.mark.parametrize("only", [{"flip": 0.5, "rotate90": 0.5}, {"shift_scale_rotate": 1.0},
                                  {"hue_saturation": 0.7, "brightness_contrast": 0.7},
                                  {"coarse_dropout": 0.8}])  # fmt: skip
def test_the_fused_list_is_drawn_as_often_and_as_far(only):
    """Were transforms seeded alike, all of them would apply or none: other shares than these."""
    stock, fused = map(draws, both(AugmentConfig(**NEVER | only), 32))
    for one, two in zip(stock.T, fused.T, strict=True):
        assert ks_2samp(one, two).pvalue > 1e-3


def test_holes_are_those_of_coarse_dropout():
    """As many pixels are covered, and as many rectangles; the rest stays as it was."""
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    covered = []
    for pipeline in both(AugmentConfig(**NEVER | {"coarse_dropout": 1}), SIZE):
        found = np.array([augment(pipeline, image, seed)[..., 0] for seed in range(400)])
        assert set(np.unique(found)) == {0, 200}
        rows, columns = (found == 0).any(axis=2), (found == 0).any(axis=1)
        covered.append([(found == 0).sum(axis=(1, 2)), rows.sum(axis=1), columns.sum(axis=1),
                        rows.argmax(axis=1), columns.argmax(axis=1)])  # fmt: skip
    for one, two in zip(*covered, strict=True):
        assert ks_2samp(one, two).pvalue > 1e-3
