"""A trained fold as one file that runs without this repository: ONNX, int8 ONNX, or torch.export.

The inputs are uint8 photographs and encoded metadata, the output is probabilities; normalisation is
inside, test-time views are outside. The file carries the checkpoint's header under the key
"lesions": config, preprocess, task, classes, neutral values, versions, and the run's calibration.
"""

import contextlib
import importlib
import io
import json
import tempfile
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
IMAGES = 128  # of the training photographs, whose activations int8 is calibrated on
# int8 is for the backbone. Normalisation, metadata branch and head stay in float32: they cost next
# to nothing, and a probability needs more than 256 values.
OPERATORS = ["Conv", "MatMul", "Add", "Clip", "Relu", "MaxPool"]
FIRST = 5  # layers stay in float32, too: every later one works on what they round
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # uint8 images, metadata -> P (B, C)


class WithProbabilities(nn.Module):
    """The model with its last step: probabilities (B, C), of yes where C is 1."""

    def __init__(self, model: LesionClassifier):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        if metadata is None:
            metadata = image.new_empty(image.shape[0], 0, dtype=torch.float32)
        return probabilities(self.model(image, metadata))


def export_onnx(model: LesionClassifier, header: Mapping[str, Any], path: Path) -> None:
    """Write `path`: image uint8 (batch, S, S, 3) in, prob float32 (batch, C) out, any batch.

    A model that takes metadata has a second input, metadata float32 (batch, M).
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


def quantize_onnx(source: Path, path: Path, images: np.ndarray, metadata: np.ndarray) -> None:
    """Write `path`: the ONNX model `source` in int8.

    Calibrated on training `images`, uint8 (N, S, S, 3), and their `metadata` (N, C).
    """
    onnx, quantization, shapes = require(
        "onnx", "onnxruntime.quantization", "onnxruntime.quantization.shape_inference"
    )
    with tempfile.TemporaryDirectory() as folder, atomic(path) as part:
        prepared = Path(folder) / "prepared.onnx"
        shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        layers = [node.name for node in graph.node if node.op_type in ("Conv", "MatMul")]
        names = [given.name for given in graph.input]
        arrays = dict(zip(names, (images, metadata), strict=False))
        parts = [slice(start, start + 8) for start in range(0, len(images), 8)]

        class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
            batches = iter([{name: arrays[name][part] for name in arrays} for part in parts])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.batches, None)

        with contextlib.redirect_stdout(io.StringIO()):
            quantization.quantize_static(
                str(prepared),
                str(part),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                activation_type=quantization.QuantType.QUInt8,
                op_types_to_quantize=OPERATORS,
                nodes_to_exclude=layers[:FIRST],
                extra_options={"CalibMovingAverage": True},  # one odd image decides no range
            )


def open_onnx(path: Path) -> tuple[Predict, dict]:
    """The exported model on one thread of onnxruntime's CPU provider, and the header it carries."""
    runtime = require("onnxruntime")[0]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
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


def _traceable(
    model: LesionClassifier, header: Mapping[str, Any]
) -> tuple[nn.Module, tuple[Tensor, ...], tuple[Any, ...]]:
    """What an exporter asks for: module, example inputs, and which of their dimensions are free.

    Two examples, since one of size 1 would be taken for a constant.
    """
    config = Config.model_validate(header["config"])
    size, columns = config.data.image_size, len(COLUMNS[config.data.metadata])
    image = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    inputs = (image, torch.zeros(2, columns)) if columns else (image,)
    batch = torch.export.Dim("batch")
    return WithProbabilities(model).eval(), inputs, tuple({0: batch} for _ in inputs)
