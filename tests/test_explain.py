"""Explanations: Grad-CAM equals captum's, and metadata effects are what they say."""

from itertools import product

import cv2
import explain as script
import numpy as np
import pandas as pd
import pytest
import report
import torch
from captum.attr import LayerGradCam
from formula import batch, built
from torch import Tensor, nn

from lesions.data.metadata import COLUMNS, encode_metadata, fit_metadata
from lesions.errors import InputError
from lesions.inference import explain

SWIN = {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dim": 24}
CONVOLUTIONAL = [
    ("mobilenetv2_100", {}, "blocks.5"),
    ("mobilenetv3_small_050", {}, "blocks.4"),
    ("tf_efficientnet_b0", {}, "blocks.5"),
    ("resnet10t", {}, "layer4"),
    ("densenet121", {"block_config": (1, 1, 1, 1)}, "features"),
]
TRANSFORMERS = [
    ("vit_tiny_patch16_224", {"img_size": 64}, "blocks.11.norm1"),
    ("swin_tiny_patch4_window7_224", SWIN, "norm"),
]
PARTS = [("none", {}), ("clinical", {"fusion": "concat"}), ("clinical", {"fusion": "gate"})]


def model_of(backbone, arguments=None, metadata="none", **parts):
    """A network of three classes, and its header."""
    parts = {"backbone_args": arguments or {}, **parts}
    model, header = built(backbone, parts, "abc", image_size=64, metadata=metadata)
    with torch.no_grad():  # behind an activation that is never negative all speaks for output 0
        model.head.linear.weight[0].abs_()
        model.head.linear.weight[1] *= -model.head.linear.weight[1].sign()
    return model, header


class AsMap(nn.Module):
    """A transformer's layer, whose patches pass `map` as (B, F, h, w) on their way."""

    def __init__(self, layer: nn.Module, prefix: int):
        super().__init__()
        self.layer, self.prefix, self.map = layer, prefix, nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        features = self.layer(features)
        if features.ndim == 4:
            return self.map(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        first, patches = features[:, : self.prefix], features[:, self.prefix :]
        side = int(patches.shape[1] ** 0.5)
        through = self.map(patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2))
        return torch.cat([first, through.flatten(2).transpose(1, 2)], dim=1)


@pytest.mark.parametrize(
    ("network", "others"),
    [
        *product(CONVOLUTIONAL, [*PARTS, ("clinical", {"fusion": "gate", "cbam": {}})]),
        *product(TRANSFORMERS, PARTS),
    ],
)
def test_grad_cam_equals_captums(network, others):
    (backbone, arguments, name), (metadata, parts) = network, others
    model, _ = model_of(backbone, arguments, metadata, **parts)
    images, columns = batch(len(COLUMNS[metadata]))
    ours = explain.coarse_grad_cam(model, images, columns, 0)
    layer = model.backbone.get_submodule(name)
    if network in TRANSFORMERS:
        through = AsMap(layer, model.prefix)
        model.backbone.set_submodule(name, through)
        layer = through.map
    captum = LayerGradCam(model, layer).attribute(
        images.float(), 0, additional_forward_args=columns, relu_attributions=True
    )[:, 0]
    assert ours.shape == captum.shape and captum.max() > 0
    assert (ours - captum).abs().max() / captum.max() < 1e-6


def test_maps_reach_one_or_are_zero_with_gradients_off_too_and_leave_none_behind():
    model, _ = model_of("resnet10t", metadata="clinical")
    images, metadata = batch(9)
    maps = explain.grad_cam(model, images, metadata, 0)
    assert maps.shape == (2, 64, 64) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max(axis=(1, 2)) == pytest.approx([1, 1])
    assert not explain.grad_cam(model, images, metadata, 1).any()
    against = explain.grad_cam(model, images, metadata, 1, against=True)
    assert against.max(axis=(1, 2)) == pytest.approx([1, 1])
    model.requires_grad_(False)
    with torch.inference_mode():
        maps = explain.grad_cam(model, *batch(9), 0)
    assert maps.max() == 1
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


ROWS = pd.DataFrame(
    {
        "sex": ["male", ""], "age_approx": [80.0, np.nan], "site": ["torso", ""],
        "images_per_patient": [3.0, np.nan], "bytes": [9000, np.nan], "localization": ["back", ""],
    }
)  # fmt: skip


@pytest.mark.parametrize("kind", list(COLUMNS))
def test_a_fields_effect_is_the_difference_to_its_absence(kind):
    model, header = model_of("mobilenetv3_small_050", metadata=kind)
    neutral = header["neutral"] = fit_metadata(ROWS) | header["neutral"]
    images, _ = batch()
    effects = explain.metadata_effects(model, header, images, ROWS, 1)
    assert list(effects) == list(explain.FIELDS[kind])
    assert (effects.loc[1] == 0).all()  # nothing was known of it
    if kind == "none":
        return
    assert (effects.loc[0] != 0).all()
    tables = ROWS, ROWS.assign(age_approx=np.nan)
    known = [torch.from_numpy(encode_metadata(table, kind, neutral)) for table in tables]
    with torch.no_grad():
        with_age, without = (model(images, metadata).softmax(1)[0, 1] for metadata in known)
    assert effects.loc[0, "age_approx"] == pytest.approx(float(with_age - without), abs=1e-7)


def test_an_overlay_leaves_what_is_cold_as_it_was():
    image = batch()[0][0].numpy()
    cam = np.zeros((64, 64), np.float32)
    assert np.array_equal(explain.overlay(image, cam), image)
    cam[:32] = 1
    shown = explain.overlay(image, cam)
    assert shown.dtype == np.uint8 and shown.shape == image.shape
    assert np.array_equal(shown[32:], image[32:])
    assert not np.array_equal(shown[:32], image[:32])


def test_the_script_and_the_report_show_where_the_model_looked(trained):
    assert script.main(["--run", "tiny"]) == 0
    text = (trained / "explain.html").read_text()
    assert all(title in text for title in ("True positives", "False negatives", "False positives"))
    assert "Not a medical device" in text
    pictures = list((trained / "explain").glob("*.png"))
    assert pictures and text.count("data:image/jpeg") == len(pictures)
    report.main(["--run", "tiny", "--explain"])
    shown = (trained / "report.html").read_text().partition('id="explanations"')[2]
    assert shown.partition("</section>")[0].count("data:image/jpeg") == len(pictures)


def test_own_photographs_are_overlaid_and_a_broken_one_is_named(trained, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    photo = tmp_path / "mole.png"
    cv2.imwrite(str(photo), pixels)
    out = tmp_path / "out"
    asked = ["--run", "tiny", "--images", str(photo), "--age", "50", "--out", str(out)]
    assert script.main(asked) == 0
    assert (out / "mole.png").exists()
    (tmp_path / "broken.jpg").write_bytes(b"not a photograph")
    with pytest.raises(InputError, match=r"broken.jpg: not read"):
        script.main(["--run", "tiny", "--images", str(tmp_path / "broken.jpg")])
