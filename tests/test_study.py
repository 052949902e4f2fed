"""Studies: resumed run by run, chosen on validation alone, tested once, compared fairly."""

from collections.abc import Callable
from pathlib import Path

import ham10000
import numpy as np
import pandas as pd
import pytest
import screening
import yaml
from blend import main as blend
from dermamnist import main
from screening import MissingWeights, Study, entry, ranked
from sklearn.metrics import fbeta_score, precision_recall_curve, recall_score
from written import written_run

from lesions.data.table import load_table
from lesions.data.tasks import build_task
from lesions.errors import InputError
from lesions.files import read_json
from lesions.oof import load_oof
from lesions.paths import CODE, at
from lesions.training.state import Busy

CNN = str(CODE / "configs/dermamnist/cnn.yaml")
TINY = ["train.epochs=1", "train.batch_size=32", "train.micro_batch=32", "train.precision=fp32"]
SMALL = [*TINY, "model.backbone_args={filters: 4, dense: 8}", "predict.views=1"]
CONFIG = {
    "official": "dermamnist",
    "grouped": "dermamnist_grouped",
    "pool": 2,
    "published": {"auc": 0.877, "f2": 0.714, "recall": 0.8},
    "aims": {"auc": 0.5, "f2": 1.1, "recall": 0.9},
    "arms": {
        "Small": {"base": CNN, "set": SMALL},
        "Smaller": {"base": CNN, "set": [*SMALL, "model.backbone_args.filters=2"]},
        "Frozen": {
            "base": CNN,
            "set": [*TINY, "model.backbone=mobilenetv3_small_050.lamb_in1k",
                    "model.pretrained=true"],
            "trainable": "head",
        },
    },
    "classes": {"Seven": {"base": CNN, "set": [
        *SMALL, "data.task=diagnosis7", "train.monitor=auc",
        "loss={kind: cross_entropy, alpha: 0, pos_weight: balanced}",
    ]}},
    "experiments": {CNN: {"lr 1e-2": ["train.lr=1e-2"]}},
    "forms": {
        "full": {"note": "Tiny.", "seeds": {"Small": 2, "final": 2}},
        "quick": {"note": "Tinier.", "arms": ["Small"], "experiments": [], "test": False},
    },
}  # fmt: skip

SMALLER = {name: CONFIG["arms"][name] for name in ("Small", "Smaller")}
FEW = CONFIG | {"experiments": {}, "grouped": None, "classes": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """DermaMNIST in small, prepared under both splits: malignant lesions are the darker ones."""
    from prepare import main as prepare

    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("derma")
    arrays, known = {}, []
    for part, count in (("train", 128), ("val", 48), ("test", 64)):
        labels = draw.integers(0, 7, count)
        light = np.where(np.isin(labels, [0, 1, 4]), 90, 160)[:, None, None, None]
        pixels = light + draw.normal(0, 60, (count, 28, 28, 3))
        arrays[f"{part}_images"] = pixels.clip(0, 255).astype(np.uint8)
        arrays[f"{part}_labels"] = labels[:, None].astype(np.uint8)
        # every fourth lesion of a part is also one of the training part
        names = [f"L{n if part == 'train' or n % 4 == 0 else f'{part}{n}'}" for n in range(count)]
        known += [{"split": part, "index": n, "lesion_id": names[n]} for n in range(count)]
    np.savez(folder / "dermamnist.npz", **arrays)
    pd.DataFrame(known).to_csv(folder / "dermamnist_to_ham10000.csv", index=False)
    for name in ("dermamnist", "dermamnist_grouped"):
        prepare(["--dataset", name, "--size", "28", "--input", f"dermamnist={folder}"])
    return folder


@pytest.fixture
def path(data, tmp_path) -> Path:
    """A study config of its own, so that each test has runs and a seal of its own."""
    written = tmp_path / f"s_{tmp_path.name}.yaml"
    written.write_text(dumped(CONFIG))
    return written


def dumped(config: dict) -> str:
    return yaml.safe_dump(config, sort_keys=False)


def weights(path: Path) -> dict[str, int]:
    """When each run of the full form was trained, by its name."""
    files = at("oof", path.stem, "full").glob("*/fold0.safetensors")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def test_a_stopped_study_resumes_and_a_finished_one_trains_and_opens_nothing_again(path, capsys):
    assert main([str(path), "--max-hours", "1e-9"]) == 75
    assert "run the same command again" in capsys.readouterr().out
    assert main([str(path)]) == 0
    runs, folder = weights(path), at("oof", path.stem, "full")
    results = read_json(folder / "study.json")
    told = capsys.readouterr().out
    assert "opened, once" in told and "OPENED AGAIN" not in told
    assert {"small", "small_s1", "smaller"} < {*runs} and any("grouped" in run for run in runs)
    assert main([str(path), "--out", str(path.with_suffix(".json")), "--allow-dirty"]) == 0
    repeated = read_json(path.with_suffix(".json"))
    assert weights(path) == runs and repeated["tests"] == results["tests"]
    assert len(repeated["openings"]) == 1
    check_results(repeated, folder)
    page = (folder / "report.md").read_text()
    assert "The test set was opened once" in page and "| Small, seed 43 |" in page


def check_results(results: dict, folder: Path) -> None:
    """Scores by scikit-learn, and which rows were scored."""
    assert {one["name"] for one in results["phase1"][:2]} == {"Small", "Smaller"}
    assert "weights" in results["phase1"][2]["skipped"]
    official, unseen, grouped = results["tests"]
    assert (official["rows"], unseen["rows"]) == (64, 48)
    assert results["data"][0]["test_rows_of_known_lesions"] == 16
    assert results["data"][1]["test_rows_of_known_lesions"] == 0
    assert grouped["name"] == "dermamnist_grouped"
    probs = pd.read_csv(folder / f"test_dermamnist_{results['opening']}.csv")
    table = load_table("dermamnist")[0].set_index("image_name").loc[probs["image_name"]]
    malignant = table["diagnosis"].isin(["akiec", "bcc", "mel"]).to_numpy()
    precisions, recalls, _ = precision_recall_curve(malignant, probs["prob"])
    found = results["verdicts"][-1]
    assert "at the published recall of 0.8" in found["rule"]
    assert found["found"]["value"] == pytest.approx(precisions[recalls >= 0.8][-1])
    seven = pd.read_csv(folder / f"test_classes_{results['opening']}.csv").set_index("image_name")
    most = seven.idxmax(axis=1).str.removeprefix("prob_")
    accuracy = (most == table.loc[most.index, "diagnosis"]).mean() if len(most) == 64 else None
    assert results["classes"][0]["test"]["accuracy"]["value"] == pytest.approx(accuracy)
    called = probs["prob"] >= official["decisions"][0]["threshold"]
    f2 = fbeta_score(malignant, called, beta=2)
    assert official["decisions"][0]["f2"]["value"] == pytest.approx(f2)
    assert results["verdicts"][1]["passed"] is False


def test_the_quick_form_fits_thresholds_on_validation_rows_and_leaves_the_test_set_closed(path):
    assert main([str(path), "--quick"]) == 0
    results = read_json(at("oof", path.stem, "quick", "study.json"))
    assert not results["tests"] and not at("oof", path.stem, "seal.json").exists()
    assert not [*at("oof", path.stem).rglob("test_*.csv")]
    rows = pd.read_csv(at("oof", results["finals"][0]["runs"][0], "fold0.csv"))
    by_f2, by_recall = results["finals"][0]["decisions"]
    assert recall_score(rows["target"], rows["prob"] >= by_recall["threshold"]) >= 0.9
    assert recall_score(rows["target"], rows["prob"] > by_recall["threshold"]) < 0.9
    best = max(fbeta_score(rows["target"], rows["prob"] >= cut, beta=2) for cut in rows["prob"])
    assert by_f2["f2"]["value"] == pytest.approx(best)


def test_runs_of_another_process_are_skipped_and_named_when_all_others_are_done(path, monkeypatch):
    def busy(config, run, *others):
        if run.endswith("/small"):
            raise Busy("process 7 trains it")
        return train_folds(config, run, *others)

    forms = {"full": {"note": "Two.", "test": False}}
    path.write_text(dumped(FEW | {"arms": SMALLER, "forms": forms}))
    train_folds = screening.train_folds
    with (
        monkeypatch.context() as patch,
        pytest.raises(Busy, match="7 .*run the same command again"),
    ):
        patch.setattr(screening, "train_folds", busy)
        main([str(path)])
    assert {*weights(path)} == {"smaller"}
    assert main([str(path)]) == 0
    assert weights(path)["smaller"] < weights(path)["small"]


def test_other_thresholds_are_another_opening_of_the_test_set(path, capsys):
    few = FEW | {"arms": {"Small": SMALLER["Small"]}, "forms": {"full": {"note": "One."}}}
    path.write_text(dumped(few))
    assert main([str(path)]) == 0
    assert "OPENED AGAIN" not in capsys.readouterr().out
    path.write_text(dumped(few | {"recall": 0.5}))
    assert main([str(path)]) == 0
    assert "OPENED AGAIN: this is opening 2" in capsys.readouterr().out
    assert len(read_json(at("oof", path.stem, "full", "study.json"))["openings"]) == 2


def test_the_rule_is_mean_f2_to_three_decimals_then_fewest_missed():
    def line(name: str, *runs: tuple[float, int]) -> dict:
        return entry(name, [{"f2": {"value": f2}, "fn": missed} for f2, missed in runs])

    low, close = line("low", (0.70, 0)), line("close", (0.7203, 12))
    seeds = line("seeds", (0.7, 9), (0.7396, 11))  # mean 0.7198
    skipped = entry("none", [], "no weights")
    found = [one["name"] for one in ranked([skipped, low, close, seeds])]
    assert found == ["seeds", "close", "low", "none"]
    assert seeds["spread"] == pytest.approx(0.0396)


def test_a_frozen_network_without_weights_is_not_trained_and_a_whole_one_says_so(path):
    with pytest.raises(MissingWeights, match="weights"):
        Study(path, "full").plan("Frozen")
    whole = CONFIG | {"arms": {"Whole": CONFIG["arms"]["Frozen"] | {"trainable": "all"}}}
    path.write_text(dumped(whole | {"forms": {"full": {"note": "x"}}}))
    planned = Study(path, "full").plan("Whole")
    assert planned.config.model.pretrained is False
    assert planned.note.startswith("from random weights: ")


def test_unknown_names_in_a_form_are_refused(path):
    path.write_text(dumped(CONFIG | {"forms": {"full": {"note": "x", "arms": ["Huge"]}}}))
    with pytest.raises(InputError, match="Huge"):
        main([str(path)])
    path.write_text(dumped(CONFIG))
    with pytest.raises(InputError, match="no form slow.*full"):
        main([str(path), "--form", "slow"])


def test_the_shipped_study_has_the_published_runs(monkeypatch):
    monkeypatch.setattr(screening, "missing_weights", lambda config: "")
    study = Study(CODE / "configs/dermamnist/study.yaml", "full")
    plans = [study.plan(name) for name in study.arms]
    assert len({planned.run for planned in plans}) == 14
    assert plans[0].run == "dermamnist/full/cnn_shallow"
    for arm in ("Hybrid", "MobileNetV2 full"):
        base = study.plan(arm).config
        changed = [study.plan(arm, name).config for name in study.experiments(arm)]
        assert len(changed) == 8 and all(config != base for config in changed)
    for planned in plans:
        assert planned.config.train.monitor == "f2" and planned.config.train.optimizer == "adam"


def published_comparison(system: dict) -> dict:
    """What studies/ham10000.py finds of one published system."""
    return ham10000.compare_system(ham10000.System(**system), load_oof("w/whole"), 0.9)


def write_run(name: str, dataset: str, changed: Callable[[np.ndarray], np.ndarray]) -> None:
    """A run of drawn predictions, `changed` of its names, on fold 0 and on the test rows."""
    table = load_table(dataset)[0]
    codes = build_task("diagnosis7").codes(table["diagnosis"])
    generator = np.random.default_rng(0)
    probs = generator.dirichlet(np.ones(7), len(table)) + 0.4 * np.eye(7)[codes]
    rows = changed(table["image_name"].to_numpy())
    probs[rows] = probs[rows, ::-1]
    probs /= probs.sum(axis=1, keepdims=True)
    folds = table["fold"].where(table["fold"] == 0, -1)
    written_run(
        name, dataset, table.assign(fold=folds), probs, "diagnosis7", seconds=1, device="cpu"
    )


@pytest.mark.parametrize(("part", "rows"), [("val", 48), ("test", 64)])
def test_threshold_and_prior_correction_are_of_rows_that_are_not_scored(data, part, rows):
    table = load_table("dermamnist")[0]
    wanted = table["split"] == "test" if part == "test" else table["fold"] == 0
    scored = table.loc[wanted, "image_name"]
    system = {
        "system": "1", "run": "w/theirs", "part": part, "rows": rows, "source": "s",
        "published": {"malignant_auc": 0.5, "malignant_recall": 0.5},
    }  # fmt: skip
    write_run("w/theirs", "dermamnist", lambda names: np.zeros(len(names), bool))
    found = {}
    for name, changed in {
        "as it is": lambda names: np.zeros(len(names), bool),
        "on scored rows": lambda names: np.isin(names, scored),
        "on training rows": lambda names: ~np.isin(names, scored),
    }.items():
        write_run("w/whole", "dermamnist_grouped", changed)
        one = published_comparison(system)
        ours = {key: score["ours"] for key, score in one["scores"].items()}
        found[name] = (ours, one["weighed"])
    assert found["on scored rows"] == found["as it is"] != found["on training rows"]
    with pytest.raises(InputError, match=f"{rows} rows, but system 1 scored 7"):
        published_comparison(system | {"rows": 7})


def test_a_blend_is_scored_on_test_rows_and_not_on_those_that_chose_it(data):
    write_run("w/one", "dermamnist", lambda names: np.zeros(len(names), bool))
    write_run("w/two", "dermamnist", lambda names: np.arange(len(names)) % 3 == 0)
    write_run("w/whole", "dermamnist_grouped", lambda names: np.zeros(len(names), bool))
    blend(["w/one", "w/two", "--method", "mean", "--out", str(at("submissions/w/both"))])
    table = load_table("dermamnist")[0]
    system = {
        "system": "1", "run": "w/both/blend.json", "part": "test", "rows": 64, "source": "s",
        "published": {"accuracy": 0.5},
    }  # fmt: skip
    found = published_comparison(system)["scores"]["accuracy"]["ours"]["value"]
    files = [at("submissions", f"w/{name}.csv") for name in ("one", "two")]
    mean = sum(pd.read_csv(file, index_col="image_name") for file in files) / 2
    answer = mean.columns.str.removeprefix("prob_")[mean.to_numpy().argmax(axis=1)]
    diagnosis = table.set_index("image_name")["diagnosis"].loc[mean.index]
    assert found == pytest.approx((answer == diagnosis).mean())
    with pytest.raises(InputError, match="a blend is chosen on validation rows"):
        published_comparison(system | {"part": "val", "rows": 48})
