"""The network: backbone and metadata branch, concatenated, into a multi-sample dropout head."""

from typing import Any

import torch
from torch import Tensor, nn

from lesions.config import ModelConfig
from lesions.models.backbone import build_backbone


class MetadataBranch(nn.Sequential):
    """(B, C) metadata -> (B, 128) features."""

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


class LesionClassifier(nn.Module):
    """uint8 images (B, S, S, 3) and metadata (B, C) -> float32 logits (B, outputs)."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, columns: int, outputs: int = 1, weights: bool = True):
        super().__init__()
        self.backbone = build_backbone(config, weights)
        features: int = self.backbone.head_hidden_size
        self.metadata = MetadataBranch(columns) if columns else None
        if self.metadata is not None:
            features += self.metadata.width
        self.head = MultiSampleDropout(features, outputs, config.dropout, config.dropout_samples)
        expected: dict[str, Any] = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(expected["mean"]) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(expected["std"]) * 255, persistent=False)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        # A permuted (B, S, S, 3) tensor already is channels_last: no copy is made for it.
        normalised = ((image - self.mean) / self.std).permute(0, 3, 1, 2)
        features = self.backbone(normalised)
        # Half precision would tie close probabilities, and ties cost AUC.
        with torch.autocast(image.device.type, enabled=False):
            features = features.float()
            if self.metadata is not None:
                features = torch.cat([features, self.metadata(metadata.float())], dim=1)
            return self.head(features)
