"""What this repository asks of Kaggle: data sets and kernels (also: remote.py, leaderboard.py).

Thin functions over the genuine `kaggle` client; each raises InputError with one clear line.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lesions.errors import InputError, listed
from lesions.files import write_text
from lesions.kaggle.calls import call, cleaned
from lesions.kaggle.transfer import at, fetch

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi


def username() -> str:
    """The name of the account that the credentials belong to."""
    return str(call("signing in", lambda api: api.config_values["username"]))


def dataset_exists(dataset: str) -> bool:
    """Whether the account has the data set; the server says 403 or 404 of one that is not there."""
    from requests import HTTPError

    def ask(api: "KaggleApi") -> bool:
        try:
            api.dataset_status(dataset)
        except HTTPError as error:
            if error.response is not None and error.response.status_code in (403, 404):
                return False
            raise
        return True

    return call(f"looking for {dataset}", ask)


def dataset_status(dataset: str) -> str:
    """ "ready", or what the server says of a version that it still takes in."""
    return str(call(f"status of {dataset}", lambda api: api.dataset_status(dataset)))


def dataset_create(folder: Path) -> str:
    """Make the data set that the folder's dataset-metadata.json describes; returns its address.

    Folders in it travel as zips, which Kaggle unpacks. A file that cannot be sent fails it all.
    """
    what = f"making a data set of {folder.name}"
    options = {"quiet": not sys.stderr.isatty(), "dir_mode": "zip"}
    return _dataset(what, lambda api: api.dataset_create_new(str(folder), **options))


def dataset_version(folder: Path, notes: str) -> str:
    """Add a version to an existing data set; otherwise as `dataset_create`."""
    what = f"sending a new version of {folder.name}"
    options = {"quiet": not sys.stderr.isatty(), "dir_mode": "zip"}
    return _dataset(what, lambda api: api.dataset_create_version(str(folder), notes, **options))


def kernel_push(folder: Path) -> tuple[int, str]:
    """Send the folder's kernel and run it; its version number and address.

    InputError also for what the client only prints: a refused kernel, or a data source that the
    server does not know and would leave out.
    """
    what = f"pushing the kernel in {folder.name}"
    answer = call(what, lambda api: api.kernels_push(str(folder)), repeat=False)
    if answer is None or answer.error:
        raise InputError(cleaned(f"{what}: {answer.error if answer else 'no answer'}"))
    unknown = [
        source
        for kind in ("dataset", "competition", "kernel", "model")
        for source in getattr(answer, f"invalid_{kind}_sources") or []
    ]
    if unknown:
        raise InputError(f"{what}: it runs without {listed(unknown)}, which Kaggle does not know")
    return int(answer.version_number or 0), str(answer.url)


def kernel_status(kernel: str) -> tuple[str, str]:
    """(status, reason of a failure) of the kernel `owner/name`.

    The status is queued, running, complete, error, cancel_requested, cancel_acknowledged or
    new_script.
    """
    answer = call(f"status of {kernel}", lambda api: api.kernels_status(kernel))
    return answer.status.name.lower(), cleaned(answer.failure_message or "")


def kernel_output(
    kernel: str, folder: Path, wanted: Callable[[str], bool] = lambda name: True
) -> list[Path]:
    """Download the wanted files of the kernel's last output below `folder`, and <name>.log.

    InputError before anything is written if a name would land outside the folder.
    """
    owner, slug = kernel.split("/")[:2]
    addresses: dict[str, str] = {}
    token, log = "", ""
    while True:
        answer = call(f"output of {kernel}", partial(_output, owner, slug, token))
        addresses |= {file.file_name: file.url for file in answer.files or []}
        log = log or answer.log or ""
        token = answer.next_page_token or ""
        if not token:
            break
    outside = [name for name in addresses if not _stays(name)]
    if outside:
        raise InputError(
            f"output of {kernel}: {listed(map(repr, outside))} would land outside {folder.name}:"
            " nothing was written"
        )
    paths = [folder / name for name in addresses if wanted(name)]
    for path in paths:
        fetch(at(addresses[path.relative_to(folder).as_posix()]), path)
    if log:
        write_text(folder / f"{slug}.log", log)
    return paths


def gpu_hours_left() -> float:
    """Hours of GPU that are left of this week's quota."""
    quota = call("looking up the weekly quota", _quota).gpu_quota
    if quota is None:
        raise InputError("Kaggle tells no GPU quota for this account: is its phone verified?")
    return max(0.0, (quota.total_time_allowed - quota.time_used).total_seconds() / 3600)


def _quota(api: "KaggleApi") -> Any:
    # By the SDK: the client of Kaggle's image, 2.0.2, has no function for it.
    from kagglesdk.kernels.types.kernels_api_service import (
        ApiGetAcceleratorQuotaStatisticsRequest as Request,
    )

    with api.build_kaggle_client() as kaggle:
        return kaggle.kernels.kernels_api_client.get_accelerator_quota_statistics(Request())


def _dataset(what: str, send: Callable[["KaggleApi"], Any]) -> str:
    def sent(api: "KaggleApi") -> Any:
        upload = type(api)._upload_file

        def checked(name: str, *arguments: Any, **options: Any) -> Any:
            # The client leaves out a file that it could not send, and makes the version without.
            file = upload(api, name, *arguments, **options)
            if file is None:
                raise InputError(f"{what}: {name} could not be sent: nothing was made; try again")
            return file

        api._upload_file = checked
        return send(api)

    answer = call(what, sent, repeat=False)
    if answer.error or (answer.status or "ok").lower() == "error":
        raise InputError(cleaned(f"{what}: {answer.error or answer.status}"))
    return str(answer.url or answer.ref)


def _output(owner: str, slug: str, token: str, api: "KaggleApi") -> Any:
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    request = ApiListKernelSessionOutputRequest()
    request.user_name, request.kernel_slug, request.page_size = owner, slug, 100
    if token:
        request.page_token = token
    with api.build_kaggle_client() as kaggle:
        return kaggle.kernels.kernels_api_client.list_kernel_session_output(request)


def _stays(name: str) -> bool:
    path = PurePosixPath(name)
    odd = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
    return bool(path.parts) and not odd
