"""Metadata that are not given: what training blanks, and what a run answers without them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import interrupted_run, tiny_run
from train import main as train

from lesions.config import DataConfig
from lesions.data.loading import LesionDataset, build_loader
from lesions.data.metadata import COLUMNS, build_blanks, encode_metadata
from lesions.files import sha256
from lesions.paths import at

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
def test_each_field_and_the_whole_row_are_blanked_as_often_as_the_config_says(kind: str) -> None:
    dataset = people(4000, kind, 0.2)
    known = dataset.metadata[0]
    nobody = pd.DataFrame(
        [
            PERSON
            | dict.fromkeys(("sex", "site", "localization"), "")
            | dict.fromkeys(("age_approx", "images_per_patient", "bytes"), np.nan)
        ]
    )
    blank = encode_metadata(nobody, kind, NEUTRAL)[0]
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


def test_what_is_blanked_depends_on_seed_epoch_and_row_alone() -> None:
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


def test_a_killed_run_resumes_with_the_same_rows_blanked(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["data.metadata_dropout=0.5", "train.save_steps=1"]
    train([*tiny_run("blanks", *changes), "--fold", "0"])
    again = [*tiny_run("killed blanks", *changes), "--fold", "0"]
    interrupted_run(again, 3, monkeypatch)
    train(again)
    for name in ("fold0.csv", "given0.csv"):
        assert sha256(at("oof/blanks", name)) == sha256(at("oof/killed blanks", name))
    off = tiny_run("no blanks", "data.metadata_dropout=0", "train.save_steps=1")
    train([*off, "--fold", "0"])
    assert sha256(at("oof/no blanks/fold0.csv")) != sha256(at("oof/blanks/fold0.csv"))


def test_training_predicts_its_held_out_rows_without_some_and_without_all_metadata(
    trained: Path,
) -> None:
    for fold in range(3):
        known = pd.read_csv(trained / f"fold{fold}.csv").set_index("image_name")
        found = pd.read_csv(trained / f"given{fold}.csv")
        assert list(found) == ["image_name", "given", "prob"]
        assert found["given"].unique().tolist() == ["age and sex", "nothing"]
        for _, rows in found.groupby("given"):
            assert rows["image_name"].tolist() == known.index.tolist()
            assert not np.allclose(rows["prob"], known["prob"], atol=1e-6)
