"""The report, through its script: offline, escaped, and right where its numbers come from.

The runs are made up: a data set "toy" of 320 rows, and runs that are asked for melanoma ("mel") and
for seven diagnoses ("seven"). Every photograph is one grey, which tells its row.
"""

import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import report
import sklearn.metrics as reference
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression
from written import written_run

from lesions import files
from lesions.config import DatasetConfig
from lesions.data.cache import fill_cache, publish_cache
from lesions.data.table import load_table, save_table
from lesions.data.tasks import MALIGNANT, build_task
from lesions.files import sha256
from lesions.reporting import breakdown, figures, style

TASK = build_task("diagnosis7")
CLASSES, COLUMNS = list(TASK.classes), TASK.columns
ROWS, TEST, SIZE = 280, 40, 16
SECTIONS = ["scores", "decisions", "sets", "images", "test", "data", "training"]
FIGURES = {
    "auc", "roc", "precision_recall", "score_distribution", "confusion", "calibration",
    "training_loss", "validation_loss", "validation_auc", "learning_rate", "image_properties",
    "decision_curve", "test_distribution", "diagnoses", "correlation",
    "data_site", "errors_age", "errors_certainty", "false_negatives", "false_positives",
    "unsure_positive", "unsure_benign",
    "sample_positive", "sample_benign",
}  # fmt: skip
CLASS_FIGURES = {
    "class_roc", "class_precision_recall", "class_confusion", "class_calibration",
    "errors_mel", "confidence_mel",
}  # fmt: skip


def write_world(root: Path, mode: Any = "array", diagnoses: tuple[str, ...] | None = None) -> Path:
    """A root with the data set, its image cache, the runs and their submissions."""
    random = np.random.default_rng(0)
    count = ROWS + TEST
    codes = np.repeat(random.choice(7, count // 2, p=[0.1, 0.1, 0.1, 0.05, 0.2, 0.4, 0.05]), 2)
    diagnosis = np.array(CLASSES)[codes] if diagnoses is None else random.choice(diagnoses, count)
    codes = np.array([CLASSES.index(name) for name in diagnosis])
    paths = [root / f"photographs/{row}.png" for row in range(count)]
    paths[0].parent.mkdir(parents=True)
    for row, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), grey(row), np.uint8))
    table = pd.DataFrame(
        {
            "image_name": [f"ISIC_{row:04d}" for row in range(count)],
            "source": random.choice(["isic2017", "ham10000"], count),
            "split": ["train"] * ROWS + ["test"] * TEST,
            "patient_id": "",
            "lesion_id": "",
            "diagnosis": diagnosis,
            "target": np.isin(diagnosis, MALIGNANT).astype(int),
            "sex": random.choice(["male", "female", ""], count),
            "age_approx": random.choice([np.nan, 20.0, 50.0, 80.0], count),
            "site": random.choice(["torso", "<b>odd</b>", ""], count),
            "width": random.choice([600, 1024, 4000], count),
            "height": 450,
            "bytes": np.nan,
            "images_per_patient": np.nan,
            "group": [f"g{row // 2}" for row in range(count)],
            "fold": [row // 2 % 3 for row in range(ROWS)] + [-1] * TEST,
            "path": list(map(str, paths)),
        }
    )
    sources = {name: {"folder": f"input/{name}"} for name in ("isic2017", "ham10000")}
    save_table("toy", table, DatasetConfig(sources=sources, task="malignant"))
    folder = root / f"input/prepared/toy/{SIZE}"
    fill_cache(folder, table, SIZE, mode, DatasetConfig(sources=sources).preprocess)
    publish_cache(folder, load_table("toy")[0])
    probs = softmax(1.8 * np.eye(7)[codes] + random.normal(size=(count, 7)), axis=1)
    history = [
        {"epoch": k, "loss": 0.7 / k, "auc": 0.7 + 0.05 * k, "log_loss": 0.8 / k, "lr": 0.1}
        for k in (1, 2, 3)
    ]
    facts = {
        "last_auc": 0.85, "best_auc": 0.85, "config_hash": "c", "best_epoch": 3, "positives": None,
        "history": history, "versions": {"torch": "2.12"}, "seconds": 3.0,
        "images_per_second": 50.0,
    }  # fmt: skip
    written_run("seven", "toy", table, probs, "diagnosis7", **facts)
    written_run("mel", "toy", table, probs[:, CLASSES.index("mel")], **facts)
    with (root / "oof/mel/config.yaml").open("a") as file:
        file.write("# <b>odd</b>\n")
    return root


def grey(row: int) -> int:
    return 7 * row % 256


@pytest.fixture
def root(root) -> Path:
    """A root of one's own, to be changed."""
    return write_world(root)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A root in which both runs have been reported, to be read only: drawing takes seconds."""
    root = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESIONS_ROOT", str(root))
        write_world(root)
        assert report.main(["--run", "mel"]) == 0
        patch.setattr(style, "write_png", lambda figure, path: files.write_bytes(path, b""))
        assert report.main(["--run", "seven"]) == 0
    return root


def report_on(root: Path, run: str, *arguments: str) -> str:
    assert report.main(["--run", run, *arguments]) == 0
    return (root / "oof" / run / "report.html").read_text()


def text_of(page: str) -> str:
    """The words of the page."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", "", page[page.index("<body>") :], flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def card(page: str, title: str) -> str:
    """The HTML of a card."""
    start = page.index(f"<h3>{html.escape(title)}</h3>")
    return page[start : page.index("</figure>", start)]


def cells(page: str, title: str) -> dict[str, list[str]]:
    """The table of a card: its rows by their first cell."""
    found = re.findall(r"<tr>(.*?)</tr>", card(page, title), flags=re.DOTALL)[1:]
    rows = [[html.unescape(x) for x in re.findall(r"<td>(.*?)</td>", row)] for row in found]
    return {row[0]: row[1:] for row in rows if row}


def strip(page: str) -> dict[str, list[str]]:
    """The key figures: number and note by label."""
    found = re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd><dd>(.*?)</dd></div>", page)
    return {label: rest for label, *rest in found}


def tiles(page: str, title: str) -> pd.DataFrame:
    """The photographs of a gallery: number, label, image_name, and the grey that is shown."""
    found = re.findall(
        r'<li><img src="data:image/jpeg;base64,(.*?)".*?<b>([\d.]+) · (.*?)</b>'
        r"<span>.*?</span><span>(.*?)</span></li>",
        card(page, title),
    )
    rows = []
    for data, number, label, name in found:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        rows.append((float(number), html.unescape(label), name, float(image.mean())))
    return pd.DataFrame(rows, columns=["number", "label", "image_name", "grey"])


def oof_of(root: Path, run: str) -> pd.DataFrame:
    """A run's rows as published, beside its table's."""
    rows = pd.concat(pd.read_csv(path) for path in sorted((root / "oof" / run).glob("fold*.csv")))
    table = pd.read_csv(root / "input/prepared/toy/table.csv")
    rows = rows.drop(columns="fold")
    return rows.merge(table.drop(columns="target"), on="image_name", validate="1:1")


class Elements(HTMLParser):
    """Whether the page's elements are closed in order."""

    VOID = ("meta", "img", "br", "path", "use", "circle", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("run", ["mel", "seven"])
def test_the_page_needs_nothing_beside_it_and_shows_every_section_and_figure(written, run):
    page = (written / f"oof/{run}/report.html").read_text()
    elements = Elements()
    elements.feed(page)
    assert not elements.open
    ids = re.findall(r'\sid="(.*?)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:src|href)="(.*?)"', page)
    assert all(target.startswith(("data:image/", "#")) for target in targets)
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    assert "://" not in re.sub(r'xmlns(:xlink)?="[^"]+"', "", page)
    assert "var(--melanoma)" in page and style.MELANOMA not in page.partition("<body>")[2]
    seven = run == "seven"
    own = ["classes", "confusion", "worst"] if seven else []
    assert re.findall(r'<section id="(\w+)"', page) == [*own, *SECTIONS]
    assert "Not a medical device" in page
    assert "python scripts/audit.py" in page  # there is no audit.json, and the page says so
    lesions = "malignant lesions" if seven else "melanomas"
    assert f"of {lesions} are detected" in text_of(page)
    assert ("missed melanomas" in text_of(page)) != seven
    assert "&lt;b&gt;odd&lt;/b&gt;</span>" in page and "<b>odd</b>" not in page
    drawn = {path.stem for path in (written / f"oof/{run}/report").glob("*.png")}
    assert drawn >= FIGURES
    assert CLASS_FIGURES & drawn == (CLASS_FIGURES if seven else set())


def test_the_aucs_are_scikit_learns_of_all_rows_of_each_part_and_held_out(written):
    page, rows = (written / "oof/mel/report.html").read_text(), oof_of(written, "mel")
    found = cells(page, "AUC as a table")
    parts = {"all folds": rows, **dict(iter(rows.groupby("source")))}
    parts |= {f"fold {fold}": part for fold, part in rows.groupby("fold")}
    test = pd.read_csv(written / "submissions/mel.csv").rename(columns={"target": "prob"})
    table = pd.read_csv(written / "input/prepared/toy/table.csv").merge(test, on="image_name")
    parts["held-out test"] = table.assign(target=table["diagnosis"] == "mel")
    assert set(found) == set(parts)
    for name, part in parts.items():
        auc = reference.roc_auc_score(part["target"], part["prob"])
        assert found[name][0] == f"{part['target'].sum()} of {len(part)}"
        assert re.fullmatch(rf"{auc:.3f} \(0\.\d{{3}} to \d\.\d{{3}}\)", found[name][1])
    overall = reference.roc_auc_score(rows["target"], rows["prob"])
    assert strip(page)["AUC, out-of-fold"][0] == f"{overall:.3f}"
    average = reference.average_precision_score(rows["target"], rows["prob"])
    measures = cells(page, "Other measures")
    assert measures["average precision"][0].startswith(f"{average:.3f} (")


def test_the_scores_by_class_are_scikit_learns(written):
    page, rows = (written / "oof/seven/report.html").read_text(), oof_of(written, "seven")
    target, probs = rows["target"], rows[COLUMNS]
    auc = reference.roc_auc_score(target, probs, multi_class="ovr", labels=CLASSES)
    assert strip(page)["Macro AUC"][0] == f"{auc:.3f}"
    called = np.array(CLASSES)[probs.to_numpy().argmax(axis=1)]
    found = cells(page, "Scores over all classes")
    assert list(found) == ["all folds", "ham10000", "isic2017", "fold 0", "fold 1", "fold 2",
                           "held-out test"]  # fmt: skip
    assert found["all folds"][1].startswith(f"{reference.accuracy_score(target, called):.3f}")
    first = (rows["fold"] == 0).to_numpy()
    f1 = reference.f1_score(target[first], called[first], average="macro")
    assert found["fold 0"][3].startswith(f"{f1:.3f}")
    mel = cells(page, "Scores of each class")["mel"]
    recall = reference.recall_score(target, called, labels=["mel"], average=None)[0]
    assert mel[0] == str((target == "mel").sum()) and mel[3].startswith(f"{recall:.3f} (")
    kappa = reference.cohen_kappa_score(target == "mel", called == "mel")
    assert mel[7].startswith(f"{kappa:.3f} (")
    counts = reference.confusion_matrix(target, called, labels=CLASSES)
    off = counts - np.diag(np.diag(counts))
    i, j = divmod(int(off.argmax()), 7)
    swaps = cells(page, "Most common confusions")
    assert swaps[f"{CLASSES[i]} → {CLASSES[j]}"][0] == str(off.max())
    malignant = probs[[f"prob_{name}" for name in CLASSES if name in MALIGNANT]].sum(axis=1)
    expected = reference.roc_auc_score(target.isin(MALIGNANT), malignant)
    assert cells(page, "AUC as a table")["all folds"][1].startswith(f"{expected:.3f} (")


def flags(rows: pd.DataFrame, recall: float) -> np.ndarray:
    """Which rows are flagged, each fold by the threshold with that recall on the others."""
    flagged = np.zeros(len(rows), bool)
    for fold in rows["fold"].unique():
        own = (rows["fold"] == fold).to_numpy()
        hits = np.sort(rows.loc[~own & (rows["target"] == 1), "prob"])[::-1]
        at = hits[int(np.ceil(recall * len(hits) - 1e-9)) - 1]
        flagged[own] = rows.loc[own, "prob"] >= at
    return flagged


def test_no_row_is_judged_by_a_threshold_or_calibration_that_saw_its_fold(written, root, quick):
    rows, page = oof_of(written, "mel"), (written / "oof/mel/report.html").read_text()
    for recall, shown in ((0.9, page), (0.8, report_on(root, "mel", "--recall", "0.8"))):
        flagged, positive = flags(rows, recall), rows["target"].to_numpy() == 1
        caught = f"At the threshold {100 * flagged[positive].mean():.0f} % ("
        words = text_of(shown)
        assert caught in words
        assert f"{100 * flagged[~positive].mean():.0f} % (" in words
        assert cells(shown, "At the threshold")["flagged"][0] == f"{100 * flagged.mean():.1f} %"
        assert f'"recall at least {recall}"' in words
    odds, calibrated = logit(rows[["prob"]].to_numpy()), np.zeros((len(rows), 1))
    for fold in rows["fold"].unique():
        own = (rows["fold"] == fold).to_numpy()
        fitted = LogisticRegression(C=1e6).fit(odds[~own], positive[~own])
        calibrated[own, 0] = fitted.decision_function(odds[own])
    slope = LogisticRegression(C=1e6).fit(calibrated, positive).coef_[0, 0]
    found = float(cells(page, "Other measures")["calibration slope"][0])
    assert found == pytest.approx(slope, abs=0.005) and abs(slope - 1) > 0.01


def test_the_stored_calibration_is_shown_and_no_baseline_of_another_task(root, quick, capsys):
    import calibrate

    write_baselines(root)
    calibrate.main(["--run", "mel", "--rule", "youden"])
    stored = json.loads((root / "oof/mel/calibration.json").read_text())
    stored["shifts"][1] += 0.5  # as nothing that is fitted here would say
    (root / "oof/mel/calibration.json").write_text(json.dumps(stored))
    shown, rows = report_on(root, "mel"), oof_of(root, "mel").set_index("image_name")
    calibrated = expit(logit(rows["prob"]) / stored["temperature"] + np.diff(stored["shifts"])[0])
    for title in ("False negatives: missed melanomas", "Sample of benign lesions"):
        found = tiles(shown, title)
        assert len(found)
        expected = calibrated[found["image_name"]].to_numpy()
        assert found["number"].to_numpy() == pytest.approx(expected, abs=6e-4)
    assert '"highest Youden index"' in text_of(shown)
    assert f"The threshold, {stored['threshold']['value']:.4f} or" in text_of(shown)
    assert strip(shown)["AUC metadata-only"] == ["–", "not audited"]


def test_photographs_are_of_their_rows_in_either_cache(written, tmp_path, monkeypatch, quick):
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    from_jpeg = report_on(write_world(tmp_path, "jpeg"), "mel")
    table = oof_of(tmp_path, "mel").set_index("image_name")
    for shown in (from_jpeg, (written / "oof/mel/report.html").read_text()):
        assert "No image cache" not in shown
        found = tiles(shown, "False positives: benign lesions flagged")
        assert found["number"].is_monotonic_decreasing and len(found) == 8
        rows = found["image_name"].str.removeprefix("ISIC_").astype(int)
        assert found["grey"].to_numpy() == pytest.approx(rows.map(grey), abs=3)
        assert (rows // 2).is_unique  # a group is shown once: row // 2
        assert (table.loc[found["image_name"], "target"] == 0).all()


def test_misclassified_and_confident_images_of_a_class_run_from_the_highest_down(written):
    page, rows = (written / "oof/seven/report.html").read_text(), oof_of(written, "seven")
    called = np.array(CLASSES)[rows[COLUMNS].to_numpy().argmax(axis=1)]
    found = tiles(page, "Misclassified: mel")
    assert found["number"].is_monotonic_decreasing
    wrong = (rows["target"] == "mel") & (called != "mel")
    own = dict(zip(rows["image_name"], called, strict=True))
    assert found["label"].tolist() == [f"mel → {own[name]}" for name in found["image_name"]]
    count = (rows["target"] == "mel").sum()
    assert f"{wrong.sum()} of {count} images of mel are misclassified." in page
    found = tiles(page, "Most, median and least confident: nv")
    assert found["label"].tolist() == ["highest"] * 3 + ["median"] * 2 + ["lowest"] * 3
    assert found["number"].is_monotonic_decreasing
    names = rows.set_index("image_name")["target"]
    assert (names[found["image_name"]] == "nv").all()


def test_missing_cache_submission_and_history_name_the_next_command(root, quick):
    index = root / f"input/prepared/toy/{SIZE}/cache.json"
    index.write_text(index.read_text().replace('"names_hash": "', '"names_hash": "other'))
    (root / "submissions/mel.csv").unlink()
    for path in (root / "oof/mel").glob("fold*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"history": []}))
    shown = text_of(report_on(root, "mel"))
    assert shown.count("No image cache: ") == 8
    assert f"run python scripts/prepare.py --dataset toy --size {SIZE}" in shown
    assert "python scripts/predict.py --run mel" in shown
    assert "no fold<k>.json with a history" in shown


def test_one_class_gives_a_report_without_curves(tmp_path, monkeypatch, quick):
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    write_world(tmp_path, diagnoses=("nv", "bkl"))
    shown = report_on(tmp_path, "mel")
    assert "No threshold and no curves: cannot calibrate" in text_of(shown)
    assert strip(shown)["AUC, out-of-fold"] == ["n/a", "one class only"]
    by_class = cells(report_on(tmp_path, "seven"), "Scores of each class")
    assert by_class["df"][0] == "0" and all(x.startswith("n/a (") for x in by_class["df"][1:3])


def test_one_fold_alone_is_judged_by_fifths_of_its_groups_in_the_same_bytes_again(root, quick):
    for fold in (1, 2):
        (root / f"oof/mel/fold{fold}.csv").unlink()
    shown = report_on(root, "mel")
    fifths = "each fifth of the groups is judged by a threshold chosen on the others"
    assert fifths in text_of(shown) and shown == report_on(root, "mel")


def write_baselines(root: Path) -> None:
    shortcuts = [
        {"features": "sex, age", "auc": 0.61, "low": 0.5, "high": 0.7, "source": "all"},
        {"features": "sex, age", "auc": 0.99, "low": None, "high": None, "source": "isic2017"},
    ]
    audit = root / "input/prepared/toy/audit.json"
    audit.write_text(json.dumps({"shortcuts": shortcuts}))


def test_baselines_are_shown_beside_a_run_of_the_audited_task(root, quick):
    write_baselines(root)
    shown = report_on(root, "seven")
    assert strip(shown)["AUC metadata-only"] == ["0.610", "sex, age"]
    assert "Metadata only, without pixels: the best of 2 has AUC 0.610 (sex, age)" in text_of(shown)
    found = cells(shown, "AUC as a table")
    assert found["metadata: sex, age"][0] == "0.610 (0.500 to 0.700)"
    assert found["metadata: sex, age, isic2017"][0] == "0.990"


def write_blend(root: Path, run: str, **changes: Any) -> Path:
    rows = pd.concat(pd.read_csv(path) for path in sorted((root / "oof" / run).glob("fold*.csv")))
    if run == "mel":
        rows["prob"] = rows["prob"].rank(pct=True)
    oof, facts = root / "submissions/blend_oof.csv", load_table("toy")[1]
    rows.drop(columns="fold").to_csv(oof, index=False)
    (root / f"submissions/{run}.csv").rename(root / "submissions/blend.csv")
    method = {"in_sample": 0.9, "nested": 0.89, "interval": [0.8, None], "p_against_equal": None}
    blend = {
        "members": [run, "other"], "chosen": "mean", "weights": {run: 0.5, "other": 0.5},
        "methods": {"mean": method}, "reason": "simplest", "dataset": "toy",
        "task": "melanoma" if run == "mel" else "diagnosis7", "oof": {"sha256": sha256(oof)},
        "member_scores": {run: {"macro_f1": 0.4321}}, **changes,
        **{key: facts[key] for key in ("table_hash", "fold_hash")},
    }  # fmt: skip
    (root / "submissions/blend.json").write_text(json.dumps(blend))
    return root / "submissions/blend.json"


def test_a_blend_is_reported_from_its_json_with_every_section_of_a_run(root, quick, capsys):
    path = write_blend(root, "mel", scale="rank")
    assert report.main(["--run", str(path)]) == 0
    assert "submissions/blend_report.html" in capsys.readouterr().out
    shown = (root / "submissions/blend_report.html").read_text()
    assert "<h1>Blend of 2 runs</h1>" in shown
    assert cells(shown, "Methods")["mean (chosen)"] == ["0.9000", "0.8900", "n/a"]
    rows = oof_of(root, "mel")
    auc = reference.roc_auc_score(rows["target"], rows["prob"])
    assert strip(shown)["AUC, out-of-fold"][0] == f"{auc:.3f}"
    assert "Ranks among the test images" in shown
    path = write_blend(root, "seven", objective="macro_f1")
    assert report.main(["--run", str(path)]) == 0
    shown = (root / "submissions/blend_report.html").read_text()
    sections = ["classes", "confusion", "worst", *SECTIONS[:-1], "blend"]
    assert re.findall(r'<section id="(\w+)"', shown) == sections
    assert cells(shown, "Members")["seven"] == ["0.4321", "0.500"]
    assert "data-name='weights'" in shown
    assert "other: no such run" in card(shown, "Correlation of the members")
    assert "<th>macro-F1</th>" in shown
    with pytest.raises(SystemExit):
        report.main(["--run", str(path), "--explain"])
    assert "--explain takes a run" in capsys.readouterr().err


def test_the_curves_are_those_of_sklearn_and_lie_within_their_bands(written):
    rows = oof_of(written, "mel")
    target, prob = rows["target"].to_numpy(), rows["prob"].round(2).to_numpy()  # rounded: ties
    roc, precision = figures.curve_bands(target, prob, rows["group"].to_numpy(), replicates=100)
    fpr, tpr, _ = reference.roc_curve(target, prob, drop_intermediate=False)
    # Where the curve runs straight up, its height at that place is not one number.
    smooth = ~np.isin(figures.GRID, fpr)
    expected = np.interp(figures.GRID, fpr, tpr)[smooth]
    assert roc[0][smooth] == pytest.approx(expected, abs=1e-12)
    found, recall, _ = reference.precision_recall_curve(target, prob)
    best = [found[recall >= level - 1e-12][-1] for level in figures.GRID[1:]]
    assert precision[0][1:] == pytest.approx(best, abs=1e-12)
    for curve, low, high in (roc, precision):
        assert (low <= high).all()
        assert ((low <= curve) & (curve <= high)).mean() > 0.9


def test_a_group_counts_once_in_a_rates_interval_and_a_number_falls_into_its_band():
    events = np.repeat([0, 1, 0, 0, 1, 0, 0, 0, 1, 0], 20)
    alone = breakdown.rate(events, np.arange(200))
    grouped = breakdown.rate(events, np.repeat(np.arange(10), 20))
    assert alone.value == grouped.value == 0.3
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    none = breakdown.rate(np.zeros(200), np.repeat(np.arange(10), 20))
    assert none.low == 0
    assert none.high == pytest.approx(0.278, abs=0.001)  # Wilson, 0 of 10
    found = breakdown.bands(pd.Series([29.0, 30.0, 74.9, 75.0, np.nan]), [30, 45, 60, 75])
    assert found.tolist() == ["under 30", "30–45", "60–75", "75 and over", breakdown.ABSENT]


def test_the_checklist_links_to_what_there_is_and_says_why_of_the_rest(written, root, quick):
    import calibrate

    calibrate.main(["--run", "mel"])
    report_on(root, "mel")
    for folder in (root / "oof/mel", written / "oof/seven"):
        text = (folder / "checklist.md").read_text()
        rows = re.findall(r"^\| (\d+\w?) \| (.+?) \| (.+) \|$", text, flags=re.MULTILINE)
        assert len(rows) == 52 + 44
        assert all("](" in found or "not reported, because" in found for _, _, found in rows)
        links = re.findall(r"\]\((.+?)\)", text)
        assert len(links) > 40
        for link in links:
            file, _, anchor = link.partition("#")
            assert (folder / file).is_file(), link
            assert not anchor or f'<section id="{anchor}"' in (folder / file).read_text(), link
        has_card = "(card.md)" in text
        assert has_card == (folder / "card.md").is_file() == (folder.name == "mel")
        assert "fold0.safetensors" not in text and "audit.html" not in text


def test_the_markdown_report_has_the_pages_numbers_and_links_figures_that_exist(written):
    for run in ("mel", "seven"):
        folder = written / "oof" / run
        text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
        found = re.findall(r"!\[.+?\]\((.+?)\)", text)
        assert len(found) > 15 and all((folder / path).is_file() for path in found)
        for title in ("AUC as a table", "Coverage of the true class", "Other measures"):
            for name, row in cells(page, title).items():
                assert f"| {name} |" in text and row[-4 if "Cov" in title else -1] in text
        for block in text.split("\n\n"):
            assert len({line.count("|") for line in block.splitlines() if line[:1] == "|"}) <= 1


def test_coverage_is_that_of_cuts_that_did_not_see_the_fold(written):
    rows = oof_of(written, "seven")
    found = cells((written / "oof/seven/report.html").read_text(), "Coverage of the true class")
    assert found["nv"][0] == str((rows["target"] == "nv").sum())
    own = rows[COLUMNS].to_numpy()[np.arange(len(rows)), rows["target"].map(CLASSES.index)]
    one = np.sort(own)[::-1][int(np.ceil(0.9 * (len(own) + 1))) - 1]
    malignant = rows["target"].isin(MALIGNANT)
    share = (own >= one)[malignant].mean()
    assert found["all malignant lesions"][3].startswith(f"{share:.3f} (")
    assert float(found["all malignant lesions"][2][:5]) > 0.8


def test_brightness_of_a_grey_image_is_its_grey_and_it_has_no_colour_or_edges():
    images = np.stack([np.full((8, 8, 3), 40, np.uint8), np.full((8, 8, 3), (200, 0, 0), np.uint8)])
    images[1, ::2] = 0
    found = breakdown.measure_pixels(images, np.array([1, 0]))
    assert found.iloc[1].tolist() == [40, 0, 0, 0]
    assert (found.iloc[0] > found.iloc[1])[["contrast", "colour", "sharpness"]].all()
