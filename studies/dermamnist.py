"""A study to its end: architectures, one change at a time of the best, two thresholds, one test.

    python studies/dermamnist.py configs/dermamnist/study.yaml --quick
    python studies/dermamnist.py configs/dermamnist/study.yaml --form evening
    python studies/dermamnist.py configs/dermamnist/study.yaml

Finished runs are skipped, so a stopped study resumes with the next unfinished run, and two GPUs
share the runs: start the same command twice, and once more when both have ended. Writes report.md
and study.json beside the runs. The test set is opened once, and the ledger seal.json says when.
"""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
import screening
from screening import RULE, TASK, Chosen, Entry, Planned, Rows, Study, validation_rows

from lesions.cli import build_parser, run
from lesions.data.table import load_table, task_targets
from lesions.data.tasks import DIAGNOSES, TASKS, Task, build_task
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import score_rows
from lesions.evaluation.thresholds import Threshold, by_f_beta, by_recall
from lesions.files import read_json, sha256, write_csv, write_json, write_text
from lesions.inference.accelerator import build_accelerator
from lesions.inference.ensemble import load_run
from lesions.inference.predict import predict_run
from lesions.oof import load_oof, load_test, table_rows
from lesions.paths import at, shown
from lesions.provenance import Results, commit, machine
from lesions.reporting.page import render
from lesions.runs import find_run
from lesions.training.stop import Stopped, StopRequest


class Final(NamedTuple):
    """Models whose mean is tested on one data set, their validation rows and thresholds."""

    name: str
    dataset: str
    runs: list[str]
    validation: Rows
    thresholds: list[Threshold]

    def scores(self, rows: Rows) -> dict[str, Any]:
        """AUC, and each threshold's decisions, of `rows`."""
        decisions = [
            {"rule": cut.rule, "threshold": cut.value} | rows.decided(cut.value)
            for cut in self.thresholds
        ]
        return {"auc": rows.auc(), "decisions": decisions}


def fit_final(study: Study, name: str, dataset: str, runs: list[str]) -> Final:
    """The mean of `runs`, with two thresholds fitted on validation rows."""
    rows = validation_rows(runs)
    by_f2 = by_f_beta(rows.target, rows.prob, 2)
    by_least = by_recall(rows.target, rows.prob, study.config.recall)
    return Final(name, dataset, runs, rows, [by_f2, by_least])


def candidates(study: Study, chosen: Chosen) -> list[Entry]:
    """What the final mean may be of, best first: the best run, its seeds, the best by the rule."""
    first, name = chosen.final[0]["runs"], chosen.final[0]["name"]
    pools = {f"{name} alone": first[:1]}
    if len(first) > 1:
        pools[f"{name}, {len(first)} seeds"] = list(first)
    for count in range(2, min(study.config.pool, len(chosen.final)) + 1):
        members = [run for one in chosen.final[:count] for run in one["runs"]]
        pools[f"the best {count} by the rule"] = members
    found = []
    for title, members in pools.items():
        runs = [run["run"] for run in members]
        rows = validation_rows(runs)
        line = screening.entry(title, [rows.decided(screening.AT)])
        found.append(line | {"members": runs, "auc": rows.auc()})
    return screening.ranked(found)


def open_test(path: Path, mark: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """All openings of the test set so far, this one included; call it before a test row is scored.

    The same models and thresholds (`mark`) are one opening however often a killed study comes
    here. Others are a new one, which is printed: who tests again has seen the first answer.
    """
    openings = read_json(path)["openings"] if path.exists() else []
    known = [opening["mark"] for opening in openings]
    if mark in known:
        return openings
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    openings.append({"mark": mark, "time": when, "commit": commit(), **facts})
    write_json(path, {"openings": openings})
    if known:
        print(
            f"OPENED AGAIN: this is opening {len(openings)} of the test set, with other models or"
            f" thresholds than before ({shown(path)}): its score is no longer that of a first test"
        )
    else:
        print(f"the test set is opened, once: {shown(path)}")
    return openings


def score_tests(study: Study, finals: Sequence[Final]) -> dict[str, Any]:
    """tests: scores on each data set's test rows; openings, and the mark of this one; verdicts."""
    several = study.plan_classes()
    names = [*(name for final in finals for name in final.runs), *(one.run for one in several)]
    weights = [at("oof", name, "fold0.safetensors") for name in names]
    cuts = [cut.value for final in finals for cut in final.thresholds]
    parts = [*(sha256(path) for path in weights), *(f"{value:.17g}" for value in cuts)]
    mark = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
    facts = {"form": study.form_name, "runs": names, "thresholds": cuts}
    openings = open_test(at("oof", study.root, "seal.json"), mark, facts)
    tests = []
    for final in finals:
        rows = test_rows(study, final, mark)
        table = load_table(final.dataset)[0]
        new = ~np.isin(rows.group, table.loc[table["split"] == "train", "group"])
        parts_of = {final.dataset: np.ones(len(new), bool)}
        if not new.all():
            parts_of[f"{final.dataset}, lesions that are not in training"] = new
        for name, chosen in parts_of.items():
            part = Rows(*(values[chosen] for values in rows))
            counts = {"rows": len(part.target), "positives": int(part.target.sum())}
            tests.append({"name": name, **counts, **final.scores(part)})
    verdicts = judge(study, tests[0], test_rows(study, finals[0], mark))
    classes = [score_classes(study, planned, mark) for planned in several]
    return {"tests": tests, "classes": classes, "openings": openings, "opening": mark,
            "verdicts": verdicts}  # fmt: skip


def score_classes(study: Study, planned: Planned, mark: str) -> dict[str, Any]:
    """Scores of a run of the official task of several classes, on validation and on test rows."""
    oof = load_oof(find_run(planned.run))
    official, classes = study.config.official, oof.task.classes
    codes, probs, groups = predict_test(study, "classes", official, [planned.run], mark, oof.task)
    validation = score_rows(oof.codes, oof.probs, classes, oof.groups).overall
    test = score_rows(codes, probs, classes, groups).overall
    return {
        "name": planned.name,
        "epochs": planned.config.train.epochs,
        "image_size": planned.config.data.image_size,
        "classes": list(classes),
        "validation": {name: score.as_json() for name, score in validation.items()},
        "test": {name: score.as_json() for name, score in test.items()},
    }


def test_rows(study: Study, final: Final, mark: str) -> Rows:
    """The test rows with the mean probability of the final's models; predicted once by `mark`."""
    dataset, task = final.dataset, build_task(TASK)
    codes, probs, groups = predict_test(study, dataset, dataset, final.runs, mark, task)
    return Rows(codes, probs[:, 0], groups)


def predict_test(
    study: Study, kind: str, dataset: str, runs: Sequence[str], mark: str, task: Task
) -> tuple[np.ndarray, Floats, np.ndarray]:
    """Codes, mean probabilities (N, C) and groups of the test rows; predicted once by `mark`."""
    path = at("oof", study.folder, f"test_{kind}_{mark}.csv")
    if not path.exists():
        members = []
        for name in runs:
            loaded = load_run(name, [0])
            accelerator = build_accelerator(loaded.config.train.precision)
            members.append(predict_run(loaded, loaded.config, accelerator))
        mean = pd.concat(members).groupby("image_name").mean(numeric_only=True)
        write_csv(path, mean.rename(columns={"target": "prob"}).reset_index())
    names, probs = load_test(path, task)
    table, facts = load_table(dataset)
    places = table_rows(table, names, shown(path))
    codes = task_targets(table, facts, task.name)[1].to_numpy()[places].astype(int)
    return codes, probs, table["group"].to_numpy()[places]


def judge(study: Study, test: dict[str, Any], rows: Rows) -> list[dict[str, Any]]:
    """Whether the test reached each aim, and the published number.

    `rows` are the test's: the precision at the published recall is read off its own curve.
    """
    found = [("auc", "", test["auc"])]
    for decided in test["decisions"]:
        found += [(name, decided["rule"], decided[name]) for name in ("f2", "recall", "precision")]
    aims, published = study.config.aims, study.config.published
    if "recall" in published:
        cut = by_recall(rows.target, rows.prob, published["recall"])
        rule = f"at the published recall of {published['recall']:g} (chosen on the test itself)"
        found.append(("precision", rule, rows.decided(cut.value)["precision"]))
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
    if published is None:
        return None
    if score["low"] is not None and score["low"] > published:
        return "surely"
    return "yes" if score["value"] > published else "no"


def conclude(study: Study, chosen: Chosen) -> dict[str, Any]:
    """The results, ready for JSON."""
    means = candidates(study, chosen)
    finals = [fit_final(study, means[0]["name"], study.config.official, means[0]["members"])]
    if chosen.grouped:  # trained and given thresholds anew on the lesion-grouped split
        name, dataset = chosen.final[0]["name"], study.datasets[1]
        finals.append(fit_final(study, name, dataset, chosen.grouped))
    diagnoses = set(load_table(study.config.official)[0]["diagnosis"])
    results: dict[str, Any] = {
        "form": study.form_name,
        "note": study.form.note,
        "malignant": [n for n in DIAGNOSES if TASKS[TASK][n] and n in diagnoses],
        "data": [_data(name) for name in study.datasets],
        "rule": RULE,
        "phase1": chosen.phase1,
        "phase2": chosen.phase2,
        "architecture": chosen.arm,
        "chosen": chosen.final[0],
        "candidates": [{key: one[key] for key in one if key != "runs"} for one in means],
        "finals": [
            {"name": final.name, "dataset": final.dataset, "runs": final.runs}
            | final.scores(final.validation)
            for final in finals
        ],
        "published": study.config.published,
        "published_classes": study.config.published_classes,
        "tests": [],
        "verdicts": [],
        "openings": [],
        "machine": machine(),
        "commit": commit(),
    }
    return results | score_tests(study, finals) if study.form.test else results


def _data(dataset: str) -> dict[str, Any]:
    table, facts = load_table(dataset)
    malignant = table["diagnosis"].map(TASKS[TASK]) == 1
    parts = {
        "training": (table["split"] == "train") & (table["fold"] != 0),
        "validation": (table["split"] == "train") & (table["fold"] == 0),
        "test": table["split"] == "test",
    }
    known = set(table.loc[table["split"] == "train", "group"])
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


def main(arguments: list[str] | None = None) -> int:
    begun = time.monotonic()
    parser = build_parser(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--form", default="full", help="one of the config's forms (default: full)")
    parser.add_argument("--quick", action="store_true", help="the form quick: minutes, no test")
    parser.add_argument("--no-test", action="store_true", help="validation alone, of any form")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change every run, such as train.precision=auto")  # fmt: skip
    parser.add_argument("--max-hours", type=float, metavar="H", help="stop in time, exit with 75")
    args, out = Results.parse(parser, "dermamnist.json", arguments)
    study = Study(args.config, "quick" if args.quick else args.form, args.set)
    if args.no_test:
        study.form = study.form.model_copy(update={"test": False})
    stop, folder = StopRequest(args.max_hours, begun), at("oof", study.folder)
    try:
        with stop.listening():
            chosen = screening.choose(study, stop)
            screening.train(study.plan_classes(), stop)
            results = conclude(study, chosen)
    except Stopped as stopped:
        print("stopped: run the same command again to resume")
        return stopped.code
    write_json(folder / "study.json", results)
    write_text(folder / "report.md", render("dermamnist.md.j2", dermamnist=results))
    print(f"{shown(folder / 'report.md')} written; {time.monotonic() - begun:.0f} s")
    out.write(results)
    return 0


if __name__ == "__main__":
    run(main)
