"""scripts/blend.py from files to files, and what it refuses."""

import json
import re

import blend
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from test_oof import ROWS, SEVEN, TESTS, build_root, edit, whole_table, write_run

from lesions.errors import InputError
from lesions.files import sha256
from lesions.oof import load_oof

root = pytest.fixture(build_root)


def blended(root, *arguments):
    """Run the script into a folder of its own, and read its blend.json."""
    assert blend.main([*arguments, "--out", str(root / "out")]) == 0
    return json.loads((root / "out/blend.json").read_text())


def test_runs_by_name_become_a_submission_and_its_record(root, capsys):
    record = blended(root, "a", "real/b")
    assert record["members"] == ["a", "real/b"]
    methods = ["rank_mean", "mean", "single", "subset", "hill_climb", "stacking"]
    assert list(record["methods"]) == methods
    assert record["chosen"] in record["methods"] and record["reason"]
    assert sum(record["weights"].values()) == pytest.approx(1)
    known = {"in_sample", "nested", "interval", "p_against_equal"}
    assert known <= set(record["methods"]["hill_climb"])
    facts = json.loads((root / "input/prepared/tiny/table.json").read_text())
    assert all(record[key] == facts[key] for key in ("table_hash", "fold_hash", "dataset"))
    # The test set is of 2020, so weights and scores are those of the rows of 2020.
    assert record["rows"] == 200 and "isic2020 alone" in record["groups_from"]
    assert record["groups"] == 67
    assert len(record["hashes"]) == 6  # four folds and two test files
    assert record["hashes"]["oof/a/fold0.csv"] == sha256(root / "oof/a/fold0.csv")
    sent = pd.read_csv(root / "out/blend.csv")
    assert list(sent.columns) == ["image_name", "target"] and len(sent) == TESTS
    assert record["submission"]["sha256"] == sha256(root / "out/blend.csv")
    assert (root / "out/blend.png").read_bytes()[:4] == b"\x89PNG"
    last = capsys.readouterr().out.strip().splitlines()[-1]
    score = r"0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)"
    assert re.search(rf"nested AUC {score}; on the same [\d,]+ rows the best .*: {score}", last)


def test_the_blends_own_rows_are_read_back_and_refused_where_they_changed(root):
    record = blended(root, "a", "real/b")
    oof = load_oof(root / "out/blend.json")
    assert oof.dataset == "tiny" and len(oof.names) == 200 and not oof.is_probability
    found = roc_auc_score(oof.codes, oof.probs[:, 0])
    assert record["methods"][record["chosen"]]["nested"] == pytest.approx(found)
    edit(root / "out/blend_oof.csv", lambda t: t.assign(prob=0.5))
    with pytest.raises(InputError, match="blend_oof.csv is not the one that blend.json names: bl"):
        load_oof(root / "out/blend.json")


def test_the_test_set_is_joined_by_name_and_blended_by_the_weights(root):
    record = blended(root, "a", "real/b", "--method", "rank_mean")
    assert record["chosen"] == "rank_mean" and "asked for" in record["reason"]
    sent = pd.read_csv(root / "out/blend.csv").set_index("image_name")["target"]
    tests = [pd.read_csv(root / f"submissions/{run}.csv") for run in ("a", "real/b")]
    ranks = [table.set_index("image_name")["target"].rank() / TESTS for table in tests]
    assert list(sent.index) == list(tests[0]["image_name"])
    assert sent.to_numpy() == pytest.approx(((ranks[0] + ranks[1]) / 2).loc[sent.index])


def test_runs_of_several_classes_become_a_probability_per_class(root, capsys):
    write_run(root, "ham/c", 2, "diagnosis7")
    runs = ["ham/a", "ham/b", "ham/c"]
    record = blended(root, *runs)
    assert list(record["methods"]) == ["mean", "single", "subset", "hill_climb"]
    assert record["objective"] == "macro_auc" and record["scale"] == "prob"
    assert list(record["classes"]) == list(SEVEN.classes)
    assert sum(record["classes"].values()) == 200
    assert record["chosen"] == "mean" and "nothing beats it" in record["reason"]
    tests = [pd.read_csv(root / f"submissions/{run}.csv", index_col="image_name") for run in runs]
    sent = pd.read_csv(root / "out/blend.csv", index_col="image_name")
    assert list(sent.columns) == SEVEN.columns and len(sent) == TESTS
    expected = sum(test.loc[sent.index] for test in tests) / 3
    assert sent.to_numpy() == pytest.approx(expected.to_numpy())
    oof = load_oof(root / "out/blend.json")
    assert oof.task == SEVEN and oof.is_probability and len(oof.names) == 200
    found = roc_auc_score(oof.codes, oof.probs, multi_class="ovr")
    assert record["methods"]["mean"]["nested"] == pytest.approx(found)
    assert record["nested_scores"]["macro_auc"]["value"] == pytest.approx(found)
    assert record["nested_scores"]["macro_f1"]["low"] < record["nested_scores"]["macro_f1"]["high"]
    printed = capsys.readouterr().out
    assert "200 rows, 7 classes, 67 groups" in printed
    assert re.search(r"nested macro AUC 0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)", printed)


def test_the_subset_search_takes_two_or_more_members_that_serve_the_objective(root):
    write_run(root, "ham/noise", 7, "diagnosis7", skill=0.0)
    runs, search = ["ham/a", "ham/noise", "ham/b"], ["--method", "subset", "--no-test"]
    record = blended(root, *runs, *search, "--objective", "macro_f1")
    assert record["weights"] == {"ham/a": 0.5, "ham/noise": 0.0, "ham/b": 0.5}
    member = load_oof("ham/a").of_source()
    expected = f1_score(member.codes, member.probs.argmax(axis=1), average="macro")
    assert record["member_scores"]["ham/a"]["macro_f1"] == pytest.approx(expected)


def record_weights(root, run):
    """Weights of a run, and the record that predict.py writes beside its test predictions."""
    file, sent = root / f"oof/{run}/fold0.safetensors", root / f"submissions/{run}.csv"
    file.write_text("weights")
    facts = {"run": run, "sha256": sha256(sent), "weights": {file.name: sha256(file)}}
    sent.with_suffix(".json").write_text(json.dumps(facts))
    return facts["weights"]


def test_the_weights_behind_the_test_predictions_are_recorded(root, capsys):
    weights = {run: record_weights(root, run) for run in ("a", "real/b")}
    assert blended(root, "a", "real/b")["weights_files"] == weights
    assert capsys.readouterr().err == ""
    (root / "submissions/a.json").unlink()
    assert blended(root, "a", "real/b")["weights_files"] == weights | {"a": {}}
    assert capsys.readouterr().err.count("warning: no record of the weights behind") == 1


def test_a_run_that_was_trained_again_since_it_was_predicted_is_refused(root):
    for run in ("a", "real/b"):
        record_weights(root, run)
    weights = root / "oof/real/b/fold0.safetensors"
    before = weights.read_text()
    weights.write_text("trained again")
    again = "run python scripts/predict.py --run real/b"
    with pytest.raises(InputError, match=rf"fold0.safetensors of oof/real/b changed .*: {again}"):
        blend.main(["a", "real/b"])
    weights.write_text(before)
    (root / "oof/real/b/fold1.safetensors").write_text("a fold more")
    with pytest.raises(InputError, match=rf"fold1.safetensors of .* changed .*: {again}"):
        blend.main(["a", "real/b"])
    (root / "oof/real/b/fold1.safetensors").unlink()
    edit(root / "submissions/real/b.csv", lambda t: t.assign(target=t["target"] / 2))
    with pytest.raises(InputError, match=f"is not the file that b.json names: {again}"):
        blend.main(["a", "real/b"])


def test_a_missing_test_file_names_the_command_and_oof_rows_are_refused(root):
    (root / "submissions/a.csv").unlink()
    with pytest.raises(InputError, match=r"python scripts/predict.py --run a, or .*--no-test"):
        blend.main(["a", "real/b"])
    blended(root, "a", "real/b", "--no-test")
    assert not (root / "out/blend.csv").exists()
    known = pd.DataFrame({"image_name": ["ISIC_0007", "new"], "target": [0.1, 0.2]})
    known.to_csv(root / "submissions/a.csv", index=False)
    told = r"a.csv: it has out-of-fold rows of a: 1 images .ISIC_0007"
    with pytest.raises(InputError, match=told):
        blend.main(["a", "real/b"])


def write_csvs(root, change=lambda table, name: table):
    """A folder of two plain CSVs of the public form, and one of their test files."""
    for folder in ("plain", "sent"):
        (root / folder).mkdir()
    for seed, name in enumerate(("x", "y")):
        table = write_run(root, f"from/{name}", seed).rename(columns={"prob": "pred"})
        own = change(table[:ROWS].reset_index(drop=True), name)
        own.to_csv(root / f"plain/oof_{name}.csv", index=False)
        sent = table[ROWS:][["image_name", "pred"]].rename(columns={"pred": "target"})
        sent.to_csv(root / f"sent/submission_{name}.csv", index=False)
    return str(root / "plain")


def test_plain_files_are_blended_without_groups_or_by_those_of_a_file_or_a_run(root, capsys):
    folder = write_csvs(root)
    record = blended(root, folder, "--no-test")
    assert "NO GROUPS" in capsys.readouterr().out and record["groups"] == ROWS
    assert load_oof(root / "out/blend.json").dataset is None
    groups = root / "groups.csv"
    whole_table()[["image_name", "group"]].to_csv(groups, index=False)
    record = blended(root, folder, "--no-test", "--groups", str(groups))
    assert "NO GROUPS" not in capsys.readouterr().out
    assert record["groups"] == 100 == len(set(load_oof(root / "out/blend.json").groups))
    record = blended(root, folder, "a", "--test", str(root / "sent"))
    assert record["members"] == ["oof_x", "oof_y", "a"]
    assert record["rows"] == 200 and record["groups"] == 67 and record["dataset"] == "tiny"
    assert list(record["weights_files"]) == ["a"]


def test_test_files_belong_to_the_member_of_their_name_in_any_order(root):
    folder = write_csvs(root)
    sent = [str(root / f"sent/submission_{name}.csv") for name in "yx"]
    record = blended(root, folder, "--test", *sent, "--method", "single")
    (best,) = (name for name, weight in record["weights"].items() if weight == 1)
    files = f"sent/submission_{best[-1]}.csv", "out/blend.csv"
    own, found = (pd.read_csv(root / file, index_col="image_name")["target"] for file in files)
    assert found.to_numpy() == pytest.approx(own.rank().loc[found.index] / TESTS)
    for given in (sent[:1], [sent[0], str(root / "submissions/a.csv")]):
        with pytest.raises(InputError, match=r"members that are CSV files: oof_x, oof_y; --test f"):
            blend.main([folder, "--test", *given])


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("y", lambda t: t.drop(index=[3, 4]), "oof_y lacks, of the 300 of all members: 2 i"),
        ("x", lambda t: t.assign(pred=0.5), "oof_x: its column is constant"),
        ("y", lambda t: t.assign(target=1 - t["target"]), "oof_x and oof_y disagree on the"),
        ("y", lambda t: t.assign(pred=1 - t["pred"]), "oof_y is upside down: AUC 0.3"),
    ],
)  # fmt: skip
def test_members_that_do_not_match_are_refused_by_name(root, name, change, told):
    folder = write_csvs(root, lambda table, own: change(table) if own == name else table)
    with pytest.raises(InputError, match=told):
        blend.main([folder, "--no-test", "--out", str(root / "out")])
    assert not (root / "out").exists()


def test_runs_of_other_tasks_classes_or_folds_are_refused(root):
    with pytest.raises(InputError, match="differ in task .a: melanoma; ham/a: diagnosis7"):
        blend.main(["a", "ham/a", "--no-test"])
    with pytest.raises(InputError, match="differ in classes .oof_x: one score; .* ham/a: akiec"):
        blend.main([write_csvs(root), "ham/a", "--no-test"])
    (root / "oof/real/b/fold1.csv").unlink()
    with pytest.raises(InputError, match=r"real/b lacks, of the 300 .*: train the missing folds"):
        blend.main(["a", "real/b", "--no-test"])
    edit(root / "oof/ham/a/fold0.csv", lambda t: t.assign(target="scc"))
    with pytest.raises(InputError, match="target scc is not akiec, bcc, bkl, df, mel, nv, vasc"):
        blend.main(["ham/a", "ham/b", "--no-test"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ham/a ham/b --method stacking", "--method stacking: with several classes one of auto, m"),
        ("ham/a ham/b --objective f2", "--objective f2: with several classes one of macro_auc"),
        ("a real/b --method magic", "--method magic: with two classes one of auto, rank_mean"),
        ("a real/b --source isic2018", "--source isic2018: the rows are of isic2019, isic2020"),
        ("a", "two or more members"),
        ("a a", "given twice: "),
    ],
)
def test_options_that_do_not_fit_are_refused(root, arguments, told):
    with pytest.raises(InputError, match=told):
        blend.main([*arguments.split(), "--no-test"])
