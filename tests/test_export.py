"""Exported models: the same probabilities, any batch, and a file that says what it is."""

import json
from pathlib import Path
from typing import Any

import export as script
import numpy as np
import onnx
import pytest
import torch

from lesions.config import Config
from lesions.data.metadata import COLUMNS
from lesions.errors import InputError
from lesions.inference import export
from lesions.inference.checkpoint import load_model
from lesions.models.classifier import LesionClassifier

SWIN = {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 24, "window_size": 2}
FAMILIES: dict[str, tuple[str, dict, dict, str, int]] = {
    # backbone, its arguments, the model's, metadata, outputs
    "resnet": ("test_resnet", {}, {"fusion": "gate", "cbam": {}}, "clinical", 7),
    "efficientnet": ("test_efficientnet", {}, {}, "none", 1),
    "mobilenetv3": ("mobilenetv3_small_050", {}, {"head": "funnel"}, "clinical", 7),
    "densenet": ("densenet121", {"block_config": (1, 1, 1, 1)}, {"fusion": "gate"}, "full", 1),
    "vit": ("test_vit", {"img_size": 64}, {}, "clinical", 7),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, {"fusion": "gate"}, "clinical", 1),
}


def build(family: str) -> tuple[LesionClassifier, dict[str, Any]]:
    backbone, arguments, changes, metadata, outputs = FAMILIES[family]
    torch.manual_seed(0)
    config = Config.model_validate(
        {
            "dataset": "demo",
            "data": {"image_size": 64, "metadata": metadata},
            "model": {"backbone": backbone, "pretrained": False, "backbone_args": arguments}
            | changes,
        }
    )
    model = LesionClassifier(config.model, len(COLUMNS[metadata]), outputs).eval()
    classes = [f"class{number}" for number in range(outputs)] if outputs > 1 else []
    return model, {"config": config.model_dump(), "task": "melanoma", "classes": classes}


def batch(header: dict[str, Any], count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    columns = len(COLUMNS[header["config"]["data"]["metadata"]])
    images = generator.integers(0, 256, (count, 64, 64, 3), np.uint8)
    return images, generator.random((count, columns), np.float32)


def expected(model: LesionClassifier, images: np.ndarray, metadata: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.from_numpy(images), torch.from_numpy(metadata))
    return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)).numpy()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet") / "model.onnx"
    export.export_onnx(*build("resnet"), path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_gives_the_checkpoints_probabilities_at_any_batch(
    family: str, tmp_path: Path, resnet: Path
) -> None:
    model, header = build(family)
    path = resnet if family == "resnet" else tmp_path / "model.onnx"
    if family != "resnet":
        export.export_onnx(model, header, path)
    predict, told = export.open_onnx(path)
    assert told == json.loads(json.dumps(header))
    for count in (1, 3):
        images, metadata = batch(header, count)
        found = predict(images, metadata)
        assert found.shape == (count, max(1, len(header["classes"])))
        np.testing.assert_allclose(found, expected(model, images, metadata), atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]  # no weights beside it


@pytest.mark.parametrize("family", ["efficientnet", "swin"])
def test_torch_export_gives_the_same(family: str, tmp_path: Path) -> None:
    model, header = build(family)
    export.export_torch(model, header, tmp_path / "model.pt2")
    predict, told = export.open_torch(tmp_path / "model.pt2")
    assert told == json.loads(json.dumps(header))
    for count in (1, 3):
        images, metadata = batch(header, count)
        np.testing.assert_allclose(
            predict(images, metadata), expected(model, images, metadata), atol=1e-5
        )


def test_int8_is_smaller_near_and_self_describing(resnet: Path, tmp_path: Path) -> None:
    model, header = build("resnet")
    images, metadata = batch(header, 16)
    export.quantize_onnx(resnet, tmp_path / "int8.onnx", images, metadata)
    predict, told = export.open_onnx(tmp_path / "int8.onnx")
    assert told["classes"] == header["classes"]
    found, wanted = predict(images, metadata), expected(model, images, metadata)
    assert 0 < np.abs(found - wanted).max() < 0.05
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * resnet.stat().st_size


def test_the_script_prints_the_comparison_writes_it_and_deletes_an_int8_that_loses(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "export.json"
    arguments = ["--run", "tiny", "--to", "onnx", "--quantize", "--folds", "0"]
    monkeypatch.setattr(export, "LEAST_LOSS", 1.0)  # a model of seconds loses what it pleases
    assert script.main([*arguments, "--out", str(out), "--allow-dirty"]) == 0
    printed = capsys.readouterr().out
    told = json.loads(out.read_text())["rivals"]
    assert list(told) == ["eager", "onnx", "int8"]
    assert told["eager"]["difference"] == 0 and told["onnx"]["difference"] < 1e-5
    assert told["int8"]["bytes"] == (trained / "fold0.int8.onnx").stat().st_size
    assert all(name in printed for name in told)
    header = export.open_onnx(trained / "fold0.onnx")[1]
    assert header["preprocess"] == load_model(trained / "fold0.safetensors")[1]["preprocess"]

    monkeypatch.setattr(export, "LEAST_LOSS", -1.0)
    monkeypatch.setitem(export.EXPORTS, "onnx", (lambda *_: None, ".onnx"))  # it is there
    with pytest.raises(InputError, match=r"int8 loses .*fold0.int8.onnx deleted"):
        script.main(arguments)
    assert not (trained / "fold0.int8.onnx").exists()
    assert (trained / "fold0.onnx").exists()


def test_a_loss_of_half_a_percent_is_refused_and_less_is_not(tmp_path: Path) -> None:
    file = tmp_path / "fold0.int8.onnx"
    for auc, refused in ((0.8951, False), (0.895, True), (0.91, False)):
        file.touch()
        told = {"eager": {"auc": 0.9}, "int8": {"auc": auc}}
        assert bool(export.refuse_lossy(told, [file])) == refused
        assert file.exists() != refused


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        export.require("onnx", "onnxscript", "onnxruntime")


def test_a_foreign_onnx_file_is_refused(tmp_path: Path) -> None:
    kind = onnx.TensorProto.FLOAT
    given, told = (onnx.helper.make_tensor_value_info(name, kind, [1]) for name in ("x", "prob"))
    node = onnx.helper.make_node("Sigmoid", ["x"], ["prob"])
    graph = onnx.helper.make_graph([node], "foreign", [given], [told])
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "f.onnx"
    )
    with pytest.raises(InputError, match="not exported by this repository"):
        export.open_onnx(tmp_path / "f.onnx")
