"""Send code, weights and kernels to Kaggle, as private data sets and notebooks."""

import shutil
import tempfile
import time
from pathlib import Path

from lesions.config import ModelConfig, load_config
from lesions.errors import InputError
from lesions.files import write_json, write_text
from lesions.kaggle import client
from lesions.kaggle.inputs import EXTRAS
from lesions.kaggle.kernels import CODE_SET, Kernel, weights_set
from lesions.paths import CODE, at, shown
from lesions.provenance import commit

READY_WITHIN = 1800  # seconds in which Kaggle has unpacked a data set
RESULTS = ("config.yaml", "fold*.csv", "fold*.json", "fold*.safetensors")


def push_code() -> str:
    """Send the package, scripts and configs as the data set lesions-code; its address."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / CODE_SET
        write_code(folder)
        return _push_set(folder, f"commit {commit()}")


def push_weights(run: str) -> str:
    """Send what kernels need of a run as the data set lesions-weights-<run>; its address."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / weights_set(run)
        held = write_weights(folder, run)
        return _push_set(folder, held)


def push_kernel(kernel: Kernel, attach: list[str]) -> str:
    """Send a kernel, with further data sets attached to it, and run it; its owner/name."""
    owner = client.username()
    kernel.datasets += attach
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / kernel.name
        kernel.write(folder, owner)
        version, address = client.kernel_push(folder)
    print(f"pushed version {version}: {address}", flush=True)
    return f"{owner}/{kernel.name}"


def write_code(folder: Path) -> None:
    """The code as a kernel finds it: src, scripts, configs and the commit they are of.

    With it go the small tables of the sources that Kaggle lacks, as far as they are here.
    """
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in ("src", "scripts", "configs"):
        shutil.copytree(CODE / name, folder / name, ignore=skip, dirs_exist_ok=True)
    for name, source in EXTRAS.items():
        if (at("input") / source / name).exists():
            (folder / "tables").mkdir(exist_ok=True)
            shutil.copyfile(at("input") / source / name, folder / "tables" / name)
    write_text(folder / "COMMIT", commit() + "\n")


def write_weights(folder: Path, run: str) -> str:
    """A run's trained folds, and its backbone's first weights under their timm tag; in words.

    InputError if there is neither.
    """
    files = [file for pattern in RESULTS for file in sorted((at("oof") / run).glob(pattern))]
    for file in files:
        (folder / "oof" / run).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / "oof" / run / file.name)
    folds = [file.stem for file in files if file.suffix == ".safetensors"]
    path = at("configs") / f"{run}.yaml"
    model = load_config(path if path.exists() or not files else at("oof") / run / "config.yaml").model
    if model.pretrained:
        weights = _first_weights(model)
        (folder / "backbones").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, folder / "backbones" / f"{model.backbone}{weights.suffix}")
        folds.append(f"first weights of {model.backbone}")
    if not folds:
        raise InputError(
            f"{run}: nothing to send: its backbone starts from random weights, and"
            f" {shown(at("oof") / run)} holds no trained fold"
        )
    return ", ".join(folds)


def _first_weights(model: ModelConfig) -> Path:
    """The file of the backbone's weights, downloaded if need be; InputError where there is none."""
    if isinstance(model.pretrained, str):
        return at() / model.pretrained
    from huggingface_hub import try_to_load_from_cache

    from lesions.models.backbone import build_backbone

    build_backbone(model)  # downloads them, or says within seconds that it cannot
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(f"timm/{model.backbone}", name)
        if isinstance(path, str):
            return Path(path)
    raise InputError(
        f"{model.backbone}: its weights are not timm's own: name a file of them"
        " in the config, as model.pretrained"
    )


def _push_set(folder: Path, notes: str) -> str:
    """Make the data set, or a version of it, and wait until kernels get to see it."""
    name = f"{client.username()}/{folder.name}"
    write_json(
        folder / "dataset-metadata.json",
        {"id": name, "title": folder.name, "licenses": [{"name": "other"}]},
    )
    new = not client.dataset_exists(name)
    address = client.dataset_create(folder) if new else client.dataset_version(folder, notes)
    print(f"{'made' if new else 'a new version of'} {address}: {notes}", flush=True)
    until = time.monotonic() + READY_WITHIN
    while client.dataset_status(name) != "ready":
        if time.monotonic() > until:
            raise InputError(
                f"{name}: not unpacked within {READY_WITHIN // 60} minutes: look at {address}"
            )
        time.sleep(10)
    return address
