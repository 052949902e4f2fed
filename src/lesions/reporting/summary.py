"""What the finished runs and the blend of a data set scored: the content of a results file."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.config import load_config
from lesions.data.table import load_table, prepared
from lesions.errors import InputError
from lesions.evaluation.intervals import score_table
from lesions.evaluation.multiclass import classes_in, report_classes
from lesions.files import read_csv, read_json
from lesions.inference.checkpoint import load_model, versions
from lesions.paths import CODE, at, shown
from lesions.provenance import commit
from lesions.reporting.predictions import label, read_predictions


def summarise(dataset: str, runs: Sequence[str], blend: Path | None, commands: Path) -> dict:
    """Data, shortcut baselines, scores of each run and of the blend, machine and versions.

    Every AUC comes with a 95 % interval over groups, overall and by source; `test` is the held-out
    part, where the table knows its targets, empty if there is none. `commands` is the shell script
    that was run. Of several classes the AUC is their mean, beside the other scores and each class.
    """
    table, facts = load_table(dataset)
    audit = read_json(prepared(dataset) / "audit.json")
    told = [line for line in commands.read_text().splitlines() if line and line[0] != "#"]
    return {
        "dataset": dataset,
        "commands": told[told.index("set -euo pipefail") + 1 :],
        "machine": machine(),
        "versions": {name: text for name, text in versions().items() if name != "code"},
        "commit": commit(),
        "data": _data(table, facts),
        "no_pixel": [
            score | {"source": None if score["source"] == "all" else score["source"]}
            for score in audit["shortcuts"]
        ],
        "runs": [_run(run, table, facts) for run in runs],
        "blend": _blend(blend, table, facts) if blend else None,
    }


def _data(table: pd.DataFrame, facts: dict) -> dict:
    used = table[table["split"] != "quarantined"]
    return {
        "rows": len(used),
        "positives": int(used["target"].sum()),
        "groups": int(used["group"].nunique()),
        "table_hash": facts["table_hash"],
        "fold_hash": facts["fold_hash"],
        "sources": {
            source: {
                "rows": len(rows),
                "positives": int(rows["target"].sum()),
                "test_rows": int((rows["split"] == "test").sum()),
            }
            for source, rows in used.groupby("source")
        },
    }


def _run(run: str, table: pd.DataFrame, facts: dict) -> dict:
    folds = [read_json(path) for path in sorted((at("oof") / run).glob("fold*.json"))]
    wanted = int(table["fold"].max()) + 1
    if len(folds) != wanted:
        raise InputError(f"{shown(at("oof") / run)}: {len(folds)} of {wanted} folds are trained")
    strangers = {fold["fold_hash"] for fold in folds} - {facts["fold_hash"]}
    if strangers:
        raise InputError(f"{shown(at("oof") / run)}: trained on folds {', '.join(strangers)}, not these")
    config = load_config(at("oof") / run / "config.yaml")
    model, _ = load_model(at("oof") / run / "fold0.safetensors")
    oof = pd.concat([read_predictions(path) for path in (at("oof") / run).glob("fold*.csv")])
    known = label(table, facts["config"]["task"], folds[0]["task"])
    return {
        "run": run,
        "task": folds[0]["task"],
        "question": _question(CODE / "configs" / f"{run}.yaml"),
        "backbone": config.model.backbone,
        "image_size": config.data.image_size,
        "epochs": config.train.epochs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": sum(fold["seconds"] for fold in folds),
        "images_per_second": float(np.median([fold["images_per_second"] for fold in folds])),
        "fold_auc": [fold["auc"] for fold in folds],
        "last_auc": [fold["last_auc"] for fold in folds],
        "best_auc": [fold["best_auc"] for fold in folds],
        "oof": _scores(oof, known),
        "test": _test_scores(at("submissions") / f"{run}.csv", known),
    }


def _blend(folder: Path, table: pd.DataFrame, facts: dict) -> dict:
    blend = read_json(folder / "blend.json")
    chosen = blend["methods"][blend["chosen"]]
    member = read_json(at("oof") / blend["members"][0] / "fold0.json")
    known = label(table, facts["config"]["task"], member["task"])
    return {
        "chosen": blend["chosen"],
        "reason": blend["reason"],
        "members": blend["members"],
        "weights": blend["weights"],
        "oof": {"overall": {"auc": chosen["in_sample"], "low": None, "high": None}},
        "nested": _scores(read_predictions(folder / "blend_oof.csv"), known),
        "test": _test_scores(folder / "blend.csv", known),
    }


def _scores(probs: pd.DataFrame, table: pd.DataFrame) -> dict:
    """AUC with interval by part: "overall" and each source; of several classes their mean."""
    joined = table.merge(probs, on="image_name", validate="one_to_one")
    if len(joined) != len(probs) or joined["target"].isna().any():
        raise InputError(f"{len(probs) - len(joined)} predicted images are not in the table")
    if classes := classes_in(probs.columns):
        parts = [("overall", joined), *joined.groupby("source", sort=True)]
        return {str(name): _class_scores(part, classes) for name, part in parts}
    scores = score_table(joined).replace({np.nan: None, "all": "overall"})
    return {
        row["part"]: {key: row[key] for key in ("auc", "low", "high", "rows", "positives")}
        for row in scores.to_dict("records")
    }


def _class_scores(rows: pd.DataFrame, classes: list[str]) -> dict:
    """auc (macro), low and high as of two classes; all scores; and those of each class."""
    probs = rows[[f"prob_{name}" for name in classes]]
    scores, each = report_classes(rows["target"], probs, classes, rows["group"])
    mean, counts = scores["macro_auc"].as_json(), rows["target"].value_counts()
    return {
        "auc": mean["value"],
        "low": mean["low"],
        "high": mean["high"],
        "rows": len(rows),
        "scores": {name: score.as_json() for name, score in scores.items()},
        "classes": {
            name: {"rows": int(counts.get(name, 0))}
            | {key: score.as_json() for key, score in found.items()}
            for name, found in each.items()
        },
    }


def _test_scores(path: Path, table: pd.DataFrame) -> dict:
    if not (table["split"] == "test").any():
        return {}
    sent = read_csv(path, ["image_name"])
    return _scores(sent if classes_in(sent) else sent.rename(columns={"target": "prob"}), table)


def _question(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0] if path.exists() else ""
    return first.removeprefix("#").strip()


def machine() -> dict:
    """CPU name, cores and memory of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "memory_gb": round(memory, 1)}


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
