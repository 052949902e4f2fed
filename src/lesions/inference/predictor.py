"""One photograph, or many, through a trained run: its probability, and how far to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lesions.data.columns import OLDEST, SEX_WORDS, SITE_WORDS, SITES
from lesions.data.decode import decode
from lesions.data.metadata import encode_metadata
from lesions.errors import InputError
from lesions.evaluation.metrics import Floats
from lesions.inference.ensemble import Fold, Mix, Run, load_ensemble, score_of
from lesions.inference.explain import grad_cam, overlay
from lesions.inference.predict import probabilities
from lesions.inference.scaling import scaled
from lesions.inference.uncertainty import mc_dropout
from lesions.inference.unusual import unlike
from lesions.inference.views import views_of


@dataclass(frozen=True)
class Patient:
    """Who was photographed, as far as it is known: None is unknown."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None
    place: str | None = None  # the word itself, finer than a site, for runs that know it

    @classmethod
    def parse(
        cls, age: float | None = None, sex: str | None = None, site: str | None = None
    ) -> "Patient":
        """From what somebody typed; InputError with the words that are understood."""
        if age is not None and not 0 <= age <= OLDEST:  # which nan is not either
            raise InputError(f"age {age:g}: give years, 0 to {OLDEST}, or leave it out")
        known_sex = SEX_WORDS.get((sex or "").strip().lower())
        if sex and not known_sex:
            raise InputError(f"sex '{sex}': give female or male, or leave it out")
        place = (site or "").strip().lower()
        known_site = SITE_WORDS.get(place)
        if site and not known_site:
            raise InputError(f"site '{site}': give one of {', '.join(SITES)}, or leave it out")
        return cls(age, known_sex, known_site, place or None)


@dataclass(frozen=True)
class Prediction:
    """What a run says of one photograph.

    `probs` and `calibrated` are by class; of a yes-or-no task they have one entry, the probability
    of yes. `score` is that probability, or of many classes that of any malignant one. What
    needs the run's calibration.json is None without it.
    """

    probs: dict[str, float]
    calibrated: dict[str, float] | None
    score: float
    positive: bool | None  # score at or above the run's threshold
    percentile: float | None  # of the training photographs' out-of-fold scores, 0 to 100
    spread: float  # standard deviation of the score over folds and views
    dropout_spread: float | None  # the same over dropout masks; None for a network without any
    by_fold: dict[str, float]  # the score of each fold, its views averaged
    unusual: list[str]  # in which ways the photograph is unlike the training's
    width: int
    height: int


class Look(NamedTuple):
    """A photograph as one run sees it."""

    pixels: np.ndarray  # uint8 (S, S, 3)
    metadata: list[Tensor]  # of each fold (1, C)
    size: tuple[int, int]  # width, height of the file


@dataclass(frozen=True)
class Predictor:
    """A trained run, one of its folds, or a blend of runs, on the CPU in float32."""

    runs: list[Run]
    mix: Mix

    @classmethod
    def load(cls, path: str | Path, folds: Sequence[int] | None = None) -> "Predictor":
        """From oof/<run> (all its folds, or `folds`), one fold<k>.safetensors, or a blend.json.

        InputError for what is missing, damaged or does not belong together.
        """
        return cls(*load_ensemble(path, folds))

    @property
    def name(self) -> str:
        return self.mix.name

    @property
    def task(self) -> str:
        return self.runs[0].task

    @property
    def classes(self) -> list[str]:
        """The names of the probabilities, in order: of a yes-or-no task the one asked for."""
        return self.runs[0].classes or [self.task]

    @property
    def missing(self) -> list[str]:
        """What the answers lack, and the command that brings it; [] for a calibrated run."""
        told = [] if self.mix.calibration else [self.mix.problem]
        told += [run.problem for run in self.runs if run.problem]
        return list(dict.fromkeys(told))

    def predict(self, photo: Path | bytes, patient: Patient | None = None) -> Prediction:
        """What the run says of a photograph, a file's path or content.

        Raises UnreadableImage (data/decode.py) where there is no picture in it.
        """
        patient = patient or Patient()
        looks = [_look(run, photo, patient) for run in self.runs]
        told = [_run_scores(run, look) for run, look in zip(self.runs, looks, strict=True)]
        probs = self.mix.blended([probs.mean(axis=(0, 1)) for probs, _, _ in told], self.runs)
        score = float(score_of(probs, self.runs[0].classes))
        scores = [score_of(p, run.classes) for (p, _, _), run in zip(told, self.runs, strict=True)]
        dropout = [s for _, s, _ in told if s is not None]
        known = self.mix.calibration
        first, look = self.runs[0], looks[0]
        return Prediction(
            probs=self._named(probs),
            calibrated=self._named(scaled(probs, known.temperature, known.shifts))
            if known
            else None,
            score=score,
            positive=score >= known.threshold.value if known else None,
            percentile=_percentile(known.quantiles, score) if known else None,
            spread=float(np.concatenate([s.ravel() for s in scores]).std()),
            dropout_spread=float(np.mean(dropout)) if dropout else None,
            by_fold={
                fold.title: float(s)
                for run, found in zip(self.runs, scores, strict=True)
                for fold, s in zip(run.folds, found.mean(axis=1), strict=True)
            },
            unusual=_unusual(first, look, told[0][2]),
            width=look.size[0],
            height=look.size[1],
        )

    def explain(self, photo: Path | bytes, patient: Patient | None, told: Prediction) -> np.ndarray:
        """Grad-CAM over the photograph, uint8 RGB (H, W, 3), mean of the first run's folds.

        It shows what speaks for the most probable class; of a yes-or-no task, what speaks for yes
        where `told` is positive and what speaks against it where it is not.
        """
        run = self.runs[0]
        look = _look(run, photo, patient or Patient())
        output = int(np.argmax(list(told.probs.values())))
        against = not run.classes and not is_positive(told)
        image = torch.from_numpy(look.pixels[None])
        maps = [
            grad_cam(fold.model, image, metadata, output, against)[0]
            for fold, metadata in zip(run.folds, look.metadata, strict=True)
        ]
        return drawn_over(photo, run, np.mean(maps, axis=0).clip(0, 1), look.size)

    def _named(self, probs: Floats) -> dict[str, float]:
        return dict(zip(self.classes, map(float, probs), strict=True))


def is_positive(told: Prediction) -> bool:
    """The run's decision, or without a calibration that of the even odds."""
    return told.score >= 0.5 if told.positive is None else told.positive


def drawn_over(
    photo: Path | bytes, run: Run, cam: np.ndarray, size: tuple[int, int], side: int = 448
) -> np.ndarray:
    """A map (S, S) over the photograph in its own shape, `side` pixels long where it can be."""
    pixels, _ = decode(photo, side, run.preprocess)
    shown = overlay(pixels, cv2.resize(cam.astype(np.float32), (side, side)).clip(0, 1))
    if run.preprocess.fit != "squash" or run.preprocess.circle:
        return shown
    scale = side / max(size)
    return cv2.resize(shown, [max(1, round(length * scale)) for length in size])


def _look(run: Run, photo: Path | bytes, patient: Patient) -> Look:
    """The photograph and the person as `run` was trained to see them."""
    pixels, size = decode(photo, run.config.data.image_size, run.preprocess)
    length = len(photo) if isinstance(photo, bytes) else photo.stat().st_size
    row = pd.DataFrame(
        {
            "sex": [patient.sex or ""],
            "age_approx": [np.nan if patient.age is None else float(patient.age)],
            "site": [patient.site or ""],
            "localization": [patient.place or ""],
            "bytes": [float(length)],
            "images_per_patient": [np.nan],
        }
    )
    kind = run.config.data.metadata
    metadata = [encode_metadata(row, kind, fold.header["neutral"]) for fold in run.folds]
    return Look(pixels, [torch.from_numpy(each) for each in metadata], size)


@torch.no_grad()
def _run_scores(run: Run, look: Look) -> tuple[Floats, float | None, Floats]:
    """P(class) by fold and view (F, V, K), spread under dropout, the first fold's features."""
    image = torch.from_numpy(look.pixels[None])
    views = torch.cat(views_of(image, run.config.predict.views))
    probs, spreads, features = [], [], []
    for fold, metadata in zip(run.folds, look.metadata, strict=True):
        logit, fused = fold.forward(views, metadata.repeat(len(views), 1))
        probs.append(probabilities(logit).double().numpy())
        features.append(fused[:1])
        masked = mc_dropout(fold.model, fused[:1], metadata)
        if masked is not None:
            spreads.append(float(score_of(masked.numpy(), run.classes).std()))
    seen = _image_features(run.folds[0], features[0])
    return np.stack(probs), float(np.mean(spreads)) if spreads else None, seen


def _image_features(fold: Fold, fused: Tensor) -> Floats:
    """What the backbone alone says of the image, (F,)."""
    return fused[0, : fold.model.backbone.head_hidden_size].double().numpy()


def _unusual(run: Run, look: Look, features: Floats) -> list[str]:
    familiar = run.calibration and run.calibration.familiar
    if not familiar:
        return []
    return unlike(familiar, str(run.folds[0].number), look.pixels, look.size, features)


def _percentile(quantiles: Sequence[float], score: float) -> float:
    """The share of the out-of-fold scores below `score`, in percent; ties count half."""
    below, upto = (np.searchsorted(quantiles, score, side) for side in ("left", "right"))
    return float(100 * np.clip((below + upto) / 2 / len(quantiles), 0, 1))
