"""What a study compares: architectures, then one change at a time of the best, then one test."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field, ValidationError, model_validator

from lesions.config import Config, ModelConfig, Section, load_config, run_name
from lesions.errors import InputError, listed
from lesions.models.backbone import build_backbone
from lesions.paths import shown


class Arm(Section):
    """One architecture of phase 1."""

    base: str  # a run config, relative to the study's file
    set: list[str] = Field([])
    trainable: Literal["all", "head"] | int = "all"  # a number: the head and so many last layers


class Form(Section):
    """How much of the study is done."""

    note: str  # what was shortened, in plain words: it stands on the page
    arms: list[str] | None = None  # all when empty
    experiments: list[str] | None = None  # all when empty
    seeds: dict[str, int] = Field({})  # so many of an arm, `final` or `grouped`; 1 when empty
    epochs: dict[str, int] = Field({})  # most of them for an arm; `other` for all other runs
    test: bool = True  # whether the test set is opened at the end


class StudyConfig(Section):
    """Names are those of configs/datasets; experiments are given for each base of the arms."""

    official: str  # the published split: choices and the comparison
    grouped: str | None = None  # the same photographs with lesions whole: the truth
    labels: Literal["malignant", "malignant_vasc"] = "malignant"  # the map of data/tasks.py
    recall: float = Field(0.9, gt=0, le=1)  # what the second threshold has to find
    arms: dict[str, Arm] = Field(min_length=1)
    experiments: dict[str, dict[str, list[str]]] = Field({})
    pool: int = Field(3, ge=1)  # so many of the best may share in the final mean
    published: dict[str, float] = Field({})  # what others reached on the official test
    aims: dict[str, float] = Field({})  # auc, f2, recall: what the test is to reach
    forms: dict[str, Form] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> "StudyConfig":
        changes = {name for family in self.experiments.values() for name in family}
        for form in self.forms.values():
            for told, known in (
                ({*(form.arms or [])}, {*self.arms}),
                ({*form.seeds}, {*self.arms, "final", "grouped"}),
                ({*form.epochs}, {*self.arms, "other"}),
                ({*(form.experiments or [])}, changes),
            ):
                if strange := told - known:
                    raise ValueError(f"unknown: {listed(strange)}: there is {listed(known, 20)}")
        return self


class MissingWeights(InputError):
    """A network that is to stay frozen has no weights to start from."""


class Planned(NamedTuple):
    """A run of the study: its name in the tables, its folder below oof/, and its config."""

    name: str
    run: str
    config: Config
    most_epochs: int  # as the form full trains it
    note: str = ""  # on its weights, where they are not those it was meant to have


def load_study(path: Path) -> StudyConfig:
    """The study config at `path`; InputError names what is wrong in it."""
    try:
        return StudyConfig.model_validate(yaml.safe_load(Path(path).read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{shown(path)}: {error}") from error


class Study:
    """A study in one of its forms: which runs it consists of."""

    def __init__(self, path: Path, form: str, changes: Sequence[str] = ()):
        self.path, self.changes = Path(path), list(changes)
        self.config = load_study(path)
        if form not in self.config.forms:
            raise InputError(f"{shown(path)}: no form {form}: {listed(self.config.forms)}")
        self.form, self.form_name = self.config.forms[form], form
        self.root = run_name(path).rpartition("/")[0] or run_name(path)
        self.folder = f"{self.root}/{form}"

    @property
    def arms(self) -> list[str]:
        """The architectures of this form, those without weights too."""
        return [name for name in self.config.arms if name in (self.form.arms or self.config.arms)]

    def experiments(self, arm: str) -> list[str]:
        """The one-change experiments if `arm` is the best architecture."""
        known = self.config.experiments.get(self.config.arms[arm].base, {})
        wanted = known if self.form.experiments is None else self.form.experiments
        return [name for name in known if name in wanted]

    def seeds(self, of: str) -> int:
        return self.form.seeds.get(of, 1)

    def plan(
        self, arm: str, experiment: str | None = None, seed: int = 0, dataset: str | None = None
    ) -> Planned:
        """The run of `arm`, changed by `experiment`, with the config's seed plus `seed`.

        MissingWeights for a frozen network whose weights are not to be had; one that learns as a
        whole starts from random weights instead.
        """
        chosen = self.config.arms[arm]
        dataset = dataset or self.config.official
        changes = [*chosen.set, *self.changes]
        changes += [f"dataset={dataset}", f"data.task={self.config.labels}"]
        if experiment:
            changes += self.config.experiments[chosen.base][experiment]
        base = self.path.parent / chosen.base
        config = load_config(base, changes)
        most = self.form.epochs.get(arm, self.form.epochs.get("other", config.train.epochs))
        epochs = min(most, config.train.epochs)
        stages = [{"epochs": epochs, "trainable": chosen.trainable}]
        changes += [f"train.epochs={epochs}", f"seed={config.seed + seed}"]
        if chosen.trainable != "all":
            changes.append(f"train.stages={stages}")
        note = ""
        if why := missing_weights(config):
            if chosen.trainable != "all":
                raise MissingWeights(f"{why}; with random ones there is nothing to keep frozen")
            changes.append("model.pretrained=false")
            note = f"from random weights: {why}"
        words = [experiment or arm, *([f"seed {config.seed + seed}"] if seed else [])]
        run = "_".join([arm, *([experiment] if experiment else [])])
        run += f"_s{seed}" if seed else ""
        run += "_grouped" if dataset == self.config.grouped else ""
        folder = f"{self.folder}/{run.lower().replace(' ', '_').replace(':', '')}"
        most_epochs, config = config.train.epochs, load_config(base, changes)
        return Planned(", ".join(words), folder, config, most_epochs, note)


def missing_weights(config: Config) -> str:
    """Why the weights that a run starts from are not to be had, in a line; empty where they are."""
    if config.model.pretrained is False:
        return ""
    return _why_missing(config.model.model_dump_json())


@cache  # a hub that does not answer takes seconds to say so
def _why_missing(model: str) -> str:
    try:
        build_backbone(ModelConfig.model_validate_json(model))
    except InputError as error:
        return str(error).partition(". ")[0].partition("\n")[0]
    return ""
