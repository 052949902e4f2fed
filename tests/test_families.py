"""Every family of backbones with every part around it: a step, a checkpoint, a whole run."""

import json
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import interrupted_run, tiny_run
from formula import CLASSES, batch, built
from predict import main as predict
from torch import nn
from train import main as train

from lesions.config import ModelConfig, TrainConfig
from lesions.data.metadata import COLUMNS
from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.inference.checkpoint import load_model, save_model
from lesions.models import classifier
from lesions.models.backbone import build_backbone
from lesions.models.classifier import LesionClassifier
from lesions.paths import at
from lesions.training.optim import build_optimizer, freeze_norms, set_trainable

# A backbone, what makes it tiny, and a layer in its midst, at which unfreezing may begin.
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "resnet50": ("resnet50", {}, "layer3.4.conv2"),
    "efficientnet_b0": ("efficientnet_b0", {}, "blocks.4.2.conv_pw"),
    "efficientnet_b1": ("efficientnet_b1", {}, "blocks.4.3"),
    "mobilenetv2": ("mobilenetv2_100", {}, "conv_head"),
    "mobilenetv3": ("mobilenetv3_large_100", {}, "blocks.4.1.conv_dw"),
    "densenet121": ("densenet121", {}, "features.denseblock4"),
    "vit_class_token": ("vit_small_patch16_224", {"img_size": 32, "depth": 4}, "blocks.2.attn"),
    "vit_mean": ("vit_small_patch16_224",
                 {"img_size": 32, "depth": 4, "global_pool": "avg", "fc_norm": False}, "blocks.3"),
    "swin": ("swin_tiny_patch4_window7_224",
             {"img_size": 32, "window_size": 2, "depths": [1, 1, 2, 1]}, "layers.3"),
    "hybrid_cbam": ("lesions_hybrid_cbam", {}, "blocks.2"),
    "cnn_shallow": ("lesions_cnn_shallow", {}, "dense"),
}  # fmt: skip
CBAM = {"reduction": 8, "kernel": 3}
HEADS = ["linear", "multi_sample_dropout", "funnel"]
PARTS = list(product(["concat", "gate"], [None, CBAM], HEADS))
# These train as another of their kind does.
TWINS = ("efficientnet_b0", "efficientnet_b1", "mobilenetv2", "vit_mean", "cnn_shallow")
ALL_PARTS = ("mobilenetv2", "vit_mean", "swin", "cnn_shallow")  # the others: a third of them
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

OURS = {  # filters, depth, dense, dropout of the head, all that Keras counts: system 000
    "lesions_cnn_shallow": (32, 3, 128, 0.4, 306_082),
    "lesions_cnn_deep": (64, 4, 256, 0.4, 2_398_530),
    "lesions_cnn_wide": (128, 3, 256, 0.5, 4_716_418),
    "lesions_hybrid": (64, 3, 256, 0.5, 1_253_506),
    "lesions_hybrid_cbam": (64, 3, 256, 0.5, 1_275_571),
}


def ours(name: str, **arguments: float) -> LesionClassifier:
    config = ModelConfig(backbone=name, pretrained=False, head="linear", backbone_args=arguments)
    return LesionClassifier(config, columns=0, outputs=2)


def keras_count(model: torch.nn.Module) -> int:
    """Parameters, and the means and variances of batch norms, which Keras counts as such."""
    statistics = [buffer for name, buffer in model.named_buffers() if "running" in name]
    return sum(values.numel() for values in [*model.parameters(), *statistics])


@pytest.mark.parametrize("name", OURS)
def test_the_studys_networks_have_the_published_widths_dropout_and_size(name):
    filters, depth, dense, dropout, count = OURS[name]
    model = ours(name).eval()
    assert keras_count(model) == count
    widths = [module.out_channels for module in model.modules()
              if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3)
              and module.out_channels > 1]  # fmt: skip
    blocks = [width for block in range(depth) for width in [filters * 2 ** min(block, 2)] * 2]
    assert widths == ([filters] if "hybrid" in name else []) + blocks
    dropouts = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == [dropout / 2] * depth and model.backbone.drop_rate == dropout
    image = torch.rand(2, 3, 28, 28)
    side = 28 // 2**depth
    assert model.backbone.forward_features(image).shape == (2, blocks[-1], side, side)
    assert model.backbone(image).shape == (2, dense) == (2, model.backbone.head_hidden_size)


def test_the_studys_networks_are_timms_and_take_filters_and_dropout_but_no_weights():
    assert timm.list_models("lesions_*") == sorted(OURS)
    with pytest.raises(InputError, match=r"lesions_hybrid: timm has no weights.*pretrained=false"):
        LesionClassifier(ModelConfig(backbone="lesions_hybrid"), columns=0)
    assert keras_count(ours("lesions_hybrid", filters=32)) == 332_738
    assert keras_count(ours("lesions_hybrid", filters=128)) == 4_864_514
    model = ours("lesions_hybrid", drop_rate=0.6).train()
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.3] * 3
    features = model.backbone.forward_head(torch.randn(100, 256, 3, 3), pre_logits=True)
    assert (features == 0).float().mean().item() == pytest.approx(0.6, abs=0.02)


def config_of(family: str, **parts: Any) -> ModelConfig:
    backbone, arguments, _ = FAMILIES[family]
    return ModelConfig(backbone=backbone, pretrained=False, backbone_args=arguments, **parts)


@cache
def backbone_of(family: str) -> nn.Module:
    """Built once: that takes longer than all that is done with it."""
    return build_backbone(config_of(family))


def model_of(family: str, monkeypatch: pytest.MonkeyPatch, **parts: Any) -> LesionClassifier:
    monkeypatch.setattr(classifier, "build_backbone", lambda *_: backbone_of(family))
    return LesionClassifier(config_of(family, **parts), columns=3, outputs=len(CLASSES))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_learns_with_every_other(family, monkeypatch):
    image, metadata = batch(columns=3, size=32)
    for fusion, cbam, head in PARTS if family in ALL_PARTS else PARTS[::5]:
        parts = {"fusion": fusion, "cbam": cbam, "head": head}
        if cbam and family == "vit_class_token":
            with pytest.raises(InputError, match="pools its class token"):
                model_of(family, monkeypatch, **parts)
            continue
        torch.manual_seed(0)
        model = model_of(family, monkeypatch, **parts).train()
        logits = model(image, metadata)
        assert logits.shape == (2, len(CLASSES)) and logits.dtype == torch.float32
        model.zero_grad()
        nn.functional.cross_entropy(logits, torch.arange(2)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, (parts, name)
            assert torch.isfinite(parameter.grad).all(), (parts, name)
        for part in {"gate" if fusion == "gate" else "metadata", *(["attention"] if cbam else [])}:
            assert any(p.grad.abs().sum() > 0 for p in getattr(model, part).parameters()), part
        assert (model.gate is None) == (model.metadata is not None) == (fusion == "concat")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_map_has_its_backbones_features_and_a_checkpoint_the_same_predictions(family, tmp_path):
    cbam = None if family == "vit_class_token" else CBAM
    backbone, arguments, _ = FAMILIES[family]
    parts = {"backbone_args": arguments, "fusion": "gate", "cbam": cbam, "head": "funnel"}
    model, header = built(backbone, parts, CLASSES, task="diagnosis7")
    image, metadata = batch(len(COLUMNS["clinical"]), 32)
    model.train()(image, metadata)  # moves the batch statistics
    save_model(tmp_path / "fold0.safetensors", model.state_dict(), header)
    again, _ = load_model(tmp_path / "fold0.safetensors")
    normalised = ((image - model.mean) / model.std).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.equal(again(image, metadata), model.eval()(image, metadata))
        feature_map = model.backbone.forward_features(normalised)
        features = model.backbone.forward_head(feature_map, pre_logits=True)
        assert torch.equal(features, model.backbone(normalised))
    assert model.channels in feature_map.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_moves_what_is_not_frozen_and_nothing_else(family, monkeypatch):
    cbam = None if family == "vit_class_token" else CBAM
    model = model_of(family, monkeypatch, fusion="gate", cbam=cbam, head="funnel")
    names = [name for name, _ in model.named_parameters()]
    parts = {name for name in names if not name.startswith("backbone.")}
    assert {"gate", "head"} <= {name.split(".")[0] for name in parts}
    middle = FAMILIES[family][2]
    assert moved_by(model, "head") == parts
    from_middle, whole = moved_by(model, middle), moved_by(model, "all")
    assert whole == set(names)
    first, *_ = named = [name for name in names if f"{name}.".startswith(f"backbone.{middle}.")]
    assert set(named) | parts <= from_middle < whole
    before = names[names.index(first) - 1]
    assert before.startswith("backbone.") and before not in from_middle
    assert parts < moved_by(model, 1) < moved_by(model, 3) < whole
    with pytest.raises(InputError, match=r"no layer block99: it has "):
        set_trainable(model, "block99")


def moved_by(model: LesionClassifier, trainable: int | str) -> set[str]:
    """The parameters that learn, after a step that changed them and none of the others.

    Nor the statistics of a norm that does not learn. A bias that is 0 may have a gradient of 0.
    """
    set_trainable(model, trainable)
    model.train()
    freeze_norms(model)
    before = {name: values.detach().clone() for name, values in model.state_dict().items()}
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1, lr=1e-3))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(*batch(columns=3, size=32)), torch.arange(2)).backward()
    optimizer.step()
    changed = {name for name, values in model.state_dict().items()
               if not torch.equal(values, before[name])}  # fmt: skip
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    statistics = {name for name in changed if name.endswith(STATISTICS)}
    assert {f"{name.rpartition('.')[0]}.weight" for name in statistics} <= learning
    assert changed - statistics <= learning
    assert {name for name in learning - changed if before[name].any()} == set()
    return learning


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in TWINS])
def test_a_family_trains_resumes_to_the_same_bytes_and_predicts(family, demo, monkeypatch):
    tag, arguments, layer = FAMILIES[family]
    changes = (
        f"model.backbone={tag}", "model.pretrained=false", "model.pretrained_cfg={}",
        f"model.backbone_args={json.dumps(arguments)}", "model.fusion=gate",
        "data.task=diagnosis8", "loss.kind=focal", "train.save_steps=1", "train.batch_size=16",
        "train.micro_batch=16", "train.epochs=1", "train.optimizer=sgd", "train.ema_decay=0",
        f"train.stages=[{{epochs: 1, trainable: {layer}}}]",
    )  # fmt: skip
    whole, resumed = (tiny_run(f"{family}/{name}", *changes) for name in ("whole", "resumed"))
    train([*whole, "--fold", "0"])
    interrupted_run([*resumed, "--fold", "0"], 1, monkeypatch)
    train([*resumed, "--fold", "0"])
    one, two = ((at("oof", family, n, "fold0.csv")).read_bytes() for n in ("whole", "resumed"))
    assert one == two

    predict(["--run", f"{family}/resumed", "--folds", "0"])
    test = pd.read_csv(at("submissions", family, "resumed.csv"))
    assert len(test) == (load_table("demo")[0]["split"] == "test").sum()
    np.testing.assert_allclose(test.filter(like="prob_").sum(axis=1), 1, atol=1e-6)
