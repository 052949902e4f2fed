"""submissions/scores.csv and scores.png: submissions, their CV estimates and their scores."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.errors import InputError
from lesions.evaluation.intervals import delong, format_interval
from lesions.files import atomic, read_csv, read_json, sha256, write_csv
from lesions.oof import load_oof
from lesions.paths import at, shown

TEXT = ("sent", "file", "sha256", "message", "status", "cv_of")
COLUMNS = ["sent", "file", "sha256", "message", "ref", "status", "public", "private",
           "cv", "cv_low", "cv_high", "cv_of"]  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """AUC on held-out patients with its 95 % interval; NaN, and the reason in `origin`, if none."""

    value: float
    low: float
    high: float
    origin: str

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f"no CV estimate: {self.origin}"
        return f"CV {format_interval(self.value, self.low, self.high, 4)} ({self.origin})"


def cv_estimate(path: Path) -> Estimate:
    """A blend's nested AUC, if blend.json is of these very bytes, or a run's out-of-fold AUC.

    A run's submission is known by its name: submissions/<run>.csv belongs to oof/<run>.
    """
    beside = path.with_suffix(".json")
    path, folder = path.resolve(), at("submissions")
    run = path.relative_to(folder).with_suffix("") if path.is_relative_to(folder) else None
    try:
        facts = read_json(beside) if beside.exists() else {}
        if "methods" in facts:
            return _of_blend(facts, path)
        if "sha256" in facts and facts["sha256"] != sha256(path):
            return _none(f"{beside.name} is of another file than this: predict again")
        if run and any(at("oof", run).glob("fold*.csv")):
            return _of_run(run.as_posix(), facts.get("column"))
    except InputError as error:
        return _none(str(error))
    return _none(f"neither a blend's {beside.name} beside it nor a run of this name")


def _of_blend(facts: dict[str, Any], path: Path) -> Estimate:
    try:
        made, method = facts["submission"]["sha256"], facts["methods"][facts["chosen"]]
        numbers = [method["nested"], *method["interval"]]
    except (KeyError, TypeError):
        return _none(f"{path.stem}.json was not written by scripts/blend.py")
    if made != sha256(path):
        return _none(f"{path.stem}.json is of another file than this: blend again")
    value, low, high = (np.nan if number is None else number for number in numbers)
    return Estimate(value, low, high, f"nested, {facts['chosen']} of {len(facts['members'])}")


def _of_run(run: str, column: str | None) -> Estimate:
    """The AUC of the submitted column: `column` of a run of several classes, or P(positive)."""
    oof = load_oof(run).of_source()
    positive, score = oof.positive, oof.score
    if column:
        number = oof.task.classes.index(column)
        positive, score = oof.codes == number, oof.probs[:, number]
    found = delong(positive, score, oof.groups)
    return Estimate(
        found.value, found.low, found.high, f"out-of-fold, {len(oof.files)} folds of {run}"
    )


def _none(reason: str) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, reason)


def load_scores() -> list[dict[str, Any]]:
    """The submissions by COLUMNS, oldest first; status is pending, complete or error."""
    path = at("submissions/scores.csv")
    if not path.exists():
        return []
    table = read_csv(path, COLUMNS, text=TEXT).fillna(dict.fromkeys(TEXT, ""))
    return [{str(name): row[name] for name in COLUMNS} for row in table.to_dict("records")]


def add_sent(path: Path, digest: str, message: str, ref: int, estimate: Estimate) -> None:
    """Record a submission that is not scored yet: a later command can wait for its score."""
    row = {
        "sent": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), "file": shown(path.resolve()),
        "sha256": digest, "message": message, "ref": ref, "status": "pending",
        "public": None, "private": None, "cv": estimate.value, "cv_low": estimate.low,
        "cv_high": estimate.high, "cv_of": estimate.origin,
    }  # fmt: skip
    _write([*load_scores(), row])


def set_scored(number: int, facts: dict[str, Any]) -> None:
    """Record the server's answer in row `number`: status, public, private; and draw all scores."""
    rows = load_scores()
    rows[number] |= facts
    table = _write(rows)
    if table["public"].notna().any():
        draw_scores(table, at("submissions/scores.png"))


def _write(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_csv(at("submissions/scores.csv"), table)
    return table


def draw_scores(table: pd.DataFrame, path: Path) -> None:
    """CV with its interval against the leaderboard; they agree on the diagonal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = table[table["public"].notna()].astype({"public": float, "private": float, "cv": float})
    with_cv = table[table["cv"].notna()]
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    error = with_cv[["cv_low", "cv_high"]].sub(with_cv["cv"], axis=0).abs().fillna(0).to_numpy().T
    for column, colour, filled in (("public", "#1f5fa8", True), ("private", "#c2410c", False)):
        axes.errorbar(
            with_cv["cv"], with_cv[column], xerr=error if filled else None, fmt="o", color=colour,
            markerfacecolor=colour if filled else "white", elinewidth=1, label=column,
        )  # fmt: skip
    for _, row in with_cv.iterrows():
        axes.annotate(
            Path(row["file"]).stem, (row["cv"], row["public"]), fontsize=8, color="#5b6876",
            xytext=(5, 5), textcoords="offset points",
        )  # fmt: skip
    for score in table.loc[table["cv"].isna(), "public"]:
        axes.axhline(score, color="#9aa5b1", linestyle=":", linewidth=1)
    low, high = (axes.viewLim.intervalx.min(), axes.viewLim.intervalx.max())
    axes.axline((low, low), slope=1, color="#9aa5b1", linewidth=1, zorder=0, label="as in CV")
    axes.set_xlim(low, high)
    axes.set_xlabel("AUC in cross-validation, with its 95 % interval")
    axes.set_ylabel("AUC on the leaderboard")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    with atomic(path) as part:
        figure.savefig(part, dpi=130, format="png", metadata={"Software": None})
