"""A trained fold as one self-describing safetensors file: weights, and the rest in its header."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from lesions.config import Config
from lesions.data.metadata import COLUMNS
from lesions.errors import InputError
from lesions.files import write_bytes
from lesions.models.classifier import LesionClassifier
from lesions.paths import shown
from lesions.provenance import commit

FORMAT = "lesions/1"


def save_model(path: Path, weights: dict[str, torch.Tensor], header: dict) -> None:
    """Write `weights` and, as JSON in the file's header, `header` and the format."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    text = {"lesions": json.dumps({"format": FORMAT} | header)}
    write_bytes(path, safetensors.torch.save(tensors, metadata=text))


def load_model(path: Path, task: str | None = None) -> tuple[LesionClassifier, dict]:
    """The model in evaluation mode on the CPU, and its header.

    The header holds config, fold, task, classes (none: yes or no), neutral (see data/metadata.py),
    table_hash, fold_hash and versions. InputError if the file is none of this repository's, or of
    another task.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("lesions")
        weights = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: no such checkpoint: run scripts/train.py") from None
    except SafetensorError as error:
        raise InputError(f"{shown(path)}: damaged, or no safetensors file: {error}") from error
    header = json.loads(text) if text else {}
    if header.get("format") != FORMAT:
        raise InputError(f"{shown(path)}: not a checkpoint of this repository ({FORMAT})")
    if task and header["task"] != task:
        raise InputError(f"{shown(path)}: trained for {header['task']}, not for {task}")
    config = Config.model_validate(header["config"])
    model = LesionClassifier(
        config.model,
        columns=len(COLUMNS[config.data.metadata]),
        outputs=max(1, len(header.setdefault("classes", []))),
        weights=False,
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{shown(path)}: weights of another model: {error}") from error
    return model.eval(), header


def versions() -> dict[str, str]:
    """What a number depends on besides config and data: the code's commit, Python, libraries."""
    packages = ["torch", "timm", "albumentations", "opencv-python-headless", "accelerate", "pillow"]
    return {"code": commit(), "python": platform.python_version(), "numpy": np.__version__} | {
        package: version(package) for package in packages
    }
