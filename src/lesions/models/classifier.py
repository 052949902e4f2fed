"""The network: backbone, gate or attention on its feature map, metadata branch, head."""

from typing import Any

import torch
from torch import Tensor, nn

from lesions.config import ModelConfig
from lesions.models.backbone import build_backbone, memory_format, require_map, require_size
from lesions.models.layers import (
    Cbam,
    MetadataBranch,
    MetadataGate,
    attend,
    build_head,
    weigh_channels,
)


class LesionClassifier(nn.Module):
    """uint8 images (B, S, S, 3) and metadata (B, C) -> float32 logits (B, outputs)."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, columns: int, outputs: int = 1, weights: bool = True):
        super().__init__()
        self.backbone = build_backbone(config, weights)
        self.memory_format = memory_format(config.backbone)
        self.channels: int = self.backbone.num_features
        self.prefix: int = getattr(self.backbone, "num_prefix_tokens", 0)
        features: int = self.backbone.head_hidden_size
        gated = bool(columns) and config.fusion == "gate"
        self.gate = MetadataGate(columns, self.channels) if gated else None
        self.attention = None
        if config.cbam:
            require_map(self.backbone, config)
            self.attention = Cbam(self.channels, config.cbam.reduction, config.cbam.kernel)
        self.metadata = MetadataBranch(columns) if columns and not gated else None
        if self.metadata is not None:
            features += self.metadata.width
        self.head = build_head(config, features, outputs)
        expected: dict[str, Any] = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(expected["mean"]) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(expected["std"]) * 255, persistent=False)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        require_size(self.backbone, image.shape[1])
        normalised = ((image - self.mean) / self.std).permute(0, 3, 1, 2)
        # As permuted it is channels_last already: only the other layout costs a copy.
        normalised = normalised.contiguous(memory_format=self.memory_format)
        feature_map = self.backbone.forward_features(normalised)
        if self.gate is not None:
            with torch.autocast(image.device.type, enabled=False):
                factor = self.gate(metadata.float())
            feature_map = weigh_channels(feature_map, factor)
        if self.attention is not None:
            feature_map = attend(self.attention, feature_map, self.channels, self.prefix)
        features = self.backbone.forward_head(feature_map, pre_logits=True)
        # Half precision would tie close probabilities, and ties cost AUC.
        with torch.autocast(image.device.type, enabled=False):
            features = features.float()
            if self.metadata is not None:
                features = torch.cat([features, self.metadata(metadata.float())], dim=1)
            return self.head(features)
