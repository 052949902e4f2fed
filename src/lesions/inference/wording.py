"""Predictions of photographs in words and tables, for people to read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.data.tasks import DIAGNOSES
from lesions.errors import listed
from lesions.inference.predictor import Prediction, Predictor

DISCLAIMER = "Research and education only, not a medical device."
NOTICE = f"{DISCLAIMER} It does not replace a dermatologist. Photographs are not kept."
FACTS = [
    "score", "threshold", "positive", "percentile", "spread", "dropout_spread", "not_given",
    "unusual", "width", "height",
]  # fmt: skip
Answer = tuple[str, Prediction | None, str]  # file, its prediction, or why there is none


def as_records(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Every answer as the JSON file has it: the file, all of `Prediction`, and the problem."""
    return [
        {"image": name} | (found.model_dump() if found else {}) | {"problem": problem}
        for name, found, problem in answers
    ]


def as_table(predictor: Predictor, answers: Sequence[Answer]) -> pd.DataFrame:
    """A row an answer, as the CSV file has it; empty cells for what is not known.

    The probabilities are prob and calibrated, of several classes prob_<class> and so on.
    """
    several = len(predictor.classes) > 1
    kinds = {"prob": "probs", "calibrated": "calibrated"}
    rows = []
    for name, found, problem in answers:
        row: dict[str, Any] = {"image": name, "problem": problem}
        for kind, field in kinds.items() if found else ():
            for of, prob in (getattr(found, field) or {}).items():
                row[f"{kind}_{of}" if several else kind] = prob
        if found:
            row |= {fact: getattr(found, fact) for fact in FACTS}
            row["unusual"] = "; ".join(found.unusual)
        rows.append(row)
    named = [f"{kind}_{of}" if several else kind for kind in kinds for of in predictor.classes]
    return pd.DataFrame(rows).reindex(columns=["image", *named, *FACTS, "problem"])


def as_text(predictor: Predictor, answers: Sequence[Answer]) -> str:
    """The table that is printed, and below it what was not read and what is unusual."""
    several = len(predictor.classes) > 1
    rows: list[dict[str, str | None]] = []
    notes = []
    less: dict[str, list[str]] = {}  # the photographs that a sentence is true of
    names = [Path(name).name for name, _, _ in answers]
    for short, (_, found, problem) in zip(names, answers, strict=True):
        if found is None:
            rows.append({"prob": "not read"})
            notes.append(f"{short}: not read: {problem}")
            continue
        best = max(found.probs, key=found.probs.__getitem__)
        calibrated = found.calibrated and found.calibrated[best]
        rows.append(
            {
                "prob": f"{found.probs[best]:.3f}" + (f" {best}" if several else ""),
                "calibrated": None if calibrated is None else f"{calibrated:.3f}",
                "percentile": None if found.percentile is None else f"{found.percentile:.0f}",
                "spread": f"{found.spread:.3f}",
                "decision": {True: "positive", False: "negative", None: None}[found.positive],
            }
        )
        notes += [f"{short}: {reason}" for reason in found.unusual]
        less.setdefault(found.not_given, []).append(short)
    for said, photos in less.items():
        of = listed(photos) if len(photos) < len(answers) else "every photograph"
        notes += [f"{of}: {said}"] if said else []
    columns = ["prob", "calibrated", "percentile", "spread", "decision"]
    table = pd.DataFrame(rows, names, columns)
    table.columns = ["most probable" if several else predictor.task, *columns[1:]]
    return "\n".join([table.fillna("-").to_string(), *notes])


def sentence(predictor: Predictor, found: Prediction) -> str:
    """The prediction in plain English: probability, rank, decision, and reasons for doubt."""
    probs, known = found.calibrated or found.probs, predictor.mix.calibration
    cut = known and known.of(found.given).threshold
    several, best = len(probs) > 1, max(probs, key=probs.__getitem__)
    what = DIAGNOSES.get(best, best)
    parts = [f"The model gives {what} a probability of {percent(probs[best])}."]
    if several:
        parts = [f"The most probable diagnosis is {what}, with {percent(probs[best])}."]
    if found.percentile is not None:
        score = "score for malignancy" if several else "score"
        parts.append(
            f"Its {score} is higher than that of {found.percentile:.0f} % of the training"
            " photographs."
        )
    if cut:
        called = "suspicious" if found.called_positive else "not suspicious"
        parts.append(
            f"At the run's threshold (sensitivity {percent(cut.sensitivity)},"
            f" specificity {percent(cut.specificity)}) that is {called}."
        )
    else:
        parts.append("The run has no threshold.")
    parts.append(f"The standard deviation over folds and views is {percent(found.spread)}.")
    parts += [found.not_given] if found.not_given else []
    if found.unusual:
        parts.append(f"Do not rely on it: {'; '.join(found.unusual)}.")
    return " ".join(parts)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if 0.1 <= share <= 0.99 else f"{100 * share:.1f} %"
