"""What acts on a feature map in any of the shapes in which timm's backbones give it.

(B, C, H, W) of convolutional networks, (B, H, W, C) of Swin, (B, N, C) of a ViT: its N tokens are
some prefix tokens, such as the class token, and then the patches row by row.
"""

from math import isqrt

import torch
from torch import Tensor, nn


def weigh_channels(feature_map: Tensor, factor: Tensor) -> Tensor:
    """The map with each image's channels times its `factor` (B, C)."""
    batch, channels = factor.shape
    if feature_map.ndim == 4 and feature_map.shape[1] == channels:
        return feature_map * factor[:, :, None, None]
    return feature_map * factor.reshape(batch, *[1] * (feature_map.ndim - 2), channels)


def attend(attention: nn.Module, feature_map: Tensor, channels: int, prefix: int) -> Tensor:
    """The map after `attention`, (B, C, H, W) -> the same; the `prefix` tokens of a ViT stay."""
    if feature_map.ndim == 3:
        patches = feature_map[:, prefix:].transpose(1, 2)
        side = isqrt(patches.shape[2])  # images are square
        weighed = attention(patches.unflatten(2, (side, side))).flatten(2).transpose(1, 2)
        return torch.cat([feature_map[:, :prefix], weighed], dim=1)
    if feature_map.shape[1] == channels:
        return attention(feature_map)
    return attention(feature_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
