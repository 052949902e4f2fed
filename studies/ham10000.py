"""Compare runs on the splits of published systems with their numbers and lesion-grouped folds.

    python studies/ham10000.py configs/ham10000/published.yaml
    python studies/ham10000.py configs/ham10000/published_lite.yaml   # EfficientNet weights

Needs the runs that the config names and their test predictions: studies/ham10000.sh. A run may be a
blend.json, whose members and weights were chosen on the split's validation rows: it is scored on
test rows alone.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run
from lesions.config import Section, load_section, read_yaml, saved_config
from lesions.errors import InputError
from lesions.evaluation.intervals import Interval, bootstrap
from lesions.evaluation.metrics import Floats, accuracy, roc_auc, sensitivity
from lesions.evaluation.scores import score_rows, score_values
from lesions.evaluation.thresholds import by_recall
from lesions.files import read_json
from lesions.oof import Oof, load_oof, table_rows
from lesions.paths import CODE, shown
from lesions.provenance import Results
from lesions.reporting.breakdown import words_of
from lesions.reporting.sections import Sections
from lesions.runs import find_run

LEDGER = CODE / "docs/results/ham10000_openings.json"
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
FACTORS = np.geomspace(1 / 8, 8, 25)  # of one class, tried for each in turn


class System(Section):
    """A published system: its split's rows that it scored, and what it reached on them."""

    system: str
    run: str  # ours on that split, or the blend.json of several
    part: Literal["val", "test"]
    rows: int
    published: dict[str, float]
    source: str


class Opening(Section):
    """Test rows that were opened once for the mean of `runs`, whose predictions are kept."""

    system: str
    runs: list[str]
    power: float  # of the class shares, chosen on the validation rows


class Comparison(Section):
    """Which systems are compared, and the runs on lesion-grouped folds."""

    grouped: str
    beside: list[str] = Field([])  # further ones, which no system is compared with
    goals: dict[str, dict[str, float]] = Field({})  # by run: scores, or a class and its AUC
    goals_of: str = ""  # whose scores the goals are
    recall: float = Field(gt=0, le=1)
    note: str
    systems: list[System]
    openings: list[Opening] = Field([])


def compare(config: Comparison) -> dict[str, Any]:
    """Each system's numbers, ours on its split, and ours on lesion-grouped folds."""
    truth = load_oof(find_run(config.grouped))
    if len(truth.facts) < 2:
        raise InputError(
            f"{config.grouped}: one fold: train the others: scripts/train.py --fold all"
        )
    ours = (system.run for system in config.systems)
    runs = dict.fromkeys([config.grouped, *config.beside, *ours])
    return {
        "recall": config.recall,
        "note": config.note,
        "goals": config.goals,
        "goals_of": config.goals_of,
        "grouped": _grouped(config.grouped, truth),
        "beside": [_grouped(name, load_oof(find_run(name))) for name in config.beside],
        "rivals": [compare_system(system, truth, config.recall) for system in config.systems],
        "openings": {opening.system: score_opening(opening) for opening in config.openings},
        "runs": {name: _facts(load_oof(find_run(name))) for name in runs},
    }


def compare_system(system: System, truth: Oof, recall: float) -> dict[str, Any]:
    """The system's numbers beside ours, on its rows and on lesion-grouped folds."""
    oof = load_oof(find_run(system.run))
    assert oof.prepared is not None
    if oof.blend and system.part == "val":
        raise InputError(f"{system.run}: a blend is chosen on validation rows: score test rows")
    table = oof.prepared[0]
    scored = oof if system.part == "val" else oof.of_test()
    if len(scored.names) != system.rows:
        raise InputError(
            f"{system.run}: {len(scored.names):,} rows, but system {system.system} scored"
            f" {system.rows:,}: prepare {oof.dataset} with the split that it published"
        )
    train = table[(table["split"] == "train") & ~table["image_name"].isin(scored.names)]
    if system.part == "test":
        train = train[train["fold"] < 0]
    known = truth.take(truth.names.isin(train["image_name"]).to_numpy())
    names = list(system.published)
    ours, honest = _scores(scored, known, names, recall), _scores(truth, truth, names, recall)
    return {
        "system": system.system,
        "part": system.part,
        "rows": len(scored.names),
        "source": system.source,
        "seen": float(np.isin(scored.groups, train["group"]).mean()),
        "scores": {
            name: {
                "theirs": theirs,
                "ours": ours[name].as_json(),
                "grouped": honest[name].as_json(),
                "passed": bool(ours[name].value >= theirs),
            }
            for name, theirs in system.published.items()
        },
        "weighed": _overall(scored, _corrected(scored, known)),
    }


def score_opening(opening: Opening) -> dict[str, Any]:
    """Scores of an opening's kept predictions; InputError unless they are those of the ledger."""
    member, *others = (load_oof(find_run(name)) for name in opening.runs)
    test, more = member.of_test(), [other.of_test() for other in others]
    rows = [table_rows(other.table, test.names, other.name, "the others") for other in more]
    found = [test.probs, *(each.probs[row] for each, row in zip(more, rows, strict=True))]
    probs = np.mean(found, axis=0)
    scores = _overall(test, reweighted(probs, _prior(member), opening.power))
    scores["macro_auc"] = _overall(test, probs)["macro_auc"]  # a ranking: as they are
    known = next(one for one in read_json(LEDGER)["openings"] if one["system"] == opening.system)
    values = {name: round(score["value"], 4) for name, score in scores.items()}
    if values != known["scores"]:
        raise InputError(f"system {opening.system}: {values}: not the scores of {shown(LEDGER)}")
    return scores


def _overall(oof: Oof, probs: Floats) -> dict[str, Any]:
    """Scores of the rows by these probabilities (N, C), with intervals over groups."""
    scores = score_rows(oof.codes, probs, oof.task.classes, oof.groups).overall
    return {name: score.as_json() for name, score in scores.items()}


def _scores(scored: Oof, known: Oof, names: list[str], recall: float) -> dict[str, Interval]:
    groups = scored.groups
    if not names[0].startswith("malignant"):
        return score_rows(scored.codes, scored.probs, scored.task.classes, groups).overall
    target, prob = scored.positive.astype(int), scored.score
    called = by_recall(known.positive.astype(int), known.score, recall).apply(prob)
    return {
        "malignant_auc": bootstrap(roc_auc, target, prob, groups),
        "malignant_recall": bootstrap(sensitivity, target, called, groups),
        "malignant_accuracy": bootstrap(accuracy, target, called, groups),
    }


def _corrected(scored: Oof, known: Oof, score: str = "macro_f1") -> Floats:
    """Prior-corrected probabilities: as much as raises `score` on the `known` rows."""
    prior = _prior(known)
    return reweighted(scored.probs, prior, choose_power(known.codes, known.probs, score, prior))


def _prior(known: Oof) -> Floats:
    """The share of each class, (C,); one without rows counts as one row."""
    counts = np.bincount(known.codes, minlength=len(known.task.classes))
    return np.maximum(counts, 1) / counts.sum()


def _factored(scored: Oof, known: Oof) -> Floats:
    """Probabilities times a factor a class: those that raise macro-F1 on the `known` rows."""

    def value(factors: Floats) -> float:
        probs = reweighted(known.probs, 1 / factors, 1)
        return score_values(known.codes, probs)["macro_f1"]

    best = np.ones(len(known.task.classes))
    for k in [*range(len(best))] * 2:
        tried = [np.where(np.arange(len(best)) == k, factor, best) for factor in FACTORS]
        best = max([best, *tried], key=value)
    return reweighted(scored.probs, 1 / best, 1)


def reweighted(probs: Floats, prior: Floats, power: float) -> Floats:
    """Probabilities (N, C) divided by the classes' `prior` (C,) to a power, summing to 1 again.

    0 leaves the most probable class the prediction; 1 predicts for the highest mean recall, if the
    probabilities are right: Menon et al., 2021, "Long-tail learning via logit adjustment",
    https://arxiv.org/abs/2007.07314.
    """
    raised = probs / prior**power
    return raised / raised.sum(axis=1, keepdims=True)


def choose_power(codes: np.ndarray, probs: Floats, score: str, prior: Floats) -> float:
    """The one of POWERS with the highest overall `score`, the lowest of equals."""
    values = [score_values(codes, reweighted(probs, prior, power))[score] for power in POWERS]
    return POWERS[int(np.argmax(values))]


def _grouped(name: str, truth: Oof) -> dict[str, Any]:
    folds = truth.table["fold"].to_numpy()
    report = score_rows(truth.codes, truth.probs, truth.task.classes, truth.groups)

    def nested(decide: Callable[[Oof, Oof], Floats]) -> dict[str, Any]:
        """Scores of decisions that are, in each fold, as the other folds like them."""
        decided = np.empty_like(truth.probs)
        for fold in np.unique(folds):
            decided[folds == fold] = decide(truth.take(folds == fold), truth.take(folds != fold))
        return _overall(truth, decided)

    malignant = bootstrap(roc_auc, truth.positive.astype(int), truth.score, truth.groups)
    return {
        "run": name,
        "rows": len(truth.names),
        "groups": len(np.unique(truth.groups)),
        "scores": {name: score.as_json() for name, score in report.overall.items()},
        "classes": {
            name: {label: score.as_json() for label, score in scores.items()}
            for name, scores in report.classes.items()
        },
        "malignant_auc": malignant.as_json(),
        "weighed": nested(_corrected),
        "balanced": nested(partial(_corrected, score="balanced_accuracy")),
        "factored": nested(_factored),
        "sets": [
            part | {"shares": [share.as_json() for share in part["shares"]]}
            for part in Sections(truth, None, None, truth.probs, words_of("malignant")).sets()
        ],
    }


def _facts(oof: Oof) -> dict[str, Any]:
    assert oof.run is not None
    if oof.blend:
        used = [name for name, weight in oof.blend["weights"].items() if weight]
        facts = [_facts(load_oof(find_run(name))) for name in used]
        seconds = sum(part["seconds"] for part in facts)
        return facts[0] | {"backbone": " + ".join(used), "seconds": seconds}
    path = oof.run.folder / "config.yaml"
    config = saved_config(read_yaml(path), path)
    return {
        "backbone": config.model.backbone,
        "pretrained": bool(config.model.pretrained),
        "image_size": config.data.image_size,
        "epochs": config.train.epochs,
        "metadata": config.data.metadata,
        "views": config.predict.views,
        "folds": len(oof.facts),
        "seconds": sum(fold["seconds"] for fold in oof.facts.values()),
        "device": next(iter(oof.facts.values()))["device"],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("config", type=Path)
    args, results = Results.parse(parser, "ham10000.json", arguments)
    found = compare(load_section(Comparison, args.config))
    for system in found["rivals"]:
        for name, score in system["scores"].items():
            print(f"system {system['system']}, {system['part']} rows: {name}"
                  f" {score['ours']['value']:.4f}, published {score['theirs']:.4f},"
                  f" lesion-grouped {score['grouped']['value']:.4f}")  # fmt: skip
    results.write(found)


if __name__ == "__main__":
    run(main)
