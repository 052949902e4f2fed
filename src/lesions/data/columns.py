"""Read and check the columns of a CSV; report all problems at once, each with file and row."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lesions.data.tasks import DIAGNOSES, WORDS
from lesions.errors import InputError, listed, nearest
from lesions.files import read_csv
from lesions.paths import shown

# The columns of every source, one row an image. split: train or test; official: the publisher's own
# train, val or test; target: the file's own 0 or 1, NaN without one; width, height: pixels of the
# original. Unknown text is "".
COMMON = [
    "image_name", "source", "split", "official", "patient_id", "lesion_id", "diagnosis", "target",
    "sex", "age_approx", "site", "width", "height",
]  # fmt: skip
_NUMBERS = ["target", "age_approx", "width", "height"]

SITES = ["head/neck", "lower extremity", "oral/genital", "palms/soles", "torso", "upper extremity"]
# HAM10000's own localizations, finer than SITES, in alphabetical order.
PLACES = [
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand",
    "lower extremity", "neck", "scalp", "trunk", "upper extremity",
]  # fmt: skip
# ISIC 2019 has three sides of the torso; HAM10000's places are merged as in ISIC 2019, and the
# last five are PAD-UFES-20's.
SITE_WORDS = {site: site for site in SITES} | {
    "anterior torso": "torso", "posterior torso": "torso", "lateral torso": "torso",
    "abdomen": "torso", "back": "torso", "chest": "torso", "trunk": "torso", "ear": "head/neck",
    "face": "head/neck", "neck": "head/neck", "scalp": "head/neck", "acral": "palms/soles",
    "foot": "lower extremity", "hand": "upper extremity", "genital": "oral/genital",
    "arm": "upper extremity", "forearm": "upper extremity", "thigh": "lower extremity",
    "nose": "head/neck", "lip": "head/neck",
}  # fmt: skip
SEX_WORDS = {"male": "male", "female": "female", "m": "male", "f": "female"}
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "": "",
}  # fmt: skip
OLDEST = 120
_RANGES = {
    "age_approx": (0, OLDEST, "years"), "width": (0, 1_000_000, "pixels"),
    "height": (0, 1_000_000, "pixels"), "tfrecord": (-1, 1_000, "a number"),
}  # fmt: skip
# The table's columns (part: a fold or a split), and what published files call them: the first that
# is there is read. A target of one's own may be empty; it becomes `target`.
NAMES = {
    "image_name": ["image_name", "isic_id", "image_id", "img_id", "image", "filename", "file_name",
                   "file", "path"],
    "diagnosis": ["diagnosis", "dx", "diagnostic", "diagnosis_3"],
    "own_target": ["target", "melanoma", "malignant", "mel"],
    "patient_id": ["patient_id", "patient"],
    "lesion_id": ["lesion_id", "lesion"],
    "age_approx": ["age_approx", "age", "age_approximate"],
    "sex": ["sex", "gender"],
    "site": ["site", "anatom_site_general", "anatom_site_general_challenge", "localization",
             "region"],
    "part": ["fold", "split", "partition", "set", "kfold", "tfrecord"],
}  # fmt: skip
MISSING = ("", "unknown", "nan", "na", "n/a", "none", "null")


class Report:
    """Problems of the input, to be reported all at once; a `strict` report raises the first."""

    def __init__(self, strict: bool = False):
        self.problems: list[str] = []
        self.notes: list[str] = []  # what was read as missing, set aside or renamed
        self.strict = strict

    def problem(self, where: Path | str, what: str) -> None:
        self.add(f"{shown(where)}: {what}")

    def add(self, line: str) -> None:
        if self.strict:
            raise InputError(line)
        self.problems.append(line)

    def rows(self, path: Path, values: pd.Series, wrong: ArrayLike, expected: str) -> None:
        """Add the rows of the file where `wrong` is true as one problem; the header is row 1."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            found = listed([repr(value) for value in pd.unique(values.iloc[rows])])
            self.problem(path, f"row {listed(rows + 2)}: {values.name} is {found}: {expected}")


def find_columns(raw: pd.DataFrame) -> dict[str, str]:
    """Which of NAMES a CSV has, and what it calls them; case does not count."""
    there = {str(name).lower(): str(name) for name in raw}
    first = {ours: next(filter(there.get, names), "") for ours, names in NAMES.items()}
    return {ours: there[name] for ours, name in first.items() if name}


def read_columns(
    report: Report, path: Path, columns: Mapping[str, str], diagnoses: Mapping[str, str] = WORDS
) -> pd.DataFrame:
    """The columns of a CSV, checked and renamed by `check_columns`; no rows if it is missing."""
    raw = pd.DataFrame(columns=[*{*columns.values()}], dtype=str)
    try:
        if not path.exists():
            report.problem(path, "no such file: input/README.md says where it comes from")
        elif (raw := read_csv(path, text=None).fillna("")).empty:
            report.problem(path, "has no rows")
    except InputError as error:
        report.add(str(error))
    return check_columns(report, path, raw, columns, diagnoses)


def check_columns(
    report: Report, path: Path, raw: pd.DataFrame, columns: Mapping[str, str],
    diagnoses: Mapping[str, str],
) -> pd.DataFrame:  # fmt: skip
    """The columns of text `raw`, parsed and renamed: `columns` maps the table's names to its own.

    Wrong values become missing ones, so that the rest is still checked. No rows if a column is
    missing. Rows are numbered as in the file, whose header is row 1.
    """
    missing = {*columns.values()} - {*raw.columns}
    for own in sorted(missing):
        hint = nearest(own, raw.columns)
        report.problem(path, f"no column '{own}'{hint}: it has {', '.join(raw.columns)}")
    found = {}
    for name, own in columns.items():
        if own in missing:
            continue
        if f"{own}.1" in raw:
            report.problem(path, f"two columns are called '{own}': rename one")
        cells = raw[own].str.strip()
        found[name], wrong, expected = _parse(name, cells, diagnoses)
        strange = cells[wrong].value_counts()
        if expected:
            report.rows(path, cells, wrong, expected)
        elif len(strange):
            counts = listed(f"{word!r} ({rows:,} rows)" for word, rows in strange.items())
            report.notes.append(f"{shown(path)}: {own} {counts} not known: read as missing")
        control = cells.str.contains(r"[\x00-\x1f\x7f]").astype(bool)
        report.rows(path, cells, control, "a line break or control character, which no file keeps")
    if "image_name" in found:
        names, alike = found["image_name"], raw.duplicated(keep=False)
        again = names.duplicated(keep=False) & (names != "")
        for how, wrong in ("the same row", again & alike), ("rows that differ", again & ~alike):
            if wrong.any():
                where, whose = listed(np.flatnonzero(wrong) + 2), listed(names[wrong].unique())
                own = f"{columns['image_name']} {whose}"
                report.problem(path, f"row {where}: {how} for {own}: keep one row an image")
    rows = pd.DataFrame(columns=[*columns], dtype=object) if missing else pd.DataFrame(found)
    return rows.rename(columns={"own_target": "target"})


def _parse(
    name: str, cells: pd.Series, diagnoses: Mapping[str, str]
) -> tuple[pd.Series, pd.Series, str]:
    """The values of the column `name`, which cells are wrong, and what is expected; "": missing."""
    text = cells.mask(cells.str.lower().isin(MISSING), "")
    if name == "image_name":  # of paths the folders stay, with /, for image_paths and short_names
        names = cells.str.normalize("NFC").str.replace("\\", "/")
        names = names.str.replace(r"^(\./)+", "", regex=True)
        names = names.str.replace(r"\.(jpe?g|png|webp|tiff?|bmp)$", "", case=False, regex=True)
        return names, names == "", "every row is one image"
    if name in ("diagnosis", "official"):
        found = cells.str.lower().map(diagnoses if name == "diagnosis" else SPLIT_WORDS)
        ours = ", ".join(DIAGNOSES)
        hint = f"not a diagnosis: under `diagnoses` of a generic source, say which it is ({ours})"
        said = hint if name == "diagnosis" else "expected train, val or test"
        return found.fillna(""), found.isna(), said
    if name in ("sex", "site"):
        found = text.str.lower().map(SEX_WORDS if name == "sex" else SITE_WORDS).fillna("")
        return found, (found == "") & (text != ""), ""
    if name in ("target", "own_target"):  # a table of one's own may have rows without a label
        numbers = pd.to_numeric(cells, errors="coerce").astype(float)
        known = numbers.isin([0, 1])
        if name == "target":
            return numbers, ~known, "expected 0 or 1"
        return numbers, ~known & (cells != ""), "expected 0, 1 or nothing"
    if name in _RANGES:
        least, most, unit = _RANGES[name]
        numbers = pd.to_numeric(text.mask(text == ""), errors="coerce").astype(float)
        wrong = (text != "") & ~numbers.between(least, most)
        return numbers, wrong, f"expected {unit}, {least} to {most:,}, or nothing"
    if name in ("patient_id", "lesion_id"):  # -1 is unknown, as in Deotte's files
        text = text.str.normalize("NFC").replace(["-1", "-1.0"], "")
    return text, text.isna(), ""


def common_rows(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table with the columns COMMON, and `localization` if it has it; missing text is ""."""
    own = [name for name in ("localization",) if name in table]
    rows = table.assign(source=source).reindex(columns=[*COMMON, *own])
    text = [name for name in COMMON if name not in _NUMBERS]
    rows[text] = rows[text].astype(object).fillna("")
    rows[_NUMBERS] = rows[_NUMBERS].astype(float)
    rows["split"] = rows["split"].mask(rows["split"] == "", "train")
    return rows
