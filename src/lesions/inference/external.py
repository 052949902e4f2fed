"""Score labelled photographs from elsewhere with a trained run, as a report scores its own.

`evaluate` predicts, sets copies of training photographs apart, scores by image and by lesion, and
repeats all on damaged photographs. Every opening of a set is kept beside the run's weights.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.data.decode import UnreadableImage, decode
from lesions.data.near_duplicates import SIZE, find_near_duplicates
from lesions.data.patients import Patient
from lesions.data.sample import draw_hairs
from lesions.data.tasks import Task, targets
from lesions.errors import InputError, listed
from lesions.evaluation.calibration import equal_bins
from lesions.evaluation.intervals import REPLICATES, Interval, bootstrap, bootstrap_values, compare
from lesions.evaluation.metrics import mean, roc_auc, sensitivity, specificity
from lesions.evaluation.scores import decision_scores, score_rows
from lesions.files import write_text
from lesions.inference.ensemble import Run
from lesions.inference.predictor import File, Prediction, Predictor
from lesions.oof import Oof
from lesions.runs import RunFiles

CORRUPTIONS = ("blur", "JPEG quality 30", "brightness 60 %", "hair", "black corners")
Open = Callable[[str], File]


def evaluate(
    predictor: Predictor, rows: pd.DataFrame, read: Open, corrupt: bool
) -> tuple[dict[str, Any], Oof, dict[str, str]]:
    """All scores of labelled rows, their predictions, and what is wrong with unreadable files.

    `rows` are those of data/labels.py, each with a photograph that `read` opens by its `path`.
    """
    given, (rows, task) = len(rows), _labelled(rows, predictor.runs[0].task)
    answers = _predict(predictor, rows, read, "photographs")
    good = np.array([isinstance(answer, Prediction) for answer in answers])
    unread = {row: str(answers[at]) for at, row in enumerate(rows["image_name"]) if not good[at]}
    rows = rows[good].reset_index(drop=True)
    clean = _as_oof(predictor, task, rows, answers)
    sets, problem, copies = {"all": clean}, "", pd.Series("", rows.index)
    try:
        for run in {run.config.dataset: run for run in predictor.runs}.values():
            copies = copies.mask(copies == "", _copies(run, rows, read))
    except InputError as error:
        problem = str(error)
    clean.table["copy_of"] = copies
    if (copies != "").any() and (copies == "").any():
        sets["without copies"] = clean.take((copies == "").to_numpy())
    if (lesions := _by_lesion(clean)) is not None:
        sets["by lesion"] = lesions
    found: dict[str, Any] = {
        "task": task.name,
        "classes": task.listed,
        "unlabelled": given - len(good),
        "given": clean.table["given"].value_counts().to_dict(),
        "copies": {"images": int((copies != "").sum()), "problem": problem},
        "sets": {name: _scores(part) for name, part in sets.items()},
        "corrupted": {},
    }
    for how in CORRUPTIONS if corrupt else ():

        def read_damaged(path: str, how: str = how) -> File:
            return damaged(read(path), how)

        answers = _predict(predictor, rows, read_damaged, how)
        found["corrupted"][how] = _paired(clean, _as_oof(predictor, task, rows, answers))
    return json.loads(json.dumps(found, default=Interval.as_json)), clean, unread


def _labelled(rows: pd.DataFrame, task: Task) -> tuple[pd.DataFrame, Task]:
    """The rows that have a label, `code`, under the run's task, and the task that is scored.

    Where no row has one of a run's several classes, that is yes or no: any malignant class.
    """
    code = targets(rows["diagnosis"], task.name)
    if not task.several:
        code = code.fillna(rows["target"])
    elif code.isna().all():
        code, task = rows["target"], Task("malignant", ("malignant",))
    if code.isna().all():
        raise InputError(f"no row has a label of {listed(task.classes, 9)}: see --map")
    return rows.assign(code=code)[code.notna()].reset_index(drop=True), task


def _predict(
    predictor: Predictor, rows: pd.DataFrame, read: Open, title: str
) -> list[Prediction | UnreadableImage]:
    place = rows["localization"].mask(rows["localization"] == "", rows["site"])
    known = zip(rows["age_approx"], rows["sex"], place.where(rows["site"] != "", ""), strict=True)
    people = [Patient(None if np.isnan(age) else age, sex, site) for age, sex, site in known]
    return predictor.predict_all([partial(read, path) for path in rows["path"]], people, title)


def _as_oof(predictor: Predictor, task: Task, rows: pd.DataFrame, answers: Sequence[Any]) -> Oof:
    """The predictions of rows; in their table the run's own `called` by its `threshold`, `risk`.

    `risk` is calibrated where the run is; without a calibration the threshold is 0.5.
    """
    own, found = predictor.runs[0].task, [a for a in answers if isinstance(a, Prediction)]
    probs = np.array([[*a.probs.values()] for a in found])
    sure = np.array([[*(a.calibrated or a.probs).values()] for a in found])
    table = rows.assign(
        score=own.score(probs),
        risk=own.score(sure),
        threshold=[0.5 if a.threshold is None else a.threshold for a in found],
        called=[a.called_positive for a in found],
        given=[a.given for a in found],
    )
    probs = probs if own.several == task.several else own.score(probs)[:, None]
    return Oof(predictor.name, task, table, probs, rows["code"].to_numpy(int), [], "")


def _copies(run: Run, rows: pd.DataFrame, read: Open) -> pd.Series:
    """The training photograph that each row shows, by its name or its pixels; "" for the others.

    InputError without the prepared photographs that the run was trained on.
    """
    (table, images), size = run.load_data(), run.config.data.image_size
    train = np.flatnonzero(table["split"] == "train")
    small = [_small(images[row]) for row in tqdm(train, "training photographs", disable=None)]
    with ThreadPoolExecutor() as pool:
        own = pool.map(lambda path: decode(read(path), size, run.preprocess)[0], rows["path"])
        small += [_small(pixels) for pixels in own]
    names = table["image_name"].to_numpy()[train]
    by_id = dict(zip(pd.Series(names).str.removesuffix("_downsampled"), names, strict=True))
    copies = rows["image_name"].str.removesuffix("_downsampled").map(by_id).fillna("")
    pairs = find_near_duplicates(np.stack(small), np.arange(len(small)) >= len(train))
    new = pairs["second"].to_numpy(int) - len(train)
    copies.iloc[new] = names[pairs["first"].to_numpy(int)]
    return copies


def _small(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _by_lesion(oof: Oof) -> Oof | None:
    """One row a lesion, the mean of its photographs; None where no lesion has several."""
    lesion = oof.table["lesion_id"]
    names = lesion.mask(lesion == "", "image " + oof.names)
    if not names.duplicated().any():
        return None
    split = oof.table.groupby(names)["code"].nunique()
    if (split > 1).any():
        raise InputError(f"lesion_id {listed(split.index[split > 1])}: its photographs have"
                         " different labels: correct them, or leave the column out")  # fmt: skip
    wide = oof.table[["score", "risk", "threshold"]].join(pd.DataFrame(oof.probs))
    means = wide.groupby(names, sort=False).mean().reset_index(drop=True)
    lesions = oof.take(~names.duplicated().to_numpy())
    table = lesions.table.assign(**means[["score", "risk", "threshold"]])
    table["called"] = table["score"] >= table["threshold"]
    return replace(lesions, table=table, probs=means[[*range(oof.probs.shape[1])]].to_numpy())


def _scores(oof: Oof) -> dict[str, Any]:
    """Every score of the rows with its interval over groups, and how true the risks are."""
    positive, risk, groups = oof.positive, oof.table["risk"].to_numpy(), oof.groups
    bins, scores = equal_bins(risk, 10), score_rows(oof.codes, oof.probs, oof.task.classes, groups)
    auc, called = bootstrap(roc_auc, positive, oof.score, groups), oof.table["called"].to_numpy()
    decided = decision_scores(positive, oof.score, called, risk, groups, REPLICATES)
    return {
        "images": len(positive),
        "positives": int(positive.sum()),
        "groups": len(np.unique(groups)),
        "scores": scores.overall if oof.task.several else {},
        "classes": scores.classes,
        "measures": {"AUC": auc} | decided,
        "reliability": [
            {
                "images": int(rows.sum()),
                "forecast": float(risk[rows].mean()),
                "observed": bootstrap(mean, positive[rows], positive[rows] * 1.0, groups[rows]),
            }
            for rows in (bins == number for number in np.unique(bins))
        ],
    }


def _paired(clean: Oof, other: Oof) -> dict[str, dict[str, Any]]:
    """AUC, sensitivity and specificity of damaged rows, and how far they lie from clean ones."""
    found = {}
    metrics = {"AUC": roc_auc, "sensitivity": sensitivity, "specificity": specificity}
    for name, metric in metrics.items():
        pair = [of.score if metric is roc_auc else of.table["called"].to_numpy()
                for of in (clean, other)]  # fmt: skip
        values = bootstrap_values(metric, clean.positive, pair, clean.groups)
        clear, damage = (metric(clean.positive, prob) for prob in pair)
        difference = compare(damage - clear, values[:, 1] - values[:, 0])
        found[name] = {"value": damage, "difference": difference}
    return found


def damaged(photo: File, how: str) -> bytes:
    """The photograph's file with one of CORRUPTIONS; lossless but for JPEG."""
    content = photo if isinstance(photo, bytes) else photo.read_bytes()
    pixels: np.ndarray = np.asarray(
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    )
    height, width = pixels.shape[:2]
    suffix, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if how == "blur":
        pixels = cv2.GaussianBlur(pixels, (0, 0), min(height, width) / 100)
    elif how.startswith("JPEG"):
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 30]
    elif how.startswith("brightness"):
        pixels = cv2.convertScaleAbs(pixels, alpha=0.6)
    elif how == "hair":
        layer = np.full((192, 256, 3), 255, np.uint8)
        draw_hairs(layer, np.random.default_rng(len(content)))
        pixels = (pixels * (cv2.resize(layer, (width, height)) / 255)).astype(np.uint8)
    else:
        field = np.zeros((height, width, 1), np.uint8)
        radius = round(0.42 * np.hypot(height, width))
        pixels = pixels * cv2.circle(field, (width // 2, height // 2), radius, 1, -1)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def open_set(files: RunFiles, oof: Oof, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add this opening to the ledger beside the run; returns the earlier ones of the same set.

    A set is known by its images' names and labels.
    """
    path = files.folder / (f"{files.name}_evaluated.jsonl" if files.blend else "evaluated.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    labels = sorted(f"{name} {code}" for name, code in zip(oof.names, oof.codes, strict=True))
    mark = sha256("\n".join(labels).encode()).hexdigest()[:16]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    entry = {"set": mark, "time": when, "images": len(labels), **facts}
    write_text(path, "".join(f"{line}\n" for line in [*lines, json.dumps(entry)]))
    return [known for known in map(json.loads, lines) if known["set"] == mark]
