"""The DermaMNIST study's small networks as timm backbones; sizes can be set by backbone_args.

They end in a dense layer and its dropout, so model.head is `linear` with them.
"""

from typing import Any

import timm.models
from torch import Tensor, nn
from torch.nn import functional as F

from lesions.models.layers import Cbam


def _convolution(channels: int, filters: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]


class LesionsCnn(nn.Module):
    """(B, 3, S, S) -> features (B, dense).

    It has `depth` blocks of two convolutions, the first `filters` wide, the second twice and the
    others four times that. Each halves the side: S is at least 2 ** depth. A hybrid has a stem.
    """

    def __init__(
        self, filters: int, depth: int, dense: int, drop_rate: float, stem: bool = False,
        cbam: bool = False, num_classes: int = 0, in_chans: int = 3,
    ):  # fmt: skip
        super().__init__()
        self.drop_rate, self.grad_checkpointing = drop_rate, False
        channels = filters if stem else in_chans
        self.stem = nn.Sequential(*(_convolution(in_chans, filters) if stem else []))
        self.blocks = nn.Sequential()
        for number in range(depth):
            width = filters * 2 ** min(number, 2)
            layers = _convolution(channels, width) + _convolution(width, width)
            if cbam:
                layers.append(Cbam(width, reduction=8, kernel=3, act=nn.ReLU, bias=True))
            self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2), nn.Dropout(drop_rate / 2)))
            channels = width
        self.num_features, self.head_hidden_size = channels, dense
        self.dense = nn.Linear(channels, dense)
        self.norm = nn.BatchNorm1d(dense)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, num_features, S / 2 ** depth, S / 2 ** depth)."""
        x = self.stem(x)
        if self.grad_checkpointing:
            return timm.models.checkpoint_seq(self.blocks, x)
        return self.blocks(x)

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:
        x = self.norm(self.dense(x.mean((2, 3))).relu())
        return F.dropout(x, self.drop_rate, self.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable


NETWORKS: dict[str, dict[str, Any]] = {
    "lesions_cnn_shallow": {"filters": 32, "depth": 3, "dense": 128, "drop_rate": 0.4},
    "lesions_cnn_deep": {"filters": 64, "depth": 4, "dense": 256, "drop_rate": 0.4},
    "lesions_cnn_wide": {"filters": 128, "depth": 3, "dense": 256, "drop_rate": 0.5},
    "lesions_hybrid": {"filters": 64, "depth": 3, "dense": 256, "drop_rate": 0.5, "stem": True},
    "lesions_hybrid_cbam": {
        "filters": 64, "depth": 3, "dense": 256, "drop_rate": 0.5, "stem": True, "cbam": True
    },
}  # fmt: skip
default_cfgs = timm.models.generate_default_cfgs({  # timm looks for this name
    name: {
        "input_size": (3, 28, 28), "pool_size": (3, 3), "num_classes": 0, "crop_pct": 1.0,
        "interpolation": "bilinear", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0),
    }
    for name in NETWORKS
})  # fmt: skip


def _register(name: str) -> None:
    def build(pretrained: bool = False, **arguments: Any) -> LesionsCnn:
        sizes = NETWORKS[name] | arguments
        return timm.models.build_model_with_cfg(LesionsCnn, name, pretrained, **sizes)

    build.__name__ = name
    timm.models.register_model(build)


for _name in NETWORKS:
    _register(_name)
