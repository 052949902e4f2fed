"""How alike the folds are in everything the table knows: folds that differ score differently."""

from typing import Any

import numpy as np
import pandas as pd

AGES = [-np.inf, 30, 45, 60, 75, np.inf]
AGE_NAMES = ["under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over"]
COMMON_SIZES = 8


def balance(table: pd.DataFrame, part: pd.Series) -> dict[str, Any]:
    """How alike the folds are: sizes, and of each feature's values the share in every fold.

    `largest` holds, relative to the mean of the folds, the largest distance of a fold's size and
    of its share of melanomas, and in points that of each feature's shares from the whole's.
    """
    folds = sorted(set(part) - {"", "test", "-1"}, key=int)
    train = part.isin(folds)
    by_fold = table[train].groupby(part[train])
    rows, positives = by_fold.size()[folds], (by_fold["target"].sum())[folds]
    shares = _shares(table, part, folds)
    distance = shares[folds].sub(shares["all"], axis=0).abs()
    features = {
        feature: 100 * float(rows.max(axis=1).max())
        for feature, rows in distance.groupby(shares["feature"], sort=False)
    }
    rate = positives / rows
    return {
        "folds": [
            {
                "fold": int(fold),
                "rows": int(rows[fold]),
                "positives": int(positives[fold]),
                "positive_share": float(rate[fold]),
                "groups": int(by_fold.get_group(fold)["group"].nunique()),
            }
            for fold in folds
        ],
        "largest": {
            "rows": float((rows / rows.mean() - 1).abs().max()),
            "positive_share": float((rate / rate.mean() - 1).abs().max()) if rate.any() else 0.0,
            "points": features,
        },
        "shares": shares.astype(object).where(shares.notna(), None).to_dict("records"),
    }


def _shares(table: pd.DataFrame, part: pd.Series, folds: list[str]) -> pd.DataFrame:
    """Columns feature, value, all, one for each fold, test: the value's share of those rows."""
    size = _size(table)
    common = size[part.isin(folds)].value_counts().index[:COMMON_SIZES]
    features = {
        "source": table["source"],
        "class": table["diagnosis"],
        "age": pd.cut(table["age_approx"], AGES, right=False, labels=AGE_NAMES).astype(object),
        "sex": table["sex"],
        "site": table["site"],
        "size": size.where(size.isin([*common, ""]), "other"),
    }
    found = []
    for feature, values in features.items():
        known = values.where(values.notna() & (values != ""), "not known")
        counts = pd.crosstab(known, part).reindex(columns=[*folds, "test"], fill_value=0)
        counts.insert(0, "all", counts[folds].sum(axis=1))
        totals = counts.sum()
        shares = (counts / totals.where(totals > 0)).sort_values("all", ascending=False)
        if feature == "age":
            shares = shares.reindex([*AGE_NAMES, "not known"]).dropna(how="all")
        found.append(shares.rename_axis("value").reset_index().assign(feature=feature))
    return pd.concat(found, ignore_index=True)[["feature", "value", "all", *folds, "test"]]


def _size(table: pd.DataFrame) -> pd.Series:
    """ "6000 x 4000", or "" where it is not known."""
    known = table["width"].notna() & table["height"].notna()
    width, height = (table[name].fillna(0).astype(int).astype(str) for name in ("width", "height"))
    return (width + " x " + height).where(known, "")
