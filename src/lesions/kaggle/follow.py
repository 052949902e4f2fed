"""Wait for a kernel, fetch what it wrote, and go on until a fold is done or the quota used up."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lesions import files
from lesions.config import differences, load_config, load_dataset_config
from lesions.data.table import prepared
from lesions.errors import InputError, listed
from lesions.kaggle import client
from lesions.kaggle.calls import call
from lesions.kaggle.kernels import Kernel, prepare_kernel, slug, train_kernel
from lesions.kaggle.push import push_kernel
from lesions.kaggle.session import CACHE
from lesions.paths import at, shown

RESUME = 75  # as scripts/train.py: run the same command again, later
BUSY = ("queued", "running", "new_script", "cancel_requested")
LEAST_HOURS = 0.3  # of quota that are worth a session: starting one takes minutes
RESERVE_HOURS = 0.1  # of the quota, for the minutes before training and after it


def train_on_kaggle(run: str, fold: int, max_hours: float, every: float, attach: list[str]) -> int:
    """Run sessions until the fold lies in oof/<run>: 0, or 75 where the week's GPU quota ends.

    What an earlier call left behind is taken up: a session that runs is waited for, one that ended
    is fetched.
    """
    kernel = f"{client.username()}/{slug(run, f'fold{fold}')}"
    begun = exists(kernel)
    steps = -1
    if begun:
        wait(kernel, every)
        steps = _fetch_fold(kernel, run, fold)  # also of one that failed: its state may be whole
    while not (at("oof") / run / f"fold{fold}.json").exists():
        left = client.gpu_hours_left()
        if left < LEAST_HOURS:
            print(
                f"{left:.1f} GPU hours are left of this week's quota: it is renewed on Saturday"
                " 00:00 UTC; run the same command then, it goes on here"
            )
            return RESUME
        hours = round(min(max_hours, left - RESERVE_HOURS), 2)
        push_kernel(train_kernel(run, fold, hours, begun and steps >= 0), attach)
        begun, before = True, steps
        finish(kernel, every)
        steps = _fetch_fold(kernel, run, fold)
        if steps <= before:
            raise InputError(
                f"{kernel}: this session made no step beyond {before:,}: read its log at"
                f" https://www.kaggle.com/code/{kernel}"
            )
    print(f"{shown(at("oof") / run)}/fold{fold}.json is there")
    return 0


def prepare_on_kaggle(dataset: str, sizes: list[int], every: float, attach: list[str]) -> None:
    """Have the data set prepared in these sizes, and its table in input/prepared/<dataset>.

    What an earlier session prepared of the same config is not done again; its sizes are kept.
    """
    name = f"{client.username()}/{slug('prepare', dataset)}"
    there = _prepared_sizes(name, dataset, every)
    if not {*sizes} <= {*there}:
        push_kernel(prepare_kernel(dataset, sorted({*sizes, *there})), attach)
        finish(name, every)
    _fetch_table(name, dataset)


def _prepared_sizes(kernel: str, dataset: str, every: float) -> list[int]:
    """The sizes in the kernel's last output, none where the config has changed since."""
    if not exists(kernel) or wait(kernel, every)[0] != "complete":
        return []
    prefix = f"prepared/{dataset}/"
    names: list[str] = []
    with _fetched(kernel, [prefix + "table.json"], names) as place:
        if not (place / prefix / "table.json").exists():
            return []
        config = load_dataset_config(dataset, [f"cache={CACHE}"]).model_dump(mode="json")
        if files.read_json(place / prefix / "table.json")["config"] != config:
            return []
    caches = (re.fullmatch(rf"{prefix}(\d+)/cache\.json", name) for name in names)
    return [int(cache[1]) for cache in caches if cache]


def submission_on_kaggle(kernel: Kernel, stem: str, every: float, attach: list[str]) -> None:
    """Run the kernel to its end and fetch its submission to submissions/<stem>.csv."""
    name = push_kernel(kernel, attach)
    finish(name, every)
    _fetch_submission(name, stem)


def finish(kernel: str, every: float) -> None:
    """Wait for the session's end; InputError with the reason and the log's end if it failed."""
    status, reason = wait(kernel, every)
    if status == "complete":
        return
    with tempfile.TemporaryDirectory() as place:
        client.kernel_output(kernel, Path(place), lambda name: False)
        log = "".join(file.read_text() for file in Path(place).glob("*.log"))
    raise InputError(
        f"{kernel}: {status}{f': {reason}' if reason else ''}; its log ends with:\n{_last(log)}"
    )


def wait(kernel: str, every: float) -> tuple[str, str]:
    """The status, and the reason of a failure, once the session has ended."""
    told = ""
    while True:
        status, reason = client.kernel_status(kernel)
        if status != told:
            print(f"{time.strftime('%H:%M')} {kernel}: {status}", flush=True)
        if status not in BUSY:
            return status, reason
        told = status
        time.sleep(every)


def exists(kernel: str) -> bool:
    """Whether the account has the kernel; the server says 403 or 404 of one that is not there."""
    from requests import HTTPError

    def ask(api: Any) -> bool:
        try:
            api.kernels_status(kernel)
        except (HTTPError, ValueError) as error:
            answer = getattr(error, "response", None)
            answer = getattr(error.__context__, "response", None) if answer is None else answer
            if answer is not None and answer.status_code in (403, 404):
                return False
            raise
        return True

    return call(f"looking for {kernel}", ask)


def _fetch_fold(kernel: str, run: str, fold: int) -> int:
    """Fetch the fold if it is done; the steps that it has got to, -1 if under another config.

    The state that the next session goes on from stays on Kaggle.
    """
    prefix = f"oof/{run}/"
    names = [f"history{fold}.csv", f"metrics{fold}.jsonl", f"fold{fold}.csv"]
    # Last the .json, which says that the fold is done.
    names += [f"fold{fold}.safetensors", "config.yaml", f"fold{fold}.json"]
    with _fetched(kernel, [prefix + name for name in names]) as place:
        if not (place / prefix / "config.yaml").exists():
            return -1
        config = load_config(at("configs") / f"{run}.yaml").model_dump()
        changed = differences(load_config(place / prefix / "config.yaml").model_dump(), config)
        if changed:
            print(f"{kernel}: its last output is of another config ({listed(changed)}): begun anew")
            return -1
        _require_same_run(at("oof") / run, config)
        for name in names:
            if (place / prefix / name).exists():
                files.write_bytes(at("oof") / run / name, (place / prefix / name).read_bytes())
    lines = (at("oof") / run / f"metrics{fold}.jsonl").read_text(encoding="utf-8").splitlines()
    return max(json.loads(line).get("step", 0) for line in lines)


def _require_same_run(folder: Path, config: dict) -> None:
    """InputError if the folder holds results of another config."""
    if (folder / "config.yaml").exists() and any(folder.glob("fold*.json")):
        changed = differences(load_config(folder / "config.yaml").model_dump(), config)
        if changed:
            raise InputError(
                f"{shown(folder)} holds a run with other settings ({listed(changed)}):"
                " move it away, or give this one's config another name"
            )


def _fetch_table(kernel: str, dataset: str) -> None:
    """Fetch the table that folds on Kaggle are of; blending and the audit at home need the same."""
    folder = prepared(dataset)
    prefix = f"prepared/{dataset}/"
    with _fetched(kernel, [prefix + "table.csv", prefix + "table.json"]) as place:
        new = files.read_json(place / prefix / "table.json")["table_hash"]
        if (folder / "table.json").exists():
            old = files.read_json(folder / "table.json")["table_hash"]
            if old != new:
                raise InputError(
                    f"{shown(folder)} holds another table ({old}) than Kaggle made ({new}):"
                    " move it away and fetch again, or folds from both will not blend"
                )
            return
        for name in ("table.csv", "table.json"):
            files.write_bytes(folder / name, (place / prefix / name).read_bytes())
    print(f"{shown(folder)}/table.csv is there, without images")


def _fetch_submission(kernel: str, name: str) -> None:
    """Fetch submission.csv as submissions/<name>.csv."""
    path = at("submissions") / f"{name}.csv"
    with _fetched(kernel, ["submission.csv"]) as place:
        files.write_bytes(path, (place / "submission.csv").read_bytes())
    print(f'next: python scripts/submit.py {shown(path)} -m "what it is"')


@contextmanager
def _fetched(kernel: str, names: list[str], seen: list[str] | None = None) -> Iterator[Path]:
    """A fresh folder with these files of the kernel's last output, as far as it has them.

    The names of all its files are added to `seen`.
    """

    def wanted(name: str) -> bool:
        if seen is not None:
            seen.append(name)
        return name in names

    with tempfile.TemporaryDirectory() as place:
        client.kernel_output(kernel, Path(place), wanted)
        yield Path(place)


def _last(log: str, lines: int = 12) -> str:
    """The end of a kernel's log, which Kaggle sends as JSON, an entry a piece of output."""
    with suppress(ValueError, TypeError, KeyError):
        log = "".join(entry["data"] for entry in json.loads(log))
    return "\n".join(f"  {line}" for line in log.splitlines()[-lines:])
