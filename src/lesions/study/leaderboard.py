"""What the runs of a study scored on validation, and the rule by which the best is taken."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lesions.data.table import load_table
from lesions.evaluation import confusion
from lesions.evaluation.intervals import Interval, auc_interval, bootstrap
from lesions.evaluation.metrics import Metric
from lesions.files import read_csv, read_json
from lesions.inference.checkpoint import load_model
from lesions.paths import at
from lesions.study.config import Planned

AT = 0.5  # where phases 1 and 2 call a lesion malignant, as the rule says
RULE = (
    "highest mean F2 of its seeds on validation at a threshold of 0.5, to three decimals; of equal"
    " ones, fewest malignant lesions missed"
)
DECIDED: dict[str, Metric] = {
    "f2": confusion.f2,
    "recall": confusion.sensitivity,
    "precision": confusion.precision,
    "specificity": confusion.specificity,
}


def scored_rows(run: str, dataset: str) -> pd.DataFrame:
    """A run's validation rows: image_name, target, prob, and the lesion's group."""
    path = at("oof") / run / "fold0.csv"
    oof = read_csv(path, ["image_name", "target", "prob"], text=("image_name",))
    return with_groups(oof[["image_name", "target", "prob"]], dataset)


def with_groups(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    known = load_table(dataset)[0][["image_name", "group"]]
    return rows.merge(known, on="image_name", validate="1:1")


def decided_scores(rows: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Counts tp, fn, fp, tn and the scores of the decisions, each with its interval over groups."""
    target, call = rows["target"].to_numpy(), (rows["prob"] >= threshold).to_numpy().astype(int)
    counts = confusion.build_confusion(target, call, np.ones((1, len(rows))))[0]
    (tn, fp), (fn, tp) = counts.astype(int).tolist()
    return {"tp": tp, "fn": fn, "fp": fp, "tn": tn} | {
        name: as_json(bootstrap(metric, target, call, rows["group"].to_numpy()))
        for name, metric in DECIDED.items()
    }


def auc_of(rows: pd.DataFrame) -> dict[str, Any]:
    """ROC-AUC with its interval over groups."""
    target, prob, group = (rows[name].to_numpy() for name in ("target", "prob", "group"))
    return as_json(auc_interval(target, prob, group))


def as_json(found: Interval) -> dict[str, Any]:
    return {key: found.as_json()[key] for key in ("value", "low", "high")}


def measure(planned: Planned) -> dict[str, Any]:
    """A finished run's row of the leaderboard, without what was chosen later."""
    config = planned.config
    fold = read_json(at("oof") / planned.run / "fold0.json")
    rows = scored_rows(planned.run, config.dataset)
    model, _ = load_model(at("oof") / planned.run / "fold0.safetensors")
    return {
        "run": planned.run,
        "name": planned.name,
        "note": planned.note,
        "seed": config.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": config.data.image_size,
        "epochs": len(fold["history"]),
        "most_epochs": planned.most_epochs,
        "best_epoch": fold["best_epoch"],
        "seconds": fold["seconds"],
        "images_per_second": fold["images_per_second"],
        "history": fold["history"],
        "auc": auc_of(rows),
        **decided_scores(rows, AT),
    }


def entry(name: str, runs: Sequence[dict[str, Any]], reason: str = "") -> dict[str, Any]:
    """A line of the leaderboard: an architecture or a change, with its seeds' runs and means.

    `reason` says why there are none; `spread` is how far F2 lies apart between seeds.
    """
    if not runs:
        return {"name": name, "skipped": reason, "runs": []}
    scores = [run["f2"]["value"] for run in runs]
    return {
        "name": name,
        "runs": list(runs),
        "f2": float(np.mean(scores)),
        "missed": float(np.mean([run["fn"] for run in runs])),
        "spread": float(np.max(scores) - np.min(scores)) if len(scores) > 1 else None,
    }


def ranked(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries that ran, best first by RULE; of what is equal in both, the first stays first."""
    ran = [one for one in entries if one["runs"]]
    return sorted(ran, key=lambda one: (-round(one["f2"], 3), one["missed"]))
