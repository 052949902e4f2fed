"""A run's out-of-fold predictions and training photographs -> its calibration.json."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from lesions.config import PreprocessConfig
from lesions.data.images import cached_images
from lesions.data.metadata import encode_metadata
from lesions.data.table import load_table
from lesions.data.tasks import MALIGNANT
from lesions.errors import InputError
from lesions.evaluation.calibration import across_parts, calibration_error, check_fit
from lesions.evaluation.metrics import Floats
from lesions.evaluation.multiclass import codes_of
from lesions.evaluation.thresholds import Threshold, by_cost, by_f_beta, by_recall, by_youden
from lesions.files import read_csv, sha256
from lesions.inference.calibration_file import CalibrationFile, Cut, FalseAlarms
from lesions.inference.ensemble import Fold, Run, load_run, score_of
from lesions.inference.scaling import LEAST, fit_scaling, scaled
from lesions.inference.unusual import Familiar, Typical, colours, fit_typical, odd_size, short

Rule = Callable[[ArrayLike, ArrayLike], Threshold]
RULES: dict[str, Rule] = {
    "recall": by_recall,
    "youden": by_youden,
    "f1": by_f_beta,
    "cost": by_cost,
}
STEPS = 401  # quantiles kept of the out-of-fold scores


def calibrate_run(folder: Path, rule: str, rows: int) -> tuple[CalibrationFile, str | None]:
    """What calibration.json is to hold; and, where photographs were not at hand, why not.

    Of each fold `rows` training rows say what is usual, and as many held-out ones what is not.
    """
    run = load_run(folder)
    names = [folder / f"fold{fold.number}.csv" for fold in run.folds]
    codes, probs, parts = read_oof(names, run.classes)
    found = calibrate_scores(run.name, run.task, run.classes, codes, probs, parts, rule)
    weights = [folder / f"fold{fold.number}.safetensors" for fold in run.folds]
    changes: dict = {"weights": {path.name: sha256(path) for path in weights}}
    problem = None
    try:
        changes |= _familiar(run, rows)
    except InputError as error:
        problem = str(error)
    return found.model_copy(update=changes), problem


def calibrate_blend(path: Path, rule: str) -> CalibrationFile:
    """The same of a blend, from the blend_oof.csv beside its blend.json; by groups of rows."""
    oof = path.with_name(f"{path.stem}_oof.csv")
    table = read_csv(oof, ["image_name", "target", "prob"], ("image_name",))
    parts = np.arange(len(table)) % 5
    if "group" in table:
        parts = pd.factorize(table["group"])[0] % 5
    codes, probs = table["target"].to_numpy(), table[["prob"]].to_numpy()
    found = calibrate_scores(path.stem, "blend", [], codes, probs, parts, rule)
    return found.model_copy(update={"weights": {path.name: sha256(path)}})


def read_oof(files: list[Path], classes: list[str]) -> tuple[np.ndarray, Floats, np.ndarray]:
    """Class numbers (N,), probabilities (N, K) and folds (N,) of a run's out-of-fold files."""
    columns = [f"prob_{name}" for name in classes] or ["prob"]
    table = pd.concat([read_csv(file, ["fold", "target", *columns]) for file in files])
    codes = codes_of(table["target"], classes) if classes else table["target"].to_numpy()
    return codes, table[columns].to_numpy(np.float64), table["fold"].to_numpy()


def calibrate_scores(
    run: str, task: str, classes: list[str], codes: np.ndarray, probs: Floats,
    parts: np.ndarray, rule: str,
) -> CalibrationFile:  # fmt: skip
    """Temperature, shifts, threshold and score quantiles.

    What they are worth is told of rows of each of the `parts` by what was fitted on the others.
    """
    positive = np.isin(np.asarray(classes)[codes], MALIGNANT) if classes else codes == 1
    target, score = positive.astype(int), score_of(probs, classes)
    check_fit(target, score)
    corrected = np.empty_like(probs)
    for part in np.unique(parts):
        there = parts == part
        fitted = fit_scaling(codes[~there], probs[~there]) if not there.all() else (1.0, [0.0])
        corrected[there] = scaled(probs[there], *fitted)
    cut = RULES[rule](target, score)
    called = cut.apply(score)
    if len(np.unique(parts)) > 1:
        called = across_parts(RULES[rule], target, score, parts)
    temperature, shifts = fit_scaling(codes, probs)
    better = score_of(corrected, classes)
    return CalibrationFile(
        run=run,
        task=task,
        rows=len(codes),
        positives=int(positive.sum()),
        weights={},
        temperature=temperature,
        shifts=shifts,
        log_loss=(_log_loss(codes, probs), _log_loss(codes, corrected)),
        calibration_error=(
            float(calibration_error(target, score)),
            float(calibration_error(target, better)),
        ),
        threshold=Cut(
            rule=cut.rule,
            value=cut.value,
            sensitivity=float(called[positive].mean()),
            specificity=float(1 - called[~positive].mean()),
        ),
        quantiles=np.quantile(score, np.linspace(0, 1, STEPS)).tolist(),
    )


def _log_loss(codes: np.ndarray, probs: Floats) -> float:
    if probs.shape[1] == 1:
        probs = np.hstack([1 - probs, probs])
    told = probs[np.arange(len(codes)), codes.astype(int)]
    return float(-np.log(np.maximum(told, LEAST)).mean())


def _familiar(run: Run, rows: int) -> dict:
    """The parts `preprocess`, `familiar` and `false_alarms` of the file."""
    config = run.config
    table, facts = load_table(config.dataset)
    images = cached_images(config.dataset, config.data.image_size, table)
    train = table[(table["split"] == "train") & (table["width"] > 0)]
    draw = np.random.default_rng(0)
    features, alarms, everything = {}, [], []
    for fold in run.folds:
        inside = train["fold"] == fold.number
        seen = _drawn(draw, train.index[~inside], rows)
        unseen = _drawn(draw, train.index[inside], rows)
        # The limit and the count of what is beyond it come from different patients and lesions.
        late = pd.factorize(train.loc[unseen, "group"])[0] % 2 == 1
        pixels = {name: images[where] for name, where in (("seen", seen), ("unseen", unseen))}
        told = {
            name: image_features(run, fold, pixels[name], table.loc[where])
            for name, where in (("seen", seen), ("unseen", unseen))
        }
        features[str(fold.number)] = fit_typical(told["seen"]).limited(told["unseen"][~late])
        everything.append((colours(pixels["seen"]), colours(pixels["unseen"]), late))
        known = features[str(fold.number)]
        alarms.append((known.distance(told["unseen"]) > known.limit, train.loc[unseen], late))
    colour = fit_typical(np.concatenate([seen for seen, _, _ in everything]))
    colour = colour.limited(np.concatenate([unseen[~late] for _, unseen, late in everything]))
    familiar = _sizes(train, colour, features)
    return {
        "preprocess": PreprocessConfig(**facts["config"].get("preprocess", {})),
        "familiar": familiar,
        "false_alarms": _false_alarms(familiar, alarms, [c for _, c, _ in everything]),
    }


def _sizes(train: pd.DataFrame, colour: Typical, features: dict[str, Typical]) -> Familiar:
    sides = train[["width", "height"]].to_numpy(float)
    short_side, ratio = sides.min(axis=1), sides.max(axis=1) / sides.min(axis=1)
    return Familiar(
        least_side=int(np.quantile(short_side, 0.005)),
        most_stretched=short(float(np.quantile(ratio, 0.995)) * 1.05),
        colour=colour,
        features=features,
    )


def _false_alarms(
    familiar: Familiar, alarms: list[tuple[np.ndarray, pd.DataFrame, np.ndarray]],
    seen_colours: list[Floats],
) -> FalseAlarms:  # fmt: skip
    """The shares among the held-out rows that no limit was taken from."""
    counted: list[np.ndarray] = []
    for (features, rows, late), found in zip(alarms, seen_colours, strict=True):
        size = [
            odd_size(familiar, int(width), int(height)) is not None
            for width, height in zip(rows["width"], rows["height"], strict=True)
        ]
        colour = familiar.colour.distance(found) > familiar.colour.limit
        counted.append(np.stack([size, colour, features], axis=1)[late])
    flags = np.concatenate(counted)
    size, colour, features = flags.mean(axis=0).round(4).tolist()
    return FalseAlarms(
        rows=len(flags), size=size, colour=colour, features=features,
        any=round(float(flags.any(axis=1).mean()), 4),
    )  # fmt: skip


@torch.no_grad()
def image_features(run: Run, fold: Fold, images: np.ndarray, table: pd.DataFrame) -> Floats:
    """What the backbone says of uint8 images (N, S, S, 3), (N, F)."""
    metadata = encode_metadata(table, run.config.data.metadata, fold.header["neutral"])
    width = fold.model.backbone.head_hidden_size
    told = []
    for start in range(0, len(images), 32):
        part = slice(start, start + 32)
        pixels = torch.from_numpy(np.array(images[part]))
        told.append(fold.forward(pixels, torch.from_numpy(metadata[part]))[1][:, :width].numpy())
    return np.concatenate(told).astype(np.float64)


def _drawn(draw: np.random.Generator, rows: pd.Index, most: int) -> np.ndarray:
    """At most `most` of the table's rows, in the table's order: the cache is read forwards."""
    return np.sort(draw.choice(rows.to_numpy(), min(most, len(rows)), replace=False))
