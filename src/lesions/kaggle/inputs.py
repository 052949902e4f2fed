"""What is attached to a notebook, found by content: mounts go by many names."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import pandas as pd

from lesions.files import read_json

# The file by which a source's official download is known.
SIGNATURES = {
    "ISIC-2017_Training_Part3_GroundTruth.csv": "isic2017",
    "ISIC2018_Task3_Training_GroundTruth.csv": "isic2018",
    "ISIC_2019_Training_GroundTruth.csv": "isic2019",
    "HAM10000_metadata.csv": "ham10000",
    "dermamnist.npz": "dermamnist",
    "dermamnist_64.npz": "dermamnist",
    "dermamnist_128.npz": "dermamnist",
    "dermamnist_224.npz": "dermamnist",
}
# Small tables that a source's data set on Kaggle lacks, and the source.
EXTRAS = {
    "ISIC_2020_Training_Duplicates.csv": "isic2020",
    "ISIC_2020_Training_GroundTruth_v2.csv": "isic2020",
    "ISIC2018_Task3_Training_LesionGroupings.csv": "isic2018",
}
SEAL = "lesions-set.json"  # in each own data set: its name and the hash of its files
WEIGHTS = (".safetensors", ".pth", ".bin")
DEEPEST = 8  # folders below the root
MOST = 1000  # entries read in a folder: listing ten thousand photographs takes minutes


@dataclass
class Inputs:
    """Where each thing is that a kernel can use; of two places the one nearest to the root."""

    sources: dict[str, Path] = field(default_factory=dict)  # source: folder of its CSVs
    extras: dict[str, Path] = field(default_factory=dict)  # file of EXTRAS: where it is
    deotte: dict[str, Path] = field(default_factory=dict)  # jpeg-melanoma-512x512: folder
    prepared: dict[str, Path] = field(default_factory=dict)  # data set: folder of its table
    backbones: dict[str, Path] = field(default_factory=dict)  # timm tag: file of weights
    runs: dict[str, list[Path]] = field(default_factory=dict)  # run: folders with some of it
    submissions: dict[str, Path] = field(default_factory=dict)  # run: its test predictions
    seals: dict[str, str] = field(default_factory=dict)  # own data set: hash of its files

    def summary(self) -> str:
        """One line a kind of what was found."""
        prepared = [
            f"{name} ({', '.join(sizes(folder))} px)" for name, folder in self.prepared.items()
        ]
        kinds = {
            "originals": [*self.sources, *self.deotte, *self.extras],
            "prepared": prepared,
            "backbones": self.backbones,
            "runs": self.runs,
            "test predictions": self.submissions,
            "data sets": [f"{name} ({digest[:12]})" for name, digest in self.seals.items()],
        }
        return "\n".join(f"  {kind}: {', '.join(names) or 'none'}" for kind, names in kinds.items())


def find_inputs(root: Path) -> Inputs:
    """Everything usable below `root`."""
    found = Inputs()
    for folder, names in folders(root):
        _find_data(found, folder, names)
        _find_results(found, folder, names)
    return found


def folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every folder below `root` with the names of its files, the nearest first, then by name."""
    level = [root]
    for _ in range(DEEPEST):
        deeper = []
        for folder in level:
            with os.scandir(folder) as entries:
                looked_at = list(islice(entries, MOST))
            yield folder, {entry.name for entry in looked_at if entry.is_file()}
            deeper += [Path(e.path) for e in looked_at if e.is_dir() and e.name[0] != "."]
        level = sorted(deeper)


def sizes(prepared: Path) -> list[str]:
    """The pixel sizes in which a prepared data set has its images."""
    return sorted((file.parent.name for file in prepared.glob("[0-9]*/cache.json")), key=int)


def _find_data(found: Inputs, folder: Path, names: set[str]) -> None:
    for name in names & {*SIGNATURES}:
        found.sources.setdefault(SIGNATURES[name], folder)
    for name in names & {*EXTRAS}:
        found.extras.setdefault(name, folder / name)
    if SEAL in names:
        seal = read_json(folder / SEAL)
        found.seals.setdefault(seal["set"], seal["hash"])
    if {"table.csv", "table.json"} <= names:
        found.prepared.setdefault(read_json(folder / "table.json")["dataset"], folder)
    elif "train.csv" in names:
        # Deotte's sets have the names of the competition's files, and one more column.
        if "tfrecord" in pd.read_csv(folder / "train.csv", nrows=0):
            found.deotte.setdefault(_deotte_name(folder, names), folder)
        elif {"test.csv", "sample_submission.csv"} <= names:
            found.sources.setdefault("isic2020", folder)


def _find_results(found: Inputs, folder: Path, names: set[str]) -> None:
    parts = folder.parts
    if "oof" in parts:
        run = "/".join(parts[len(parts) - parts[::-1].index("oof") :])
        if "config.yaml" in names and run:
            found.runs.setdefault(run, []).append(folder)
        return
    if "submissions" in parts:
        above = "/".join(parts[len(parts) - parts[::-1].index("submissions") :])
        for name in sorted(names):
            if name.endswith(".csv"):
                run = f"{above}/{name}".removeprefix("/").removesuffix(".csv")
                found.submissions.setdefault(run, folder / name)
    for name in sorted(names):
        if name.endswith(WEIGHTS):
            found.backbones.setdefault(name.rpartition(".")[0], folder / name)


def _deotte_name(folder: Path, names: set[str]) -> str:
    """The name of Deotte's set, from its test rows and the width of an image."""
    kind = "melanoma" if "test.csv" in names else "isic2019"
    first = next(os.scandir(folder / "train"), None) if (folder / "train").is_dir() else None
    image = cv2.imread(first.path) if first else None
    width = image.shape[1] if image is not None else 0
    return f"jpeg-{kind}-{width}x{width}"
