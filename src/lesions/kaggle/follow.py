"""Run kernels on Kaggle to their end and fetch what they wrote; resume until a run is done."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from lesions.config import (
    Config,
    differences,
    load_config,
    load_dataset_config,
    read_yaml,
    saved_config,
)
from lesions.data.table import load_table, prepared
from lesions.errors import InputError, listed
from lesions.files import read_json
from lesions.kaggle.client import call, cleaned, username
from lesions.kaggle.kernels import (
    CACHE,
    Kernel,
    SessionsFullError,
    copy,
    push_kernel,
    slug,
    weights_to_train,
)
from lesions.paths import at, shown

RESUME = 75  # as scripts/train.py: run the same command again, later
BUSY = ("queued", "running", "new_script", "cancel_requested")
LEAST_HOURS = 0.5  # of quota that are worth a session: starting one takes minutes
RESERVE_HOURS = 0.3  # of the quota, for the minutes before training and after it


def run_kernel(kernel: Kernel, every: float | None, sharing: int) -> int:
    """Start a kernel; 0, or 75 where it has to wait for a session or for quota.

    With `every` its status is read every so many seconds until it has ended, and its output is
    fetched. `sharing` is the number of sessions that are to share the week's GPU quota.
    """
    try:
        if every is None:
            push_kernel(kernel)
        elif kernel.kind == "train":
            return _train(kernel, every, sharing)
        elif kernel.kind == "prepare":
            _prepare(kernel, every)
        else:
            _fetch_result(kernel, _finished(push_kernel(kernel), every))
    except SessionsFullError as error:
        print(f"{time.strftime('%H:%M')} {error}: run the same command again when one has ended")
        return RESUME
    return 0


def _train(kernel: Kernel, every: float, sharing: int) -> int:
    """Run sessions until the run's folds are in oof/<run>; 75 where the week's GPU quota ends."""
    run, name = kernel.values["run"], f"{username()}/{kernel.name}"
    config, folder, most = load_config(run), at("oof", run), kernel.max_hours
    if not (folds := kernel.values["folds"]):
        # Those of the table that Kaggle made, which is fetched if it is not here.
        if not (prepared(config.dataset) / "table.json").exists():
            _take_prepared(f"{username()}/{slug('prepare', config.dataset)}", config.dataset)
        folds = range(int(load_table(config.dataset)[0]["fold"].max()) + 1)

    def done() -> bool:
        return all((folder / f"fold{fold}.json").exists() for fold in folds)

    # A session of an earlier command; the state of one that failed may be whole.
    if not done() and _wait(name, every)[0] != "missing":
        _fetch_run(name, run, config)
    while not done():
        left, renewed = _gpu_quota()
        if left < LEAST_HOURS:
            print(
                f"{left:.1f} GPU hours are left of this week's quota, which is renewed {renewed}:"
                " run the same command then, it resumes"
            )
            return RESUME
        kernel.max_hours = round(min(most, (left - RESERVE_HOURS) / sharing), 2)
        kernel.weights = weights_to_train(run)
        version = push_kernel(kernel)
        try:
            _finished(version, every)
        finally:
            progress = _fetch_run(version, run, config)
        if not progress:
            raise InputError(
                f"{version}: this session made no progress: read its log at"
                f" https://www.kaggle.com/code/{name}"
            )
    print(f"{shown(folder)}: all folds are here")
    return 0


def _steps(folder: Path, fold: int) -> float:
    """The step that a fold has got to in a run's folder; infinite if it is done."""
    if (folder / f"fold{fold}.json").exists():
        return float("inf")
    log = folder / f"metrics{fold}.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=-1)


def _prepare(kernel: Kernel, every: float) -> None:
    """Have the data set prepared, and its table fetched to input/prepared/<dataset>.

    What an earlier session prepared of the same config is not done again; its sizes are kept.
    """
    name, dataset = f"{username()}/{kernel.name}", kernel.values["dataset"]
    complete = _wait(name, every)[0] == "complete"
    there = _take_prepared(name, dataset) if complete else set()
    if not there.issuperset(kernel.values["sizes"]):
        kernel.values["sizes"] = sorted(there.union(kernel.values["sizes"]))
        _take_prepared(_finished(push_kernel(kernel), every), dataset)


def _take_prepared(kernel: str, dataset: str) -> set[int]:
    """Fetch the table that a kernel prepared; the sizes of its images.

    Nothing is fetched, and there are no sizes, if the config has changed since. InputError if
    another table is here: folds of both would not blend.
    """
    here, inside = prepared(dataset), f"prepared/{dataset}"
    config = load_dataset_config(dataset, [f"cache={CACHE}"]).model_dump(mode="json")
    with _fetched(kernel, rf"{inside}/(table\.(csv|json)|\d+/cache\.json)") as place:
        there = place / inside
        facts = read_json(there / "table.json") if (there / "table.json").exists() else {}
        if facts.get("config") != config:
            return set()
        if not (here / "table.json").exists():
            for name in ("table.csv", "table.json"):
                copy(there / name, here / name)
            print(f"{shown(here)}/table.csv is there, without images")
        elif (held := read_json(here / "table.json")["table_hash"]) != facts["table_hash"]:
            raise InputError(
                f"{shown(here)} holds another table ({held}) than Kaggle made"
                f" ({facts['table_hash']}): move it away and run the command again"
            )
        return {int(path.parent.name) for path in there.glob("*/cache.json")}


def _fetch_run(kernel: str, run: str, config: Config) -> bool:
    """Fetch the folds that got further than here, done or not; whether there are any.

    Output of another config is left where it is; InputError if the folder here is of another one.
    """
    folder, inside = at("oof", run), f"oof/{run}"
    with _fetched(kernel, rf"{inside}/.*") as place:
        there = place / inside
        if not (there / "config.yaml").exists():
            return False
        if changed := _changed(there, config):
            print(f"{kernel}: its output is of another config ({changed}): not fetched")
            return False
        if any(folder.glob("fold*.json")) and (changed := _changed(folder, config)):
            raise InputError(
                f"{shown(folder)} holds a run with other settings ({changed}): move it away, or"
                " give this one's config another name"
            )
        folds = [int(path.stem.removeprefix("metrics")) for path in there.glob("metrics*")]
        further = [fold for fold in folds if _steps(there, fold) > _steps(folder, fold)]
        # Last the .json, which says that a fold is done.
        for file in sorted(there.rglob("*.*"), key=lambda path: path.suffix == ".json"):
            of_fold = re.search(r"[a-z](\d+)$", file.stem)
            if further and (not of_fold or int(of_fold[1]) in further):
                copy(file, folder / file.relative_to(there))
    for facts in (folder / f"fold{fold}.json" for fold in further):
        if facts.exists():
            rate = read_json(facts).get("images_per_second")
            print(f"{run} {facts.stem}: done" + (f", {rate:,.0f} images/s" if rate else ""))
    return bool(further)


def _changed(folder: Path, config: Config) -> str:
    """The settings in which a run's folder differs from the config."""
    path = folder / "config.yaml"
    saved = saved_config(read_yaml(path), path)
    return listed(differences(saved.model_dump(), config.model_dump()))


def _fetch_result(kernel: Kernel, version: str) -> None:
    """Print check.txt, or keep submission.csv and what belongs to it below submissions/."""
    if kernel.kind == "check":
        with _fetched(version, r"check\.txt") as place:
            print((place / "check.txt").read_text(encoding="utf-8"), end="")
        return
    name = "submissions/" + kernel.values.get("run", "blend")
    with _fetched(version, rf"{name}\..*") as place:
        for file in place.glob(f"{name}.*"):
            copy(file, at(file.relative_to(place)))
    print(f'next: python scripts/submit.py {name}.csv -m "what it is"')


def _finished(kernel: str, every: float) -> str:
    """Wait for the session's end; the kernel, or InputError with the log's end if it failed."""
    status, reason = _wait(kernel, every)
    if status == "complete":
        return kernel
    log = call(f"log of {kernel}", "kernels_logs", kernel)
    with suppress(ValueError, TypeError, KeyError):
        log = "".join(entry["data"] for entry in json.loads(log))
    end = "\n".join(f"  {line}" for line in log.splitlines()[-12:])
    raise InputError(
        f"{kernel}: {status}{f': {reason}' if reason else ''}; its log ends with:\n{end}"
    )


def _wait(kernel: str, every: float) -> tuple[str, str]:
    """The status, and the reason of a failure, once the session has ended.

    `kernel` is owner/name, or a version of it: owner/name/N; its status is "missing" if there is no
    such kernel. Prints each change, and once how fast a fold is trained.
    """
    known = rate = ""
    while answer := call(f"status of {kernel}", "kernels_status", kernel, missing=None):
        status = answer.status.name.lower()
        if status != known:
            print(f"{time.strftime('%H:%M')} {kernel}: {status}", flush=True)
        if status not in BUSY:
            return status, cleaned(answer.failure_message or "")
        if status == "running" and not rate and (rate := _rate(kernel)):
            print(f"{time.strftime('%H:%M')} {kernel}: {rate}", flush=True)
        known = status
        time.sleep(every)
    return "missing", ""


def _rate(kernel: str) -> str:
    """What a running session's log says of its speed: images/s and the minutes left; or ""."""
    with suppress(requests.RequestException, ValueError):  # a log that says nothing for a while
        for line in call(f"log of {kernel}", "kernels_logs_stream", kernel):
            if found := re.search(r"fold \d+: [\d.]+ images/s: .*", str(line.get("data"))):
                return found[0]
    return ""


def _gpu_quota() -> tuple[float, str]:
    """(GPU hours that are left this week, the time in UTC when the quota is renewed)."""
    answer = call("looking up the weekly quota", "quota_view")
    quota, renewed = answer.gpu_quota, answer.quota_refresh_time
    if quota is None:
        raise InputError("Kaggle tells no GPU quota for this account: verify its phone number")
    left = (quota.total_time_allowed - quota.time_used).total_seconds() / 3600
    return left, f"{renewed:%a %d %b %H:%M} UTC" if renewed else "next week"


@contextmanager
def _fetched(kernel: str, pattern: str) -> Iterator[Path]:
    """A temporary folder with the files of the kernel's output whose whole name is `pattern`."""
    with tempfile.TemporaryDirectory() as place:
        call(f"output of {kernel}", "kernels_output", kernel, place,
             file_pattern=rf"^({pattern})$", force=True, page_size=100)  # fmt: skip
        yield Path(place)
