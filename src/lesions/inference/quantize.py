"""An exported ONNX model in int8: weights by channel, activations by what training images give."""

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lesions.files import atomic
from lesions.inference.export import require

IMAGES = 128  # whose activations are looked at
BATCH = 8
# The backbone's work. Normalisation, metadata branch and head stay in float32: they cost next to
# nothing, and a probability needs more than 256 values.
OPERATORS = ["Conv", "MatMul", "Add", "Clip", "Relu", "MaxPool"]
# The first layers stay in float32, too: every later one works on what they round.
FIRST = 5


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

        class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
            batches = _batches(arrays)

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


def _batches(arrays: Mapping[str, np.ndarray]) -> Any:
    count = len(next(iter(arrays.values())))
    for start in range(0, count, BATCH):
        yield {name: array[start : start + BATCH] for name, array in arrays.items()}
