"""What a trained fold leaves beside its weights: its predictions, its scores, its course."""

import numpy as np
import pandas as pd

from lesions.training.log import epoch_scores
from lesions.training.loop import FoldTrainer


def answers(
    target: np.ndarray, prob: np.ndarray, classes: list[str], index: pd.Index
) -> pd.DataFrame:
    """What a prediction file says of each row: target and prob, or class name and prob_<class>."""
    if not classes:
        return pd.DataFrame({"target": target.astype(int), "prob": prob}, index)
    names = pd.Series(np.array(classes)[target.astype(int)], index, name="target")
    columns = [f"prob_{name}" for name in classes]
    return pd.concat([names, pd.DataFrame(prob, index, columns)], axis=1)


def scores_of(target: np.ndarray, prob: np.ndarray, source: np.ndarray, classes: list[str]) -> dict:
    """`auc` is that of yes or no, or the classes' mean; single numbers of the other measures."""
    by_source = {
        str(name): epoch_scores(target[source == name], prob[source == name], classes)["auc"]
        for name in np.unique(source)
    }
    return {
        **{key: _or_none(value) for key, value in epoch_scores(target, prob, classes).items()},
        "auc_by_source": {name: _or_none(value) for name, value in by_source.items()},
        "rows": len(target),
        "positives": None if classes else int(target.sum()),
    }


def course_of(trainer: FoldTrainer) -> dict:
    """How the training went. last_auc and best_auc are single-view validation AUCs by epoch."""
    progress = trainer.progress
    best = progress.best_epoch(trainer.config.train.monitor)
    history = [{key: _or_none(value) for key, value in row.items()} for row in progress.history]
    return {
        "last_auc": history[-1]["auc"],
        "best_auc": history[best - 1]["auc"],
        "best_epoch": best,
        "history": history,
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(
            progress.step * trainer.batches.batch_size / progress.seconds, 1
        ),
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
