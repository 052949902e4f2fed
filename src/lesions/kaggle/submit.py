"""A submission is sent once, waited for, and written down beside its CV estimate."""

import time
from pathlib import Path
from typing import Any

from lesions.blending.submission import check_submission
from lesions.errors import InputError
from lesions.files import sha256
from lesions.kaggle import leaderboard
from lesions.kaggle.leaderboard import Submission
from lesions.kaggle.submit_estimate import Estimate
from lesions.kaggle.submit_scores import add_sent, load_scores, set_scored
from lesions.paths import at, shown

SAMPLE = at("input") / "isic2020/sample_submission.csv"


def check(path: Path, sample: Path) -> str:
    """One line on a file that may be sent; InputError with everything that is wrong with it.

    Compared with what scores.csv says was sent before: one that is upside down is refused.
    """
    if not sample.exists():
        raise InputError(
            f"{shown(sample)}: no such file, and the ids are known from it: run"
            " python scripts/download.py isic2020 --tables-only, or give --sample"
        )
    sent = dict.fromkeys(at() / row["file"] for row in load_scores())
    earlier = [file for file in sent if file.exists() and file != path.resolve()]
    return check_submission(path, sample, earlier)


def submit(
    path: Path,
    message: str,
    estimate: Estimate,
    *,
    competition: str,
    minutes: float,
    again: bool = False,
) -> Submission:
    """Send the file and wait for its score, which is written to scores.csv.

    A file whose bytes were sent before is not sent again, unless `again`: if its score was not
    there yet, it is waited for. InputError without submissions left, for one that the server
    cannot score, and after `minutes` without a score.
    """
    digest = sha256(path)
    known = load_scores()
    same = [
        number
        for number, row in enumerate(known)
        if row["sha256"] == digest and row["status"] != "error"
    ]
    if same and not again:
        number = same[-1]
        _require_unscored(known[number], path)
        print(f"{shown(path)}: sent on {known[number]['sent']} UTC: waiting for its score")
    else:
        number = len(known)
        ref = _send(path, message, f"[{digest[:8]}]", competition, again)
        add_sent(path, digest, message, ref, estimate)
    found = _scored(int(load_scores()[number]["ref"]), competition, minutes)
    set_scored(number, found)
    if found.status == "error":
        raise InputError(
            f"{shown(path)}: Kaggle could not score it: {found.error or 'no reason given'}; see"
            f" https://www.kaggle.com/competitions/{competition}/submissions"
        )
    return found


def _require_unscored(row: dict[str, Any], path: Path) -> None:
    if row["status"] == "complete":
        raise InputError(
            f"{shown(path)}: these very bytes were sent on {row['sent']} UTC: public"
            f" {row['public']:.4f}, private {row['private']:.4f}; --again sends them once more"
        )


def _send(path: Path, message: str, mark: str, competition: str, again: bool) -> int:
    """The reference of the new submission, or of one that the server has of these bytes.

    `mark`, the beginning of the file's hash, stands in the description: by it a submission is
    found whose answer was lost with the connection.
    """
    before = leaderboard.submissions(competition)
    same = [sent for sent in before if mark in sent.description and sent.status != "error"]
    if same and not again:
        print(f"{shown(path)}: Kaggle has it already, sent on {same[0].date}")
        return same[0].ref
    left = leaderboard.submissions_left(competition)
    if left < 1:
        raise InputError("no submission is left today: the count starts anew at 00:00 UTC")
    print(f"{left} left today; sending {shown(path)}")
    try:
        ref = leaderboard.submit(path, f"{message} {mark}", competition)
    except InputError as error:
        arrived = _arrived({sent.ref for sent in before}, mark, competition, error)
        print(f"{error}; but it did arrive")
        return arrived
    return ref or _arrived({sent.ref for sent in before}, mark, competition, None)


def _arrived(before: set[int], mark: str, competition: str, error: InputError | None) -> int:
    """The reference of a submission that is new in the server's list; `error` if there is none."""
    try:
        listed = leaderboard.submissions(competition)
    except InputError:
        raise InputError(
            f"{error}. It may have arrived: give the same command again, which looks first"
        ) from error
    refs = [sent.ref for sent in listed if mark in sent.description and sent.ref not in before]
    if not refs:
        raise error or InputError("sent, but Kaggle does not list it: look at its page")
    return refs[0]


def _scored(ref: int, competition: str, minutes: float) -> Submission:
    """The submission as soon as it is scored or refused."""
    end, wait = time.monotonic() + 60 * minutes, 5.0
    while True:
        found = next(
            (sent for sent in leaderboard.submissions(competition) if sent.ref == ref), None
        )
        if found and found.status != "pending":
            return found
        if time.monotonic() + wait > end:
            raise InputError(
                f"not scored within {minutes:g} minutes: give the same command again: it waits for"
                " the score and sends nothing"
            )
        time.sleep(wait)
        wait = min(60.0, 1.5 * wait)
