"""Single photographs through a trained run: the same numbers as in training, and what is beside."""

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from calibrate import main as calibrate
from conftest import tiny_run
from formula import CLASSES, formula_run
from PIL import Image
from predict import main as predict
from prepare import main as prepare
from report import main as report
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from train import main as train

from lesions.config import PreprocessConfig
from lesions.data.decode import UnreadableImage, decode
from lesions.data.patients import Patient, find_photos
from lesions.data.sample import write_sample
from lesions.data.table import load_table
from lesions.data.tasks import Task
from lesions.errors import InputError
from lesions.evaluation.thresholds import Threshold, by_recall
from lesions.files import read_json, write_json
from lesions.inference import Predictor
from lesions.inference.calibration import cross_fit, fit_calibration
from lesions.inference.ensemble import blended
from lesions.inference.unusual import fit_typical
from lesions.oof import Oof, load_oof
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


def oof_of(target: np.ndarray, probs: np.ndarray, classes: tuple[str, ...]) -> Oof:
    """Out-of-fold predictions made up: five folds in turn, every row a group."""
    rows = np.arange(len(target))
    names = rows.astype(str)
    table = pd.DataFrame({"image_name": names, "fold": rows % 5, "group": names, "source": "a"})
    return Oof("made-up", Task("malignant", classes), table, probs, target, [], "")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def test_golden_pixels_weights_and_probability_of_an_older_version(demo, tmp_path):
    photo = drawn_png()
    for fit in ("squash", "pad"):
        pixels, size = decode(photo, 32, PreprocessConfig(fit=fit))
        assert digest(pixels.tobytes()) == GOLDEN[fit] and size == (90, 60)
    predictor = Predictor.load(formula_run(tmp_path / "golden"))
    state = predictor.runs[0].folds[0].model.state_dict()
    weights = b"".join(state[key].numpy().tobytes() for key in sorted(state))
    assert digest(weights) == GOLDEN["weights"]
    told = predictor.predict(photo, Patient(55, "female", "torso"))
    # float32 on another processor may differ in its own last digit, the seventh.
    assert told.probs["melanoma"] == pytest.approx(GOLDEN["prob"], rel=2e-6)
    # Its header does not say which preprocessing it was trained with: that is said once.
    doubts = [text for text in predictor.missing if "preprocessed" in text]
    assert len(doubts) == 1 and "prepared/demo/table.json is taken" in doubts[0]


@pytest.fixture
def bare(trained: Path) -> Iterator[Path]:
    """oof/bare: the tiny run without its calibration.json."""
    folder = shutil.copytree(trained, at("oof/bare"))
    (folder / "calibration.json").unlink()
    yield folder
    shutil.rmtree(folder)


def test_a_photograph_gets_what_the_row_of_its_person_gets(trained):
    predict(["--run", "tiny", "--folds", "1", "--set", "train.precision=fp32"])
    expected = pd.read_csv(at("submissions/tiny.csv"))["target"]
    table, _ = load_table("demo")
    test = table[table["split"] == "test"]
    known = test[["age_approx", "sex", "site"]].astype(object)
    people = [Patient(*person) for person in known.where(known.notna(), None).to_numpy()]
    found = Predictor.load("tiny", folds=[1]).predict_many(list(map(Path, test["path"])), people)
    assert [told.score for told in found] == pytest.approx(expected.tolist(), abs=1e-6)


def test_all_folds_are_the_mean_of_the_folds(trained):
    photo = example(1)
    alone = [Predictor.load(trained / f"fold{k}.safetensors").predict(photo) for k in range(3)]
    told = Predictor.load("tiny").predict(photo)
    assert told.score == pytest.approx(np.mean([each.score for each in alone]))
    assert list(told.by_fold.values()) == pytest.approx([each.score for each in alone])
    assert told.spread > 0 and told.dropout_spread
    assert Predictor.load("tiny").predict(photo) == told  # dropout's masks are the same again


def test_a_folder_gets_what_each_photograph_gets_alone_and_a_broken_one_its_reason(calibrated):
    predictor = Predictor.load("calibrated")
    photos = [example(0), b"no picture", *[example(number % 3) for number in range(18)]]
    patients = [Patient(10 + 4 * number, "male") for number in range(20)]
    found = list(predictor.predict_many(photos, patients))
    assert isinstance(found[1], UnreadableImage) and len(found) == 20
    for place in (0, 2, 15, 16, 19):
        alone = predictor.predict(photos[place], patients[place]).model_dump()
        together = found[place].model_dump()
        for number in ("score", "spread", "dropout_spread"):
            assert together.pop(number) == pytest.approx(alone.pop(number), abs=1e-5)
        for numbers in ("probs", "calibrated", "by_fold"):
            assert together.pop(numbers) == pytest.approx(alone.pop(numbers), abs=1e-5)
        assert together == alone


def test_a_photograph_is_a_file_its_content_or_a_picture(calibrated, tmp_path):
    predictor, path = Predictor.load("calibrated"), tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(BytesIO(drawn_png()))
    picture.save(path, exif=exif)
    turned = np.rot90(np.asarray(picture), -1)
    known = predictor.predict(path)
    for photo in (str(path), path.read_bytes(), Image.open(path), turned):
        assert predictor.predict(photo) == known
        assert predictor.explain(photo, None, known).shape == (448, 299, 3)
    grey = picture.convert("L")
    assert predictor.predict(np.asarray(grey)) == predictor.predict(grey)
    for wrong in (turned / 255, turned[..., :2], turned.T):
        with pytest.raises(UnreadableImage, match="give uint8"):
            predictor.predict(wrong)
    told = "calibrated: melanoma, mobilenetv3_small_050 at 32 pixels, 3 folds"
    assert repr(predictor) == f"Predictor({told})"


def test_the_example_of_the_docs_page_runs_from_any_folder(tmp_path, monkeypatch, capsys):
    if not list(CODE.glob("models/*/fold*.safetensors")):
        pytest.skip("no model comes with this checkout")
    page = (CODE / "docs/python.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes((CODE / "models/examples/ISIC_0000004.jpg").read_bytes())
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, {})
    assert "threshold" in capsys.readouterr().out
    assert Image.open(tmp_path / "overlay.png").size == (448, 336)


def test_a_blend_weighs_its_runs(trained, bare, tmp_path):
    blend = {"members": ["tiny", "bare"], "scale": "prob", "weights": {"tiny": 1.0, "bare": 0.0}}
    write_json(tmp_path / "blend.json", blend)
    photo = example(0)
    score = Predictor.load("tiny").predict(photo).score
    assert Predictor.load(tmp_path / "blend.json").predict(photo).score == pytest.approx(score)
    halves = blend | {"scale": "rank", "weights": {"tiny": 0.5, "bare": 0.5}}
    write_json(tmp_path / "blend.json", halves)
    with pytest.raises(InputError, match=r"ranks(.|\n)*scripts/calibrate\.py --run oof/bare"):
        Predictor.load(tmp_path / "blend.json")
    shutil.copy(trained / "calibration.json", bare)
    assert 0 <= Predictor.load(tmp_path / "blend.json").predict(photo).score <= 1
    for wrong in (float("nan"), 8.5, -0.5):
        text = json.dumps(blend | {"weights": {"tiny": 0.5, "bare": wrong}})
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(InputError, match="not shares of its members that sum to 1"):
            Predictor.load(tmp_path / "wrong.json")
    odds = blended("logit", (0.25, 0.75), [np.array([0.5]), np.array([0.9])], [])
    assert odds[0] == pytest.approx(1 / (1 + 9**-0.75))


def test_many_classes_have_probabilities_that_sum_to_one_in_a_blend_too(trained, tmp_path):
    for name in ("one", "two"):
        formula_run(at("oof/classes", name), CLASSES, task="diagnosis7")
    for other in ("classes/two", "tiny"):
        weights = {"classes/one": 0.5, other: 0.5}
        blend = {"members": list(weights), "weights": weights, "scale": "logit"}
        write_json(tmp_path / f"{Path(other).name}.json", blend)
    for given in (tmp_path / "two.json", "classes/one"):
        predictor = Predictor.load(given)
        told = predictor.predict(drawn_png())
        assert list(told.probs) == list(CLASSES) and sum(told.probs.values()) == pytest.approx(1)
        malignant = sum(told.probs[name] for name in ("akiec", "bcc", "mel"))
        assert told.score == pytest.approx(malignant)
        assert predictor.explain(drawn_png(), None, told).shape == (299, 448, 3)
    with pytest.raises(InputError, match="different questions"):
        Predictor.load(tmp_path / "tiny.json")
    draw = np.random.default_rng(0)
    probs = draw.dirichlet(np.ones(7), 400)
    codes = np.array([draw.choice(7, p=p) for p in probs])
    found = fit_calibration(oof_of(codes, probs, CLASSES), "youden")
    assert len(found.shifts) == 7 and found.positives == np.isin(codes, [0, 1, 4]).sum()
    assert found.apply(probs).sum(axis=1) == pytest.approx(np.ones(400))


def test_corrected_probabilities_are_those_that_come_true():
    draw = np.random.default_rng(0)
    truth = draw.beta(1, 6, 20_000)
    target = (draw.random(20_000) < truth).astype(int)
    odds = truth / (1 - truth)
    distorted = (9 * odds**1.5 / (1 + 9 * odds**1.5))[:, None]  # too sure, and too high
    oof = oof_of(target, distorted, ("malignant",))
    found = fit_calibration(oof, "recall")
    assert found.temperature == pytest.approx(1.5, rel=0.1)
    platt = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(distorted), target)
    assert 1 / found.temperature == pytest.approx(platt.coef_[0, 0], rel=0.01)
    assert np.diff(found.shifts)[0] == pytest.approx(platt.intercept_[0], abs=0.01)
    corrected = found.apply(distorted)[:, 0]
    assert np.abs(corrected - truth).mean() < 0.01 < np.abs(distorted[:, 0] - truth).mean()
    assert (np.diff(corrected[np.argsort(truth)]) >= 0).all()
    none, next_to_none, sure = found.apply(np.array([[0.0], [1e-12], [1.0]]))[:, 0]
    assert 0 <= none <= next_to_none < 0.001 and 0.999 < sure <= 1
    assert found.calibration_error[1] < 0.02 < found.calibration_error[0]
    assert found.threshold.sensitivity == pytest.approx(0.9, abs=0.02)
    assert found.cross_fitted == "fold"
    one_fold = replace(oof, table=oof.table.assign(fold=0, group=np.arange(20_000) // 2))
    alone = fit_calibration(one_fold, "recall")
    assert alone.cross_fitted == "group" and alone.temperature == found.temperature
    assert alone.threshold.sensitivity == pytest.approx(0.9, abs=0.02)
    twins = one_fold.take(np.repeat(np.arange(0, 2000, 2), 2))  # equal rows of a group

    def rule(target: Any, score: Any) -> Threshold:
        assert (np.unique(score, return_counts=True)[1] % 2 == 0).all()  # no group is torn
        return by_recall(target, score)

    assert cross_fit(twins, rule).by == "group"


def test_probabilities_are_shifted_to_another_prevalence(trained, bare, capsys):
    score = Predictor.load("tiny").predict(example(0)).calibrated
    assert calibrate(["--run", "bare", "--rows", "30", "--prevalence", "0.02"]) == 0
    assert "probabilities are for 2.0% positives" in capsys.readouterr().out
    shifted = Predictor.load("bare").predict(example(0)).calibrated
    assert score and shifted
    known = read_json(bare / "calibration.json")
    share = known["positives"] / known["rows"]
    expected = logit(score["melanoma"]) + logit(0.02) - logit(share)
    assert logit(shifted["melanoma"]) == pytest.approx(expected)
    with pytest.raises(InputError, match="not between 0 and 1"):
        calibrate(["--run", "bare", "--prevalence", "2"])


def test_a_calibrated_run_decides_and_ranks(calibrated):
    predictor = Predictor.load("calibrated")
    known = read_json(calibrated / "calibration.json")
    told = predictor.predict(example(0), Patient(50, "female", "torso"))
    assert predictor.missing == []
    assert told.positive == (told.score >= known["threshold"]["value"])
    below = np.mean(np.asarray(known["quantiles"]) < told.score)
    assert told.percentile == pytest.approx(100 * below, abs=1)
    odds = told.score / (1 - told.score)
    expected = odds ** (1 / known["temperature"]) * np.exp(known["shifts"][1])
    assert told.calibrated == {"melanoma": pytest.approx(expected / (1 + expected))}
    assert 0 <= known["false_alarms"]["any"] <= 0.3


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": "warm"}, {"temperature": 0.0}, {"temperature": float("nan")},
        {"shifts": [0.0, float("inf")]}, {"quantiles": [0.9, 0.1]}, {"threshold": {"value": 1}},
        {"prevalence": 1.5}, {"threshold": {"rule": "recall", "value": float("nan"),
                                            "sensitivity": 0.9, "specificity": 0.5}},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_calibration_is_refused_with_its_key(calibrated, bare, change):
    known = read_json(calibrated / "calibration.json") | change
    (bare / "calibration.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match=rf"calibration\.json: {next(iter(change))}"):
        Predictor.load("bare")


@pytest.mark.parametrize(
    "name, read", [("fold1.safetensors", Predictor.load), ("fold1.csv", load_oof)]
)
def test_a_flipped_bit_is_found_by_whatever_reads_the_file(trained, tmp_path, name, read):
    folder = Path(shutil.copytree(trained, tmp_path / "flipped"))
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: has changed since"):
        read(folder)


def test_files_of_other_weights_or_folds_are_found_out(calibrated, bare):
    known = read_json(calibrated / "calibration.json")
    known["weights"]["fold1.safetensors"] = "0" * 64
    write_json(bare / "calibration.json", known)
    assert "other weights than fold1.safetensors" in Predictor.load("bare").missing[0]
    shutil.copy(bare / "fold1.safetensors", bare / "fold0.safetensors")
    with pytest.raises(InputError, match=r"fold0\.safetensors: holds fold 1"):
        Predictor.load("bare")
    formula_run(at("oof/mixed"), folds=2)
    formula_run(at("oof/mixed"), CLASSES, folds=1, task="diagnosis7")
    with pytest.raises(InputError, match=r"differs from the run's other folds: task"):
        Predictor.load("mixed")


def test_what_is_no_lesion_is_called_unusual_and_what_is_like_training_is_not(calibrated):
    predictor = Predictor.load("calibrated")
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for pixels in (noise, np.full((300, 400, 3), 255, np.uint8)):
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        assert any("colours" in why for why in predictor.predict(file.getvalue()).unusual)
    assert any("small" in why for why in predictor.predict(drawn_png()).unusual)
    values = np.random.default_rng(0).normal(5, 2, (500, 6))
    typical, flagged = fit_typical(values, np.arange(500))
    assert typical.distance(np.array([[5.0] * 6, [11.0] * 6])) == pytest.approx([0, 9], abs=1.5)
    assert flagged.mean() == pytest.approx(0.01, abs=0.01)
    alike = np.vstack([values[:60], np.full((4, 6), 1000.0)])  # odd, and judged without each other
    assert fit_typical(alike, np.minimum(np.arange(64), 60))[1][-4:].all()
    # Photographs that are like those of training are mostly not called so.
    table, _ = load_table("demo")
    paths = table.loc[table["fold"] == 0, "path"].iloc[:20].map(Path).tolist()
    found = Predictor.load("calibrated", folds=[0]).predict_many(paths, [Patient()] * 20)
    assert np.mean([bool(told.unusual) for told in found]) <= 0.4


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "fold0.safetensors").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "fold0.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="damaged, or no safetensors file"):
        Predictor.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_the_run_folder_alone_predicts_photographs(calibrated, tmp_path):
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
    told = Predictor.load(calibrated).predict(example(0), Patient(55, "female"))
    assert table["prob"][0] == pytest.approx(told.score, abs=1e-6)
    assert "a.jpg" in done.stdout and "not a medical device" in done.stdout


def test_answers_are_written_as_json_too(bare, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(example(1))
    photo = str(tmp_path / "a.jpg")
    assert predict(["--run", "bare", "--images", photo, "--out", str(tmp_path / "o.json")]) == 0
    (told,) = json.loads((tmp_path / "o.json").read_text())
    assert told["image"] == photo and len(told["by_fold"]) == 3
    assert [told[key] for key in ("calibrated", "positive", "percentile")] == [None] * 3
    printed = capsys.readouterr().out
    assert "note: oof/bare/calibration.json is missing" in printed
    assert "python scripts/calibrate.py --run oof/bare" in printed
    predict(["--run", "bare", "--images", photo])
    assert at("submissions/bare_images.csv").exists()
    for wrong, why in ((["nowhere.jpg"], "no such file"), ([photo, "--out", "x.txt"], r"a \.csv")):
        with pytest.raises(InputError, match=why):
            predict(["--run", "bare", "--images", *wrong])


def test_one_row_has_one_probability_everywhere(root, quick):
    """Photographs are cropped and colour-corrected: test rows, files, REST and report agree."""
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("gradio", "6.16", reason="the serve extra is not installed")
    from serving import served

    write_sample(at("input/sample"), images=90)
    prepare(["--dataset", "demo", "--size", "32",
             "--set", "preprocess={fit: crop, shades_of_gray: true}"])  # fmt: skip
    alone = (
        "data.metadata=none",
        "train.precision=fp32",
        "train.ema_decay=0",
        "train.epochs=3",
        "model.backbone=resnet10t",
        "train.lr=0.003",
    )
    train([*tiny_run("grey", *alone), "--fold", "all"])
    table, _ = load_table("demo")
    test = table[table["split"] == "test"].reset_index(drop=True)
    predict(["--run", "grey"])
    expected = pd.read_csv(at("submissions/grey.csv"))["target"]
    known = (at("oof/grey/calibration.json")).read_bytes()
    for calibrated in (True, False):
        predict(["--run", "grey", "--images", *test["path"], "--out", str(root / "own.csv")])
        found = pd.read_csv(root / "own.csv")
        np.testing.assert_allclose(found["prob"], expected, atol=1e-3)
        assert found["calibrated"].notna().all() == calibrated
        at("oof/grey/calibration.json").unlink(missing_ok=True)
    at("oof/grey/calibration.json").write_bytes(known)
    predictor = Predictor.load("grey")
    plain = [replace(run, preprocess=PreprocessConfig()) for run in predictor.runs]
    other = replace(predictor, runs=plain).predict(Path(test["path"][0])).score
    assert abs(other - expected[0]) > 0.01  # it matters

    report(["--run", "grey"])
    page = at("oof/grey/report.html").read_text()
    shown = re.search(r"<b>([01]\.\d{3}) ·.*?(ISIC_\d+)", page, re.DOTALL)
    assert shown
    row = table.set_index("image_name").loc[shown[2]]
    fold = str(row["fold"])
    predict(["--run", "grey", "--folds", fold, "--images", row["path"], "--out",
             str(root / "own.csv")])  # fmt: skip
    printed = pd.read_csv(root / "own.csv")["calibrated"][0]
    with served(Predictor.load("grey", [int(fold)])) as url:
        body = Path(row["path"]).read_bytes()
        answer = httpx.post(f"{url}/api/predict", content=body, timeout=60).json()
    assert answer["calibrated"]["melanoma"] == pytest.approx(printed, abs=1e-6)
    assert float(shown[1]) == pytest.approx(printed, abs=1e-3)

    prepare(["--dataset", "demo", "--size", "32"])
    with pytest.raises(InputError, match="preprocess"):
        predict(["--run", "grey"])


def test_hidden_files_and_masks_of_a_folder_are_skipped_and_masks_are_named(tmp_path, capsys):
    for name in ("a.jpg", "._a.jpg", "a_superpixels.png", "sub/b.PNG", ".cache/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_photos([tmp_path]) == [tmp_path / "a.jpg", tmp_path / "sub/b.PNG"]
    assert "a_superpixels.png" in capsys.readouterr().out
