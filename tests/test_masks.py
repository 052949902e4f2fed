"""The study of Grad-CAM against masks: a model that looks at corners is found out."""

import cv2
import masks as study
import numpy as np
import pytest

from lesions.errors import InputError
from lesions.evaluation.intervals import bootstrap
from lesions.evaluation.metrics import mean
from lesions.files import read_json
from lesions.oof import load_oof


def round_masks(count: int, size: int) -> np.ndarray:
    """Round lesions off the centre, each at another place."""
    rows, columns = np.mgrid[:size, :size]
    places = np.random.default_rng(0).normal(size / 2, size / 16, (count, 2))
    inside = [np.hypot(rows - y, columns - x) < size / 5 for y, x in places]
    return np.stack(inside).astype(np.float32)


def test_a_model_that_looks_at_corners_is_found_out_and_one_at_the_lesion_is_not():
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
    assert bootstrap(mean, at_lesion["more"], at_lesion["more"], groups).low > 0
    assert at_lesion["inside"] == pytest.approx(1)
    assert bootstrap(mean, at_middle["more"], at_middle["more"], groups).high < 0
    assert at_corner["inside"].max() < 0.05 < at_corner["area"].min()
    assert everywhere["inside"] == pytest.approx(everywhere["area"])
    assert np.isnan(study.shares(0 * masks, masks)["inside"]).all()


def test_a_mask_that_is_the_centred_disc_is_no_more_looked_at_than_the_disc(trained, tmp_path):
    asked = ["--run", "tiny", "--masks", str(tmp_path)]
    with pytest.raises(InputError, match="no <image_name>_segmentation.png"):
        study.main(asked)
    disc = study.centred_discs(np.array([200.0]), 32)[0]
    for name in load_oof("tiny").names[:12]:
        cv2.imwrite(str(tmp_path / f"{name}_segmentation.png"), 255 * disc)
    out = tmp_path / "found.json"
    assert study.main([*asked, "--out", str(out), "--allow-dirty"]) == 0
    found = read_json(out)
    assert found["photographs"] == 12 and found["all"]["overlap"]["value"] == 1
    assert found["all"]["area"]["value"] == pytest.approx(200 / 32**2, rel=1e-3)
    assert found["all"]["more"]["value"] == 0
    assert sum(part["photographs"] for part in found["outcomes"].values()) == 12 - found["empty"]
