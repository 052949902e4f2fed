"""Send a submission once, wait for its score, and record it beside its CV estimate.

submissions/scores.csv has a row a submission; scores.png draws them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.blending.submission import check_submission
from lesions.errors import InputError
from lesions.evaluation.intervals import delong, format_interval
from lesions.files import atomic, read_csv, read_json, sha256, write_csv
from lesions.kaggle.client import call, cleaned
from lesions.oof import load_oof
from lesions.paths import at, shown

UPLOAD_FAILED = "Could not submit to competition"  # all that the client says of it
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


def check(path: Path, sample: Path | None, earlier: Sequence[Path]) -> str:
    """One line on a file that may be sent; InputError with everything that is wrong with it.

    Compared with `earlier` submissions and those of scores.csv: an inverted one is refused.
    """
    sample = sample or at("input/isic2020/sample_submission.csv")
    if not sample.exists():
        raise InputError(
            f"{shown(sample)}: no such file; it lists the images to be predicted: run"
            " python scripts/download.py isic2020 --tables-only, or give --sample"
        )
    sent = dict.fromkeys(at(str(row["file"])) for row in load_scores())
    known = [file for file in sent if file.exists() and file != path.resolve()]
    return check_submission(path, sample, [*known, *earlier])


def submit(
    path: Path, message: str, estimate: Estimate, competition: str, minutes: float, again: bool
) -> dict[str, Any]:
    """Send the file and wait for its score; its row of scores.csv.

    A file whose bytes were sent before is not sent again, unless `again`: its score is waited for
    if it was not there yet. InputError without submissions left, for a file that Kaggle cannot
    score, and after `minutes` without a score.
    """
    digest, rows = sha256(path), load_scores()
    same = [row for row in rows if row["sha256"] == digest and row["status"] != "error"]
    if same and not again:
        row = same[-1]
        if row["status"] == "complete":
            raise InputError(
                f"{shown(path)}: these very bytes were sent on {row['sent']} UTC: public"
                f" {row['public']:.4f}, private {row['private']:.4f}; --again sends them once more"
            )
        print(f"{shown(path)}: sent on {row['sent']} UTC: waiting for its score")
    else:
        ref = _send(path, message, f"[{digest[:8]}]", competition, again)
        row = {
            "sent": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), "file": shown(path.resolve()),
            "sha256": digest, "message": message, "ref": ref, "status": "pending",
            "public": None, "private": None, "cv": estimate.value, "cv_low": estimate.low,
            "cv_high": estimate.high, "cv_of": estimate.origin,
        }  # fmt: skip
        rows.append(row)
        write_scores(rows)  # a command that is stopped now can wait for the score later
    answer = _scored(int(row["ref"]), minutes)
    row["status"] = answer.status.name.lower()
    row["public"] = float(answer.public_score) if answer.public_score else None
    row["private"] = float(answer.private_score) if answer.private_score else None
    write_scores(rows)
    if row["status"] == "error":
        raise InputError(
            f"{shown(path)}: Kaggle could not score it:"
            f" {cleaned(answer.error_description or '') or 'no reason given'}; see"
            f" https://www.kaggle.com/competitions/{competition}/submissions"
        )
    return row


def _send(path: Path, message: str, mark: str, competition: str, again: bool) -> int:
    """The reference of the new submission, or of one of the same bytes that Kaggle has already.

    `mark`, the beginning of the file's hash, is put into the description: by it a submission is
    found whose answer was lost with the connection.
    """
    rules = f"https://www.kaggle.com/competitions/{competition}/rules"

    def ours() -> list[Any]:
        """Kaggle's submissions of these bytes, newest first."""
        answer = call("listing the submissions", "competition_submissions", competition,
                      page_size=100, page=rules)  # fmt: skip
        return [item for item in answer or [] if item and mark in item.description]

    before = ours()
    same = [item for item in before if item.status.name != "ERROR"]
    if same and not again:
        print(f"{shown(path)}: Kaggle has it already, sent on {same[0].date}")
        return int(same[0].ref)
    what = "looking up how many submissions are left"
    limits = call(what, "competition_get_submission_limits", competition, page=rules)
    if limits.num_allowed_now < 1:
        raise InputError("no submission is left today: the count is renewed at 00:00 UTC")
    print(f"{limits.num_allowed_now} left today; sending {shown(path)}")
    text, lost = f"{message} {mark}", None
    try:
        answer = call(f"submitting {path.name}", "competition_submit", str(path), text, competition,
                      quiet=True, page=rules, repeat=False)  # fmt: skip
        if answer.ref:
            return int(answer.ref)
        if answer.message == UPLOAD_FAILED:
            raise InputError(
                f"submitting {path.name}: the upload failed, nothing was submitted: send it again"
            )
    except InputError as error:
        lost = error
    try:
        new = [item.ref for item in ours() if item.ref not in {known.ref for known in before}]
    except InputError as error:
        raise InputError(
            f"{lost or error}. It may have arrived: run the same command again, which looks first"
        ) from error
    if not new:
        raise lost or InputError("sent, but Kaggle does not list it: look at its page")
    if lost:
        print(f"{lost}; but it did arrive")
    return int(new[0])


def _scored(ref: int, minutes: float) -> Any:
    """The submission as soon as it is scored or refused."""
    end, wait = time.monotonic() + 60 * minutes, 5.0
    while True:
        found = call(f"status of submission {ref}", "get_submission", ref)
        if found.status.name != "PENDING":
            return found
        if time.monotonic() + wait > end:
            raise InputError(
                f"not scored within {minutes:g} minutes: run the same command again: it waits for"
                " the score and sends nothing"
            )
        time.sleep(wait)
        wait = min(60.0, 1.5 * wait)


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
