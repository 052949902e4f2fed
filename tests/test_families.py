"""Every family of backbones with every part around it: one step, a checkpoint, what is frozen."""

import pytest
import timm
import torch

from lesions.config import ModelConfig
from lesions.errors import InputError
from lesions.models.classifier import LesionClassifier

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
def test_the_studys_networks_have_the_published_widths_dropout_and_size(name: str) -> None:
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


@pytest.mark.parametrize("filters, count", [(32, 332_738), (128, 4_864_514)])
def test_the_filters_of_the_studys_networks_can_be_set(filters: int, count: int) -> None:
    assert keras_count(ours("lesions_hybrid", filters=filters)) == count


def test_one_word_sets_the_dropout_of_blocks_and_head() -> None:
    model = ours("lesions_hybrid", drop_rate=0.6).train()
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.3] * 3
    features = model.backbone.forward_head(torch.randn(100, 256, 3, 3), pre_logits=True)
    assert (features == 0).float().mean().item() == pytest.approx(0.6, abs=0.02)


def test_the_studys_networks_are_timms_and_have_no_weights_to_load() -> None:
    assert timm.list_models("lesions_*") == sorted(OURS)
    with pytest.raises(InputError, match=r"lesions_hybrid: timm has no weights.*pretrained=false"):
        LesionClassifier(ModelConfig(backbone="lesions_hybrid"), columns=0)


def test_the_studys_networks_see_the_pixels_over_255() -> None:
    model, seen = ours("lesions_cnn_shallow").eval(), []
    model.backbone.blocks.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    model(image, torch.empty(2, 0))
    torch.testing.assert_close(seen[0], image.permute(0, 3, 1, 2) / 255)
