"""The table: one row an image, groups, folds of every scheme, and the hashes that tie it down."""

import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from prepare import main as prepare

from lesions.config import DatasetConfig, SourceConfig
from lesions.data.columns import Report, common_rows
from lesions.data.folds import fold_hash, straddling
from lesions.data.table import (
    COLUMNS,
    finish_table,
    images_per_patient,
    load_table,
    one_row_a_name,
    save_table,
    table_hash,
)
from lesions.errors import InputError
from lesions.files import write_csv
from lesions.paths import at


def drawn(rows: int, seed: int = 0) -> pd.DataFrame:
    """A table of `rows` images of about a third as many groups."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, max(1, rows // 3), rows)
    table = pd.DataFrame({
        "image_name": [f"i{row:05d}" for row in range(rows)],
        "target": (rng.random(rows) < 0.3).astype(float),
        "patient_id": [f"p{number}" for number in group],
    })  # fmt: skip
    table = common_rows(table, "isic2020").assign(path="", bytes=np.nan, fold=-1)
    table["group"] = table.groupby("patient_id")["image_name"].transform("min")
    return table.assign(images_per_patient=images_per_patient(table))


STRICT = Report(strict=True)
CONFIG = DatasetConfig(sources={"isic2020": SourceConfig(folder="x")}, folds=3)


@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_folds_and_held_out_rows_are_whole_groups_whatever_the_row_order(holdout):
    config = CONFIG.model_copy(update={"holdout": holdout})
    finished = finish_table(drawn(90), config)
    assert list(finished.columns) == COLUMNS
    assert not straddling(finished)
    train = finished["split"] == "train"
    assert abs((~train).mean() - holdout) < 0.03
    assert set(finished.loc[train, "fold"]) == {0, 1, 2}
    assert (finished.loc[~train, "fold"] == -1).all()
    assert fold_hash(finish_table(drawn(90).iloc[::-1], config)) == fold_hash(finished)


def test_an_unreadable_photograph_stays_out_of_a_published_split_but_for_test_rows():
    table = drawn(40).assign(official="train")
    table.loc[:9, "official"] = "val"
    table.loc[30, "official"] = "test"
    table.loc[[5, 30, 35], "split"] = "quarantined"
    finished = finish_table(table, CONFIG.model_copy(update={"scheme": "official"}))
    assert finished.index[finished["split"] == "quarantined"].tolist() == [5, 35]
    assert finished.index[finished["split"] == "test"].tolist() == [30]  # test rows stay
    assert finished.index[finished["fold"] == 0].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_images_of_a_patient_are_counted_within_a_split():
    table = pd.DataFrame({"patient_id": ["p", "p", "p", "q", ""],
                          "split": ["train", "train", "test", "train", "train"]})  # fmt: skip
    assert images_per_patient(table).fillna(-1).tolist() == [2, 2, 1, 1, -1]


def test_a_photograph_of_two_sources_is_one_row_if_they_agree():
    first = drawn(30)
    second = first.assign(source="isic2019", sex="female")
    merged = one_row_a_name(pd.concat([first, second], ignore_index=True), STRICT)
    assert len(merged) == 30
    assert (merged["source"] == "isic2020").all()
    second.loc[4, "target"] = 1 - second.loc[4, "target"]
    both = pd.concat([first, second], ignore_index=True)
    with pytest.raises(InputError, match="sources disagree about the target of i00004"):
        one_row_a_name(both, STRICT)
    # An unlabelled test row must not vanish behind a labelled one.
    second = first.assign(source="isic2019", split="test", target=np.nan)
    with pytest.raises(InputError, match="disagree"):
        one_row_a_name(pd.concat([first, second], ignore_index=True), STRICT)


def test_a_saved_table_comes_back_and_an_edited_one_is_refused(root):
    finished = finish_table(drawn(60), CONFIG)
    facts = save_table("mine", finished, CONFIG)
    loaded, again = load_table("mine")
    assert again["table_hash"] == facts["table_hash"] == table_hash(loaded)
    assert again["fold_hash"] == fold_hash(loaded)
    assert again["straddling"] == 0
    kept = ["image_name", "fold", "target", "group"]
    pd.testing.assert_frame_equal(loaded[kept], finished[kept], check_dtype=False)
    loaded.loc[0, "fold"] = (loaded.loc[0, "fold"] + 1) % 3
    write_csv(at("input/prepared/mine/table.csv"), loaded)
    with pytest.raises(InputError, match="does not match its hash: run"):
        load_table("mine")
    with pytest.raises(InputError, match="no table: run python scripts/prepare.py"):
        load_table("other")


# table_hash and fold_hash of what the published scores were measured on
FROZEN = {
    "isic": ("cae6ccc8146ecda6", "483e102a76966b0e"),
    "ham10000": ("91d031f7b5f730ef", "5f1f34f873e6ea4e"),
    "ham10000_system001": ("ea20d375918da83f", "f5a5fb797b05f700"),
    "ham10000_system002": ("e5657b00e6e9b8f5", "bc81402a5e3477e7"),
    "ham10000_system004": ("0d373d09010841e0", "c566df10b39d9393"),
    "dermamnist": ("a432e9228b6d27ab", "3197e3b2b360c5a0"),
    "dermamnist_grouped": ("64d416c5afb0a241", "082f4b74cf335a0d"),
    "isic2018": ("374a29a6bff18523", "4e7f7242de265859"),
    "isic_legacy": ("6a01695fbad06779", "1fcfa7f899ba8502"),
    "isic2020_system003": ("196621144f2592ef", "0ba6fd38b3f5321c"),
}


@pytest.mark.real
@pytest.mark.parametrize("name", FROZEN)
def test_tables_and_folds_are_those_that_published_scores_were_measured_on(name, root):
    (root / "input").mkdir()
    for folder in REAL.iterdir():
        (root / "input" / folder.name).symlink_to(folder)
    assert prepare(["--dataset", name, "--tables-only"]) == 0
    facts = load_table(name)[1]
    assert (facts["table_hash"], facts["fold_hash"]) == FROZEN[name]


def test_a_scheme_that_cannot_be_is_refused():
    table = drawn(40)
    for scheme, said in [
        ("legacy", "no `tfrecord`"),
        ("official", "no source of this data set has validation rows"),
        ("system001", "this scheme splits the 10,015 rows of ham10000"),
        ("system003", "33,126 training rows"),
    ]:
        with pytest.raises(InputError, match=said):
            finish_table(table, CONFIG.model_copy(update={"scheme": scheme}))
    with pytest.raises(InputError, match="holdout: scheme official has its own test rows"):
        finish_table(table, CONFIG.model_copy(update={"scheme": "official", "holdout": 0.1}))
