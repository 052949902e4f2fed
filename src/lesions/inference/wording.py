"""Predictions of photographs in words and tables, for people to read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from lesions.data.decode import UnreadableImage
from lesions.data.tasks import DIAGNOSES
from lesions.errors import listed
from lesions.inference.predictor import Prediction, Predictor

DISCLAIMER = "Research and education only, not a medical device."
NOTICE = f"{DISCLAIMER} It does not replace a dermatologist. Photographs are not kept."
FACTS = [
    "score", "threshold", "positive", "cannot_exclude", "percentile", "spread", "dropout_spread",
    "not_given", "unusual", "width", "height",
]  # fmt: skip
Answer = Prediction | UnreadableImage  # of a photograph


def as_records(answers: Mapping[str, Answer]) -> list[dict[str, Any]]:
    """Every answer as the JSON file has it: the file, all of `Prediction`, and the problem."""
    return [
        {"image": name, **answer.model_dump(), "problem": ""}
        if isinstance(answer, Prediction)
        else {"image": name, "problem": str(answer)}
        for name, answer in answers.items()
    ]


def as_table(predictor: Predictor, answers: Mapping[str, Answer]) -> pd.DataFrame:
    """A row an answer, as the CSV file has it; empty cells for what is not known.

    The probabilities are prob and calibrated, of several classes prob_<class> and so on.
    """
    rows = as_records(answers)
    named = []
    for kind, field in {"prob": "probs", "calibrated": "calibrated"}.items():
        found = [row.pop(field, None) or {} for row in rows]
        for name in predictor.classes:
            named.append(f"{kind}_{name}" if len(predictor.classes) > 1 else kind)
            for row, probs in zip(rows, found, strict=True):
                row[named[-1]] = probs.get(name)
    for row in rows:
        row["unusual"] = "; ".join(row.get("unusual", []))
        row["cannot_exclude"] = ", ".join(row.get("cannot_exclude") or [])
    return pd.DataFrame(rows).reindex(columns=["image", *named, *FACTS, "problem"])


def as_text(predictor: Predictor, answers: Mapping[str, Answer]) -> str:
    """The table that is printed, and below it what was not read and what is unusual."""
    several = len(predictor.classes) > 1
    rows: list[dict[str, str | None]] = []
    notes = []
    less: dict[str, list[str]] = {}  # the photographs that a sentence is true of
    names = [Path(name).name for name in answers]
    for short, found in zip(names, answers.values(), strict=True):
        if not isinstance(found, Prediction):
            rows.append({"prob": "not read"})
            notes.append(f"{short}: not read: {found}")
            continue
        best = max(found.probs, key=found.probs.__getitem__)
        rows.append(
            {
                "prob": f"{found.probs[best]:.3f}" + (f" {best}" if several else ""),
                "calibrated": f"{found.calibrated[best]:.3f}" if found.calibrated else None,
                "percentile": None if found.percentile is None else f"{found.percentile:.0f}",
                "spread": f"{found.spread:.3f}",
                "decision": {True: "positive", False: "negative", None: None}[found.positive],
                "cannot exclude": ", ".join(found.cannot_exclude or []) or None,
            }
        )
        notes += [f"{short}: {reason}" for reason in found.unusual]
        less.setdefault(found.not_given, []).append(short)
    for said, photos in less.items():
        of = listed(photos) if len(photos) < len(answers) else "every photograph"
        notes += [f"{of}: {said}"] if said else []
    table = pd.DataFrame(rows, names).dropna(axis="columns", how="all")
    table = table.rename(columns={"prob": "most probable" if several else predictor.task})
    return "\n".join([table.fillna("-").to_string(), *notes])


class Verdict(BaseModel):
    """The decision in words and, to be drawn, the numbers it was made by."""

    text: str = Field(description="such as: Below the threshold: 4.0 %")
    rates: str = Field(description="sensitivity and specificity of the threshold, or nothing")
    value: float = Field(description="the calibrated probability; of several classes the score")
    threshold: float | None = Field(description="the threshold on the same scale")
    warning: str = Field(description="why not to rely on the answer, or nothing")


def verdict(predictor: Predictor, found: Prediction) -> Verdict:
    """The decision on a prediction, and the warning that belongs beside it."""
    value, threshold, text, rates = found.score, found.threshold, "No threshold", ""
    if predictor.calibration:
        fit = predictor.calibration.of(found.given)
        cut, side = fit.threshold, "At or above" if found.called_positive else "Below"
        told = f"{cut.sensitivity:.2f}, specificity {cut.specificity:.2f}"
        text, rates = f"{side} the threshold", f"Sensitivity of this threshold {told}."
        if len(found.probs) == 1:
            value, threshold = fit.apply(np.array([[found.score], [cut.value]]))[:, 0].tolist()
    return Verdict(
        text=f"{text}: {percent(value)}",
        rates=rates,
        value=value,
        threshold=threshold,
        warning=f"Do not rely on it: {'; '.join(found.unusual)}." if found.unusual else "",
    )


def sentence(predictor: Predictor, found: Prediction) -> str:
    """What stands behind the verdict: probability, rank, what is not excluded, what is unknown."""
    probs = found.calibrated or found.probs
    several, best = len(probs) > 1, max(probs, key=probs.__getitem__)
    what = DIAGNOSES.get(best, best)
    parts = [f"The model gives {what} a probability of {percent(probs[best])}."]
    if several:
        parts = [f"The most probable diagnosis is {what}, with {percent(probs[best])}."]
    if found.cannot_exclude is not None:
        named = [DIAGNOSES.get(name, name) for name in found.cannot_exclude]
        none = f"Excludes {what}, as it does for 10 % of held-out ones."
        parts.append(f"Cannot exclude: {', '.join(named)}." if named else none)
    if found.percentile is not None:
        score = "score for malignancy" if several else "score"
        parts.append(
            f"Its {score} is higher than that of {found.percentile:.0f} % of the training"
            " photographs."
        )
    parts.append(f"The standard deviation over folds and views is {percent(found.spread)}.")
    return " ".join([*parts, found.not_given]).strip()


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if 0.1 <= share <= 0.99 else f"{100 * share:.1f} %"
