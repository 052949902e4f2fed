"""Published systems on their own splits: what is chosen is chosen on rows that are not scored."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from lesions.errors import InputError
from lesions.evaluation.weighing import choose_power
from lesions.paths import at
from lesions.reporting import rivals
from lesions.reporting.rivals import Rival, compare_rivals

CLASSES = ["mel", "nv"]
ROWS = 120  # rows 0 to 39 are the test part, 40 to 69 the validation part, the others train


@pytest.fixture
def runs(monkeypatch):
    """Runs `w/theirs` on a published split and `w/whole` on folds of our own; writes the latter."""
    generator = np.random.default_rng(0)
    names = np.array([f"i{row}" for row in range(ROWS)])
    target = np.where(generator.random(ROWS) < 0.4, *CLASSES)
    published = pd.DataFrame(
        {
            "image_name": names,
            "group": [f"g{row // 2}" for row in range(ROWS)],
            "diagnosis": target,
            "split": np.where(np.arange(ROWS) < 40, "test", "train"),
            "fold": np.select([np.arange(ROWS) < 40, np.arange(ROWS) < 70], [-1, 0], -1),
        }
    )
    tables = {"theirs": published, "whole": published.assign(split="train", fold=0)}
    monkeypatch.setattr(rivals, "load_table", lambda name: (tables[name], {}))

    def write(run: str, rows: np.ndarray, melanoma: np.ndarray) -> None:
        folder = at("oof") / "w" / run
        folder.mkdir(parents=True, exist_ok=True)
        told = pd.DataFrame({"image_name": names, "fold": place // 60, "target": target})
        told = told.assign(prob_mel=melanoma, prob_nv=1 - melanoma)[rows]
        told.to_csv(folder / "fold0.csv", index=False)
        facts = {"classes": CLASSES, "scheme": {}, "seconds": 1, "device": "cpu"}
        (folder / "fold0.json").write_text(json.dumps(facts))
        told_config = {"dataset": run, "model": {"backbone": "mobilenetv2_100"}}
        (folder / "config.yaml").write_text(yaml.safe_dump(told_config))
        if run == "theirs":
            test = pd.DataFrame(
                {"image_name": names, "prob_mel": melanoma, "prob_nv": 1 - melanoma}
            )
            (at("submissions") / "w").mkdir(parents=True, exist_ok=True)
            test[:40].to_csv(at("submissions") / "w" / "theirs.csv", index=False)

    place = np.arange(ROWS)
    melanoma = np.clip(0.35 * (target == "mel") + 0.65 * generator.random(ROWS), 0.01, 0.99)
    write("theirs", (place >= 40) & (place < 70), melanoma)
    write("whole", place >= 0, melanoma)
    return lambda changed: write("whole", place >= 0, changed(melanoma.copy()))


def compared(monkeypatch, part: str, rows: int) -> dict:
    published = {"malignant_auc": 0.5, "malignant_recall": 0.5}
    one = Rival("001", "w/theirs", part, rows, published, "a source")
    many = Rival("002", "w/theirs", part, rows, {"accuracy": 0.5, "macro_f1": 0.5}, "a source")
    monkeypatch.setattr(rivals, "RIVALS", [one, many])
    seen = []

    def counted(target, *others):
        seen.append(len(target))
        return choose_power(target, *others)

    monkeypatch.setattr(rivals, "choose_power", counted)
    found = compare_rivals("w/whole")["rivals"]
    recall = found[0]["scores"]["malignant_recall"]["ours"]["value"]
    return {"recall": recall, "weighed": found[1]["weighed"], "known": seen[-1]}


@pytest.mark.parametrize(("part", "scored"), [("val", slice(40, 70)), ("test", slice(0, 40))])
def test_threshold_and_weighing_come_from_rows_that_are_not_scored(runs, monkeypatch, part, scored):
    rows = scored.stop - scored.start
    before = compared(monkeypatch, part, rows)

    def on_scored(melanoma):
        melanoma[scored] = 1 - melanoma[scored]
        return melanoma

    runs(on_scored)
    assert compared(monkeypatch, part, rows) == before

    def on_training(melanoma):
        melanoma[70:] = 0.5 + melanoma[70:] / 2
        return melanoma

    runs(on_training)
    after = compared(monkeypatch, part, rows)
    assert after["recall"] < before["recall"] and after["known"] == ROWS - 70


def test_another_number_of_rows_than_the_system_scored_is_refused(runs, monkeypatch):
    with pytest.raises(InputError, match="30 rows, system 001 31"):
        compared(monkeypatch, "val", 31)
