"""Can the folds be believed: links across folds, balance, and the scores of models without pixels.

The gate follows every link from the ids themselves, not from the groups that were made of them: a
check that trusts what it checks proves nothing. In ISIC 2020 the size of a photograph and the
number of photographs of a patient tell clinics apart, and clinics differ in their share of
melanomas; a network finds the same in the pixels.
"""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lesions.errors import InputError
from lesions.evaluation.intervals import Interval, delong
from lesions.evaluation.links import KINDS, build_links, exposures, reach, scored

AGES = [-np.inf, 30, 45, 60, 75, np.inf]
AGE_NAMES = ["under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over"]
COMMON_SIZES = 8
CLINICAL, COUNT, SIZE = ["age_approx", "sex", "site"], ["images_per_patient"], ["width", "height"]
FEATURES = {
    "age, sex, site": CLINICAL,
    "images per patient": COUNT,
    "width, height": SIZE,
    "all of these": [*CLINICAL, *COUNT, *SIZE],
    "source alone": ["source"],
}
CATEGORIES = ("sex", "site", "source")


def audit(table: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Any]:
    """Gate, overlap, balance and shortcuts of a table with folds, ready for JSON.

    `pairs` lists photographs known as duplicates (image_name_1, image_name_2). InputError if no row
    is in a fold.
    """
    part = parts(table)
    if not scored(part).any():
        raise InputError("no row of the table is in a fold: run scripts/prepare.py again")
    links = build_links(table, pairs)
    problems, counts = find_problems(table, links, part), count_links(table, links, part)
    scores = score_shortcuts(table)
    defined = scores["auc"].notna()
    return {
        "gate": {
            "passed": not problems,
            "problems": problems,
            "links": counts.to_dict("records"),
        },
        "overlap": overlap(reach(links, part)).to_dict("records"),
        "balance": balance(table, part),
        "shortcuts": scores[defined].drop(columns="reason").to_dict("records"),
        "not_scored": scores.loc[~defined, ["features", "source", "reason"]].to_dict("records"),
    }


def parts(table: pd.DataFrame) -> pd.Series:
    """Where each row is used: its fold as text, "test", or "" for one that is set aside.

    "-1" are rows that a published split trains on and never scores.
    """
    train = table["fold"].astype(int).astype(str).where(table["split"] == "train", "")
    return train.mask(table["split"] == "test", "test")


def count_links(table: pd.DataFrame, links: pd.DataFrame, part: pd.Series) -> pd.DataFrame:
    """A row a kind: links, images, straddling links, and images exposed by them (`exposures`)."""
    by_kind = reach(links, part).groupby("kind")
    counts = by_kind.agg(
        links=("id", "size"), images=("images", "sum"), straddling=("straddling", "sum")
    )
    seen = exposures(table, links, part).set_index("kind")[["exposed", "positives_exposed"]]
    return counts.join(seen).reindex(KINDS).fillna(0).astype(int).reset_index()


def find_problems(table: pd.DataFrame, links: pd.DataFrame, part: pd.Series) -> list[str]:
    """Why these folds must not be trained on, a sentence each; empty if they may."""
    broken = reach(links, part).query("straddling").groupby("kind")["id"].agg(["size", "first"])
    broken = broken.loc[[kind for kind in KINDS if kind in broken.index]]
    torn = [f"{kind} {count:,} (such as {first})" for kind, count, first in broken.itertuples()]
    problems = [f"in two folds, or in a fold and the test rows: {', '.join(torn)}"] if torn else []
    groups = links.assign(group=table["group"].to_numpy()[links["row"]])
    joined = groups.groupby(["kind", "id"])["group"].nunique().loc[lambda count: count > 1]
    if len(joined):
        example = " ".join(joined.index[0])
        problems.append(f"{len(joined):,} links join images of different groups ({example})")
    unlabelled = ~part.isin(["", "test"]) & table["target"].isna()
    if unlabelled.any():
        problems.append(f"{unlabelled.sum():,} training rows have no target")
    return problems


def overlap(reached: pd.DataFrame) -> pd.DataFrame:
    """The links of `reach` between training and test rows: a row a kind, images on both sides."""
    shared = reached[(reached["test"] > 0) & (reached["test"] < reached["images"])]
    sums = shared.assign(shared=1, train=shared["images"] - shared["test"]).groupby("kind")
    found = sums[["shared", "train", "test"]].sum().reindex(KINDS, fill_value=0).reset_index()
    return found.rename(columns={"train": "train_images", "test": "test_images"})


def balance(table: pd.DataFrame, part: pd.Series) -> dict[str, Any]:
    """How alike the folds are: sizes, and of each feature's values the share in every fold.

    `largest` holds, relative to the mean of the folds, the largest distance of a fold's size and
    of its share of melanomas, and in points that of each feature's shares from the whole's.
    """
    folds = sorted(set(part) - {"", "test", "-1"}, key=int)
    by_fold = table.groupby(part)
    known = pd.DataFrame({"rows": by_fold.size(), "positives": by_fold["target"].sum()}).loc[folds]
    rows, rate = known["rows"], known["positives"] / known["rows"]
    known = known.assign(positive_share=rate, groups=by_fold["group"].nunique())
    known.insert(0, "fold", known.index.astype(int))
    shares = _shares(table, part, folds)
    distance = shares[folds].sub(shares["all"], axis=0).abs().max(axis=1)
    features = 100 * distance.groupby(shares["feature"], sort=False).max()
    return {
        "folds": known.astype({"positives": int}).to_dict("records"),
        "largest": {
            "rows": float((rows / rows.mean() - 1).abs().max()),
            "positive_share": float((rate / rate.mean() - 1).abs().max()) if rate.any() else 0.0,
            "points": features.to_dict(),
        },
        "shares": shares.astype(object).where(shares.notna(), None).to_dict("records"),
    }


def _shares(table: pd.DataFrame, part: pd.Series, folds: list[str]) -> pd.DataFrame:
    """Columns feature, value, all, one for each fold, test: the value's share of those rows."""
    known = table[["width", "height"]].notna().all(axis=1)
    sides = table[["width", "height"]].fillna(0).astype(int).astype(str)
    size = (sides["width"] + " x " + sides["height"]).where(known, "")
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


def score_shortcuts(table: pd.DataFrame) -> pd.DataFrame:
    """Out-of-fold AUC without pixels by feature set, on all rows and within each source.

    Columns features, source ("all" or a source), auc, low, high, rows, positives, reason (why a
    score or its interval is not defined). A source's model is trained on that source alone, in the
    table's own folds; intervals are over groups (DeLong).
    """
    rows = table[(table["split"] == "train") & table["target"].notna()]
    sources = [("all", rows)]
    if rows["source"].nunique() > 1:
        sources += [(str(name), part) for name, part in rows.groupby("source", sort=True)]
    import sklearn.ensemble  # noqa: F401 - a limit holds for libraries that are loaded

    found = []
    with threadpool_limits(1, "openmp"):  # threads of one fit wait for each other at every leaf
        for (source, part), features in product(sources, FEATURES):
            if features == "source alone" and (source != "all" or len(sources) == 1):
                continue
            held = (part["fold"] >= 0).to_numpy()
            target, groups = part["target"][held], part["group"][held]
            prob, reason = predict_without_pixels(part, FEATURES[features])
            auc = Interval(reason=reason) if reason else delong(target, prob[held], groups)
            rows_of = {"rows": len(target), "positives": int((target == 1).sum())}
            found.append({"features": features, "source": source, **rows_of, **auc.as_json()})
    columns = ["features", "source", "auc", "low", "high", "rows", "positives", "reason"]
    return pd.DataFrame(found).rename(columns={"value": "auc"}).reindex(columns=columns)


def predict_without_pixels(rows: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, str | None]:
    """Out-of-fold P(target = 1) (N,) of gradient-boosted trees on `columns` of labelled rows.

    NaN for rows of fold -1, which are trained on alone, and for all where no model can be fitted,
    for the reason that is given. Trees of 8 leaves with at least 50 rows each: larger ones learn
    ISIC 2020's 584 melanomas by heart and score 0.02 lower; three times as many steps of a third of
    the length change none by more than 0.003.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    fold, target = rows["fold"].to_numpy(), rows["target"].to_numpy()
    inputs = pd.DataFrame({name: _encoded(rows[name]) for name in columns})
    prob = np.full(len(rows), np.nan)
    if (inputs.nunique() < 2).all():
        known = inputs.notna().any(axis=None)
        return prob, "the same in every row" if known else "not known for any row"
    for held in np.unique(fold[fold >= 0]):
        train, valid = inputs[fold != held], inputs[fold == held]
        usable = [name for name in columns if train[name].notna().any()]
        if not usable:
            return prob, f"not known for any row without fold {held}"
        if len(np.unique(target[fold != held])) < 2:
            return prob, f"one class only without fold {held}"
        model = HistGradientBoostingClassifier(
            learning_rate=0.15,
            max_iter=50,
            max_leaf_nodes=8,
            min_samples_leaf=50,
            l2_regularization=1.0,
            categorical_features=[name in CATEGORIES for name in usable],
            early_stopping=False,
            random_state=0,
        )
        model.fit(train[usable], target[fold != held])
        prob[fold == held] = model.predict_proba(valid[usable])[:, 1]
    return prob, None


def _encoded(values: pd.Series) -> pd.Series:
    """The column as numbers, NaN where nothing is known; texts by their alphabetical rank."""
    if values.name not in CATEGORIES:
        return values.astype(float)
    codes = pd.Series(pd.Categorical(values.replace("", np.nan)).codes, values.index, dtype=float)
    return codes.where(codes >= 0)
