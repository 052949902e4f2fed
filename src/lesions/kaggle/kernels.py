"""What goes to Kaggle, all private: code and weights as data sets, and notebooks on them."""

import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from lesions.config import (
    Config,
    ModelConfig,
    find_config,
    load_config,
    load_dataset_config,
    read_yaml,
    run_name,
    saved_config,
)
from lesions.errors import InputError, listed
from lesions.files import atomic, read_json, sha256, write_json, write_text
from lesions.kaggle.client import COMPETITION, call, cleaned, username
from lesions.kaggle.download import catalogue, sent_tables
from lesions.paths import CODE, at, shown
from lesions.provenance import commit

LONGEST_NAME = 50  # characters that Kaggle takes in a kernel's or data set's name
READY_WITHIN = 1800  # seconds in which Kaggle has unpacked a data set
SLACK_HOURS = 0.25  # of a session beyond its --max-hours: start, inputs, output
CACHE = "jpeg"  # of prepared images: output has 20 GB at most, and an array is ten times as large
NEEDS = {"prepare": "one data set", "train": "one run", "predict": "one run",
         "blend": "two runs or more", "check": "nothing more"}  # fmt: skip
REPOSITORY = "your-name/lesions"  # on GitHub, for Colab: put yours here, then make notebooks
SEAL = "lesions-set.json"  # in each own data set: its name and the hash of its files


class SessionsFullError(InputError):
    """As many batch GPU sessions are running as the account may have: try again when one ends."""


@dataclass
class Kernel:
    """A kernel before it is sent.

    `values` fill the notebook's template; `weights` are the runs whose weights data sets it needs,
    `kernels` the names of own kernels whose output it needs, `datasets` further owner/name.
    """

    kind: str
    name: str
    values: dict[str, Any]
    max_hours: float
    gpu: bool = False
    weights: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    competition: bool = False

    def write(self, folder: Path, owner: str, expected: dict[str, str]) -> None:
        """Write the folder that `kaggle kernels push` takes.

        `expected` are hashes by own data set: the session refuses one that is attached otherwise.
        """
        own = [f"{owner}/{set_name(run)}" for run in (None, *self.weights)]
        metadata = {
            "id": f"{owner}/{self.name}",
            "title": self.name,
            "code_file": f"{self.name}.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": self.gpu,
            "enable_internet": False,  # the client's default is true, its documentation says false
            "dataset_sources": [*own, *self.datasets],
            "kernel_sources": [f"{owner}/{name}" for name in self.kernels],
            "competition_sources": [COMPETITION] if self.competition else [],
            **({"machine_shape": "NvidiaTeslaT4"} if self.gpu else {}),  # two of them
        }
        write_text(folder / f"{self.name}.ipynb", self.notebook(expected))
        write_json(folder / "kernel-metadata.json", metadata)

    def notebook(self, expected: dict[str, str]) -> str:
        values = self.values | {"max_hours": self.max_hours, "expected": expected}
        return build_notebook(self.kind, **values)


def build_kernel(
    kind: str, names: list[str], sizes: list[int], folds: list[int] | None, max_hours: float
) -> Kernel:
    """The kernel of `kind` for a data set (prepare) or for runs; InputError for wrong names."""
    if kind not in NEEDS:
        raise InputError(f"kernel: say which: {', '.join(NEEDS)}")
    if (len(names) < 2) if kind == "blend" else len(names) != (kind != "check"):
        raise InputError(f"kernel {kind}: name {NEEDS[kind]}")
    if kind == "check":
        return Kernel(kind, slug(kind), {}, max_hours, competition=True)
    if kind == "prepare":
        kernel = Kernel(kind, slug(kind, *names), {"dataset": names[0], "sizes": sizes}, max_hours)
        wanted = _wanted_sources(names[0])
        kernel.competition = "isic2020" in wanted
        kernel.datasets = [
            mirror
            for name, source in catalogue().items()
            for mirror in source.get("mirrors", [])
            if name in wanted
        ]
        return kernel
    names = [run_name(find_config(name)) for name in names]
    config = config_of(names[0])
    kernel = Kernel(
        kind,
        slug(kind, *names[: kind != "blend"]),
        {"run": names[0], "folds": folds},
        max_hours,
        gpu=kind != "blend",
        weights=weights_to_train(names[0]) if kind == "train" else names,
        kernels=[slug("prepare", config.dataset)],
    )
    if kind != "train":  # for the sample that a submission is checked against
        kernel.competition = "isic2020" in load_dataset_config(config.dataset).sources
    if kind == "blend":
        kernel.kernels += [slug("predict", run) for run in names]
        kernel.values = {"runs": names, "title": ", ".join(names)}
    return kernel


def _wanted_sources(dataset: str) -> set[str]:
    """The names in the catalogue of what a data set is prepared from."""
    sources = load_dataset_config(dataset).sources
    wanted = {source.reader or name for name, source in sources.items()}
    places = [place for source in sources.values() for place in source.images]
    resized = any("deotte" in name for name in (*wanted, *places))
    return wanted | ({"deotte-512"} if resized else set())


def build_notebooks() -> dict[str, str]:
    """The files of notebooks/ by name."""
    shown_kinds = {"prepare": ["isic"], "train": ["effnet_b1"], "blend": ["effnet_b1", "effnet_b3"]}
    notebooks = {
        f"kaggle_{kind}.ipynb": build_kernel(kind, names, [256], None, 11.5).notebook({})
        for kind, names in shown_kinds.items()
    }
    study = build_notebook("dermamnist_study", repository=REPOSITORY)
    return notebooks | {"dermamnist_study.ipynb": study}


def build_notebook(kind: str, **values: Any) -> str:
    """The notebook of `kind` as JSON, with `values` filled into its template: always the same.

    A value `x` is $x in the template, and $x_literal, if it is of strings, as Python.
    """
    import jupytext

    templates = Path(__file__).with_name("templates")
    first_cell = (templates / "first_cell.md").read_text(encoding="utf-8")
    filled = Template((templates / f"{kind}.md").read_text(encoding="utf-8")).substitute(
        values,
        first_cell=first_cell,
        **{f"{name}_literal": json.dumps(value) for name, value in values.items()},
    )
    notebook = jupytext.reads(filled, fmt="md")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell{number}"  # random otherwise: the same template gives the same file
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = {"kernelspec": kernel}
    return str(jupytext.writes(notebook, fmt="ipynb"))


def slug(*parts: object) -> str:
    """The name on Kaggle of something of this repository: lesions-train-effnet-b1."""
    words = re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, ["lesions", *parts])).lower())
    if len(words) > LONGEST_NAME:
        raise InputError(
            f"{words}: Kaggle takes {LONGEST_NAME} characters: give the run a shorter name"
        )
    return words.strip("-")


def set_name(run: str | None) -> str:
    """The name of the data set of a run's weights, or of the code."""
    return slug("weights", run) if run else slug("code")


def config_of(run: str) -> Config:
    """The config that a run was trained with, or is to be trained with."""
    saved = at("oof", run, "config.yaml")
    return saved_config(read_yaml(saved), saved) if saved.exists() else load_config(run)


def weights_to_train(run: str) -> list[str]:
    """The run, if it has first weights, folds or training state to start from."""
    trained = any(at("oof", run).rglob("fold*.*"))
    return [run] if trained or config_of(run).model.pretrained else []


def push_kernel(kernel: Kernel) -> str:
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
            seconds = 3600 * (kernel.max_hours + SLACK_HOURS)
            answer = call(what, "kernels_push", place, timeout=seconds, no_run=check, repeat=False)
            if answer.error:
                full = "session count" in answer.error.lower()
                kind = SessionsFullError if full else InputError
                raise kind(cleaned(f"{what}: {answer.error}"))
            unknown = [
                name
                for kind in ("dataset", "competition", "kernel")
                for name in getattr(answer, f"invalid_{kind}_sources") or []
            ]
            if unknown:
                raise InputError(
                    f"{what}: not started: Kaggle does not know {listed(unknown)}: check that the"
                    " account may see them, and that a kernel among them has run"
                )
    print(f"pushed version {answer.version_number}: {answer.url}", flush=True)
    return f"{owner}/{kernel.name}/{answer.version_number}"


def push_set(run: str | None) -> str:
    """Send a run's weights, or the code, unless Kaggle has the very files; their hash.

    Waits until kernels get to see them.
    """
    name = f"{username()}/{set_name(run)}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, set_name(run))
        notes = write_set(folder, run)
        digest = str(read_json(folder / SEAL)["hash"])
        if _held(name) != digest:
            metadata = {"id": name, "title": folder.name, "licenses": [{"name": "other"}]}
            write_json(folder / "dataset-metadata.json", metadata)
            method, arguments = "dataset_create_version", [str(folder), notes]
            if _status(name) == "missing":
                method, arguments = "dataset_create_new", [str(folder)]
            # Folders go as zips, which Kaggle unpacks.
            answer = call(f"sending {name}", method, *arguments, quiet=not sys.stderr.isatty(),
                          dir_mode="zip", repeat=False)  # fmt: skip
            if answer.error or (answer.status or "ok").lower() == "error":
                raise InputError(cleaned(f"sending {name}: {answer.error or answer.status}"))
            print(f"sent {answer.url or answer.ref}: {notes}", flush=True)
    until = time.monotonic() + READY_WITHIN
    # "ready" alone may be the status of the version before.
    while _status(name) != "ready" or _held(name) != digest:
        if time.monotonic() > until:
            page = f"https://www.kaggle.com/datasets/{name}"
            raise InputError(
                f"{page}: not unpacked within {READY_WITHIN // 60} minutes: look there"
            )
        time.sleep(10)
    return digest


def _status(dataset: str) -> str:
    """The status of the data set: "ready", "missing" or what Kaggle is doing with it."""
    return str(call(f"status of {dataset}", "dataset_status", dataset, missing="missing"))


def _held(dataset: str) -> str:
    """The hash of the files that Kaggle has of the own data set; or ""."""
    with tempfile.TemporaryDirectory() as place:
        call(f"reading {SEAL} of {dataset}", "dataset_download_file", dataset, SEAL, path=place,
             missing=None)  # fmt: skip
        seal = Path(place, SEAL)
        return str(read_json(seal)["hash"]) if seal.exists() else ""


def write_set(folder: Path, run: str | None) -> str:
    """Write a run's weights, or the code, and the hash of every file; a description."""
    notes = _write_weights(folder, run) if run else _write_code(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    hashes = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    digest = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    write_json(folder / SEAL, {"set": set_name(run), "hash": digest, "files": hashes})
    return notes


def _write_code(folder: Path) -> str:
    """The code as a kernel finds it, with small tables that Kaggle lacks."""
    for name in ("src", "scripts", "configs"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
        shutil.copytree(CODE / name, folder / name, ignore=ignore, dirs_exist_ok=True)
    for name, source in sent_tables().items():
        if at("input", source, name).exists():
            copy(at("input", source, name), folder / "tables" / name)
    write_text(folder / "COMMIT", commit() + "\n")
    return f"commit {commit()}"


def _write_weights(folder: Path, run: str) -> str:
    """A run's folds, training state too, and its backbone's first weights, by their timm tag.

    InputError if there is nothing at all.
    """
    oof, model = at("oof", run), config_of(run).model
    if oof.exists():
        ignore = shutil.ignore_patterns("*.html", "*.png", "report", ".*")
        shutil.copytree(oof, folder / "oof" / run, ignore=ignore, dirs_exist_ok=True)
    parts = sorted(
        path.name for path in oof.rglob("fold*.*") if path.suffix in (".safetensors", ".pt")
    )
    if model.pretrained:
        weights = _first_weights(model)
        copy(weights, folder / "backbones" / f"{model.backbone}{weights.suffix}")
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
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"timm/{model.backbone}", "model.safetensors"))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{model.backbone}: its weights are not to be had ({reason}): check the network, or"
            " name a file of them in the config, as model.pretrained"
        ) from error


def copy(file: Path, path: Path) -> None:
    """Copy a file to a path, all of it or nothing."""
    with atomic(path) as part:
        shutil.copyfile(file, part)
