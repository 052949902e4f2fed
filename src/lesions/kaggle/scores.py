"""submissions/scores.csv and scores.png: submissions, their CV estimates and their scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.errors import InputError
from lesions.evaluation.intervals import delong, format_interval
from lesions.files import atomic, read_csv, read_json, sha256, write_csv
from lesions.oof import load_oof
from lesions.paths import at

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
    beside, folder = path.with_suffix(".json"), at("submissions")
    facts = read_json(beside) if beside.exists() else {}
    made = facts.get("sha256") or facts.get("submission", {}).get("sha256")
    if made and made != sha256(path):
        return _none(f"{beside.name} is of another file than this: blend or predict again")
    if "methods" in facts:
        method = facts["methods"][facts["chosen"]]
        numbers = [method["nested"], *(method["interval"] or [None, None])]
        value, low, high = (np.nan if number is None else number for number in numbers)
        return Estimate(value, low, high, f"nested, {facts['chosen']} of {len(facts['members'])}")
    inside = path.resolve().is_relative_to(folder)
    run = path.resolve().relative_to(folder).with_suffix("").as_posix() if inside else ""
    if not run or not any(at("oof", run).glob("fold*.csv")):
        return _none("no blend.json of this file, and no run of this name")
    try:
        oof = load_oof(run).of_source()
    except InputError as error:
        return _none(str(error))
    positive, score = oof.positive, oof.score
    if facts.get("column"):  # the submitted class of a run of several
        number = oof.task.classes.index(facts["column"])
        positive, score = oof.codes == number, oof.probs[:, number]
    found = delong(positive, score, oof.groups)
    origin = f"out-of-fold, {len(oof.files)} folds of {run}"
    return Estimate(found.value, found.low, found.high, origin)


def _none(reason: str) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, reason)


def load_scores() -> list[dict[str, Any]]:
    """The submissions by COLUMNS, oldest first; status is pending, complete or error."""
    path = at("submissions/scores.csv")
    if not path.exists():
        return []
    table = read_csv(path, COLUMNS, text=TEXT).fillna(dict.fromkeys(TEXT, ""))
    return [{str(name): row[name] for name in COLUMNS} for row in table.to_dict("records")]


def write_scores(rows: list[dict[str, Any]]) -> None:
    """Write the submissions, and draw CV with its interval against the leaderboard."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = pd.DataFrame(rows, columns=COLUMNS)
    write_csv(at("submissions/scores.csv"), table)
    table = table[table["public"].notna()].astype({"public": float, "private": float, "cv": float})
    if table.empty:
        return
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    known = table[table["cv"].notna()]
    error = known[["cv_low", "cv_high"]].sub(known["cv"], axis=0).abs().fillna(0).to_numpy().T
    axes.errorbar(known["cv"], known["public"], xerr=error, fmt="o", elinewidth=1, label="public")
    axes.plot(known["cv"], known["private"], "o", mfc="white", color="#c2410c", label="private")
    for _, row in known.iterrows():
        axes.annotate(
            Path(row["file"]).stem, (row["cv"], row["public"]), fontsize=8, color="#5b6876",
            xytext=(5, 5), textcoords="offset points",
        )  # fmt: skip
    for score in table.loc[table["cv"].isna(), "public"]:
        axes.axhline(score, color="#9aa5b1", linestyle=":", linewidth=1)
    low, high = axes.viewLim.intervalx
    axes.axline((low, low), slope=1, color="#9aa5b1", linewidth=1, zorder=0, label="as in CV")
    axes.set(xlim=(low, high), xlabel="AUC in cross-validation, with its 95 % interval",
             ylabel="AUC on the leaderboard")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    with atomic(at("submissions/scores.png")) as part:
        figure.savefig(part, dpi=130, format="png", metadata={"Software": None})
