"""The leaderboard of trained runs, and what two runs differ by on the rows they share."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from safetensors import safe_open

from lesions.config import differences, find_config, load_config, read_yaml, saved_config
from lesions.errors import InputError
from lesions.evaluation.intervals import Comparison, Interval, bootstrap_values, compare
from lesions.evaluation.scores import LABELS, all_scores, names_of, score_parts, score_values
from lesions.files import write_text
from lesions.oof import Oof, load_oof
from lesions.paths import at, shown
from lesions.reporting import style
from lesions.reporting.page import render
from lesions.runs import RunFiles


class Standing(NamedTuple):
    """A run's line: `by_source` has its main score on each of several sources."""

    oof: Oof
    folds: str  # such as 3 of 5
    scores: dict[str, Interval]
    by_source: dict[str, Interval]
    seconds: float
    millions: float  # of parameters; NaN where the weights are not there
    changes: list[str]  # "key: parent's -> own"

    @property
    def main(self) -> Interval:
        return next(iter(self.scores.values()))


def rank_runs(standings: list[Standing]) -> dict[str, list[Standing]]:
    """The runs by data set and task, which alone are comparable, the best first."""
    found: dict[str, list[Standing]] = {}
    for standing in sorted(standings, key=lambda each: -np.nan_to_num(each.main.value)):
        oof = standing.oof
        found.setdefault(f"{oof.task.name} of {oof.dataset}", []).append(standing)
    return dict(sorted(found.items()))


def score_run(run: RunFiles) -> Standing:
    """The run's scores and costs; InputError if its files are damaged or of another table."""
    oof = load_oof(run)
    parts, _ = score_parts(oof.codes, oof.probs, oof.task.classes, oof.groups, oof.table["source"])
    names = names_of(len(oof.task.classes))
    return Standing(
        oof=oof,
        folds=f"{len(oof.facts)} of {oof.folds}",
        scores={name: parts[name]["all"] for name in names},
        by_source={str(name): found for name, found in parts[names[0]].drop("all").items()},
        seconds=sum(facts.get("seconds", np.nan) for facts in oof.facts.values()),
        millions=_parameters(run) / 1e6,
        changes=_changes(run),
    )


def as_table(standings: list[Standing]) -> pd.DataFrame:
    """A row a run, for the terminal."""
    rows = []
    for each in standings:
        scores = {LABELS[name]: str(found) for name, found in each.scores.items()}
        scores |= {f"on {source}": str(found) for source, found in each.by_source.items()}
        minutes, millions = round(each.seconds / 60, 1), round(each.millions, 1)
        costs = {"minutes": minutes, "million parameters": millions}
        keys = ", ".join(change.split(":")[0] for change in each.changes)
        rows.append({"folds": each.folds} | scores | costs | {"differs in": keys})
    return pd.DataFrame(rows, [each.oof.name for each in standings])


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


def write_page(boards: dict[str, list[Standing]]) -> str:
    """Write oof/runs.html and its figures as PNG; the page's path as messages print it.

    A figure has score against minutes of training, a dot a run with its interval.
    """
    path, figures = at("oof", "runs.html"), {}
    with style.drawing():
        for number, (title, board) in enumerate(boards.items()):
            figure, ((axes,),) = style.build_figure()
            for each in board:
                minutes, found = each.seconds / 60, each.main
                axes.plot([minutes] * 2, [found.low, found.high], color=style.MODEL, linewidth=1.2)
                axes.plot(minutes, found.value, "o", color=style.MODEL)
                axes.annotate(each.oof.name, (minutes, found.value), xytext=(5, 4),
                              textcoords="offset points", fontsize=8)  # fmt: skip
            axes.set(xscale="log", xlabel="minutes of training, all folds",
                     ylabel=LABELS[next(iter(board[0].scores))])  # fmt: skip
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
