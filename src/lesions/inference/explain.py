"""Where a model looks (Grad-CAM), and what each metadata field changes.

Grad-CAM is of Selvaraju et al., 2017: https://arxiv.org/abs/1610.02391.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lesions.data.metadata import FIELDS, NOTHING, encode_metadata
from lesions.inference.checkpoint import Fold
from lesions.inference.ensemble import Run, load_run
from lesions.inference.predict import probabilities
from lesions.models.classifier import LesionClassifier
from lesions.oof import load_oof

BATCH = 64  # images a forward pass


@dataclass(frozen=True)
class Explained:
    """A run and its out-of-fold rows: table rows with further columns, numbered from 0.

    `score` is P(positive) and `positive` the truth; `output` and `against` are the logit, and the
    sign, of the class that the run predicted; `answer` is its name. `images` are the data set's,
    by the column `row`.
    """

    run: Run
    rows: pd.DataFrame
    threshold: float
    images: np.ndarray


def load_explained(spec: str | Path | None, folds: Sequence[int] | None = None) -> Explained:
    """The run that `spec` means, all trained folds or `folds`: predictions and photographs."""
    run = load_run(spec, folds)
    trained = tuple(fold.number for fold in run.folds)
    oof, (_, images) = load_oof(replace(run.files, folds=trained)), run.load_data()
    threshold = run.calibration.threshold.value if run.calibration else 0.5
    best = oof.probs.argmax(axis=1)
    against = ~(oof.task.several | (oof.score >= threshold))
    names = np.array([*oof.task.classes, f"no {oof.task.name}"])
    rows = oof.table.assign(
        score=oof.score, positive=oof.positive, output=best, against=against,
        answer=names[np.where(against, -1, best)],
    )  # fmt: skip
    return Explained(run, rows, threshold, images)


def explained_batches(
    explained: Explained, rows: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, Fold, Tensor, Tensor, int, bool]]:
    """Some of `rows`, then the fold that did not see them, and what `grad_cam` takes of them."""
    folds = {fold.number: fold for fold in explained.run.folds}
    groups: Any = rows.groupby(["fold", "output", "against"])
    for (number, output, against), whole in groups:
        for start in range(0, len(whole), BATCH):
            part, fold = whole.iloc[start : start + BATCH], folds[number]
            pixels, metadata = map(torch.from_numpy, arrays_of(explained, fold, part))
            yield part, fold, pixels, metadata, int(output), bool(against)


def arrays_of(
    explained: Explained, fold: Fold, rows: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """What a model takes of table rows: uint8 (N, S, S, 3) and float32 (N, M)."""
    images = np.stack([explained.images[position] for position in rows["row"]])
    kind = explained.run.config.data.metadata
    return images, encode_metadata(rows, kind, fold.header["neutral"])


def grad_cam(
    model: LesionClassifier, images: Tensor, metadata: Tensor, output: int, against: bool = False
) -> np.ndarray:
    """The evidence for (or `against`) logit `output`: float32 (B, S, S) in [0, 1], maximum 1.

    `images` are uint8 (B, S, S, 3) and `metadata` (B, M), as the model takes them; the model is in
    evaluation mode. All zeros where nothing raises the logit: for an image that a yes-or-no model
    calls negative, ask for the evidence against.
    """
    maps = coarse_grad_cam(model, images, metadata, output, against)
    maps = F.interpolate(maps[:, None], images.shape[1:3], mode="bilinear")[:, 0]
    peak = maps.amax((1, 2), keepdim=True)
    return (maps / peak.where(peak > 0, 1)).cpu().numpy()


def coarse_grad_cam(
    model: LesionClassifier, images: Tensor, metadata: Tensor, output: int, against: bool = False
) -> Tensor:
    """Grad-CAM as it is defined, at the resolution of the map that it looks at: (B, h, w), >= 0.

    That is the map that is pooled for the head. Of EfficientNet and its kin it is what enters the
    last stage: the pooled map mixes places so much that it misses the lesion more than a centred
    disc does (docs/explanations.md). A ViT's last block reads its patches through the class token
    alone, so it is what enters that block.
    """
    backbone = model.backbone
    owner, name = backbone, "forward_features"
    if hasattr(backbone, "num_prefix_tokens"):
        owner, name = backbone.blocks[-1].norm1, "forward"
    elif hasattr(backbone, "conv_head"):
        owner, name = backbone.blocks[-2], "forward"
    forward, seen = getattr(owner, name), list[Tensor]()

    def keep(features: Tensor) -> Tensor:
        seen.append(forward(features).detach().requires_grad_())  # the gradient goes no further
        return seen[0]

    setattr(owner, name, keep)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logit = model(images, metadata)[:, output].sum()
            gradient = torch.autograd.grad(-logit if against else logit, seen[0])[0]
    finally:
        delattr(owner, name)
    features, gradient = (_channels_first(backbone, each) for each in (seen[0], gradient))
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu().detach()


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
        field: known - probability(rows.assign(**{field: NOTHING[field]})) for field in FIELDS[kind]
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
