"""The tables of a study: (header, rows) for its HTML page and its documentation page alike."""

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]

SCORES = {"auc": "ROC-AUC", "f2": "F2", "recall": "recall", "precision": "precision"}
PARTS = ("training", "validation", "test")


def score(found: Mapping[str, float | None]) -> str:
    """A number with its interval: "0.912 (0.899–0.924)"; n/a where it is not defined."""
    if found["value"] is None:
        return "n/a"
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def phase_table(entries: Sequence[Results]) -> Table:
    """A phase's runs, best entry first; `skipped_text` has those that were not run."""
    ran = [one for one in entries if one["runs"]]
    ran.sort(key=lambda one: (-round(one["f2"], 3), one["missed"]))
    rows = [_run_row(one, run) for one in ran for run in one["runs"]]
    header = ["", "F2", "mean F2", "recall", "precision", "ROC-AUC", "missed", "false alarms"]
    header += ["parameters", "pixels", "best of epochs", "time"]
    return header, rows


def skipped_text(entries: Sequence[Results]) -> str:
    """Which entries were not run, by the reason; empty where all were."""
    names: dict[str, list[str]] = {}
    for one in entries:
        if not one["runs"]:
            names.setdefault(one["skipped"], []).append(one["name"])
    told = [f"{' and '.join(those)} ({reason})" for reason, those in names.items()]
    return f"Not run: {'; '.join(told)}." if told else ""


def _run_row(entry: Results, run: Results) -> list[str]:
    note = f" ({run['note'].partition(':')[0]})" if run["note"] else ""
    return [
        run["name"] + note,
        score(run["f2"]),
        f"{entry['f2']:.3f}",
        score(run["recall"]),
        score(run["precision"]),
        score(run["auc"]),
        str(run["fn"]),
        str(run["fp"]),
        f"{run['parameters'] / 1e6:.2f} M",
        str(run["image_size"]),
        f"{run['best_epoch']} of {run['epochs']}",
        f"{run['seconds']:.0f} s",
    ]


def candidate_table(candidates: Sequence[Results]) -> Table:
    """What the final mean could have been of, the chosen one first."""
    rows = [
        [one["name"], str(len(one["members"])), f"{one['f2']:.3f}", f"{one['missed']:.0f}",
         score(one["auc"])]
        for one in candidates
    ]  # fmt: skip
    return ["mean of", "models", "F2", "missed", "ROC-AUC"], rows


def threshold_table(finals: Sequence[Results]) -> Table:
    """The thresholds and what they do on the validation rows that they were chosen on."""
    return _decision_table([(one["dataset"], one, one["decisions"]) for one in finals])


def test_table(tests: Sequence[Results]) -> Table:
    """The same thresholds on the test rows."""
    named = [
        (f"{one['name']} ({one['positives']:,} of {one['rows']:,} malignant)", one,
         one["decisions"])
        for one in tests
    ]  # fmt: skip
    return _decision_table(named)


def _decision_table(named: Sequence[tuple[str, Results, Sequence[Results]]]) -> Table:
    header = ["", "threshold", "ROC-AUC", "F2", "recall", "precision", "specificity"]
    header += ["caught", "missed", "false alarms", "cleared"]
    rows = []
    for name, one, decisions in named:
        for decided in decisions:
            rows.append([
                f"{name}: {decided['rule']}",
                f"{decided['threshold']:.3f}",
                score(one["auc"]),
                *(score(decided[key]) for key in ("f2", "recall", "precision", "specificity")),
                *(f"{decided[key]:,}" for key in ("tp", "fn", "fp", "tn")),
            ])  # fmt: skip
    return header, rows


def verdict_table(verdicts: Sequence[Results]) -> Table:
    """Aims and published numbers beside what the test gave."""
    rows = []
    for one in verdicts:
        rule = f", {one['rule']}" if one["rule"] else ""
        aim = "" if one["aim"] is None else f"{one['aim']:.2f}"
        passed = {None: "", True: "passed", False: "not passed"}[one["passed"]]
        published = "" if one["published"] is None else f"{one['published']:.3f}"
        rows.append([
            SCORES[one["score"]] + rule, score(one["found"]), aim, passed, published,
            one["above_published"] or "",
        ])  # fmt: skip
    return ["official test", "found", "aim", "", "published", "above it"], rows


def data_table(data: Sequence[Results]) -> Table:
    """Rows of each part, and how many test rows show a lesion of the other parts."""
    rows = [
        [
            f"{one['dataset']} ({one['scheme']})",
            *(f"{one['rows'][part]:,} ({one['malignant'][part]:,})" for part in PARTS),
            f"{one['test_rows_of_known_lesions']:,}",
        ]
        for one in data
    ]
    return ["images (malignant)", *PARTS, "test images of lesions seen before"], rows


def seed_text(results: Results) -> str:
    """How far F2 moves with the seed alone, where that was measured."""
    spreads = {
        one["name"]: (one["spread"], len(one["runs"]))
        for one in [*results["phase1"], *results["phase2"], results["chosen"]]
        if one["runs"] and one["spread"] is not None
    }
    if not spreads:
        return "Every run has one seed: how far F2 moves with the seed alone was not measured."
    told = "; ".join(f"{n} seeds of {name}: {s:.3f}" for name, (s, n) in spreads.items())
    return (
        f"F2 of equal runs that differ in the seed alone lies apart by ({told}): smaller"
        " differences between runs are noise."
    )


def label_text(results: Results) -> str:
    """Which diagnoses count as malignant here, and what the other map would change."""
    labels = results["labels"]
    differing = [f"{one['diagnosis']} ({one['rows']:,} images)" for one in labels["differ"]]
    return (
        f"Malignant are {', '.join(sorted(labels['malignant']))} (`labels: {labels['used']}`);"
        f" `labels: {labels['other']}` differs in {' and '.join(differing)}."
    )


def seal_text(results: Results) -> str:
    """When the test set was opened, and how often."""
    openings = results["openings"]
    if not openings:
        return "The test set was not opened."
    last = next(one for one in openings if one["mark"] == results["opening"])
    place = openings.index(last) + 1
    if len(openings) == 1:
        return (
            f"The test set was opened once, {last['time']}, at commit `{last['commit']}`, after"
            " everything had been chosen on validation."
        )
    if place == 1:
        return (
            f"The test set was opened {len(openings)} times; these are the scores of the first"
            f" opening, {last['time']}."
        )
    before = [f"form {one['form']}, {one['time']}" for one in openings[: place - 1]]
    return (
        f"The test set was opened {len(openings)} times; this is opening {place}, of"
        f" {last['time']}: these are not the scores of a first test. Before it:"
        f" {'; '.join(before)}."
    )
