"""The files of a competition and of a data set: what there is, and downloads that go on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesions.errors import InputError
from lesions.kaggle.calls import call, cleaned, connect
from lesions.kaggle.transfer import fetch

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi
    from requests import Response

COMPETITION = "siim-isic-melanoma-classification"


def rules_page(competition: str) -> str:
    return f"https://www.kaggle.com/competitions/{competition}/rules"


def competition_files(competition: str = COMPETITION) -> dict[str, int]:
    """Bytes of each of the competition's files, by name."""
    what, page = f"listing the files of {competition}", rules_page(competition)
    return _files(
        lambda token: call(
            what,
            lambda api: api.competition_list_files(competition, token, page_size=200),
            page=page,
        ),
        "files",
    )


def competition_download(name: str, path: Path, competition: str = COMPETITION) -> str:
    """Download the competition's file `name` to `path`; returns its sha256."""

    def ask(api: "KaggleApi") -> "Response":
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest

        request = ApiDownloadDataFileRequest()
        request.competition_name, request.file_name = competition, name
        with api.build_kaggle_client() as kaggle:
            return kaggle.competitions.competition_api_client.download_data_file(request)

    what = f"downloading {name}"
    return fetch(lambda: ask(connect()), path, what=what, page=rules_page(competition))


def dataset_files(dataset: str) -> dict[str, int]:
    """Bytes of each file of the data set `owner/name`."""
    return _files(
        lambda token: call(
            f"listing the files of {dataset}",
            lambda api: api.dataset_list_files(dataset, token, page_size=200),
        ),
        "dataset_files",
    )


def dataset_download(dataset: str, path: Path, name: str = "") -> str:
    """Download the data set `owner/name` as one zip, or its file `name`; returns the sha256."""
    owner, slug = dataset.split("/")

    def ask(api: "KaggleApi") -> "Response":
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = owner, slug
        if name:
            request.file_name = name
        with api.build_kaggle_client() as kaggle:
            return kaggle.datasets.dataset_api_client.download_dataset(request)

    return fetch(lambda: ask(connect()), path, what=f"downloading {dataset}")


def _files(ask: Callable[[str | None], Any], key: str) -> dict[str, int]:
    files: dict[str, int] = {}
    token = None
    while True:
        answer = ask(token)
        if getattr(answer, "error_message", None):
            raise InputError(cleaned(answer.error_message))
        files |= {str(file.name): int(file.total_bytes) for file in getattr(answer, key) or []}
        token = answer.next_page_token or None
        if not token:
            return files
