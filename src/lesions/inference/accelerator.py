"""The accelerator of this process, however it was launched."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized

from lesions.config import Config
from lesions.errors import InputError


def build_accelerator(
    precision: str, tracker: str = "none", folder: Path | None = None
) -> Accelerator:
    """An Accelerator in the wanted precision; a tracker other than none writes to `folder`.

    InputError if several processes were started but are not connected: each would train the whole
    fold and overwrite the others' files. InputError if the tracker is not installed.
    """
    if tracker != "none" and find_spec(tracker) is None:
        raise InputError(f"train.tracker={tracker}: not installed: pip install -e '.[track]'")
    wanted = mixed_precision(precision)
    # accelerate keeps the precision of the process's first run, and refuses another.
    if is_initialized() and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=wanted,
        log_with=None if tracker == "none" else tracker,
        project_dir=folder,
    )
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started > 1 and accelerator.num_processes == 1:
        raise InputError(
            f"{started} processes were started but are not connected: on CPUs launch them with"
            " ACCELERATE_USE_CPU=true torchrun --nproc_per_node N scripts/train.py ..."
        )
    return accelerator


@contextmanager
def tracking(accelerator: Accelerator, config: Config, run: str, part: str) -> Iterator[None]:
    """Have the config's tracker, if any, open for a part of a run: a fold, or all folds.

    In TensorBoard that is oof/<run>/<part>; in W&B a run of the group <run> in the project lesions.
    """
    if config.train.tracker != "none":
        keys = pd.json_normalize(config.model_dump()).to_dict("records")[0]
        values = {k: v if isinstance(v, int | float) else str(v) for k, v in keys.items()}
        own = {"group": run, "name": f"{run} {part}", "dir": str(accelerator.project_dir)}
        project = "lesions" if config.train.tracker == "wandb" else part
        accelerator.init_trackers(project, values, {"wandb": own})
    try:
        yield
    finally:  # not end_training(), which ends the process group as well
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers = []


def mixed_precision(precision: str) -> str:
    """accelerate's name for a config's precision; auto takes what the device computes natively."""
    if precision != "auto":
        return "no" if precision == "fp32" else precision
    if torch.cuda.is_available():
        # A T4 claims bf16 too, through slow emulation.
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"
