"""scripts/blend.py from files to files, and what it refuses."""

import json
import re

import blend
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from lesions.errors import InputError
from lesions.files import sha256

ROWS = 300


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with two trained runs of one data set, whose table knows groups and sources."""
    for module in ("members", "rows"):
        monkeypatch.setattr(f"lesions.blending.{module}.OOF", tmp_path / "oof")
    monkeypatch.setattr("lesions.blending.members.SUBMISSIONS", tmp_path / "submissions")
    monkeypatch.setattr("lesions.blending.rows.PREPARED", tmp_path / "prepared")
    table = rows()
    test = pd.DataFrame(
        {"image_name": [f"test{i}" for i in range(40)], "source": "isic2020", "split": "test"}
    )
    (tmp_path / "prepared" / "tiny").mkdir(parents=True)
    table.assign(group=[f"p{i // 3}" for i in range(ROWS)]).merge(test, how="outer").to_csv(
        tmp_path / "prepared" / "tiny" / "table.csv", index=False
    )
    for seed, run in enumerate(("a", "real/b")):
        write_run(tmp_path, run, seed)
    return tmp_path


def rows():
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image_name": [f"ISIC_{i:04d}" for i in range(ROWS)],
            "target": (generator.random(ROWS) < 0.3).astype(int),
            "source": np.where(np.arange(ROWS) < 100, "isic2019", "isic2020"),
            "split": "train",
        }
    )


def scored(seed):
    generator = np.random.default_rng(seed + 1)
    table = rows()
    prob = 1 / (1 + np.exp(-(table["target"] + generator.normal(size=ROWS))))
    return table[["image_name", "target"]].assign(prob=prob)


def write_run(root, run, seed, **facts):
    folder = root / "oof" / run
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("dataset: tiny\n")
    table = scored(seed).assign(fold=np.arange(ROWS) // 3 % 2)
    for fold, part in table.groupby("fold"):
        part.to_csv(folder / f"fold{fold}.csv", index=False)
        record = {"task": "melanoma", "fold_hash": "f0", **facts}
        (folder / f"fold{fold}.json").write_text(json.dumps(record))
    generator = np.random.default_rng(seed)
    path = root / "submissions" / f"{run}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"test{i}" for i in generator.permutation(40)]
    pd.DataFrame({"image_name": names, "target": generator.random(40)}).to_csv(path, index=False)


CLASSES = ["bcc", "mel", "nv"]


def write_class_run(root, run, seed, classes=CLASSES, skill=1.0, **facts):
    """A run of a task with three classes, in the form that training and predicting write."""
    generator = np.random.default_rng(seed + 1)
    codes = np.random.default_rng(0).choice(3, ROWS + 40, p=[0.15, 0.25, 0.6])
    logits = skill * np.eye(3)[codes] + generator.normal(size=(ROWS + 40, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(probs, columns=[f"prob_{name}" for name in classes])
    table.insert(0, "target", np.array(classes)[codes])
    table.insert(0, "fold", np.arange(ROWS + 40) // 3 % 2)
    names = [f"ISIC_{i:04d}" for i in range(ROWS)] + [f"test{i}" for i in range(40)]
    table.insert(0, "image_name", names)
    folder, record = root / "oof" / run, {"task": "three", "fold_hash": "f0", "classes": classes}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("dataset: tiny\n")
    for fold, part in table[:ROWS].groupby("fold"):
        part.to_csv(folder / f"fold{fold}.csv", index=False)
        (folder / f"fold{fold}.json").write_text(json.dumps(record | facts))
    path = root / "submissions" / f"{run}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table[ROWS:].drop(columns=["fold", "target"]).sample(frac=1, random_state=seed).to_csv(
        path, index=False
    )
    return table


@pytest.fixture
def class_root(root):
    for seed, run in enumerate(("ham/a", "ham/b", "ham/c")):
        write_class_run(root, run, seed)
    return root


def test_runs_of_several_classes_become_a_probability_per_class(class_root, capsys):
    out = class_root / "out"
    runs = ["ham/a", "ham/b", "ham/c"]
    assert blend.main([*runs, "--out", str(out)]) == 0
    record = json.loads((out / "blend.json").read_text())
    assert list(record["methods"]) == ["mean", "power_mean", "single", "subset", "hill_climb"]
    assert record["objective"] == "macro_auc" and record["scale"] == "prob"
    assert list(record["classes"]) == CLASSES and sum(record["classes"].values()) == 200
    assert record["chosen"] == "mean" and "nothing beats it" in record["reason"]
    tests = [
        pd.read_csv(class_root / "submissions" / f"{run}.csv", index_col="image_name")
        for run in runs
    ]
    sent = pd.read_csv(out / "blend.csv", index_col="image_name")
    assert list(sent.columns) == [f"prob_{name}" for name in CLASSES] and len(sent) == 40
    expected = sum(test.loc[sent.index] for test in tests) / 3
    assert sent.to_numpy() == pytest.approx(expected.to_numpy())
    oof = pd.read_csv(out / "blend_oof.csv")
    assert set(oof["target"]) == set(CLASSES) and len(oof) == 200
    found = roc_auc_score(oof["target"], oof[sent.columns], multi_class="ovr", labels=CLASSES)
    assert record["methods"]["mean"]["nested"] == pytest.approx(found)
    assert record["nested_scores"]["macro_auc"]["value"] == pytest.approx(found)
    assert record["nested_scores"]["macro_f1"]["low"] < record["nested_scores"]["macro_f1"]["high"]
    assert (out / "blend.png").read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert "200 rows, 3 classes, 67 groups" in printed
    assert re.search(r"nested macro AUC 0\.\d{4} \[0\.\d{4}, [01]\.\d{4}\]", printed)


def test_the_subset_search_takes_two_or_more_of_the_members_that_serve_the_objective(class_root):
    write_class_run(class_root, "ham/noise", 7, skill=0.0)
    out, runs = class_root / "out", ["ham/a", "ham/noise", "ham/b"]
    search = ["--method", "subset", "--no-test", "--out", str(out)]
    blend.main([*runs, *search, "--objective", "macro_f1"])
    record = json.loads((out / "blend.json").read_text())
    assert record["weights"] == {"ham/a": 0.5, "ham/noise": 0.0, "ham/b": 0.5}
    assert record["objective"] == "macro_f1"
    member = pd.concat([pd.read_csv(f) for f in (class_root / "oof/ham/a").glob("fold*.csv")])
    member = member[member["image_name"] >= "ISIC_0100"]  # the rows of the test set's source
    called = np.array(CLASSES)[member[[f"prob_{name}" for name in CLASSES]].to_numpy().argmax(1)]
    expected = f1_score(member["target"], called, average="macro")
    assert record["member_scores"]["ham/a"]["macro_f1"] == pytest.approx(expected)


def test_members_of_several_classes_that_do_not_match_are_refused(class_root):
    out = ["--no-test", "--out", str(class_root / "out")]
    with pytest.raises(InputError, match="differ in task"):
        blend.main(["a", "ham/a", *out])
    write_class_run(class_root, "ham/other", 5, classes=["bkl", "mel", "nv"])
    with pytest.raises(InputError, match=r"differ in classes .*ham/other: bkl, mel, nv"):
        blend.main(["ham/a", "ham/other", *out])
    with pytest.raises(InputError, match=r"--method stacking: with several classes one of auto, m"):
        blend.main(["ham/a", "ham/b", "--method", "stacking", *out])
    with pytest.raises(InputError, match="--objective f2: with several classes one of macro_auc"):
        blend.main(["ham/a", "ham/b", "--objective", "f2", *out])
    path = class_root / "oof/ham/a/fold0.csv"
    pd.read_csv(path).assign(target="scc").to_csv(path, index=False)
    with pytest.raises(InputError, match="ham/a: targets must be bcc, mel, nv"):
        blend.main(["ham/a", "ham/b", *out])
    pd.read_csv(path).assign(prob_mel=0.9, target="mel").to_csv(path, index=False)
    with pytest.raises(InputError, match=r"fold0.csv: .* do not sum to 1, first those of ISIC_0"):
        blend.main(["ham/a", "ham/b", *out])


def test_a_test_file_of_other_columns_is_refused(class_root):
    path = class_root / "submissions/ham/b.csv"
    pd.read_csv(path).rename(columns={"prob_mel": "prob_scc"}).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"b.csv: no column prob_bcc, prob_mel, prob_nv"):
        blend.main(["ham/a", "ham/b", "--out", str(class_root / "out")])


def write_csvs(folder, change=lambda table, name: table):
    """Two plain CSVs of the public form."""
    folder.mkdir()
    for seed, name in enumerate(("x", "y")):
        table = scored(seed).rename(columns={"prob": "pred"}).assign(fold=0)
        change(table, name).to_csv(folder / f"{name}.csv", index=False)
    return str(folder)


def test_runs_by_name_become_a_submission_and_its_record(root, capsys):
    out = root / "out"
    assert blend.main(["a", "real/b", "--out", str(out)]) == 0
    record = json.loads((out / "blend.json").read_text())
    assert record["members"] == ["a", "real/b"]
    assert record["chosen"] in record["methods"] and record["reason"]
    assert sum(record["weights"].values()) == pytest.approx(1)
    assert set(record["methods"]["hill_climb"]) >= {
        "in_sample", "nested", "interval", "p_against_equal",
    }  # fmt: skip
    assert record["fold_hash"] == "f0"
    # The test set is of 2020, so weights and scores are those of the rows of 2020.
    assert record["rows"] == 200 and "isic2020 alone" in record["groups_from"]
    assert record["groups"] == 67
    hashes = {path.rsplit("/out/")[-1]: digest for path, digest in record["hashes"].items()}
    assert len(hashes) == 6  # four folds and two test files
    assert sha256(root / "oof" / "a" / "fold0.csv") in hashes.values()
    sent = pd.read_csv(out / "blend.csv")
    assert list(sent.columns) == ["image_name", "target"] and len(sent) == 40
    assert record["submission"]["sha256"] == sha256(out / "blend.csv")
    assert (out / "blend.png").read_bytes()[:4] == b"\x89PNG"
    assert len(pd.read_csv(out / "blend_oof.csv")) == 200
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.search(r"wrote blend.csv.* nested AUC 0\.\d{4} \[0\.\d{4}, [01]\.\d{4}\]", last)


def test_the_test_set_is_joined_by_name_and_blended_by_the_weights(root):
    blend.main(["a", "real/b", "--out", str(root / "out"), "--method", "rank_mean"])
    sent = pd.read_csv(root / "out" / "blend.csv").set_index("image_name")["target"]
    tests = [pd.read_csv(root / "submissions" / f"{run}.csv") for run in ("a", "real/b")]
    ranks = [table.set_index("image_name")["target"].rank() / 40 for table in tests]
    assert list(sent.index) == list(tests[0]["image_name"])
    assert sent.to_numpy() == pytest.approx(((ranks[0] + ranks[1]) / 2).loc[sent.index])
    record = json.loads((root / "out" / "blend.json").read_text())
    assert record["chosen"] == "rank_mean" and "asked for" in record["reason"]


def test_a_missing_test_file_names_the_command(root):
    (root / "submissions" / "a.csv").unlink()
    with pytest.raises(InputError, match=r"python scripts/predict.py --run a, or .*--no-test"):
        blend.main(["a", "real/b", "--out", str(root / "out")])
    assert blend.main(["a", "real/b", "--out", str(root / "out"), "--no-test"]) == 0
    assert not (root / "out" / "blend.csv").exists()


def test_plain_files_are_blended_without_groups_and_that_is_said(root, tmp_path, capsys):
    folder = write_csvs(tmp_path / "plain")
    assert blend.main([folder, "--no-test", "--out", str(tmp_path / "out")]) == 0
    assert "NO GROUPS" in capsys.readouterr().out
    groups = tmp_path / "groups.csv"
    table = scored(0)[["image_name"]].assign(patient_id=[f"p{i // 3}" for i in range(ROWS)])
    table.loc[0, "patient_id"] = None
    table.to_csv(groups, index=False)
    blend.main([folder, "--no-test", "--out", str(tmp_path / "out"), "--groups", str(groups)])
    assert "NO GROUPS" not in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "blend.json").read_text())["groups"] == 101


def test_plain_files_take_test_files_in_the_same_order(root, tmp_path):
    folder = write_csvs(tmp_path / "plain")
    tests = [str(root / "submissions" / "a.csv"), str(root / "submissions" / "real" / "b.csv")]
    out = ["--out", str(tmp_path / "out")]
    assert blend.main([folder, "--test", *tests, *out]) == 0
    assert len(pd.read_csv(tmp_path / "out" / "blend.csv")) == 40
    with pytest.raises(InputError, match="2 members are plain CSVs and 1 --test files"):
        blend.main([folder, "--test", tests[0], *out])


def test_runs_of_different_folds_or_tasks_are_refused_by_name(root):
    write_run(root, "other_folds", 2, fold_hash="f1")
    with pytest.raises(InputError, match=r"differ in fold_hash .*a: f0, other_folds: f1"):
        blend.main(["a", "other_folds", "--no-test"])
    write_run(root, "other_task", 2, task="diagnosis")
    with pytest.raises(InputError, match=r"differ in task .*other_task: diagnosis"):
        blend.main(["a", "other_task", "--no-test"])


def test_a_run_whose_folds_are_of_two_schemes_is_refused(root):
    (root / "oof" / "a" / "fold1.json").write_text('{"task": "melanoma", "fold_hash": "f9"}')
    with pytest.raises(InputError, match=r"fold1.json: fold_hash f9 but f0"):
        blend.main(["a", "real/b", "--no-test"])


def changed(name, change):
    """A change to one of the files."""
    return lambda table, of: change(table) if of == name else table


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed("y", lambda t: t.drop(index=[3, 4])), "y lacks 2 of 300 images .ISIC_0003"),
        (changed("y", lambda t: pd.concat([t, t.head(1)])), "y: 1 doubled rows .ISIC_0000"),
        (changed("x", lambda t: t.assign(pred=0.5)), "x: its column is constant"),
        (changed("x", lambda t: t.assign(pred=t["pred"].where(t.index > 1))), "x.csv: pred is not"),
        (changed("x", lambda t: t.assign(pred=t["pred"] * 9)), "x.csv: pred runs from .* 0 to 1"),
        (changed("y", lambda t: t.assign(target=1 - t["target"])), "x and y disagree"),
        (changed("y", lambda t: t.assign(target="nv")), "y: targets must be 0 or 1"),
        (changed("y", lambda t: t.drop(columns="pred")), "y.csv: no column prob, pred or prob_"),
    ],
)  # fmt: skip
def test_members_that_do_not_match_are_refused_by_name(root, tmp_path, change, told):
    folder = write_csvs(tmp_path / "plain", change)
    with pytest.raises(InputError, match=told):
        blend.main([folder, "--no-test", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_is_no_member_is_named_with_what_there_is(root):
    with pytest.raises(InputError, match=r"nowhere: no run .*real/b.*configs/nowhere.yaml"):
        blend.main(["a", "nowhere"])
    with pytest.raises(InputError, match="two or more members"):
        blend.main(["a"])
    with pytest.raises(InputError, match="given twice"):
        blend.main(["a", "a"])
    with pytest.raises(InputError, match="one of auto, rank_mean"):
        blend.main(["a", "real/b", "--method", "magic", "--no-test"])
