"""How the network learns: learning rate by step, staged unfreezing, optimisers, mixed batches."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lesions.config import StageConfig, TrainConfig
from lesions.errors import InputError, listed

Batch = tuple[Tensor, Tensor, Tensor]


def schedule_factor(
    train: TrainConfig, step: int, steps: int, epoch_steps: int, monitored: Sequence[float]
) -> float:
    """The lr at `step` (from 0) of `steps` as a share of the full lr: nothing to save for a resume.

    `monitored` has one value for each epoch so far, more is better, which plateau looks at.
    """
    warmup = round(train.warmup_epochs * epoch_steps)
    rise, after = min(1.0, (step + 1) / max(1, warmup)), max(0, step - warmup)
    if train.schedule == "cosine":
        return rise * 0.5 * (1 + math.cos(math.pi * after / max(1, steps - warmup)))
    if train.schedule == "step":
        return rise * train.decay_rate ** (step // epoch_steps // train.decay_epochs)
    return rise * train.decay_rate ** plateaus(monitored, train.decay_epochs)


def plateaus(values: Sequence[float], patience: int) -> int:
    """How often `patience` values in a row were no larger than the largest before them."""
    falls = waited = 0
    best = math.nan
    for value in values:
        waited += 1
        if math.isnan(best) or value > best:
            best, waited = value, 0
        if waited == patience:
            falls, waited = falls + 1, 0
    return falls


def stage_of(train: TrainConfig, epoch: int) -> tuple[StageConfig, int]:
    """The stage that `epoch` (from 0) belongs to, and the stage's first epoch."""
    first = 0
    for stage in train.stages:
        if epoch < first + stage.epochs:
            return stage, first
        first += stage.epochs
    return StageConfig(epochs=train.epochs, trainable="head" if train.frozen else "all"), 0


def layers_of(backbone: Any) -> dict[str, int]:
    """Each backbone parameter's layer as timm orders them, from 0 at the image."""
    return group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)


def set_trainable(model: Any, trainable: int | str) -> None:
    """Unfreeze the chosen backbone layers and everything outside the backbone; freeze the rest.

    From a named layer up means in timm's order of layers and, within one, as they are defined.
    """
    model.requires_grad_(True)
    if trainable == "all":
        return
    layers = layers_of(model.backbone)
    names = [name for name, _ in model.backbone.named_parameters()]
    places = {name: (layers[name], index) for index, name in enumerate(names)}
    if trainable == "head" or isinstance(trainable, int):
        count = trainable if isinstance(trainable, int) else 0
        first = (max(layers.values()) + 1 - count, 0)
    else:
        named = [places[name] for name in names if f"{name}.".startswith(f"{trainable}.")]
        if not named:
            blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
            raise InputError(
                f"train.stages: the backbone has no layer {trainable}: it has"
                f" {listed(blocks, most=40)}"
            )
        first = min(named)
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(places[name] >= first)


def freeze_norms(model: nn.Module) -> None:
    """Keep the batch statistics of frozen layers, which training mode would go on changing."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()


def build_optimizer(model: Any, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD with momentum; a group's lr_scale is its lr over the full lr."""
    groups: Any = model.parameters()
    if train.layer_decay < 1:
        layers = layers_of(model.backbone)
        above = max(layers.values()) + 1  # the head's place
        by_layer: dict[int, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            part, _, within = name.partition(".")
            layer = layers[within] if part == "backbone" else above
            by_layer.setdefault(layer, []).append(parameter)
        groups = [
            {"params": parameters, "lr_scale": train.layer_decay ** (above - layer)}
            for layer, parameters in sorted(by_layer.items())
        ]
    given: dict[str, Any] = {"lr": train.lr, "weight_decay": train.weight_decay}
    if train.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, **given)
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[train.optimizer](groups, **given)


def mix_batch(batch: Batch, mixup: float, cutmix: float, seed: int) -> Batch:
    """Images (B, S, S, 3), metadata and targets, each row mixed with another of the batch.

    `mixup` and `cutmix` are the alphas of Beta(alpha, alpha), 0 for off; with both on, `seed`
    decides by a coin. Targets are shares, (B,) of the second of two classes or (B, K), and are
    mixed as the images are. https://arxiv.org/abs/1710.09412, https://arxiv.org/abs/1905.04899.
    """
    if not mixup and not cutmix:
        return batch
    image, metadata, target = batch
    draw = np.random.default_rng(seed)
    cut = cutmix > 0 and (not mixup or draw.random() < 0.5)
    share = draw.beta(cutmix, cutmix) if cut else draw.beta(mixup, mixup)
    other = torch.from_numpy(draw.permutation(len(image))).to(image.device)
    image = image.float()
    if cut:
        size = image.shape[1]
        half = round(size * np.sqrt(1 - share) / 2)  # of a square around a random point
        y, x = (slice(max(0, at - half), at + half) for at in draw.integers(0, size, 2))
        mixed = image.clone()
        mixed[:, y, x] = image[other, y, x]
        share = 1 - mixed[0, y, x, 0].numel() / size**2
    else:
        mixed = image * share + image[other] * (1 - share)
    metadata, target = (part * share + part[other] * (1 - share) for part in (metadata, target))
    return mixed, metadata, target
