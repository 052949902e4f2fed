"""The network: backbone, gate or attention on its feature map, metadata branch, head."""

import torch
from torch import Tensor, nn

from lesions.config import ModelConfig
from lesions.errors import InputError
from lesions.models import layers
from lesions.models.backbone import build_backbone, memory_format


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
        self.gate = self.attention = self.metadata = None
        if columns and config.fusion == "gate":
            self.gate = layers.MetadataGate(columns, self.channels)
        if config.cbam:
            if getattr(self.backbone, "global_pool", None) == "token":
                raise InputError(
                    f"model.cbam: {config.backbone} pools its class token, not the patches that"
                    " cbam weighs: set model.backbone_args={global_pool: avg, fc_norm: false}"
                )
            self.attention = layers.Cbam(self.channels, config.cbam.reduction, config.cbam.kernel)
        if columns and config.fusion == "concat":
            self.metadata = layers.build_metadata_branch(columns)
            features += 128
        self.head = layers.build_head(config, features, outputs)
        for name in ("mean", "std"):
            values = torch.tensor(self.backbone.pretrained_cfg[name]) * 255
            self.register_buffer(name, values, persistent=False)

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        return self.decide(self.see(image), metadata)

    def see(self, image: Tensor) -> Tensor:
        """What the image alone decides: pooled features (B, F), before a gate the feature map.

        Of uint8 (B, 4 F) these are the bytes of the features, computed before (train.frozen).
        InputError for images of another size than the backbone's position embeddings are for.
        """
        if image.ndim == 2:
            return image.view(torch.float32)
        size, patches = image.shape[1], getattr(self.backbone, "patch_embed", None)
        expected = getattr(patches, "img_size", None)  # of position embeddings
        if expected and getattr(patches, "strict_img_size", False) and expected != (size, size):
            raise InputError(
                f"the backbone takes images of {expected[0]} pixels, data.image_size is {size}: set"
                f" data.image_size={expected[0]} or model.backbone_args={{img_size: {size}}}"
            )
        normalised = ((image - self.mean) / self.std).permute(0, 3, 1, 2)
        # As permuted it is channels_last already: only the other layout costs a copy.
        normalised = normalised.contiguous(memory_format=self.memory_format)
        feature_map = self.backbone.forward_features(normalised)
        return feature_map if self.gate is not None else self._pooled(feature_map)

    def pooled(self, seen: Tensor) -> Tensor:
        """The pooled features (B, F) of what `see` returned, without the metadata's gate."""
        return seen if self.gate is None else self._pooled(seen)

    def decide(self, seen: Tensor, metadata: Tensor) -> Tensor:
        """The logits of what `see` returned, with the rows' metadata."""
        # Half precision would tie close probabilities, and ties cost AUC.
        with torch.autocast(seen.device.type, enabled=False):
            return self.head(self.fuse(seen, metadata))

    def fuse(self, seen: Tensor, metadata: Tensor) -> Tensor:
        """The features (B, F) that enter the head, float32 if autocast is off, as in `decide`."""
        if self.gate is not None:
            factor = self.gate(metadata.float())
            seen = self._pooled(layers.weigh_channels(seen, factor))
        if self.metadata is None:
            return seen.float()
        return torch.cat([seen.float(), self.metadata(metadata.float())], dim=1)

    def _pooled(self, feature_map: Tensor) -> Tensor:
        if self.attention is not None:
            feature_map = layers.attend(self.attention, feature_map, self.channels, self.prefix)
        return self.backbone.forward_head(feature_map, pre_logits=True)
