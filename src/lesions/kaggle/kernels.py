"""What Kaggle is to run and on what: the notebook and kernel-metadata.json of each kernel."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from lesions.config import (
    Config,
    find_config,
    load_config,
    load_dataset_config,
    read_yaml,
    run_name,
    saved_config,
)
from lesions.errors import InputError
from lesions.files import write_json, write_text
from lesions.kaggle.client import COMPETITION
from lesions.paths import at

LONGEST_NAME = 50  # characters that Kaggle takes in a kernel's or data set's name
NEEDS = {"prepare": "one data set", "train": "one run", "predict": "one run",
         "blend": "two runs or more", "check": "nothing more"}  # fmt: skip
# Where Kaggle has a source; the inputs are found by their content, so any copy will do.
HOMES = {"isic2019": "andrewmvd/isic-2019", "ham10000": "kmader/skin-cancer-mnist-ham10000"}
DEOTTE = ("cdeotte/jpeg-melanoma-512x512", "cdeotte/jpeg-isic2019-512x512")


@dataclass
class Kernel:
    """A kernel before it is sent.

    `values` fill the notebook's template; `weights` are the runs whose weights data sets it needs,
    `kernels` the names of own kernels whose output it needs, `datasets` further owner/name.
    """

    kind: str
    name: str
    values: dict[str, Any]
    gpu: bool = False
    weights: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    competitions: list[str] = field(default_factory=list)

    def write(self, folder: Path, owner: str, expected: dict[str, str]) -> None:
        """Write the folder that `kaggle kernels push` takes.

        `expected` are hashes by own data set: the session refuses one that is attached otherwise.
        """
        own = [f"{owner}/{set_name(run)}" for run in (None, *self.weights)]
        metadata: dict[str, Any] = {
            "id": f"{owner}/{self.name}",
            "title": self.name,
            "code_file": f"{self.name}.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": self.gpu,
            "enable_tpu": False,
            # Always set: the client's default is true, its documentation says false.
            "enable_internet": False,
            "dataset_sources": [*own, *self.datasets],
            "kernel_sources": [f"{owner}/{name}" for name in self.kernels],
            "competition_sources": self.competitions,
            "model_sources": [],
        }
        if self.gpu:
            metadata["machine_shape"] = "NvidiaTeslaT4"  # two of them
        notebook = build_notebook(self.kind, expected=expected, **self.values)
        write_text(folder / metadata["code_file"], notebook)
        write_json(folder / "kernel-metadata.json", metadata)


def build_notebook(kind: str, **values: Any) -> str:
    """The notebook of `kind` as JSON, with `values` filled into its template: always the same.

    A value `x` is $x in the template, and $x_literal as Python.
    """
    import jupytext

    templates = Path(__file__).with_name("templates")
    first_cell = (templates / "first_cell.py").read_text(encoding="utf-8")
    filled = Template((templates / f"{kind}.md").read_text(encoding="utf-8")).substitute(
        values,
        first_cell=f"```python\n{first_cell}```",
        **{f"{name}_literal": repr(value) for name, value in values.items()},
    )
    notebook = jupytext.reads(filled, fmt="md")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell{number}"  # random otherwise: the same template gives the same file
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    }
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


def weights_to_train(run: str, config: Config) -> list[str]:
    """The run, if it has first weights, folds or training state to start from."""
    return [run] if config.model.pretrained or any(at("oof", run).rglob("fold*.*")) else []


def build_kernel(
    kind: str, names: list[str], sizes: list[int], folds: list[int] | None, max_hours: float
) -> Kernel:
    """The kernel of `kind` for a data set (prepare) or for runs; InputError for wrong names."""
    if kind not in NEEDS:
        raise InputError(f"kernel: say which: {', '.join(NEEDS)}")
    if (len(names) < 2) if kind == "blend" else len(names) != (kind != "check"):
        raise InputError(f"kernel {kind}: name {NEEDS[kind]}")
    if kind not in ("prepare", "check"):
        names = [run_name(find_config(name)) for name in names]
    kernel = Kernel(kind, slug(kind, *(names if kind != "blend" else [])), {})
    if kind == "check":
        kernel.competitions = [COMPETITION]
    elif kind == "prepare":
        _attach_originals(kernel, names[0])
        kernel.values = {"dataset": names[0], "sizes": sizes}
    else:
        config = config_of(names[0])
        kernel.gpu, kernel.weights = kind != "blend", names
        kernel.kernels = [slug("prepare", config.dataset)]
        kernel.values = {"run": names[0]}
        if kind == "train":
            kernel.weights = weights_to_train(names[0], config)
            kernel.values |= {"folds": folds, "max_hours": max_hours}
        elif "isic2020" in load_dataset_config(config.dataset).sources:
            # For the sample that a submission is checked against.
            kernel.competitions = [COMPETITION]
        if kind == "blend":
            kernel.kernels += [slug("predict", run) for run in names]
            kernel.values = {"runs": names, "title": ", ".join(names)}
    return kernel


def _attach_originals(kernel: Kernel, dataset: str) -> None:
    for name, source in load_dataset_config(dataset).sources.items():
        reader = source.reader or name
        if reader == "isic2020":
            kernel.competitions.append(COMPETITION)
        elif reader in HOMES:
            kernel.datasets.append(HOMES[reader])
        if reader == "deotte" or any("deotte" in place for place in source.images):
            kernel.datasets = list(dict.fromkeys([*kernel.datasets, *DEOTTE]))
