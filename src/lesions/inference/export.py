"""A trained fold as one file that runs without this repository: ONNX, or torch.export's program.

In go uint8 photographs and encoded metadata, out come probabilities; normalisation is inside,
test-time views are outside. The file carries the checkpoint's header under the key "lesions":
config, task, classes, neutral values and versions.
"""

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lesions.config import Config
from lesions.data.metadata import COLUMNS
from lesions.errors import InputError
from lesions.files import atomic
from lesions.inference.predict import probabilities
from lesions.models.classifier import LesionClassifier
from lesions.paths import shown

KEY = "lesions"
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # uint8 images, metadata -> P (B, K)


class Answering(nn.Module):
    """The model with its last step: probabilities (B, K), of yes where K is 1."""

    def __init__(self, model: LesionClassifier):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, metadata: Tensor) -> Tensor:
        return probabilities(self.model(image, metadata))


class AnsweringImage(Answering):
    """The same for a model without metadata, which has one input."""

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(image, image.new_empty(image.shape[0], 0, dtype=torch.float32))


def export_onnx(model: LesionClassifier, header: Mapping[str, Any], path: Path) -> None:
    """Write `path`: image uint8 (batch, S, S, 3) in, prob float32 (batch, K) out, any batch.

    A model that takes metadata has a second input, metadata float32 (batch, C).
    """
    require("onnx", "onnxscript")
    module, inputs, shapes = _traceable(model, header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module, inputs, dynamo=True, dynamic_shapes=shapes, output_names=["prob"],
            verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(header)
    with atomic(path) as part:
        program.save(part, external_data=False)


def export_torch(model: LesionClassifier, header: Mapping[str, Any], path: Path) -> None:
    """Write `path`, a program that torch.export.load reads; inputs and output as in ONNX."""
    module, inputs, shapes = _traceable(model, header)
    program = torch.export.export(module, inputs, dynamic_shapes=shapes)
    with atomic(path) as part, part.open("wb") as file:
        torch.export.save(program, file, extra_files={KEY: json.dumps(header)})


EXPORTS = {"onnx": export_onnx, "torch-export": export_torch}


def open_onnx(path: Path, threads: int = 1) -> tuple[Predict, dict]:
    """The exported model on onnxruntime's CPU provider, and the header it carries."""
    runtime = require("onnxruntime")[0]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    header = session.get_modelmeta().custom_metadata_map.get(KEY)
    if header is None:
        raise InputError(f"{shown(path)}: not exported by this repository: no metadata '{KEY}'")

    def predict(images: np.ndarray, metadata: np.ndarray) -> np.ndarray:
        given = dict(zip(names, (images, metadata), strict=False))
        return session.run(["prob"], given)[0]

    return predict, json.loads(header)


def open_torch(path: Path) -> tuple[Predict, dict]:
    """The exported program, and the header it carries."""
    extra = {KEY: ""}
    module = torch.export.load(path, extra_files=extra).module()
    header = json.loads(extra[KEY])
    return predict_by(module, header["config"]["data"]["metadata"] != "none"), header


def predict_by(module: Callable[..., Tensor], metadata: bool) -> Predict:
    """A module that gives probabilities, on arrays and without gradients."""

    @torch.no_grad()
    def predict(images: np.ndarray, columns: np.ndarray) -> np.ndarray:
        given = (torch.from_numpy(images), torch.from_numpy(columns))[: 1 + metadata]
        return module(*given).float().numpy()

    return predict


def require(*packages: str) -> list[Any]:
    """The imported packages; InputError with the command that installs a missing one."""
    try:
        return [importlib.import_module(package) for package in packages]
    except ImportError as error:
        raise InputError(
            f"export needs the package {error.name}: pip install 'lesions[export]', or"
            " pip install onnx onnxscript onnxruntime"
        ) from error


def answering(model: LesionClassifier) -> Answering:
    """The module that is exported."""
    taking = model.metadata is not None or model.gate is not None
    return (Answering if taking else AnsweringImage)(model).eval()


def _traceable(
    model: LesionClassifier, header: Mapping[str, Any]
) -> tuple[Answering, tuple[Tensor, ...], tuple[Any, ...]]:
    """What an exporter asks for: module, example inputs, and which of their dimensions are free.

    Two examples, since one of size 1 would be taken for a constant.
    """
    config = Config.model_validate(header["config"])
    size, columns = config.data.image_size, len(COLUMNS[config.data.metadata])
    image = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    inputs = (image, torch.zeros(2, columns)) if columns else (image,)
    batch = torch.export.Dim("batch")
    return answering(model), inputs, tuple({0: batch} for _ in inputs)
