"""The study: resumed run by run, chosen by its rule on validation alone, tested once."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study as script
import yaml
from sklearn.metrics import precision_recall_curve

from lesions.config import load_config
from lesions.data.table import load_table
from lesions.data.tasks import TASKS
from lesions.errors import InputError
from lesions.paths import at
from lesions.reporting.study_doc import study_page
from lesions.reporting.study_tables import seal_text
from lesions.study import course, final
from lesions.study.config import MissingWeights, Study
from lesions.study.leaderboard import entry, ranked, scored_rows
from lesions.study.seal import open_test
from lesions.training.state import locked
from lesions.training.stop import StopRequest

CNN = str(at("configs") / "dermamnist" / "cnn.yaml")
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
    "experiments": {CNN: {"lr 1e-2": ["train.lr=1e-2"]}},
    "forms": {
        "full": {"note": "Tiny.", "seeds": {"Small": 2, "final": 2}},
        "quick": {"note": "Tinier.", "arms": ["Small"], "experiments": [], "test": False},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def path(data: Path, tmp_path: Path) -> Iterator[Path]:
    """A study config of its own, so that each test has runs and a seal of its own."""
    written = tmp_path / f"s_{tmp_path.name}.yaml"
    written.write_text(dumped(CONFIG))
    yield written


def dumped(config: dict) -> str:
    return yaml.safe_dump(config, sort_keys=False)


def trained(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[str]:
    """The runs that are really trained from now on; a kill comes after `most` of them."""
    runs: list[str] = []
    real = course.train_fold

    def counted(config, run, fold, accelerator, stop):
        if not (at("oof") / run / "fold0.json").exists():
            if most is not None and len(runs) == most:
                raise KeyboardInterrupt
            runs.append(run.rpartition("/")[2])
        return real(config, run, fold, accelerator, stop)

    monkeypatch.setattr(course, "train_fold", counted)
    return runs


def test_a_killed_study_goes_on_with_the_next_run_and_a_finished_one_costs_nothing(
    path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        first = trained(patch, most=2)
        with pytest.raises(KeyboardInterrupt):
            script.main([str(path)])
    with monkeypatch.context() as patch:
        rest = trained(patch)
        assert script.main([str(path), "--out", str(path.with_suffix(".json"))]) == 0
    assert first == ["small", "small_s1"]
    assert rest[0] == "smaller" and rest[1].endswith("_lr_1e-2")
    assert rest[-1].endswith("_grouped") and len(set(first + rest)) == len(first + rest)
    results = json.loads(path.with_suffix(".json").read_text())
    written = {file: file.stat().st_mtime_ns for file in at("oof").glob(f"{path.stem}/full/*/fold0.json")}

    def never(*_):
        raise AssertionError("a test row was predicted again")

    with monkeypatch.context() as patch:
        patch.setattr(final, "predict_test", never)
        again = trained(patch)
        assert script.main([str(path), "--out", str(path.with_suffix(".json"))]) == 0
    repeated = json.loads(path.with_suffix(".json").read_text())
    assert not again and len(written) == len(first + rest)
    assert written == {file: file.stat().st_mtime_ns for file in written}
    assert repeated["tests"] == results["tests"]
    assert len(repeated["openings"]) == 1
    assert "OPENED AGAIN" not in capsys.readouterr().out
    report = (at("oof") / path.stem / "full" / "report.html").read_text()
    assert "opened once" in report and "of 100 malignant lesions are flagged" in report
    check_page(study_page(repeated), repeated)


def check_page(page: str, results: dict) -> None:
    assert "Not run: Frozen (the weights of mobilenetv3_small_050.lamb_in1k are not" in page
    assert [one["name"] for one in results["phase1"]] == ["Small", "Smaller", "Frozen"]
    official, unseen, grouped = results["tests"]
    assert (official["rows"], unseen["rows"]) == (64, 48)
    assert results["data"][0]["test_rows_of_known_lesions"] == 16
    assert results["data"][1]["test_rows_of_known_lesions"] == 0
    assert grouped["name"] == "dermamnist_grouped"
    told = pd.read_csv(next(at("oof").glob(f"*/*/test_dermamnist_{results['opening']}.csv")))
    table = load_table("dermamnist")[0].set_index("image_name").loc[told["image_name"]]
    malignant = table["diagnosis"].isin(["akiec", "bcc", "mel"])
    precisions, recalls, _ = precision_recall_curve(malignant, told["prob"])
    there = results["verdicts"][-1]
    assert "at the published recall of 0.8" in there["rule"]
    assert there["found"]["value"] == pytest.approx(precisions[recalls >= 0.8][-1])
    auc, f2 = results["verdicts"][:2]
    assert auc["passed"] == (auc["found"]["value"] >= 0.5) and f2["passed"] is False
    for table in [block for block in page.split("\n\n") if block.startswith("|")]:
        assert len({row.replace("\\|", "").count("|") for row in table.splitlines()}) == 1


def test_what_another_process_is_at_is_passed_over_and_waited_for(path, monkeypatch, capsys):
    held = ExitStack()
    held.enter_context(locked(at("oof") / path.stem / "full" / "small" / ".fold0.lock"))
    monkeypatch.setattr(course.time, "sleep", lambda _: held.close())
    tried = trained(monkeypatch)
    assert script.main([str(path)]) == 0
    assert tried[:4] == ["small", "small_s1", "smaller", "small"]
    with locked(at("oof") / path.stem / "quick" / "small" / ".fold0.lock"):
        assert script.main([str(path), "--quick", "--max-hours", "0.0001"]) == 75
    assert "the same command goes on from here" in capsys.readouterr().out


def test_the_quick_form_leaves_the_test_set_closed(path):
    assert script.main([str(path), "--quick"]) == 0
    results = json.loads((at("oof") / path.stem / "quick" / "study.json").read_text())
    assert not results["tests"] and not (at("oof") / path.stem / "seal.json").exists()
    assert "not opened" in (at("oof") / path.stem / "quick" / "report.html").read_text()


def test_the_seal_is_there_before_a_test_row_is_scored_and_knows_another_opening(
    path, monkeypatch, capsys
):
    real = final.predict_test

    def watched(*arguments):
        assert (at("oof") / path.stem / "seal.json").exists()
        return real(*arguments)

    monkeypatch.setattr(final, "predict_test", watched)
    few = CONFIG | {"experiments": {}, "grouped": None, "forms": {"full": {"note": "One."}}}
    few |= {"arms": {"Small": CONFIG["arms"]["Small"]}}
    path.write_text(dumped(few))
    assert script.main([str(path)]) == 0
    assert "OPENED AGAIN" not in capsys.readouterr().out
    path.write_text(dumped(few | {"recall": 0.5}))
    assert script.main([str(path)]) == 0
    assert "OPENED AGAIN: this is opening 2" in capsys.readouterr().out
    results = json.loads((at("oof") / path.stem / "full" / "study.json").read_text())
    assert "opening 2" in study_page(results)


def test_a_killed_opening_is_the_same_opening(tmp_path):
    assert len(open_test(tmp_path / "seal.json", "aaa", {})) == 1
    assert len(open_test(tmp_path / "seal.json", "aaa", {})) == 1
    assert len(open_test(tmp_path / "seal.json", "bbb", {})) == 2


def test_the_page_says_of_which_opening_its_scores_are():
    first = {"mark": "a", "time": "Monday", "form": "quick", "commit": "c"}
    openings = [first, first | {"mark": "b", "time": "Tuesday", "form": "full"}]
    assert "the scores of the first" in seal_text({"openings": openings, "opening": "a"})
    told = seal_text({"openings": openings, "opening": "b"})
    assert "this is opening 2, of Tuesday" in told and "form quick, Monday" in told


def test_thresholds_come_from_validation_rows_alone(path, monkeypatch):
    study = Study(path, "quick")
    chosen = course.choose(study, StopRequest())
    monkeypatch.setattr(final, "predict_test", None)
    found, candidates = final.fit_final(study, chosen)
    rows = scored_rows(found.runs[0], "dermamnist")
    table = load_table("dermamnist")[0].set_index("image_name")
    named = table.loc[found.validation["image_name"]]
    assert set(named["split"]) == {"train"} and set(named["fold"]) == {0}
    assert np.allclose(found.validation["prob"], rows["prob"])
    by_f2, by_recall = found.thresholds
    positives = rows.loc[rows["target"] == 1, "prob"]
    assert (positives >= by_recall.value).mean() >= 0.9
    assert (positives > by_recall.value).mean() < 0.9
    assert by_f2.rule == "highest F2"
    assert candidates[0]["name"] == found.name


def test_the_rule_is_mean_f2_to_three_decimals_then_fewest_missed():
    def line(name: str, *runs: tuple[float, int]) -> dict:
        return entry(name, [{"f2": {"value": f2}, "fn": missed} for f2, missed in runs])

    low, close = line("low", (0.70, 0)), line("close", (0.7203, 12))
    seeds = line("seeds", (0.7, 9), (0.7396, 11))  # mean 0.7198
    skipped = entry("none", [], "no weights")
    assert [one["name"] for one in ranked([low, close, seeds, skipped])] == [
        "seeds", "close", "low"
    ]  # fmt: skip
    assert seeds["spread"] == pytest.approx(0.0396)
    assert low["spread"] is None


def test_a_frozen_network_without_weights_is_not_trained_and_a_whole_one_says_so(path):
    study = Study(path, "full")
    with pytest.raises(MissingWeights, match="weights"):
        study.plan("Frozen")
    whole = CONFIG | {"arms": {"Whole": CONFIG["arms"]["Frozen"] | {"trainable": "all"}}}
    path.write_text(dumped(whole | {"forms": {"full": {"note": "x"}}}))
    planned = Study(path, "full").plan("Whole")
    assert planned.config.model.pretrained is False
    assert planned.note.startswith("from random weights: the weights of mobilenetv3")


def test_unknown_names_in_a_form_are_refused(path):
    path.write_text(dumped(CONFIG | {"forms": {"full": {"note": "x", "arms": ["Huge"]}}}))
    with pytest.raises(InputError, match="Huge"):
        Study(path, "full")
    path.write_text(dumped(CONFIG))
    with pytest.raises(InputError, match="no form slow.*full"):
        Study(path, "slow")


def test_both_maps_differ_in_vascular_lesions_alone():
    known = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    told = {task: [n for n in known if TASKS[task][n]] for task in ("malignant", "malignant_vasc")}
    assert told["malignant"] == ["akiec", "bcc", "mel"]
    assert told["malignant_vasc"] == ["akiec", "bcc", "mel", "vasc"]


def test_the_shipped_study_has_the_published_runs(monkeypatch):
    monkeypatch.setattr("lesions.study.config.missing_weights", lambda config: "")
    study = Study(at("configs") / "dermamnist" / "study.yaml", "full")
    plans = [study.plan(name) for name in study.arms]
    assert len(plans) == 14 and len({planned.run for planned in plans}) == 14
    assert plans[0].run == "dermamnist/full/cnn_shallow"
    for arm in ("Hybrid", "MobileNetV2 full"):
        base = study.plan(arm).config
        changed = [study.plan(arm, name).config for name in study.experiments(arm)]
        assert len(changed) == 8 and all(config != base for config in changed)
    for planned in plans:
        assert planned.config.train.monitor == "f2" and planned.config.train.optimizer == "adam"
    assert load_config(at("configs") / "dermamnist" / "cnn.yaml").loss.pos_weight == 3
