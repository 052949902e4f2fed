"""Photographs through a trained run: their probabilities, and how far to trust them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor, nn
from tqdm import tqdm

from lesions.data.decode import UnreadableImage, decode
from lesions.data.metadata import encode_metadata, state_of
from lesions.data.patients import Patient
from lesions.errors import InputError, listed
from lesions.evaluation.metrics import Floats
from lesions.inference.calibration import Calibration, load_calibration
from lesions.inference.ensemble import Run, blended, load_run, read_shares
from lesions.inference.explain import grad_cam, overlay
from lesions.inference.predict import mean_probabilities, probabilities, views_of
from lesions.models.classifier import LesionClassifier
from lesions.models.layers import MultiSampleDropout
from lesions.paths import shown
from lesions.runs import find_run

BATCH = 16  # photographs that are predicted together
IMAGES = 32  # a forward pass
MASKS = 50  # of Monte Carlo dropout
SEED = 0  # every photograph gets the same masks
SIDE = 448  # pixels of an overlay
ASKED = ("age", "sex", "site")
File = Path | bytes
# A file, its content, or a picture; an array is uint8, (height, width, 3) RGB or (height, width).
# Also what reads a file, for many of them: few are then in memory at once.
Photo = str | os.PathLike | bytes | Image.Image | np.ndarray | Callable[[], File]


class Prediction(BaseModel, frozen=True):
    """What a run predicts of one photograph; what needs calibration.json is None without it."""

    probs: dict[str, float] = Field(description="by class; of a yes-or-no task that of yes")
    calibrated: dict[str, float] | None = Field(description="the same, calibrated")
    score: float = Field(description="of yes, or of any malignant class; not calibrated")
    given: str = Field(description="what is known of age, sex and site: all, age and sex, nothing")
    not_given: str = Field(description="a sentence that says what is not known, or nothing")
    threshold: float | None = Field(description="of the score, where so much is given")
    positive: bool | None = Field(description="whether the score reaches the threshold")
    cannot_exclude: list[str] | None = Field(
        description="classes with a probability that 90 % of their held-out lesions of that age"
        " reach, the most probable first; null where too few were held out"
    )
    percentile: float | None = Field(
        description="the share of training photographs with a lower out-of-fold score, 0 to 100"
    )
    spread: float = Field(description="standard deviation of the score over folds and views")
    dropout_spread: float | None = Field(
        description="standard deviation of the score over random dropout masks"
    )
    by_fold: dict[str, float] = Field(description="the score of each fold, its views averaged")
    unusual: list[str] = Field(description="how it differs from the training photographs")
    width: int
    height: int

    @property
    def called_positive(self) -> bool:
        """The run's decision; without a calibration, whether the score is at least 0.5."""
        return self.score >= 0.5 if self.positive is None else self.positive


class Picture(NamedTuple):
    """A photograph that was read, and who is on it."""

    pixels: list[np.ndarray]  # uint8 (S, S, 3) for each run
    size: tuple[int, int]  # width, height of the file
    row: pd.DataFrame  # the table's columns of the person


class Seen(NamedTuple):
    """What a run of K folds and V views says of N photographs."""

    probs: Floats  # (N, K, V, C)
    dropout_spread: Floats | None  # of the score, (N,)
    features: Floats  # of the first fold and view, (N, F)
    missing: list[list[str]]  # of age, sex and site, those that the run reads and nobody gave


@dataclass(frozen=True, repr=False)
class Predictor:
    """A trained run, some of its folds, or a blend of runs, on the CPU in float32."""

    name: str
    runs: list[Run]
    weights: list[float]  # of the runs; they sum to 1
    scale: str  # what is averaged: prob, logit or rank
    calibration: Calibration | None
    problem: str | None = None  # why a blend has no calibration
    decode: Callable[..., tuple[np.ndarray, tuple[int, int]]] = decode  # the server: elsewhere

    @classmethod
    def load(
        cls, spec: str | Path | None = None, folds: Sequence[int] | None = None
    ) -> "Predictor":
        """From what `--run` means (lesions.runs): a run, one fold's weights, or a blend.json.

        None is the run in models/. InputError for what is missing, damaged or does not belong
        together.
        """
        files = find_run(spec)
        if not files.blend:
            run = load_run(files, folds)
            return cls(run.name, [run], [1.0], "prob", run.calibration)
        scale, weights = read_shares(files.blend)
        runs = [load_run(name) for name in weights]
        tasks = {run.name: run.task for run in runs}
        if len(set(tasks.values())) > 1:
            named = {name: f"{of.name} ({listed(of.classes, 9)})" for name, of in tasks.items()}
            raise InputError(f"{shown(files.blend)}: its runs answer different questions: {named}")
        if scale == "rank" and not all(run.calibration for run in runs):
            lacking = listed(run.problems[0] for run in runs if not run.calibration)
            raise InputError(
                f"{shown(files.blend)} blends ranks, which one photograph has only among its run's"
                f" out-of-fold scores: {lacking}"
            )
        return cls(files.name, runs, [*weights.values()], scale, *load_calibration(files))

    @property
    def described(self) -> str:
        """Its name, task, network and folds, in a line."""
        folds, config = sum(len(run.folds) for run in self.runs), self.runs[0].config
        kind = f"{config.model.backbone} at {config.data.image_size} pixels"
        if len(self.runs) > 1:
            kind = f"{len(self.runs)} runs"
        known = "" if self.calibration else ", not calibrated"
        return f"{self.name}: {self.task}, {kind}, {folds} fold{'s'[: folds > 1]}{known}"

    def __repr__(self) -> str:
        return f"Predictor({self.described})"

    @property
    def task(self) -> str:
        return self.runs[0].task.name

    @property
    def classes(self) -> list[str]:
        """The names of the probabilities, in order; of a yes-or-no task its own."""
        return list(self.runs[0].task.classes)

    @property
    def missing(self) -> list[str]:
        """What the predictions lack, and the command that brings it; [] for a calibrated run."""
        problems = [self.problem, *(problem for run in self.runs for problem in run.problems)]
        return list(dict.fromkeys(filter(None, problems)))

    def predict(self, photo: Photo, patient: Patient | None = None) -> Prediction:
        """The prediction of one photograph.

        Raises UnreadableImage (data/decode.py) where there is no picture in it, InputError where
        the run cannot answer without what is not given.
        """
        (found,) = self.predict_many([photo], [patient or Patient()])
        if isinstance(found, Prediction):
            return found
        raise found

    def predict_all(
        self, photos: Sequence[Photo], patients: Sequence[Patient], title: str
    ) -> list[Prediction | UnreadableImage]:
        """What `predict_many` yields, with a bar of progress; its first InputError is raised."""
        found: list[Prediction | UnreadableImage] = []
        answers = self.predict_many(photos, patients)
        for answer in tqdm(answers, title, len(photos), unit="image", leave=False, disable=None):
            if isinstance(answer, InputError):  # too little is given for this run
                raise answer
            found.append(answer)
        return found

    def predict_many(
        self, photos: Sequence[Photo], patients: Sequence[Patient]
    ) -> Iterator[Prediction | UnreadableImage | InputError]:
        """What `predict` returns or raises for each photograph, decoded and computed in batches."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(photos), BATCH):
                batch = slice(start, start + BATCH)
                read = list(pool.map(self._read, photos[batch], patients[batch]))
                answers = self._answer([each for each in read if isinstance(each, Picture)])
                for each in read:
                    yield answers.pop(0) if isinstance(each, Picture) else each

    def _read(self, photo: Photo, patient: Patient) -> Picture | UnreadableImage:
        try:
            file = _file(photo)
            read = [self.decode(file, r.config.data.image_size, r.preprocess) for r in self.runs]
        except UnreadableImage as error:
            return error
        return Picture([pixels for pixels, _ in read], read[0][1], patient.row(file))

    def _answer(self, pictures: list[Picture]) -> list[Prediction | InputError]:
        if not pictures:
            return []
        rows = pd.concat([picture.row for picture in pictures], ignore_index=True)
        try:
            seen = [
                _look(run, np.stack([picture.pixels[number] for picture in pictures]), rows)
                for number, run in enumerate(self.runs)
            ]
        except InputError as error:  # of somebody of whom too little is given
            if len(pictures) == 1:
                return [error]
            return [answer for picture in pictures for answer in self._answer([picture])]
        return [self._prediction(seen, place, picture) for place, picture in enumerate(pictures)]

    def _prediction(self, seen: list[Seen], place: int, picture: Picture) -> Prediction:
        missing = [name for name in ASKED if any(name in each.missing[place] for each in seen)]
        given = state_of(missing)
        first, parts = self.runs[0], [each.probs[place] for each in seen]
        quantiles = [run.calibration.of(given).quantiles for run in self.runs if run.calibration]
        of_runs = [part.mean(axis=(0, 1)) for part in parts]
        probs = blended(self.scale, self.weights, of_runs, quantiles)
        scores = [first.task.score(part) for part in parts]  # (K, V) of each run
        score = float(first.task.score(probs))
        known = self.calibration and self.calibration.of(given)
        age = float(picture.row["age_approx"].iloc[0])
        spreads = [each.dropout_spread[place] for each in seen if each.dropout_spread is not None]
        familiar = first.calibration and first.calibration.familiar
        unusual = familiar and familiar.unlike(
            first.folds[0].number, picture.pixels[0], picture.size, seen[0].features[place]
        )
        return Prediction(
            probs=self._named(probs),
            calibrated=self._named(known.apply(probs)) if known else None,
            score=score,
            given=given,
            not_given=_not_given(missing, given, self.calibration),
            threshold=known.threshold.value if known else None,
            positive=score >= known.threshold.value if known else None,
            cannot_exclude=known.sets.cannot_exclude(probs, age) if known and known.sets else None,
            percentile=known.percentile(score) if known else None,
            spread=float(np.concatenate([found.ravel() for found in scores]).std()),
            dropout_spread=float(np.mean(spreads)) if spreads else None,
            by_fold={
                fold.title: float(mean)
                for run, found in zip(self.runs, scores, strict=True)
                for fold, mean in zip(run.folds, found.mean(axis=1), strict=True)
            },
            unusual=unusual or [],
            width=picture.size[0],
            height=picture.size[1],
        )

    def explain(self, photo: Photo, patient: Patient | None, found: Prediction) -> np.ndarray:
        """Grad-CAM over the photograph, uint8 RGB (H, W, 3), mean of the first run's folds.

        It shows the evidence for the most probable class; of a yes-or-no task, the evidence for
        yes where the prediction `found` is positive, and against it where it is not.
        """
        run, file = self.runs[0], _file(photo)
        pixels, size = self.decode(file, run.config.data.image_size, run.preprocess)
        known, _ = _encoded(run, (patient or Patient()).row(file))
        output = int(np.argmax(list(found.probs.values())))
        against = not run.task.several and not found.called_positive
        image = torch.from_numpy(pixels[None])
        maps = [
            grad_cam(fold.model, image, metadata.mean(dim=0), output, against)[0]
            for fold, metadata in zip(run.folds, known, strict=True)
        ]
        cam = cv2.resize(np.mean(maps, axis=0, dtype=np.float32), (SIDE, SIDE)).clip(0, 1)
        drawn = overlay(self.decode(file, SIDE, run.preprocess)[0], cam)
        if run.preprocess.fit != "squash" or run.preprocess.circle:
            return drawn
        return cv2.resize(drawn, [max(1, round(side * SIDE / max(size))) for side in size])

    def _named(self, probs: Floats) -> dict[str, float]:
        return dict(zip(self.classes, map(float, probs), strict=True))


def _file(photo: Photo) -> File:
    """What `decode` takes: a picture in memory becomes a PNG, which loses nothing."""
    if callable(photo):
        return photo()
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, str | os.PathLike):
        return Path(photo)
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.shape[2:] not in ((), (3,)) or photo.ndim < 2:
            told = f"an array of {photo.dtype} {photo.shape}"
            raise UnreadableImage(f"{told}: give uint8, (height, width, 3) RGB or (height, width)")
        photo = Image.fromarray(photo)
    whole = photo if photo.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else photo.convert("RGB")
    file = BytesIO()
    whole.save(file, "PNG", exif=photo.getexif(), compress_level=1)
    return file.getvalue()


def _encoded(run: Run, rows: pd.DataFrame) -> tuple[list[Tensor], list[list[str]]]:
    """Metadata of N rows for each fold, (S, N, M), and which of age, sex and site each row lacks.

    S is 1, or the number of people over whom the answer is averaged where something is missing.
    """
    data, found = run.config.data, []
    missing: list[list[str]] = []
    for fold, blanks in zip(run.folds, run.blanks, strict=True):
        neutral = fold.header["neutral"]
        metadata = encode_metadata(rows, data.metadata, neutral)
        missing = [blanks.missing(row) for row in metadata]
        versions = metadata[None]
        if any(missing) and not data.metadata_dropout:
            people = encode_metadata(run.people(), data.metadata, neutral)
            versions = blanks.filled(metadata, people)
        found.append(torch.from_numpy(versions))
    return found, missing


@torch.no_grad()
def _look(run: Run, pixels: np.ndarray, rows: pd.DataFrame) -> Seen:
    """What the run says of photographs (N, S, S, 3) of the people in `rows`."""
    known, missing = _encoded(run, rows)
    count, views = len(pixels), run.config.predict.views
    images = torch.cat(views_of(torch.from_numpy(pixels), views))
    probs, spreads, features = [], [], []
    for fold, metadata in zip(run.folds, known, strict=True):
        seen = torch.cat([fold.model.see(part) for part in images.split(IMAGES)])
        found = mean_probabilities(fold.model, seen, metadata.repeat(1, views, 1))
        probs.append(found.unflatten(0, (views, count)).double().numpy())
        masked = mc_dropout(fold.model, seen[:count], metadata.mean(dim=0))
        if masked is not None:
            spreads.append(run.task.score(masked.numpy()).std(axis=1))
        if fold is run.folds[0]:
            features.append(fold.model.pooled(seen[:count]).double().numpy())
    spread = np.mean(spreads, axis=0) if spreads else None
    return Seen(np.stack(probs).transpose(2, 0, 1, 3), spread, features[0], missing)


def mc_dropout(model: LesionClassifier, seen: Tensor, metadata: Tensor) -> Tensor | None:
    """Probabilities (N, MASKS, C) of images under random dropout masks; None without dropout.

    `seen` is what `model.see` returned of them, `metadata` (N, M). The backbone is not run again,
    so its own dropout stays off. Gal and Ghahramani, 2016: https://arxiv.org/abs/1506.02142.
    """
    layers = nn.ModuleList(
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and module.p and not name.startswith("backbone.")
    )
    if not layers:
        return None
    head, found = model.head, []
    size = len(seen) if seen.ndim == 2 else 1  # of feature maps, 50 of one image fill the memory
    if isinstance(head, MultiSampleDropout):  # one mask a sample: the average is ours
        head = nn.Sequential(head.dropout, head.linear)

    def masked(features: Tensor, row: Tensor) -> Tensor:
        repeated = (each.expand(MASKS, *each.shape) for each in (features, row))
        return probabilities(head(model.fuse(*repeated)))

    with torch.random.fork_rng(devices=[]):
        layers.train()
        try:
            for part in zip(seen.split(size), metadata.split(size), strict=True):
                torch.default_generator.manual_seed(SEED)
                found.append(torch.vmap(masked, randomness="same")(*part))
        finally:
            layers.eval()
    return torch.cat(found)


def _not_given(missing: Sequence[str], given: str, known: Calibration | None) -> str:
    """The sentence of the answer; "" where all is given."""
    if not missing:
        return ""
    names = " and ".join([", ".join(missing[:-1]), missing[-1]]) if missing[1:] else missing[0]
    told = f"{names.capitalize()} {'were' if missing[1:] else 'was'} not given"
    if not known:
        return f"{told}."
    fits = {"all": "as they are", "age and sex": "of which age and sex are known",
            "nothing": "of which neither age, sex nor site is known"}  # fmt: skip
    of = fits[given if given in known.given else "all"]
    return f"{told}: threshold and calibrated probability are those of photographs {of}."
