"""Read anybody's folds or split: one CSV with a column of it, or one file a part."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lesions.data.columns import SPLIT_WORDS
from lesions.data.tasks import WORDS
from lesions.errors import InputError, listed, nearest
from lesions.files import read_csv
from lesions.paths import shown

# What others call our columns; the first one found is read.
NAMES = {
    "image_name": [
        "image_name",
        "image_id",
        "image",
        "isic_id",
        "filename",
        "file_name",
        "file",
        "path",
    ],
    "part": ["fold", "split", "partition", "set", "kfold", "tfrecord"],
    "patient_id": ["patient_id", "patient"],
    "lesion_id": ["lesion_id", "lesion"],
    "target": ["target", "MEL", "melanoma"],
    "diagnosis": ["diagnosis", "dx"],
}
IDS = ["patient_id", "lesion_id", "target"]
SUFFIX = r"\.(jpe?g|png|webp|tiff?|bmp)$"


def read_split(
    paths: Sequence[Path], tables: Sequence[Path], image: str | None, fold: str | None
) -> pd.DataFrame:
    """One row an image and part: image_name, part, patient_id, lesion_id, target, group ("").

    `part` is a fold's number or train, val or test; "" is left out: no word, or a number below 0.
    Without a column of it each file is a part, by its name. `fold` may end in %5: the number modulo
    5. Ids and targets are looked up in `tables` where the file itself has none.
    """
    column, _, modulo = (fold or "").partition("%")
    found = []
    for path in paths:
        raw = read_csv(path, text=None).fillna("")
        name = _own(raw, "part", column, path, needed=len(paths) == 1)
        rows = _identified(raw, path, image or "")
        found.append(rows.assign(part=raw[name] if name else path.stem))
    split = pd.concat(found, ignore_index=True)
    split["part"] = _parts(split["part"].str.strip(), modulo)
    for path in tables:
        raw = read_csv(path, text=None).fillna("")
        more = _identified(raw, path, image if image and image in raw else "")
        more = more[more["image_name"] != ""].drop_duplicates("image_name").set_index("image_name")
        if not split["image_name"].isin(more.index).any():
            names = listed(split["image_name"], 2)
            raise InputError(f"{shown(path)}: has none of the images ({names}): --image-column?")
        for name in IDS:
            known = split["image_name"].map(more[name]).fillna("")
            split[name] = split[name].mask(split[name] == "", known)
    split["target"] = pd.to_numeric(split["target"], errors="coerce")
    return split.assign(group="")


def _identified(raw: pd.DataFrame, path: Path, image: str) -> pd.DataFrame:
    """image_name, without folders and suffix, and the ids and target as text, "" if not known."""
    own = _own(raw, "image_name", image, path, needed=True)
    names = raw[own].str.replace("\\", "/").str.rpartition("/")[2].str.strip()
    rows = pd.DataFrame({"image_name": names.str.replace(SUFFIX, "", case=False, regex=True)})
    for name in IDS:
        column = _own(raw, name, "", path)
        rows[name] = raw[column].replace(["-1", "-1.0"], "") if column else ""
    diagnosis = _own(raw, "diagnosis", "", path)
    if diagnosis:
        words = raw[diagnosis].str.strip().str.lower().map(WORDS)
        known = (words == "mel").astype(int).astype(str).where(words.notna(), "")
        rows["target"] = rows["target"].mask(rows["target"] == "", known)
    return rows


def _own(raw: pd.DataFrame, name: str, given: str, path: Path, needed: bool = False) -> str | None:
    """The file's own column of ours; InputError for a given one that is not there."""
    own = given or next((known for known in NAMES[name] if known in raw), None)
    if own in raw or not (given or needed):
        return own
    option = "--fold-column" if name == "part" else "--image-column"
    columns = [str(column) for column in raw]
    hint = nearest(given, columns)
    said = f"no column '{given}'{hint}" if given else f"none of {', '.join(NAMES[name])}"
    raise InputError(f"{shown(path)}: {said}: name one with {option}: it has {', '.join(columns)}")


def _parts(cells: pd.Series, modulo: str) -> pd.Series:
    """Folds as "0", "1", ..., or the words train, val and test, found in file names too."""
    numbers = pd.to_numeric(cells, errors="coerce")
    if numbers[cells != ""].notna().all():
        if modulo:
            numbers = (numbers % int(modulo)).where(numbers >= 0)
        return numbers.where(numbers >= 0).map("{:.0f}".format, na_action="ignore").fillna("")
    words = cells.str.lower().str.extract(r"(train|val|test)", expand=False)
    found = cells.str.lower().map(SPLIT_WORDS).fillna(words)
    if found.isna().any():
        raise InputError(
            f"parts {listed(cells[found.isna()].unique())}: expected fold numbers, or train, val"
            " and test; name another --fold-column"
        )
    return found
