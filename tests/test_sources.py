"""Sources: the official files become rows of one shape, and their published counts come out."""

import functools
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL, picture

from lesions.config import DatasetConfig, SourceConfig
from lesions.data import photographs
from lesions.data.columns import COMMON, Report
from lesions.data.photographs import extract, unpacked
from lesions.data.sources import READERS, read_source
from lesions.data.table import read_sources
from lesions.data.tasks import DIAGNOSES, MALIGNANT, TASKS, WORDS, build_task, targets
from lesions.errors import InputError

HAM = {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115}


STRICT = Report(strict=True)
DIAGNOSES_OF = {
    "isic2017": {"nv": 1_372, "mel": 374, "bkl": 254},
    "isic2019": {"nv": 12_875, "mel": 4_522, "bcc": 3_323, "bkl": 2_624, "akiec": 867, "scc": 628,
                 "vasc": 253, "df": 239},
    "isic2020": {"benign": 27_126, "nv": 5_193, "mel": 584, "bkl": 223, "": 10_982},
    "ham10000": HAM,
    "dermamnist": HAM,
}  # fmt: skip


@functools.cache
def real(name: str) -> pd.DataFrame:
    return read_source(name, SourceConfig(folder=""), REAL / name, STRICT)


@pytest.mark.real
@pytest.mark.parametrize("name", DIAGNOSES_OF)
def test_a_source_has_the_published_diagnoses(name):
    assert real(name)["diagnosis"].value_counts().to_dict() == DIAGNOSES_OF[name]


def test_tasks_are_over_one_vocabulary_and_a_target_is_empty_where_no_class_is():
    assert set(WORDS.values()) <= {*DIAGNOSES, ""}
    for task in TASKS.values():
        assert set(task) <= set(DIAGNOSES)
    assert TASKS["melanoma"] == {name: int(name == "mel") for name in DIAGNOSES}
    malignant = {name for name, label in TASKS["malignant"].items() if label}
    assert malignant == set(MALIGNANT) == {"mel", "bcc", "akiec", "scc"}
    assert len(set(TASKS["diagnosis7"].values())) == 7
    assert len(set(TASKS["diagnosis8"].values())) == 8
    codes = targets(pd.Series(["mel", "scc", "benign", "nv", ""]), "diagnosis7").to_numpy()
    mel, akiec, nv = map(build_task("diagnosis7").classes.index, ("mel", "akiec", "nv"))
    np.testing.assert_array_equal(codes, [mel, akiec, np.nan, nv, np.nan])


def test_the_target_follows_the_task(tmp_path):
    for name in ("MEL/a.jpg", "basal cell carcinoma/b.png", "nevus/c.tif"):
        picture(tmp_path / name)
    source = SourceConfig(folder=str(tmp_path), reader="generic")
    for task, expected in {"melanoma": [1, 0, 0], "malignant": [1, 1, 0]}.items():
        table = read_sources(DatasetConfig(sources={"mine": source}, task=task), STRICT)
        assert table["diagnosis"].tolist() == ["mel", "bcc", "nv"]
        assert table["target"].tolist() == expected


def test_anyones_table_is_read_through_a_column_map(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "Datei,Befund,Alter,Geschlecht,Ort,Patient,Teil\n"
        "a.JPG,Melanom,45,f,back,p1,train\n"
        "b.JPG,nevus,,m,scalp,p1,test\n"
        "c.JPG,,70,,,,\n"
    )
    for name in "abc":
        picture(tmp_path / "fotos" / f"{name}.JPG")
    source = SourceConfig(
        folder=str(tmp_path), reader="generic", table="labels.csv",
        columns={"image_name": "Datei", "diagnosis": "Befund", "age_approx": "Alter",
                 "sex": "Geschlecht", "site": "Ort", "patient_id": "Patient", "official": "Teil"},
        diagnoses={"melanom": "mel"},
    )  # fmt: skip
    table = read_sources(DatasetConfig(sources={"praxis": source}), STRICT)
    assert table["image_name"].tolist() == ["a", "b", "c"]
    assert table["diagnosis"].tolist() == ["mel", "nv", ""]
    assert table["target"].tolist()[:2] == [1, 0]
    assert table["split"].tolist() == ["train", "test", "test"]
    assert table["official"].tolist() == ["train", "test", ""]
    assert table["site"].tolist() == ["torso", "head/neck", ""]
    assert table["group"].tolist() == ["a", "a", "c"]
    assert [Path(path).name for path in table["path"]] == ["a.JPG", "b.JPG", "c.JPG"]
    wrong = source.model_copy(update={"diagnoses": {}})
    with pytest.raises(InputError, match="row 2: Befund is 'Melanom': not a diagnosis"):
        read_sources(DatasetConfig(sources={"praxis": wrong}), STRICT)
    wrong = source.model_copy(update={"columns": {"image": "Datei"}})
    with pytest.raises(InputError, match="columns: image unknown: known are image_name"):
        read_sources(DatasetConfig(sources={"praxis": wrong}), STRICT)


@pytest.fixture
def ham(root) -> Path:
    """HAM10000 of three images, without its images."""
    (root / "ham").mkdir()
    (root / "ham" / "HAM10000_metadata.csv").write_text(
        "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "L1,a,nv,histo,80.0,male,scalp\nL1,b,nv,histo,80.0,male,scalp\nL2,c,mel,histo,,unknown,\n"
    )
    return root / "ham"


def paths_of(ham: Path, images: list[str]) -> list[str]:
    source = SourceConfig(folder=str(ham), images=images)
    table = read_sources(DatasetConfig(sources={"ham10000": source}), STRICT, unpack=True)
    return table["path"].tolist()


def test_images_lie_flat_in_two_parts_by_class_or_in_the_downloaded_zip(ham, tmp_path):
    picture(ham / "HAM10000_images_part_1" / "a.jpg")
    known = ham / "HAM10000_metadata.csv"  # of Dataverse: .tab
    known.with_suffix(".tab").write_text(known.read_text().replace(",", "\t"))
    known.unlink()
    picture(ham / "HAM10000_images_part_2" / "b.JPEG")
    assert [bool(path) for path in paths_of(ham, [])] == [True, True, False]
    picture(tmp_path / "classes" / "MEL" / "c.jpg")
    paths = paths_of(ham, [str(tmp_path / "classes")])
    assert [bool(path) for path in paths] == [False, False, True]
    with zipfile.ZipFile(tmp_path / "ham.zip", "w") as file:
        file.write(picture(tmp_path / "z" / "c.jpg"), "HAM10000_images_part_2/c.jpg")
        file.writestr("HAM10000_images_part_2/readme.txt", "not an image")
    for _ in range(2):
        paths = paths_of(ham, [str(tmp_path / "ham.zip")])
        assert [bool(path) for path in paths] == [False, False, True]
        assert Path(paths[2]).read_bytes() == (tmp_path / "z" / "c.jpg").read_bytes()
    assert not list((tmp_path / "input/prepared").rglob("*.txt"))
    with pytest.raises(InputError, match="no such image folder or archive"):
        paths_of(ham, [str(tmp_path / "nowhere")])


def test_the_largest_dermamnist_is_read_and_its_arrays_become_the_same_pixels(root):
    rng = np.random.default_rng(0)
    for name, size in {"dermamnist": 28, "dermamnist_64": 32, "dermamnist_224": 48}.items():
        arrays = {}
        for split, count in {"train": 5, "val": 2, "test": 3}.items():
            arrays[f"{split}_images"] = rng.integers(0, 255, (count, size, size, 3), np.uint8)
            arrays[f"{split}_labels"] = rng.integers(0, 7, (count, 1), np.uint8)
        np.savez(root / f"{name}.npz", **arrays)
    config = DatasetConfig(sources={"dermamnist": SourceConfig(folder=str(root))})
    table = read_sources(config, STRICT, unpack=True)
    assert len(table) == 10
    labels = np.concatenate([arrays[f"{split}_labels"][:, 0] for split in ("train", "val", "test")])
    codes = targets(table["diagnosis"], "diagnosis7").astype(int)
    assert (codes == labels).all()  # of the largest, too
    last = cv2.imread(table["path"].iloc[-1])[..., ::-1]
    assert np.array_equal(last, arrays["test_images"][2])  # of the largest, the last in the loop
    np.savez(root / "dermamnist_224.npz", **arrays | {"val_labels": np.full((2, 1), 9)})
    with pytest.raises(InputError, match=r"dermamnist_224\.npz: val_labels: .*download it again"):
        read_sources(config, STRICT)
    np.savez(root / "dermamnist_corrected_64.npz", **arrays)
    with pytest.raises(InputError, match="are different editions: keep one of them"):
        read_sources(config, STRICT, unpack=True)


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


OUT = ("../out.jpg", "a/../../out.jpg", "..\\out.jpg", "/etc/out.jpg", "C:/out.jpg")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name, mode, said", [
    *((name, 0o100644, "would leave the folder") for name in OUT),
    ("link.jpg", 0o120777, "is a link"), ("pipe.jpg", 0o010644, "is a link or a special file"),
    ("good.jpg", 0o100644, "is there twice"),
])  # fmt: skip
def test_an_archive_writes_nothing_outside_its_folder(name, mode, said, tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(entry("good.jpg"), b"x")
        file.writestr(entry(name, mode), b"/etc/passwd")
    with pytest.raises(InputError, match=said):
        extract(path, tmp_path / "to", lambda name: True)
    assert not (tmp_path / "to").exists()
    assert not (tmp_path / "out.jpg").exists()


def test_an_archive_that_unpacks_too_large_or_is_damaged_is_refused(root, monkeypatch):
    path = root / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("large.jpg", bytes(3_000_000))
    with monkeypatch.context() as limited:
        limited.setattr(photographs, "LARGEST", 1_000_000)
        with pytest.raises(InputError, match="3,000,000 bytes unpacked, more than 1,000,000"):
            unpacked(path)
    content = bytearray(path.read_bytes())
    content[60:64] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"images\.zip: .*download it again"):
        unpacked(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="damaged or not a zip"):
        unpacked(path)
    left = [path for path in (root / "input/prepared").rglob("*") if path.is_file()]
    assert not left


def test_every_reader_names_its_missing_files(tmp_path):
    source = SourceConfig(folder=str(tmp_path))
    for name in READERS:
        report = Report()
        rows = read_sources(DatasetConfig(sources={name: source}), report)
        assert report.problems, name
        assert list(rows.columns)[: len(COMMON)] == COMMON
        assert rows.empty
    report = Report()
    read_sources(DatasetConfig(sources={"nothing": source}), report)
    assert "no reader 'nothing'" in report.problems[0]
