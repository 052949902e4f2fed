"""Single photographs through a trained run: the same numbers as in training, and what is beside."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from predict import main as predict

from lesions.config import Config, PredictConfig, PreprocessConfig
from lesions.data.decode import UnreadableImage, decode
from lesions.data.images import load_images
from lesions.data.loading import LesionDataset
from lesions.data.metadata import encode_metadata
from lesions.data.table import load_table
from lesions.errors import InputError
from lesions.files import read_json, write_json
from lesions.inference import Predictor
from lesions.inference.calibrate import calibrate_scores
from lesions.inference.checkpoint import load_model, save_model
from lesions.inference.ensemble import Mix
from lesions.inference.predict import predict as predict_rows
from lesions.inference.predictor import Patient
from lesions.inference.scaling import fit_scaling, scaled
from lesions.inference.unusual import fit_typical
from lesions.models.classifier import LesionClassifier
from lesions.paths import CODE, at
from lesions.serving.service import example

GOLDEN = {
    "squash": "74dbd666f67e604a",
    "pad": "01a0b2cb6c263e10",
    "weights": "557d4c45d24b6fed",
    "prob": 0.7148387134075165,
}


def drawn_png() -> bytes:
    """A picture by formula, stored without loss: 90 x 60, brown in the middle."""
    y, x = np.mgrid[:60, :90]
    near = np.hypot(x - 45, y - 30) < 18 + 4 * np.sin(x / 5)
    pixels = np.stack([200 - 110 * near + x // 9, 150 - 90 * near + y // 6, 130 - 80 * near], 2)
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def formula_run(folder: Path, classes: tuple[str, ...] = (), **data: str) -> Path:
    """A run of one fold whose weights are sines, whatever torch's random numbers are."""
    config = Config.model_validate(
        {
            "dataset": "demo",
            "data": {"image_size": 32, "metadata": "clinical", **data},
            "model": {"backbone": "mobilenetv3_small_050", "pretrained": False},
            "loss": {"kind": "cross_entropy" if classes else "bce"},
        }
    )
    model = LesionClassifier(config.model, columns=9, outputs=max(1, len(classes)), weights=False)
    weights = {}
    for name, tensor in model.state_dict().items():
        size = max(1, tensor[0].numel()) if tensor.ndim > 1 else 25
        values = np.sin(np.arange(tensor.numel()) * 0.7 + len(name)) * 2 / size**0.5
        values += float(name.endswith(("running_var", "weight")) and tensor.ndim == 1)
        weights[name] = torch.from_numpy(values).reshape(tensor.shape).to(tensor.dtype)
    header = {
        "run": folder.name, "fold": 0, "task": data.get("task", "melanoma"), "table_hash": "",
        "classes": list(classes), "config": config.model_dump(), "versions": {}, "fold_hash": "",
        "neutral": {"log_images_per_patient": 1.0, "log_bytes": 12.0},
    }  # fmt: skip
    save_model(folder / "fold0.safetensors", weights, header)
    return folder


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def test_golden_pixels_weights_and_probability(tmp_path: Path) -> None:
    photo = drawn_png()
    for fit in ("squash", "pad"):
        pixels, size = decode(photo, 32, PreprocessConfig(fit=fit))
        assert digest(pixels.tobytes()) == GOLDEN[fit] and size == (90, 60)
    predictor = Predictor.load(formula_run(tmp_path / "golden"))
    state = predictor.runs[0].folds[0].model.state_dict()
    assert (
        digest(b"".join(state[key].numpy().tobytes() for key in sorted(state)))
        == (GOLDEN["weights"])
    )
    told = predictor.predict(photo, Patient.parse(55, "female", "torso"))
    # float32 on another processor may differ in its own last digit, the seventh.
    assert told.probs["melanoma"] == pytest.approx(GOLDEN["prob"], rel=2e-6)


@pytest.fixture
def float32(trained: Path) -> Iterator[Accelerator]:
    """An accelerator in float32; accelerate keeps one precision a process."""
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(True)


def test_a_photograph_gets_what_its_row_got_in_training(
    trained: Path, float32: Accelerator
) -> None:
    table, _ = load_table("demo")
    row = int(np.flatnonzero(table["fold"] == 1)[4])
    path, item = Path(table["path"][row]), table.iloc[[row]]
    model, header = load_model(trained / "fold1.safetensors")
    config = Config.model_validate(header["config"])
    images = load_images(trained.parents[1] / "input/prepared/demo/32", table, "")
    assert np.array_equal(decode(path, 32)[0], images[row])
    metadata = encode_metadata(table, config.data.metadata, header["neutral"])
    dataset = LesionDataset(images, metadata, table["target"].to_numpy(np.float32))
    expected = predict_rows(
        model, dataset, np.array([row]), PredictConfig(), float32, views=4, title=""
    )
    who = Patient.parse(
        None if item["age_approx"].isna().any() else float(item["age_approx"].iloc[0]),
        item["sex"].iloc[0], item["site"].iloc[0],
    )  # fmt: skip
    for photo in (path, path.read_bytes()):
        told = Predictor.load(trained, folds=[1]).predict(photo, who)
        assert told.score == pytest.approx(expected[0], abs=1e-6)


def test_all_folds_are_the_mean_of_the_folds(trained: Path) -> None:
    photo = example(1)
    alone = [Predictor.load(trained / f"fold{k}.safetensors").predict(photo) for k in range(3)]
    told = Predictor.load("tiny").predict(photo)
    assert told.score == pytest.approx(np.mean([each.score for each in alone]))
    assert list(told.by_fold.values()) == pytest.approx([each.score for each in alone])
    assert told.spread > 0 and told.dropout_spread
    assert Predictor.load("tiny").predict(photo) == told  # dropout's masks are the same again


def test_a_blend_weighs_its_runs(trained: Path, calibrated: Path, tmp_path: Path) -> None:
    blend = {"members": ["tiny", "calibrated"], "scale": "prob", "power": 1.0,
             "weights": {"tiny": 1.0, "calibrated": 0.0}}  # fmt: skip
    write_json(tmp_path / "blend.json", blend)
    photo = example(0)
    score = Predictor.load("tiny").predict(photo).score
    assert Predictor.load(tmp_path / "blend.json").predict(photo).score == pytest.approx(score)
    write_json(tmp_path / "blend.json", blend | {"scale": "rank"})
    with pytest.raises(InputError, match=r"ranks(.|\n)*scripts/calibrate\.py --run tiny"):
        Predictor.load(tmp_path / "blend.json")
    ranked = blend | {"scale": "rank", "members": ["calibrated"], "weights": {"calibrated": 1.0}}
    write_json(tmp_path / "blend.json", ranked)
    assert 0 <= Predictor.load(tmp_path / "blend.json").predict(photo).score <= 1
    mix = Mix("", (0.25, 0.75), "logit", 1.0, None, "")
    runs = Predictor.load("tiny").runs * 2
    odds = mix.blended([np.array([0.5]), np.array([0.9])], runs)
    assert odds[0] == pytest.approx(1 / (1 + 9**-0.75))


def test_metadata_may_be_missing_and_must_be_understood(trained: Path) -> None:
    predictor, photo = Predictor.load("tiny"), example(1)
    assert predictor.predict(photo).score != predictor.predict(photo, Patient(80, "male")).score
    assert Patient.parse(sex="F", site="Back") == Patient(None, "female", "torso", "back")
    for wrong in ({"age": -1}, {"age": float("nan")}, {"sex": "x"}, {"site": "moon"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Patient.parse(**wrong)


def test_many_classes_have_probabilities_that_sum_to_one(tmp_path: Path) -> None:
    classes = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    predictor = Predictor.load(formula_run(tmp_path / "seven", classes, task="diagnosis7"))
    told = predictor.predict(drawn_png())
    assert list(told.probs) == list(classes) and sum(told.probs.values()) == pytest.approx(1)
    assert told.score == pytest.approx(told.probs["akiec"] + told.probs["bcc"] + told.probs["mel"])
    assert predictor.explain(drawn_png(), None, told).shape == (299, 448, 3)
    draw = np.random.default_rng(0)
    probs = draw.dirichlet(np.ones(7), 400)
    codes = np.array([draw.choice(7, p=p) for p in probs])
    found = calibrate_scores("r", "diagnosis7", list(classes), codes, probs, codes % 3, "youden")
    assert len(found.shifts) == 7 and found.positives == np.isin(codes, [0, 1, 4]).sum()


def test_corrected_probabilities_are_those_that_come_true() -> None:
    draw = np.random.default_rng(0)
    truth = draw.beta(1, 6, 20_000)
    target = (draw.random(20_000) < truth).astype(int)
    odds = truth / (1 - truth)
    distorted = (9 * odds**1.5 / (1 + 9 * odds**1.5))[:, None]  # too sure, and too high
    temperature, shifts = fit_scaling(target, distorted)
    assert temperature == pytest.approx(1.5, rel=0.1)
    corrected = scaled(distorted, temperature, shifts)[:, 0]
    assert np.abs(corrected - truth).mean() < 0.01 < np.abs(distorted[:, 0] - truth).mean()
    assert (np.diff(corrected[np.argsort(truth)]) >= 0).all()
    found = calibrate_scores(
        "r", "melanoma", [], target, distorted, np.arange(20_000) % 5, "recall"
    )
    assert found.calibration_error[1] < 0.02 < found.calibration_error[0]
    assert found.threshold.sensitivity == pytest.approx(0.9, abs=0.02)


def test_a_calibrated_run_decides_and_ranks(calibrated: Path) -> None:
    predictor = Predictor.load("calibrated")
    known = read_json(calibrated / "calibration.json")
    told = predictor.predict(example(0))
    assert predictor.missing == []
    assert told.positive == (told.score >= known["threshold"]["value"])
    below = np.mean(np.asarray(known["quantiles"]) < told.score)
    assert told.percentile == pytest.approx(100 * below, abs=1)
    odds = told.score / (1 - told.score)
    expected = odds ** (1 / known["temperature"]) * np.exp(known["shifts"][1])
    assert told.calibrated == {"melanoma": pytest.approx(expected / (1 + expected))}
    assert 0 <= known["false_alarms"]["any"] <= 0.3


def test_without_its_calibration_a_run_says_what_is_missing(
    trained: Path, calibrated: Path
) -> None:
    predictor = Predictor.load("tiny")
    told = predictor.predict(example(0))
    assert (told.calibrated, told.positive, told.percentile, told.unusual) == (None, None, None, [])
    assert "python scripts/calibrate.py --run tiny" in predictor.missing[0]
    other = at("oof") / "other weights"
    shutil.copytree(calibrated, other)
    known = read_json(other / "calibration.json")
    known["weights"]["fold1.safetensors"] = "0" * 64
    write_json(other / "calibration.json", known)
    problem = Predictor.load("other weights").missing[0]
    assert "other weights than fold1.safetensors" in problem
    write_json(other / "calibration.json", known | {"temperature": "warm"})
    with pytest.raises(InputError, match=r"calibration\.json: temperature"):
        Predictor.load("other weights")
    shutil.copy(other / "fold1.safetensors", other / "fold0.safetensors")
    with pytest.raises(InputError, match=r"fold0\.safetensors: holds fold 1"):
        Predictor.load("other weights")


def test_what_is_no_lesion_is_called_unusual(calibrated: Path) -> None:
    predictor = Predictor.load("calibrated")
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for pixels in (noise, np.full((300, 400, 3), 255, np.uint8)):
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        assert any("colours" in why for why in predictor.predict(file.getvalue()).unusual)
    assert any("small" in why for why in predictor.predict(drawn_png()).unusual)
    typical = fit_typical(np.random.default_rng(0).normal(5, 2, (500, 6)))
    assert typical.distance(np.array([[5.0] * 6, [11.0] * 6])) == pytest.approx([0, 9], abs=1.5)


def test_training_like_photographs_are_mostly_not_called_unusual(calibrated: Path) -> None:
    table, _ = load_table("demo")
    predictor = Predictor.load("calibrated", folds=[0])
    paths = table.loc[table["fold"] == 0, "path"].iloc[:20]
    called = [bool(predictor.predict(Path(path)).unusual) for path in paths]
    assert np.mean(called) <= 0.4


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "fold0.safetensors").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "fold0.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="damaged, or no safetensors file"):
        Predictor.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no fold<k>.safetensors"):
        Predictor.load(tmp_path)
    with pytest.raises(UnreadableImage, match="not an image"):
        Predictor.load(formula_run(tmp_path / "x")).predict(b"no picture")


def test_the_run_folder_alone_predicts_photographs(calibrated: Path, tmp_path: Path) -> None:
    shutil.copytree(calibrated, tmp_path / "given away")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(example(0))
    (photos / "b.png").write_bytes(drawn_png()[:200])
    (photos / "notes.txt").write_text("no photograph")
    environment = os.environ | {"LESIONS_ROOT": str(tmp_path / "empty")}
    done = subprocess.run(
        [sys.executable, str(CODE / "scripts/predict.py"), "--run", "given away",
         "--images", "photos", "--age", "55", "--sex", "female", "--out", "told.csv"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "not read: 1 of 2: photos/b.png" in done.stderr, done.stderr
    table = pd.read_csv(tmp_path / "told.csv")
    assert table["image"].tolist() == ["photos/a.jpg", "photos/b.png"]
    assert table["calibrated"].notna().tolist() == [True, False]
    told = Predictor.load(calibrated).predict(example(0), Patient.parse(55, "female"))
    assert table["prob"][0] == pytest.approx(told.score, abs=1e-6)
    assert "a.jpg" in done.stdout and "not a medical device" in done.stdout


def test_answers_are_written_as_json_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(example(1))
    photo = str(tmp_path / "a.jpg")
    assert predict(["--run", "tiny", "--images", photo, "--out", str(tmp_path / "o.json")]) == 0
    (told,) = json.loads((tmp_path / "o.json").read_text())
    assert told["image"] == photo and told["calibrated"] is None and len(told["by_fold"]) == 3
    assert "note: oof/tiny/calibration.json is missing" in capsys.readouterr().out
    predict(["--run", "tiny", "--images", photo])
    assert (at("submissions") / "tiny_images.csv").exists()
    for wrong, why in ((["nowhere.jpg"], "no such file"), ([photo, "--out", "x.txt"], r"a \.csv")):
        with pytest.raises(InputError, match=why):
            predict(["--run", "tiny", "--images", *wrong])


def test_the_config_written_beside_a_run_is_not_needed(trained: Path) -> None:
    assert yaml.safe_load((trained / "config.yaml").read_text())["dataset"] == "demo"
    other = at("oof") / "bare"
    other.mkdir()
    shutil.copy(trained / "fold0.safetensors", other)
    assert Predictor.load("bare").predict(example(1)).percentile is None
