"""Runs on the splits that other systems published, beside their numbers and beside the truth.

On its own split each system is set beside this repository's recipe, trained on that split's
training rows; and the same recipe on folds that keep lesions whole shows what the split gives away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lesions.config import load_config
from lesions.data.table import load_table
from lesions.data.tasks import MALIGNANT
from lesions.errors import InputError
from lesions.evaluation.confusion import accuracy, sensitivity
from lesions.evaluation.intervals import Interval, auc_interval, bootstrap
from lesions.evaluation.metrics import Floats
from lesions.evaluation.multiclass import class_scores, collapse, report_classes
from lesions.evaluation.thresholds import by_recall
from lesions.evaluation.weighing import choose_power, priors, weighed
from lesions.files import read_csv, read_json
from lesions.paths import at, shown
from lesions.provenance import commit
from lesions.reporting.summary import machine

RECALL = 0.9  # that the threshold of the binary task keeps, on rows that are not scored


@dataclass(frozen=True)
class Rival:
    """A system, the split it published, the rows it scored there, and what it reached."""

    system: str
    run: str  # ours on that split
    part: str  # val or test
    rows: int
    published: dict[str, float]
    source: str


RIVALS = [
    Rival(
        "001", "ham10000/system001", "val", 2003,
        {"malignant_auc": 0.8813, "malignant_recall": 0.857, "malignant_accuracy": 0.757},
        "frozen ResNet50, 224 pixels, 40 epochs",
    ),
    Rival(
        "002", "ham10000/system002", "val", 926, {"accuracy": 0.884, "macro_f1": 0.730},
        "six models with metadata gates, 224 and 240 pixels; its README's numbers",
    ),
    Rival(
        "002", "ham10000/system002", "test", 618, {"accuracy": 0.905, "macro_f1": 0.76},
        "ensemble of three backbones, chosen on validation; its split had another seed (666)",
    ),
    Rival(
        "004", "ham10000/system004", "test", 1503,
        {"macro_auc": 0.9772, "accuracy": 0.8749, "balanced_accuracy": 0.8267, "macro_f1": 0.8379},
        "EfficientNet-B0, 224 pixels; the better of two runs for each number",
    ),
]  # fmt: skip


def compare_rivals(grouped: str) -> dict[str, Any]:
    """Each rival's published numbers, ours on its split, and ours on the folds of run `grouped`.

    The threshold and the weighing of rare classes come from out-of-fold predictions on rows that
    are not scored. InputError if a run is not there.
    """
    truth = _oof(grouped)
    classes = truth.attrs["classes"]
    return {
        "commit": commit(),
        "machine": machine(),
        "classes": classes,
        "grouped": _grouped(grouped, truth),
        "rivals": [_rival(rival, truth) for rival in RIVALS],
        "runs": {run: _facts(run) for run in dict.fromkeys([grouped, *(r.run for r in RIVALS)])},
    }


def _rival(rival: Rival, truth: pd.DataFrame) -> dict[str, Any]:
    facts = read_json(_first_fold(rival.run))
    table = load_table(_dataset(rival.run))[0].set_index("image_name")
    scored = _oof(rival.run) if rival.part == "val" else _test(rival.run, table)
    if len(scored) != rival.rows:
        raise InputError(f"{rival.run}: {len(scored):,} rows, system {rival.system} {rival.rows:,}")
    train = table[(table["split"] == "train") & ~table.index.isin(scored["image_name"])]
    if rival.part == "test":
        train = train[train["fold"] < 0]
    seen = table["group"].loc[scored["image_name"]].isin(train["group"])
    known = truth[truth["image_name"].isin(train.index)]
    ours = _scores(scored, known, list(rival.published))
    honest = _scores(truth, truth, list(rival.published))
    return {
        "system": rival.system,
        "part": rival.part,
        "rows": len(scored),
        "source": rival.source,
        "seen": float(seen.mean()),
        "scheme": facts["scheme"],
        "scores": {
            name: {
                "theirs": theirs,
                "ours": ours[name].as_json(),
                "grouped": honest[name].as_json(),
                "passed": bool(ours[name].value >= theirs),
            }
            for name, theirs in rival.published.items()
        },
        "weighed": _weighed(scored, known),
    }


def _scores(scored: pd.DataFrame, known: pd.DataFrame, names: list[str]) -> dict[str, Interval]:
    classes = known.attrs["classes"]
    probs, groups = _probs(scored, classes), scored["group"].to_numpy()
    if not names[0].startswith("malignant"):
        return class_scores(scored["target"].to_numpy(), probs, classes, groups)
    target, prob = _binary(scored, classes)
    answer = by_recall(*_binary(known, classes), RECALL).apply(prob)
    return {
        "malignant_auc": auc_interval(target, prob, groups),
        "malignant_recall": bootstrap(sensitivity, target, answer, groups),
        "malignant_accuracy": bootstrap(accuracy, target, answer, groups),
    }


def _weighed(scored: pd.DataFrame, known: pd.DataFrame) -> dict[str, Any]:
    """Scores of answers that weigh rare classes up, as far as macro-F1 on `known` likes it."""
    classes = known.attrs["classes"]
    scores = class_scores(
        scored["target"], _weigh(scored, known), classes, scored["group"].to_numpy()
    )
    return {name: score.as_json() for name, score in scores.items()}


def _weigh(scored: pd.DataFrame, known: pd.DataFrame) -> Floats:
    classes, target = known.attrs["classes"], known["target"].to_numpy()
    prior = priors(target, classes)
    power = choose_power(target, _probs(known, classes), classes, "macro_f1", prior)
    return weighed(_probs(scored, classes), prior, power)


def _grouped(run: str, truth: pd.DataFrame) -> dict[str, Any]:
    classes, groups = truth.attrs["classes"], truth["group"].to_numpy()
    report = report_classes(truth["target"], _probs(truth, classes), classes, groups)
    target, prob = _binary(truth, classes)
    return {
        "run": run,
        "rows": len(truth),
        "groups": int(truth["group"].nunique()),
        "scores": {name: score.as_json() for name, score in report.scores.items()},
        "classes": {
            name: {label: score.as_json() for label, score in scores.items()}
            for name, scores in report.classes.items()
        },
        "malignant_auc": auc_interval(target, prob, groups).as_json(),
        "weighed": _weighed_by_fold(truth),
    }


def _weighed_by_fold(truth: pd.DataFrame) -> dict[str, Any]:
    """The same, each fold's answers weighed as the other folds like it."""
    classes = truth.attrs["classes"]
    probs = np.empty((len(truth), len(classes)))
    for fold in truth["fold"].unique():
        rows = (truth["fold"] == fold).to_numpy()
        probs[rows] = _weigh(truth[rows], truth[~rows])
    scores = class_scores(truth["target"], probs, classes, truth["group"].to_numpy())
    return {name: score.as_json() for name, score in scores.items()}


def _binary(table: pd.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    positive = [name for name in classes if name in MALIGNANT]
    target = table["target"].isin(positive).to_numpy().astype(int)
    return target, collapse(_probs(table, classes), classes, positive)


def _probs(table: pd.DataFrame, classes: list[str]) -> Floats:
    return table[[f"prob_{name}" for name in classes]].to_numpy(np.float64)


def _oof(run: str) -> pd.DataFrame:
    """A run's out-of-fold rows with their group; the classes are in `attrs`."""
    first = read_json(_first_fold(run))
    known = load_table(_dataset(run))[0][["image_name", "group"]]
    parts = [read_csv(path, ["image_name"]) for path in sorted((at("oof") / run).glob("fold*.csv"))]
    oof = pd.concat(parts).merge(known, on="image_name", validate="one_to_one")
    oof.attrs["classes"] = first["classes"]
    return oof


def _test(run: str, table: pd.DataFrame) -> pd.DataFrame:
    told = read_csv(at("submissions") / f"{run}.csv", ["image_name"])
    rows = table.loc[told["image_name"]]
    return told.assign(target=rows["diagnosis"].to_numpy(), group=rows["group"].to_numpy())


def _dataset(run: str) -> str:
    return load_config(at("oof") / run / "config.yaml").dataset


def _first_fold(run: str) -> Any:
    path = at("oof") / run / "fold0.json"
    if not path.exists():
        raise InputError(f"{shown(path)}: train it: scripts/train.py --config configs/{run}.yaml")
    return path


def _facts(run: str) -> Mapping[str, Any]:
    config = load_config(at("oof") / run / "config.yaml")
    folds = [read_json(path) for path in sorted((at("oof") / run).glob("fold*.json"))]
    return {
        "backbone": config.model.backbone,
        "pretrained": bool(config.model.pretrained),
        "image_size": config.data.image_size,
        "epochs": config.train.epochs,
        "metadata": config.data.metadata,
        "views": config.predict.views,
        "folds": len(folds),
        "seconds": sum(fold["seconds"] for fold in folds),
        "device": folds[0]["device"],
    }
