"""What Kaggle is to run, and on what: each kernel's notebook and its kernel-metadata.json."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesions.config import load_config, load_dataset_config
from lesions.errors import InputError
from lesions.files import write_json, write_text
from lesions.kaggle.notebooks import build_notebook
from lesions.kaggle.remote import COMPETITION
from lesions.paths import at

LONGEST = 50  # characters that Kaggle takes in a kernel's or data set's name
CODE_SET = "lesions-code"
# Where Kaggle has a source; the inputs are found by what they hold, so any copy will do.
HOMES = {
    "isic2019": "andrewmvd/isic-2019",
    "ham10000": "kmader/skin-cancer-mnist-ham10000",
    "deotte-melanoma": "cdeotte/jpeg-melanoma-512x512",
    "deotte-isic2019": "cdeotte/jpeg-isic2019-512x512",
}


@dataclass
class Kernel:
    """A kernel before it is sent; sources are Kaggle's owner/name, own ones without the owner."""

    name: str
    notebook: str
    gpu: bool
    datasets: list[str] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)
    competitions: list[str] = field(default_factory=list)

    def write(self, folder: Path, owner: str) -> None:
        """The folder as `kaggle kernels push` takes it."""

        def owned(names: list[str]) -> list[str]:
            return [name if "/" in name else f"{owner}/{name}" for name in names]

        metadata: dict[str, Any] = {
            "id": f"{owner}/{self.name}",
            "title": self.name,
            "code_file": f"{self.name}.ipynb",
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": self.gpu,
            "enable_tpu": False,
            # Always said: the client's default is true, its documentation's false.
            "enable_internet": False,
            "dataset_sources": owned(self.datasets),
            "kernel_sources": owned(self.kernels),
            "competition_sources": self.competitions,
            "model_sources": [],
        }
        if self.gpu:
            metadata["machine_shape"] = "NvidiaTeslaT4"  # two of them
        write_text(folder / metadata["code_file"], self.notebook)
        write_json(folder / "kernel-metadata.json", metadata)


def slug(*parts: object) -> str:
    """The name on Kaggle of something of this repository: lesions-effnet-b1-fold0."""
    words = re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, ["lesions", *parts])).lower())
    if len(words) > LONGEST:
        raise InputError(f"{words}: Kaggle takes {LONGEST} characters: give the run a shorter name")
    return words.strip("-")


def weights_set(run: str) -> str:
    return slug("weights", run)


def prepare_kernel(dataset: str, sizes: list[int]) -> Kernel:
    """Makes the prepared data set of the originals, on a CPU: it costs no quota."""
    config = load_dataset_config(dataset)
    competitions, datasets = [], [CODE_SET]
    for name, source in config.sources.items():
        reader = source.reader or name
        if reader == "isic2020":
            competitions.append(COMPETITION)
        elif reader in HOMES:
            datasets.append(HOMES[reader])
        if reader == "deotte" or any("deotte" in place for place in source.images):
            datasets += [home for key, home in HOMES.items() if key.startswith("deotte")]
    return Kernel(
        slug("prepare", dataset),
        build_notebook("prepare", dataset=dataset, sizes=sizes),
        gpu=False,
        datasets=list(dict.fromkeys(datasets)),
        competitions=competitions,
    )


def train_kernel(run: str, fold: int, max_hours: float, begun: bool) -> Kernel:
    """Trains one fold on two T4; `begun` attaches its own last output, from which it goes on."""
    config = load_config(at("configs") / f"{run}.yaml")
    name = slug(run, f"fold{fold}")
    return Kernel(
        name,
        build_notebook("train-fold", run=run, fold=fold, max_hours=max_hours),
        gpu=True,
        datasets=[CODE_SET, *([weights_set(run)] if config.model.pretrained else [])],
        kernels=[slug("prepare", config.dataset), *([name] if begun else [])],
    )


def predict_kernel(run: str) -> Kernel:
    """Predicts the test rows with every fold of a run, on two T4."""
    dataset = load_config(at("configs") / f"{run}.yaml").dataset
    return Kernel(
        slug("predict", run),
        build_notebook("predict", run=run),
        gpu=True,
        datasets=[CODE_SET, weights_set(run)],
        kernels=[slug("prepare", dataset)],
        competitions=_sample_of(dataset),
    )


def blend_kernel(runs: list[str]) -> Kernel:
    """Blends what the predict kernels of the runs wrote, on a CPU."""
    if len(runs) < 2:
        raise InputError("kernel blend: name two runs at least")
    dataset = load_config(at("configs") / f"{runs[0]}.yaml").dataset
    return Kernel(
        slug("blend"),
        build_notebook("blend", title=", ".join(runs), runs=runs),
        gpu=False,
        datasets=[CODE_SET, *map(weights_set, runs)],
        kernels=[slug("prepare", dataset), *(slug("predict", run) for run in runs)],
        competitions=_sample_of(dataset),
    )


def _sample_of(dataset: str) -> list[str]:
    """The competition, whose sample a submission is checked against, where the test is its own."""
    return [COMPETITION] if "isic2020" in load_dataset_config(dataset).sources else []
