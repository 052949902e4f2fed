"""The account's submissions to the competition: listed, counted, sent."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesions.errors import InputError
from lesions.kaggle.calls import call, cleaned
from lesions.kaggle.remote import COMPETITION, rules_page

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

UPLOAD_FAILED = "Could not submit to competition"  # all that the client says of it


@dataclass(frozen=True)
class Submission:
    """One submission as the server lists it; scores are None until it is scored."""

    ref: int
    file_name: str
    description: str
    date: str
    status: str  # pending, complete or error
    error: str
    public: float | None
    private: float | None


def submissions(competition: str = COMPETITION) -> list[Submission]:
    """The account's submissions, newest first."""
    answer = call(
        "listing the submissions",
        lambda api: api.competition_submissions(competition, page_size=100),
        page=rules_page(competition),
    )
    return [_submission(item) for item in answer or [] if item]


def submissions_left(competition: str = COMPETITION) -> int:
    """How many submissions may be sent now."""
    answer = call(
        "looking up how many submissions are left",
        partial(_limits, competition),
        page=rules_page(competition),
    )
    return int(answer.num_allowed_now)


def submit(path: Path, message: str, competition: str = COMPETITION) -> int:
    """Send the file; the reference of the submission, 0 where the server tells none.

    Never sent twice: after a cut connection look at `submissions`.
    """
    what = f"submitting {path.name}"
    answer = call(
        what,
        lambda api: api.competition_submit(str(path), message, competition, quiet=True),
        page=rules_page(competition),
        repeat=False,
    )
    if answer.message == UPLOAD_FAILED:
        raise InputError(f"{what}: the upload failed, nothing was submitted: send it again")
    return int(getattr(answer, "ref", 0) or 0)


def _limits(competition: str, api: "KaggleApi") -> Any:
    # By the SDK: the client of Kaggle's image, 2.0.2, has no function for it.
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionLimitsRequest

    request = ApiGetSubmissionLimitsRequest()
    request.competition_name = competition
    with api.build_kaggle_client() as kaggle:
        return kaggle.competitions.competition_api_client.get_submission_limits(request)


def _submission(item: Any) -> Submission:
    return Submission(
        ref=int(item.ref),
        file_name=item.file_name or "",
        description=item.description or "",
        date=str(item.date or ""),
        status=item.status.name.lower(),
        error=cleaned(item.error_description or ""),
        public=_score(item.public_score),
        private=_score(item.private_score),
    )


def _score(text: str | None) -> float | None:
    return float(text) if text else None
