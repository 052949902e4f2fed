"""Labelled photographs from elsewhere are read as published and scored as in a report."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from evaluate import main as evaluate
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from lesions.data.columns import Report
from lesions.data.labels import open_photos, read_labels
from lesions.data.sample import write_sample
from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.files import read_json
from lesions.inference import external
from lesions.paths import at

COPIED = 12


@pytest.fixture(scope="session")
def clinic(demo) -> Path:
    """48 photographs as the ISIC Archive has them, of which 12 show training photographs."""
    folder = at("clinic")
    write_sample(at("other"), images=60, seed=5)
    new = pd.read_csv(at("other/isic2020/train.csv")).iloc[: 48 - COPIED]
    train = load_table("demo")[0]
    train = train[(train["split"] == "train") & (train["path"] != "")].iloc[:COPIED]
    files = [at("other/isic2020/jpeg/train", f"{name}.jpg") for name in new["image_name"]]
    files += [Path(path) for path in train["path"]]
    mel = np.concatenate([new["target"], train["target"]]) == 1
    mel[:4] = True
    (folder / "images").mkdir(parents=True)
    names = [f"ISIC_99{number:05d}" for number in range(len(files))]
    for name, file in zip(names, files, strict=True):
        shutil.copy(file, folder / "images" / f"{name}.jpg")
    table = pd.DataFrame(
        {
            "isic_id": names,
            "age_approx": 50,
            "sex": "male",
            "anatom_site_general": ["anterior torso"] * 40 + [""] * 8,
            "diagnosis_1": np.where(mel, "Malignant", "Benign"),
            "diagnosis_3": np.where(mel, "Melanoma, NOS", "Scar"),
            "lesion_id": [f"IL_{number // 2 if number < 4 else number}" for number in range(48)],
        }
    )
    table.to_csv(folder / "metadata.csv", index=False)
    return folder


def test_scores_are_those_of_an_independent_count(calibrated, clinic, capsys, monkeypatch):
    monkeypatch.setattr(external, "CORRUPTIONS", ("hair", "JPEG quality 30"))
    out = clinic / "found.json"
    given = ["--run", "calibrated", "--images", str(clinic / "images"), "--labels",
             str(clinic / "metadata.csv"), "--out", str(out), "--allow-dirty"]  # fmt: skip
    assert evaluate([*given, "--corrupt"]) == 0
    found, rows = read_json(out), pd.read_csv(at("submissions/calibrated_metadata.csv"))
    every, measures = found["sets"]["all"], found["sets"]["all"]["measures"]
    mel, called = rows["target"] == 1, rows["called"]
    assert (every["images"], every["positives"], every["groups"]) == (48, mel.sum(), 46)
    for name, value in {
        "AUC": roc_auc_score(mel, rows["prob"]),
        "average precision": average_precision_score(mel, rows["prob"]),
        "recall (sensitivity)": called[mel].mean(),
        "specificity": 1 - called[~mel].mean(),
        "Brier score": brier_score_loss(mel, rows["risk"]),
    }.items():
        assert measures[name]["value"] == pytest.approx(value), name
        assert measures[name]["low"] <= value <= measures[name]["high"]
    cut = read_json(calibrated / "calibration.json")["threshold"]["value"]
    assert (called == (rows["prob"] >= cut)).all()
    assert sum(each["images"] for each in every["reliability"]) == 48
    # The copies have other names: their pixels give them away.
    assert rows["copy_of"].notna().tolist() == [False] * (48 - COPIED) + [True] * COPIED
    own = rows[rows["copy_of"].isna()]
    without = found["sets"]["without copies"]
    assert without["images"] == 48 - COPIED
    expected = roc_auc_score(own["target"], own["prob"])
    assert without["measures"]["AUC"]["value"] == pytest.approx(expected)
    lesions = rows.groupby("lesion_id")[["target", "prob"]].mean()
    by_lesion = found["sets"]["by lesion"]
    expected = roc_auc_score(lesions["target"], lesions["prob"])
    assert by_lesion["images"] == len(lesions) == 46
    assert by_lesion["measures"]["AUC"]["value"] == pytest.approx(expected)
    assert list(found["corrupted"]) == ["hair", "JPEG quality 30"]
    for damage in found["corrupted"].values():
        change = damage["AUC"]["difference"]
        assert change["value"] == pytest.approx(damage["AUC"]["value"] - measures["AUC"]["value"])
    assert "OPENED AGAIN" not in capsys.readouterr().out
    assert evaluate(given) == 0
    assert "OPENED AGAIN: this set has been scored 1 time" in capsys.readouterr().out
    copied = clinic / "copied.csv"
    pd.read_csv(clinic / "metadata.csv").tail(COPIED).to_csv(copied, index=False)
    given[given.index(str(clinic / "metadata.csv"))] = str(copied)
    assert evaluate(given) == 0
    assert f"Copies of training photographs: {COPIED}, all of them" in capsys.readouterr().out


def test_a_run_of_several_classes_is_scored_by_class(several, clinic, capsys, tmp_path):
    table = pd.read_csv(clinic / "metadata.csv").drop(columns="diagnosis_1")
    table.to_csv(tmp_path / "own.csv", index=False)
    images = Path(shutil.copytree(clinic / "images", tmp_path / "images"))
    given = ["--run", "several", "--images", str(images), "--labels", str(tmp_path / "own.csv")]
    with pytest.raises(InputError, match=r"'scar' \(\d+ rows\)(.|\n)*--map 'scar=bkl'"):
        evaluate(given)
    (images / "ISIC_9900000.jpg").unlink()
    with pytest.raises(InputError, match="no photograph of 1 of 48 rows"):
        evaluate([*given, "--map", "scar=nv"])
    (images / "ISIC_9900000.jpg").write_bytes(b"no picture")
    assert evaluate([*given, "--map", "scar=nv"]) == 2
    printed = capsys.readouterr()
    assert "47 photographs" in printed.out and "macro AUC" in printed.out
    assert "not read: ISIC_9900000" in printed.err
    rows = pd.read_csv(at("submissions/several_own.csv"))
    assert set(rows["target"]) == {"mel", "nv"}
    auc = roc_auc_score(rows["target"] == "mel", rows["prob_mel"])
    assert f"{auc:.3f}" in next(line for line in printed.out.splitlines() if "| mel " in line)


def test_each_damage_changes_the_photograph_in_its_own_way(clinic):
    path = clinic / "images/ISIC_9900000.jpg"
    before = cv2.imread(str(path)).astype(int)
    after = {
        how: cv2.imdecode(np.frombuffer(external.damaged(path, how), np.uint8), 1).astype(int)
        for how in external.CORRUPTIONS
    }
    assert np.abs(np.diff(after["blur"], axis=0)).mean() < np.abs(np.diff(before, axis=0)).mean()
    assert 0 < np.abs(after["JPEG quality 30"] - before).mean() < 10
    np.testing.assert_allclose(after["brightness 60 %"], 0.6 * before, atol=1)
    hairs = (after["hair"] - before).min(axis=2)
    assert hairs.max() <= 0 and 0.001 < (hairs < -20).mean() < 0.3
    corners, middle = after["black corners"], (before.shape[0] // 2, before.shape[1] // 2)
    assert corners[[0, -1]][:, [0, -1]].max() == 0
    assert (corners[middle] == before[middle]).all()


LAYOUTS = {
    "ISIC 2018": ("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,0.0,0.0,1.0,0.0,0.0,0.0,0.0\n",
                  {"image_name": "ISIC_1", "diagnosis": "bcc"}),
    "ISIC 2017": ("image_id,melanoma,seborrheic_keratosis\nISIC_2,0.0,1.0\n",
                  {"image_name": "ISIC_2", "diagnosis": "bkl"}),
    "ISIC 2019": ("image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK,score_weight,validation_weight\n"
                  "ISIC_3,0,0,0,0,0,0,0,1,0,1,0\n", {"diagnosis": "scc"}),
    "ISIC Archive": ("isic_id,attribution,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,"
                     "diagnosis_3,lesion_id,patient_id,sex\nISIC_4,A,55,posterior torso,Benign,"
                     "Benign soft tissue proliferations - Vascular,,IL_1,IP_1,female\n",
                     {"diagnosis": "vasc", "age_approx": 55, "site": "torso", "sex": "female"}),
    "PAD-UFES-20": ("patient_id,lesion_id,age,gender,region,diagnostic,img_id\n"
                    "PAT_46,881,55,FEMALE,FOREARM,ACK,PAT_46_881_14.png\n",
                    {"image_name": "PAT_46_881_14", "diagnosis": "akiec", "lesion_id": "881",
                     "site": "upper extremity", "sex": "female", "localization": "forearm"}),
    "ISIC 2024": ("isic_id,target,patient_id,age_approx,sex,anatom_site_general,lesion_id\n"
                  "ISIC_0015670,1,IP_1,60.0,male,lower extremity,\n",
                  {"target": 1, "diagnosis": "", "site": "lower extremity", "lesion_id": ""}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_read_as_downloaded(layout, tmp_path):
    text, expected = LAYOUTS[layout]
    (tmp_path / "labels.csv").write_text(text)
    (row,) = read_labels([tmp_path / "labels.csv"], {}, Report(strict=True)).to_dict("records")
    assert {name: row[name] for name in expected} == expected


def test_age_and_sex_may_stand_in_a_second_file(tmp_path):
    (tmp_path / "truth.csv").write_text(LAYOUTS["ISIC 2017"][0])
    (tmp_path / "more.csv").write_text("image_id,age_approximate,sex\nISIC_2,30,male\n")
    paths = [tmp_path / "truth.csv", tmp_path / "more.csv"]
    (row,) = read_labels(paths, {}, Report(strict=True)).to_dict("records")
    assert (row["age_approx"], row["sex"], row["diagnosis"]) == (30, "male", "bkl")


def test_photographs_are_read_from_hdf5(tmp_path, monkeypatch):
    (tmp_path / "train-metadata.csv").write_text(LAYOUTS["ISIC 2024"][0])
    rows = read_labels([tmp_path / "train-metadata.csv"], {}, Report(strict=True))
    place = tmp_path / "train-image.hdf5"
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="pip install h5py"):
        open_photos(place, rows, Report(strict=True))
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    held = {"ISIC_0015670": np.array(np.void(jpeg))}
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=lambda path, mode: held))
    found, read = open_photos(place, rows, Report(strict=True))
    assert [read(path) for path in found["path"]] == [jpeg]
