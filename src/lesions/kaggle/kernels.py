"""What goes to Kaggle, all private: code and weights as data sets, and notebooks on them."""

import hashlib
import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, NoReturn

from lesions.config import Config, load_config, load_dataset_config, read_yaml, saved_config
from lesions.data.downloads import catalogue
from lesions.errors import InputError, listed
from lesions.files import copy, read_json, sha256, write_json, write_text
from lesions.kaggle.client import COMPETITION, call, cleaned, username
from lesions.paths import CODE, at
from lesions.provenance import commit

READY_WITHIN = 1800  # seconds in which Kaggle has unpacked a data set
SLACK_HOURS = 0.25  # of a session beyond its --max-hours: start, inputs, output
CACHE = "jpeg"  # of prepared images: output has 20 GB at most, and an array is ten times as large
TEMPLATES = Path(__file__).with_name("templates")
SEAL = "lesions-set.json"  # in each own data set: its name and the hash of its files


@dataclass
class Kernel:
    """A notebook to run on Kaggle: check, prepare a data set, train or predict a run, blend runs.

    `names` are the runs, or the data set; `attached` are further data sets, as owner/name.
    """

    kind: str
    names: list[str]
    max_hours: float = 11.5
    sizes: list[int] = field(default_factory=lambda: [256])
    folds: list[int] | None = None
    attached: list[str] = field(default_factory=list)

    @property
    def slug(self) -> str:
        return slug(self.kind, *self.names[: self.kind != "blend"])

    @property
    def sets(self) -> list[str]:
        """The own data sets that it needs, by run; "" is the code's."""
        return ["", *(self.names if self.kind in ("train", "predict", "blend") else [])]

    def notebook(self, expected: dict[str, str]) -> str:
        """`expected` are hashes by own data set: the session refuses one attached otherwise."""
        values = vars(self) | {"name": ", ".join(self.names), "expected": expected}
        template = {"predict": "submission", "blend": "submission"}.get(self.kind, self.kind)
        return build_notebook(TEMPLATES / f"{template}.md", **values)

    def write(self, folder: Path, owner: str, expected: dict[str, str]) -> None:
        """Write the folder that `kaggle kernels push` takes."""
        sources, kernels, datasets = {"isic2020"}, list[str](), list(self.attached)
        if self.kind != "check":
            dataset = self.names[0] if self.kind == "prepare" else config_of(self.names[0]).dataset
            config = load_dataset_config(dataset)
            sources = {source.reader or name for name, source in config.sources.items()}
            kernels = [slug("prepare", dataset)]
        if self.kind == "prepare":
            folders, kernels = sources | ({"deotte"} if config.deotte else set()), []
            for entry in catalogue().values():
                datasets += entry.get("mirrors", []) if entry["folder"] in folders else []
        if self.kind == "blend":
            kernels += [slug("predict", run) for run in self.names]
        gpu = self.kind in ("train", "predict")
        metadata = {
            "id": f"{owner}/{self.slug}",
            "title": self.slug,
            "code_file": f"{self.slug}.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": gpu,
            "enable_internet": False,  # the client's default is true, its documentation says false
            "dataset_sources": [*(f"{owner}/{set_name(run)}" for run in self.sets), *datasets],
            "kernel_sources": [f"{owner}/{name}" for name in kernels],
            "competition_sources": [COMPETITION] * ("isic2020" in sources and self.kind != "train"),
            "machine_shape": "NvidiaTeslaT4" if gpu else None,  # two of them
        }
        write_text(folder / f"{self.slug}.ipynb", self.notebook(expected))
        write_json(folder / "kernel-metadata.json", metadata)


def build_notebook(template: Path, **values: Any) -> str:
    """The notebook of a template as JSON, with `values` filled in: always the same."""
    import jupytext

    begin = (TEMPLATES / "begin.md").read_text(encoding="utf-8")
    text = template.read_text(encoding="utf-8").replace("$begin", begin)
    notebook = jupytext.reads(Template(text).substitute(values), fmt="md")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell{number}"  # random otherwise: the same template gives the same file
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel}
    return str(jupytext.writes(notebook, fmt="ipynb"))


def slug(*parts: object) -> str:
    """The name on Kaggle of something of this repository: lesions-train-effnet-b1."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, ["lesions", *parts])).lower()).strip("-")


def set_name(run: str) -> str:
    """The name of the data set of a run's weights, or, of "", of the code."""
    return slug("weights", run) if run else slug("code")


def config_of(run: str) -> Config:
    """The config that a run was trained with, or is to be trained with."""
    saved = at("oof", run, "config.yaml")
    return saved_config(read_yaml(saved), saved) if saved.exists() else load_config(run)


def end_for_now(reason: str) -> NoReturn:
    """End with exit code 75, as scripts/train.py does: the same command resumes later."""
    print(f"{time.strftime('%H:%M')} {reason}: run the same command again, it resumes")
    raise SystemExit(75)


def push_kernel(kernel: Kernel) -> str:
    """Send a kernel and what it needs of this checkout, and start it; its owner/name/version."""
    for run in kernel.names if kernel.kind in ("predict", "blend") else []:
        if not any(at("oof", run).glob("fold*.safetensors")):
            raise InputError(f"{run}: no fold is here to {kernel.kind}: train it first")
    expected = {set_name(run): push_set(run) for run in kernel.sets}
    owner, what = username(), f"pushing {kernel.slug}"
    with tempfile.TemporaryDirectory() as place:
        kernel.write(Path(place), owner, expected)
        # A source that Kaggle does not know is left out, and the session runs, and uses up quota,
        # without it: saved without a run first, the kernel's sources are known to be there.
        for check in (True, False):
            seconds = 3600 * (kernel.max_hours + SLACK_HOURS)
            answer = call(what, "kernels_push", place, timeout=seconds, no_run=check, repeat=False)
            error = cleaned(answer.error or "")
            if "session count" in error.lower():
                end_for_now(f"{what}: {error} When one has ended")
            unknown = (answer.invalid_dataset_sources or []) + (answer.invalid_kernel_sources or [])
            unknown += answer.invalid_competition_sources or []
            if unknown:
                error = (
                    f"not started: Kaggle does not know {listed(unknown)}: check that the account"
                    " may see them, and that a kernel among them has run"
                )
            if error:
                raise InputError(f"{what}: {error}")
    print(f"pushed version {answer.version_number}: {answer.url}", flush=True)
    return f"{owner}/{kernel.slug}/{answer.version_number}"


def push_set(run: str) -> str:
    """Send a run's weights, or the code, unless Kaggle has the very files; their hash.

    Waits until kernels get to see them: "ready" alone may be the status of the version before.
    """
    name, until = f"{username()}/{set_name(run)}", time.monotonic() + READY_WITHIN
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, set_name(run))
        digest = write_set(folder, run)
        status, held = _status(name)
        if held != digest:
            metadata = {"id": name, "title": folder.name, "licenses": [{"name": "other"}]}
            write_json(folder / "dataset-metadata.json", metadata)
            method, arguments = "dataset_create_version", [str(folder), f"commit {commit()}"]
            if status == "missing":
                method, arguments = "dataset_create_new", [str(folder)]
            # Folders go as zips, which Kaggle unpacks.
            answer = call(f"sending {name}", method, *arguments, quiet=True, dir_mode="zip",
                          repeat=False)  # fmt: skip
            if answer.error:
                raise InputError(cleaned(f"sending {name}: {answer.error}"))
            print(f"sent {answer.url}", flush=True)
    while _status(name) != ("ready", digest):
        if time.monotonic() > until:
            page = f"https://www.kaggle.com/datasets/{name}"
            raise InputError(f"{page}: not ready within {READY_WITHIN // 60} minutes: look there")
        time.sleep(10)
    return digest


def _status(dataset: str) -> tuple[str, str]:
    """The status of an own data set ("ready", "missing", ...) and the hash of its files there."""
    status = call(f"status of {dataset}", "dataset_status", dataset, missing="missing")
    with tempfile.TemporaryDirectory() as place:
        call(f"reading {SEAL} of {dataset}", "dataset_download_file", dataset, SEAL, path=place,
             missing=None)  # fmt: skip
        seal = Path(place, SEAL)
        return str(status), str(read_json(seal)["hash"]) if seal.exists() else ""


def write_set(folder: Path, run: str) -> str:
    """Write a run's weights, or the code; the hash of every file, which is in it as well."""
    folder.mkdir(parents=True, exist_ok=True)
    if run:
        _write_weights(folder, run)
    else:
        for name in ("src", "scripts", "configs"):
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
            shutil.copytree(CODE / name, folder / name, ignore=ignore, dirs_exist_ok=True)
        for source in catalogue().values():  # with the small tables that Kaggle's copies lack
            for file in source["files"]:
                table = Path("input", source["folder"], file["name"])
                if "with_code" in file and at(table).exists():
                    copy(at(table), folder / table)
        write_text(folder / "COMMIT", commit() + "\n")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    hashes = [(path.relative_to(folder).as_posix(), sha256(path)) for path in paths]
    digest = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    write_json(folder / SEAL, {"set": set_name(run), "hash": digest})
    return digest


def _write_weights(folder: Path, run: str) -> None:
    """Write a run's folds, training state too, and its backbone's first weights."""
    oof, model = at("oof", run), config_of(run).model
    if oof.exists():
        ignore = shutil.ignore_patterns("*.html", "*.png", "report", ".*")
        shutil.copytree(oof, folder / "oof" / run, ignore=ignore, dirs_exist_ok=True)
    if isinstance(model.pretrained, str):
        if Path(model.pretrained).is_absolute():
            raise InputError(f"{run}: model.pretrained: give a path below the checkout")
        copy(at(model.pretrained), folder / model.pretrained)
    elif model.pretrained:
        from huggingface_hub import hf_hub_download

        # As in the hub's cache: the run's config is the same at home and in a session.
        cached = folder / f"input/hub/models--timm--{model.backbone}"
        try:
            weights = hf_hub_download(f"timm/{model.backbone}", "model.safetensors")
        except (OSError, ValueError) as error:
            raise InputError(
                f"{model.backbone}: its weights are not to be had ({str(error).splitlines()[0]}):"
                " check the network, or name a file of them in the config, as model.pretrained"
            ) from error
        copy(Path(weights), cached / "snapshots/attached/model.safetensors")
        write_text(cached / "refs/main", "attached")
