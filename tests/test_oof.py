"""The one reader of out-of-fold predictions: what it joins, and everything that it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from written import written_run

from lesions.config import DatasetConfig
from lesions.data.table import COLUMNS, save_table
from lesions.data.tasks import build_task
from lesions.errors import InputError
from lesions.oof import load_groups, load_oof, load_test, table_rows

ROWS, TESTS, SEVEN = 300, 40, build_task("diagnosis7")
YES = build_task("melanoma")


def build_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a prepared data set of two sources, and two runs of each of two tasks."""
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    save_table("tiny", whole_table(), DatasetConfig(sources={"isic2020": {"folder": "input/x"}}))
    for seed, run in enumerate(("a", "real/b")):
        write_run(tmp_path, run, seed)
        write_run(tmp_path, f"ham/{'ab'[seed]}", seed, "diagnosis7")
    return tmp_path


root = pytest.fixture(build_root)


def whole_table() -> pd.DataFrame:
    """300 rows in groups of three and two folds, 100 of 2019; then 40 test rows of 2020."""
    number = np.arange(ROWS + TESTS)
    train = number < ROWS
    shares = np.full(7, 0.1) + 0.3 * np.isin(SEVEN.classes, "nv")
    found = pd.DataFrame(
        {
            "image_name": [f"ISIC_{i:04d}" if i < ROWS else f"test{i}" for i in number],
            "source": np.where(number < 100, "isic2019", "isic2020"),
            "split": np.where(train, "train", "test"),
            "diagnosis": np.random.default_rng(0).choice(SEVEN.classes, len(number), p=shares),
            "group": [f"p{i // 3}" for i in number],
            "fold": np.where(train, number // 3 % 2, -1),
        }
    )
    found["target"] = (found["diagnosis"] == "mel").astype(float)
    numbers = ["age_approx", "width", "height", "bytes", "images_per_patient"]
    found = found.assign(**dict.fromkeys(numbers, 1.0))
    return found.reindex(columns=COLUMNS).fillna({name: "" for name in COLUMNS})


def write_run(root: Path, run: str, seed: int, task: str = "melanoma", skill: float = 1.0):
    """A run of drawn predictions; those of train and test rows."""
    generator, table = np.random.default_rng(seed + 1), whole_table()
    if task == "diagnosis7":
        own = np.eye(7)[SEVEN.codes(table["diagnosis"])]
        probs = softmax(skill * own + generator.normal(size=own.shape), axis=1)
    else:
        own = (table["diagnosis"] == "mel").to_numpy(int)
        probs = expit(skill * own + generator.normal(size=len(own)))
    return written_run(run, "tiny", table, probs, task)


def edit(path: Path, change) -> None:
    """Change a CSV, or a JSON by its mapping."""
    if path.suffix == ".csv":
        change(pd.read_csv(path)).to_csv(path, index=False)
    else:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(("run", "task"), [("a", YES), ("ham/a", SEVEN)])
def test_a_run_is_joined_to_its_table_by_name(root, run, task):
    oof, table = load_oof(run), whole_table()
    assert oof.task == task and oof.dataset == "tiny" and len(oof.names) == ROWS
    assert oof.probs.shape == (ROWS, len(task.classes)) and oof.probs.dtype == np.float64
    rows = table.iloc[oof.table["row"]].reset_index(drop=True)
    for column in ("image_name", "group", "source", "diagnosis", "fold"):
        assert (oof.table[column] == rows[column]).all()
    assert (oof.positive == rows["diagnosis"].isin(["mel", "bcc", "akiec"] if task.several
                                                   else ["mel"])).all()  # fmt: skip
    written = pd.concat([pd.read_csv(root / f"oof/{run}/fold{k}.csv") for k in (0, 1)])
    assert (oof.probs == written[task.columns].to_numpy()).all()
    assert (oof.names.to_numpy() == written["image_name"]).all()
    only = oof.of_source()
    assert set(only.table["source"]) == {"isic2020"} and "isic2020 alone" in only.groups_from
    assert len(only.probs) == len(only.codes) == 200 and list(only.table.index) == [*range(200)]
    assert len(oof.of_source("isic2019").names) == 100
    with pytest.raises(InputError, match="--source other: the rows are of isic2019, isic2020"):
        oof.of_source("other")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("fold0.csv", lambda t: t.drop(index=[3, 4]), "0.csv: lacks, of the 150 of its fold: 2"),
        ("fold0.csv", lambda t: pd.concat([t, t.head(1)]), "fold0.csv: twice: 1 images .ISIC_"),
        ("fold0.csv", lambda t: t.assign(image_name=t.index), "a: not in table.csv: 150 images"),
        ("fold0.csv", lambda t: t.assign(target=1 - t["target"]), "another target than table.csv"),
        ("fold0.csv", lambda t: t.assign(fold=1), "another fold than table.csv has: 150"),
        ("fold0.csv", lambda t: t.assign(target="nv"), "target nv is not 0 or 1: is it of another"),
        ("fold0.csv", lambda t: t.assign(prob=t["prob"].where(t.index > 1)), "is no number: 2 i"),
        ("fold0.csv", lambda t: t.assign(prob=9 * t["prob"]), "is not within 0 to 1: .* images"),
        ("fold0.csv", lambda t: t.drop(columns="prob"), "no column prob, pred, but image_name"),
        ("fold0.csv", lambda t: t.drop(columns="target"), "no column target"),
        ("fold1.json", lambda f: f | {"fold_hash": "f9"}, "fold1.json: fold_hash f9, but"),
        ("fold1.json", lambda f: f | {"task": "malignant"}, "fold1.json: task malignant, but mel"),
        ("fold1.json", lambda f: f | {"table_hash": "t9"}, "train the older folds again"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_and_row(root, file, change, told):
    edit(root / "oof/a" / file, change)
    with pytest.raises(InputError, match=told):
        load_oof("a")


def test_a_table_that_was_prepared_anew_is_refused_and_an_old_run_warns_once(root, capsys):
    for fold in (0, 1):
        edit(root / f"oof/a/fold{fold}.json", lambda f: f | {"table_hash": "t0"})
    with pytest.raises(InputError, match="a is of table_hash t0, but data set tiny has .*: train"):
        load_oof("a")
    for fold in (0, 1):
        edit(root / f"oof/a/fold{fold}.json", lambda f: {"task": f["task"]})
    assert len(load_oof("a").names) == ROWS
    assert capsys.readouterr().err.count("warning: ") == 1
    (root / "oof/a/fold1.json").unlink()
    with pytest.raises(InputError, match="fold1.json: missing beside its .csv: train the fold aga"):
        load_oof("a")


def test_a_csv_from_elsewhere_needs_nothing_beside_it(root, tmp_path):
    table = write_run(root, "c", 5)[:ROWS].drop(columns="fold").rename(columns={"prob": "pred"})
    path, groups = tmp_path / "x.csv", tmp_path / "groups.csv"
    table.to_csv(path, index=False)
    oof = load_oof(path)
    assert oof.groups_from.startswith("none") and (oof.groups == oof.names).all()
    assert not oof.task.several and oof.dataset is None and set(oof.table["fold"]) == {-1}
    known = table[["image_name"]].assign(patient_id=[f"p{i // 3}" for i in range(ROWS)])
    known.loc[0, "patient_id"] = None
    known.to_csv(groups, index=False)
    oof = load_oof(path, load_groups(groups))
    assert oof.groups[0] == "image ISIC_0000" and list(oof.groups[1:4]) == ["p0", "p0", "p1"]
    known.drop(index=7).to_csv(groups, index=False)
    with pytest.raises(InputError, match="x: not in .*groups.csv: 1 images .ISIC_0007"):
        load_oof(path, load_groups(groups))


def test_a_file_of_several_classes_must_sum_to_1(root):
    edit(root / "oof/ham/a/fold0.csv", lambda t: t.assign(prob_mel=0.99))
    with pytest.raises(InputError, match=r"fold0.csv: .* does not sum to 1: .* images .ISIC_0"):
        load_oof("ham/a")
    edit(root / "oof/ham/b/fold0.csv", lambda t: t.rename(columns={"prob_mel": "prob_scc"}))
    with pytest.raises(InputError, match="no column .*prob_mel.*, but .*prob_scc.* another task"):
        load_oof("ham/b")


def test_test_predictions_are_read_with_their_names_and_oof_files_are_refused(root):
    names, probs = load_test(root / "submissions/a.csv", YES)
    sent = pd.read_csv(root / "submissions/a.csv")
    assert list(names) == list(sent["image_name"]) and (probs[:, 0] == sent["target"]).all()
    assert list(table_rows(whole_table(), names, "a")) == [int(name[4:]) for name in names]
    assert load_test(root / "submissions/ham/a.csv", SEVEN)[1].shape == (TESTS, 7)
    with pytest.raises(InputError, match="no column prob_akiec, prob_bcc"):
        load_test(root / "submissions/a.csv", SEVEN)
    with pytest.raises(InputError, match="no column prob, pred, target, but .*, prob_akiec"):
        load_test(root / "submissions/ham/a.csv", YES)
    for run, task in (("a", YES), ("ham/a", SEVEN)):
        with pytest.raises(InputError, match="fold0.csv: it has target and probabilities"):
            load_test(root / f"oof/{run}/fold0.csv", task)
    edit(root / "submissions/a.csv", lambda t: pd.concat([t, t.head(2)]))
    with pytest.raises(InputError, match="a.csv: twice: 2 images"):
        load_test(root / "submissions/a.csv", YES)


def test_what_is_no_run_is_named_with_what_there_is(root):
    (root / "oof/empty").mkdir()
    (root / "oof/empty/config.yaml").write_text("dataset: tiny\n")
    with pytest.raises(InputError, match=r"oof/empty: no fold<k>.csv: train it"):
        load_oof("empty")
    (root / "submissions/a.json").write_text('{"run": "a"}')
    with pytest.raises(InputError, match=r"a.json: not a blend of this version: run scripts/b"):
        load_oof("submissions/a.json")
