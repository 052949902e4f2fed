"""Names, labels, tables and pictures of public data sets and bug reports get the right answer.

The files of ../shared/cases come from outside and lie beside the checkout, if at all; every kind of
fault in them is drawn below, or in test_sources.py, as well.
"""

import shutil
import unicodedata
import zipfile
from pathlib import Path

import blend
import cv2
import numpy as np
import pandas as pd
import prepare
import pytest
import yaml
from conftest import picture
from PIL import Image

from lesions.config import DatasetConfig
from lesions.data.decode import UnreadableImage, decode
from lesions.data.photographs import unpacked
from lesions.errors import InputError

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
SPLITS = "stay out of the folds"

# case, config -> rows by split, and what is said; without rows it is refused by saying that.
READ = {
    "02-dermamnist-two-sizes/dm2": ({"train": 49, "test": 14}, ""),
    "06-paths-in-image-column/paths_posix": ({"train": 12}, ""),
    "06-paths-in-image-column/paths_windows": ({"train": 12}, ""),
    "07-isic-archive-metadata/archive3m": ({"train": 21, "quarantined": 6}, "6 unlabelled rows"),
    "08-isic2024-metadata/isic2024_both": ({}, "target and diagnosis differ in 8 rows"),
    "09-official-column-ignored/official": ({"train": 18, "test": 6}, SPLITS),
    "10-patient-labelled-and-unlabelled/mixed": ({"train": 14, "quarantined": 2}, "(P02, P04)"),
    "11-fold-without-positives/fewpos": ({"train": 40}, "fold 1 has no positive in its 13"),
    "13-class-folders-with-leftovers/leftovers": ({"train": 16, "test": 4}, SPLITS),
    "14-split-folders/splitfolders_grouped": ({"train": 18, "test": 6}, SPLITS),
    "16-masks-with-the-same-names/masks": ({}, "different photographs of one name"),
    "17-two-zips-of-one-name/twozips": ({"train": 20}, ""),
    "18-two-zips-same-inner-names/twozips2": ({"train": 20}, ""),
    "19-id-case/idcase": ({"train": 8}, ""),
    "20-ham10000-dataverse-tab/hamtab": ({"train": 14}, ""),
    "21-hmnist-pixels/hmnist": ({}, "hmnist_28_28_RGB.csv: tables of pixels are not read"),
    "24-dermamnist-corrected-beside-original/dmc": ({}, "different editions: keep one"),
    "25-dermamnist-corrected-alone/dmc1": ({"train": 49, "test": 14}, ""),
    "26-pad-ufes-20/pad": ({"train": 24}, ""),  # its sites are known words now
    "27-patient-minus-one/minus1": ({"train": 30}, ""),
    "28-unk-class-and-encodings/enc_utf8": ({"train": 9, "test": 3}, "3 rows without diagnosis"),
    "29-isic2018-official-test/i18": ({"train": 28, "test": 7}, ""),
    "31-lesion-numbers-per-patient/lesnum_all": ({"train": 30}, "within each patient"),
    "32-linked-image-folder/linked": ({"train": 6}, ""),
    "33-decomposed-umlauts/nfd": ({"train": 6}, ""),
}
given = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases are not here")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs scripts/prepare.py on a config; the table, and all that it printed."""
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()

    def run(config: dict, *options: str) -> tuple[pd.DataFrame, str]:
        found = DatasetConfig(**config)
        monkeypatch.setattr("lesions.config.load_dataset_config", lambda *_: found)
        prepare.main(["--dataset", "case", "--size", "32", *options])
        return pd.read_csv(tmp_path / "root/input/prepared/case/table.csv"), capsys.readouterr().out

    return run


def read_case(name: str, tmp_path: Path) -> dict:
    """The config of a case, whose files are copied to where it looks for them."""
    case = tmp_path / "shared/cases" / name.partition("/")[0]
    shutil.copytree(CASES / case.name, case)
    return yaml.safe_load((case / f"{name.partition('/')[2]}.yaml").read_text())


@given
@pytest.mark.parametrize("name", READ)
def test_a_case_is_read_rightly_or_refused_with_the_reason(name, call, tmp_path):
    rows, said = READ[name]
    config = read_case(name, tmp_path)
    if name.startswith("32"):
        data = tmp_path / "shared/cases/32-linked-image-folder/data/images"
        data.symlink_to("../elsewhere")
    if not rows:
        with pytest.raises(InputError) as refused:
            call(config)
        assert said in str(refused.value)
        return
    table, printed = call(config)
    assert table["split"].value_counts().to_dict() == rows
    assert said in printed
    groups = {"27": 25, "31": 10, "26": 12, "20": 7}.get(name[:2], len(table))
    assert table["group"].nunique() == groups or name[:2] in ("07", "10", "11")
    assert (table["width"] == (224 if name[:2] in ("02", "25") else 72)).all()
    images = np.load(tmp_path / "root/input/prepared/case/32/images.npy")
    flat = name[:2] in ("02", "25")
    assert images.mean() > 60 if flat else len({*map(bytes, images)}) > 0.9 * len(table)


@given
@pytest.mark.parametrize("name, said", [("macos", ""), ("powershell5", ""),
                                        ("nested", "unpack ISIC_Training_Input.zip")])  # fmt: skip
def test_an_archive_of_another_system_is_read_or_refused(name, said, call, tmp_path):
    config = read_case("12-zips/zips", tmp_path)
    images = f"clinic={tmp_path / 'shared/cases/12-zips' / name}.zip"
    if said:
        with pytest.raises(InputError, match=said):
            call(config, "--images", images)
    else:
        assert len(call(config, "--images", images)[0]) == 10


@given
def test_files_that_broke_the_decoder_are_read_or_refused():
    for path in (CASES / "break").glob("06_exif*"):
        assert decode(path, 32)[0].std() > 0, path.name
    with pytest.raises(InputError, match=r"damaged_deflate\.zip: .*download it again"):
        unpacked(CASES / "break/10_damaged_deflate.zip")


def write_source(folder: Path, text: str, **columns: str) -> dict:
    """A generic source whose table is `text`; image_name and diagnosis are file and dx."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text(text)
    named = {"image_name": "file", "diagnosis": "dx"} | columns
    return {"reader": "generic", "folder": str(folder), "table": "labels.csv", "columns": named}


def test_images_called_alike_are_kept_apart_by_class_source_and_folder(call, tmp_path):
    classes = {"reader": "generic", "folder": str(tmp_path / "classes")}
    for number in range(4):
        picture(tmp_path / f"classes/mel/{number}.jpg", number)
        picture(tmp_path / f"classes/nv/{number}.jpg", 10 + number)
    table, _ = call({"sources": {"classes": classes}, "folds": 2})
    assert set(table["image_name"]) == {f"{c}_{n}" for c in ("mel", "nv") for n in range(4)}
    assert (table["image_name"].str.split("_").str[0] == table["diagnosis"]).all()
    rows = "".join(f"{dx}/{n}.jpg,{dx}\n" for dx in ("mel", "nv") for n in range(4))
    listed = write_source(tmp_path / "classes", "file,dx\n" + rows)
    again, _ = call({"sources": {"listed": listed}, "folds": 2})
    assert set(again["image_name"]) == set(table["image_name"])
    sources = {}
    for start, name in enumerate(("left", "right")):
        text = f"file,dx\nIMG_0,mel\nIMG_1,{['mel', 'nv'][start]}\nIMG_2,nv\n"
        archive = tmp_path / name / "images.zip"
        sources[name] = write_source(archive.parent, text) | {"images": [str(archive)]}
        with zipfile.ZipFile(archive, "w") as file:
            for number in range(3):
                one = picture(tmp_path / "one.jpg", 20 + 5 * start + number)
                file.write(one, f"IMG_{number}.jpg")
    table, _ = call({"sources": sources, "folds": 2})
    assert set(table["image_name"]) == {f"{s}_IMG_{n}" for s in sources for n in range(3)}
    images = np.load(tmp_path / "root/input/prepared/case/32/images.npy")
    for row, (source, number) in enumerate(table["image_name"].str.split("_IMG_").tolist()):
        own = picture(tmp_path / "one.jpg", 20 + 5 * [*sources].index(source) + int(number))
        assert (images[row] == decode(own, 32)[0]).all()


def test_two_files_of_one_name_are_refused_unless_they_are_equal(call, tmp_path):
    pad = write_source(tmp_path / "pad", "file,dx\na.png,mel\nb,nv\n")
    config = {"sources": {"pad": pad}, "folds": 2}
    picture(tmp_path / "pad/images/a.png", 1)
    picture(tmp_path / "pad/images/b.png", 2)
    shutil.copytree(tmp_path / "pad/images", tmp_path / "pad/copy")
    assert len(call(config)[0]) == 2
    picture(tmp_path / "pad/masks/a.png", 3)
    with pytest.raises(InputError, match=r"(?s)a\.png and .*a\.png are different photographs"):
        call(config)


TABLES = {
    "suffix": ("file,dx\ni0,mel\ni0.jpg,nv\n", {}, "rows that differ for file i0"),
    "case": ("file,dx\ni0,mel\nI0,nv\n", {}, "is the photograph of i0, I0"),
    "target": ("file,dx,y\ni0,bcc,1\ni1,nv,0\n", {"target": "y"}, "and diagnosis differ in 1"),
    "return": ('file,dx\n"i\r0",mel\ni1,nv\n', {}, "line break or control character"),
    "cells": ("file,dx\ni0,mel\ni1,nv,x\n", {}, "not a comma-separated table"),
    "all cells": ("file,dx\ni0,mel,x\ni1,nv,x\n", {}, "more cells than its header"),
    "header": ("file,dx,dx\ni0,mel,nv\ni1,nv,mel\n", {}, "two columns are called 'dx'"),
    "official": ("file,dx,p,o\ni0,mel,1,train\ni1,nv,1,test\n",
                 {"patient_id": "p", "official": "o"}, "have both training and test rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_says_two_things_is_refused_with_the_reason(name, call, tmp_path):
    text, columns, said = TABLES[name]
    for number in range(2):
        picture(tmp_path / f"mine/i{number}.jpg", number)
    source = write_source(tmp_path / "mine", text, **columns)
    with pytest.raises(InputError, match=said):
        call({"sources": {"mine": source}, "folds": 2})


def test_prepare_warns_of_folds_that_have_no_positive(call, tmp_path):
    rows = [f"i{n},{'mel' if n < 2 else 'nv'},P{max(n, 1)}\n" for n in range(24)]
    for number in range(24):
        picture(tmp_path / f"mine/i{number}.jpg", number)
    source = write_source(tmp_path / "mine", "file,dx,p\n" + "".join(rows), patient_id="p")
    _, said = call({"sources": {"mine": source}, "folds": 3})
    assert said.count("has no positive in its") == 3
    assert "training rows" in said and "validation rows" in said


def test_blending_keeps_images_that_are_called_like_a_missing_cell(root):
    rng, names = np.random.default_rng(0), ["NA", "null", "nan", "None", "<NA>", "1.#QNAN"]
    names += [f"i{number}" for number in range(94)]
    target = np.arange(100) % 2
    truth = target + rng.normal(size=100)
    for member in "ab":
        score = 1 / (1 + np.exp(-truth - 0.3 * rng.normal(size=100)))
        own = pd.DataFrame({"image_name": names, "target": target, "prob": score})
        own.to_csv(root / f"oof_{member}.csv", index=False)
        sent = own.assign(image_name="t" + own["image_name"])[["image_name", "prob"]]
        sent.to_csv(root / f"test_{member}.csv", index=False)
    people = pd.DataFrame({"image_name": names, "patient_id": ["NA", "n/a", *names[2:]]})
    people.to_csv(root / "groups.csv", index=False)
    members = [str(root / f"oof_{member}.csv") for member in "ab"]
    tests = ["--test", *(str(root / f"test_{member}.csv") for member in "ba")]
    command = [*members, "--groups", str(root / "groups.csv"), "--out", str(root / "out")]
    assert blend.main([*command, *tests]) == 0
    blended = pd.read_csv(root / "out/blend_oof.csv", keep_default_na=False)
    assert blended["image_name"].tolist() == names and blended["group"].nunique() == 100
    sent.assign(prob=1 - sent["prob"]).to_csv(root / "test_b.csv", index=False)
    with pytest.raises(InputError, match=r"test_b\.csv is upside down: its rank correlation"):
        blend.main([*command, *tests])


def test_train_val_and_test_folders_above_the_classes_are_the_split(call, tmp_path):
    for number, part in enumerate(("train", "train", "Validation", "test")):
        for dx in ("mel", "nv"):
            picture(tmp_path / f"mine/{part}/{dx}/{dx}{number}.jpg", number)
    picture(tmp_path / "mine/test/unknown.jpg", 9)
    source = {"reader": "generic", "folder": str(tmp_path / "mine")}
    table, said = call({"sources": {"mine": source}, "folds": 2})
    assert table["split"].value_counts().to_dict() == {"train": 6, "test": 3}
    assert "3 official test rows stay out of the folds, 2 validation rows are folded" in said
    table, _ = call({"sources": {"mine": source}, "scheme": "official"})
    assert table.loc[table["fold"] == 0, "image_name"].tolist() == ["mel2", "nv2"]


def test_tabs_windows_paths_decomposed_names_and_restarting_lesion_numbers_are_read(call, tmp_path):
    names = [f"R\u00fccken_{number}" for number in range(6)]
    rows = ["file\tdx\tp\tl\n"]
    for number, name in enumerate(names):
        picture(tmp_path / "mine/img" / f"{unicodedata.normalize('NFD', name)}.PNG", number)
        dx = "mel" if number % 2 else "nv"
        rows.append(f"C:\\data\\{name}.png\t{dx}\tP{number // 2}\t{number % 2 + 1}\n")
    source = write_source(tmp_path / "mine", "", patient_id="p", lesion_id="l")
    (tmp_path / "mine/labels.tab").write_text("".join(rows), encoding="utf-8")
    table, said = call({"sources": {"mine": source | {"table": "labels.tab"}}, "folds": 2})
    assert table["image_name"].tolist() == names
    assert table["group"].nunique() == 3
    assert "lesions 1, 2 are in several patients" in said


def test_unlabelled_rows_are_counted_and_stay_out_of_their_patients_folds(call, tmp_path):
    text = "file,dx,p,l\nNA,mel,-1,1\nnull,nv,-1,1\nc,nv,P1,1\nd,UNK,P1,2\ne,,P2,1\nf,nv,P3,1\n"
    for number, name in enumerate(("NA", "null", "c", "d", "e", "F")):
        picture(tmp_path / f"elsewhere/{name}.jpg", number)
    source = write_source(tmp_path / "mine", text, patient_id="p", lesion_id="l")
    (tmp_path / "mine/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine/images/loop").symlink_to(tmp_path / "elsewhere")
    for hidden in ("._c.jpg", ".ipynb_checkpoints/c.jpg"):
        (tmp_path / "elsewhere" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / hidden).write_bytes(b"not a photograph")
    _, said = call({"sources": {"mine": source}, "folds": 2})
    table = pd.read_csv(tmp_path / "root/input/prepared/case/table.csv", keep_default_na=False)
    assert table["split"].tolist() == ["train", "train", "train", "quarantined", "test", "train"]
    assert table["group"].nunique() == 5
    assert "2 rows without diagnosis or target are test rows" in said
    assert "1 unlabelled rows (d)" in said and "(P1)" in said


def test_deep_floating_and_transparent_pictures_are_scaled_composed_or_refused(tmp_path):
    ramp = np.tile(np.linspace(0.02, 0.99, 96, dtype=np.float32), (96, 1))
    looks = (ramp * 255).astype(int)
    for name, values in {
        "float": ramp, "float255": ramp * 255, "twelve": (ramp * 4095).astype(np.uint16),
        "long": (ramp * 65535).astype(np.int32), "eight": (ramp * 255).astype(np.int32),
    }.items():  # fmt: skip
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        assert np.abs(decode(tmp_path / f"{name}.tif", 96)[0][..., 0] - looks).max() <= 1, name
    for values in (ramp - 0.5, ramp * 1e6, ramp * np.nan):
        Image.fromarray(values).save(tmp_path / "odd.tif")
        with pytest.raises(UnreadableImage, match="grey values from"):
            decode(tmp_path / "odd.tif", 96)
    cut = np.full((96, 96, 4), (0, 200, 0, 255), np.uint8)
    cut[:48, :, 3] = 0
    Image.fromarray(cut).save(tmp_path / "cut.png")
    pixels = decode(tmp_path / "cut.png", 96)[0]
    assert (pixels[:48] == 255).all() and (pixels[48:] == (0, 200, 0)).all()
    dark = cv2.cvtColor((ramp * 4095).astype(np.uint16), cv2.COLOR_GRAY2BGR)
    cv2.imwrite(str(tmp_path / "dark.png"), dark)
    with pytest.raises(UnreadableImage, match="nearly black"):
        decode(tmp_path / "dark.png", 96)


@pytest.mark.parametrize("hole", ["zeros", "cut"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_with_a_hole_and_a_whole_end_is_refused(hole, progressive):
    skin = np.random.default_rng(0).integers(90, 200, (60, 80, 3)).astype(np.uint8)
    how = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    whole = cv2.imencode(".jpg", cv2.resize(skin, (800, 600)), how)[1].tobytes()
    assert decode(whole, 64)[1] == (800, 600)
    middle = len(whole) // 2
    filling = bytes(3000) if hole == "zeros" else b""
    with pytest.raises(UnreadableImage, match="damaged: Corrupt JPEG data"):
        decode(whole[:middle] + filling + whole[middle + 3000 :], 64)
