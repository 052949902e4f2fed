"""The leaderboard of trained runs, and what two runs differ by on the rows they share."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from safetensors import safe_open

from lesions.config import differences, find_config, load_config, read_yaml, saved_config
from lesions.errors import InputError
from lesions.evaluation.intervals import Comparison, bootstrap_values, compare
from lesions.evaluation.scores import LABELS, all_scores, names_of, score_parts, score_values
from lesions.files import write_text
from lesions.oof import Oof
from lesions.paths import at, shown
from lesions.reporting import style
from lesions.reporting.page import render
from lesions.runs import RunFiles


def rank_runs(oofs: Iterable[Oof]) -> dict[str, pd.DataFrame]:
    """A table for each data set and task, which alone are comparable: a row a run, best first.

    Columns: folds, such as 3 of 5; an Interval a score, the main one first, and of that one on each
    of several sources; minutes of training, million parameters (NaN where the weights are not
    there), and what the config changes, each as "key: parent's -> own".
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for oof in oofs:
        assert oof.run is not None
        columns = oof.codes, oof.probs, oof.task.classes, oof.groups, oof.table["source"]
        parts, names = score_parts(*columns)[0], names_of(len(oof.task.classes))
        by_source = parts[names[0]].drop("all").items()
        line = {
            "run": oof.name,
            "folds": f"{len(oof.facts)} of {oof.folds}",
            **{LABELS[name]: parts[name]["all"] for name in names},
            **{f"on {source}": found for source, found in by_source},
            "minutes": sum(facts.get("seconds", np.nan) for facts in oof.facts.values()) / 60,
            "million parameters": _parameters(oof.run) / 1e6,
            "differs in": _changes(oof.run),
        }
        lines.setdefault(f"{oof.task.name} of {oof.dataset}", []).append(line)
    boards, last = {}, ["minutes", "million parameters", "differs in"]
    for title in sorted(lines):
        board = pd.DataFrame(lines[title]).set_index("run").rename_axis(None)
        scores = board.columns.drop(last)  # of sources that not every run has: at the end
        board = board[[*scores, *last]].fillna(dict.fromkeys(scores, ""))
        falling = [-np.nan_to_num(found.value) for found in board.iloc[:, 1]]
        boards[title] = board.iloc[np.argsort(falling, kind="stable")]
    return boards


def as_text(board: pd.DataFrame) -> str:
    """The table for the terminal, with the keys alone of what the config changes."""
    keys = [", ".join(change.split(":")[0] for change in run) for run in board["differs in"]]
    return board.assign(**{"differs in": keys}).to_string(float_format="{:.1f}".format)


def compare_scores(first: Oof, second: Oof) -> dict[str, Comparison]:
    """The overall scores of `first` less those of `second`, on the rows that both have.

    Every resample of groups scores both. InputError if they share no row, or are of two tasks.
    """
    if first.task != second.task:
        raise InputError(f"{first.name} is of task {first.task.name}, {second.name} of"
                         f" {second.task.name}: there is nothing to compare")  # fmt: skip
    shared = sorted(set(first.names) & set(second.names))
    if not shared:
        raise InputError(f"{first.name} and {second.name} have no image in common")
    a, b = (oof.take(pd.Index(oof.names).get_indexer(shared)) for oof in (first, second))
    found = [score_values(a.codes, oof.probs) for oof in (a, b)]
    drawn = bootstrap_values(all_scores, a.codes, [a.probs, b.probs], a.groups)
    return {
        name: compare(found[0][name] - found[1][name], drawn[:, 0, place] - drawn[:, 1, place])
        for place, name in enumerate(names_of(len(a.task.classes)))
    }


def write_page(boards: dict[str, pd.DataFrame]) -> str:
    """Write oof/runs.html and its figures as PNG; the page's path as messages print it.

    A figure has score against minutes of training, a dot a run with its interval.
    """
    path, figures = at("oof", "runs.html"), {}
    with style.drawing():
        for number, (title, board) in enumerate(boards.items()):
            figure, ((axes,),) = style.build_figure()
            for name, run in board.iterrows():
                minutes, found = run["minutes"], run.iloc[1]
                axes.plot([minutes] * 2, [found.low, found.high], color=style.MODEL, linewidth=1.2)
                axes.plot(minutes, found.value, "o", color=style.MODEL)
                axes.annotate(str(name), (minutes, found.value), xytext=(5, 4),
                              textcoords="offset points", fontsize=8)  # fmt: skip
            axes.set(xscale="log", xlabel="minutes of training, all folds",
                     ylabel=board.columns[1])  # fmt: skip
            figures[title] = Markup(style.svg(figure, f"cost{number}"))
            style.write_png(figure, path.with_suffix("") / f"cost{number}.png")
    write_text(path, render("runs.html.j2", boards=boards, figures=figures))
    return shown(path)


def _parameters(run: RunFiles) -> float:
    """Numbers in a fold's weights, read from the file's header."""
    folds = run.numbers(".safetensors")
    if not folds:
        return np.nan
    with safe_open(run.file(folds[0], ".safetensors"), "pt") as file:
        names = file.keys()
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in names)


def _changes(run: RunFiles) -> list[str]:
    """How the run's config differs from the one that its YAML extends, or from its YAML."""
    path = run.folder / "config.yaml"
    own = saved_config(read_yaml(path), path)
    try:
        config = find_config(run.name)
    except InputError:  # trained under another name
        return []
    parent = read_yaml(config).get("extends")
    base = load_config(config.parent / parent if parent else config)
    return differences(base.model_dump(), own.model_dump())
