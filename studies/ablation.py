"""Train a base config and each of its variants on the same folds, and compare them row by row.

    python studies/ablation.py configs/ham10000/ablation.yaml

Each variant is an ordinary run below oof/; finished folds are skipped, stopped ones resumed.
Differences from the base are paired by image, with intervals over groups.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.config import Config, Section, load_config, load_section, run_name
from lesions.data.tasks import build_task
from lesions.errors import InputError
from lesions.evaluation.scores import LABELS, score_rows
from lesions.inference.accelerator import build_accelerator
from lesions.oof import load_oof
from lesions.paths import shown
from lesions.provenance import Results
from lesions.reporting.leaderboard import compare_scores
from lesions.runs import find_run
from lesions.training.run import train_folds
from lesions.training.stop import StopRequest

Runs = Mapping[str, tuple[str, Config]]  # variant -> the run's name and its config


class Ablation(Section):
    """A base run and what is changed in it, each variant alone."""

    base: str  # a run config, relative to this file
    shared: list[str] = Field([])  # changes that the base and every variant share
    folds: list[int] = Field([0], min_length=1)
    variants: dict[str, list[str]] = Field(min_length=1)


def variant_runs(path: Path, ablation: Ablation) -> Runs:
    """The runs of the base, under "base", and of each variant.

    Every config is read before any training, so that a wrong key is reported at once; so is a task
    of yes or no, which has none of the scores that are compared.
    """
    base = path.parent / ablation.base
    task = load_config(base, ablation.shared).data.task
    if task is None or not build_task(task).several:
        raise InputError(f"{shown(path)}: data.task={task}: diagnosis7 and diagnosis8 are compared")
    return {
        name: (
            f"{run_name(path)}/{name.lower().replace(' ', '_')}",
            load_config(base, [*ablation.shared, *changed]),
        )
        for name, changed in {"base": [], **ablation.variants}.items()
    }


def compare_variants(runs: Runs, ablation: Ablation) -> dict[str, Any]:
    """Scores of the base and, of each variant, its differences from it with intervals by group."""
    found = {}
    for variant, (name, _) in runs.items():
        oof = load_oof(find_run(name))
        oof = oof.take(oof.table["fold"].isin(ablation.folds).to_numpy())
        order = oof.names.sort_values().index.to_numpy()
        found[variant] = oof.take(order)
    base = found.pop("base")
    classes, groups = base.task.classes, base.groups
    return {
        "config": ablation.model_dump(),
        "rows": len(base.table),
        "classes": list(classes),
        "device": next(iter(base.facts.values()))["device"],
        "level": 0.05 / len(found),  # Bonferroni-corrected
        "seconds": {
            name: sum(_epochs(run, fold)[-1][0] for fold in ablation.folds)
            for name, (run, _) in runs.items()
        },
        "epochs": {name: _epochs(run, ablation.folds[0]) for name, (run, _) in runs.items()},
        "base": {
            key: score.as_json()
            for key, score in score_rows(base.codes, base.probs, classes, groups).overall.items()
        },
        "variants": {
            variant: {
                key: told.as_json() | {"p": told.p}
                for key, told in compare_scores(other, base).items()
            }
            for variant, other in found.items()
        },
    }


def _epochs(name: str, fold: int) -> list[tuple[float, float]]:
    """Seconds of training, and the AUC, after each epoch."""
    lines = (find_run(name).folder / f"metrics{fold}.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in lines.splitlines()]
    return [(each["seconds"], each["auc"]) for each in events if each["event"] == "epoch"]


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change the base and every variant")  # fmt: skip
    parser.add_argument("--compare", action="store_true", help="train none, compare what is there")
    parser.add_argument("--max-hours", type=float, help="save and stop before this time is over")
    args, results = Results.parse(parser, "ham10000_ablation.json", arguments)
    ablation = load_section(Ablation, args.config)
    ablation = ablation.model_copy(update={"shared": [*ablation.shared, *args.set]})
    runs = variant_runs(args.config, ablation)
    stop = StopRequest(args.max_hours)
    for name, config in () if args.compare else runs.values():
        accelerator = build_accelerator(config.train.precision)
        if code := train_folds(config, name, ablation.folds, accelerator, stop):
            return code
    found = compare_variants(runs, ablation)
    for variant, scores in found["variants"].items():
        told = ", ".join(
            f"{LABELS[key]} {score['value']:+.3f} (p = {score['p']:.3f})"
            for key, score in scores.items()
        )
        print(f"{variant}: {told}")
    results.write(found)
    return 0


if __name__ == "__main__":
    run(main)
