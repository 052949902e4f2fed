"""Send a submission once, wait for its score, record it beside its CV estimate in scores.csv."""

import time
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.blending.submission import load_scores
from lesions.errors import InputError
from lesions.evaluation.intervals import Interval
from lesions.files import read_csv, sha256, write_csv
from lesions.kaggle.client import COMPETITION, PAGE, call, cleaned
from lesions.paths import at, shown


def submit(
    path: Path, message: str, estimate: tuple[Interval, str], minutes: float, again: bool
) -> Any:
    """Send the file and wait for its score: the submission, which scores.csv then has as well.

    Bytes that Kaggle has already are not sent again, unless `again`: a command that was stopped
    goes on to wait. InputError without submissions left, for a file that Kaggle cannot score, and
    after `minutes` without a score.
    """
    if "isic_id" in read_csv(path):
        raise InputError(f"{shown(path)}: isic_id is ISIC 2024's header, and {COMPETITION} would"
                         " get it: --dry-run checks it")  # fmt: skip
    digest = sha256(path)
    ref = _send(path, message, f"[{digest[:8]}]", again)
    end, wait = time.monotonic() + 60 * minutes, 5.0
    while (answer := call(f"status of {ref}", "get_submission", ref)).status.name == "PENDING":
        if time.monotonic() + wait > end:
            raise InputError(
                f"not scored within {minutes:g} minutes: run the same command again: it waits for"
                " the score and sends nothing"
            )
        time.sleep(wait)
        wait = min(60.0, 1.5 * wait)
    cv, origin = estimate
    row = {
        "sent": f"{answer.date:%Y-%m-%d %H:%M:%S}", "file": shown(path.resolve()),
        "sha256": digest, "message": message, "ref": ref, "status": answer.status.name.lower(),
        "public": float(answer.public_score or "nan"),
        "private": float(answer.private_score or "nan"),
        "cv": cv.value, "cv_low": cv.low, "cv_high": cv.high, "cv_of": origin,
    }  # fmt: skip
    before = load_scores()
    rows = [*before[before["ref"] != ref].to_dict("records"), row]
    write_csv(at("submissions/scores.csv"), pd.DataFrame(rows))
    if row["status"] == "error":
        reason = cleaned(answer.error_description or "") or "no reason given"
        raise InputError(
            f"{shown(path)}: Kaggle could not score it: {reason}; see {PAGE}/submissions"
        )
    return answer


def _send(path: Path, message: str, mark: str, again: bool) -> int:
    """The reference of the new submission, or of one of the same bytes that Kaggle has already.

    `mark`, the beginning of the file's hash, is put into the description: by it a submission is
    found whose answer was lost with the connection.
    """
    before = _sent(mark)
    good = [item for item in before.values() if item.status.name != "ERROR"]
    if good and not again:
        print(f"{shown(path)}: sent on {good[0].date:%d %b %H:%M} UTC; --again sends it once more")
        return int(good[0].ref)
    what = f"submitting {path.name}"
    limits = "competition_get_submission_limits"
    left = call("looking up the submissions left", limits, COMPETITION).num_allowed_now
    if left < 1:
        raise InputError("no submission is left today: the count is renewed at 00:00 UTC")
    print(f"{left} left today; sending {shown(path)}")
    try:
        answer = call(what, "competition_submit", str(path), f"{message} {mark}", COMPETITION,
                      quiet=True, repeat=False)  # fmt: skip
    except InputError as error:
        print(f"{error}. It may have arrived: looking, as the same command does before it sends")
        new = [ref for ref in _sent(mark) if ref not in before]
        if not new:
            raise
        return int(new[0])
    if not answer.ref:
        raise InputError(f"{what}: the upload failed, nothing was submitted: send it again")
    return int(answer.ref)


def _sent(mark: str) -> dict[int, Any]:
    """Kaggle's submissions with the mark in their description by reference, newest first."""
    what = "listing the submissions"
    answer = call(what, "competition_submissions", COMPETITION, page_size=100)
    return {item.ref: item for item in answer or [] if item and mark in item.description}
