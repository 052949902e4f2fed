"""A whole study: its runs, its choice, its one test, and all of it as one results file."""

from typing import Any

import pandas as pd

from lesions.data.table import load_table
from lesions.data.tasks import DIAGNOSES, TASKS
from lesions.evaluation.thresholds import by_recall
from lesions.files import read_json, write_json
from lesions.paths import at
from lesions.study.config import Study
from lesions.study.course import Chosen, choose, patiently
from lesions.study.final import fit_final, fit_grouped, predicted_rows, score_tests
from lesions.study.leaderboard import RULE, decided_scores
from lesions.study.speed import measure_speed
from lesions.training.state import locked
from lesions.training.stop import StopRequest

Results = dict[str, Any]


def run_study(study: Study, stop: StopRequest) -> tuple[Results, dict[str, pd.DataFrame]]:
    """The results, ready for JSON, and the rows that curves are drawn of: by what they are.

    Whatever is trained is not trained again; the test rows are predicted once and then read.
    Stopped if `stop` asks for it.
    """
    chosen = choose(study, stop)

    def conclude() -> tuple[Results, dict[str, pd.DataFrame]]:
        with locked(at("oof") / study.folder / ".end.lock"):
            return _conclude(study, chosen)

    return patiently(conclude, stop)


def _conclude(study: Study, chosen: Chosen) -> tuple[Results, dict[str, pd.DataFrame]]:
    final, candidates = fit_final(study, chosen)
    grouped = fit_grouped(study, chosen)
    finals = [final, *([grouped] if grouped else [])]
    rows = {"validation": final.validation}
    results: Results = {
        "form": study.form_name,
        "note": study.form.note,
        "labels": labels_of(study),
        "data": [_data(study, name) for name in _datasets(study)],
        "rule": RULE,
        "recall": study.config.recall,
        "phase1": chosen.phase1,
        "phase2": chosen.phase2,
        "architecture": chosen.arm,
        "change": chosen.experiment,
        "chosen": chosen.final[0],
        "candidates": candidates,
        "finals": [one.facts() for one in finals],
        "published": study.config.published,
        "speed": speed_of(study, chosen),
        "tests": [],
        "verdicts": [],
        "openings": [],
    }
    if study.form.test:
        results["tests"], mark, results["openings"] = score_tests(study, finals)
        results["opening"] = mark
        rows |= {f"test {one.dataset}": predicted_rows(study, one, mark) for one in finals}
        official = rows[f"test {study.config.official}"]
        results["verdicts"] = verdicts(study, results["tests"][0], official)
    return results, rows


def speed_of(study: Study, chosen: Chosen) -> dict[str, Any]:
    """What measure_speed found for the chosen run, measured once."""
    path = at("oof") / study.folder / "speed.json"
    if not path.exists():
        write_json(path, measure_speed(study.plan(chosen.arm, chosen.experiment).config))
    return read_json(path)


def labels_of(study: Study) -> dict[str, Any]:
    """Which diagnoses count as malignant, under the map that is used and under the other one."""
    used = study.config.labels
    other = "malignant_vasc" if used == "malignant" else "malignant"
    counts = load_table(study.config.official)[0]["diagnosis"].value_counts()
    return {
        "used": used,
        "malignant": [n for n in DIAGNOSES if TASKS[used][n] and n in counts.index],
        "other": other,
        "differ": [
            {"diagnosis": n, "rows": int(counts[n])}
            for n in DIAGNOSES
            if TASKS[used][n] != TASKS[other][n] and n in counts.index
        ],
    }


def verdicts(study: Study, test: dict[str, Any], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether the test reached each aim, and the published number; with the interval's low end.

    `rows` are the test's: the precision at the published recall is read off its own curve.
    """
    found = [("auc", "", test["auc"])]
    for decided in test["decisions"]:
        found += [(name, decided["rule"], decided[name]) for name in ("f2", "recall", "precision")]
    aims, published = study.config.aims, study.config.published
    if "recall" in published:
        cut = by_recall(rows["target"], rows["prob"], published["recall"])
        rule = f"at the published recall of {published['recall']:g} (chosen on the test itself)"
        found.append(("precision", rule, decided_scores(rows, cut.value)["precision"]))
    return [
        {
            "score": name,
            "rule": rule,
            "found": score,
            "aim": aims.get(name),
            "published": published.get(name),
            "passed": score["value"] >= aims[name] if name in aims else None,
            "above_published": _above(score, published.get(name)),
        }
        for name, rule, score in found
    ]


def _above(score: dict[str, float], published: float | None) -> str | None:
    """Whether it is above the published number: surely, yes, no; sure if the whole interval is."""
    if published is None:
        return None
    if score["low"] is not None and score["low"] > published:
        return "surely"
    return "yes" if score["value"] > published else "no"


def _datasets(study: Study) -> list[str]:
    grouped = study.config.grouped
    return [study.config.official, *([grouped] if grouped and study.form.test else [])]


def _data(study: Study, dataset: str) -> dict[str, Any]:
    table, facts = load_table(dataset)
    malignant = table["diagnosis"].map(TASKS[study.config.labels]) == 1
    parts = {
        "training": (table["split"] == "train") & (table["fold"] != 0),
        "validation": (table["split"] == "train") & (table["fold"] == 0),
        "test": table["split"] == "test",
    }
    groups = {name: set(table.loc[rows, "group"]) for name, rows in parts.items()}
    known = groups["training"] | groups["validation"]
    seen = table["group"].isin(known) & parts["test"]
    return {
        "dataset": dataset,
        "scheme": facts["config"]["scheme"],
        "table_hash": facts["table_hash"],
        "fold_hash": facts["fold_hash"],
        "rows": {name: int(rows.sum()) for name, rows in parts.items()},
        "malignant": {name: int((rows & malignant).sum()) for name, rows in parts.items()},
        "test_rows_of_known_lesions": int(seen.sum()),
    }
