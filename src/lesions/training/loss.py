"""Binary cross-entropy on smoothed targets with weighted positives."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lesions.config import LossConfig


def pos_weight(config: LossConfig, target: np.ndarray) -> float:
    """The weight of a positive: negatives / positives of `target`, or the config's number."""
    if config.pos_weight != "balanced":
        return float(config.pos_weight)
    return float((target == 0).sum() / max(1, (target == 1).sum()))


def smoothed_bce(logit: Tensor, target: Tensor, smoothing: float, weight: float) -> Tensor:
    """Mean loss of logits (B,) against targets (B,) in {0, 1}.

    The targets are smoothed first, to smoothing/2 and 1 - smoothing/2, then the positive part of
    the cross-entropy is multiplied by `weight`.
    """
    smooth = target * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(
        logit, smooth, pos_weight=torch.tensor(weight, device=logit.device)
    )
