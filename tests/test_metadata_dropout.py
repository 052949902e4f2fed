"""Metadata that are not given: what training blanks, and what a run answers without them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from calibrate import main as calibrate
from conftest import tiny_run
from predict import main as predict
from prepare import main as prepare
from train import main as train

from lesions.config import DataConfig
from lesions.data.cache import cached_images
from lesions.data.loading import LesionDataset, build_loader
from lesions.data.metadata import COLUMNS, build_blanks, encode_given, encode_metadata
from lesions.data.patients import Patient
from lesions.data.sample import write_sample
from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.files import read_json, write_json
from lesions.inference import Predictor
from lesions.inference.checkpoint import load_model
from lesions.inference.wording import sentence
from lesions.paths import CODE, at
from lesions.serving.service import example

NEUTRAL = {"log_images_per_patient": 1.0, "log_bytes": 12.0, "rows_of_back": 3.0}
PERSON = {"sex": "male", "age_approx": 45.0, "site": "torso", "localization": "back",
          "images_per_patient": 9.0, "bytes": 5e4}  # fmt: skip


def people(rows: int, kind: str, share: float, seed: int = 1) -> LesionDataset:
    """So many photographs of one person, whose metadata are blanked as in training."""
    table = pd.DataFrame([PERSON] * rows)
    images, target = np.zeros((rows, 4, 4, 3), np.uint8), np.zeros(rows, np.float32)
    dataset = LesionDataset(images, encode_metadata(table, kind, NEUTRAL), target, seed=seed)
    dataset.blanks = build_blanks(DataConfig(metadata=kind, metadata_dropout=share), NEUTRAL)
    return dataset


@pytest.mark.parametrize("kind", ["clinical", "full", "ham10000"])
def test_each_field_and_the_whole_row_are_blanked_as_often_as_the_config_says(kind):
    dataset = people(4000, kind, 0.2)
    known = dataset.metadata[0]
    nobody = {name: "" if isinstance(told, str) else np.nan for name, told in PERSON.items()}
    blank = encode_metadata(pd.DataFrame([nobody]), kind, NEUTRAL)[0]
    found = dataset.__getitems__([(0, row) for row in range(4000)])["metadata"].numpy()
    assert ((found == known) | (found == blank)).all() and (dataset.metadata == known).all()
    changed = known != blank
    for name, column in zip(COLUMNS[kind], found.T, strict=True):
        place = COLUMNS[kind].index(name)
        if changed[place]:
            assert (column == blank[place]).mean() == pytest.approx(0.2 + 0.8 * 0.15, abs=0.03)
    fields = 5 if kind == "full" else 3
    nothing = (found == blank).all(axis=1).mean()
    assert nothing == pytest.approx(0.2 + 0.8 * 0.15**fields, abs=0.03)


def test_what_is_blanked_depends_on_seed_epoch_and_row_alone():
    dataset = people(60, "clinical", 0.5)
    items = [(3, row) for row in range(60)]
    whole = dataset.__getitems__(items)["metadata"]
    single = torch.stack([torch.from_numpy(dataset[item]["metadata"]) for item in reversed(items)])
    assert torch.equal(single.flip(0), whole)
    loader = build_loader(dataset, [items[:30], items[30:]], workers=2)
    assert torch.equal(torch.cat([batch["metadata"] for batch in loader]), whole)
    others = [people(60, "clinical", 0.5, 2).__getitems__(items),
              dataset.__getitems__([(4, row) for row in range(60)]),
              dataset.__getitems__([(3, row, 1) for row in range(60)])]  # fmt: skip
    assert not any(torch.equal(other["metadata"], whole) for other in others)
    never = people(60, "clinical", 0)
    assert torch.equal(never.__getitems__(items)["metadata"], torch.from_numpy(never.metadata))


def test_training_predicts_its_held_out_rows_without_some_and_without_all_metadata(trained):
    for fold in range(3):
        known = pd.read_csv(trained / f"fold{fold}.csv").set_index("image_name")
        found = pd.read_csv(trained / f"given{fold}.csv")
        assert list(found) == ["image_name", "given", "prob"]
        assert found["given"].unique().tolist() == ["age and sex", "nothing"]
        for _, rows in found.groupby("given"):
            assert rows["image_name"].tolist() == known.index.tolist()
            assert not np.allclose(rows["prob"], known["prob"], atol=1e-6)


def scores_of(predictor: Predictor, photo: bytes, people: list[Patient]) -> list[float]:
    return [told.score for told in predictor.predict_many([photo] * len(people), people)]


def test_a_run_without_dropout_averages_over_people_or_refuses(demo, tmp_path, capsys):
    train([*tiny_run("undropped", "data.metadata_dropout=0"), "--fold", "0"])
    calibrate(["--run", "undropped", "--rows", "20"])
    assert "the other groups of rows (one fold alone" in capsys.readouterr().out
    photo, folder = example(0), at("oof/undropped")
    stored = read_json(folder / "calibration.json")
    assert len(stored["people"]) > 20 and list(stored["given"]) == ["age and sex", "nothing"]
    predictor = Predictor.load("undropped", folds=[0])
    everybody = [Patient(each["age_approx"], each["sex"], each["site"])
                 for each in stored["people"]]  # fmt: skip
    scores = scores_of(predictor, photo, everybody)
    told = predictor.predict(photo)
    assert told.score == pytest.approx(np.mean(scores), abs=1e-6)
    assert told.threshold == stored["given"]["nothing"]["threshold"]["value"]
    ours = scores_of(predictor, photo, [replace(p, age=60.0, sex="male") for p in everybody])
    assert predictor.predict(photo, Patient(60, "male")).score == pytest.approx(np.mean(ours), 1e-5)
    older = {key: value for key, value in stored.items() if key not in ("people", "given")}
    write_json(folder / "calibration.json", older)
    predictor = Predictor.load("undropped")
    assert predictor.predict(photo, Patient(60, "male", "torso")).positive is not None
    for person in (None, Patient(60, "male")):
        cure = r"give all three, or run python scripts/calibrate\.py"
        with pytest.raises(InputError, match=cure):
            predictor.predict(photo, person)
    alone, refused = predictor.predict_many([photo] * 2, [Patient(60, "male", "torso"), Patient()])
    assert alone == predictor.predict(photo, Patient(60, "male", "torso"))
    assert isinstance(refused, InputError)
    whole = (folder / "given0.csv").read_bytes()
    (folder / "given0.csv").write_bytes(whole.replace(b"0.", b"0.0"))  # not what fold0.json knows
    calibrate(["--run", "undropped", "--rows", "20"])
    assert (folder / "given0.csv").read_bytes() == whole
    assert Predictor.load("undropped", folds=[0]).predict(photo).score == pytest.approx(told.score)
    assert read_json(folder / "calibration.json")["given"].keys() == stored["given"].keys()


def test_the_answer_says_what_was_not_given_and_takes_the_threshold_of_it(trained):
    predictor, stored = Predictor.load("tiny"), read_json(trained / "calibration.json")
    for patient, given, said in (
        (Patient(60, "male", "torso"), "all", ""),
        (Patient(60, "male"), "age and sex", "Site was not given"),
        (Patient(60), "nothing", "Sex and site were not given"),
        (Patient(sex="male", site="torso"), "nothing", "Age was not given"),
        (Patient(), "nothing", "Age, sex and site were not given"),
    ):
        told = predictor.predict(example(0), patient)
        fit = stored if given == "all" else stored["given"][given]
        assert (told.given, told.threshold) == (given, fit["threshold"]["value"])
        assert told.not_given.startswith(said) and bool(told.not_given) == bool(said)
        assert told.not_given in sentence(predictor, told)


def test_a_folder_of_different_people_is_predicted_with_a_csv(trained, tmp_path, capsys):
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(example(number))
    people, out = tmp_path / "people.csv", tmp_path / "told.csv"
    command = ["--run", "tiny", "--images", str(tmp_path / "photos"), "--out", str(out)]
    people.write_text("image_name,age,sex,site\na,55,F,back\nb.jpg,,male,\n")
    assert predict([*command, "--metadata", str(people)]) == 0
    told = pd.read_csv(out, keep_default_na=False).set_index("image")
    patients = (Patient(55, "female", "torso"), Patient(sex="male"), Patient())
    for (_, row), number, patient in zip(told.iterrows(), range(3), patients, strict=True):
        expected = Predictor.load("tiny").predict(example(number), patient)
        assert row["prob"] == pytest.approx(expected.score, abs=1e-6)
        assert row["not_given"] == expected.not_given
    assert "b.jpg: Age and site were not given" in capsys.readouterr().out
    for row, why in (
        ("d,55,F,back", r"image_name d: no such photograph"),
        ("a,old,F,back", "image_name a: age 'old'"),
        ("a,55,F,moon", "image_name a: site 'moon'"),
        ("a,55,F,back\na.jpg,55,F,back", "a second row"),
    ):
        people.write_text(f"image_name,age,sex,site\n{row}\n")
        with pytest.raises(InputError, match=why):
            predict([*command, "--metadata", str(people)])
    with pytest.raises(SystemExit):
        predict([*command, "--metadata", str(people), "--age", "50"])


def hide_benign(folder: Path) -> None:
    """Blank age, sex and site of a sixth of the sample's benign photographs, of no melanoma."""
    of_2019 = pd.read_csv(next(folder.rglob("ISIC_2019_Training_GroundTruth.csv")))
    benign = {f"{name}" for name in of_2019.loc[of_2019["MEL"] == 0, "image"]}
    tables = [*folder.rglob("train.csv"), *folder.rglob("*GroundTruth_v2.csv")]
    for path in [*tables, *folder.rglob("ISIC_2019_Training_Metadata.csv")]:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        known = table["target"] == "0" if "target" in table else table["image"].isin(benign)
        of_person = table.columns[table.columns.str.contains("sex|age_approx|anatom")]
        table.loc[known & (table.index % 6 == 0), of_person] = ""
        table.to_csv(path, index=False)


def test_sensitivity_without_metadata_stays_where_unknown_means_benign(root):
    write_sample(at("input/sample"), images=120)
    hide_benign(at("input/sample"))
    prepare(["--dataset", "demo", "--size", "32"])
    table, _ = load_table("demo")
    images, table = cached_images("demo", 32, table), table[table["split"] == "train"]
    pixels = images[table.index.to_numpy()]
    positive, kept = table["target"] == 1, {}
    for share in (0.0, 0.2):
        changes = ["train.epochs=7", "train.micro_batch=16", f"data.metadata_dropout={share}"]
        train(["--config", str(CODE / "configs/demo/resnet10t.yaml"), "--name", f"share {share}",
               *tiny_run("", *changes)[4:], "--fold", "0"])  # fmt: skip
        model, header = load_model(at("oof", f"share {share}", "fold0.safetensors"))
        scores = {}
        for given, metadata in encode_given(table, "clinical", header["neutral"]).items():
            with torch.no_grad():
                logits = model(torch.from_numpy(pixels), torch.from_numpy(metadata))
            scores[given] = logits[:, 0].numpy()
        threshold = np.quantile(scores["all"][positive], 0.1)
        kept[share] = (scores["nothing"][positive] >= threshold).mean()
    assert kept[0.0] < 0.4 and kept[0.2] > kept[0.0] + 0.3, kept
