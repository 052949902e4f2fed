"""Send a submission once, wait for its score, and record it beside its CV estimate."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lesions.blending.submission import check_submission
from lesions.errors import InputError
from lesions.files import sha256
from lesions.kaggle.client import call, cleaned
from lesions.kaggle.scores import Estimate, load_scores, write_scores
from lesions.paths import at, shown

UPLOAD_FAILED = "Could not submit to competition"  # all that the client says of it


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
    sent = dict.fromkeys(at(row["file"]) for row in load_scores())
    sent = [file for file in sent if file.exists() and file != path.resolve()]
    return check_submission(path, sample, [*sent, *earlier])


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
        answer = call(
            "listing the submissions",
            lambda api: api.competition_submissions(competition, page_size=100),
            page=rules,
        )
        return [item for item in answer or [] if item and mark in item.description]

    before = ours()
    same = [item for item in before if item.status.name != "ERROR"]
    if same and not again:
        print(f"{shown(path)}: Kaggle has it already, sent on {same[0].date}")
        return int(same[0].ref)
    what = "looking up how many submissions are left"
    limits = call(what, lambda api: api.competition_get_submission_limits(competition), page=rules)
    if limits.num_allowed_now < 1:
        raise InputError("no submission is left today: the count is renewed at 00:00 UTC")
    print(f"{limits.num_allowed_now} left today; sending {shown(path)}")
    text, lost = f"{message} {mark}", None
    try:
        answer = call(
            f"submitting {path.name}",
            lambda api: api.competition_submit(str(path), text, competition, quiet=True),
            page=rules,
            repeat=False,  # it may have arrived
        )
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
        found = call(f"status of submission {ref}", lambda api: api.get_submission(ref))
        if found.status.name != "PENDING":
            return found
        if time.monotonic() + wait > end:
            raise InputError(
                f"not scored within {minutes:g} minutes: run the same command again: it waits for"
                " the score and sends nothing"
            )
        time.sleep(wait)
        wait = min(60.0, 1.5 * wait)
