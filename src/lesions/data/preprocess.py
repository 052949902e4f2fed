"""Optional preprocessing of a photograph before it enters the cache; the default only resizes."""

import cv2
import numpy as np

from lesions.config import PreprocessConfig

_REFERENCE = 224  # pixels: the size for which kernel widths are usually given


def fitted(pixels: np.ndarray, size: int, config: PreprocessConfig) -> np.ndarray:
    """uint8 RGB (H, W, 3) as (size, size, 3), cropped, padded and cleaned as the config says."""
    if config.circle:
        pixels = crop_circle(pixels)
    height, width = pixels.shape[:2]
    if config.fit == "crop":  # the largest central square
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    elif config.fit == "pad":  # black, so that shapes are not distorted
        high, wide = max(width - height, 0), max(height - width, 0)
        edges = [(high // 2, high - high // 2), (wide // 2, wide - wide // 2), (0, 0)]
        pixels = np.pad(pixels, edges)
    image = resized(pixels, size)
    if config.hair:
        image = remove_hair(image)
    if config.shades_of_gray:
        image = shades_of_gray(image)
    if config.clahe:
        image = equalise(image)
    return image


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3): averaged down, or enlarged smoothly where no side is larger."""
    how = cv2.INTER_AREA if max(pixels.shape[:2]) >= size else cv2.INTER_CUBIC
    return cv2.resize(pixels, (size, size), interpolation=how)


def crop_circle(pixels: np.ndarray) -> np.ndarray:
    """The rectangle inside a dermatoscope's round field; the photograph itself without one.

    A photograph has a round field if its corners are dark and its middle is not. The rectangle has
    the frame's aspect ratio and its corners on the field's edge, so that no dark corner is left.
    """
    height, width = pixels.shape[:2]
    scale = 128 / max(height, width)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    bright = cv2.GaussianBlur(grey, (0, 0), 2) > max(25, int(grey.max()) // 6)
    corners = [bright[y, x] for y in (2, -3) for x in (2, -3)]
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    if sum(corners) > 1 or bright.mean() < 0.1:
        return pixels
    middle = (rows[0] + rows[-1] + 1) / 2 / scale, (columns[0] + columns[-1] + 1) / 2 / scale
    radius = max(rows[-1] - rows[0], columns[-1] - columns[0]) / 2 / scale
    corner = np.hypot(height, width) / 2
    reach = min(1.0, radius / corner)  # of the frame's half diagonal lies in the field
    tall, wide = height / 2 * reach, width / 2 * reach
    top, left = max(0, int(middle[0] - tall)), max(0, int(middle[1] - wide))
    return pixels[top : int(middle[0] + tall) + 1, left : int(middle[1] + wide) + 1]


def remove_hair(image: np.ndarray) -> np.ndarray:
    """Hair removal like DullRazor's: a black-hat filter finds dark lines, Telea inpaints them."""
    width = max(5, image.shape[0] * 17 // _REFERENCE | 1)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (width, width))
    lines = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel)
    mask = cv2.threshold(lines, 10, 255, cv2.THRESH_BINARY)[1]
    return cv2.inpaint(image, mask, 1, cv2.INPAINT_TELEA)


def shades_of_gray(image: np.ndarray, power: int = 6) -> np.ndarray:
    """Colour constancy: colours under a neutral light, estimated by the channels' Minkowski means.

    Finlayson and Trezzi 2004; power 6 as is usual in dermoscopy (Barata et al. 2015).
    """
    light = (image.reshape(-1, 3).astype(float) ** power).mean(axis=0) ** (1 / power)
    gain = np.linalg.norm(light) / np.sqrt(3) / np.maximum(light, 1)
    return np.clip(image * gain, 0, 255).round().astype(np.uint8)


def equalise(image: np.ndarray) -> np.ndarray:
    """Contrast-limited histogram equalisation of the lightness (clip 2, 8 x 8 tiles)."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
