"""A released run answers as the run it was made of, and holds no label; runs stand side by side."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from release import main as release
from runs import main as runs

from lesions.errors import InputError
from lesions.files import sha256
from lesions.inference import Predictor
from lesions.oof import load_oof
from lesions.paths import at
from lesions.reporting.leaderboard import rank_runs
from lesions.runs import find_run


@pytest.fixture(scope="module")
def released(trained: Path, demo: Path) -> Path:
    release(["tiny", "--fold", "0", "--fold", "2"])
    return at("models/tiny")


def test_a_released_run_is_a_folder_and_a_zip_with_its_card_and_no_labels(released, trained):
    names = {path.name for path in released.iterdir()}
    assert {"README.md", "LICENSE", "SHA256SUMS", "fold0.safetensors", "calibration.json"} <= names
    assert not [name for name in names if name.endswith(".csv")]
    for line in (released / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest
    assert set(zipfile.ZipFile(at("models/tiny.zip")).namelist()) == names
    sizes = [(place / "fold0.safetensors").stat().st_size for place in (released, trained)]
    assert sizes[0] < 0.7 * sizes[1]
    card = (released / "README.md").read_text()
    rows = sum(len(pd.read_csv(trained / f"fold{fold}.csv")) for fold in (0, 2))
    assert f"{rows} images in" in card
    assert "cross-fitted by fold" in card
    assert "not for clinical use" in card


def test_folder_and_zip_answer_as_the_run_does(released):
    photo = sorted(at("input/sample").rglob("*.jpg"))[0]
    wanted = Predictor.load("tiny", folds=[0, 2]).predict(photo)
    for spec in ("models/tiny", "models/tiny.zip", at("models/tiny.zip")):
        found = Predictor.load(spec).predict(photo)
        assert found.score == pytest.approx(wanted.score, abs=2e-3)
        assert found.threshold is not None


def test_a_damaged_zip_and_one_of_other_files_are_refused(released, tmp_path):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(at("models/tiny.zip")) as whole, zipfile.ZipFile(other, "w") as archive:
        for name in whole.namelist():
            content = whole.read(name)
            changed = content[:-1] + b"x" if name == "calibration.json" else content
            archive.writestr(name, changed)
    with pytest.raises(InputError, match=r"calibration\.json"):
        Predictor.load(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("../evil.safetensors", b"")
    with pytest.raises(InputError, match="no released run"):
        Predictor.load(other)


def test_runs_are_ranked_and_two_are_compared(trained, capsys):
    shutil.copytree(trained, at("oof/worse"), dirs_exist_ok=True)
    for path in at("oof/worse").glob("fold*.csv"):
        table = pd.read_csv(path)
        shuffled = np.random.default_rng(0).permutation(table["prob"])
        table.assign(prob=shuffled).to_csv(path, index=False)
        facts = path.with_suffix(".json")
        facts.write_text(facts.read_text().replace(sha256(trained / path.name), sha256(path)))
    runs([])
    printed = capsys.readouterr().out
    assert "melanoma of demo" in printed
    runs(["tiny", "worse", "--html"])
    printed = capsys.readouterr().out
    assert printed.index("tiny ") < printed.index("worse ")
    assert "tiny less worse" in printed
    assert any(word in printed for word in (": better", ": not distinguishable"))
    page = at("oof/runs.html").read_text()
    assert "<svg" in page and ">worse<" in page
    whole = load_oof(find_run("tiny"))
    source = whole.table["source"]
    part = whole.take(np.flatnonzero(source == source.iloc[0]))
    (board,) = rank_runs([part, whole]).values()  # a run of fewer sources moves no column
    assert board.columns[-3:].tolist() == ["minutes", "million parameters", "differs in"]
    assert source.nunique() > 1 and set(board[f"on {source.iloc[0]}"].map(str)) > {""}
    runs(["tiny", "tiny"])
    assert "+0.000 (+0.000 to +0.000), p = 1.000: not distinguishable" in capsys.readouterr().out


def test_no_run_at_all_names_the_next_command(root):
    with pytest.raises(InputError, match="make demo"):
        runs([])
