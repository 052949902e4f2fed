"""Run kernels on Kaggle to their end and fetch what they wrote; the same command resumes a run."""

import json
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from lesions.config import load_config, load_dataset_config, read_yaml
from lesions.data.table import load_table
from lesions.errors import InputError, listed
from lesions.files import copy, read_json
from lesions.kaggle.client import call, cleaned, username
from lesions.kaggle.kernels import CACHE, Kernel, end_for_now, push_kernel
from lesions.paths import at, shown

BUSY = ("queued", "running", "new_script", "cancel_requested")
LEAST_HOURS = 0.5  # of quota that are worth a session: starting one takes minutes
RESERVE_HOURS = 0.3  # of the quota, for the minutes before training and after it
Files = dict[Path, Path]  # paths here, and the temporary copies of a session's output


def run_kernel(kernel: Kernel, every: float, sharing: int) -> None:
    """Start a kernel, wait for its end, and fetch its output.

    Its status is read every `every` seconds; `sharing` sessions share the week's GPU quota. Ends
    with exit code 75 where the same command, run later, resumes.
    """
    missing, name = _take(kernel, ""), f"{username()}/{kernel.slug}"
    # A session of an earlier command; the state of one that failed may be whole.
    resumes = kernel.kind in ("train", "prepare")
    if missing and resumes and _wait(name, every, may_fail=True) != "missing":
        missing = _take(kernel, name)
    if missing:
        if kernel.kind == "train":
            kernel.max_hours = min(kernel.max_hours, _hours_left(sharing))
        version = push_kernel(kernel)
        try:
            _wait(version, every)
        finally:
            missing = _take(kernel, version)
        if kernel.kind == "check":
            print(_log(version), end="")
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


def _take(kernel: Kernel, session: str) -> list[str]:
    """Fetch what a session, if one is named, has left; what is still missing of the kernel."""
    name = kernel.kind if kernel.kind in ("check", "blend") else kernel.names[0]
    pattern = {
        "train": f"oof/{name}/.*",
        "prepare": rf"input/prepared/{name}/(table\.(csv|json)|\d+/cache\.json)",
    }.get(kernel.kind, rf"submissions/{name}\..*")
    with tempfile.TemporaryDirectory() as place:
        if session:
            call(f"output of {session}", "kernels_output", session, place,
                 file_pattern=f"^{pattern}$", force=True, page_size=100)  # fmt: skip
        found = (path for path in sorted(Path(place).rglob("*")) if path.is_file())
        files = {at(path.relative_to(place)): path for path in found if path.suffix != ".log"}
        if kernel.kind == "train":
            return _take_run(kernel, files)
        if kernel.kind == "prepare":
            return _take_prepared(kernel, files)
        for path, file in files.items():
            copy(file, path)
            if path.suffix == ".csv":
                print(f'next: python scripts/submit.py submissions/{name}.csv -m "what it is"')
    return [] if session else [kernel.kind]


def _take_prepared(kernel: Kernel, files: Files) -> list[str]:
    """Fetch the table that a kernel prepared; the sizes that it lacks, all if its config changed.

    InputError if another table is here: folds of both would not blend.
    """
    dataset, there = kernel.names[0], set[int]()
    config = load_dataset_config(dataset, [f"cache={CACHE}"]).model_dump(mode="json")
    home = at("input/prepared", dataset, "table.json")
    facts = read_json(files[home]) if home in files else {}
    if facts.get("config") == config:
        new = not home.exists()
        if not new and read_json(home)["table_hash"] != facts["table_hash"]:
            raise InputError(
                f"{shown(home.parent)} holds another table than Kaggle made: move it away and run"
                " the command again"
            )
        for path, file in files.items():
            if path.name == "cache.json":
                there.add(int(path.parent.name))
            elif new:
                copy(file, path)
                print(f"{shown(path)} is there, without images")
    missing = [f"{size} pixels" for size in kernel.sizes if size not in there]
    kernel.sizes = sorted(there.union(kernel.sizes))  # a session's output replaces the one before
    return missing


def _take_run(kernel: Kernel, files: Files) -> list[str]:
    """Fetch the folds that got further than here, unless of another config; the folds not done."""
    from lesions.training.state import changes  # it imports torch

    run = kernel.names[0]
    config, own = load_config(run), at("oof", run, "config.yaml")
    folder = own.parent
    if not files and not kernel.folds:
        prepare = Kernel("prepare", [config.dataset])
        _take(prepare, f"{username()}/{prepare.slug}")
    if any(folder.glob("fold*.json")) and (changed := changes(read_yaml(own), config, own)):
        raise InputError(
            f"{shown(folder)} holds a run with other settings ({listed(changed)}): move it away,"
            " or give this one's config another name"
        )
    there = files.get(own, own)
    if there != own and (changed := changes(read_yaml(there), config, there)):
        print(f"{kernel.slug}: its output is of another config ({listed(changed)}): not fetched")
        files = {}
    numbers = [path.stem.removeprefix("metrics") for path in files if path.suffix == ".jsonl"]
    further = [fold for fold in numbers if _steps(there.parent, fold) > _steps(folder, fold)]
    # Last the .json, which says that a fold is done.
    for path in sorted(files, key=lambda path: path.suffix == ".json") if further else ():
        of_fold = re.search(r"[a-z](\d+)\.", path.name)
        if not of_fold or of_fold[1] in further:
            copy(files[path], path)
            if re.fullmatch(r"fold\d+\.json", path.name):
                print(f"{run} {path.stem}: {read_json(path)['images_per_second']:,.0f} images/s")
    folds = kernel.folds or range(int(load_table(config.dataset)[0]["fold"].max()) + 1)
    missing = [f"fold {fold}" for fold in folds if not (folder / f"fold{fold}.json").exists()]
    if not missing:
        print(f"{shown(folder)}: all folds are here")
    return missing


def _steps(folder: Path, fold: str) -> float:
    """The step that a fold has got to in a run's folder; infinite if it is done."""
    if (folder / f"fold{fold}.json").exists():
        return float("inf")
    log = folder / f"metrics{fold}.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines), default=-1)


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
