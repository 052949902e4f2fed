"""The runs of a study: its config, which runs it consists of, and the choice among them.

Phase 1 ranks architectures, phase 2 changes one thing of the best, and one rule decides, on
validation alone. Every run is an ordinary one below oof/.
"""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.config import Config, ModelConfig, Section, load_config, load_section, run_name
from lesions.errors import InputError, listed
from lesions.evaluation import metrics
from lesions.evaluation.intervals import bootstrap, bootstrap_each
from lesions.inference.accelerator import build_accelerator
from lesions.inference.checkpoint import load_model
from lesions.models.backbone import build_backbone
from lesions.oof import load_oof, table_rows
from lesions.paths import at, shown
from lesions.runs import find_run
from lesions.training.run import train_folds
from lesions.training.state import Busy
from lesions.training.stop import Stopped, StopRequest

TASK = "malignant"
AT = 0.5  # where phases 1 and 2 call a lesion malignant
RULE = (
    f"highest mean F2 of its seeds on validation at a threshold of {AT}, to three decimals; of"
    " equal ones, fewest malignant lesions missed"
)
DECIDED = {
    "f2": metrics.f2,
    "recall": metrics.sensitivity,
    "precision": metrics.precision,
    "specificity": metrics.specificity,
}

Entry = dict[str, Any]


class Arm(Section):
    """One architecture of phase 1."""

    base: str  # a run config, relative to the study's file
    set: list[str] = Field([])
    trainable: Literal["all", "head"] | int = "all"  # a number: the head and so many last layers


class Form(Section):
    """How much of the study is done."""

    note: str  # what was shortened: it is printed on the page
    arms: list[str] | None = None  # all when empty
    experiments: list[str] | None = None  # all when empty
    seeds: dict[str, int] = Field({})  # so many of an arm, `final` or `grouped`; 1 when empty
    epochs: dict[str, int] = Field({})  # at most so many for an arm; `other` for all other runs
    test: bool = True  # whether the test set is opened at the end


class StudyConfig(Section):
    """Data sets are named as in configs/datasets; experiments are listed by the arms' base."""

    official: str  # the published split: choices and the comparison
    grouped: str | None = None  # the same photographs on a lesion-grouped split
    recall: float = Field(0.9, gt=0, le=1)  # what the second threshold has to find
    arms: dict[str, Arm] = Field(min_length=1)
    experiments: dict[str, dict[str, list[str]]] = Field({})
    pool: int = Field(3, ge=1)  # so many of the best may share in the final mean
    published: dict[str, float] = Field({})  # what others reached on the official test
    aims: dict[str, float] = Field({})  # auc, f2, recall: what the test is to reach
    classes: dict[str, Arm] = Field({})  # of the official task of several classes
    published_classes: dict[str, float] = Field({})
    forms: dict[str, Form] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> "StudyConfig":
        changes = {name for family in self.experiments.values() for name in family}
        known = {*self.arms, *changes, "final", "grouped", "other"}
        for form in self.forms.values():
            named = {*(form.arms or []), *form.seeds, *form.epochs, *(form.experiments or [])}
            if strange := named - known:
                raise ValueError(f"unknown: {listed(strange)}: there is {listed(known, 20)}")
        return self


class MissingWeights(InputError):
    """The weights that a frozen network starts from are not to be had."""


class Planned(NamedTuple):
    """A run of the study: its name in the tables, its folder below oof/, and its config."""

    name: str
    run: str
    config: Config
    note: str = ""  # on its weights, where they are not those it was meant to have


class Study:
    """A study in one of its forms: which runs it consists of."""

    def __init__(self, path: Path, form: str, changes: Sequence[str] = ()):
        self.path, self.changes = Path(path), list(changes)
        self.config = load_section(StudyConfig, self.path)
        if form not in self.config.forms:
            raise InputError(f"{shown(path)}: no form {form}: {listed(self.config.forms)}")
        self.form, self.form_name = self.config.forms[form], form
        self.root = run_name(path).rpartition("/")[0] or run_name(path)
        self.folder = f"{self.root}/{form}"

    @property
    def arms(self) -> list[str]:
        """The architectures of this form, those without weights too."""
        return [name for name in self.config.arms if name in (self.form.arms or self.config.arms)]

    def seeds(self, arm: str) -> tuple[list[Planned], str]:
        """The runs of `arm`, one a seed; or none and the reason."""
        try:
            return [self.plan(arm, seed=seed) for seed in range(self.form.seeds.get(arm, 1))], ""
        except MissingWeights as error:
            return [], str(error)

    @property
    def datasets(self) -> list[str]:
        """The data sets whose test rows this form scores, or at least chooses on."""
        grouped = self.config.grouped
        return [self.config.official, *([grouped] if grouped and self.form.test else [])]

    def experiments(self, arm: str) -> list[str]:
        """The one-change experiments if `arm` is the best architecture."""
        known = self.config.experiments.get(self.config.arms[arm].base, {})
        wanted = known if self.form.experiments is None else self.form.experiments
        return [name for name in known if name in wanted]

    def plan(
        self, arm: str, experiment: str | None = None, seed: int = 0, dataset: str | None = None
    ) -> Planned:
        """The run of `arm`, changed by `experiment`, with the config's seed plus `seed`.

        MissingWeights for a frozen network whose weights are not to be had; one that learns as a
        whole starts from random weights instead.
        """
        chosen = self.config.arms[arm]
        dataset = dataset or self.config.official
        changes = [*chosen.set, *self.changes, f"dataset={dataset}", f"data.task={TASK}"]
        if experiment:
            changes += self.config.experiments[chosen.base][experiment]
        base = self.path.parent / chosen.base
        config = load_config(base, changes)
        most = self.form.epochs.get(arm, self.form.epochs.get("other", config.train.epochs))
        epochs = min(most, config.train.epochs)
        changes += [f"train.epochs={epochs}", f"seed={config.seed + seed}"]
        if chosen.trainable != "all":
            stages = [{"epochs": epochs, "trainable": chosen.trainable}]
            changes.append(f"train.stages={stages}")
        note = ""
        if why := missing_weights(config.model.model_dump_json()):
            if chosen.trainable != "all":
                raise MissingWeights(f"{why}; with random ones there is nothing to keep frozen")
            changes.append("model.pretrained=false")
            note = f"from random weights: {why}"
        name = f"{experiment or arm}, seed {config.seed + seed}" if seed else experiment or arm
        run = f"{arm}_{experiment}" if experiment else arm
        run += f"_s{seed}" if seed else ""
        run += "_grouped" if dataset == self.config.grouped else ""
        folder = f"{self.folder}/{run.lower().replace(' ', '_').replace(':', '')}"
        return Planned(name, folder, load_config(base, changes), note)

    def plan_classes(self) -> list[Planned]:
        """The runs of the official task of several classes, where this form opens the test set."""
        found = []
        for name, arm in self.config.classes.items() if self.form.test else ():
            base = self.path.parent / arm.base
            changes = [*arm.set, *self.changes, f"dataset={self.config.official}"]
            most = load_config(base, changes).train.epochs
            changes.append(f"train.epochs={min(self.form.epochs.get('other', most), most)}")
            run = f"{self.folder}/classes_{name.lower()}"
            found.append(Planned(name, run, load_config(base, changes)))
        return found


@cache  # a hub that does not answer takes seconds to say so
def missing_weights(model: str) -> str:
    """Why the weights that `model`, a config as JSON, starts from are not to be had, or nothing."""
    config = ModelConfig.model_validate_json(model)
    try:
        if config.pretrained is not False:
            build_backbone(config)
    except InputError as error:
        return str(error).partition(". ")[0].partition("\n")[0]
    return ""


class Chosen(NamedTuple):
    """What both phases led to: the best architecture and the change of it that was better."""

    arm: str
    experiment: str | None
    phase1: list[Entry]
    phase2: list[Entry]
    final: list[Entry]  # best first: the chosen one with all its seeds, then the others
    grouped: list[str]  # runs of the chosen one on the lesion-grouped split


def choose(study: Study, stop: StopRequest) -> Chosen:
    """Train what the study lists and choose by its rule, on validation alone.

    Stopped if `stop` asks for it, Busy if another process is at the runs that are left: the same
    call resumes with the next unfinished run.
    """
    plans = {name: study.seeds(name) for name in study.arms}
    rows = iter(finish([planned for of_arm, _ in plans.values() for planned in of_arm], stop))
    phase1 = ranked([
        entry(name, [next(rows) for _ in of_arm], reason)
        for name, (of_arm, reason) in plans.items()
    ])  # fmt: skip
    arm = phase1[0]["name"]
    names = study.experiments(arm)
    changed = finish([study.plan(arm, name) for name in names], stop)
    phase2 = ranked([entry(name, [run]) for name, run in zip(names, changed, strict=True)])
    first, *others = ranked([phase1[0], *phase2, *phase1[1:]])
    experiment = first["name"] if first in phase2 else None
    last = [study.plan(arm, experiment, n) for n in range(study.form.seeds.get("final", 1))]
    grouped = [
        study.plan(arm, experiment, n, study.config.grouped)
        for n in range(study.form.seeds.get("grouped", 1) if len(study.datasets) > 1 else 0)
    ]
    runs = finish([*last, *grouped], stop)[: len(last)]
    known = {run["run"] for run in runs}
    runs += [run for run in first["runs"] if run["run"] not in known]
    final = [entry(first["name"], runs), *(one for one in others if one["runs"])]
    return Chosen(arm, experiment, phase1, phase2, final, [planned.run for planned in grouped])


def finish(plans: Sequence[Planned], stop: StopRequest) -> list[dict[str, Any]]:
    """Train the runs or what is left of them; the rows of the leaderboard."""
    train(plans, stop)
    return [measure(planned) for planned in plans]


def train(plans: Sequence[Planned], stop: StopRequest) -> None:
    """Train the runs or what is left of them.

    Several processes may work on one study, each on a GPU or some cores of its own: runs locked by
    another process are skipped, and Busy names one of them when all others are done.
    """
    busy = None
    for planned in plans:
        accelerator = build_accelerator(planned.config.train.precision)
        try:
            code = train_folds(planned.config, planned.run, [0], accelerator, stop)
        except Busy as error:
            busy = error
        else:
            if code:
                raise Stopped(code)
    if busy:
        raise Busy(f"{busy}; all other runs are done: when it is, run the same command again")


class Rows(NamedTuple):
    """Rows that are scored: target (N,), P(malignant) (N,) and the lesion's group (N,)."""

    target: np.ndarray
    prob: np.ndarray
    group: np.ndarray

    def auc(self) -> dict[str, Any]:
        """ROC-AUC with its interval over groups."""
        return bootstrap(metrics.roc_auc, self.target, self.prob, self.group).as_json()

    def decided(self, threshold: float) -> dict[str, Any]:
        """Counts tp, fn, fp, tn and the decisions' scores, each with its interval over groups."""
        called = (self.prob >= threshold).astype(int)
        counts = metrics.build_confusion(self.target, called)
        (tn, fp), (fn, tp) = counts.astype(int).tolist()
        found = bootstrap_each(DECIDED, self.target, called, self.group)
        scores = {name: score.as_json() for name, score in found.items()}
        return {"tp": tp, "fn": fn, "fp": fp, "tn": tn, **scores}


def validation_rows(runs: Sequence[str]) -> Rows:
    """Validation rows with the mean probability of `runs`, joined by image_name."""
    found = [load_oof(find_run(run)) for run in runs]
    first = found[0]
    probs = [oof.score[table_rows(oof.table, first.names, oof.name)] for oof in found]
    return Rows(first.codes, np.mean(probs, axis=0), first.groups)


def measure(planned: Planned) -> dict[str, Any]:
    """A finished run's row of the leaderboard."""
    config, oof = planned.config, load_oof(find_run(planned.run))
    facts, rows = oof.facts[0], validation_rows([planned.run])
    model, _ = load_model(at("oof", planned.run, "fold0.safetensors"))
    return {
        "run": planned.run,
        "name": planned.name,
        "note": planned.note,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": config.data.image_size,
        "epochs": len(facts["history"]),
        "best_epoch": facts["best_epoch"],
        "seconds": facts["seconds"],
        "auc": rows.auc(),
        **rows.decided(AT),
    }


def entry(name: str, runs: Sequence[dict[str, Any]], reason: str = "") -> Entry:
    """A line of the leaderboard: an architecture or a change, with its seeds' runs and means.

    `reason` says why there are none; `spread` is the range of F2 over the seeds.
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


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, best first by RULE, equals in their order; those without runs last."""
    return sorted(entries, key=lambda one: (-round(one.get("f2", -1), 3), one.get("missed", 0)))
