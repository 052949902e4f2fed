"""Variants of a run, trained on the same folds and compared row by row."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from ablation import main as ablate
from conftest import TINY
from sklearn.metrics import accuracy_score

from lesions.errors import InputError
from lesions.paths import at

MANY = ["data.task=diagnosis8", "loss.kind=cross_entropy"]


def written(folder: Path, shared: list[str]) -> Path:
    told = {
        "base": str(Path("configs/demo/mobilenetv3.yaml").resolve()),
        "shared": [*TINY, *shared],
        "folds": [0, 2],
        "variants": {"The same": ["seed=42"], "Still": ["train.lr=1e-12"]},
    }
    path = folder / f"a_{folder.name}.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def test_variants_are_compared_on_the_rows_of_the_same_folds(demo, tmp_path):
    path, out = written(tmp_path, MANY), tmp_path / "found.json"
    assert ablate([str(path), "--out", str(out), "--allow-dirty"]) == 0
    found = json.loads(out.read_text())
    base = at("oof", path.stem, "base")
    rows = pd.concat(pd.read_csv(base / f"fold{fold}.csv") for fold in (0, 2))
    probs = rows.filter(like="prob_")
    called = probs.to_numpy().argmax(axis=1)
    expected = accuracy_score(rows["target"], [found["classes"][code] for code in called])
    assert found["rows"] == len(rows)
    assert found["base"]["accuracy"]["value"] == pytest.approx(expected)
    same, still = found["variants"]["The same"], found["variants"]["Still"]
    assert all(score["value"] == 0 for score in same.values())
    assert still["macro_auc"]["value"] != 0
    seconds, auc = zip(*found["epochs"]["base"], strict=True)
    assert 0 < seconds[-1] < found["seconds"]["base"] and 0 <= min(auc) <= max(auc) <= 1
    files = sorted(at("oof", path.stem).glob("*/*.safetensors"))
    times = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 6 and ablate([str(path)]) == 0
    assert times == [file.stat().st_mtime_ns for file in files]


def test_a_task_of_one_class_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match="diagnosis7 and diagnosis8"):
        ablate([str(written(tmp_path, []))])
    assert not (at("oof") / f"a_{tmp_path.name}").exists()
