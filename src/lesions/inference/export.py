"""A run's folds as files that run without this repository: ONNX, int8 ONNX, or torch.export.

The inputs are uint8 photographs and encoded metadata, the output is probabilities; normalisation is
inside, test-time views are outside. A file carries the checkpoint's header under the key "lesions":
config, preprocess, task, classes, neutral values, versions, and the run's calibration. It is
compared with the checkpoint on out-of-fold rows before it is offered.
"""

import contextlib
import importlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lesions.data.metadata import COLUMNS
from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.evaluation.metrics import Floats, roc_auc
from lesions.files import atomic
from lesions.inference.checkpoint import Fold, versions
from lesions.inference.explain import Explained, arrays_of
from lesions.inference.predict import probabilities
from lesions.models.classifier import LesionClassifier
from lesions.paths import shown

KEY = "lesions"
IMAGES = 128  # of the training photographs, whose activations int8 is calibrated on
# int8 is for the backbone. Normalisation, metadata branch and head stay in float32: they cost next
# to nothing, and a probability needs more than 256 values.
OPERATORS = ["Conv", "MatMul", "Add", "Clip", "Relu", "MaxPool"]
FIRST = 5  # layers stay in float32, too: every later one works on what they round
LEAST_LOSS = 0.005  # of AUC, at which int8 is refused
CHUNK = 64
EAGER, INT8 = "eager", "int8"
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]  # uint8 images, metadata -> P (B, C)


def export_run(explained: Explained, kinds: Sequence[str], int8: bool) -> dict[str, Any]:
    """Export the run's folds and compare all formats on the out-of-fold rows.

    AUC is that of the score: of several classes, malignant against benign. int8 that loses 0.005
    of it or more is deleted, and the result's "refused" says so.
    """
    run, positive = explained.run, explained.rows["positive"].to_numpy(int)
    paths: dict[str, list[Path]] = {}
    probs: dict[str, Floats] = {}
    for fold in run.folds:
        own = (explained.rows["fold"] == fold.number).to_numpy()
        images, metadata = arrays_of(explained, fold, explained.rows[own])
        parts = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
        for name, (path, predict) in export_fold(explained, fold, kinds, int8).items():
            found = np.concatenate([predict(images[part], metadata[part]) for part in parts])
            probs.setdefault(name, np.empty((len(own), found.shape[1])))[own] = found
            paths.setdefault(name, []).append(path)
    compared = {
        name: {
            "difference": float(np.abs(found - probs[EAGER]).max()),
            "auc": roc_auc(positive, run.task.score(found)),
            "bytes": paths[name][0].stat().st_size,
        }
        for name, found in probs.items()
    }
    refused = refuse_lossy(compared, paths.get(INT8, []))
    written = [path for name in paths if name != EAGER for path in paths[name]]
    return {
        "run": run.name,
        "to": list(kinds),
        "quantize": int8,
        "folds": [fold.number for fold in run.folds],
        "backbone": run.config.model.backbone,
        "image_size": run.config.data.image_size,
        "files": [path.name for path in written if path.exists()],
        "rows": len(positive),
        "rivals": compared,
        "refused": refused,
        "versions": versions()
        | ({"onnxruntime": version("onnxruntime")} if "onnx" in kinds else {}),
    }


def export_fold(
    explained: Explained, fold: Fold, kinds: Sequence[str], int8: bool
) -> dict[str, tuple[Path, Predict]]:
    """Write fold<k>.onnx, .pt2, .int8.onnx as asked for; files, the checkpoint's first, opened."""
    run = explained.run
    header = fold.header | {"preprocess": run.preprocess.model_dump()}
    if run.calibration:
        header["calibration"] = run.calibration.model_dump(include={"temperature", "shifts"})
        header["threshold"] = run.calibration.threshold.value
    eager = predict_by(WithProbabilities(fold.model).eval(), fold.header)
    made = {EAGER: (run.files.file(fold.number, ".safetensors"), eager)}
    for kind in kinds:
        write, read, suffix = EXPORTS[kind]
        path = run.files.file(fold.number, suffix)
        write(fold.model, header, path)
        made[kind] = path, read(path)[0]
    if int8:
        # Photographs that the fold was trained on, always the same ones.
        table, _ = load_table(run.config.dataset)
        train = table[(table["split"] == "train") & (table["fold"] != fold.number)]
        some = train.sample(min(IMAGES, len(train)), random_state=0).sort_index()
        sample = arrays_of(explained, fold, some.assign(row=some.index))
        path = run.files.file(fold.number, ".int8.onnx")
        quantize_onnx(made["onnx"][0], path, *sample)
        made[INT8] = path, open_onnx(path)[0]
    return made


def refuse_lossy(compared: Mapping[str, Mapping[str, Any]], files: Sequence[Path]) -> str | None:
    """Why the int8 `files` were deleted; None if they may stay."""
    lost = compared[EAGER]["auc"] - compared[INT8]["auc"] if files else 0.0
    if not files or lost < LEAST_LOSS:
        return None
    for path in files:
        path.unlink()
    return (
        f"int8 loses {lost:.4f} AUC, {LEAST_LOSS} or more: {', '.join(map(shown, files))} deleted;"
        " the ONNX file in float32 stays"
    )


def as_text(result: Mapping[str, Any]) -> str:
    """The comparison as the script prints it."""
    table = pd.DataFrame(result["rivals"]).T
    table["AUC gain"] = table["auc"] - table["auc"][EAGER]
    table["MB"] = table.pop("bytes") / 1e6
    formats = {"difference": "{:.1e}", "auc": "{:.4f}", "AUC gain": "{:+.4f}", "MB": "{:.1f}"}
    return table.to_string(formatters={name: form.format for name, form in formats.items()})


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
    return predict_by(module, header), header


def predict_by(module: Callable[..., Tensor], header: Mapping[str, Any]) -> Predict:
    """A module that gives probabilities, on arrays and without gradients."""
    inputs = 1 + (header["config"]["data"]["metadata"] != "none")

    @torch.no_grad()
    def predict(*arrays: np.ndarray) -> np.ndarray:
        return module(*map(torch.from_numpy, arrays[:inputs])).float().numpy()

    return predict


EXPORTS = {
    "onnx": (export_onnx, open_onnx, ".onnx"),
    "torch-export": (export_torch, open_torch, ".pt2"),
}


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
    data = header["config"]["data"]
    size, columns = data["image_size"], len(COLUMNS[data["metadata"]])
    image = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    inputs = (image, torch.zeros(2, columns)) if columns else (image,)
    batch = torch.export.Dim("batch")
    return WithProbabilities(model).eval(), inputs, tuple({0: batch} for _ in inputs)
