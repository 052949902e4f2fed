"""Run kernels on Kaggle to their end and fetch what they wrote; the same command resumes a run."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
from lesions.kaggle.kernels import CACHE, Kernel, copy, end_for_now, push_kernel, slug
from lesions.paths import at, shown

BUSY = ("queued", "running", "new_script", "cancel_requested")
LEAST_HOURS = 0.5  # of quota that are worth a session: starting one takes minutes
RESERVE_HOURS = 0.3  # of the quota, for the minutes before training and after it


def run_kernel(kernel: Kernel, every: float, sharing: int) -> None:
    """Start a kernel, wait for its end, and fetch its output.

    Its status is read every `every` seconds; `sharing` sessions share the week's GPU quota. Ends
    with exit code 75 where the same command, run later, resumes.
    """
    if kernel.kind == "train":
        return _train(kernel, every, sharing)
    if kernel.kind == "prepare":
        return _prepare(kernel, every)
    version = push_kernel(kernel)
    _wait(version, every)
    if kernel.kind == "check":
        with _fetched(version, ".", r"check\.txt") as place:
            print((place / "check.txt").read_text(encoding="utf-8"), end="")
        return None
    name = "blend" if kernel.kind == "blend" else kernel.names[0]
    with _fetched(version, "submissions", rf"{name}\..*") as place:
        for file in place.glob(f"{name}.*"):
            copy(file, at("submissions", file.relative_to(place)))
    print(f'next: python scripts/submit.py submissions/{name}.csv -m "what it is"')


def _train(kernel: Kernel, every: float, sharing: int) -> None:
    """Run a session, unless the run's folds are in oof/<run> already."""
    run, name = kernel.names[0], f"{username()}/{kernel.slug}"
    config, folder, folds = load_config(run), at("oof", run), kernel.folds
    if any(folder.glob("fold*.json")) and (changed := _changed(folder, config)):
        raise InputError(
            f"{shown(folder)} holds a run with other settings ({changed}): move it away, or"
            " give this one's config another name"
        )
    if not folds:
        _take_prepared(f"{username()}/{slug('prepare', config.dataset)}", config.dataset)
        folds = list(range(int(load_table(config.dataset)[0]["fold"].max()) + 1))

    def missing() -> list[int]:
        return [fold for fold in folds if not (folder / f"fold{fold}.json").exists()]

    # A session of an earlier command; the state of one that failed may be whole.
    if missing() and _wait(name, every, may_fail=True) != "missing":
        _fetch_run(name, run, config)
    if missing():
        quota = call("looking up the weekly quota", "quota_view")
        if quota.gpu_quota is None:
            raise InputError("Kaggle tells no GPU quota for this account: verify its phone number")
        left = quota.gpu_quota.total_time_allowed - quota.gpu_quota.time_used
        hours = left.total_seconds() / 3600
        if hours < LEAST_HOURS:
            renewed = f"{quota.quota_refresh_time:%a %d %b %H:%M}"
            end_for_now(f"{hours:.1f} GPU hours are left, the quota is renewed {renewed} UTC")
        kernel.max_hours = round(min(kernel.max_hours, (hours - RESERVE_HOURS) / sharing), 2)
        version = push_kernel(kernel)
        try:
            _wait(version, every)
        finally:
            _fetch_run(version, run, config)
    if missing():
        end_for_now(f"{run}: folds {listed(missing())} are not done")
    print(f"{shown(folder)}: all folds are here")


def _prepare(kernel: Kernel, every: float) -> None:
    """Have the data set prepared, and its table fetched to input/prepared/<dataset>.

    What an earlier session prepared of the same config is not done again; its sizes are kept.
    """
    name, dataset, there = f"{username()}/{kernel.slug}", kernel.names[0], set[int]()
    if _wait(name, every, may_fail=True) == "complete":
        there = _take_prepared(name, dataset)
    if not there.issuperset(kernel.sizes):
        kernel.sizes = sorted(there.union(kernel.sizes))
        version = push_kernel(kernel)
        _wait(version, every)
        _take_prepared(version, dataset)


def _take_prepared(kernel: str, dataset: str) -> set[int]:
    """Fetch the table that a kernel prepared; the sizes of its images.

    Nothing is fetched, and there are no sizes, if the config has changed since. InputError if
    another table is here: folds of both would not blend.
    """
    here = prepared(dataset)
    config = load_dataset_config(dataset, [f"cache={CACHE}"]).model_dump(mode="json")
    with _fetched(kernel, f"prepared/{dataset}", r"table\.(csv|json)|\d+/cache\.json") as there:
        facts = read_json(there / "table.json") if (there / "table.json").exists() else {}
        if facts.get("config") != config:
            return set()
        if not (here / "table.json").exists():
            for name in ("table.csv", "table.json"):
                copy(there / name, here / name)
            print(f"{shown(here)}/table.csv is there, without images")
        elif read_json(here / "table.json")["table_hash"] != facts["table_hash"]:
            raise InputError(
                f"{shown(here)} holds another table than Kaggle made: move it away and run the"
                " command again"
            )
        return {int(path.parent.name) for path in there.glob("*/cache.json")}


def _fetch_run(kernel: str, run: str, config: Config) -> None:
    """Fetch the folds that got further than here, done or not, unless of another config."""
    folder = at("oof", run)
    with _fetched(kernel, f"oof/{run}", ".*") as there:
        if not (there / "config.yaml").exists():
            return
        if changed := _changed(there, config):
            print(f"{kernel}: its output is of another config ({changed}): not fetched")
            return
        folds = [int(path.stem.removeprefix("metrics")) for path in there.glob("metrics*")]
        further = [fold for fold in folds if _steps(there, fold) > _steps(folder, fold)]
        # Last the .json, which says that a fold is done.
        for file in sorted(there.rglob("*.*"), key=lambda path: path.suffix == ".json"):
            of_fold = re.search(r"[a-z](\d+)$", file.stem)
            if further and (not of_fold or int(of_fold[1]) in further):
                copy(file, folder / file.relative_to(there))
        for facts in (folder / f"fold{fold}.json" for fold in further):
            if facts.exists():
                print(f"{run} {facts.stem}: {read_json(facts)['images_per_second']:,.0f} images/s")


def _steps(folder: Path, fold: int) -> float:
    """The step that a fold has got to in a run's folder; infinite if it is done."""
    if (folder / f"fold{fold}.json").exists():
        return float("inf")
    log = folder / f"metrics{fold}.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=-1)


def _changed(folder: Path, config: Config) -> str:
    """The settings in which a run's folder differs from the config."""
    path = folder / "config.yaml"
    saved = saved_config(read_yaml(path), path)
    return listed(differences(saved.model_dump(), config.model_dump()))


def _wait(kernel: str, every: float, may_fail: bool = False) -> str:
    """The status once the session has ended; InputError, with its log's end, if it failed.

    `kernel` is owner/name, or a version of it: owner/name/N; its status is "missing" if there is no
    such kernel.
    """
    known = ""
    while answer := call(f"status of {kernel}", "kernels_status", kernel, missing=None):
        status = answer.status.name.lower()
        if status != known:
            print(f"{time.strftime('%H:%M')} {kernel}: {status}", flush=True)
        if status == "complete" or (may_fail and status not in BUSY):
            return status
        if status not in BUSY:
            log = call(f"log of {kernel}", "kernels_logs", kernel)
            with suppress(ValueError, TypeError, KeyError):
                log = "".join(entry["data"] for entry in json.loads(log))
            end = "\n".join(f"  {line}" for line in log.splitlines()[-12:])
            reason = cleaned(answer.failure_message or "")
            raise InputError(f"{kernel}: {status} {reason}; its log ends with:\n{end}")
        known = status
        time.sleep(every)
    return "missing"


@contextmanager
def _fetched(kernel: str, inside: str, pattern: str) -> Iterator[Path]:
    """A temporary copy of a folder of the kernel's output, of the files whose names match."""
    with tempfile.TemporaryDirectory() as place:
        prefix = "" if inside == "." else f"{inside}/"
        call(f"output of {kernel}", "kernels_output", kernel, place,
             file_pattern=rf"^{prefix}({pattern})$", force=True, page_size=100)  # fmt: skip
        yield Path(place, inside)
