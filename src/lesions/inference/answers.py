"""Predictions of photographs as a table, and the photographs that a command names."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from lesions.data.decode import UnreadableImage
from lesions.data.photographs import SUFFIXES
from lesions.errors import InputError, listed
from lesions.files import write_csv, write_json
from lesions.inference.predictor import Patient, Prediction, Predictor
from lesions.paths import at, shown

DISCLAIMER = "Research and education only, not a medical device."
Answer = tuple[str, Prediction | None, str]  # file, what the run says, or why it says nothing


def predict_photographs(
    run: str, folds: Sequence[int] | None, places: Sequence[str], patient: dict[str, Any],
    out: Path | None,
) -> int:  # fmt: skip
    """Print what `run` says of every photograph in `places`, and write it to `out`, CSV or JSON.

    Returns 0, or 2 if a photograph was unreadable. InputError for a wrong run, place or word.
    """
    photos, who = find_photos(places), Patient.parse(**patient)
    path = out or at("submissions") / f"{Path(run).name}_images.csv"
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"--out {path}: name a .csv or a .json")
    predictor = Predictor.load(run, folds)
    for problem in predictor.missing:
        print(f"note: {problem}")
    bar = tqdm(answers(predictor, photos, who), total=len(photos), leave=False, disable=None)
    given = list(bar)
    print(as_text(predictor, given))
    if path.suffix == ".json":
        write_json(path, as_records(given))
    else:
        write_csv(path, as_table(predictor, given))
    print(f"{shown(path)}: {len(given):,} photographs. {DISCLAIMER}")
    unread = [name for name, told, _ in given if told is None]
    if unread:
        print(f"not read: {len(unread):,} of {len(given):,}: {listed(unread)}", file=sys.stderr)
    return 2 if unread else 0


def find_photos(places: Sequence[str | Path]) -> list[Path]:
    """The named files, and every photograph below the named folders, in order, each once.

    InputError for a place that is not there, or where there is no photograph.
    """
    found: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.exists():
            raise InputError(f"{place}: no such file or folder")
        if not place.is_dir():
            found[place] = None
            continue
        inside = [path for path in sorted(place.rglob("*")) if path.suffix.lower() in SUFFIXES]
        if not inside:
            raise InputError(f"{place}: no photographs below it ({', '.join(SUFFIXES)})")
        found |= dict.fromkeys(inside)
    return list(found)


def answers(predictor: Predictor, photos: Sequence[Path], patient: Patient) -> Iterator[Answer]:
    """One answer a photograph; one that cannot be read has a reason instead."""
    for photo in photos:
        try:
            yield str(photo), predictor.predict(photo, patient), ""
        except UnreadableImage as error:
            yield str(photo), None, str(error)


def as_records(given: Sequence[Answer]) -> list[dict[str, Any]]:
    """Every answer as JSON has it: its file, all of `Prediction`, and the problem."""
    return [
        {"image": name} | (asdict(told) if told else {}) | {"problem": problem}
        for name, told, problem in given
    ]


def as_table(predictor: Predictor, given: Sequence[Answer]) -> pd.DataFrame:
    """A row an answer, as the CSV has it; empty cells for what is not known.

    The probabilities are prob and calibrated, of many classes prob_<class> and calibrated_<class>.
    """
    rows = [{"image": name} | _cells(told) | {"problem": problem} for name, told, problem in given]
    columns = ["image", *_columns(predictor), *_FACTS, "problem"]
    return pd.DataFrame(rows).reindex(columns=columns)


_FACTS = [
    "score",
    "positive",
    "percentile",
    "spread",
    "dropout_spread",
    "unusual",
    "width",
    "height",
]


def _columns(predictor: Predictor) -> list[str]:
    if len(predictor.classes) == 1:
        return ["prob", "calibrated"]
    kinds = ("prob", "calibrated")
    return [f"{kind}_{name}" for kind in kinds for name in predictor.classes]


def _cells(told: Prediction | None) -> dict[str, Any]:
    if told is None:
        return {}
    cells: dict[str, Any] = {name: getattr(told, name) for name in _FACTS}
    cells["unusual"] = "; ".join(told.unusual)
    for kind, probs in (("prob", told.probs), ("calibrated", told.calibrated)):
        for name, prob in (probs or {}).items():
            cells[kind if len(told.probs) == 1 else f"{kind}_{name}"] = prob
    return cells


def as_text(predictor: Predictor, given: Sequence[Answer]) -> str:
    """The table that is printed: one line a photograph, what is unusual about it below."""
    wide = max(len("image"), *(len(Path(name).name) for name, _, _ in given))
    what = "most probable" if len(predictor.classes) > 1 else predictor.task
    lines = [f"{'image':{wide}}  {what:>18}  calibrated  percentile  spread  decision"]
    for name, told, problem in given:
        head = f"{Path(name).name:{wide}}"
        if told is None:
            lines.append(f"{head}  not read: {problem}")
            continue
        best = max(told.probs, key=told.probs.__getitem__)
        prob = f"{told.probs[best]:.3f}" + (f" {best}" if len(told.probs) > 1 else "")
        true = f"{told.calibrated[best]:.3f}" if told.calibrated else "-"
        place = f"{told.percentile:.0f}" if told.percentile is not None else "-"
        called = {True: "positive", False: "negative", None: "-"}[told.positive]
        lines.append(f"{head}  {prob:>18}  {true:>10}  {place:>10}  {told.spread:6.3f}  {called}")
        lines += [f"{'':{wide}}  ! {reason}" for reason in told.unusual]
    return "\n".join(lines)
