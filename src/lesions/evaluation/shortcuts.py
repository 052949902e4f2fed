"""What a model scores that sees no photograph: the floor under every score of one that does.

In ISIC 2020 the size of a photograph and the number of photographs of a patient tell clinics
apart, and clinics differ in their share of melanomas; a network finds the same in the pixels.
"""

from typing import Any

import numpy as np
import pandas as pd

from lesions.evaluation.intervals import auc_interval

CLINICAL, COUNT, SIZE = ["age_approx", "sex", "site"], ["images_per_patient"], ["width", "height"]
FEATURES = {
    "age, sex, site": CLINICAL,
    "images per patient": COUNT,
    "width, height": SIZE,
    "all of these": [*CLINICAL, *COUNT, *SIZE],
    "source alone": ["source"],
}
CATEGORIES = ("sex", "site", "source")


def score_shortcuts(table: pd.DataFrame) -> pd.DataFrame:
    """Out-of-fold AUC without pixels by feature set, on all rows and within each source.

    Columns features, source ("all" or a source), auc, low, high, rows, positives, reason (None
    where there is a score). A source's model is trained on that source alone, in the table's own
    folds; intervals are over groups.
    """
    rows = table[(table["split"] == "train") & table["target"].notna()]
    sources = [("all", rows)]
    if rows["source"].nunique() > 1:
        sources += [(str(name), part) for name, part in rows.groupby("source", sort=True)]
    records = []
    for source, part in sources:
        for features, columns in FEATURES.items():
            if features == "source alone" and (source != "all" or len(sources) == 1):
                continue
            records.append({"features": features, "source": source, **_score(part, columns)})
    return pd.DataFrame(records)


def predict_without_pixels(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Out-of-fold P(target = 1) (N,) of gradient-boosted trees on `columns` of labelled rows.

    NaN for rows of fold -1, which are trained on alone. Trees of 8 leaves with at least 50 rows
    each: larger ones learn ISIC 2020's 584 melanomas by heart and score 0.02 lower.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    fold, target = rows["fold"].to_numpy(), rows["target"].to_numpy()
    inputs = pd.DataFrame({name: _encoded(rows[name]) for name in columns})
    prob = np.full(len(rows), np.nan)
    for held in np.unique(fold[fold >= 0]):
        train, valid = inputs[fold != held], inputs[fold == held]
        usable = [name for name in columns if train[name].notna().any()]
        model = HistGradientBoostingClassifier(
            learning_rate=0.05,
            max_iter=150,
            max_leaf_nodes=8,
            min_samples_leaf=50,
            l2_regularization=1.0,
            categorical_features=[name in CATEGORIES for name in usable],
            early_stopping=False,
            random_state=0,
        )
        # Its threads wait for each other after every leaf: beside another job, for minutes.
        with threadpool_limits(1, "openmp"):
            model.fit(train[usable], target[fold != held])
            prob[fold == held] = model.predict_proba(valid[usable])[:, 1]
    return prob


def unusable(rows: pd.DataFrame, columns: list[str]) -> str | None:
    """Why no model can be fitted, in a few words; None if one can."""
    if not rows["target"].isin([0, 1]).all():
        return "target is not 0 or 1"
    if all(_encoded(rows[name]).nunique() < 2 for name in columns):
        known = any(_encoded(rows[name]).notna().any() for name in columns)
        return "the same in every row" if known else "not known for any row"
    for fold in sorted(set(rows["fold"]) - {-1}):
        train = rows[rows["fold"] != fold]
        if train["target"].nunique() < 2:
            return f"one class only without fold {fold}"
        if not any(_encoded(train[name]).notna().any() for name in columns):
            return f"not known for any row without fold {fold}"
    return None


def _score(rows: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """auc, low, high, rows, positives, reason of a feature set."""
    scored = (rows["fold"] >= 0).to_numpy()
    target = rows["target"][scored]
    counts = {"rows": len(target), "positives": int((target == 1).sum())}
    reason = unusable(rows, columns)
    if reason:
        return {"auc": None, "low": None, "high": None, **counts, "reason": reason}
    prob = predict_without_pixels(rows, columns)[scored]
    found = auc_interval(target, prob, rows["group"][scored]).as_json()
    reason = found.get("reason") if found["value"] is None else None
    bounds = {"auc": found["value"], "low": found["low"], "high": found["high"]}
    return {**bounds, **counts, "reason": reason}


def _encoded(values: pd.Series) -> pd.Series:
    """The column as numbers, NaN where nothing is known; texts by their alphabetical rank."""
    if values.name not in CATEGORIES:
        return values.astype(float)
    known = values.where(values.notna() & (values != ""))
    codes = pd.Series(pd.Categorical(known).codes, index=values.index, dtype=float)
    return codes.where(codes >= 0)
