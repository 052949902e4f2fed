"""Where the photographs of a source lie: folders, folders by class, or the archive as it came."""

import os
from pathlib import Path

import pandas as pd

from lesions.data.archives import unpacked
from lesions.data.columns import Report
from lesions.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")

# Below a source's folder, as its archive unpacks, or the archive itself: split -> places.
PLACES: dict[str, dict[str, list[str]]] = {
    "isic2017": {"train": ["ISIC-2017_Training_Data", "images", "ISIC-2017_Training_Data.zip"]},
    "isic2018": {"train": ["ISIC2018_Task3_Training_Input", "ISIC2018_Task3_Validation_Input",
                           "images", "ISIC2018_Task3_Training_Input.zip",
                           "ISIC2018_Task3_Validation_Input.zip"]},
    "isic2019": {"train": ["ISIC_2019_Training_Input", "images",
                           "ISIC_2019_Training_Input.zip"]},
    "isic2020": {"train": ["jpeg/train", "train", "ISIC_2020_Training_JPEG.zip"],
                 "test": ["jpeg/test", "test", "ISIC_2020_Test_JPEG.zip"]},
    "ham10000": {"train": ["HAM10000_images_part_1", "HAM10000_images_part_2", "images",
                           "HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip"]},
    "dermamnist": {"train": ["*.npz"]},
    "deotte": {"train": ["jpeg-melanoma-*/train", "jpeg-isic2019-*/train", "train"],
               "test": ["jpeg-melanoma-*/test", "test"]},
    "generic": {"train": [""]},
}  # fmt: skip


def image_paths(
    table: pd.DataFrame, reader: str, folder: Path, given: list[Path], report: Report, unpack: bool
) -> pd.Series:
    """The file of each row, by name: in the given folders or zips, else the source's own; or "".

    An image further down, such as one folder a diagnosis, counts; a suffix counts in any case.
    Zips are unpacked if `unpack`, and passed over if not. The first place that has an image wins.
    """
    paths = pd.Series("", index=table.index, dtype=object)
    for place in given:
        if not place.exists():
            report.problem(place, "no such image folder or archive")
    places = PLACES.get(reader, PLACES["generic"])
    for split, own in places.items():
        searched = given or [path for name in own for path in _matching(folder, name)]
        found: dict[str, str] = {}
        for place in searched:
            if place.suffix in (".zip", ".npz"):
                if not unpack or not place.is_file():
                    continue
                try:
                    place = unpacked(place, SUFFIXES)
                except InputError as error:
                    report.add(str(error))
                    continue
            for stem, path in _images_below(place).items():
                found.setdefault(stem, path)
        rows = table["split"] == split if len(places) > 1 else table["split"] != ""
        here = table.loc[rows, "image_name"]
        paths.update(pd.Series([found.get(name, "") for name in here], here.index, dtype=object))
    return paths


def _matching(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(name)) if name else [folder]


def _images_below(place: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder, inner, files in os.walk(place.resolve()):
        inner.sort()
        for name in sorted(files):
            stem, dot, suffix = name.rpartition(".")
            if f"{dot}{suffix}".lower() in SUFFIXES:
                found.setdefault(stem, f"{folder}/{name}")
    return found
