"""Encode table rows as the input of the metadata branch."""

from typing import Any

import numpy as np
import pandas as pd

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
        values |= _ham10000(table, neutral)
    encoded = np.empty((len(table), len(COLUMNS[kind])), np.float32)
    for column, name in enumerate(COLUMNS[kind]):
        encoded[:, column] = values[name]
    return encoded


def _ham10000(table: pd.DataFrame, neutral: dict[str, float]) -> dict[str, Any]:
    if "localization" not in table:
        raise InputError(
            "data.metadata ham10000 reads HAM10000's own places of the body, and the table has no"
            " column localization: take data.metadata=clinical, or prepare the data set again from"
            " HAM10000_metadata.csv"
        )
    shown = [place for place in PLACES if neutral.get(f"rows_of_{place}")]
    return {
        "age/100": (table["age_approx"].astype(float) / 100).fillna(UNKNOWN),
        "male": table["sex"] == "male",
        "sex unknown": ~table["sex"].isin(["female", "male"]),
        "place unknown": ~table["localization"].isin(shown),
    } | {place: (table["localization"] == place) & (place in shown) for place in PLACES}


def _logarithms(table: pd.DataFrame) -> dict[str, pd.Series]:
    size = table["bytes"].astype(float)
    return {
        "log_images_per_patient": table["images_per_patient"].astype(float).map(np.log1p),
        "log_bytes": size.where(size > 0).map(np.log),
    }
