"""One fold's training loop: the same bytes however often it was stopped and resumed."""

import time
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from tqdm import tqdm

from lesions.config import Config
from lesions.data.augmentation import build_augmentation
from lesions.data.loading import TrainBatches, build_loader, end_workers, named_failures, seed_of
from lesions.inference.predict import predict
from lesions.models.classifier import LesionClassifier
from lesions.training.fold import FoldData
from lesions.training.loss import build_loss
from lesions.training.state import save_state, state_path
from lesions.training.steps import FoldLog, Progress, Stepper, epoch_scores
from lesions.training.stop import Stopped, StopRequest

ESTIMATE_AFTER = 10  # steps, by which time caches are warm


class FoldTrainer:
    """Trains one fold on its training rows and validates it on its validation rows."""

    def __init__(
        self, config: Config, fold: int, data: FoldData, folder: Path, accelerator: Accelerator,
        stop: StopRequest,
    ):  # fmt: skip
        self.config, self.fold, self.data = config, fold, data
        self.folder, self.accelerator, self.stop = folder, accelerator, stop
        self.log = FoldLog(folder, fold, accelerator)
        train, task, dataset = config.train, data.task, data.dataset
        seed = seed_of(config.seed, fold)
        torch.manual_seed(seed)
        model = LesionClassifier(config.model, dataset.metadata.shape[1], len(task.classes))
        self.batches = TrainBatches(
            data.train_rows, train.batch_size, train.micro_batch, seed,
            accelerator.process_index, accelerator.num_processes,
            data.train_codes if train.sampler == "balanced" else None,
        )  # fmt: skip
        augmented = copy(dataset)
        augmented.pipeline = build_augmentation(config.augment, config.data.image_size)
        augmented.seed = seed
        self.loader = build_loader(augmented, self.batches, train.workers)
        classes = max(2, len(task.classes))
        loss = build_loss(config.loss, data.train_codes, classes)
        self.stepper = Stepper(
            train, seed, model, dataset, loss, accelerator, self.batches.steps, classes
        )
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

    @property
    def machine(self) -> dict[str, Any]:
        """What the fold is trained on."""
        device = self.accelerator.device
        return {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": self.accelerator.num_processes,
            "precision": str(self.accelerator.mixed_precision),
        }

    def announce(self, run: str) -> None:
        """Print and log what is going to be trained, and on what."""
        data, task = self.data, self.data.task
        if data.scheme["straddling"]:
            self.accelerator.print(
                f"LEAK: {self.config.dataset} is a published split ({data.scheme['name']}) with"
                f" {data.scheme['straddling']:,} groups in training and validation both: its"
                " scores flatter, and are only for comparison with its authors'"
            )
        counts = np.bincount(data.train_codes, minlength=max(2, len(task.classes))).tolist()
        names = task.classes if task.several else ("negative", "positive")
        parameters = sum(p.numel() for p in self.stepper.network.parameters())
        self.accelerator.print(
            f"{run} fold {self.fold}: {self.config.model.backbone}, {parameters:,} parameters;"
            f" {len(data.train_rows):,} training images"
            f" ({', '.join(f'{n:,} {name}' for n, name in zip(counts, names, strict=True))}),"
            f" {len(data.valid_rows):,} for validation; {self.steps:,} steps of"
            f" {self.batches.batch_size}; {self.machine['processes']} process(es) on"
            f" {self.machine['device']}, precision {self.machine['precision']}"
        )
        self.log.event(
            "started", fold=self.fold, parameters=parameters, rows=len(data.train_rows),
            steps=self.steps, classes=counts, **self.machine,
        )  # fmt: skip

    def train(self) -> None:
        """Train from where `progress` is to the end; the kept weights are then in `averaged`.

        Raises Stopped if this run has to end before.
        """
        self.started = self.saved = time.monotonic()
        self.seconds_before, self.steps_before = self.progress.seconds, self.progress.step
        with named_failures(self.loader):
            while not self._done():
                self._epoch()
                self._stop_if(self.stop.agreed(self._next_stretch(), self.accelerator))
        end_workers(self.loader)
        if self.config.train.keep == "best":
            self.averaged.load_state_dict(self.best)

    def _epoch(self) -> None:
        """Make the steps that the current epoch still lacks, and validate it."""
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
                self._stop_if(code)
                if self._save_is_due():
                    self.save()
                self.clock = time.monotonic()
        self._validate(epoch)
        self.save()

    def _flags(self, epoch: int) -> Tensor:
        """Whether to stop after this step: the next one has to fit into the time left."""
        last = self.progress.step + 1 == (epoch + 1) * self.batches.steps
        needed = self.longest["validation"] if last else 0.0
        return self.stop.flags(needed + self._next_stretch(), self.accelerator.device)

    def _next_stretch(self) -> float:
        """Seconds to the next state that can be saved, or to the results where all is trained."""
        if self._done():
            return self.longest["validation"] * self.config.predict.views
        return 2 * self.longest["step"] + self.longest["save"]

    def _stop_if(self, code: int) -> None:
        if not code:
            return
        self.save()
        # A launcher that sees one process end signals the others: none may still be saving.
        self.accelerator.wait_for_everyone()
        self.log.event("stopped", step=self.progress.step, code=code)
        self.accelerator.print(
            f"\nfold {self.fold}: stopped after step {self.progress.step:,} of {self.steps:,};"
            " resume me: the same command continues from here"
        )
        raise Stopped(code)

    def _save_is_due(self) -> bool:
        train = self.config.train
        late = time.monotonic() - self.saved > 60 * train.save_minutes
        return late or bool(train.save_steps and self.progress.step % train.save_steps == 0)

    def _done(self) -> bool:
        """Whether all epochs are validated, or `patience` of them in a row were no better."""
        train, progress = self.config.train, self.progress
        epochs = len(progress.history)
        waited = epochs - progress.best_epoch(train.monitor) if epochs else 0
        return epochs >= train.epochs or (train.patience is not None and waited >= train.patience)

    def _tick(self, bar: tqdm) -> None:
        """Record the step's time; after a few steps, print how long the rest takes."""
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
        row = {"epoch": epoch + 1, "loss": self.stepper.mean_loss(), "lr": progress.lr}
        row |= epoch_scores(self.data.task, self.data.valid_codes, self.predict(1, "validation"))
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

    def predict(self, views: int, title: str) -> np.ndarray:
        """The averaged network's probabilities (N, C) of the validation rows, mean over `views`."""
        return predict(
            self.averaged, self.data.dataset, self.data.valid_rows, self.config.predict,
            self.accelerator, views, f"fold {self.fold} {title}",
        )  # fmt: skip

    def save(self) -> None:
        """Write everything that the next steps depend on; the main process writes for all.

        Not within a row of bad steps: the state from before them is the better one.
        """
        if not self.accelerator.is_main_process or self.progress.bad_steps:
            return
        begun = time.monotonic()
        scaler, stepper = self.accelerator.scaler, self.stepper
        save_state(state_path(self.folder, self.fold), {
            "config": self.config.model_dump(),
            "hashes": self.data.hashes,
            "precision": self.machine["precision"],
            "progress": vars(self.progress),
            "model": stepper.network.state_dict(),
            "ema": stepper.ema.module.state_dict() if stepper.ema else {},
            "optimizer": stepper.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "best": self.best,
        })  # fmt: skip
        self.saved = time.monotonic()
        self.longest["save"] = max(self.longest["save"], self.saved - begun)

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a saved `state`.

        The loss scale of fp16 starts anew if the state comes from a device of another precision.
        """
        stepper = self.stepper
        stepper.progress = Progress(**state["progress"])
        stepper.network.load_state_dict(state["model"])
        if stepper.ema:
            stepper.ema.module.load_state_dict(state["ema"])
        stepper.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.log.event("resumed", step=self.progress.step)
        now = self.machine["precision"]
        if (before := state.get("precision", now)) != now:
            self.accelerator.print(
                f"fold {self.fold}: this device computes in {now}, the steps so far were made in"
                f" {before}: the result is that of neither alone"
            )

    def facts(self) -> dict[str, Any]:
        """What fold<k>.json says of the training; AUCs by epoch are those of a single view."""
        progress = self.progress
        best = progress.best_epoch(self.config.train.monitor)
        history = [finite(row) for row in progress.history]
        images = progress.step * self.batches.batch_size
        return {
            "last_auc": history[-1]["auc"],
            "best_auc": history[best - 1]["auc"],
            "best_epoch": best,
            "history": history,
            "seconds": round(progress.seconds, 1),
            "images_per_second": round(images / progress.seconds, 1),
        } | self.machine


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """The numbers with None, which JSON has, for those that are not finite."""
    return {key: float(value) if np.isfinite(value) else None for key, value in values.items()}
