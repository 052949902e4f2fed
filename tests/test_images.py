"""The image cache: faithful pixels, whole or not there, made once."""

import json
import pickle
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL, picture
from PIL import Image

from lesions.config import PreprocessConfig
from lesions.data import cache, preprocess
from lesions.data import decode as decoding
from lesions.data.cache import cache_facts, fill_cache, load_images, publish_cache
from lesions.data.decode import PLAIN, UnreadableImage, decode
from lesions.data.preprocess import fitted
from lesions.errors import InputError
from lesions.files import sha256


def photographs(folder: Path, count: int) -> pd.DataFrame:
    """A table of `count` smooth JPEGs of several sizes."""
    names, sizes = [f"i{row:02d}" for row in range(count)], [(120, 90), (400, 300), (64, 64)]
    files = [picture(folder / f"{n}.jpg", row, sizes[row % 3]) for row, n in enumerate(names)]
    return pd.DataFrame({"image_name": names, "path": list(map(str, files))})


def build_cache(
    folder: Path, table: pd.DataFrame, mode: cache.Mode = "array", config: PreprocessConfig = PLAIN
) -> pd.DataFrame:
    """A finished cache at the size that is its folder's name."""
    index, _ = fill_cache(folder, table, int(folder.name), mode, config)
    publish_cache(folder, table)
    return index


@pytest.fixture
def decoded(monkeypatch) -> SimpleNamespace:
    """The `names` of the photographs decoded into a cache; KeyboardInterrupt at `stop`."""
    seen = SimpleNamespace(names=[], stop="")

    def spied(path: Path, size: int, preprocess: PreprocessConfig):
        if path.stem == seen.stop:
            raise KeyboardInterrupt
        seen.names.append(path.stem)
        return decode(path, size, preprocess)

    monkeypatch.setattr(cache, "decode", spied)
    return seen


def test_a_cache_holds_the_decoded_photographs_in_table_order(tmp_path):
    table = photographs(tmp_path / "in", 7)
    index = build_cache(tmp_path / "48", table)
    images = load_images(tmp_path / "48", table, "prepare")
    assert images.shape == (7, 48, 48, 3)
    for row, path in enumerate(table["path"]):
        assert (images[row] == decode(Path(path), 48)[0]).all()
        assert (index["width"][row], index["height"][row]) == decode(Path(path), 48)[1]
    with pytest.raises(InputError, match="of another table: run prepare"):
        load_images(tmp_path / "48", table.iloc[::-1], "prepare")
    with pytest.raises(InputError, match="no image cache: run prepare"):
        load_images(tmp_path / "64", table, "prepare")


def test_only_new_and_changed_photographs_are_decoded_again(tmp_path, decoded):
    table = photographs(tmp_path / "in", 9)
    build_cache(tmp_path / "48", table.iloc[:6])
    decoded.names.clear()
    build_cache(tmp_path / "48", table.iloc[:6])
    assert decoded.names == []
    fill_cache(tmp_path / "48", table.iloc[::-1], 48, "array", PLAIN)
    assert len(load_images(tmp_path / "48", table.iloc[:6], "prepare")) == 6  # until published
    build_cache(tmp_path / "48", table.iloc[::-1])
    assert sorted(decoded.names) == ["i06", "i07", "i08"]
    whole = np.array(load_images(tmp_path / "48", table.iloc[::-1], "prepare"))
    build_cache(tmp_path / "fresh" / "48", table.iloc[::-1])
    assert (whole == load_images(tmp_path / "fresh" / "48", table.iloc[::-1], "prepare")).all()
    decoded.names.clear()
    Path(table["path"][2]).write_bytes(Path(table["path"][0]).read_bytes())
    build_cache(tmp_path / "48", table)
    assert decoded.names == ["i02"]


@pytest.mark.parametrize("mode", ["array", "jpeg"])
def test_an_interrupted_build_is_not_read_and_resumes_alike(mode, tmp_path, monkeypatch, decoded):
    table = photographs(tmp_path / "in", 8)
    monkeypatch.setattr(cache, "SAVE_EVERY", 2)
    monkeypatch.setattr(cache, "cpu_count", lambda: 1)
    decoded.stop = "i05"
    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path / "48", table, mode)
    with pytest.raises(InputError, match="no image cache"):
        load_images(tmp_path / "48", table, "prepare")
    if mode == "jpeg":
        with (tmp_path / "48.part" / "images.bin").open("ab") as file:
            file.write(b"half a photograph")
    decoded.stop = ""
    decoded.names.clear()
    build_cache(tmp_path / "48", table, mode)
    assert sorted(decoded.names) == ["i04", "i05", "i06", "i07"]
    build_cache(tmp_path / "fresh" / "48", table, mode)
    file = cache.FILES[mode]
    assert (tmp_path / "48" / file).read_bytes() == (tmp_path / "fresh/48" / file).read_bytes()


def test_damaged_pixels_and_a_cache_of_another_decoder_are_noticed(tmp_path):
    table = photographs(tmp_path / "in", 3)
    build_cache(tmp_path / "48", table)
    path = tmp_path / "48" / "images.npy"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"images\.npy is damaged"):  # a second prepare sees it
        build_cache(tmp_path / "48", table)
    facts = json.loads((tmp_path / "48" / "cache.json").read_text())
    (tmp_path / "48" / "cache.json").write_text(json.dumps(facts | {"version": 0}))
    with pytest.raises(InputError, match="run prepare"):
        load_images(tmp_path / "48", table, "prepare")


def test_a_cache_of_an_earlier_version_is_read_and_its_facts_are_complete(tmp_path):
    table = photographs(tmp_path / "in", 3)
    assert cache_facts(tmp_path / "48") == {}
    build_cache(tmp_path / "48", table)
    facts = cache_facts(tmp_path / "48")
    assert facts["key"]["size"] == 48 and facts["key"]["preprocess"]["fit"] == "squash"
    assert facts["sha256"] == sha256(tmp_path / "48" / "images.npy")
    place = tmp_path / "48" / "cache.json"
    kept = json.loads(place.read_text())
    place.write_text(json.dumps({k: v for k, v in kept.items() if k not in ("mode", "preprocess")}))
    assert cache_facts(tmp_path / "48") == facts
    assert len(load_images(tmp_path / "48", table, "prepare")) == 3


def test_a_full_disk_is_said_with_what_is_needed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    table = photographs(tmp_path / "in", 3)
    monkeypatch.setattr(cache.os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match="No space left on device: the cache of 3 images at 48 px"):
        build_cache(tmp_path / "48", table)
    assert not list(tmp_path.glob("48*"))


def test_a_cache_of_jpegs_is_near_to_the_array_and_a_fraction_of_its_size(tmp_path):
    table = photographs(tmp_path / "in", 9)
    build_cache(tmp_path / "array" / "96", table)
    build_cache(tmp_path / "jpeg" / "96", table.iloc[:5], "jpeg")
    build_cache(tmp_path / "jpeg" / "96", table.iloc[::-1], "jpeg")  # copies, adds, reorders
    array = load_images(tmp_path / "array" / "96", table, "prepare")
    jpeg = load_images(tmp_path / "jpeg" / "96", table.iloc[::-1], "prepare")
    assert jpeg.shape == array.shape
    assert len(jpeg) == 9
    jpeg = pickle.loads(pickle.dumps(jpeg))  # as a data-loader worker gets it
    for row in range(9):
        error = (jpeg[8 - row].astype(float) - array[row]) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 40
    size = {mode: sum(file.stat().st_size for file in (tmp_path / mode / "96").glob("images.*"))
            for mode in ("array", "jpeg")}  # fmt: skip
    assert size["jpeg"] < size["array"] / 4
    (tmp_path / "jpeg" / "96" / "images.bin").write_bytes(b"x" * size["jpeg"])
    with pytest.raises(InputError, match=r"images\.bin is damaged"):
        build_cache(tmp_path / "jpeg" / "96", table.iloc[::-1], "jpeg")
    with pytest.raises(InputError, match="row 3 is damaged"):
        load_images(tmp_path / "jpeg" / "96", table.iloc[::-1], "prepare")[3]


def test_the_kind_of_cache_is_chosen_by_disk_and_memory(tmp_path, monkeypatch):
    assert cache.choose_mode(100, 64, tmp_path / "new" / "64") == "array"
    assert cache.choose_mode(10**9, 512, tmp_path) == "jpeg"
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert cache.choose_mode(100, 64, tmp_path) == "jpeg"


def dermoscopy() -> np.ndarray:
    """uint8 (300, 400, 3): a lesion with a hair, in a round field with dark corners."""
    y, x = np.mgrid[:300, :400]
    picture = np.full((300, 400, 3), (190, 150, 120), np.uint8)
    picture[np.hypot(x - 200, y - 150) < 70] = (110, 70, 60)
    cv2.line(picture, (120, 40), (180, 260), (45, 35, 30), 2)
    picture[np.hypot(x - 200, y - 150) > 205] = 5
    return picture


def test_each_preprocessing_does_what_it_says():
    picture = dermoscopy()
    assert (fitted(picture, 96, PreprocessConfig()) == preprocess.resized(picture, 96)).all()
    crop = fitted(picture, 96, PreprocessConfig(fit="crop"))
    assert (crop == preprocess.resized(picture[:, 50:350], 96)).all()
    pad = fitted(picture, 96, PreprocessConfig(fit="pad"))
    assert (pad[:11] == 0).all()
    assert (pad[-11:] == 0).all()
    circle = fitted(picture, 96, PreprocessConfig(circle=True))
    assert fitted(picture, 96, PreprocessConfig()).min() < 20
    assert circle[[0, 0, -1, -1], [0, -1, 0, -1]].min() > 50  # no dark corner is left
    bright = picture[60:240, 80:320]
    assert preprocess.crop_circle(bright).shape == bright.shape  # no field, no crop
    large = preprocess.resized(picture[:, 50:350], 256)
    hair = fitted(picture, 256, PreprocessConfig(fit="crop", hair=True))
    on_skin = np.s_[38:60]  # rows that the hair crosses outside the lesion
    assert large[on_skin].min() < 80
    assert hair[on_skin].min() > 95
    tinted = np.clip(picture * [1.0, 0.7, 0.6], 0, 255).astype(np.uint8)
    spread = [preprocess.shades_of_gray(p).reshape(-1, 3).mean(0).std() for p in (picture, tinted)]
    assert spread[1] < tinted.reshape(-1, 3).mean(0).std() / 2
    dull = (picture // 4 + 90).astype(np.uint8)
    assert preprocess.equalise(dull).std() > dull.std()


def test_a_cache_of_another_preprocessing_is_refused_and_made_anew(tmp_path):
    table = photographs(tmp_path / "in", 4)
    plain = build_cache(tmp_path / "48", table)
    before = np.array(load_images(tmp_path / "48", table, "prepare"))
    config = PreprocessConfig(fit="crop", clahe=True)
    facts = {"config": {"preprocess": config.model_dump()}}
    (tmp_path / "table.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="made with another preprocessing: run prepare"):
        load_images(tmp_path / "48", table, "prepare")
    index = build_cache(tmp_path / "48", table, config=config)
    after = load_images(tmp_path / "48", table, "prepare")
    assert index["width"].tolist() == plain["width"].tolist()
    assert (before != after).any()
    assert (after[1] == decode(Path(table["path"][1]), 48, config)[0]).all()


@pytest.mark.parametrize("size, of_file, decoded", [
    (256, (1022, 767), (511, 384)), (256, (600, 450), (600, 450)), (256, (3200, 2000), (800, 500)),
    (512, (3200, 2000), (1600, 1000)), (64, (3200, 2000), (400, 250)),
])  # fmt: skip
def test_jpegs_are_decoded_at_half_sizes_of_1_5_or_more(size, of_file, decoded, monkeypatch):
    content = cv2.imencode(".jpg", np.zeros((*of_file[::-1], 3), np.uint8))[1].tobytes()
    monkeypatch.setattr(decoding, "fitted", lambda pixels, *_: pixels)
    pixels, found = decode(content, size)
    assert (pixels.shape[1::-1], found) == (decoded, of_file)


def photograph(subsampling: int = 2) -> bytes:
    coarse = np.random.default_rng(7).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    content, picture = BytesIO(), cv2.resize(coarse, (1203, 902), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(picture).save(content, "JPEG", quality=90, subsampling=subsampling)
    return content.getvalue()


@pytest.mark.parametrize("size", [32, 112, 256, 512])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_both_decoders_give_the_same_pixels(size, subsampling, monkeypatch):
    fast = decode(photograph(subsampling), size)[0]
    monkeypatch.setattr(decoding, "plain_jpeg", lambda *_: None)
    assert (decode(photograph(subsampling), size)[0] == fast).all()


def test_a_photograph_cut_short_is_refused_wherever_it_is_cut():
    whole = photograph()
    assert decode(whole + bytes(16), 64)[1] == (1203, 902)  # padding after the end is harmless
    for share in (0.1, 0.5, 0.9, 0.999):
        with pytest.raises(UnreadableImage):
            decode(whole[: int(share * len(whole))], 64)


@pytest.mark.real
def test_scaled_decoding_is_faithful_on_full_size_photographs():
    """PSNR against a full decode that is averaged down."""
    photos = sorted((REAL / "isic_fullres").rglob("*.jpg"))
    files = [path for path in photos if "bad" not in str(path)]
    assert len(files) >= 8
    for size, median, least in ((256, 40, 32), (512, 45, 40)):
        psnr = []
        for path in files[:: len(files) // 4]:
            whole = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            whole = cv2.resize(whole, (size, size), interpolation=cv2.INTER_AREA).astype(float)
            error = ((whole - decode(path, size)[0]) ** 2).mean()
            psnr.append(10 * np.log10(255**2 / max(error, 1e-9)))
        assert np.median(psnr) > median and min(psnr) > least, psnr
