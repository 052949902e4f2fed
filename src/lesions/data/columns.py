"""Read and check the columns of a CSV; report all problems at once, each with file and row."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lesions.data.tasks import WORDS, targets
from lesions.errors import InputError, listed, nearest
from lesions.files import read_csv
from lesions.paths import shown

# The columns of every source, one row an image. split: train or test; official: the publisher's own
# train, val or test; target: 1 melanoma, 0 another diagnosis, NaN unlabelled; width, height: pixels
# of the original; tfrecord: the part of Deotte's sets. Unknown text is "".
COMMON = [
    "image_name", "source", "split", "official", "patient_id", "lesion_id", "diagnosis", "target",
    "sex", "age_approx", "site", "width", "height", "tfrecord",
]  # fmt: skip
_NUMBERS = ["target", "age_approx", "width", "height", "tfrecord"]

SITES = [
    "head/neck", "lower extremity", "oral/genital", "palms/soles", "torso", "upper extremity",
]  # fmt: skip
# HAM10000's own localizations, finer than SITES, in alphabetical order.
PLACES = [
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand",
    "lower extremity", "neck", "scalp", "trunk", "upper extremity",
]  # fmt: skip
# ISIC 2019 has three sides of the torso; HAM10000's places are merged as in ISIC 2019.
SITE_WORDS = {site: site for site in SITES} | {
    "anterior torso": "torso", "posterior torso": "torso", "lateral torso": "torso",
    "abdomen": "torso", "back": "torso", "chest": "torso", "trunk": "torso", "ear": "head/neck",
    "face": "head/neck", "neck": "head/neck", "scalp": "head/neck", "acral": "palms/soles",
    "foot": "lower extremity", "hand": "upper extremity", "genital": "oral/genital",
}  # fmt: skip
SEX_WORDS = {"male": "male", "female": "female", "m": "male", "f": "female"}
OLDEST = 120
MISSING = ("", "unknown", "nan", "na", "n/a", "none", "null")


class Report:
    """The problems of the input, collected to be reported at once.

    A strict report raises InputError at the first problem instead.
    """

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


def read_columns(report: Report, path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The file's columns, parsed and renamed; `columns` maps the table's name to the file's.

    PARSERS checks a column by the table's name; others are text. Wrong values become missing ones,
    so that the rest is still checked. No rows if the file or a column is missing.
    """
    table = pd.DataFrame(columns=list(columns), dtype=object)
    if not path.exists():
        report.problem(path, "no such file: input/README.md says where it comes from")
        return table
    try:
        raw = read_csv(path, text=None).fillna("")
    except InputError as error:
        report.add(str(error))
        return table
    if raw.empty:
        report.problem(path, "has no rows")
    missing = {*columns.values()} - {*raw.columns}
    for own in sorted(missing):
        hint = nearest(own, raw.columns)
        report.problem(path, f"no column '{own}'{hint}: it has {', '.join(raw.columns)}")
    found = {
        name: PARSERS.get(name, _text)(report, path, raw[own].str.strip())
        for name, own in columns.items()
        if own not in missing
    }
    for own in columns.values() if not missing else []:
        require_plain(report, path, raw[own].str.strip())
        if f"{own}.1" in raw:
            report.problem(path, f"two columns are called '{own}': rename one")
    if "image_name" in found:
        require_names(report, path, found["image_name"].rename(columns["image_name"]), raw)
    return table if missing else pd.DataFrame(found)


def common_rows(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """The table with the columns COMMON: missing numbers are NaN, missing text is "".

    A missing target follows from the diagnosis, a missing source is `source`.
    """
    rows = table.assign(source=table.get("source", source)).reindex(columns=COMMON)
    text = [name for name in COMMON if name not in _NUMBERS]
    rows[text] = rows[text].astype(object).fillna("")
    rows[_NUMBERS] = rows[_NUMBERS].astype(float)
    rows["target"] = rows["target"].fillna(targets(rows["diagnosis"], "melanoma"))
    rows["split"] = rows["split"].mask(rows["split"] == "", "train")
    return rows


def no_rows(source: str) -> pd.DataFrame:
    """The table of an unreadable file: the columns COMMON, no row."""
    return common_rows(pd.DataFrame({"image_name": pd.Series(dtype=str)}), source)


def require_plain(report: Report, path: Path, cells: pd.Series) -> None:
    """Report cells with a line break or control character."""
    control = cells.str.contains(r"[\x00-\x1f\x7f]").astype(bool)
    report.rows(path, cells, control, "a line break or control character, which no file keeps")


def require_names(report: Report, path: Path, names: pd.Series, raw: pd.DataFrame) -> None:
    """Report image names that are empty or stand in two rows of `raw`, with or without a suffix."""
    report.rows(path, names, names == "", "every row is one image")
    again, alike = names.duplicated(keep=False) & (names != ""), raw.duplicated(keep=False)
    for how, wrong in {"the same row": again & alike, "rows that differ": again & ~alike}.items():
        if wrong.any():
            report.problem(path, f"row {listed(np.flatnonzero(wrong) + 2)}: {how} for {names.name}"
                           f" {listed(names[wrong].unique())}: keep one row an image")  # fmt: skip


def _text(report: Report, path: Path, values: pd.Series) -> pd.Series:
    return values.mask(values.str.lower().isin(MISSING), "")


def _name(report: Report, path: Path, values: pd.Series) -> pd.Series:
    """Names without suffix; of paths the folders stay, with /, for image_paths and short_names."""
    names = (
        values.str.normalize("NFC").str.replace("\\", "/").str.replace(r"^(\./)+", "", regex=True)
    )
    return names.str.replace(r"\.(jpe?g|png|webp|tiff?|bmp)$", "", case=False, regex=True)


def _id(report: Report, path: Path, values: pd.Series) -> pd.Series:
    """Ids of patients and lesions: -1 is unknown, as in Deotte's files."""
    return _text(report, path, values).str.normalize("NFC").replace(["-1", "-1.0"], "")


def _number(report: Report, path: Path, values: pd.Series) -> pd.Series:
    values = _text(report, path, values)
    numbers = pd.to_numeric(values.mask(values == ""), errors="coerce").astype(float)
    wrong = (values != "") & ~np.isfinite(numbers)
    report.rows(path, values, wrong, "expected a number, or nothing")
    return numbers


def _age(report: Report, path: Path, values: pd.Series) -> pd.Series:
    years = _number(report, path, values)
    wrong = (years < 0) | (years > OLDEST)
    report.rows(path, values, wrong, f"expected years, 0 to {OLDEST}")
    return years


def _zero_or_one(report: Report, path: Path, values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    report.rows(path, values, ~numbers.isin([0, 1]), "expected 0 or 1")
    return numbers


def _diagnosis(report: Report, path: Path, values: pd.Series) -> pd.Series:
    found = values.str.lower().map(WORDS)
    unknown = "not a diagnosis of data/tasks.py: map it under `diagnoses` of a generic source"
    report.rows(path, values, found.isna(), unknown)
    return found.fillna("")


def _words(words: Mapping[str, str]) -> Callable[[Report, Path, pd.Series], pd.Series]:
    """A parser that maps words to ours; unknown words become missing and are counted in a note."""

    def parse(report: Report, path: Path, values: pd.Series) -> pd.Series:
        known = _text(report, path, values).str.lower()
        found = known.map(words).fillna("")
        strange = values[(found == "") & (known != "")].value_counts()
        if len(strange):
            counts = listed(f"{word!r} ({rows:,} rows)" for word, rows in strange.items())
            where = f"{shown(path)}: {values.name}"
            report.notes.append(f"{where} {counts} not known: read as missing")
        return found

    return parse


PARSERS: dict[str, Callable[[Report, Path, pd.Series], pd.Series]] = {
    "image_name": _name,
    "patient_id": _id,
    "lesion_id": _id,
    "target": _zero_or_one,
    "keratosis": _zero_or_one,
    "diagnosis": _diagnosis,
    "sex": _words(SEX_WORDS),
    "site": _words(SITE_WORDS),
    "age_approx": _age,
} | dict.fromkeys(("width", "height", "tfrecord"), _number)
