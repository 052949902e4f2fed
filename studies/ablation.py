"""One change at a time: a base config, named variants of it, and runs for all of them."""

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from lesions.config import Config, Section, load_config, run_name
from lesions.data.tasks import classes_of
from lesions.errors import InputError
from lesions.paths import shown


class AblationConfig(Section):
    """A base run and what is changed in it, each variant alone."""

    base: str  # a run config, relative to this file
    shared: list[str] = Field([])  # changes that the base and every variant share
    folds: list[int] = Field([0], min_length=1)
    variants: dict[str, list[str]] = Field(min_length=1)


def load_ablation(path: Path) -> AblationConfig:
    """The ablation config at `path`; InputError names what is wrong in it."""
    try:
        return AblationConfig.model_validate(yaml.safe_load(Path(path).read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{shown(path)}: {error}") from error


def variant_runs(path: Path, ablation: AblationConfig) -> dict[str, tuple[str, Config]]:
    """Of the base, under "base", and of each variant the run's name and its config.

    Every config is read before any training, so that a wrong key is told at once; so is a task of
    one class, which has none of the scores that are compared.
    """
    folder = run_name(path)
    changes: dict[str, list[str]] = {"base": [], **ablation.variants}
    base = Path(path).parent / ablation.base
    task = load_config(base, ablation.shared).data.task
    if task is None or not classes_of(task):
        raise InputError(f"{shown(path)}: data.task={task}: diagnosis7 and diagnosis8 are compared")
    return {
        name: (
            f"{folder}/{name.lower().replace(' ', '_')}",
            load_config(base, [*ablation.shared, *changed]),
        )
        for name, changed in changes.items()
    }
