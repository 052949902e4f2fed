"""Losses over smoothed targets and weighted classes; all of them take mixed targets too."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lesions.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, target: np.ndarray, classes: int) -> Loss:
    """The mean loss of logits (B, K) and targets: classes (B,), or their shares (B, K).

    K = 1 stands for two `classes`; a target (B,) between 0 and 1 is then the share of the second.
    The weights come from the training rows' `target`.
    """
    if config.kind == "bce":
        weight = pos_weight(config, target)
        return lambda logit, target: smoothed_bce(logit[:, 0], target, config.smoothing, weight)
    weights = torch.tensor(class_weights(target, classes, config.alpha), dtype=torch.float32)

    def loss(logit: Tensor, target: Tensor) -> Tensor:
        if logit.shape[1] == 1:
            logit = F.pad(logit, (1, 0))  # softmax over (0, z) is the sigmoid of z
        share = shares(target, logit.shape[1])
        weight = weights.to(logit.device)
        if config.kind == "focal":
            return focal(logit, share, weight, config.gamma, config.smoothing)
        return F.cross_entropy(logit, share, weight, label_smoothing=config.smoothing)

    return loss


def pos_weight(config: LossConfig, target: np.ndarray) -> float:
    """The weight of a positive: negatives / positives of `target`, or the config's number."""
    if config.pos_weight != "balanced":
        return float(config.pos_weight)
    return float((target == 0).sum() / max(1, (target == 1).sum()))


def class_weights(target: np.ndarray, classes: int, alpha: float) -> np.ndarray:
    """(rows / rows of the class) ** alpha for each class, scaled to a mean of 1: (K,)."""
    counts = np.bincount(target.astype(int), minlength=classes)
    weights = (len(target) / (classes * np.maximum(counts, 1))) ** alpha
    return weights / weights.mean()


def shares(target: Tensor, classes: int) -> Tensor:
    """Targets as shares (B, K): of class numbers (B,), or of the second of two classes (B,)."""
    if target.ndim == 2:
        return target
    if classes == 2:
        return torch.stack([1 - target, target], dim=1)
    return F.one_hot(target.long(), classes).float()


def smoothed_bce(logit: Tensor, target: Tensor, smoothing: float, weight: float) -> Tensor:
    """Mean loss of logits (B,) against targets (B,) in [0, 1], smoothed and then weighted."""
    smooth = target * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(
        logit, smooth, pos_weight=torch.tensor(weight, device=logit.device)
    )


def focal(logit: Tensor, share: Tensor, weight: Tensor, gamma: float, smoothing: float) -> Tensor:
    """Mean of -w (1 - p)^gamma log p over logits (B, K) and shares (B, K).

    p is the probability of the smoothed target, w the weight of the unsmoothed one. Lin et al.,
    2017: https://arxiv.org/abs/1708.02002.
    """
    smooth = share * (1 - smoothing) + smoothing / share.shape[1]
    log_p = (logit.log_softmax(1) + smooth.log()).logsumexp(1)
    return -(share @ weight * (1 - log_p.exp()).clamp_min(1e-7) ** gamma * log_p).mean()
