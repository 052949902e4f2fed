"""One fold's training loop: the same bytes however often it was stopped and resumed."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from tqdm import tqdm

from lesions.config import Config
from lesions.data.augmentation import build_augmentation
from lesions.data.loading import (
    LesionDataset,
    TrainBatches,
    build_loader,
    end_workers,
    named_failures,
    seed_of,
)
from lesions.inference.predict import predict
from lesions.training.log import FoldLog, epoch_scores
from lesions.training.loss import Loss
from lesions.training.state import save_state
from lesions.training.steps import Progress, Stepper
from lesions.training.stop import Stopped, StopRequest

ESTIMATE_AFTER = 10  # steps, by which time caches are warm


class FoldTrainer:
    """Trains one fold on `dataset`'s `train_rows`, watching `valid_rows`."""

    def __init__(
        self, config: Config, fold: int, model: nn.Module, dataset: LesionDataset,
        train_rows: np.ndarray, valid_rows: np.ndarray, loss: Loss, accelerator: Accelerator,
        stop: StopRequest, log: FoldLog, classes: Sequence[str] = (),
    ):  # fmt: skip
        self.config, self.fold, self.accelerator = config, fold, accelerator
        self.dataset, self.valid_rows, self.stop, self.log = dataset, valid_rows, stop, log
        train = config.train
        seed = seed_of(config.seed, fold)
        balanced = train.sampler == "balanced"
        self.batches = TrainBatches(
            train_rows, train.batch_size, train.micro_batch, seed,
            accelerator.process_index, accelerator.num_processes,
            dataset.target[train_rows] if balanced else None,
        )  # fmt: skip
        self.loader = build_loader(
            LesionDataset(
                dataset.images, dataset.metadata, dataset.target,
                build_augmentation(config.augment, config.data.image_size), seed, dataset.names,
            ), self.batches, train.workers, train.loader_timeout,
        )  # fmt: skip
        self.classes = classes  # none: the task asks yes or no
        self.stepper = Stepper(
            train, seed, model, dataset, loss, accelerator, self.batches.steps,
            max(2, len(classes)),
        )  # fmt: skip
        self.best: dict[str, Tensor] = {}
        self.steps = train.epochs * self.batches.steps
        # The longest of each so far, in seconds: what a time limit has to leave room for.
        self.longest = {"step": 0.0, "save": 0.0, "validation": 0.0}

    @property
    def progress(self) -> Progress:
        return self.stepper.progress

    @property
    def averaged(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self.stepper.averaged

    def train(self, state_path: Path, hashes: dict[str, str]) -> None:
        """Run from where `progress` stands to the end; the kept weights are then in `averaged`.

        Stopped if this run has to end before.
        """
        self.started = time.monotonic()
        self.saved = self.started
        self.seconds_before, self.steps_before = self.progress.seconds, self.progress.step

        def save() -> None:
            if self.progress.bad_steps:
                return  # what was saved before this row of bad steps is the better state
            begun = time.monotonic()
            self.save(state_path, hashes)
            self.saved = time.monotonic()
            self.longest["save"] = max(self.longest["save"], self.saved - begun)

        with named_failures(self.loader):
            while not self._done():
                self._epoch(save)
                self._stop_if(self.stop.agreed(self._next_stretch(), self.accelerator), save)
        end_workers(self.loader)
        if self.config.train.keep == "best":
            self.averaged.load_state_dict(self.best)

    def _epoch(self, save: Callable[[], None]) -> None:
        """The steps that the epoch to come still lacks, its validation, its row of history."""
        progress, batches = self.progress, self.batches
        epoch = len(progress.history)
        done = progress.step - epoch * batches.steps
        self.stepper.enter_epoch(epoch)
        batches.start(epoch, done)
        self.clock = time.monotonic()
        with tqdm(
            total=batches.steps, initial=done, unit="step",
            desc=f"fold {self.fold} epoch {epoch + 1}/{self.config.train.epochs}",
            disable=not self.accelerator.is_main_process,
        ) as bar:  # fmt: skip
            micro: list[dict] = []
            for batch in self.loader if done < batches.steps else ():
                micro.append(batch)
                if len(micro) < batches.micro_batches:
                    continue
                code = self.stepper.step(micro, partial(self._flags, epoch))
                micro = []
                self._tick(bar)
                self._stop_if(code, save)
                if self._save_is_due():
                    save()
                self.clock = time.monotonic()
        self._validate(epoch)
        save()

    def _flags(self, epoch: int) -> Tensor:
        """Whether to stop after the step at hand: the time for the next one has to be left."""
        last = self.progress.step + 1 == (epoch + 1) * self.batches.steps
        needed = self.longest["validation"] if last else 0.0
        return self.stop.flags(needed + self._next_stretch(), self.accelerator.device)

    def _next_stretch(self) -> float:
        """Seconds to the next state that can be saved, or to the results where all is trained."""
        if self._done():
            return self.longest["validation"] * self.config.predict.views
        return 2 * self.longest["step"] + self.longest["save"]

    def _stop_if(self, code: int, save: Callable[[], None]) -> None:
        if not code:
            return
        save()
        # A launcher that sees one process end signals the others: none may still be saving.
        self.accelerator.wait_for_everyone()
        self.log.event("stopped", step=self.progress.step, code=code)
        self.accelerator.print(
            f"\nfold {self.fold}: stopped after step {self.progress.step:,} of {self.steps:,};"
            " resume me: the same command goes on from here"
        )
        raise Stopped(code)

    def _save_is_due(self) -> bool:
        train = self.config.train
        if train.save_steps and self.progress.step % train.save_steps == 0:
            return True
        return time.monotonic() - self.saved > 60 * train.save_minutes

    def _done(self) -> bool:
        """All epochs are validated, or `patience` of them in a row were no better."""
        train, progress = self.config.train, self.progress
        epochs = len(progress.history)
        waited = epochs - progress.best_epoch(train.monitor) if epochs else 0
        return epochs >= train.epochs or (train.patience is not None and waited >= train.patience)

    def _tick(self, bar: tqdm) -> None:
        """Note the step's time; after a few, say how long the rest takes."""
        now = time.monotonic()
        self.longest["step"] = max(self.longest["step"], now - self.clock)
        self.progress.seconds = self.seconds_before + now - self.started
        done = self.progress.step - self.steps_before
        rate = done * self.batches.batch_size / (now - self.started)
        bar.update()
        history = self.progress.history
        facts = {"loss": f"{self.stepper.mean_loss():.4f}"}
        if history:
            facts["AUC"] = f"{history[-1]['auc']:.4f}"
        facts["images/s"] = f"{rate:.1f}"
        bar.set_postfix(facts, refresh=False)
        if done == ESTIMATE_AFTER:
            minutes = (self.steps - self.progress.step) * self.batches.batch_size / rate / 60
            self.accelerator.print(
                f"fold {self.fold}: {rate:.1f} images/s: about {minutes:.0f} min to the last step"
            )

    def _validate(self, epoch: int) -> None:
        """Add the epoch's row to the history; remember the weights where they are the best."""
        progress, accelerator = self.progress, self.accelerator
        begun = time.monotonic()
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
            "loss": self.stepper.mean_loss(),
            "lr": progress.lr,
        } | epoch_scores(self.dataset.target[self.valid_rows], prob, self.classes)
        progress.history.append(row)
        progress.losses = []
        monitor = self.config.train.monitor
        if self.config.train.keep == "best" and progress.best_epoch(monitor) == epoch + 1:
            self.best = {
                name: tensor.detach().clone() for name, tensor in self.averaged.state_dict().items()
            }
        now = time.monotonic()
        self.longest["validation"] = max(self.longest["validation"], now - begun)
        progress.seconds = self.seconds_before + now - self.started
        self.log.epoch(
            progress.history, step=progress.step, skipped=progress.skipped,
            seconds=round(progress.seconds, 1),
        )  # fmt: skip
        accelerator.print(
            f"fold {self.fold} epoch {epoch + 1}/{self.config.train.epochs}:"
            f" loss {row['loss']:.4f}, validation AUC {row['auc']:.4f}"
        )

    def save(self, path: Path, hashes: dict[str, str]) -> None:
        """Write everything that the next steps depend on; one process writes for all."""
        if not self.accelerator.is_main_process:
            return
        scaler, stepper = self.accelerator.scaler, self.stepper
        save_state(path, {
            "config": self.config.model_dump(),
            "hashes": hashes,
            "progress": vars(self.progress),
            "model": stepper.network.state_dict(),
            "ema": stepper.ema.module.state_dict() if stepper.ema else {},
            "optimizer": stepper.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "best": self.best,
        })  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where `state` was saved."""
        stepper = self.stepper
        stepper.progress = Progress(**state["progress"])
        stepper.network.load_state_dict(state["model"])
        if stepper.ema:
            stepper.ema.module.load_state_dict(state["ema"])
        stepper.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.log.event("resumed", step=self.progress.step)
