"""One fold's training loop: the same bytes however often it was stopped and resumed."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from tqdm import tqdm

from lesions.config import Config
from lesions.data.augmentation import build_augmentation
from lesions.data.loading import LesionDataset, TrainBatches, build_loader, seed_of, watched
from lesions.data.metadata import build_blanks
from lesions.errors import InputError, listed
from lesions.files import write_csv
from lesions.inference.predict import predict
from lesions.models.classifier import LesionClassifier
from lesions.paths import shown
from lesions.runs import RunFiles
from lesions.training.fold import FoldData, cached_features
from lesions.training.loss import build_loss
from lesions.training.state import save_state, state_path
from lesions.training.steps import Stepper, epoch_scores
from lesions.training.stop import Stopped, StopRequest

ESTIMATE_AFTER = 10  # steps, by which time caches are warm


class FoldTrainer:
    """Trains one fold on its training rows and validates it on its validation rows."""

    def __init__(
        self, config: Config, fold: int, data: FoldData, files: RunFiles, accelerator: Accelerator,
        stop: StopRequest,
    ):  # fmt: skip
        self.config, self.fold, self.files, self.folder = config, fold, files, files.folder
        self.accelerator, self.stop = accelerator, stop
        train, outputs = config.train, len(data.task.classes)
        seed = seed_of(config.seed, fold)
        torch.manual_seed(seed)
        metadata = data.given["all"]
        model = LesionClassifier(config.model, metadata.shape[1], outputs)
        begun = time.monotonic()
        if train.frozen:
            data = replace(data, images=cached_features(model, data, config, accelerator))
        self.data = data
        codes = data.codes(data.train_rows)
        self.batches = TrainBatches(
            data.train_rows, train.batch_size, train.micro_batch, seed,
            accelerator.process_index, accelerator.num_processes,
            codes if train.sampler == "balanced" else None,
        )  # fmt: skip
        pipeline = None if train.frozen else build_augmentation(config.augment)
        names = data.table["image_name"].tolist()
        dataset = LesionDataset(data.images, metadata, data.target, pipeline, seed, names)
        dataset.blanks = build_blanks(config.data, data.neutral)
        self.loader = build_loader(dataset, self.batches, train.workers)
        loss = build_loss(config.loss, codes, max(2, outputs))
        self.stepper = Stepper(
            train, seed, model, names, loss, accelerator, self.batches.steps, max(2, outputs)
        )
        self.progress = self.stepper.progress
        self.progress.seconds = time.monotonic() - begun
        self.best: dict[str, Tensor] = {}
        self.steps = train.epochs * self.batches.steps
        # The longest of each so far, in seconds: what a time limit has to leave room for.
        self.longest = {"step": 0.0, "save": 0.0, "validation": 0.0}
        device = accelerator.device
        self.machine = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": accelerator.num_processes,
            "precision": str(accelerator.mixed_precision),
        }
        self._require_rows_for_norms()

    def _require_rows_for_norms(self) -> None:
        """InputError if a micro-batch has one row: batch norm of features needs two."""
        share = self.batches.batch_size // self.accelerator.num_processes
        modules = self.stepper.network.modules()
        if share // self.batches.micro_batches < 2 and any(
            isinstance(module, nn.BatchNorm1d) for module in modules
        ):
            raise InputError(
                f"a micro-batch of one image: {share} images a step and process in parts of at most"
                f" train.micro_batch={self.config.train.micro_batch}, and batch norm in the head or"
                " the metadata branch needs two: raise train.micro_batch or train.batch_size"
            )

    def announce(self) -> None:
        """Print and log what is going to be trained, and on what."""
        data, task = self.data, self.data.task
        if data.scheme["straddling"]:
            self.accelerator.print(
                f"LEAK: {self.config.dataset} is a published split ({data.scheme['name']}) with"
                f" {data.scheme['straddling']:,} groups in training and validation both: its"
                " scores flatter, and are only for comparison with its authors'"
            )
        others = data.table[(data.table["split"] == "train") & np.isnan(data.target)]
        if len(others):
            found = others["diagnosis"].replace("", "unknown").value_counts()
            told = (f"{count:,} {name}" for name, count in found.items())
            self.accelerator.print(f"left out, as no class of {task.name}: {listed(told, 9)}")
        codes = data.codes(data.train_rows)
        counts = np.bincount(codes, minlength=max(2, len(task.classes))).tolist()
        names = task.classes if task.several else ("negative", "positive")
        parameters = sum(p.numel() for p in self.stepper.network.parameters())
        self.accelerator.print(
            f"{self.files.name} fold {self.fold}: {self.config.model.backbone}, {parameters:,}"
            f" parameters; {len(codes):,} training images"
            f" ({', '.join(f'{n:,} {name}' for n, name in zip(counts, names, strict=True))}),"
            f" {len(data.valid_rows):,} for validation; {self.steps:,} steps of"
            f" {self.batches.batch_size}; {self.machine['processes']} process(es) on"
            f" {self.machine['device']}, precision {self.machine['precision']}"
        )
        self.event("started", fold=self.fold, parameters=parameters, rows=len(codes),
                   steps=self.steps, classes=counts, **self.machine)  # fmt: skip

    def event(self, name: str, **values: Any) -> None:
        """Append a line to metrics<k>.jsonl: what happened when, resumes and repeats included."""
        if not self.accelerator.is_main_process:
            return
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": name}
        path = self.folder / f"metrics{self.fold}.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | finite(values)) + "\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from error

    def train(self) -> None:
        """Train from where `progress` is to the end; the kept weights are then in the stepper.

        Raises Stopped if this run has to end before, InputError if the processes do not share the
        folder of saved states.
        """
        progress = self.progress
        mine = torch.tensor([progress.step], device=self.accelerator.device)
        found = self.accelerator.gather(mine).tolist()
        if len(set(found)) > 1:
            raise InputError(
                f"the processes are at different steps ({listed(found)}): all machines have to see"
                " the same oof/ folder"
            )
        self.clock = self.saved = time.monotonic()
        self.seconds_before, self.steps_before = progress.seconds, progress.step
        with watched(self.loader):
            while not self._done():
                self._epoch()
                self._stop_if_asked()
        if self.config.train.keep == "best":
            self.stepper.averaged.load_state_dict(self.best)

    def _epoch(self) -> None:
        """Make the steps that the current epoch still lacks, and validate it."""
        progress, batches, train = self.progress, self.batches, self.config.train
        epoch = len(progress.history)
        done = progress.step - epoch * batches.steps
        self.stepper.enter_epoch(epoch)
        batches.start(epoch, done)
        with tqdm(
            total=batches.steps, initial=done, unit="step",
            desc=f"fold {self.fold} epoch {epoch + 1}/{train.epochs}",
            disable=not self.accelerator.is_main_process or None,
        ) as bar:  # fmt: skip
            loaded = iter(self.loader if done < batches.steps else ())
            for micro in zip(*[loaded] * batches.micro_batches, strict=False):
                self.stepper.step(micro)
                self._tick(bar)
                self._stop_if_asked()
                late = self.clock - self.saved > 60 * train.save_minutes
                if late or (train.save_steps and progress.step % train.save_steps == 0):
                    self.save()
        self._validate(epoch)
        self.save()

    def _needed(self) -> float:
        """Seconds to the next state that can be saved, or to the results where all is trained."""
        if self._done():
            return self.longest["validation"] * self.config.predict.views
        done = self.progress.step - len(self.progress.history) * self.batches.steps
        validation = self.longest["validation"] if done >= self.batches.steps - 1 else 0.0
        return validation + 2 * self.longest["step"] + self.longest["save"]

    def _stop_if_asked(self) -> None:
        code = self.stop.agreed(self._needed(), self.accelerator)
        if not code:
            return
        self.save()
        # A launcher that sees one process end signals the others: none may still be saving.
        self.accelerator.wait_for_everyone()
        self.event("stopped", step=self.progress.step, code=code)
        self.accelerator.print(
            f"\nfold {self.fold}: stopped after step {self.progress.step:,} of {self.steps:,};"
            " resume me: the same command continues from here"
        )
        raise Stopped(code)

    def _done(self) -> bool:
        """Whether all epochs are validated, or `patience` of them in a row were no better."""
        train, epochs = self.config.train, len(self.progress.history)
        waited = epochs - self.progress.best_epoch(train.monitor)
        return epochs >= train.epochs or (train.patience is not None and waited >= train.patience)

    def _spent(self, on: str) -> None:
        """Add the seconds since the last call, spent on one of `longest`, to `progress`."""
        before, self.clock = self.clock, time.monotonic()
        self.progress.seconds += self.clock - before
        self.longest[on] = max(self.longest[on], self.clock - before)

    def _pace(self, folds: int = 1) -> tuple[float, float]:
        """Images/s since `train` began, and the seconds that what is left of `folds` takes."""
        made, size = self.progress.step - self.steps_before, self.batches.batch_size
        rate = made * size / (self.progress.seconds - self.seconds_before)
        return rate, (folds * self.steps - self.progress.step) * size / rate

    def _tick(self, bar: tqdm) -> None:
        """Record the step's time; after a few steps, print how long the rest takes."""
        self._spent("step")
        rate, seconds = self._pace()
        bar.update()
        facts = {"loss": f"{self.stepper.mean_loss():.4f}", "images/s": f"{rate:.1f}"}
        if self.progress.history:
            facts["AUC"] = f"{self.progress.history[-1]['auc']:.4f}"
        bar.set_postfix(facts, refresh=False)
        if self.progress.step - self.steps_before == ESTIMATE_AFTER:
            self.accelerator.print(
                f"fold {self.fold}: {rate:.1f} images/s: about {seconds / 60:.0f} min to the last"
                " step"
            )

    def _validate(self, epoch: int) -> None:
        """Add the epoch's row to the history; remember the weights where they are the best."""
        progress, accelerator, averaged = self.progress, self.accelerator, self.stepper.averaged
        if accelerator.num_processes > 1:
            # Batch statistics differ by process after the last step: the first one's count.
            for buffer in averaged.buffers():
                buffer.copy_(broadcast(buffer))
        row = {"epoch": epoch + 1, "loss": self.stepper.mean_loss(), "lr": progress.lr}
        probs = self.predict(1, "validation", ["all"])["all"]
        row |= epoch_scores(self.data.task, self.data.codes(self.data.valid_rows), probs)
        progress.history.append(row)
        progress.losses = []
        train = self.config.train
        if train.keep == "best" and progress.best_epoch(train.monitor) == epoch + 1:
            self.best = {name: t.detach().clone() for name, t in averaged.state_dict().items()}
        self._spent("validation")
        logged = row | {"step": progress.step, "skipped": progress.skipped,
                        "seconds": round(progress.seconds, 1)}  # fmt: skip
        self.event("epoch", **logged)
        accelerator.log(logged, step=epoch + 1)
        if accelerator.is_main_process:
            write_csv(self.folder / f"history{self.fold}.csv", pd.DataFrame(progress.history))
        accelerator.print(
            f"fold {self.fold} epoch {epoch + 1}/{train.epochs}:"
            f" loss {row['loss']:.4f}, validation AUC {row['auc']:.4f}"
        )
        if 0 < progress.step - self.steps_before <= self.batches.steps:  # since it began
            folds = int(self.data.table["fold"].max()) + 1 - len(self.files.numbers(".json"))
            rate, seconds = self._pace(folds)
            accelerator.print(
                f"{rate:.1f} images/s with validation: about {seconds / 3600:.1f} hours left for"
                f" the run's {folds} folds"
            )

    def predict(self, views: int, title: str, given: Sequence[str]) -> dict[str, np.ndarray]:
        """The averaged network's probabilities (N, C) of the validation rows, mean over `views`.

        By what is given of the metadata: see data/metadata.py.
        """
        data, known = self.data, {name: self.data.given[name][None] for name in given}
        return predict(
            self.stepper.averaged, data.images, data.valid_rows, known, self.config.predict,
            self.accelerator, views, f"fold {self.fold} {title}",
        )  # fmt: skip

    def save(self) -> None:
        """Write everything that the next steps depend on; the main process writes for all.

        Not within a row of bad steps: the state from before them is the better one.
        """
        if not self.accelerator.is_main_process or self.progress.bad_steps:
            return
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
        self._spent("save")
        self.saved = self.clock

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a saved `state`; InputError if its values cannot be those of this fold.

        The loss scale of fp16 starts anew if the state comes from a device of another precision.
        """
        try:
            self.stepper.load(state, self.steps)
            self.best = dict(state["best"])
            if self.best.keys() - self.stepper.averaged.state_dict().keys():
                raise ValueError("its best weights are of another network")
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            path = shown(state_path(self.folder, self.fold))
            raise InputError(
                f"{path}: no state of this fold ({str(error).splitlines()[0]}): delete it to start"
                " from the beginning"
            ) from error
        self.event("resumed", step=self.progress.step)
        self.accelerator.print(f"resuming at step {self.progress.step:,} of {self.steps:,}")
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


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """The values with None, which JSON has, for numbers that are not finite."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }
