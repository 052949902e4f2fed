"""The report: built from a small run folder, offline, and right where its numbers come from."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report
from sklearn.metrics import precision_recall_curve, roc_curve

from lesions.errors import InputError
from lesions.evaluation.metrics import roc_auc
from lesions.reporting import data, gallery, materials, sections, style
from lesions.reporting import results as results_module
from lesions.reporting.album import Album
from lesions.reporting.decisions import confusion_counts, decide
from lesions.reporting.rates import rate
from lesions.reporting.report import auc_by_part, build_report, key_figures, lead
from lesions.reporting.results import load_blend, load_run
from lesions.reporting.scores import GRID, curve_bands

ROWS, TEST, SIZE = 240, 40, 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_run(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A root in which the report has been written, to be read only: drawing takes seconds."""
    root = write_run(tmp_path_factory.mktemp("written"))
    with pytest.MonkeyPatch.context() as patch:
        assert run_script(patch, root, "--run", "tiny") == 0
    return root


def write_run(tmp_path: Path) -> Path:
    """A prepared data set "toy" with its image cache, a run "tiny" and its submission."""
    random = np.random.default_rng(0)
    count = ROWS + TEST
    target = (random.random(count) < 0.25).astype(int)
    table = pd.DataFrame(
        {
            "image_name": [f"ISIC_{row:04d}" for row in range(count)],
            "source": random.choice(["isic2019", "isic2020"], count),
            "split": ["train"] * ROWS + ["test"] * TEST,
            "patient_id": "",
            "lesion_id": "",
            "diagnosis": np.where(
                target, "melanoma", random.choice(["nevus", "<b>odd</b>"], count)
            ),
            "target": target,
            "sex": random.choice(["male", "female", ""], count),
            "age_approx": random.choice([np.nan, 20.0, 50.0, 80.0], count),
            "site": random.choice(["torso", "head/neck", ""], count),
            "width": random.choice([600, 1024, 4000], count),
            "height": 450,
            "bytes": "",
            "images_per_patient": "",
            "group": [f"g{row // 2}" for row in range(count)],
            "path": "",
        }
    )
    table["fold"] = [row // 2 % 3 for row in range(ROWS)] + [-1] * TEST
    logit = 2.2 * target + random.normal(size=count) - 1.5
    table["prob"] = 1 / (1 + np.exp(-logit))
    prepared, run = tmp_path / "input/prepared/toy", tmp_path / "oof/tiny"
    (prepared / str(SIZE)).mkdir(parents=True)
    run.mkdir(parents=True)
    table.drop(columns="prob").to_csv(prepared / "table.csv", index=False)
    (prepared / "table.json").write_text(json.dumps({"dataset": "toy", "table_hash": "t1"}))
    # Every photograph is one grey, its own: what a tile shows tells which row it came from.
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, SIZE, SIZE, 3))
    np.save(prepared / str(SIZE) / "images.npy", images.astype(np.uint8))
    (run / "config.yaml").write_text("dataset: toy\nmodel: {backbone: tiny}\n")
    train = table[:ROWS]
    for fold, rows in train.groupby("fold"):
        rows[["image_name", "fold", "target", "prob"]].to_csv(run / f"fold{fold}.csv", index=False)
        (run / f"fold{fold}.json").write_text(json.dumps(fold_json(int(fold), rows)))
    submissions = tmp_path / "submissions"
    submissions.mkdir()
    sent = table[ROWS:][["image_name", "prob"]].rename(columns={"prob": "target"})
    sent.to_csv(submissions / "tiny.csv", index=False)
    return tmp_path


def fold_json(fold: int, rows: pd.DataFrame) -> dict:
    history = [
        {"epoch": epoch, "loss": 0.7 / epoch, "lr": 1e-3, "auc": 0.7 + 0.05 * epoch, "seconds": 1.0}
        for epoch in (1, 2, 3)
    ]
    return {
        "run": "tiny", "fold": fold, "task": "melanoma", "last_auc": 0.85, "best_auc": 0.85,
        "best_epoch": 3, "history": history, "table_hash": "t1", "config_hash": "c",
        "versions": {"torch": "2.12"}, "seconds": 3.0, "images_per_second": 50.0,
        "rows": len(rows), "positives": int(rows["target"].sum()),
    }  # fmt: skip


@pytest.fixture
def results(root: Path):
    return load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")


def run_script(monkeypatch, root: Path, *arguments: str) -> int:
    monkeypatch.setattr(report, "OOF", root / "oof")
    monkeypatch.setattr(report, "PREPARED", root / "input/prepared")
    monkeypatch.setattr(report, "SUBMISSIONS", root / "submissions")
    return report.main(list(arguments))


class Links(HTMLParser):
    """What the page would load or follow, and whether its elements are closed in order."""

    VOID = ("meta", "img", "br", "path", "use", "circle", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.targets += [values[key] for key in ("src", "href", "xlink:href") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_it_and_shows_every_part(written):
    page = (written / "oof/tiny/report.html").read_text()
    links = Links()
    links.feed(page)
    assert not links.open
    assert len(links.ids) == len(set(links.ids))
    assert all(target.startswith(("data:image/", "#")) for target in links.targets)
    inner = [target[1:] for target in links.targets if target.startswith("#")]
    assert set(inner) <= set(links.ids)
    assert "://" not in re.sub(r'xmlns(:xlink)?="[^"]+"', "", page)
    for part in ("scores", "decisions", "images", "test", "data", "training"):
        assert f'<section id="{part}">' in page
    assert "Not a medical device" in page
    assert "python scripts/audit.py" in page  # there is no audit.json, and the page says so
    drawn = {path.stem for path in (written / "oof/tiny/report").glob("*.png")}
    assert {"roc", "precision_recall", "confusion", "calibration", "decision_curve"} <= drawn
    assert {"false_negatives", "false_positives", "correlation", "loss", "errors_age"} <= drawn


def test_text_from_the_tables_is_escaped(written):
    page = (written / "oof/tiny/report.html").read_text()
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<b>odd</b>" not in page


def test_the_same_results_give_the_same_bytes(results):
    with style.drawing():
        first, second = (materials.data_section(results, Album()) for _ in range(2))
    assert first == second


def test_auc_rows_are_those_of_the_parts(results):
    table = auc_by_part(results).set_index("part")
    for source, rows in results.oof.groupby("source"):
        assert table.loc[source, "auc"] == roc_auc(rows["target"], rows["prob"])
    held = results.test
    assert table.loc["held-out test", "auc"] == roc_auc(held["target"], held["prob"])


def test_baselines_without_pixels_stand_beside_the_model(root):
    shortcuts = [
        {"features": "sex, age", "auc": 0.61, "low": 0.5, "high": 0.7, "source": "all"},
        {"features": "sex, age", "auc": 0.99, "low": 0.9, "high": 1.0, "source": "isic2019"},
    ]
    (root / "input/prepared/toy/audit.json").write_text(json.dumps({"shortcuts": shortcuts}))
    loaded = load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")
    table = auc_by_part(loaded)
    strip = {figure.label: figure for figure in key_figures(loaded, table)}
    assert strip["AUC without pixels"].value == "0.610"
    assert "no pixels: sex, age, isic2019" in set(table["part"])


def test_no_row_is_judged_by_a_threshold_that_saw_its_fold(results):
    oof = results.oof.copy()
    before = decide(oof, 0.9)
    here = (oof["fold"] == 0).to_numpy()
    few = oof.index[here][::4]
    oof.loc[few, "target"] = 1 - oof.loc[few, "target"]
    after = decide(oof, 0.9)
    assert (before.flagged[here] == after.flagged[here]).all()
    assert (before.risk[here] == after.risk[here]).all()
    assert (before.risk[~here] != after.risk[~here]).any()


def test_the_confusion_counts_add_up_to_the_rows(results):
    decided = decide(results.oof, 0.9)
    counts = confusion_counts(results.oof, decided.flagged)
    positives = int(results.oof["target"].sum())
    assert counts.sum(axis=1).tolist() == [positives, ROWS - positives]
    assert counts[0, 0] / positives == pytest.approx(decided.sensitivity.value)


def test_the_curves_are_those_of_sklearn_and_lie_within_their_bands(results):
    target, prob = results.oof["target"], results.oof["prob"].round(2)  # rounded: ties
    roc, precision = curve_bands(results.oof.assign(prob=prob), replicates=100)
    fpr, tpr, _ = roc_curve(target, prob, drop_intermediate=False)
    # Where the curve runs straight up, its height at that place is not one number.
    smooth = ~np.isin(GRID, fpr)
    assert roc.value[smooth] == pytest.approx(np.interp(GRID, fpr, tpr)[smooth], abs=1e-12)
    found, recall, _ = precision_recall_curve(target, prob)
    best = [found[recall >= level - 1e-12][-1] for level in GRID[1:]]
    assert precision.value[1:] == pytest.approx(best, abs=1e-12)
    for band in (roc, precision):
        assert (band.low <= band.high).all()
        assert ((band.low <= band.value) & (band.value <= band.high)).mean() > 0.9


def test_a_group_counts_once_in_the_interval_of_a_rate():
    events = np.repeat([0, 1, 0, 0, 1, 0, 0, 0, 1, 0], 20)
    alone = rate(events, np.arange(200))
    grouped = rate(events, np.repeat(np.arange(10), 20))
    assert alone.value == grouped.value == 0.3
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    none = rate(np.zeros(200), np.repeat(np.arange(10), 20))
    assert none.low == 0
    assert none.high == pytest.approx(0.278, abs=0.001)  # Wilson, 0 of 10


def test_galleries_show_the_photographs_of_their_rows_worst_first(results):
    decided = decide(results.oof, 0.9)
    highest = results.oof["prob"].where(results.oof["target"] == 0).nlargest(3).index
    results.oof.loc[highest, "group"] = "one lesion, photographed three times"
    chosen = gallery.choose_galleries(results.oof, decided.flagged, decided.margin, results.words)
    alarms = next(one for one in chosen if one.name == "false_positives").rows
    assert (alarms["target"] == 0).all()
    assert alarms["prob"].is_monotonic_decreasing
    assert alarms["group"].is_unique
    for position, name in zip(alarms.index, alarms["image_name"], strict=True):
        shown = gallery.tile(results.images, position)
        assert (shown == int(name.removeprefix("ISIC_"))).all()


def test_without_cache_submission_and_history_the_panels_say_so(root):
    (root / "input/prepared/toy" / str(SIZE) / "images.npy").unlink()
    (root / "submissions/tiny.csv").unlink()
    for path in (root / "oof/tiny").glob("fold*.json"):
        path.unlink()
    loaded = load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")
    decided, album = decide(loaded.oof, 0.9), Album()
    assert "predict.py --run tiny" in sections.test_section(loaded, album, decided).cards[0]
    assert "fold&lt;k&gt;.json" in materials.training_section(loaded, album).cards[0]
    for card in materials.galleries_section(loaded, album, decided).cards:
        assert "prepare.py --dataset toy" in card
    assert not album.figures


def test_a_cache_of_other_rows_is_not_shown(root):
    facts = root / "input/prepared/toy" / str(SIZE) / "cache.json"
    facts.write_text(json.dumps({"names_hash": "another"}))
    loaded = load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")
    assert loaded.images is None


def test_one_class_gives_a_report_without_curves(results):
    results.oof["target"] = 0
    page = build_report(results).html
    assert "cannot choose a threshold" in page
    assert "n/a" in page


def test_one_fold_alone_is_reported_and_said(root):
    for fold in (1, 2):
        (root / f"oof/tiny/fold{fold}.csv").unlink()
        (root / f"oof/tiny/fold{fold}.json").unlink()
    loaded = load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")
    assert "With one fold there are no others" in lead(loaded, decide(loaded.oof, 0.9))


def test_a_blend_is_reported_from_its_json(root, monkeypatch):
    oof = pd.concat([pd.read_csv(path) for path in (root / "oof/tiny").glob("fold*.csv")])
    oof.assign(prob=oof["prob"].rank(pct=True)).to_csv(root / "submissions/blend_oof.csv")
    (root / "submissions/tiny.csv").rename(root / "submissions/blend.csv")
    method = {"in_sample": 0.9, "nested": 0.89, "interval": [0.8, None], "p_against_equal": None}
    blend = {
        "members": ["tiny", "other"], "chosen": "mean", "weights": {"tiny": 0.5, "other": 0.5},
        "methods": {"mean": method}, "reason": "simplest",
    }  # fmt: skip
    (root / "submissions/blend.json").write_text(json.dumps(blend))
    assert run_script(monkeypatch, root, "--blend", str(root / "submissions/blend.json")) == 0
    page = (root / "submissions/blend_report.html").read_text()
    assert '<section id="blend">' in page
    assert "mean (chosen)" in page
    loaded = load_blend(root / "submissions/blend.json", root / "oof", root / "input/prepared")
    assert loaded.test["prob"].max() == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: pd.concat([rows, rows[:1]]), "predicted twice: ISIC_"),
        (lambda rows: rows.replace(rows["image_name"].iloc[0], "stranger"), "stranger"),
        (lambda rows: rows.assign(prob=np.nan), "are NaN"),
    ],
)
def test_predictions_that_do_not_fit_the_table_are_refused(root, damage, message):
    path = root / "oof/tiny/fold0.csv"
    damage(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(InputError, match=message):
        load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")


def test_a_run_of_another_table_is_refused(root):
    (root / "input/prepared/toy/table.json").write_text(json.dumps({"table_hash": "t2"}))
    with pytest.raises(InputError, match="trained on table t1"):
        load_run("tiny", root / "oof", root / "input/prepared", root / "submissions")


def test_an_unknown_run_is_told_how_to_train(root):
    with pytest.raises(InputError, match=r"scripts/train.py --config configs/none.yaml"):
        load_run("none", root / "oof", root / "input/prepared", root / "submissions")


def test_ages_fall_into_the_band_that_names_them():
    found = data.bands(pd.Series([29.0, 30.0, 74.9, 75.0, np.nan]), [30, 45, 60, 75])
    assert found.tolist() == ["under 30", "30–45", "60–75", "75 and over", data.ABSENT]


def test_figures_take_their_colours_from_the_page():
    with style.drawing():
        figure, ((axes,),) = style.build_figure()
        axes.plot([0, 1], color=style.MELANOMA)
        text = style.svg(figure, "one", 'a "quoted" name')
    assert "var(--melanoma)" in text
    assert style.MELANOMA not in text
    assert 'aria-label="a &quot;quoted&quot; name"' in text


def test_rows_of_one_source_are_set_beside_that_sources_score_without_pixels(
    tmp_path: Path,
) -> None:
    audit = tmp_path / "audit.json"
    score = {"features": "all of these", "low": 0.5, "high": 0.8}
    shortcuts = [score | {"source": "all", "auc": 0.7}, score | {"source": "isic2020", "auc": 0.6}]
    audit.write_text(json.dumps({"shortcuts": shortcuts}))
    both, late = (pd.Series(sources) for sources in (["isic2019", "isic2020"], ["isic2020"] * 2))
    assert results_module._shortcuts(audit, both) == shortcuts
    assert [row["auc"] for row in results_module._shortcuts(audit, late) or []] == [0.6]
