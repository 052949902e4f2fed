"""The parts around a backbone: attention on its feature map, the metadata's way in, the heads.

A feature map has timm's shape: (B, C, H, W) of convolutional networks, (B, H, W, C) of Swin,
(B, N, C) of a ViT, whose N tokens are prefix tokens, such as the class token, and then patches.
"""

from math import isqrt

import torch
from timm.layers.cbam import ChannelAttn
from torch import Tensor, nn

from lesions.config import ModelConfig


class SpatialAttention(nn.Module):
    """timm's without its batch norm: places (B, C, H, W) weighted by their mean and maximum."""

    def __init__(self, kernel: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        over_channels = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(over_channels).sigmoid()


class Cbam(nn.Sequential):
    """Weights a map by channel, then by place unless kernel is 0: https://arxiv.org/abs/1807.06521."""

    def __init__(
        self, channels: int, reduction: int, kernel: int, act: type[nn.Module] = nn.SiLU,
        bias: bool = False,
    ):  # fmt: skip
        hidden = max(channels // reduction, 1)
        super().__init__(ChannelAttn(channels, rd_channels=hidden, act_layer=act, mlp_bias=bias))
        if kernel:
            self.append(SpatialAttention(kernel, bias))


def attend(attention: nn.Module, feature_map: Tensor, channels: int, prefix: int) -> Tensor:
    """The map after `attention`, (B, C, H, W) -> the same; a ViT's `prefix` tokens are kept."""
    if feature_map.ndim == 3:
        patches = feature_map[:, prefix:].transpose(1, 2)
        side = isqrt(patches.shape[2])  # images are square
        weighted = attention(patches.unflatten(2, (side, side))).flatten(2).transpose(1, 2)
        return torch.cat([feature_map[:, :prefix], weighted], dim=1)
    if feature_map.shape[1] == channels:
        return attention(feature_map)
    return attention(feature_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def build_metadata_branch(columns: int) -> nn.Sequential:
    """(B, C) metadata -> (B, 128) features, to stand beside the image's."""
    return nn.Sequential(
        nn.Linear(columns, 512),
        nn.BatchNorm1d(512),
        nn.SiLU(),
        nn.Dropout(0.3),
        nn.Linear(512, 128),
        nn.BatchNorm1d(128),
        nn.SiLU(),
    )


class MetadataGate(nn.Module):
    """(B, C) metadata -> (B, channels), the factor 1 + alpha m of each channel, m in -1 to 1."""

    def __init__(self, columns: int, channels: int):
        super().__init__()
        self.hidden = nn.Linear(columns, 64)
        self.output = nn.Linear(64, channels)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, metadata: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.hidden(metadata))
        if self.training:
            hidden = hidden + 0.05 * torch.randn_like(hidden)
        return 1 + self.alpha * self.output(hidden).tanh()


def weigh_channels(feature_map: Tensor, factor: Tensor) -> Tensor:
    """The map with each image's channels times its `factor` (B, C)."""
    if feature_map.ndim == 3:
        return feature_map * factor[:, None]
    first = feature_map.shape[1] == factor.shape[1]
    return feature_map * (factor[:, :, None, None] if first else factor[:, None, None])


class MultiSampleDropout(nn.Module):
    """Five dropout masks through one linear layer, averaged: https://arxiv.org/abs/1905.09788."""

    def __init__(self, features: int, outputs: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, outputs)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return self.linear(features)
        logits = [self.linear(self.dropout(features)) for _ in range(5)]
        return torch.stack(logits).mean(dim=0)


def build_head(config: ModelConfig, features: int, outputs: int) -> nn.Module:
    """The head that `config` names, pooled features (B, F) -> logits (B, outputs).

    A funnel narrows with SiLU, batch norm, and dropout that halves from layer to layer.
    """
    if config.head == "linear":
        return nn.Linear(features, outputs)
    if config.head == "multi_sample_dropout":
        return MultiSampleDropout(features, outputs, config.dropout)
    layers: list[nn.Module] = [nn.BatchNorm1d(features)]
    dropout = config.dropout
    for width in config.funnel:
        layers += [nn.Linear(features, width), nn.SiLU()]
        layers += [nn.BatchNorm1d(width), nn.Dropout(dropout)]
        features, dropout = width, dropout / 2
    return nn.Sequential(*layers, nn.Linear(features, outputs))
