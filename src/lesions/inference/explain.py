"""Where a model looks (Grad-CAM, occlusion), and what each metadata field changes.

Grad-CAM is of Selvaraju et al., 2017: https://arxiv.org/abs/1610.02391.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesions.data.metadata import encode_metadata
from lesions.errors import InputError
from lesions.inference.predict import probabilities
from lesions.models.classifier import LesionClassifier

# What a table's column holds where nothing is known, by data.metadata.
CLINICAL: dict[str, Any] = {"sex": "", "age_approx": np.nan, "site": ""}
FIELDS: dict[str, dict[str, Any]] = {
    "none": {},
    "clinical": CLINICAL,
    "full": CLINICAL | {"images_per_patient": np.nan, "bytes": np.nan},
    "ham10000": {"sex": "", "age_approx": np.nan, "localization": ""},
}


def grad_cam(
    model: LesionClassifier, images: Tensor, metadata: Tensor, output: int, against: bool = False
) -> np.ndarray:
    """What speaks for (or `against`) logit `output`: float32 (B, S, S) in [0, 1], maximum 1.

    `images` are uint8 (B, S, S, 3) and `metadata` (B, C), as the model takes them; the model is in
    evaluation mode. All zeros where no place speaks for it: of a model that answers yes or no,
    ask an image that it calls benign what speaks against.
    """
    maps = coarse_grad_cam(model, images, metadata, output, against)
    size = (images.shape[1], images.shape[2])
    maps = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    peak = maps.amax((1, 2), keepdim=True)
    return (maps / peak.where(peak > 0, 1)).cpu().numpy()


def coarse_grad_cam(
    model: LesionClassifier, images: Tensor, metadata: Tensor, output: int, against: bool = False
) -> Tensor:
    """Grad-CAM as it is defined, at the resolution of the backbone's last map: (B, h, w), >= 0."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, result: Tensor) -> Tensor:
        seen.append(result.detach().requires_grad_())  # the gradient goes no further back
        return seen[0]

    hook = target_layer(model, images.shape[1]).register_forward_hook(keep)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logit = model(images, metadata)[:, output].sum()
            gradient = torch.autograd.grad(-logit if against else logit, seen[0])[0]
    finally:
        hook.remove()
    features, gradient = (_channels_first(model.backbone, each) for each in (seen[0], gradient))
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu().detach()


@torch.no_grad()
def target_layer(model: LesionClassifier, size: int) -> nn.Module:
    """The module whose output Grad-CAM looks at: the map that is pooled for the head.

    A ViT's last block reads its patches through the class token alone, so it is what enters that
    block. InputError for a backbone without such a module.
    """
    backbone = model.backbone
    if hasattr(backbone, "num_prefix_tokens"):
        return backbone.blocks[-1].norm1
    ran: list[tuple[nn.Module, Any]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, result: ran.append((module, result)))
        for module in backbone.modules()
    ]
    try:
        last = backbone.forward_features(model.mean.new_zeros(1, 3, size, size))
    finally:
        for hook in hooks:
            hook.remove()
    for module, result in reversed(ran):
        if result is last:
            return module
    raise InputError(f"{type(backbone).__name__}: no layer of it gives the map that is pooled")


def _channels_first(backbone: Any, features: Tensor) -> Tensor:
    """Tokens (B, N, F) or a map (B, h, w, F), as transformers have them, as (B, F, h, w)."""
    if features.ndim == 3:
        patches = features[:, getattr(backbone, "num_prefix_tokens", 0) :]
        side = round(patches.shape[1] ** 0.5)  # images are square
        features = patches.unflatten(1, (side, -1))
    elif getattr(backbone, "output_fmt", "NCHW") != "NHWC":
        return features
    return features.permute(0, 3, 1, 2)


@torch.no_grad()
def occlusion(
    model: LesionClassifier, images: Tensor, metadata: Tensor, output: int, cells: int = 8
) -> np.ndarray:
    """How much logit `output` falls when a cell of the image is covered: float32 (B, cells, cells).

    A cell is painted with its image's mean colour. Negative where covering raises the logit.
    """
    size = images.shape[1]
    edges = np.linspace(0, size, cells + 1).round().astype(int)
    colour = images.float().mean((1, 2), keepdim=True).round().to(images.dtype)
    whole = model(images, metadata)[:, output]
    falls = whole.new_zeros(len(images), cells, cells)
    for row in range(cells):
        for column in range(cells):
            covered = images.clone()
            top, left = edges[row], edges[column]
            covered[:, top : edges[row + 1], left : edges[column + 1]] = colour
            falls[:, row, column] = whole - model(covered, metadata)[:, output]
    return falls.cpu().numpy()


@torch.no_grad()
def metadata_effects(
    model: LesionClassifier,
    header: Mapping[str, Any],
    images: Tensor,
    rows: pd.DataFrame,
    output: int,
) -> pd.DataFrame:
    """P(`output`) less what it would be with a field unknown: a row an image, a column a field.

    `rows` are table rows and `header` is the checkpoint's. The columns are the fields that the
    model takes, none for a model without metadata; an unknown field has the effect 0.
    """
    kind = header["config"]["data"]["metadata"]

    def probability(table: pd.DataFrame) -> np.ndarray:
        encoded = torch.from_numpy(encode_metadata(table, kind, header["neutral"]))
        logits = model(images, encoded.to(images.device))
        return probabilities(logits)[:, output].cpu().numpy()

    known = probability(rows)
    effects = {
        field: known - probability(rows.assign(**{field: unknown}))
        for field, unknown in FIELDS[kind].items()
    }
    return pd.DataFrame(effects, index=rows.index)


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """The map laid over its photograph: uint8 RGB (S, S, 3); where the map is 0 it stays as it was.

    `image` is uint8 RGB (S, S, 3), `cam` (S, S) in [0, 1].
    """
    levels = (cam * 255).round().astype(np.uint8)
    colour = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
    weight = 0.7 * cam[:, :, None]
    return (image * (1 - weight) + colour * weight).round().astype(np.uint8)
