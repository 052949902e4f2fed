"""Send code, weights and kernels to Kaggle, as private data sets and notebooks."""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from lesions.config import ModelConfig
from lesions.errors import InputError, listed
from lesions.files import read_json, sha256, write_json, write_text
from lesions.kaggle.client import call, cleaned, username
from lesions.kaggle.inputs import EXTRAS, SEAL
from lesions.kaggle.kernels import Kernel, config_of, set_name
from lesions.paths import CODE, at, shown
from lesions.provenance import commit

READY_WITHIN = 1800  # seconds in which Kaggle has unpacked a data set
SLACK_HOURS = 0.25  # of a session beyond its --max-hours: start, inputs, output
RESULTS = ("config.yaml", "calibration.json", "fold*.csv", "fold*.json", "fold*.safetensors",
           "given*.csv", "history*.csv", "metrics*.jsonl")  # fmt: skip


class SessionsFullError(InputError):
    """As many batch GPU sessions are running as the account may have: try again when one ends."""


def push_kernel(kernel: Kernel, max_hours: float) -> str:
    """Send a kernel and what it needs of this checkout, and start it; its owner/name/version.

    The notebook names the hashes of its data sets: a session that gets an older version attached
    refuses to run. SessionsFullError where all the account's sessions are in use.
    """
    expected = {set_name(run): push_set(run) for run in (None, *kernel.weights)}
    owner, what = username(), f"pushing {kernel.name}"
    with tempfile.TemporaryDirectory() as place:
        kernel.write(Path(place), owner, expected)
        # A source that Kaggle does not know is left out, and the session runs, and uses up quota,
        # without it: saved without a run first, the kernel's sources are known to be there.
        for check in (True, False):
            seconds = 3600 * (max_hours + SLACK_HOURS)
            answer = call(what, "kernels_push", place, timeout=seconds, no_run=check, repeat=False)
            if answer.error:
                full = "session count" in answer.error.lower()
                raise (SessionsFullError if full else InputError)(
                    cleaned(f"{what}: {answer.error}")
                )
            kinds = ("dataset", "competition", "kernel", "model")
            unknown = [getattr(answer, f"invalid_{kind}_sources") or [] for kind in kinds]
            if names := [name for names in unknown for name in names]:
                raise InputError(
                    f"{what}: not started: Kaggle does not know {listed(names)}: check that the"
                    " account may see them, and that a kernel among them has run"
                )
    print(f"pushed version {answer.version_number}: {answer.url}", flush=True)
    return f"{owner}/{kernel.name}/{answer.version_number}"


def push_set(run: str | None) -> str:
    """Send a run's weights, or the code, unless Kaggle has the very files; their hash.

    Waits until kernels get to see them.
    """
    name = f"{username()}/{set_name(run)}"
    status, before = _state(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / set_name(run)
        notes = write_set(folder, run)
        digest = read_json(folder / SEAL)["hash"]
        call(f"reading {SEAL} of {name}", "dataset_download_file", name, SEAL, path=place,
             force=True, missing=None)  # fmt: skip
        sent = Path(place) / SEAL
        new = not sent.exists() or read_json(sent)["hash"] != digest
        if new:
            metadata = {"id": name, "title": folder.name, "licenses": [{"name": "other"}]}
            write_json(folder / "dataset-metadata.json", metadata)
            first = status == "missing"
            answer = call(
                f"sending {name}", f"dataset_create_{'new' if first else 'version'}", str(folder),
                *([] if first else [notes]), quiet=not sys.stderr.isatty(),
                dir_mode="zip",  # folders go as zips, which Kaggle unpacks
                repeat=False,
            )  # fmt: skip
            if answer.error or (answer.status or "ok").lower() == "error":
                raise InputError(cleaned(f"sending {name}: {answer.error or answer.status}"))
            print(f"sent {answer.url or answer.ref}: {notes}", flush=True)
    until = time.monotonic() + READY_WITHIN
    while True:
        # "ready" alone may be the status of the version before.
        status, version = _state(name)
        if status == "ready" and (version > before or not new):
            return str(digest)
        if time.monotonic() > until:
            raise InputError(
                f"{name}: not unpacked within {READY_WITHIN // 60} minutes: look at"
                f" https://www.kaggle.com/datasets/{name}"
            )
        time.sleep(10)


def _state(dataset: str) -> tuple[str, int]:
    """(status, number) of the data set's current version: "ready" or not; ("missing", 0)."""
    form = "json(status,current_version_number)"
    answer = call(f"status of {dataset}", "dataset_status", dataset, format=form, missing="{}")
    state = json.loads(answer)
    return state.get("status", "missing"), state.get("current_version_number") or 0


def write_set(folder: Path, run: str | None) -> str:
    """Write a run's weights, or the code, and the hash of every file; a description."""
    notes = _write_weights(folder, run) if run else _write_code(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    write_json(folder / SEAL, {"set": set_name(run), "hash": digest, "files": files})
    return notes


def _write_code(folder: Path) -> str:
    """The code as a kernel finds it, with small tables that Kaggle lacks."""
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in ("src", "scripts", "configs"):
        shutil.copytree(CODE / name, folder / name, ignore=skip, dirs_exist_ok=True)
    for name, source in EXTRAS.items():
        if at("input", source, name).exists():
            (folder / "tables").mkdir(exist_ok=True)
            shutil.copyfile(at("input", source, name), folder / "tables" / name)
    write_text(folder / "COMMIT", commit() + "\n")
    return f"commit {commit()}"


def _write_weights(folder: Path, run: str) -> str:
    """A run's folds and its backbone's first weights, under their timm tag.

    A fold that is not done goes with its training state. InputError if there is nothing at all.
    """
    oof = at("oof", run)
    files = [file for pattern in RESULTS for file in sorted(oof.glob(pattern))]
    states = [file for file in sorted(oof.glob("state/fold*.pt"))
              if not (oof / f"{file.stem}.json").exists()]  # fmt: skip
    for file in [*files, *states]:
        target = folder / "oof" / run / file.relative_to(oof)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    parts = [file.stem for file in files if file.suffix == ".safetensors"]
    parts += [f"state of {state.stem}" for state in states]
    model = config_of(run).model
    if model.pretrained:
        weights = _first_weights(model)
        (folder / "backbones").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, folder / "backbones" / f"{model.backbone}{weights.suffix}")
        parts.append(f"first weights of {model.backbone}")
    if not parts:
        raise InputError(
            f"{run}: nothing to send: its backbone starts from random weights, and"
            f" {shown(oof)} holds no trained fold"
        )
    return ", ".join(parts)


def _first_weights(model: ModelConfig) -> Path:
    """The file of the backbone's weights, downloaded if need be; InputError if there is none."""
    if isinstance(model.pretrained, str):
        return at(model.pretrained)
    from huggingface_hub import try_to_load_from_cache

    from lesions.models.backbone import build_backbone

    build_backbone(model)  # downloads them, or fails within seconds
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(f"timm/{model.backbone}", name)
        if isinstance(path, str):
            return Path(path)
    raise InputError(
        f"{model.backbone}: its weights are not timm's own: name a file of them"
        " in the config, as model.pretrained"
    )
