"""Encode table rows as the input of the metadata branch."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lesions.config import DataConfig
from lesions.data.columns import PLACES, SITES
from lesions.errors import InputError

COLUMNS = {
    "none": [],
    "clinical": ["sex", "age", *SITES, "site unknown"],
    # The two further columns reveal the year of a photograph, and 2019 has ten times the share of
    # melanomas of 2020: they raise a merged score without looking at the skin.
    "full": ["sex", "age", "log images per patient", "log bytes", *SITES, "site unknown"],
    # One-hot without the first level, as in HAM10000's systems: a woman's abdomen is all zeros.
    "ham10000": ["age/100", "male", "sex unknown", *PLACES[1:], "place unknown"],
}

UNKNOWN = -1.0  # of sex and age: neither a woman's 0 nor a newborn's

# By data.metadata, the table's columns that are encoded, and the COLUMNS that each becomes.
CLINICAL = {"sex": ["sex"], "age_approx": ["age"], "site": [*SITES, "site unknown"]}
FIELDS: dict[str, dict[str, list[str]]] = {
    "none": {},
    "clinical": CLINICAL,
    "full": CLINICAL | {"images_per_patient": ["log images per patient"], "bytes": ["log bytes"]},
    "ham10000": {
        "sex": ["male", "sex unknown"],
        "age_approx": ["age/100"],
        "localization": [*PLACES[1:], "place unknown"],
    },
}
# What they hold where nothing is known.
NOTHING: dict[str, Any] = {
    "sex": "", "age_approx": np.nan, "site": "", "images_per_patient": np.nan, "bytes": np.nan,
    "localization": "",
}  # fmt: skip

# What a person is asked, by the table's column.
PERSON = {"age_approx": "age", "sex": "sex", "site": "site", "localization": "site"}
# How much of it may be given, and the table's columns that are then unknown.
GIVEN: dict[str, tuple[str, ...]] = {
    "all": (),
    "age and sex": ("site", "localization", "images_per_patient"),
    "nothing": ("age_approx", "sex", "site", "localization", "images_per_patient"),
}


@dataclass(frozen=True)
class Blanks:
    """How unknown metadata are encoded, and how often training blanks them.

    Who is examined without age, sex and site differs by data set: a network that learns it calls
    every lesion benign whose metadata are not given.
    """

    share: float  # of rows without any metadata; of 3/4 of it each field is blanked alone
    fields: dict[str, list[int]]  # the encoded columns of each field
    blank: np.ndarray  # a row of which nothing is known, float32 (C,)

    def drop(self, metadata: np.ndarray, seeds: Iterable[int]) -> np.ndarray:
        """A copy of encoded rows (N, C), blanked as each row's own seed decides."""
        metadata = metadata.copy()
        for row, seed in zip(metadata, seeds, strict=True):
            whole, *each = np.random.default_rng(seed).random(1 + len(self.fields))
            if whole < self.share:
                row[:] = self.blank
            for columns, drawn in zip(self.fields.values(), each, strict=True):
                if drawn < 0.75 * self.share:
                    row[columns] = self.blank[columns]
        return metadata

    def missing(self, metadata: np.ndarray) -> list[str]:
        """Which of age, sex and site an encoded row (C,) lacks, of those that it has columns of."""
        same = metadata == self.blank
        return [PERSON[field] for field in PERSON if field in self.fields
                and same[self.fields[field]].all()]  # fmt: skip

    def filled(self, metadata: np.ndarray, people: np.ndarray) -> np.ndarray:
        """Encoded rows (N, C), unknown fields as each of some people (S, C) has them: (S, N, C)."""
        found = np.repeat(metadata[None], len(people), axis=0)
        for columns in (self.fields[field] for field in PERSON if field in self.fields):
            rows = (metadata[:, columns] == self.blank[columns]).all(axis=1)
            found[np.ix_(range(len(people)), rows, columns)] = people[:, None, columns]
        return found


def build_blanks(config: DataConfig, neutral: dict[str, float]) -> Blanks:
    """Of the metadata that `config` names; a field is called like its column of the table."""
    kind = config.metadata
    fields = {name: [*map(COLUMNS[kind].index, own)] for name, own in FIELDS[kind].items()}
    blank = encode_metadata(pd.DataFrame([NOTHING]), kind, neutral)[0]
    return Blanks(config.metadata_dropout, fields, blank)


def state_of(missing: Collection[str]) -> str:
    """Which of GIVEN is as much as a person without these fields has given."""
    return "nothing" if {*missing} - {"site"} else "age and sex" if missing else "all"


def encode_given(
    table: pd.DataFrame, kind: str, neutral: dict[str, float]
) -> dict[str, np.ndarray]:
    """What `encode_metadata` returns for each of GIVEN; without metadata for "all" alone."""
    found = {}
    for given, columns in GIVEN.items() if kind != "none" else [("all", ())]:
        unknown = {name: NOTHING[name] for name in columns if name in table}
        found[given] = encode_metadata(table.assign(**unknown), kind, neutral)
    return found


def fit_metadata(train: pd.DataFrame) -> dict[str, float]:
    """The neutral values of missing cells, from the training rows alone.

    log_images_per_patient and log_bytes are means over the rows that have them (0 if none does);
    rows_of_<place> counts the rows of each place, if the table has `localization`.
    """
    neutral = {name: float(values.mean()) if values.notna().any() else 0.0
               for name, values in _logarithms(train).items()}  # fmt: skip
    if "localization" in train:
        rows = train["localization"].value_counts()
        neutral |= {f"rows_of_{place}": float(rows.get(place, 0)) for place in PLACES}
    return neutral


def encode_metadata(table: pd.DataFrame, kind: str, neutral: dict[str, float]) -> np.ndarray:
    """float32 (N, len(COLUMNS[kind])): sex 0 female, 1 male; age in units of 90 years; 7 sites.

    For ham10000: age in units of 100 years, 14 places; a place without a training row is unknown.
    InputError for a table without `localization`.
    """
    values: dict[str, Any] = {
        "sex": table["sex"].map({"female": 0.0, "male": 1.0}).fillna(UNKNOWN),
        "age": (table["age_approx"].astype(float) / 90).fillna(UNKNOWN),
        "site unknown": ~table["site"].isin(SITES),
    } | {site: table["site"] == site for site in SITES}
    for name, logarithms in _logarithms(table).items():
        values[name.replace("_", " ")] = logarithms.fillna(neutral[name])
    if kind == "ham10000":
        if "localization" not in table:
            raise InputError(
                "data.metadata ham10000 reads HAM10000's own places of the body, and the table has"
                " no column localization: take data.metadata=clinical, or prepare the data set"
                " again from HAM10000_metadata.csv"
            )
        place, shown = table["localization"], [p for p in PLACES if neutral.get(f"rows_of_{p}")]
        values |= {
            "age/100": (table["age_approx"].astype(float) / 100).fillna(UNKNOWN),
            "male": table["sex"] == "male",
            "sex unknown": ~table["sex"].isin(["female", "male"]),
            "place unknown": ~place.isin(shown),
        } | {name: (place == name) & (name in shown) for name in PLACES}
    encoded = np.empty((len(table), len(COLUMNS[kind])), np.float32)
    for column, name in enumerate(COLUMNS[kind]):
        encoded[:, column] = values[name]
    return encoded


def _logarithms(table: pd.DataFrame) -> dict[str, pd.Series]:
    size = table["bytes"].astype(float)
    return {
        "log_images_per_patient": table["images_per_patient"].astype(float).map(np.log1p),
        "log_bytes": size.where(size > 0).map(np.log),
    }
