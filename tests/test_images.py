"""The image cache: faithful pixels, whole or not there, made once."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL

from lesions.data import images as cache
from lesions.data.decode import decode
from lesions.data.images import build_cache, fill_cache, load_images, verify_cache
from lesions.errors import InputError


def photographs(folder: Path, count: int) -> pd.DataFrame:
    """A table of `count` smooth JPEGs of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for row in range(count):
        coarse = rng.integers(40, 220, (6, 8, 3)).astype(np.uint8)
        size = [(120, 90), (400, 300), (64, 64)][row % 3]
        path = folder / f"i{row:02d}.jpg"
        picture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        paths.append(str(path))
    names = [f"i{row:02d}" for row in range(count)]
    return pd.DataFrame({"image_name": names, "path": paths})


def test_a_cache_holds_the_decoded_photographs_in_table_order(tmp_path):
    table = photographs(tmp_path / "in", 7)
    index = build_cache(tmp_path / "48", table, 48)
    images = load_images(tmp_path / "48", table, "prepare")
    assert images.shape == (7, 48, 48, 3)
    for row, path in enumerate(table["path"]):
        assert (images[row] == decode(Path(path), 48)[0]).all()
        assert (index["width"][row], index["height"][row]) == decode(Path(path), 48)[1]
    verify_cache(tmp_path / "48")
    with pytest.raises(InputError, match="of another table: run prepare"):
        load_images(tmp_path / "48", table.iloc[::-1], "prepare")
    with pytest.raises(InputError, match="no image cache: run prepare"):
        load_images(tmp_path / "64", table, "prepare")


def test_only_new_and_changed_photographs_are_decoded_again(tmp_path, monkeypatch):
    table = photographs(tmp_path / "in", 9)
    build_cache(tmp_path / "48", table.iloc[:6], 48)
    decoded = []

    def counted(path, size):
        decoded.append(path.stem)
        return decode(path, size)

    monkeypatch.setattr(cache, "decode", counted)
    build_cache(tmp_path / "48", table.iloc[:6], 48)
    assert decoded == []
    build_cache(tmp_path / "48", table.iloc[::-1], 48)
    assert sorted(decoded) == ["i06", "i07", "i08"]
    whole = np.array(load_images(tmp_path / "48", table.iloc[::-1], "prepare"))
    fresh = tmp_path / "fresh" / "48"
    build_cache(fresh, table.iloc[::-1], 48)
    assert (whole == load_images(fresh, table.iloc[::-1], "prepare")).all()
    decoded.clear()
    changed = Path(table["path"][2])
    changed.write_bytes(Path(table["path"][0]).read_bytes())
    build_cache(tmp_path / "48", table, 48)
    assert decoded == ["i02"]


def test_an_interrupted_build_is_not_read_and_goes_on(tmp_path, monkeypatch):
    table = photographs(tmp_path / "in", 8)
    monkeypatch.setattr(cache, "SAVE_EVERY", 2)
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 1)

    def killed(path, size):
        if path.stem == "i05":
            raise KeyboardInterrupt
        return decode(path, size)

    monkeypatch.setattr(cache, "decode", killed)
    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path / "48", table, 48)
    with pytest.raises(InputError, match="no image cache"):
        load_images(tmp_path / "48", table, "prepare")
    decoded = []

    def counted(path, size):
        decoded.append(path.stem)
        return decode(path, size)

    monkeypatch.setattr(cache, "decode", counted)
    build_cache(tmp_path / "48", table, 48)
    assert sorted(decoded) == ["i04", "i05", "i06", "i07"]
    images = load_images(tmp_path / "48", table, "prepare")
    assert all((images[row] == decode(Path(p), 48)[0]).all() for row, p in enumerate(table["path"]))


def test_a_filled_cache_takes_the_name_only_when_it_is_published(tmp_path):
    table = photographs(tmp_path / "in", 4)
    build_cache(tmp_path / "48", table.iloc[:3], 48)
    fill_cache(tmp_path / "48", table, 48)
    assert len(load_images(tmp_path / "48", table.iloc[:3], "prepare")) == 3
    build_cache(tmp_path / "48", table, 48)
    assert len(load_images(tmp_path / "48", table, "prepare")) == 4


def test_damaged_pixels_and_a_cache_of_another_version_are_noticed(tmp_path):
    table = photographs(tmp_path / "in", 3)
    build_cache(tmp_path / "48", table, 48)
    path = tmp_path / "48" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"images\.npy is damaged"):
        verify_cache(tmp_path / "48")
    facts = json.loads((tmp_path / "48" / "cache.json").read_text())
    (tmp_path / "48" / "cache.json").write_text(json.dumps(facts | {"version": 0}))
    with pytest.raises(InputError, match="run prepare"):
        load_images(tmp_path / "48", table, "prepare")


def test_a_full_disk_is_said_with_what_is_needed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    table = photographs(tmp_path / "in", 3)
    monkeypatch.setattr(cache.os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="No space left on device: the cache of 3 images at 48 px"):
        build_cache(tmp_path / "48", table, 48)
    assert not list(tmp_path.glob("48*"))


@pytest.mark.real
def test_scaled_decoding_is_faithful_on_full_size_photographs(tmp_path):
    import bench_cache

    out = tmp_path / "cache.json"
    arguments = ["--images", str(REAL / "isic_fullres"), "--repeats", "1", "--most", "2"]
    assert bench_cache.main([*arguments, "--out", str(out)]) == 0
    small, large = json.loads(out.read_text())["sizes"]
    assert small["psnr_median"] >= 40
    assert small["psnr_least"] >= 36
    assert large["psnr_least"] >= 45
    assert small["ratio"] > 2  # goals are kept by make bench; this catches a full decode
    assert large["ratio"] > 2
