"""The network: exact parameter counts, float32 head, images normalised inside."""

import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from lesions.config import ModelConfig
from lesions.errors import InputError
from lesions.models.classifier import LesionClassifier

TINY = ModelConfig(backbone="mobilenetv3_small_050", pretrained=False)


def images(count: int = 4, size: int = 32) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return torch.from_numpy(pixels)


def test_b1_with_eleven_columns_has_the_published_6_587_681_parameters() -> None:
    config = ModelConfig(backbone="tf_efficientnet_b1.ns_jft_in1k", pretrained=False)
    model = LesionClassifier(config, columns=11)
    assert sum(p.numel() for p in model.parameters()) == 6_587_681


def test_without_metadata_there_is_no_metadata_branch() -> None:
    model = LesionClassifier(TINY, columns=0).eval()
    assert model.metadata is None
    assert model(images(), torch.empty(4, 0)).shape == (4, 1)


def test_the_head_runs_in_float32_under_autocast() -> None:
    model = LesionClassifier(TINY, columns=9).eval()
    with torch.autocast("cpu", torch.bfloat16):
        logit = model(images(), torch.zeros(4, 9))
    assert logit.dtype == torch.float32
    assert len(set(logit.flatten().tolist())) == 4  # bfloat16 would make ties likely


def test_images_are_normalised_as_the_weights_expect() -> None:
    config = TINY.model_copy(update={"pretrained_cfg": {"mean": (0.5,) * 3, "std": (0.25,) * 3}})
    model = LesionClassifier(config, columns=0).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = images()
    model(batch, torch.empty(4, 0))
    expected = (batch.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    torch.testing.assert_close(seen[0], expected)


def test_the_metadata_changes_the_prediction() -> None:
    model = LesionClassifier(TINY, columns=9).eval()
    a, b = model(images(), torch.zeros(4, 9)), model(images(), torch.ones(4, 9))
    assert not torch.allclose(a, b)


def test_dropout_samples_differ_in_training_and_are_gone_in_evaluation() -> None:
    head = LesionClassifier(TINY, columns=0).head
    features = torch.randn(8, head.linear.in_features)
    head.train()
    assert not torch.equal(head(features), head(features))
    head.eval()
    torch.testing.assert_close(head(features), head.linear(features))


def test_weights_from_a_local_file_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    saved = timm.create_model(TINY.backbone, num_classes=1000)
    torch.save(saved.state_dict(), tmp_path / "weights.pth")
    config = TINY.model_copy(update={"pretrained": str(tmp_path / "weights.pth")})
    model = LesionClassifier(config, columns=0)
    name = "conv_stem.weight"
    assert torch.equal(model.backbone.state_dict()[name], saved.state_dict()[name])


def test_missing_weights_are_told_within_five_seconds_with_three_ways_out() -> None:
    config = ModelConfig(backbone="tf_efficientnet_b1.ns_jft_in1k")
    started = time.monotonic()
    with pytest.raises(InputError, match="--pretrained FILE(.|\n)*--pretrained none(.|\n)*HF_HOME"):
        LesionClassifier(config, columns=0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("tag", ["no_such_net", "tf_efficientnet_b1.ns"])
def test_an_unknown_backbone_is_named(tag: str) -> None:
    with pytest.raises(InputError, match=f"model.backbone {tag}"):
        LesionClassifier(ModelConfig(backbone=tag), columns=0)
    with pytest.raises(InputError, match=f"model.backbone {tag}"):
        LesionClassifier(ModelConfig(backbone=tag, pretrained=False), columns=0)
