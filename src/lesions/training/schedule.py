"""The learning rate as a function of the step: nothing to save, nothing to step twice."""

import math


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """The lr at `step` (from 0) of `steps` as a share of the full lr: warm-up, then cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
