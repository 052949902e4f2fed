"""The parts around a backbone: attention on its feature map, the metadata's way in, the heads.

A feature map has the shape in which timm's backbone gives it: (B, C, H, W) of convolutional
networks, (B, H, W, C) of Swin, (B, N, C) of a ViT, whose N tokens are some prefix tokens, such as
the class token, and then the patches row by row.
"""

from math import isqrt

import torch
from timm.layers.cbam import ChannelAttn
from torch import Tensor, nn

from lesions.config import ModelConfig


class SpatialAttention(nn.Module):
    """(B, C, H, W) -> the same, each place times a weight from the channels' mean and maximum.

    timm's has a batch norm before the sigmoid; the systems that are rebuilt here have none.
    """

    def __init__(self, kernel: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        over_channels = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(over_channels).sigmoid()


class Cbam(nn.Sequential):
    """(B, C, H, W) -> the same, weighted by channel and then by place; kernel 0: by channel only.

    Woo et al., 2018: https://arxiv.org/abs/1807.06521.
    """

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


class MetadataBranch(nn.Sequential):
    """(B, C) metadata -> (B, 128) features, to stand beside the image's."""

    width = 128

    def __init__(self, columns: int):
        super().__init__(
            nn.Linear(columns, 512),
            nn.BatchNorm1d(512),
            nn.SiLU(),
            nn.Dropout(0.3),
            nn.Linear(512, self.width),
            nn.BatchNorm1d(self.width),
            nn.SiLU(),
        )


class MetadataGate(nn.Module):
    """(B, C) metadata -> (B, channels), the factor 1 + alpha m of each channel, m in -1 to 1."""

    width = 64
    noise = 0.05  # standard deviation, in training only

    def __init__(self, columns: int, channels: int):
        super().__init__()
        self.hidden = nn.Linear(columns, self.width)
        self.output = nn.Linear(self.width, channels)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, metadata: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.hidden(metadata))
        if self.training:
            hidden = hidden + self.noise * torch.randn_like(hidden)
        return 1 + self.alpha * self.output(hidden).tanh()


def weigh_channels(feature_map: Tensor, factor: Tensor) -> Tensor:
    """The map with each image's channels times its `factor` (B, C)."""
    batch, channels = factor.shape
    if feature_map.ndim == 4 and feature_map.shape[1] == channels:
        return feature_map * factor[:, :, None, None]
    return feature_map * factor.reshape(batch, *[1] * (feature_map.ndim - 2), channels)


class MultiSampleDropout(nn.Module):
    """Five dropout masks through one shared linear layer, logits averaged.

    Inoue, 2019: https://arxiv.org/abs/1905.09788. In evaluation it is the linear layer alone.
    """

    samples = 5

    def __init__(self, features: int, outputs: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, outputs)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return self.linear(features)
        logits = [self.linear(self.dropout(features)) for _ in range(self.samples)]
        return torch.stack(logits).mean(dim=0)


class Funnel(nn.Sequential):
    """Ever narrower layers with SiLU, batch norm, and dropout, halved from layer to layer."""

    def __init__(self, features: int, outputs: int, dropout: float, widths: list[int]):
        layers: list[nn.Module] = [nn.BatchNorm1d(features)]
        for width in widths:
            layers += [nn.Linear(features, width), nn.SiLU()]
            layers += [nn.BatchNorm1d(width), nn.Dropout(dropout)]
            features, dropout = width, dropout / 2
        super().__init__(*layers, nn.Linear(features, outputs))


def build_head(config: ModelConfig, features: int, outputs: int) -> nn.Module:
    """The head that `config` names, pooled features (B, F) -> logits (B, outputs)."""
    if config.head == "linear":
        return nn.Linear(features, outputs)
    if config.head == "funnel":
        return Funnel(features, outputs, config.dropout, config.funnel)
    return MultiSampleDropout(features, outputs, config.dropout)
