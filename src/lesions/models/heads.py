"""The heads: pooled features (B, F) -> logits (B, outputs)."""

import torch
from torch import Tensor, nn

from lesions.config import ModelConfig


class MultiSampleDropout(nn.Module):
    """Several dropout masks through one shared linear layer, logits averaged.

    Inoue, 2019: https://arxiv.org/abs/1905.09788. In evaluation it is the linear layer alone.
    """

    def __init__(self, features: int, outputs: int, dropout: float, samples: int):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, outputs)
        self.samples = samples

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return self.linear(features)
        logits = [self.linear(self.dropout(features)) for _ in range(self.samples)]
        return torch.stack(logits).mean(dim=0)


class Funnel(nn.Sequential):
    """Ever narrower layers, SiLU, batch norm, and a dropout that halves from each to the next."""

    def __init__(self, features: int, outputs: int, dropout: float, widths: list[int]):
        layers: list[nn.Module] = [nn.BatchNorm1d(features)]
        for width in widths:
            layers += [nn.Linear(features, width), nn.SiLU()]
            layers += [nn.BatchNorm1d(width), nn.Dropout(dropout)]
            features, dropout = width, dropout / 2
        super().__init__(*layers, nn.Linear(features, outputs))


def build_head(config: ModelConfig, features: int, outputs: int) -> nn.Module:
    """The head that `config` names: a linear layer, or one of the above."""
    if config.head == "linear":
        return nn.Linear(features, outputs)
    if config.head == "funnel":
        return Funnel(features, outputs, config.dropout, config.funnel)
    return MultiSampleDropout(features, outputs, config.dropout, config.dropout_samples)
