"""What a run says about its course: history<k>.csv, metrics<k>.jsonl, and a tracker if chosen."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator

from lesions.errors import InputError
from lesions.evaluation.confusion import f2
from lesions.evaluation.metrics import average_precision, roc_auc
from lesions.evaluation.multiclass import SCORES, all_scores
from lesions.files import write_csv


def epoch_scores(
    target: np.ndarray, prob: np.ndarray, classes: Sequence[str] = ()
) -> dict[str, float]:
    """What an epoch's validation is judged by: `train.monitor` names one of these, or the loss.

    Of (N,) probabilities with F2 at 0.5; of class numbers and (N, K) with the means over the
    classes that occur, and the most probable class as the answer.
    """
    if not classes:
        sure = np.where(target == 1, prob, 1 - prob)
        return {
            "auc": float(roc_auc(target, prob)),
            "average_precision": float(average_precision(target, prob)),
            "log_loss": _log_loss(sure),
            "f2": float(f2(target, prob >= 0.5)),
        }
    number = target.astype(int)
    scores = dict(
        zip(SCORES, all_scores.many(number, prob, np.ones((1, len(prob))))[0], strict=False)
    )
    precisions = [average_precision(number == k, prob[:, k]) for k in np.unique(number)]
    return {
        "auc": float(scores.pop("macro_auc")),
        "average_precision": float(np.nanmean(precisions)),
        "log_loss": _log_loss(prob[np.arange(len(prob)), number]),
        **{name: float(value) for name, value in scores.items()},
    }


def _log_loss(sure: np.ndarray) -> float:
    """Of the probabilities given to what was true."""
    return float(-np.log(np.clip(sure, 1e-7, 1)).mean())


class FoldLog:
    """Writes beside a fold's results; only the main process does."""

    def __init__(self, folder: Path, fold: int, accelerator: Accelerator):
        self.history = folder / f"history{fold}.csv"
        self.metrics = folder / f"metrics{fold}.jsonl"
        self.fold, self.accelerator = fold, accelerator

    def event(self, name: str, **values: Any) -> None:
        """Append a line to metrics<k>.jsonl: what happened when, resumes and repeats included."""
        if not self.accelerator.is_main_process:
            return
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": name} | values
        line = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in line.items()
        }
        try:
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"{self.metrics}: cannot be written: {error.strerror}") from error

    def epoch(self, history: list[dict[str, float]], **facts: Any) -> None:
        """Write the whole history anew, append its last row, and pass it to the tracker."""
        self.event("epoch", **history[-1], **facts)
        if self.accelerator.is_main_process:
            write_csv(self.history, pd.DataFrame(history))
        values = {f"fold{self.fold}/{key}": value for key, value in (history[-1] | facts).items()}
        self.accelerator.log(values, step=int(history[-1]["epoch"]))
