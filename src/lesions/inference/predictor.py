"""One photograph, or many, through a trained run: its probability, and how far to trust it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lesions.data.decode import decode
from lesions.data.metadata import build_blanks, encode_metadata, state_of
from lesions.data.patients import Patient
from lesions.evaluation.metrics import Floats
from lesions.inference.calibration import Calibration
from lesions.inference.ensemble import Mix, Run, load_ensemble
from lesions.inference.explain import grad_cam, overlay
from lesions.inference.predict import mean_probabilities, probabilities, views_of
from lesions.models.classifier import LesionClassifier
from lesions.models.layers import MultiSampleDropout

MASKS = 50  # of Monte Carlo dropout
SEED = 0  # the same photograph gets the same masks
SIDE = 448  # pixels of an overlay
ASKED = ("age", "sex", "site")


class Prediction(BaseModel):
    """What a run predicts of one photograph; what needs calibration.json is None without it."""

    model_config = ConfigDict(frozen=True)

    probs: dict[str, float] = Field(description="by class; of a yes-or-no task that of yes")
    calibrated: dict[str, float] | None = Field(description="the same, calibrated")
    score: float = Field(description="of yes, or of any malignant class; not calibrated")
    given: str = Field(description="what is known of age, sex and site: all, age and sex, nothing")
    not_given: str = Field(description="a sentence that says what is not known, or nothing")
    threshold: float | None = Field(description="of the score, where so much is given")
    positive: bool | None = Field(description="whether the score reaches the threshold")
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


class Look(NamedTuple):
    """A photograph as one run sees it."""

    pixels: np.ndarray  # uint8 (S, S, 3)
    metadata: list[Tensor]  # of each fold (S, M): one person, or S over whom it is averaged
    missing: list[str]  # of age, sex and site, those that the run reads and nobody gave
    size: tuple[int, int]  # width, height of the file


@dataclass(frozen=True)
class Predictor:
    """A trained run, some of its folds, or a blend of runs, on the CPU in float32."""

    runs: list[Run]
    mix: Mix

    @classmethod
    def load(cls, spec: str | Path, folds: Sequence[int] | None = None) -> "Predictor":
        """From what `--run` means (lesions.runs): a run, one fold's weights, or a blend.json.

        InputError for what is missing, damaged or does not belong together.
        """
        return cls(*load_ensemble(spec, folds))

    @property
    def name(self) -> str:
        return self.mix.name

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
        problems = [self.mix.problem] if self.mix.problem else []
        problems += [problem for run in self.runs for problem in run.problems]
        return list(dict.fromkeys(problems))

    def predict(self, photo: Path | bytes, patient: Patient | None = None) -> Prediction:
        """The prediction of a photograph, a file's path or content.

        Raises UnreadableImage (data/decode.py) where there is no picture in it, InputError where
        the run cannot answer without what is not given.
        """
        looks = [_look(run, photo, patient or Patient()) for run in self.runs]
        parts = [_run_probs(run, look) for run, look in zip(self.runs, looks, strict=True)]
        missing = [name for name in ASKED if any(name in look.missing for look in looks)]
        given = state_of(missing)
        of_runs = [probs.mean(axis=(0, 1)) for probs, _, _ in parts]
        probs = self.mix.blended(of_runs, self.runs, given)
        task = self.runs[0].task
        known = self.mix.calibration and self.mix.calibration.of(given)
        scores = [task.score(probs) for probs, _, _ in parts]  # (folds, views) of each run
        spreads = [spread for _, spread, _ in parts if spread is not None]
        score = float(task.score(probs))
        first, look = self.runs[0], looks[0]
        familiar = first.calibration and first.calibration.familiar
        return Prediction(
            probs=self._named(probs),
            calibrated=self._named(known.apply(probs)) if known else None,
            score=score,
            given=given,
            not_given=_not_given(missing, given, self.mix.calibration),
            threshold=known.threshold.value if known else None,
            positive=score >= known.threshold.value if known else None,
            percentile=known.percentile(score) if known else None,
            spread=float(np.concatenate([found.ravel() for found in scores]).std()),
            dropout_spread=float(np.mean(spreads)) if spreads else None,
            by_fold={
                fold.title: float(mean)
                for run, found in zip(self.runs, scores, strict=True)
                for fold, mean in zip(run.folds, found.mean(axis=1), strict=True)
            },
            unusual=familiar.unlike(first.folds[0].number, look.pixels, look.size, parts[0][2])
            if familiar
            else [],
            width=look.size[0],
            height=look.size[1],
        )

    def explain(
        self, photo: Path | bytes, patient: Patient | None, found: Prediction
    ) -> np.ndarray:
        """Grad-CAM over the photograph, uint8 RGB (H, W, 3), mean of the first run's folds.

        It shows the evidence for the most probable class; of a yes-or-no task, the evidence for
        yes where the prediction `found` is positive, and against it where it is not.
        """
        run = self.runs[0]
        look = _look(run, photo, patient or Patient())
        output = int(np.argmax(list(found.probs.values())))
        against = not run.task.several and not found.called_positive
        image = torch.from_numpy(look.pixels[None])
        maps = [
            grad_cam(fold.model, image, metadata.mean(dim=0, keepdim=True), output, against)[0]
            for fold, metadata in zip(run.folds, look.metadata, strict=True)
        ]
        return drawn_over(photo, run, np.mean(maps, axis=0).clip(0, 1), look.size)

    def _named(self, probs: Floats) -> dict[str, float]:
        return dict(zip(self.classes, map(float, probs), strict=True))


def drawn_over(photo: Path | bytes, run: Run, cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (S, S) over the photograph in its own shape, SIDE pixels long where it can be."""
    pixels, _ = decode(photo, SIDE, run.preprocess)
    shown = overlay(pixels, cv2.resize(cam.astype(np.float32), (SIDE, SIDE)).clip(0, 1))
    if run.preprocess.fit != "squash" or run.preprocess.circle:
        return shown
    scale = SIDE / max(size)
    return cv2.resize(shown, [max(1, round(length * scale)) for length in size])


@torch.no_grad()
def mc_dropout(model: LesionClassifier, seen: Tensor, metadata: Tensor) -> Tensor | None:
    """Probabilities (MASKS, C) of one image under random dropout masks; None without dropout.

    `seen` is what `model.see` returned of it, `metadata` (1, M). The backbone is not run again, so
    its own dropout stays off. Gal and Ghahramani, 2016: https://arxiv.org/abs/1506.02142.
    """
    of_backbone = set(model.backbone.modules())
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Dropout) and module.p and module not in of_backbone
    ]
    if not layers:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for layer in layers:
            layer.train()
        try:
            fused = model.fuse(seen.repeat_interleave(MASKS, 0), metadata.repeat(MASKS, 1))
            head = model.head
            if isinstance(head, MultiSampleDropout):  # one mask a sample: the average is ours
                return probabilities(head.linear(head.dropout(fused)))
            return probabilities(head(fused))
        finally:
            for layer in layers:
                layer.eval()


def _look(run: Run, photo: Path | bytes, patient: Patient) -> Look:
    """The photograph and the person as `run` was trained to see them."""
    pixels, size = decode(photo, run.config.data.image_size, run.preprocess)
    row = patient.row(len(photo) if isinstance(photo, bytes) else photo.stat().st_size)
    data, found, missing = run.config.data, [], []
    for fold in run.folds:
        neutral = fold.header["neutral"]
        blanks, metadata = build_blanks(data, neutral), encode_metadata(row, data.metadata, neutral)
        missing = blanks.missing(metadata[0])
        if missing and not data.metadata_dropout:
            people = encode_metadata(run.people(), data.metadata, neutral)
            metadata = blanks.filled(metadata, people)[:, 0]
        found.append(torch.from_numpy(metadata))
    return Look(pixels, found, missing, size)


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


@torch.no_grad()
def _run_probs(run: Run, look: Look) -> tuple[Floats, float | None, Floats]:
    """P(class) by fold and view (K, V, C), spread under dropout, the first fold's features."""
    image = torch.from_numpy(look.pixels[None])
    views = torch.cat(views_of(image, run.config.predict.views))
    probs, spreads, features = [], [], []
    for fold, metadata in zip(run.folds, look.metadata, strict=True):
        seen = fold.model.see(views)
        versions = metadata[:, None].expand(-1, len(views), -1)
        probs.append(mean_probabilities(fold.model, seen, versions).double().numpy())
        features.append(fold.model.pooled(seen[:1])[0].double().numpy())  # of the first view
        masked = mc_dropout(fold.model, seen[:1], metadata.mean(dim=0, keepdim=True))
        if masked is not None:
            spreads.append(float(run.task.score(masked.numpy()).std()))
    return np.stack(probs), float(np.mean(spreads)) if spreads else None, features[0]
