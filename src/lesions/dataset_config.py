"""The config of a data set: its sources, its task, its folds, and how its images are cached."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from lesions.errors import InputError
from lesions.paths import CONFIGS
from lesions.settings import Section, load


class SourceConfig(Section):
    """Where one source's files lie."""

    folder: str  # the official CSVs
    images: list[str] = Field([])  # image folders or zips; the source's own layout when empty
    reader: str | None = None  # of data/sources.py, or generic; the source's name when empty
    # of a generic source: its CSV below `folder`; without one, one image folder a diagnosis
    table: str | None = None
    columns: dict[str, str] = Field({})  # the table's column: the CSV's, such as age_approx: Age
    diagnoses: dict[str, str] = Field({})  # the CSV's word: a diagnosis of data/tasks.py


class PreprocessConfig(Section):
    """What is done to a photograph before it enters the cache: data/preprocess.py."""

    fit: Literal["squash", "pad", "crop"] = "squash"  # how it becomes a square
    circle: bool = False  # crop a round dark field to the rectangle inside
    hair: bool = False  # paint over dark lines
    shades_of_gray: bool = False  # colours under a neutral light
    clahe: bool = False  # even out the contrast


class DatasetConfig(Section):
    """What scripts/prepare.py makes one table of."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    task: Literal["melanoma", "malignant"] = "melanoma"  # what `target` says: data/tasks.py
    stratify: Literal["target", "diagnosis"] = "target"  # what folds are alike in, besides source
    # Deotte's CSVs: sizes of the originals without a photograph, and the legacy folds
    deotte: str | None = None
    # grouped: ours; the others are published splits, for comparison: data/schemes.py
    scheme: Literal[
        "grouped", "legacy", "official", "system001", "system002", "system003", "system004"
    ] = "grouped"
    preprocess: PreprocessConfig = PreprocessConfig()
    # of the cache: auto takes array unless it is too large for the free disk or the memory
    cache: Literal["auto", "array", "jpeg"] = "auto"
    near_duplicates: bool = False  # keep photographs that look alike to the pore in one group
    folds: int = Field(5, ge=2, le=100)
    holdout: float = Field(0.0, ge=0, lt=0.9)  # share of the labelled rows set aside as test
    seed: int = 42


def load_dataset_config(name: str, changes: Sequence[str] = ()) -> DatasetConfig:
    """The data set config `configs/datasets/<name>.yaml`."""
    path = CONFIGS / "datasets" / f"{name}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise InputError(f"no data set '{name}': configs/datasets has {', '.join(known)}")
    return load(DatasetConfig, path, changes)
