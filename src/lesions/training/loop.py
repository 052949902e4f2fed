"""One fold's training loop: the same bytes however often it was stopped and resumed."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from lesions.config import Config
from lesions.data.augmentation import build_augmentation
from lesions.data.loading import LesionDataset, TrainBatches, build_loader, seed_of
from lesions.errors import InputError
from lesions.evaluation.metrics import roc_auc
from lesions.inference.predict import predict
from lesions.training.loss import smoothed_bce
from lesions.training.schedule import lr_factor
from lesions.training.state import save_state

MOST_BAD_STEPS = 10  # in a row, without a finite gradient; fp16 needs a few to find its scale


@dataclass
class Progress:
    """Where a fold stands: plain numbers, so that the state file needs no pickle."""

    step: int = 0  # optimiser steps done
    losses: list[float] = field(default_factory=list)  # of the current epoch's steps
    history: list[dict[str, float]] = field(default_factory=list)  # epoch, loss, lr, auc
    bad_steps: int = 0
    seconds: float = 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the highest validation AUC, the first of equals."""
        aucs = [row["auc"] for row in self.history]
        return 1 + int(np.nanargmax(aucs)) if np.isfinite(aucs).any() else len(aucs)


class FoldTrainer:
    """Trains one fold on `dataset`'s `train_rows`, watching `valid_rows`."""

    def __init__(
        self, config: Config, fold: int, model: nn.Module, dataset: LesionDataset,
        train_rows: np.ndarray, valid_rows: np.ndarray, weight: float, accelerator: Accelerator,
    ):  # fmt: skip
        self.config, self.fold, self.accelerator = config, fold, accelerator
        self.dataset, self.valid_rows, self.weight = dataset, valid_rows, weight
        train = config.train
        self.seed = seed_of(config.seed, fold)
        self.batches = TrainBatches(
            train_rows, train.batch_size, train.micro_batch, self.seed,
            accelerator.process_index, accelerator.num_processes,
        )  # fmt: skip
        self.loader = build_loader(
            LesionDataset(
                dataset.images, dataset.metadata, dataset.target,
                build_augmentation(config.augment, config.data.image_size), self.seed,
            ), self.batches, train.workers,
        )  # fmt: skip
        model = model.to(accelerator.device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), train.lr, weight_decay=train.weight_decay
        )
        self.ema = ModelEmaV3(model, train.ema_decay, use_warmup=True) if train.ema_decay else None
        # The scheduler stays out of prepare(), which would step it once per process.
        self.model, self.optimizer = accelerator.prepare(model, self.optimizer)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.steps = train.epochs * self.batches.steps
        self.warmup = round(train.warmup_epochs * self.batches.steps)

    @property
    def averaged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.ema.module if self.ema else self.accelerator.unwrap_model(self.model)

    def train(self, state_path: Path, hashes: dict[str, str]) -> None:
        """Run from where `progress` stands to the end; the kept weights are then in `averaged`."""
        train = self.config.train
        started = saved = time.monotonic()
        begun = self.progress.seconds
        while self.progress.step < self.steps and not self._out_of_patience():
            epoch, done = divmod(self.progress.step, self.batches.steps)
            self.batches.start(epoch, done)
            with tqdm(
                total=self.batches.steps, initial=done, unit="step",
                desc=f"fold {self.fold} epoch {epoch + 1}/{train.epochs}",
                disable=not self.accelerator.is_main_process,
            ) as bar:  # fmt: skip
                micro: list[dict] = []
                for batch in self.loader:
                    micro.append(batch)
                    if len(micro) < self.batches.micro_batches:
                        continue
                    self._step(micro)
                    micro = []
                    bar.update()
                    if self.progress.losses:
                        bar.set_postfix(loss=f"{np.mean(self.progress.losses):.4f}", refresh=False)
                    self.progress.seconds = begun + time.monotonic() - started
                    if time.monotonic() - saved > 60 * train.save_minutes:
                        self.save(state_path, hashes)
                        saved = time.monotonic()
            self._end_epoch(epoch)
            self.progress.seconds = begun + time.monotonic() - started
            self.save(state_path, hashes)
            saved = time.monotonic()
        if train.keep == "best":
            self.averaged.load_state_dict(self.best)

    def _step(self, micro: list[dict]) -> None:
        """One optimiser step over the micro-batches of this process."""
        progress, train = self.progress, self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = train.lr * lr_factor(progress.step, self.steps, self.warmup)
        self.model.train()
        total = sum(len(batch["row"]) for batch in micro)
        loss = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(micro):
            # Dropout depends on the step alone, not on what was drawn before.
            torch.manual_seed(
                seed_of(self.seed, progress.step, number, self.accelerator.process_index)
            )
            last = number == len(micro) - 1
            with self.accelerator.no_sync(self.model) if not last else nullcontext():
                part = self._loss(batch) * (len(batch["row"]) / total)
                self.accelerator.backward(part)
            loss += part.detach()
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), train.clip_grad)
        loss = self.accelerator.reduce(loss, "mean")
        finite = bool(torch.isfinite(norm) & torch.isfinite(loss))
        if finite or self.accelerator.scaler is not None:  # the fp16 scaler skips by itself
            self.optimizer.step()
        self.optimizer.zero_grad()
        progress.step += 1
        if finite:
            progress.losses.append(loss.item())
            progress.bad_steps = 0
            if self.ema:
                self.ema.update(self.accelerator.unwrap_model(self.model), progress.step)
        else:
            progress.bad_steps += 1
            if progress.bad_steps >= MOST_BAD_STEPS:
                rows = torch.cat([batch["row"] for batch in micro]).tolist()
                raise InputError(
                    f"fold {self.fold}: {MOST_BAD_STEPS} steps in a row without a finite loss"
                    f" (table rows {rows[:8]}): lower train.lr or set train.precision=fp32;"
                    " the last saved state is untouched"
                )

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        device = self.accelerator.device
        with self.accelerator.autocast():
            logit = self.model(
                batch["image"].to(device, non_blocking=True), batch["metadata"].to(device)
            )
        target = batch["target"].to(device)
        return smoothed_bce(logit.squeeze(1), target, self.config.loss.smoothing, self.weight)

    def _end_epoch(self, epoch: int) -> None:
        progress, accelerator = self.progress, self.accelerator
        if accelerator.num_processes > 1:
            # Batch statistics differ by process after the last step: the first one's count.
            for buffer in self.averaged.buffers():
                buffer.copy_(broadcast(buffer))
        prob = predict(
            self.averaged, self.dataset, self.valid_rows, self.config.predict, accelerator,
            views=1, title=f"fold {self.fold} validation",
        )  # fmt: skip
        row = {
            "epoch": epoch + 1,
            "loss": float(np.mean(progress.losses)) if progress.losses else float("nan"),
            "lr": self.optimizer.param_groups[0]["lr"],
            "auc": roc_auc(self.dataset.target[self.valid_rows], prob),
        }
        progress.history.append(row)
        progress.losses = []
        if self.config.train.keep == "best" and progress.best_epoch == epoch + 1:
            self.best = {
                name: tensor.detach().clone() for name, tensor in self.averaged.state_dict().items()
            }
        accelerator.print(
            f"fold {self.fold} epoch {epoch + 1}/{self.config.train.epochs}:"
            f" loss {row['loss']:.4f}, validation AUC {row['auc']:.4f}"
        )

    def _out_of_patience(self) -> bool:
        patience, history = self.config.train.patience, self.progress.history
        return patience is not None and len(history) - self.progress.best_epoch >= patience

    def save(self, path: Path, hashes: dict[str, str]) -> None:
        """Write everything that the next steps depend on; one process writes for all."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        save_state(path, {
            "config": self.config.model_dump(),
            "hashes": hashes,
            "progress": vars(self.progress),
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "best": self.best,
        })  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where `state` was saved."""
        self.progress = Progress(**state["progress"])
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
