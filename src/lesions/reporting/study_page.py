"""The page of a study: leaderboards, curves, the one test, and a reading of it in plain words."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lesions.inference.checkpoint import versions
from lesions.provenance import commit
from lesions.reporting import page, scores, style
from lesions.reporting.album import Album
from lesions.reporting.page import KeyFigure, Section
from lesions.reporting.study_tables import (
    Table,
    candidate_table,
    data_table,
    label_text,
    phase_table,
    score,
    seal_text,
    seed_text,
    skipped_text,
    test_table,
    threshold_table,
    verdict_table,
)
from lesions.reporting.summary import machine
from lesions.reporting.words import MALIGNANT

Results = Mapping[str, Any]

PROTOCOL = (
    "Validation alone decides: phase 1 ranks architectures, phase 2 changes one thing of the best,"
    " the rule takes one, its mean with others is chosen by the same rule, and two thresholds are"
    " fitted. Then the test rows are scored once. Validation scores are those of eight views; they"
    " flatter, since epochs and runs were chosen on them. Intervals are 95 %, over lesions."
)
TRUTH = (
    "The official split puts photographs of one lesion into training and test, so that its scores"
    " are there to be compared with others' on the same split. The split with lesions whole is what"
    " to expect of a new lesion. Official test rows whose lesion is nowhere else are no such"
    " measure: most are lesions photographed once, which are less often malignant and easier."
)


def with_machine(results: Results) -> dict[str, Any]:
    """The results with what they were computed on and by."""
    told = {name: text for name, text in versions().items() if name != "code"}
    return {**results, "machine": machine(), "versions": told, "commit": commit()}


def build_study_page(results: Results, rows: Mapping[str, pd.DataFrame]) -> str:
    """The whole HTML page; `rows` are predictions (target, prob, group) by what they are of."""
    album = Album()
    with style.drawing():
        sections = [
            _phases(results, album),
            _final(results, album, rows["validation"]),
            *([_test(results, album, rows)] if results["tests"] else []),
            _materials(results),
        ]
    return page.build_page(
        "DermaMNIST: malignant or benign",
        f"Study, form {results['form']}. {results['note']}",
        _figures(results),
        page.lead(_reading(results), _pictures(results)),
        sections,
        f"<p>{escape(seal_text(results))}</p>",
    )


def _main(results: Results) -> tuple[str, Results]:
    """Where the headline comes from: the test if it was opened, else validation."""
    if results["tests"]:
        return "official test", results["tests"][0]
    return "validation", results["finals"][0]


def _figures(results: Results) -> list[KeyFigure]:
    where, found = _main(results)
    first = found["decisions"][0]
    figures = [KeyFigure("ROC-AUC", *_split(found["auc"]))]
    figures += [
        KeyFigure(f"{name}, threshold of {first['rule']}", *_split(first[key]))
        for name, key in (("F2", "f2"), ("recall", "recall"), ("precision", "precision"))
    ]
    chosen = results["architecture"] + (f", {results['change']}" if results["change"] else "")
    return [*figures, KeyFigure("chosen", chosen, f"numbers: {where}")]


def _split(found: Mapping[str, float]) -> tuple[str, str]:
    value, _, interval = score(found).partition(" ")
    return value, interval


def _reading(results: Results) -> str:
    """What the numbers mean for a hundred people, in plain words, as HTML."""
    where, found = _main(results)
    told = []
    for decided in found["decisions"]:
        caught, alarms = (_per_hundred(decided, *pair) for pair in (("tp", "fn"), ("fp", "tn")))
        right = _per_hundred(decided, "tp", "fp")
        told.append(
            f"With the threshold of {decided['rule']}, {caught} of 100 malignant lesions are"
            f" flagged and {100 - caught} are missed; {alarms} of 100 harmless ones are flagged for"
            f" nothing. Of 100 flagged lesions {right} are malignant."
        )
    told.append(
        f"These are the lesions of the {where}: specialists' photographs, one in five malignant,"
        " 28 pixels wide. Among people who come in for a check far fewer lesions are malignant, and"
        " far more of the flagged ones would be harmless. A lesion that is cleared here is not safe"
        " because of it."
    )
    return "".join(f"<p>{escape(text)}</p>" for text in told)


def _per_hundred(decided: Mapping[str, int], some: str, other: str) -> int:
    return round(100 * decided[some] / max(1, decided[some] + decided[other]))


def _pictures(results: Results) -> str:
    first = _main(results)[1]["decisions"][0]
    caught = _per_hundred(first, "tp", "fn")
    alarms = _per_hundred(first, "fp", "tn")
    return page.hundred(
        caught, "melanoma", f"{caught} of 100 malignant lesions are flagged"
    ) + page.hundred(alarms, "benign", f"{alarms} of 100 benign lesions are flagged")


def _wide(title: str, found: Table, caption: str = "") -> str:
    return page.card(title, page.table(*found), caption, "wide")


def _phases(results: Results, album: Album) -> Section:
    curves = album.card(
        "curves",
        "Validation F2 by epoch",
        plot_courses([*results["phase1"], *results["phase2"]]),
        "One line a run, a single view at a threshold of 0.5; the dot is the epoch that was kept.",
    )
    return Section(
        "phases",
        "Leaderboards",
        f"Rule: {results['rule']}. {seed_text(results)}",
        [
            _wide(
                "Phase 1: architectures",
                phase_table(results["phase1"]),
                skipped_text(results["phase1"]),
            ),
            _wide(f"Phase 2: changes of {results['architecture']}", phase_table(results["phase2"])),
            curves,
        ],
    )


def plot_courses(entries: Sequence[Results]) -> Figure:
    """Validation F2 of every run by epoch; the best run of all is the thick line with a name."""
    figure, ((axes,),) = style.build_figure(3.6)
    runs = [run for entry in entries for run in entry["runs"]]
    best = max(runs, key=lambda run: run["f2"]["value"])
    for run in runs:
        epochs, f2 = zip(*[(row["epoch"], row["f2"]) for row in run["history"]], strict=True)
        first = run is best
        colour, width = (style.MODEL, 2.4) if first else (style.MUTED, 1)
        axes.plot(epochs, f2, color=colour, linewidth=width, alpha=1 if first else 0.6)
        kept = run["best_epoch"] - 1
        axes.plot(epochs[kept], f2[kept], "o", color=colour, markersize=4)
        if first:
            axes.annotate(run["name"], (epochs[kept], f2[kept]), xytext=(0, 7),
                          textcoords="offset points", ha="right", color=style.INK)  # fmt: skip
    axes.set(xlabel="epoch", ylabel="validation F2")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _final(results: Results, album: Album, rows: pd.DataFrame) -> Section:
    final = results["finals"][0]
    cards = [
        _wide("The chosen one and its seeds", phase_table([results["chosen"]])),
        _wide("What the final mean could have been of", candidate_table(results["candidates"])),
        _wide("Thresholds, on the rows they were chosen on", threshold_table(results["finals"])),
        *_curves(album, "validation", rows, final),
    ]
    return Section("final", "The final models", f"Taken: {final['name']}. {PROTOCOL}", cards)


def _test(results: Results, album: Album, rows: Mapping[str, pd.DataFrame]) -> Section:
    cards = [
        _wide("Against the aims and the published numbers", verdict_table(results["verdicts"])),
        _wide("Test", test_table(results["tests"]), TRUTH),
    ]
    tests = {one["name"]: one for one in results["tests"]}
    for final in results["finals"]:
        name = final["dataset"]
        cards += _curves(album, f"test {name}", rows[f"test {name}"], tests[name])
    return Section("test", "The test", seal_text(results), cards)


def _curves(album: Album, name: str, rows: pd.DataFrame, found: Results) -> list[str]:
    """ROC with the first threshold's point, and the confusion matrix of each threshold."""
    slug = name.replace(" ", "_")
    first = found["decisions"][0]
    point = 1 - first["specificity"]["value"], first["recall"]["value"]
    roc = scores.plot_roc(
        scores.curve_bands(rows)[0], point, f"{found['auc']['value']:.3f}", MALIGNANT
    )
    cards = [album.card(f"roc_{slug}", f"ROC, {name}", roc, f"Point: {first['rule']}.")]
    for number, decided in enumerate(found["decisions"]):
        counts = np.array([[decided["tp"], decided["fn"]], [decided["fp"], decided["tn"]]])
        cards.append(
            album.card(
                f"confusion_{slug}_{number}",
                f"Decisions, {name}",
                scores.plot_confusion(counts, MALIGNANT.kind),
                f"Threshold {decided['threshold']:.3f}: {decided['rule']}.",
            )
        )
    return cards


def _materials(results: Results) -> Section:
    cards = [_wide("Data", data_table(results["data"]), label_text(results))]
    return Section("materials", "Data and time", time_text(results), cards)


def time_text(results: Results) -> str:
    """How long the runs took, and on what."""
    entries = [*results["phase1"], *results["phase2"], results["chosen"]]
    runs = list({run["run"]: run for one in entries for run in one["runs"]}.values())
    seconds = sum(run["seconds"] for run in runs)
    all_epochs = sum(run["seconds"] / run["epochs"] * run["most_epochs"] for run in runs)
    cpu = results["machine"]
    speed = results["speed"]["microseconds"]
    whole = min(1e6 / run["images_per_second"] for run in runs)
    return (
        f"{len(runs)} runs of both phases and of the final seeds took {seconds / 60:.0f} minutes,"
        f" on {cpu['cores']} cores ({cpu['cpu']}); each run's seconds stand in its row; in full, if"
        f" none stopped early, they would take {all_epochs / 3600:.0f} hours. An image of"
        f" {results['speed']['pixels']} pixels takes {speed['cache']:.0f} µs of CPU time to copy"
        f" from the memory-mapped cache, {speed['memory']:.0f} µs from an array in memory; its"
        f" augmentation {speed['augment']:.0f} µs, a warp of whole batches as tensors"
        f" {speed['tensors']:.0f} µs. The quickest run takes {whole:,.0f} µs an image, so that"
        " neither is worth a second way of doing it."
    )
