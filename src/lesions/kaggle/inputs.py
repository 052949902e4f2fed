"""What is attached to a notebook, found by content: mounts go by many names."""

import os
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
KNOWN = {*SIGNATURES, *EXTRAS, SEAL, "train.csv", "config.yaml", "table.json", "submission.csv"}
DEEPEST = 8  # folders below the root
MOST = 1000  # entries read in a folder: listing ten thousand photographs takes minutes


class Inputs:
    """The files below a folder of mounts; of two places the one nearest to the root comes first."""

    def __init__(self, root: Path):
        self.root, self.files = root, list[Path]()
        level = [root]
        for _ in range(DEEPEST):
            entries = [entry for folder in level for entry in islice(os.scandir(folder), MOST)]
            self.files += sorted(Path(entry.path) for entry in entries if entry.is_file())
            folders = (entry for entry in entries if entry.is_dir() and entry.name[0] != ".")
            level = sorted(Path(folder.path) for folder in folders)

    def find(self, name: str) -> list[Path]:
        """The files of that name, or whose path ends so: oof/effnet_b1/config.yaml."""
        return [file for file in self.files if file.match(name)]

    def summary(self) -> str:
        """The files by which data sets, runs and code are known, one a line."""
        known = [file for file in self.files if file.name in KNOWN or file.suffix in WEIGHTS]
        return "\n".join(f"  {file.relative_to(self.root)}" for file in known)

    def hashes(self) -> dict[str, str]:
        """The hash of each own data set, by its name."""
        seals = map(read_json, reversed(self.find(SEAL)))
        return {seal["set"]: seal["hash"] for seal in seals}

    def prepared(self, dataset: str) -> Path | None:
        """The folder of a prepared data set's table."""
        tables = (file for file in self.find("table.json") if read_json(file)["dataset"] == dataset)
        return next((file.parent for file in tables), None)

    def backbones(self) -> dict[str, Path]:
        """Files of first weights by timm tag."""
        files = [file for file in self.files if file.suffix in WEIGHTS and "oof" not in file.parts]
        return {file.stem: file for file in reversed(files)}

    def sources(self) -> dict[str, Path]:
        """The folder of each source's official files, and of Deotte's sets by their names."""
        found = {}
        for file in reversed(self.files):
            if file.name in SIGNATURES:
                found[SIGNATURES[file.name]] = file.parent
            elif file.name == "train.csv":
                # Deotte's sets have the names of the competition's files, and one more column.
                if "tfrecord" in pd.read_csv(file, nrows=0):
                    found[_deotte_name(file.parent)] = file.parent
                elif (file.parent / "sample_submission.csv").exists():
                    found["isic2020"] = file.parent
        return found


def _deotte_name(folder: Path) -> str:
    """The name of Deotte's set, from its test rows and the width of an image."""
    kind = "melanoma" if (folder / "test.csv").exists() else "isic2019"
    first = next(os.scandir(folder / "train"), None) if (folder / "train").is_dir() else None
    image = cv2.imread(first.path) if first else None
    width = image.shape[1] if image is not None else 0
    return f"jpeg-{kind}-{width}x{width}"
