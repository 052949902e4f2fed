"""Which part of the network learns, and how fast: staged unfreezing, layer-wise lr, optimisers."""

from typing import Any

import torch
from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lesions.config import StageConfig, TrainConfig
from lesions.errors import InputError, listed


def stage_of(train: TrainConfig, epoch: int) -> tuple[StageConfig, int]:
    """The stage that `epoch` (from 0) belongs to, and the stage's first epoch."""
    first = 0
    for stage in train.stages:
        if epoch < first + stage.epochs:
            return stage, first
        first += stage.epochs
    return StageConfig(epochs=train.epochs), 0


def layers_of(backbone: Any) -> dict[str, int]:
    """Each backbone parameter's layer as timm orders them, from 0 at the image."""
    return group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)


def set_trainable(model: Any, trainable: int | str) -> None:
    """Let the chosen backbone layers learn, and what is no part of the backbone, and nothing else.

    From a named layer up means in timm's order of layers and, within one, as they are defined.
    """
    model.requires_grad_(True)
    if trainable == "all":
        return
    layers = layers_of(model.backbone)
    names = [name for name, _ in model.backbone.named_parameters()]
    places = {name: (layers[name], index) for index, name in enumerate(names)}
    above = max(layers.values()) + 1
    if trainable == "head":
        first = (above, 0)
    elif isinstance(trainable, int):
        first = (above - trainable, 0)
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
    """Hold the batch statistics of frozen layers: a training mode would go on moving them."""
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
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, train.lr, weight_decay=train.weight_decay)
    if train.optimizer == "adam":
        return torch.optim.Adam(groups, train.lr, weight_decay=train.weight_decay)
    return torch.optim.SGD(
        groups, train.lr, momentum=0.9, nesterov=True, weight_decay=train.weight_decay
    )
