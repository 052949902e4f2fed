"""Drawn lesions for the embedded sample: skin, a lesion, hairs, vignette, from seeds alone."""

from collections.abc import Hashable
from typing import Any

import cv2
import numpy as np

LOOKS = {  # mean hidden score, and RGB of the lesion's body
    "MEL": (2.2, (122, 80, 58)), "NV": (0.0, (138, 92, 66)), "BKL": (0.5, (146, 112, 84)),
    "BCC": (0.5, (186, 122, 112)), "SCC": (0.5, (184, 110, 100)), "AK": (0.0, (190, 128, 112)),
    "DF": (0.0, (168, 124, 104)), "VASC": (0.0, (160, 54, 60)),
}  # fmt: skip
PATCHES = [  # the further colours of a malignant lesion, RGB and strength: black, blue, red, white
    ((52, 34, 30), 0.85), ((92, 98, 118), 0.7), ((176, 74, 66), 0.5), ((214, 190, 176), 0.4),
]  # fmt: skip


def _grain(rng: np.random.Generator, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about unit spread, `cells` bumps across."""
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def draw_lesion(seed: int, lesion: int, diagnosis: str, score: float) -> np.ndarray:
    """(192, 192, 4) float32: RGB of 0 to 255 and how much of it covers the skin, 0 to 1."""
    rng = np.random.default_rng([seed, 2, lesion])
    signs = 1 / (1 + np.exp(-(score - 1.1 + rng.normal(0, 0.8, 4))))
    lopsided, ragged, colourful, wide = signs  # the A, B, C and D of the ABCD rule
    axis = np.linspace(-1, 1, 192, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    waves = np.arange(3, 12)
    bumps = rng.normal(size=9) * (0.03 + 0.24 * ragged) / waves
    edge = 1 + 0.12 * np.cos(2 * turn) + (0.05 + 0.25 * lopsided) * np.cos(turn + 1)
    edge = edge + np.cos(waves * turn[:, None] + rng.uniform(0, 6.28, 9)) @ bumps
    radius = (0.32 + 0.26 * wide) * edge.astype(np.float32)
    angle = ((np.arctan2(y, x) + np.pi) * (359 / (2 * np.pi))).astype(np.int32)
    depth = radius[angle] - np.hypot(x, y)
    cover = 1 / (1 + np.exp(-depth / rng.uniform(0.015, 0.05)))
    shape = (192, 192)
    body = np.asarray(LOOKS[diagnosis][1], np.float32) + rng.normal(0, 5, 3) + rng.normal(0, 16)
    tone = 7 * _grain(rng, 7, shape) + 8 * _grain(rng, 44, shape) - 45 * np.clip(depth, 0, 0.5)
    colour = body + tone[..., None]
    for hue, strength in PATCHES:
        field = _grain(rng, 8, shape) + 2.2 * colourful - 2.0
        share = strength / (1 + np.exp(-4 * field))[..., None]
        colour = colour + share * (np.asarray(hue, np.float32) - colour)
    return np.dstack([colour, cover]).astype(np.float32)


def draw_photo(seed: int, row: dict[Hashable, Any]) -> np.ndarray:
    """(height, width, 3) uint8 RGB: the lesion on the person's skin, as one photograph shows it."""
    skin = np.random.default_rng([seed, 1, row["person"]])
    rng = np.random.default_rng([seed, 3, row["photo"]])
    shape = (192, 256)
    tone = np.array([222, 176, 152], np.float32) + skin.normal(0, 11) + skin.normal(0, 6, 3)
    scene = tone + (4 * _grain(rng, 4, shape) + 3 * _grain(rng, 60, shape))[..., None]
    zoom = rng.uniform(0.85, 1.15)
    turn = cv2.getRotationMatrix2D((95.5, 95.5), rng.uniform(0, 360), zoom)
    place = np.asarray(turn, np.float64)
    place[:, 2] += np.array([32.5, 0.5]) + rng.normal(0, 7, 2)
    lesion = draw_lesion(seed, row["lesion"], row["diagnosis"], row["score"])
    layer = cv2.warpAffine(lesion, place, shape[::-1])
    scene += layer[..., 3:] * (layer[..., :3] - scene)
    light = rng.normal(1, 0.05) + 0.04 * _grain(rng, 2, shape)
    scene = scene * light[..., None] * rng.normal(1, 0.02, 3)
    x, y = np.meshgrid(np.linspace(-4 / 3, 4 / 3, 256), np.linspace(-1, 1, 192))
    if rng.random() < 0.25:
        rim = 1 / (1 + np.exp((np.hypot(x, y) - rng.uniform(1.15, 1.45)) * 25))
        scene *= rim[..., None]
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _draw_hairs(picture, rng)
    return _frame(picture, row["width"], row["height"])


def _frame(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle of the picture in the shape asked for, enlarged or reduced to it."""
    high, wide = picture.shape[:2]
    keep = min(wide, high * width // height), min(high, wide * height // width)
    left, top = (wide - keep[0]) // 2, (high - keep[1]) // 2
    middle = picture[top : top + keep[1], left : left + keep[0]]
    return cv2.resize(middle, (width, height), interpolation=cv2.INTER_CUBIC)


def _draw_hairs(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Some arcs of about one direction and colour over the picture, in place."""
    lean, dark = rng.uniform(0, np.pi), rng.uniform(30, 80)
    along = np.linspace(-1, 1, 24)
    for _ in range(rng.integers(4, 16)):
        turn, reach, bow = rng.normal(lean, 0.5), rng.uniform(25, 90), rng.normal(0, 14)
        middle = rng.uniform([0, 0], [256, 192])
        x, y = reach * along, bow * along**2
        cos, sin = np.cos(turn), np.sin(turn)
        curve = middle + np.column_stack([cos * x - sin * y, sin * x + cos * y])
        points = np.round(curve * 16).astype(np.int32)  # four bits of it are the fraction
        colour = (dark * 1.1, dark * 0.9, dark * 0.8)
        cv2.polylines(picture, [points], False, colour, 1, cv2.LINE_AA, 4)
