"""Photographs of one's own: the files, and who is on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.data.columns import MISSING, OLDEST, SEX_WORDS, SITE_WORDS, SITES
from lesions.data.metadata import NOTHING
from lesions.data.photographs import SUFFIXES, images_below
from lesions.errors import InputError, listed, nearest
from lesions.files import read_csv

MASKS = ("_superpixels", "_segmentation")  # how the ISIC Archive names maps of a photograph


@dataclass(frozen=True)
class Patient:
    """Who was photographed, as far as it is known.

    Words may be those of the published tables: M, "posterior torso", NA or nothing for unknown.
    InputError, with the words that are understood, for any other. `place` is the site's own word,
    which HAM10000's runs read.
    """

    age: float | str | None = None
    sex: str | None = None
    site: str | None = None
    place: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        given = (str(word or "").strip().lower() for word in (self.sex, self.site))
        sex, place = ("" if word in MISSING else word for word in given)
        if sex and sex not in SEX_WORDS:
            raise InputError(f"sex '{self.sex}': give female or male, or leave it out")
        if place and place not in SITE_WORDS:
            raise InputError(f"site '{self.site}': give one of {', '.join(SITES)}, or leave it out")
        try:
            years = "" if self.age is None else str(self.age).strip().lower()
            age = None if years in MISSING else float(years)
        except ValueError:
            age = -1.0
        if age is not None and not 0 <= age <= OLDEST:
            raise InputError(f"age '{self.age}': give years, 0 to {OLDEST}, or leave it out")
        known = {"age": age, "sex": SEX_WORDS.get(sex), "site": SITE_WORDS.get(place)}
        vars(self).update(known, place=place or None)

    def row(self, photo: Path | bytes) -> pd.DataFrame:
        """The table row of a photograph, a file or its content, of this person."""
        size = len(photo) if isinstance(photo, bytes) else photo.stat().st_size
        words = {"sex": self.sex, "site": self.site, "localization": self.place}
        given = {name: word for name, word in words.items() if word}
        age = np.nan if self.age is None else self.age
        return pd.DataFrame([NOTHING | given | {"age_approx": age, "bytes": float(size)}])


def find_photos(places: Sequence[str | Path]) -> list[Path]:
    """The named files, and every photograph below the named folders, in order, each once.

    Hidden files, such as macOS's ._photo.jpg, and the ISIC Archive's masks are skipped in folders.
    InputError for a place that does not exist, or a folder without a photograph.
    """
    found: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.exists():
            raise InputError(f"{place}: no such file or folder")
        if not place.is_dir():
            found[place] = None
            continue
        root = place.resolve()
        inside = [place / Path(path).relative_to(root) for path in images_below(place)]
        if masks := [path.name for path in inside if path.stem.endswith(MASKS)]:
            print(f"note: skipped {len(masks):,} masks below {place}: {listed(masks, 3)}")
        photos = [path for path in inside if not path.stem.endswith(MASKS)]
        if not photos:
            raise InputError(f"{place}: no photographs below it ({', '.join(SUFFIXES)})")
        found |= dict.fromkeys(photos)
    return list(found)


def read_patients(path: Path, photos: Sequence[Path]) -> dict[Path, Patient]:
    """Who is on each photograph, of a CSV with image_name, age, sex and site; empty is unknown.

    A name is that of the file, with or without folder and suffix. InputError for a name that is of
    none of the photographs or of several, a doubled one, or a word that is not understood.
    """
    table = read_csv(path, ["image_name", "age", "sex", "site"], text=None).fillna("")
    found: dict[Path, Patient] = {}
    for name, age, sex, site in table[["image_name", "age", "sex", "site"]].itertuples(index=False):
        meant = [photo for photo in photos if name in (str(photo), photo.name, photo.stem)]
        if len(meant) != 1 or meant[0] in found:
            hint = nearest(name, [photo.name for photo in photos])
            of = f"it means {listed(meant)}" if meant else f"no such photograph{hint}"
            twice = "a second row of it" if len(meant) == 1 else of
            raise InputError(f"{path}: image_name {name}: {twice}: give each photograph's own name")
        try:
            found[meant[0]] = Patient(age, sex, site)
        except InputError as error:
            raise InputError(f"{path}: image_name {name}: {error}") from error
    return found
