"""The study of Grad-CAM against drawn masks: occlusion equals captum's, corners are found out."""

import json
from pathlib import Path

import cv2
import masks as study
import numpy as np
import pytest
from captum.attr import Occlusion
from test_explain import batch, build

from lesions.errors import InputError
from lesions.inference.explain import load_explained


def test_occlusion_equals_captums() -> None:
    model = build("mobilenetv3_small_050", {}, 9)
    images, metadata = batch(9)
    colour = images.float().mean((1, 2), keepdim=True).round().expand(-1, 64, 64, -1)
    expected = Occlusion(model).attribute(
        images.float(), (16, 16, 3), (16, 16, 3), colour, 1, additional_forward_args=metadata
    )[:, ::16, ::16, 0]
    ours = study.occlusion(model, images, metadata, 1, cells=4)
    assert np.abs(ours - expected.numpy()).max() < 1e-6 * max(1, np.abs(ours).max())


def round_masks(count: int, size: int) -> np.ndarray:
    """Round lesions off the centre, each at another place."""
    rows, columns = np.mgrid[:size, :size]
    places = np.random.default_rng(0).normal(size / 2, size / 16, (count, 2))
    return np.stack(
        [(rows - y) ** 2 + (columns - x) ** 2 < (size / 5) ** 2 for y, x in places]
    ).astype(np.float32)


def test_a_model_that_looks_at_corners_is_found_out_and_one_at_the_lesion_is_not() -> None:
    masks = round_masks(40, 64)
    groups = np.arange(40) // 2
    disc = study.centred_discs(masks[:1].sum((1, 2)), 64)
    rows, columns = np.nonzero(disc[0])
    assert disc.sum() == masks[0].sum() and rows.mean() == pytest.approx(31.5, abs=0.1)
    assert np.hypot(rows - 31.5, columns - 31.5).max() < np.sqrt(disc.sum() / np.pi) + 1
    corner = np.zeros_like(masks)
    corner[:, :16, :16] = 1
    at_lesion, at_middle, at_corner, everywhere = (
        study.shares(maps, masks)
        for maps in (masks, np.broadcast_to(disc, masks.shape), corner, np.ones_like(masks))
    )
    assert study.mean_interval(at_lesion["more"], groups).low > 0
    assert at_lesion["inside"] == pytest.approx(1)
    assert study.mean_interval(at_middle["more"], groups).high < 0
    assert at_corner["inside"].max() < 0.05 < at_corner["area"].min()
    assert everywhere["inside"] == pytest.approx(everywhere["area"])
    assert np.isnan(study.shares(0 * masks, masks)["inside"]).all()


def test_the_study_measures_a_run_and_refuses_masks_of_other_photographs(
    trained: Path, tmp_path: Path
) -> None:
    asked = ["--run", "tiny", "--masks", str(tmp_path)]
    with pytest.raises(InputError, match="no <image_name>_segmentation.png"):
        study.main(asked)
    for name in load_explained("tiny").rows["image_name"].iloc[:20]:
        cv2.imwrite(str(tmp_path / f"{name}_segmentation.png"), 255 * round_masks(1, 48)[0])
    out = tmp_path / "explanations.json"
    assert study.main([*asked, "--out", str(out), "--allow-dirty"]) == 0
    found = json.loads(out.read_text())
    assert found["photographs"] == 20 and 0 <= found["all"]["inside"]["value"] <= 1
