"""Gather the data, baselines and scores of a data set's runs and blend for docs/results.md.

    python studies/real.py --dataset real --runs real/lite0 real/frozen_lite0 \\
        --blend submissions/real/blend.json --commands studies/real.sh --out docs/results/real.json
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.config import Config
from lesions.data.table import load_table, prepared
from lesions.data.tasks import build_task
from lesions.errors import InputError
from lesions.evaluation.metrics import roc_auc
from lesions.evaluation.scores import names_of, score_parts
from lesions.files import read_json
from lesions.inference.checkpoint import load_model, versions
from lesions.oof import Oof, load_oof
from lesions.paths import CODE, shown
from lesions.provenance import Results
from lesions.reporting.leaderboard import compare_scores
from lesions.runs import find_run

Scores = dict[str, Any]


def summarise(dataset: str, runs: Sequence[str], blend: str | None, commands: Path) -> Scores:
    """What docs/results.md shows; `commands` is the shell script that was run."""
    table, facts = load_table(dataset)
    audit = read_json(prepared(dataset) / "audit.json")
    lines = [line for line in commands.read_text().splitlines() if line and line[0] != "#"]
    return {
        "dataset": dataset,
        "commands": [line for line in lines if line.startswith("python ")],
        "versions": {name: text for name, text in versions().items() if name != "code"},
        "data": _data(table, facts),
        "no_pixel": [
            score | {"source": None if score["source"] == "all" else score["source"]}
            for score in audit["shortcuts"]
        ],
        "runs": [_run(name) for name in runs],
        "blend": _blend(blend) if blend else None,
    }


def _data(table: pd.DataFrame, facts: dict) -> Scores:
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


def _run(name: str) -> Scores:
    oof = load_oof(find_run(name, takes=("run",)))
    assert oof.run is not None
    if len(oof.facts) != oof.folds:
        raise InputError(
            f"{shown(oof.run.folder)}: {len(oof.facts)} of {oof.folds} folds are trained"
        )
    folds = list(oof.facts.values())
    model, header = load_model(oof.run.file(min(oof.facts), ".safetensors"))
    config = Config.model_validate(header["config"])
    return {
        "run": oof.name,
        "question": _question(CODE / "configs" / f"{oof.name}.yaml"),
        "backbone": config.model.backbone,
        "image_size": config.data.image_size,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": sum(fold["seconds"] for fold in folds),
        "images_per_second": float(np.median([fold["images_per_second"] for fold in folds])),
        "last_auc": [fold["last_auc"] for fold in folds],
        "best_auc": [fold["best_auc"] for fold in folds],
        "oof": _scores(oof),
        "test": _test(oof),
    }


def _blend(spec: str) -> Scores:
    oof = load_oof(find_run(spec, takes=("blend",)))
    assert oof.blend is not None
    blend = oof.blend
    members = [_melanoma(load_oof(find_run(name))) for name in blend["members"]]
    best = max(members, key=lambda member: roc_auc(member.positive, member.score))
    gain = compare_scores(_melanoma(oof), best)["auc"]
    return {
        **{key: blend[key] for key in ("chosen", "reason", "members", "weights")},
        "gain": {"over": best.name, **gain.as_json()},
        "nested": _scores(oof),
        "test": _test(oof),
    }


def _melanoma(oof: Oof) -> Oof:
    """The melanoma column of a run of several classes, as a yes-or-no run has it."""
    if not oof.task.several:
        return oof
    mel = oof.task.classes.index("mel")
    codes = np.where(oof.codes < 0, -1, oof.codes == mel)
    return replace(oof, task=build_task("melanoma"), probs=oof.probs[:, [mel]], codes=codes)


def _test(oof: Oof) -> Scores:
    """Scores of test predictions where the table knows the targets; else empty."""
    assert oof.prepared is not None
    if not (oof.prepared[0]["split"] == "test").any():
        return {}
    test = oof.of_test()
    return _scores(test) if (test.codes >= 0).all() else {}


def _scores(oof: Oof) -> Scores:
    """By "overall" and source: AUC of melanoma, low, high and rows."""
    oof = _melanoma(oof)
    main = names_of(len(oof.task.classes))[0]
    parts, _ = score_parts(oof.codes, oof.probs, oof.task.classes, oof.groups, oof.table["source"])
    found: Scores = {}
    for part, row in parts.iterrows():
        score = row[main].as_json()
        kept = {"auc": score["value"], "low": score["low"], "high": score["high"]}
        found["overall" if part == "all" else str(part)] = kept | {"rows": int(row["rows"])}
    return found


def _question(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0] if path.exists() else ""
    return first.removeprefix("#").strip()


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--blend", help="its blend.json, if there is one")
    parser.add_argument("--commands", type=Path, required=True, help="the script that was run")
    args, results = Results.parse(parser, "real.json", arguments)
    found = summarise(args.dataset, args.runs, args.blend, args.commands)
    for one in found["runs"]:
        print(f"{one['run']}: out-of-fold {one['oof']['overall']['auc']:.4f}", end="")
        print(f", held out {one['test']['overall']['auc']:.4f}" if one["test"] else "")
    results.write(found)


if __name__ == "__main__":
    run(main)
