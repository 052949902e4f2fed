"""The learning rate as a function of step and history: nothing to save, nothing to step twice."""

import math
from collections.abc import Sequence

from lesions.config import TrainConfig

# Whether more is better of what training/log.py says of an epoch.
RISING = {
    "auc": True, "average_precision": True, "log_loss": False, "loss": False,
    "f2": True, "accuracy": True, "balanced_accuracy": True, "macro_f1": True,
}  # fmt: skip


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """The lr at `step` (from 0) of `steps` as a share of the full lr: warm-up, then cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def schedule_factor(
    train: TrainConfig, step: int, steps: int, epoch_steps: int, monitored: Sequence[float]
) -> float:
    """The lr at `step` of `steps` as a share of the full lr.

    `monitored` are the values of `train.monitor` of the epochs so far, which plateau looks at.
    """
    warmup = round(train.warmup_epochs * epoch_steps)
    if train.schedule == "cosine":
        return lr_factor(step, steps, warmup)
    if train.schedule == "one_cycle":
        return one_cycle(step, steps)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if train.schedule == "step":
        return rise * train.decay_rate ** (step // epoch_steps // train.decay_epochs)
    falls = plateaus(monitored, train.decay_epochs, RISING[train.monitor])
    return rise * train.decay_rate**falls


def one_cycle(step: int, steps: int) -> float:
    """As torch's OneCycleLR with its own defaults: 1/25 up to 1 in 30 %, then down to 1/250000.

    Smith & Topin, 2017: https://arxiv.org/abs/1708.07120.
    """
    top, last = 0.3 * steps - 1, steps - 1
    if step <= top:
        start, end, share = 1 / 25, 1.0, step / top
    else:
        start, end, share = 1.0, 1 / 25e4, (step - top) / max(1.0, last - top)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def best_of(values: Sequence[float], rising: bool) -> int | None:
    """The position of the best value, the first of equals; None if none is finite."""
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return None
    return (max if rising else min)(finite, key=lambda place: values[place])


def plateaus(values: Sequence[float], patience: int, rising: bool) -> int:
    """How often `patience` values in a row were no better than the best before them."""
    falls = waited = 0
    best = math.nan
    for value in values:
        if math.isnan(best) or (value > best if rising else value < best):
            best, waited = value, 0
        else:
            waited += 1
        if waited == patience:
            falls, waited = falls + 1, 0
    return falls
