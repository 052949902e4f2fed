"""Near-duplicates: copies under other names are found whatever was done to them, others are not."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import prepare
import pytest
from conftest import REAL

from lesions.data import near_duplicates
from lesions.data.decode import decode
from lesions.data.near_duplicates import SIZE, find_near_duplicates
from lesions.data.sample import write_sample


def photograph(seed: int) -> np.ndarray:
    """uint8 (150, 200, 3): a dark spot on skin, with pores and hairs of its own."""
    rng = np.random.default_rng(seed)
    skin = np.array([200, 160, 140]) + rng.normal(0, 12, 3)
    coarse = cv2.resize(rng.normal(size=(9, 12)), (200, 150), interpolation=cv2.INTER_CUBIC)
    pores = cv2.GaussianBlur(rng.normal(size=(150, 200)), (0, 0), 1.5)
    y, x = np.mgrid[-1:1:150j, -1.3:1.3:200j] - rng.normal(0, 0.05, (2, 1, 1))
    wide, high = rng.uniform(0.25, 0.6, 2)
    spot = 1 / (1 + np.exp((np.hypot(x / wide, y / high) + 0.2 * coarse - 1) * 6))
    picture = skin + (10 * coarse + 40 * pores)[..., None] - spot[..., None] * [90, 100, 95]
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(6):
        ends = rng.integers(0, 200, (2, 2)).tolist()
        cv2.line(picture, ends[0], ends[1], (60, 45, 40), 1, cv2.LINE_AA)
    return picture


def encoded(picture: np.ndarray, quality: int = 85) -> np.ndarray:
    packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(packed, cv2.IMREAD_COLOR)


def scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(picture.astype(float) * factor, 0, 255).astype(np.uint8)


COPIES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda picture: encoded(picture, 40),
    lambda picture: encoded(cv2.resize(picture, (120, 90))),
    lambda picture: encoded(picture[3:146, 8:198]),  # cropped by 5 %
    lambda picture: encoded(picture[:, ::-1]),
    lambda picture: encoded(np.rot90(picture)),
    lambda picture: encoded(np.rot90(picture, 3)),
    lambda picture: encoded(scaled(picture, 1.2)),
    lambda picture: encoded(scaled(picture, 0.75)),
]


def small(pictures: list[np.ndarray]) -> np.ndarray:
    size = (SIZE, SIZE)
    return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])


def test_every_kind_of_copy_is_found_and_nothing_else():
    originals = [photograph(seed) for seed in range(80)]
    copies = [COPIES[row // 4](originals[row]) for row in range(32)]
    found = find_near_duplicates(small(originals + copies))
    expected = {(row, 80 + row) for row in range(32)}
    assert set(zip(found["first"], found["second"], strict=True)) == expected
    assert found["score"].is_monotonic_decreasing
    assert found["score"].between(near_duplicates.SAME, 1.001).all()


def test_pairs_that_are_one_group_already_are_not_looked_for():
    originals = [photograph(seed) for seed in range(20)]
    images = small([*originals, encoded(originals[3]), encoded(originals[7])])
    group = [f"g{row}" for row in range(20)] + ["g3", "g21"]
    found = find_near_duplicates(images, np.array(group))
    assert found[["first", "second"]].to_numpy().tolist() == [[7, 21]]


def test_few_black_and_no_images_give_no_pairs():
    assert find_near_duplicates(np.zeros((4, SIZE, SIZE, 3), np.uint8)).empty
    assert find_near_duplicates(np.zeros((0, SIZE, SIZE, 3), np.uint8)).empty
    assert find_near_duplicates(small([photograph(0)])).empty


def test_prepare_puts_look_alikes_into_one_group_and_one_fold(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    write_sample(tmp_path / "sample", 40)
    official = tmp_path / "sample/isic2019"
    lesions = pd.read_csv(official / "ISIC_2019_Training_Metadata.csv").drop_duplicates("lesion_id")
    one, two = lesions["image"].iloc[:2]
    paths = {path.stem: str(path) for path in official.rglob("*.jpg")}
    assert cv2.imwrite(paths[two], encoded(cv2.imread(paths[one])[:, ::-1], 70))
    arguments = ["--dataset", "demo", "--size", "32", "--set", "near_duplicates=true"]
    for source in ("isic2019", "isic2020"):
        arguments += ["--input", f"{source}={tmp_path / 'sample' / source}"]
    assert prepare.main(arguments) == 0
    assert "near-duplicates: 1 pairs" in capsys.readouterr().out  # of one group they are not told
    table = pd.read_csv(tmp_path / "input/prepared/demo/table.csv").set_index("image_name")
    assert table.loc[one, ["group", "fold"]].equals(table.loc[two, ["group", "fold"]])
    # The second time the pairs are taken from the file.
    monkeypatch.setattr(near_duplicates, "find_near_duplicates", None)
    assert prepare.main(arguments) == 0


@pytest.mark.real
def test_real_photographs_of_different_lesions_are_not_taken_for_copies():
    table = pd.read_csv(REAL / "ham10000" / "HAM10000_metadata.csv")
    table = table.drop_duplicates("lesion_id").iloc[:600]
    paths = [REAL / "ham10000" / "images" / f"{name}.jpg" for name in table["image_id"]]
    images = np.stack([decode(Path(path), SIZE)[0] for path in paths])
    copies = np.stack([image[:, ::-1] for image in images[:60]])
    found = find_near_duplicates(np.concatenate([images, copies]))
    of_copies = found["second"] >= 600
    assert of_copies.sum() == 60
    assert (found.loc[of_copies, "second"] - found.loc[of_copies, "first"] == 600).all()
    assert (~of_copies).sum() <= 1  # HAM10000 has a few photographs under two lesion ids
