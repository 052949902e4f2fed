"""Mixup and cutmix of a batch on the device: a pure function of the batch and a seed."""

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]


def mix_batch(batch: Batch, mixup: float, cutmix: float, seed: int) -> Batch:
    """Images (B, S, S, 3), metadata and targets, each row mixed with another of the batch.

    Targets are shares: (B,) of the second of two classes, or (B, K).

    `mixup` and `cutmix` are the alphas of Beta(alpha, alpha), 0 for off; with both on, a coin
    decides. Images come back as float32. Metadata and targets take the images' shares. Zhang et
    al., 2017: https://arxiv.org/abs/1710.09412; Yun et al., 2019: https://arxiv.org/abs/1905.04899.
    """
    if not mixup and not cutmix:
        return batch
    image, metadata, target = batch
    draw = np.random.default_rng(seed)
    cut = cutmix > 0 and (not mixup or draw.random() < 0.5)
    share = draw.beta(cutmix, cutmix) if cut else draw.beta(mixup, mixup)
    other = torch.from_numpy(draw.permutation(len(image))).to(image.device)
    image = image.float()
    if cut:
        top, bottom, left, right = _box(draw, image.shape[1], share)
        mixed = image.clone()
        mixed[:, top:bottom, left:right] = image[other, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / image.shape[1] ** 2
    else:
        mixed = image * share + image[other] * (1 - share)
    return (
        mixed,
        metadata * share + metadata[other] * (1 - share),
        target * share + target[other] * (1 - share),
    )


def _box(draw: np.random.Generator, size: int, share: float) -> tuple[int, int, int, int]:
    """A square of 1 - `share` of the image around a random point, cut off at the edges."""
    half = round(size * np.sqrt(1 - share) / 2)
    y, x = (int(value) for value in draw.integers(0, size, 2))
    return max(0, y - half), min(size, y + half), max(0, x - half), min(size, x + half)
