"""CBAM: which channels and which places of the feature map count."""

import torch
from timm.layers.cbam import ChannelAttn
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """(B, C, H, W) -> the same, each place weighed by the mean and maximum of its channels.

    timm's has a batch norm before the sigmoid; the systems that are rebuilt here have none.
    """

    def __init__(self, kernel: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        over_channels = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * self.conv(over_channels).sigmoid()


class Cbam(nn.Sequential):
    """(B, C, H, W) -> the same, weighed by channel and then by place; kernel 0: by channel alone.

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
