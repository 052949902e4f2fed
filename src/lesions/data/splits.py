"""Read anybody's folds or split: one CSV with a column of it, or one file a part."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lesions.data.columns import NAMES, find_columns
from lesions.data.tasks import WORDS
from lesions.errors import InputError, listed, nearest
from lesions.files import read_csv
from lesions.paths import shown

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
        named = column or len(paths) == 1 or "part" in find_columns(raw)
        part = raw[_own(raw, "part", column, path)] if named else path.stem
        found.append(_identified(raw, path, image or "").assign(part=part))
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
    return split.assign(target=pd.to_numeric(split["target"], errors="coerce"), group="")


def _identified(raw: pd.DataFrame, path: Path, image: str) -> pd.DataFrame:
    """image_name, without folders and suffix, and the ids and target as text, "" if not known."""
    names = raw[_own(raw, "image_name", image, path)].str.replace("\\", "/")
    names = names.str.rpartition("/")[2].str.strip()
    rows = pd.DataFrame({"image_name": names.str.replace(SUFFIX, "", case=False, regex=True)})
    columns = find_columns(raw)
    for name in IDS:
        column = columns.get("own_target" if name == "target" else name)
        rows[name] = raw[column].replace(["-1", "-1.0"], "") if column else ""
    if "diagnosis" in columns:
        words = raw[columns["diagnosis"]].str.strip().str.lower().map(WORDS)
        known = (words == "mel").astype(int).astype(str).where(words.notna(), "")
        rows["target"] = rows["target"].mask(rows["target"] == "", known)
    return rows


def _own(raw: pd.DataFrame, name: str, given: str, path: Path) -> str:
    """What the file calls one of NAMES; InputError where it has none, or not the given one."""
    own = given or find_columns(raw).get(name)
    if own in raw:
        return str(own)
    option = "--fold-column" if name == "part" else "--image-column"
    columns = [str(column) for column in raw]
    wanted = f"'{given}'{nearest(given, columns)}" if given else listed(NAMES[name], 9)
    raise InputError(f"{shown(path)}: no column {wanted}: name one with {option}: it has"
                     f" {', '.join(columns)}")  # fmt: skip


def _parts(cells: pd.Series, modulo: str) -> pd.Series:
    """Folds as "0", "1", ..., or the words train, val and test, found in file names too."""
    numbers = pd.to_numeric(cells, errors="coerce")
    if numbers[cells != ""].notna().all():
        if modulo:
            numbers = (numbers % int(modulo)).where(numbers >= 0)
        return numbers.where(numbers >= 0).map("{:.0f}".format, na_action="ignore").fillna("")
    found = cells.str.lower().str.extract("(train|val|test|^$)", expand=False)
    if found.isna().any():
        raise InputError(
            f"parts {listed(cells[found.isna()].unique())}: expected fold numbers, or train, val"
            " and test; name another --fold-column"
        )
    return found
