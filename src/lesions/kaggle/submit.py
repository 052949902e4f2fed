"""Send a submission once, wait for its score, and record it beside its CV estimate."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesions.blending.submission import check_submission
from lesions.errors import InputError
from lesions.files import sha256
from lesions.kaggle.client import call, cleaned
from lesions.kaggle.scores import Estimate, add_sent, load_scores, set_scored
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
    path: Path,
    message: str,
    estimate: Estimate,
    *,
    competition: str,
    minutes: float,
    again: bool = False,
) -> dict[str, Any]:
    """Send the file and wait for its score, which is written to scores.csv; public and private.

    A file whose bytes were sent before is not sent again, unless `again`: its score is waited for
    if it was not there yet. InputError without submissions left, for a file that Kaggle cannot
    score, and after `minutes` without a score.
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
    answer = _scored(int(load_scores()[number]["ref"]), minutes)
    found = {
        "status": answer.status.name.lower(),
        "public": float(answer.public_score) if answer.public_score else None,
        "private": float(answer.private_score) if answer.private_score else None,
    }
    set_scored(number, found)
    if found["status"] == "error":
        raise InputError(
            f"{shown(path)}: Kaggle could not score it:"
            f" {cleaned(answer.error_description or '') or 'no reason given'}; see"
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
    """The reference of the new submission, or of one of the same bytes that Kaggle has already.

    `mark`, the beginning of the file's hash, is put into the description: by it a submission is
    found whose answer was lost with the connection.
    """
    before = _submissions(competition)
    same = [item for item in before if mark in item.description and item.status.name != "ERROR"]
    if same and not again:
        print(f"{shown(path)}: Kaggle has it already, sent on {same[0].date}")
        return int(same[0].ref)
    what, rules = "looking up how many submissions are left", _rules(competition)
    limits = call(what, lambda api: api.competition_get_submission_limits(competition), page=rules)
    if limits.num_allowed_now < 1:
        raise InputError("no submission is left today: the count is renewed at 00:00 UTC")
    print(f"{limits.num_allowed_now} left today; sending {shown(path)}")
    refs = {item.ref for item in before}
    try:
        answer = call(
            f"submitting {path.name}",
            lambda api: api.competition_submit(
                str(path), f"{message} {mark}", competition, quiet=True
            ),
            page=rules,
            repeat=False,  # it may have arrived
        )
    except InputError as error:
        arrived = _arrived(refs, mark, competition, error)
        print(f"{error}; but it did arrive")
        return arrived
    if answer.message == UPLOAD_FAILED:
        raise InputError(
            f"submitting {path.name}: the upload failed, nothing was submitted: send it again"
        )
    return int(answer.ref or 0) or _arrived(refs, mark, competition, None)


def _arrived(before: set[int], mark: str, competition: str, error: InputError | None) -> int:
    """The reference of a submission that is new in the server's list; `error` if there is none."""
    try:
        found = _submissions(competition)
    except InputError:
        raise InputError(
            f"{error}. It may have arrived: run the same command again, which looks first"
        ) from error
    refs = [item.ref for item in found if mark in item.description and item.ref not in before]
    if not refs:
        raise error or InputError("sent, but Kaggle does not list it: look at its page")
    return int(refs[0])


def _submissions(competition: str) -> list[Any]:
    """The account's submissions, newest first."""
    answer = call(
        "listing the submissions",
        lambda api: api.competition_submissions(competition, page_size=100),
        page=_rules(competition),
    )
    return [item for item in answer or [] if item]


def _rules(competition: str) -> str:
    return f"https://www.kaggle.com/competitions/{competition}/rules"


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
