"""The optimiser steps of a fold, and how far it is."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import BaseModel, Field
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from lesions.config import TrainConfig
from lesions.data.loading import seed_of
from lesions.data.tasks import Task
from lesions.errors import InputError, listed
from lesions.evaluation.metrics import average_precision, f2, log_loss
from lesions.evaluation.scores import score_values
from lesions.training import optim
from lesions.training.loss import Loss, shares

MOST_BAD_STEPS = 10  # in a row, without a finite gradient; fp16 needs a few to find its scale
MAX_NORM = 1.0  # of the gradient, which is scaled down to it
FALLING = ("log_loss", "loss")  # of what `train.monitor` can name: less is better


def epoch_scores(task: Task, codes: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """What an epoch's validation is judged by: `train.monitor` names one of these, or the loss.

    Of codes (N,) and probabilities (N, C). `auc` and `average_precision` are means over the classes
    that occur, one class against the rest; F2 is that of a threshold of 0.5.
    """
    values, loss = score_values(codes, probs), log_loss(codes, probs)
    if not task.several:
        return values | {"log_loss": loss, "f2": f2(codes, probs[:, 0] >= 0.5)}
    precisions = [average_precision(codes == k, probs[:, k]) for k in np.unique(codes)]
    means = {"auc": values.pop("macro_auc"), "average_precision": float(np.mean(precisions))}
    return means | {"log_loss": loss} | values


class Progress(BaseModel):
    """How far a fold is: plain numbers, so that the state file needs no pickle."""

    step: int = Field(0, ge=0)  # optimiser steps done
    lr: float = 0.0  # of the last one
    losses: list[float] = []  # of the current epoch's steps
    history: list[dict[str, int | float]] = []  # one row a validated epoch
    bad_steps: int = 0  # in a row, up to now
    skipped: int = 0  # in all
    seconds: float = 0.0

    def best_epoch(self, monitor: str) -> int:
        """The epoch (from 1) with the best `monitor`, the first of equals; the last if none is."""
        values = np.array(self.monitored(monitor))
        return int(np.nanargmax(values)) + 1 if np.isfinite(values).any() else len(self.history)

    def monitored(self, monitor: str) -> list[float]:
        """Each epoch's value of `monitor`, negative where less is better."""
        sign = -1 if monitor in FALLING else 1
        return [sign * row[monitor] for row in self.history]


class Stepper:
    """Network, moving average and optimiser, and one step of them."""

    def __init__(
        self, train: TrainConfig, seed: int, model: Any, names: Sequence[str],
        loss: Loss, accelerator: Accelerator, epoch_steps: int, classes: int,
    ):  # fmt: skip
        self.config, self.seed, self.names, self.loss = train, seed, names, loss
        self.accelerator, self.epoch_steps, self.classes = accelerator, epoch_steps, classes
        self.progress = Progress()
        model = model.to(accelerator.device).to(memory_format=model.memory_format)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            model = convert_sync_batchnorm(model)
        if train.grad_checkpointing:
            model.backbone.set_grad_checkpointing(True)
        self.stage, self.stage_epoch = optim.stage_of(train, 0)
        optim.set_trainable(model, self.stage.trainable)
        self.optimizer = optim.build_optimizer(model, train)
        self.ema = ModelEmaV3(model, train.ema_decay, use_warmup=True) if train.ema_decay else None
        if train.compile:
            # In place: names in a checkpoint stay as they are. Each image size is a program of its
            # own: for symbolic sizes torch 2.15 compiled for over ten minutes.
            model.compile(dynamic=False)
        # The scheduler stays out of prepare(), which would step it once per process.
        self.model, self.optimizer = accelerator.prepare(model, self.optimizer)
        self.buffers = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        self.buffers_before = [buffer.clone() for buffer in self.buffers]

    @property
    def network(self) -> Any:
        """The model itself, without accelerate's wrapper."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def averaged(self) -> Any:
        """The network that is validated and kept: the moving average where there is one."""
        return self.ema.module if self.ema else self.network

    def load(self, state: dict[str, Any], steps: int) -> None:
        """Take over a saved state of a fold of `steps` steps; an error of any type if it is none.

        The optimiser's options stay those of the config.
        """
        progress = Progress.model_validate(state["progress"])
        progress.monitored(self.config.monitor)
        if not len(progress.history) * self.epoch_steps <= progress.step <= steps:
            raise ValueError(f"step {progress.step:,} of {steps:,}")
        vars(self.progress).update(vars(progress))
        self.network.load_state_dict(state["model"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        known = self.optimizer.state_dict() | {"state": state["optimizer"]["state"]}
        self.optimizer.load_state_dict(known)
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        moments = self.optimizer.state.items()
        if len({frozenset(values) for _, values in moments}) > 1 or not all(
            torch.isfinite(tensor).all() and tensor.shape in ((), parameter.shape)
            for parameter, values in moments
            for tensor in values.values()
        ):
            raise ValueError("the optimiser's moments are damaged")

    def enter_epoch(self, epoch: int) -> None:
        """Freeze and unfreeze layers as the epoch's stage says."""
        before = self.stage
        self.stage, self.stage_epoch = optim.stage_of(self.config, epoch)
        if self.stage is before:
            return
        optim.set_trainable(self.network, self.stage.trainable)
        if isinstance(self.model, DistributedDataParallel):
            # It decides when it is built which gradients the processes share.
            device = self.accelerator.device
            devices = [device.index] if device.type == "cuda" else None
            self.model = DistributedDataParallel(self.network, device_ids=devices)

    def step(self, micro: Sequence[dict]) -> None:
        """Make one optimiser step over this process's micro-batches."""
        progress, accelerator = self.progress, self.accelerator
        progress.lr = self._lr()
        for group in self.optimizer.param_groups:
            group["lr"] = progress.lr * group.get("lr_scale", 1.0)
        self.model.train()
        optim.freeze_norms(self.model)
        torch._foreach_copy_(self.buffers_before, self.buffers)
        loss = accelerator.reduce(self._backward(micro), "mean")
        norm = accelerator.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        finite = bool(torch.isfinite(norm) & torch.isfinite(loss))
        if finite or accelerator.scaler is not None:  # the fp16 scaler skips by itself
            self.optimizer.step()
        self.optimizer.zero_grad()
        progress.step += 1
        if finite:
            progress.losses.append(loss.item())
            progress.bad_steps = 0
            if self.ema:
                self.ema.update(self.network, progress.step)
        else:
            self._skip(micro)

    def _lr(self) -> float:
        """The full network's learning rate at the step to come."""
        step = self.progress.step - self.stage_epoch * self.epoch_steps
        steps = self.stage.epochs * self.epoch_steps
        monitored = self.progress.monitored(self.config.monitor)[self.stage_epoch :]
        factor = optim.schedule_factor(self.config, step, steps, self.epoch_steps, monitored)
        return (self.stage.lr or self.config.lr) * factor

    def _backward(self, micro: Sequence[dict]) -> Tensor:
        """Accumulate the gradient of the mean loss of all micro-batches; returns that loss."""
        rank = self.accelerator.process_index
        total = sum(len(batch["row"]) for batch in micro)
        loss = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(micro):
            # Dropout and mixing depend on the step alone, not on what was drawn before.
            seed = seed_of(self.seed, self.progress.step, number, rank)
            torch.manual_seed(seed)
            last = number == len(micro) - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                part = self._loss(batch, seed) * (len(batch["row"]) / total)
                self.accelerator.backward(part)
            loss += part.detach()
        return loss

    def _loss(self, batch: dict[str, Any], seed: int) -> Tensor:
        device = self.accelerator.device
        target = batch["target"].to(device)
        if self.classes > 2:  # of two classes it already is the share of the second
            target = shares(target, self.classes)
        image = self._sized(batch["image"].to(device, non_blocking=True))
        if self.config.compile and device.type == "cpu":
            # Compiled padding reads some bytes past the images (torch 2.15), which where a worker's
            # shared memory ends is a segmentation fault.
            image = image.clone()
        given = image, batch["metadata"].to(device), target
        image, metadata, target = optim.mix_batch(
            given, self.config.mixup, self.config.cutmix, seed
        )
        with self.accelerator.autocast():
            logit = self.model(image, metadata)
        return self.loss(logit, target)

    def _sized(self, image: Tensor) -> Tensor:
        """The images (B, S, S, 3), made smaller here in the epochs of `train.small_size`.

        Of cached features (B, views, 4 F) it is a view of each row, drawn anew in each epoch.
        """
        if image.ndim == 3:
            rows = torch.arange(len(image), device=image.device)
            return image[rows, torch.randint(image.shape[1], rows.shape).to(image.device)]
        size = self.config.small_size
        if not size or len(self.progress.history) >= self.config.small_epochs:
            return image
        channels_first = image.permute(0, 3, 1, 2).float()
        small = F.interpolate(channels_first, (size, size), mode="bilinear", antialias=True)
        return small.permute(0, 2, 3, 1)

    def _skip(self, micro: Sequence[dict]) -> None:
        """Count a step without effect; InputError that names its images if there are too many."""
        progress = self.progress
        torch._foreach_copy_(self.buffers, self.buffers_before)  # batch statistics took part in it
        progress.bad_steps += 1
        progress.skipped += 1
        if progress.bad_steps >= MOST_BAD_STEPS:
            rows = torch.cat([batch["row"] for batch in micro]).tolist()
            raise InputError(
                f"{progress.bad_steps} steps in a row without a finite loss, the last one on"
                f" {listed((self.names[row] for row in rows), most=8)}: lower"
                " train.lr or set train.precision=fp32; the last saved state is untouched"
            )

    def mean_loss(self) -> float:
        """Of the current epoch's steps so far; NaN without one."""
        losses = self.progress.losses
        return float(np.mean(losses)) if losses else float("nan")
