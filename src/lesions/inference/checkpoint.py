"""A trained fold as one self-describing safetensors file: weights, and the rest in its header."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from lesions.config import Config, differences, saved_config
from lesions.data.metadata import COLUMNS
from lesions.errors import InputError, listed
from lesions.files import write_bytes
from lesions.models.backbone import load_weights
from lesions.models.classifier import LesionClassifier
from lesions.paths import shown
from lesions.provenance import commit
from lesions.runs import RunFiles

FORMAT = "lesions/1"
# What all folds of a run have in common; headers of older versions lack some of it.
DECISIVE = ("run", "task", "classes", "preprocess", "fold_hash", "dataset", "model", "data")


class Fold(NamedTuple):
    """One trained fold in evaluation mode on the CPU, in float32."""

    title: str  # run and number
    number: int
    model: LesionClassifier
    header: dict

    @property
    def config(self) -> Config:
        return Config.model_validate(self.header["config"])


def save_model(path: Path, weights: dict[str, torch.Tensor], header: dict) -> None:
    """Write `weights` and, as JSON in the file's header, `header` and the format."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    text = {"lesions": json.dumps({"format": FORMAT} | header)}
    write_bytes(path, safetensors.torch.save(tensors, metadata=text))


def load_model(path: Path) -> tuple[LesionClassifier, dict]:
    """The model in evaluation mode on the CPU, and its header.

    The header holds config, preprocess, fold, task, classes (empty for yes or no), neutral (see
    data/metadata.py), table_hash, fold_hash and versions; files of older versions lack some of
    them. InputError if the file is not a checkpoint of this repository.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("lesions")
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such checkpoint: run scripts/train.py") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{shown(path)}: damaged, or no safetensors file: {error}") from error
    try:
        header = json.loads(text or "{}")
    except ValueError:
        header = {}
    lacking = {"format", "config", "task", "fold", "run", "neutral"} - {*header}
    if lacking or header["format"] != FORMAT:
        raise InputError(f"{shown(path)}: not a checkpoint of this repository ({FORMAT})")
    config = saved_config(header["config"], path)
    header["config"] = config.model_dump()
    classes = header.setdefault("classes", [])
    columns = len(COLUMNS[config.data.metadata])
    model = LesionClassifier(config.model, columns, max(1, len(classes)), weights=False)
    load_weights(model, path)
    return model.eval(), header


def load_folds(files: RunFiles) -> list[Fold]:
    """The trained folds of a run, all of them or those asked for, which must agree.

    InputError for a fold that is not there, has another's name, or is of another model.
    """
    wanted = files.numbers(".safetensors") if files.folds is None else files.folds
    if not wanted:
        raise InputError(f"{shown(files.folder)}: no fold<k>.safetensors: run scripts/train.py")
    folds: list[Fold] = []
    for number in wanted:
        path = files.file(number, ".safetensors")
        if not path.exists():
            raise InputError(
                f"{shown(path)}: not trained yet: run scripts/train.py for fold {number}, or name"
                " the folds to use with --folds"
            )
        model, header = load_model(path)
        if header["fold"] != number:
            raise InputError(f"{shown(path)}: holds fold {header['fold']}: give it its name back")
        if files.changed(number, ".safetensors"):
            raise InputError(
                f"{shown(path)}: has changed since it was trained, says fold{number}.json: copy"
                " both files again, or train the fold again"
            )
        folds.append(Fold(f"{header['run']} fold {number}", number, model, header))
        first, own = (each | each["config"] for each in (folds[0].header, header))
        both = [name for name in DECISIVE if name in first and name in own]
        changed = differences({name: first[name] for name in both}, {n: own[n] for n in both})
        if changed:
            told = f"differs from the run's other folds: {listed(changed)}"
            raise InputError(f"{shown(path)}: {told}")
    return folds


def versions() -> dict[str, str]:
    """What a number depends on besides config and data: the code's commit, Python, libraries."""
    packages = ["torch", "timm", "albumentations", "opencv-python-headless", "accelerate", "pillow"]
    return {"code": commit(), "python": platform.python_version(), "numpy": np.__version__} | {
        package: version(package) for package in packages
    }
