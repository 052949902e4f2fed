"""submissions/scores.csv: what was sent, what CV said of it and what the leaderboard says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.files import atomic, read_csv, write_csv
from lesions.kaggle.leaderboard import Submission
from lesions.kaggle.submit_estimate import Estimate
from lesions.paths import at, shown

TEXT = ("sent", "file", "sha256", "message", "status", "cv_of")
COLUMNS = ["sent", "file", "sha256", "message", "ref", "status", "public", "private",
           "cv", "cv_low", "cv_high", "cv_of"]  # fmt: skip


def load_scores() -> list[dict[str, Any]]:
    """The submissions by COLUMNS, oldest first; status is pending, complete or error."""
    path = at("submissions") / "scores.csv"
    if not path.exists():
        return []
    table = read_csv(path, COLUMNS, text=TEXT).fillna(dict.fromkeys(TEXT, ""))
    return [{str(name): row[name] for name in COLUMNS} for row in table.to_dict("records")]


def add_sent(path: Path, digest: str, message: str, ref: int, estimate: Estimate) -> None:
    """Write down a submission that is not scored yet: whoever is stopped now can wait later."""
    row = {
        "sent": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), "file": shown(path.resolve()),
        "sha256": digest, "message": message, "ref": ref, "status": "pending",
        "public": None, "private": None, "cv": estimate.value, "cv_low": estimate.low,
        "cv_high": estimate.high, "cv_of": estimate.origin,
    }  # fmt: skip
    _write([*load_scores(), row])


def set_scored(number: int, found: Submission) -> None:
    """Write what the server says now of row `number`, and draw it."""
    rows = load_scores()
    scores = {"public": found.public, "private": found.private}
    rows[number] |= {"ref": found.ref, "status": found.status} | scores
    table = _write(rows)
    if table["public"].notna().any():
        draw_scores(table, at("submissions") / "scores.png")


def _write(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_csv(at("submissions") / "scores.csv", table)
    return table


def draw_scores(table: pd.DataFrame, path: Path) -> None:
    """CV with its interval against the leaderboard; on the diagonal they agree."""
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
