"""The gate shuts where a link is torn, and a model without pixels scores what it can know."""

import json
import re
import shutil

import audit as script
import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folds import even_table

from lesions.config import load_dataset_config
from lesions.data.folds import add_folds
from lesions.data.table import load_table, save_table
from lesions.errors import InputError
from lesions.evaluation import audit
from lesions.evaluation.links import build_links
from lesions.paths import at
from lesions.reporting.data_page import audit_pages

NO_PAIRS = pd.DataFrame(columns=["image_name_1", "image_name_2"], dtype=str)
FACTS = {"dataset": "d", "task": "melanoma", "table_hash": "t", "fold_hash": "f", "versions": {}}
COLUMNS = ["sex", "site", "diagnosis", "lesion_id"]


def whole_table(groups: int = 60) -> pd.DataFrame:
    """A table of whole groups in three folds, nothing known but patient and target."""
    table = even_table(groups).assign(**dict.fromkeys(COLUMNS, ""))
    table = table.assign(**dict.fromkeys(["age_approx", "width", "height"], np.nan))
    return add_folds(table, 3, 0)


def problems(table: pd.DataFrame, pairs: pd.DataFrame = NO_PAIRS) -> str:
    return "; ".join(audit.find_problems(table, build_links(table, pairs), audit.parts(table)))


def two_apart(table: pd.DataFrame) -> list[int]:
    """Two rows of different folds and groups."""
    return [table.index[table["fold"] == fold][0] for fold in (0, 1)]


@pytest.mark.parametrize("kind", ["patient", "lesion", "photograph", "duplicate pair", "group"])
@pytest.mark.parametrize("where", ["fold", "test"])
def test_a_link_of_any_kind_that_leaves_its_fold_shuts_the_gate(kind, where):
    table, pairs = whole_table(), NO_PAIRS
    here, there = two_apart(table)
    if where == "test":
        table.loc[there, ["split", "fold"]] = ["test", -1]
        table.loc[there, ["patient_id", "group"]] = "alone"
    if kind == "photograph":
        table.loc[there, "image_name"] = table.loc[here, "image_name"] + "_downsampled"
    elif kind == "duplicate pair":
        names = table.loc[[here, there], "image_name"].tolist()
        pairs = pd.DataFrame([names], columns=pairs.columns)
    else:
        column = kind if kind == "group" else f"{kind}_id"
        table.loc[[here, there], column] = "shared"
    assert f"{kind} 1 (such as " in problems(table, pairs)


def test_a_link_between_groups_of_one_fold_and_a_row_without_a_target_shut_the_gate():
    table = whole_table()
    assert problems(table) == ""
    aside = table.copy()  # a row that is set aside opens no gap
    here, there = two_apart(table)
    aside.loc[there, ["split", "fold", "lesion_id"]] = ["quarantined", -1, "shared"]
    aside.loc[here, "lesion_id"] = "shared"
    assert "in two folds" not in problems(aside)
    groups = table[table["fold"] == 0].drop_duplicates("group")
    table.loc[groups.index[:2], "lesion_id"] = "shared"
    assert problems(table) == "1 links join images of different groups (lesion shared)"
    table.loc[3, "target"] = np.nan
    assert problems(table).endswith("; 1 training rows have no target")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(-1, 2)), min_size=1))
def test_exposed_images_are_counted_as_a_loop_over_all_pairs_counts_them(rows):
    table = pd.DataFrame(rows, columns=["lesion_id", "fold"])
    table = table.assign(
        image_name=[f"i{row}" for row in range(len(rows))], patient_id="", group="", source="s",
        split="train", target=[row % 2 for row in range(len(rows))],
    )  # fmt: skip
    found = audit.count_links(table, build_links(table, NO_PAIRS), audit.parts(table))
    found = found.set_index("kind").loc["lesion"]
    apart = [any(lesion == name and fold != own for name, own in rows) for lesion, fold in rows]
    exposed = [i for i, (lesion, fold) in enumerate(rows) if lesion and fold >= 0 and apart[i]]
    assert found["exposed"] == len(exposed)
    assert found["positives_exposed"] == sum(i % 2 for i in exposed)


def test_the_balance_names_the_fold_that_differs():
    table = whole_table().assign(sex="male")
    table.loc[table["fold"] == 1, "sex"] = "female"
    found = audit.balance(table, audit.parts(table))
    assert [fold["rows"] for fold in found["folds"]] == table.groupby("fold").size().tolist()
    share = {(row["feature"], row["value"]): row for row in found["shares"]}
    assert share["sex", "female"]["1"] == 1 and share["sex", "female"]["0"] == 0
    assert share["age", "not known"]["all"] == 1
    assert found["largest"]["points"]["sex"] > 60 > 1 > found["largest"]["points"]["source"]


def test_no_row_is_predicted_by_a_model_that_saw_its_target():
    # A column that names the row: in-sample it tells everything, out of fold nothing.
    table = whole_table(600).sample(frac=1, random_state=0)
    table["age_approx"] = table["target"] * 50 + table["fold"] * 100
    inverted = table.assign(target=table["target"].where(table["fold"] != 0, 1 - table["target"]))
    plain, _ = audit.predict_without_pixels(table, ["age_approx"])
    held = (table["fold"] == 0).to_numpy()
    other, _ = audit.predict_without_pixels(inverted, ["age_approx"])
    np.testing.assert_array_equal(plain[held], other[held])


def test_what_is_not_known_is_not_scored_and_says_why():
    scores = audit.score_shortcuts(whole_table()).set_index("features")
    assert scores.loc["width, height", "reason"] == "not known for any row"
    assert pd.isna(scores.loc["images per patient", "reason"])
    assert "source alone" not in scores.index  # one source only
    everything = audit.audit(whole_table(), NO_PAIRS) | FACTS
    assert {"width, height"} < {row["features"] for row in everything["not_scored"]}
    assert all(np.isfinite(score["auc"]) for score in everything["shortcuts"])
    assert "n/a (not known for any row)" in audit_pages(everything)[0]


def test_each_source_has_a_model_of_its_own_that_finds_a_shortcut_only_where_there_is_one():
    table = whole_table(1200)
    # Small images are melanomas in one source, large ones in the other.
    minority = table["group"].str[-2].isin(list("0123"))
    table["source"] = np.where(minority, "isic2019", "isic2020")
    table["width"] = np.where((table["target"] == 1) ^ minority, 6000.0, 1024.0)
    ages = np.random.default_rng(0).integers(20, 80, len(table)).astype(float)
    scores = audit.score_shortcuts(table.assign(age_approx=ages))
    age = scores[scores["features"] == "age, sex, site"]["auc"]
    assert age.between(0.4, 0.6).all()
    assert scores["source"].unique().tolist() == ["all", "isic2019", "isic2020"]
    width = scores[scores["features"] == "width, height"].set_index("source")
    assert width["auc"].drop("all").min() > 0.95 > width.loc["all", "auc"]
    assert width["rows"].tolist() == [len(table), minority.sum(), (~minority).sum()]
    assert width["positives"].drop("all").sum() == width.loc["all", "positives"]
    alone = scores[scores["features"] == "source alone"]
    assert alone["source"].tolist() == ["all"]


def test_a_table_without_folds_is_refused():
    with pytest.raises(InputError, match="no row of the table is in a fold"):
        audit.audit(whole_table().assign(fold=-1), NO_PAIRS)


def test_the_demo_passes_and_its_numbers_are_written(demo, tmp_path, capsys):
    json_file, html = tmp_path / "a.json", tmp_path / "a.html"
    assert script.main(["--dataset", "demo", "--json", str(json_file), "--html", str(html)]) == 0
    lines = capsys.readouterr().out.splitlines()
    numbers, page = json.loads(json_file.read_text()), html.read_text()
    assert lines[-1] == "audit passed"
    assert max(map(len, lines)) <= 130
    assert json.loads((demo / "audit.json").read_text()) == numbers
    assert (demo / "audit.html").read_text() == page
    assert {score["source"] for score in numbers["shortcuts"]} == {"all", "isic2019", "isic2020"}
    known = {"features", "source", "auc", "low", "high", "rows", "positives"}
    assert all(set(score) == known for score in numbers["shortcuts"])
    pairs = {row["kind"]: row["links"] for row in numbers["gate"]["links"]}
    assert pairs["duplicate pair"] > 0 and pairs["lesion"] > 0
    # The page needs nothing beside it.
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert "<script" not in page and "audit passed" in page
    assert all(features in page for features in audit.FEATURES)


def test_a_torn_patient_fails_the_script(demo, capsys):
    table, _ = load_table("demo")
    patients = table[(table["patient_id"] != "") & (table["fold"] >= 0)]
    row = patients.index[patients["images_per_patient"] > 1][0]
    table.loc[row, "fold"] = (table.loc[row, "fold"] + 1) % 3
    save_table("torn_patient", table, load_dataset_config("demo"))
    assert script.main(["--dataset", "torn_patient"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("audit FAILED: in two folds, or in a fold and the test rows: pat")
    assert "FAILED" in at("input/prepared/torn_patient/audit.html").read_text()


def test_anybodys_split_is_audited_in_one_file_or_a_file_a_part(tmp_path, capsys):
    rows = [("a/ISIC_1.jpg", "Training", "p1"), ("ISIC_2", "validation", "p2"),
            ("ISIC_3.JPG", "test", "p1"), ("ISIC_4", "test", "-1")]  # fmt: skip
    split = pd.DataFrame(rows, columns=["file", "fold", "who"])
    meta = split.rename(columns={"file": "image_id", "who": "patient_id"})
    split[["file", "fold"]].to_csv(tmp_path / "split.csv", index=False)
    meta[["image_id", "patient_id"]].to_csv(tmp_path / "meta.csv", index=False)
    for word, part in split.groupby("fold"):
        part[["file"]].to_csv(tmp_path / f"my_{word}.csv", index=False)
    whole = ["--folds", str(tmp_path / "split.csv"), "--table", str(tmp_path / "meta.csv")]
    files = sorted(str(path) for path in tmp_path.glob("my_*.csv"))
    for arguments in (whole, ["--folds", *files, *whole[2:]]):
        assert script.main(arguments) == 1
        assert "test seen in train, by patient: 1 of 2 images (1 pat" in capsys.readouterr().out
    (tmp_path / "pairs.csv").write_text("image_name_1,image_name_2\nISIC_1,ISIC_2\n")
    assert script.main([*whole[:2], "--duplicates", str(tmp_path / "pairs.csv")]) == 1
    assert "val seen in train, by duplicate pair: 1 of 1 images" in capsys.readouterr().out
    split.assign(fold=[0, 1, 2, -1]).to_csv(tmp_path / "split.csv", index=False)
    assert script.main(whole[:2]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("audit passed")
    with pytest.raises(InputError, match="no column 'flod'.*--fold-column"):
        script.main([*whole, "--fold-column", "flod"])


@pytest.mark.real
def test_the_published_leaks_are_counted_to_the_unit(tmp_path, capsys):
    assert script.main(["--folds", str(REAL / "dermamnist/dermamnist_to_ham10000.csv")]) == 1
    said = capsys.readouterr().out
    for counted in ("693 of 2,005 images (641", "348 of 1,003 images (332",
                    "120 of 2,005 images (113", "773 of 2,005 images"):  # fmt: skip
        assert counted in said
    lesions = REAL / "isic2019/ISIC_2019_Training_Metadata.csv"
    theirs = ["--folds", str(REAL / "deotte/jpeg-isic2019_train.csv"), "--table", str(lesions)]
    out = tmp_path / "audit.json"
    assert script.main([*theirs, "--fold-column", "tfrecord%5", "--json", str(out)]) == 1
    (found,) = [row for row in json.loads(out.read_text())["exposed"] if row["exposed"]]
    assert (found["exposed"], found["images"]) == (15_344, 25_272)
    assert (found["positives_exposed"], found["positives"]) == (3_583, 4_509)


@pytest.mark.real
def test_near_duplicates_of_a_split_are_found_in_its_photographs(tmp_path, capsys):
    photos = sorted((REAL / "ham10000" / "images").glob("*.jpg"))[:12]
    for path in photos:
        shutil.copy(path, tmp_path)
    copy = cv2.imread(str(photos[0]))[:, ::-1]
    cv2.imwrite(str(tmp_path / "copy.jpg"), copy)
    names = [*(path.stem for path in photos), "copy"]
    split = pd.DataFrame({"image": names, "split": ["train"] * 12 + ["test"]})
    split.to_csv(tmp_path / "split.csv", index=False)
    arguments = ["--folds", str(tmp_path / "split.csv"), "--images", str(tmp_path)]
    assert script.main(arguments) == 1
    assert "test seen in train, by near-duplicate: 1 of 1 images" in capsys.readouterr().out
