"""Run kernels on Kaggle to their end and fetch what they wrote; the same command resumes a run."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lesions.config import (
    Config,
    differences,
    load_config,
    load_dataset_config,
    read_yaml,
    saved_config,
)
from lesions.data.table import load_table
from lesions.errors import InputError, listed
from lesions.files import read_json
from lesions.kaggle.client import call, cleaned, username
from lesions.kaggle.kernels import CACHE, Kernel, copy, end_for_now, push_kernel
from lesions.paths import at, shown

BUSY = ("queued", "running", "new_script", "cancel_requested")
LEAST_HOURS = 0.5  # of quota that are worth a session: starting one takes minutes
RESERVE_HOURS = 0.3  # of the quota, for the minutes before training and after it


def run_kernel(kernel: Kernel, every: float, sharing: int) -> None:
    """Start a kernel, wait for its end, and fetch its output.

    Its status is read every `every` seconds; `sharing` sessions share the week's GPU quota. Ends
    with exit code 75 where the same command, run later, resumes.
    """
    take = {"train": _take_run, "prepare": _take_prepared}.get(kernel.kind, _take_files)
    name = f"{username()}/{kernel.slug}"
    missing = take(kernel, "")
    # A session of an earlier command; the state of one that failed may be whole.
    resumes = kernel.kind in ("train", "prepare")
    if missing and resumes and _wait(name, every, may_fail=True) != "missing":
        missing = take(kernel, name)
    if missing:
        if kernel.kind == "train":
            kernel.max_hours = min(kernel.max_hours, _hours_left(sharing))
        version = push_kernel(kernel)
        try:
            _wait(version, every)
        finally:
            missing = take(kernel, version)
    if missing:
        end_for_now(f"{kernel.slug}: not done yet: {listed(missing)}")


def _hours_left(sharing: int) -> float:
    """The GPU hours of the week that a session may use; ends for now if they are too few."""
    quota = call("looking up the weekly quota", "quota_view")
    if quota.gpu_quota is None:
        raise InputError("Kaggle tells no GPU quota for this account: verify its phone number")
    left = quota.gpu_quota.total_time_allowed - quota.gpu_quota.time_used
    hours = left.total_seconds() / 3600
    if hours < LEAST_HOURS:
        renewed = f"{quota.quota_refresh_time:%a %d %b %H:%M}"
        end_for_now(f"{hours:.1f} GPU hours are left, the quota is renewed {renewed} UTC")
    return round((hours - RESERVE_HOURS) / sharing, 2)


def _take_files(kernel: Kernel, session: str) -> list[str]:
    """Fetch the submission, or print what a check found."""
    if session and kernel.kind == "check":
        print(_log(session), end="")
    elif session:
        name = "blend" if kernel.kind == "blend" else kernel.names[0]
        with _fetched(session, rf"submissions/{name}\..*") as files:
            for file, path in files.items():
                copy(file, path)
            if files:
                print(f'next: python scripts/submit.py submissions/{name}.csv -m "what it is"')
    return [] if session else [kernel.kind]


def _take_prepared(kernel: Kernel, session: str) -> list[str]:
    """Fetch the table that a kernel prepared; the sizes that it lacks, all if its config changed.

    InputError if another table is here: folds of both would not blend.
    """
    dataset, there = kernel.names[0], set[int]()
    config = load_dataset_config(dataset, [f"cache={CACHE}"]).model_dump(mode="json")
    pattern = rf"input/prepared/{dataset}/(table\.(csv|json)|\d+/cache\.json)"
    with _fetched(session, pattern) as files:
        tables = {file: path for file, path in files.items() if path.stem == "table"}
        found = [read_json(file) for file in tables if file.suffix == ".json"]
        facts: dict[str, Any] = found[0] if found else {}
        if facts.get("config") == config:
            here = at("input/prepared", dataset, "table.json")
            if not here.exists():
                for file, path in tables.items():
                    copy(file, path)
                print(f"{shown(here.parent)}/table.csv is there, without images")
            elif read_json(here)["table_hash"] != facts["table_hash"]:
                raise InputError(
                    f"{shown(here.parent)} holds another table than Kaggle made: move it away and"
                    " run the command again"
                )
            there = {int(file.parent.name) for file in files if file.name == "cache.json"}
    missing = [f"{size} pixels" for size in kernel.sizes if size not in there]
    kernel.sizes = sorted(there.union(kernel.sizes))  # a session's output replaces the one before
    return missing


def _take_run(kernel: Kernel, session: str) -> list[str]:
    """Fetch the folds that got further than here, unless of another config; the folds not done."""
    run = kernel.names[0]
    config, folder = load_config(run), at("oof", run)
    if not session and not kernel.folds:
        prepare = Kernel("prepare", [config.dataset])
        _take_prepared(prepare, f"{username()}/{prepare.slug}")
    if any(folder.glob("fold*.json")) and (changed := _changed(folder, config)):
        raise InputError(
            f"{shown(folder)} holds a run with other settings ({changed}): move it away, or"
            " give this one's config another name"
        )
    with _fetched(session, f"oof/{run}/.*") as files:
        there = next((file.parent for file in files if file.name == "config.yaml"), folder)
        if there != folder and (changed := _changed(there, config)):
            print(f"{session}: its output is of another config ({changed}): not fetched")
            there = folder
        numbers = [int(path.stem.removeprefix("metrics")) for path in there.glob("metrics*")]
        further = [fold for fold in numbers if _steps(there, fold) > _steps(folder, fold)]
        # Last the .json, which says that a fold is done.
        for file in sorted(files, key=lambda file: file.suffix == ".json"):
            of_fold = re.search(r"[a-z](\d+)$", file.stem)
            if further and (not of_fold or int(of_fold[1]) in further):
                copy(file, files[file])
                if file.stem.startswith("fold") and file.suffix == ".json":
                    print(
                        f"{run} {file.stem}: {read_json(file)['images_per_second']:,.0f} images/s"
                    )
    folds = kernel.folds or range(int(load_table(config.dataset)[0]["fold"].max()) + 1)
    missing = [f"fold {fold}" for fold in folds if not (folder / f"fold{fold}.json").exists()]
    if not missing:
        print(f"{shown(folder)}: all folds are here")
    return missing


def _steps(folder: Path, fold: int) -> float:
    """The step that a fold has got to in a run's folder; infinite if it is done."""
    if (folder / f"fold{fold}.json").exists():
        return float("inf")
    log = folder / f"metrics{fold}.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=-1)


def _changed(folder: Path, config: Config) -> str:
    """The settings in which a run's folder differs from the config."""
    saved = saved_config(read_yaml(folder / "config.yaml"), folder / "config.yaml")
    return listed(differences(saved.model_dump(), config.model_dump()))


def _wait(kernel: str, every: float, may_fail: bool = False) -> str:
    """The status once the session has ended; InputError, with its log's end, if it failed.

    `kernel` is owner/name, or a version of it: owner/name/N; its status is "missing" if there is no
    such kernel.
    """
    known = rate = ""
    while answer := call(f"status of {kernel}", "kernels_status", kernel, missing=None):
        status = answer.status.name.lower()
        if status != known:
            print(f"{time.strftime('%H:%M')} {kernel}: {status}", flush=True)
        if status == "complete" or (may_fail and status not in BUSY):
            return status
        if status not in BUSY:
            end = "\n".join(f"  {line}" for line in _log(kernel).splitlines()[-12:])
            reason = cleaned(answer.failure_message or "")
            raise InputError(f"{kernel}: {status} {reason}; its log ends with:\n{end}")
        if status == "running" and not rate:
            with suppress(InputError):  # the log's next line may take longer than we wait
                rate = call(f"log of {kernel}", "find_in_log", kernel, "hours left", repeat=False)
                print(f"{kernel}: {rate.rstrip()}\n" if rate else "", end="", flush=True)
        known = status
        time.sleep(every)
    return "missing"


def _log(kernel: str) -> str:
    log = str(call(f"log of {kernel}", "kernels_logs", kernel))
    with suppress(ValueError, TypeError, KeyError):  # of what else Kaggle sends, the text itself
        log = "".join(entry["data"] for entry in json.loads(log))
    return log


@contextmanager
def _fetched(kernel: str, pattern: str) -> Iterator[dict[Path, Path]]:
    """Temporary copies of a kernel's output files of such names, and their paths in the checkout.

    None of no kernel, "".
    """
    with tempfile.TemporaryDirectory() as place:
        if kernel:
            call(f"output of {kernel}", "kernels_output", kernel, place,
                 file_pattern=f"^{pattern}$", force=True, page_size=100)  # fmt: skip
        files = (path for path in Path(place).rglob("*") if path.is_file())
        inside = {path: at(path.relative_to(place)) for path in files}
        yield {path: home for path, home in inside.items() if path.suffix != ".log"}
