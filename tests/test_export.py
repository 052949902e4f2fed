"""Exported models: the same probabilities, any batch, and a file that says what it is."""

import json
import sys
from itertools import product

import export as script
import numpy as np
import onnx
import pytest
import torch
from formula import CLASSES, batch, built

from lesions.data.metadata import COLUMNS
from lesions.errors import InputError
from lesions.inference import export
from lesions.inference.checkpoint import load_model

SWIN = {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 24, "window_size": 2}
FAMILIES = {
    # backbone, its arguments, the model's, metadata, classes
    "resnet": ("test_resnet", {}, {"fusion": "gate", "cbam": {}}, "clinical", CLASSES),
    "efficientnet": ("test_efficientnet", {}, {}, "none", ()),
    "mobilenetv3": ("mobilenetv3_small_050", {}, {"head": "funnel"}, "clinical", CLASSES),
    "densenet": ("densenet121", {"block_config": (1, 1, 1, 1)}, {"fusion": "gate"}, "full", ()),
    "vit": ("test_vit", {"img_size": 64}, {}, "clinical", CLASSES),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, {"fusion": "gate"}, "clinical", ()),
}


def model_of(family):
    """The network, its header, and a function for photographs, metadata and probabilities."""
    backbone, arguments, parts, metadata, classes = FAMILIES[family]
    parts = {"backbone_args": arguments, **parts}
    model, header = built(backbone, parts, classes, image_size=64, metadata=metadata)

    def answers(count):
        given = batch(len(COLUMNS[metadata]), count=count)
        with torch.no_grad():
            logits = model(*given)
        probs = logits.softmax(1) if classes else logits.sigmoid()
        return *(tensor.numpy() for tensor in given), probs.numpy()

    return model, header, answers


@pytest.mark.parametrize(
    ("family", "kind"),
    [*product(FAMILIES, ["onnx"]), *product(["efficientnet", "swin"], ["torch-export"])],
)
def test_a_file_gives_the_checkpoints_probabilities_at_any_batch(family, kind, tmp_path):
    model, header, answers = model_of(family)
    write, read, suffix = export.EXPORTS[kind]
    write(model, header, tmp_path / f"model{suffix}")
    (path,) = tmp_path.iterdir()  # no weights beside it
    predict, told = read(path)
    assert told == json.loads(json.dumps(header))
    for count in (1, 3):
        images, metadata, expected = answers(count)
        found = predict(images, metadata)
        assert found.shape == (count, max(1, len(header["classes"])))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_int8_is_smaller_near_and_self_describing(tmp_path):
    model, header, answers = model_of("resnet")
    whole, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export.export_onnx(model, header, whole)
    images, metadata, expected = answers(16)
    export.quantize_onnx(whole, small, images, metadata)
    predict, told = export.open_onnx(small)
    assert told["classes"] == header["classes"]
    assert 0 < np.abs(predict(images, metadata) - expected).max() < 0.05
    assert small.stat().st_size < 0.6 * whole.stat().st_size


def test_the_script_compares_and_deletes_an_int8_that_loses(trained, tmp_path, capsys, monkeypatch):
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
    kept = (lambda *_: None, export.open_onnx, ".onnx")  # the file is there
    monkeypatch.setitem(export.EXPORTS, "onnx", kept)
    with pytest.raises(InputError, match=r"int8 loses .*fold0.int8.onnx deleted"):
        script.main(arguments)
    assert not (trained / "fold0.int8.onnx").exists()
    assert (trained / "fold0.onnx").exists()


def test_a_loss_of_half_a_percent_is_refused_and_less_is_not(tmp_path):
    file = tmp_path / "fold0.int8.onnx"
    for auc, refused in ((0.8951, False), (0.895, True), (0.91, False)):
        file.touch()
        told = {"eager": {"auc": 0.9}, "int8": {"auc": auc}}
        assert bool(export.refuse_lossy(told, [file])) == refused
        assert file.exists() != refused


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        export.require("onnx", "onnxscript", "onnxruntime")


def test_a_foreign_onnx_file_is_refused(tmp_path):
    kind = '<ir_version: 10, opset_import: ["": 20]>'
    foreign = f"{kind} foreign (float[1] x) => (float[1] prob) {{ prob = Sigmoid(x) }}"
    onnx.save(onnx.parser.parse_model(foreign), tmp_path / "f.onnx")
    with pytest.raises(InputError, match="not exported by this repository"):
        export.open_onnx(tmp_path / "f.onnx")
