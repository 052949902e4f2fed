"""Can the folds be believed: what holds images together, and whether it reaches across folds.

The gate follows every link from the ids themselves, not from the groups that were made of them:
a check that trusts what it checks proves nothing.
"""

from typing import Any

import numpy as np
import pandas as pd

from lesions.errors import InputError
from lesions.evaluation.balance import balance
from lesions.evaluation.shortcuts import score_shortcuts

KINDS = ["patient", "lesion", "photograph", "duplicate pair", "group"]


def audit(
    table: pd.DataFrame, pairs: pd.DataFrame, legacy: pd.Series | None = None
) -> dict[str, Any]:
    """Gate, overlap, balance and shortcuts of a table with folds, ready for JSON.

    `pairs` lists photographs known as duplicates (image_name_1, image_name_2). `legacy` is another
    fold for each row, NaN where that scheme leaves the row out, shown beside the table's own.
    InputError if no row is in a fold.
    """
    part = parts(table)
    if not scored(part).any():
        raise InputError("no row of the table is in a fold: run scripts/prepare.py again")
    links = build_links(table, pairs)
    schemes = {"table": check_scheme(table, links, part)}
    if legacy is not None:
        theirs = legacy.map("{:.0f}".format, na_action="ignore").fillna("")
        theirs = theirs.where(table["split"] == "train", part)
        schemes["legacy"] = check_scheme(table, links, theirs)
    problems = find_problems(table, links, part)
    scores = score_shortcuts(table)
    defined = scores["reason"].isna()
    return {
        "gate": {"passed": not problems, "problems": problems, "schemes": schemes},
        "overlap": overlap(links, part).to_dict("records"),
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


def scored(part: pd.Series) -> np.ndarray:
    """Which rows get an out-of-fold score, (N,) bool."""
    return ~part.isin(["", "test", "-1"]).to_numpy()


def build_links(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """What ties images together: columns kind, id, row (position in `table`).

    photograph: one image name, with or without ISIC 2019's `_downsampled`. Names of `pairs` that
    are not in the table tie nothing.
    """
    rows = np.arange(len(table))
    photograph = table["image_name"].str.removesuffix("_downsampled")
    ids = [table["patient_id"], table["lesion_id"], photograph, table["group"]]
    kinds = ["patient", "lesion", "photograph", "group"]
    links = [
        pd.DataFrame({"kind": kind, "id": values.to_numpy(), "row": rows})
        for kind, values in zip(kinds, ids, strict=True)
    ]
    row_of = pd.Series(rows, index=table["image_name"].to_numpy())
    row_of = row_of[~row_of.index.duplicated()]
    both = pairs[pairs.isin(set(row_of.index)).all(axis=1)]
    pair = (both["image_name_1"] + " = " + both["image_name_2"]).to_numpy()
    for name in ("image_name_1", "image_name_2"):
        there = row_of.reindex(both[name]).to_numpy()
        links.append(pd.DataFrame({"kind": "duplicate pair", "id": pair, "row": there}))
    found = pd.concat(links, ignore_index=True)
    return found[found["id"].notna() & (found["id"] != "")]


def reach(links: pd.DataFrame, part: pd.Series) -> pd.DataFrame:
    """Each link with more than one used image: kind, id, images, folds, test (images there)."""
    used = links.assign(part=part.to_numpy()[links["row"]])
    used = used[used["part"] != ""]
    used = used.assign(test=used["part"] == "test", fold=used["part"].where(used["part"] != "test"))
    found = used.groupby(["kind", "id"], sort=True).agg(
        images=("row", "nunique"), folds=("fold", "nunique"), test=("test", "sum")
    )
    return found[found["images"] > 1].reset_index()


def straddling(reached: pd.DataFrame) -> pd.DataFrame:
    """The links of `reach` that lie in two folds, or in a fold and the test rows."""
    return reached[(reached["folds"] > 1) | ((reached["folds"] > 0) & (reached["test"] > 0))]


def check_scheme(table: pd.DataFrame, links: pd.DataFrame, part: pd.Series) -> dict[str, Any]:
    """What a fold scheme does to the links: counts by kind, and images beside their own lesion."""
    reached = reach(links, part)
    broken = straddling(reached)
    return {
        "images": int(scored(part).sum()),
        "links": [
            {
                "kind": kind,
                "links": int((reached["kind"] == kind).sum()),
                "images": int(reached.loc[reached["kind"] == kind, "images"].sum()),
                "straddling": int((broken["kind"] == kind).sum()),
            }
            for kind in KINDS
        ],
        "siblings": siblings(table, links, part).to_dict("records"),
    }


def siblings(table: pd.DataFrame, links: pd.DataFrame, part: pd.Series) -> pd.DataFrame:
    """How many images are scored by a model that was trained on another image of their lesion.

    A row for "all" and each source: images and positives that are scored, those of them with such
    a sibling, lesions with several images, and those of them in two folds.
    """
    used = ~part.isin(["", "test"]).to_numpy()
    lesions = links[(links["kind"] == "lesion") & used[links["row"]]]
    fold = pd.Series(part.to_numpy()[lesions["row"]], index=lesions.index)
    by_lesion = fold.groupby(lesions["id"])
    rows = table[["source", "target"]].reset_index(drop=True)
    rows["lesion"] = pd.Series(lesions["id"].to_numpy(), index=lesions["row"])
    rows["several"], rows["exposed"] = False, False
    rows.loc[lesions["row"], "several"] = (by_lesion.transform("size") > 1).to_numpy()
    rows.loc[lesions["row"], "exposed"] = (by_lesion.transform("nunique") > 1).to_numpy()
    rows = rows[scored(part)]
    named = [("all", rows), *rows.groupby("source", sort=True)]
    return pd.DataFrame(
        {
            "source": name,
            "images": len(found),
            "images_exposed": int(found["exposed"].sum()),
            "positives": int((found["target"] == 1).sum()),
            "positives_exposed": int((found["exposed"] & (found["target"] == 1)).sum()),
            "lesions": int(found.loc[found["several"], "lesion"].nunique()),
            "lesions_straddling": int(found.loc[found["exposed"], "lesion"].nunique()),
        }
        for name, found in named
    )


def find_problems(table: pd.DataFrame, links: pd.DataFrame, part: pd.Series) -> list[str]:
    """Why these folds must not be trained on, a sentence each; empty if they may."""
    broken = (
        straddling(reach(links, part)).groupby("kind")["id"].agg(["size", "first"]).to_dict("index")
    )
    torn = [
        f"{kind} {broken[kind]['size']:,} (such as {broken[kind]['first']})"
        for kind in KINDS
        if kind in broken
    ]
    problems = [f"in two folds, or in a fold and the test rows: {', '.join(torn)}"] if torn else []
    group = table["group"].to_numpy()[links["row"]]
    groups = pd.Series(group).groupby([links["kind"].to_numpy(), links["id"].to_numpy()]).nunique()
    if (groups > 1).any():
        kind, name = groups.index[groups > 1][0]
        problems.append(
            f"{(groups > 1).sum():,} links join images of different groups ({kind} {name})"
        )
    unlabelled = ~part.isin(["", "test"]) & table["target"].isna()
    if unlabelled.any():
        problems.append(f"{unlabelled.sum():,} training rows have no target")
    return problems


def overlap(links: pd.DataFrame, part: pd.Series) -> pd.DataFrame:
    """What training and test rows share: a row a kind, with the images on both sides."""
    used = links.assign(part=part.to_numpy()[links["row"]])
    used = used[used["part"] != ""].assign(test=lambda rows: rows["part"] == "test")
    sides = used.groupby(["kind", "id"])["test"].agg(["sum", "size"])
    shared = sides[(sides["sum"] > 0) & (sides["sum"] < sides["size"])].reset_index()
    return pd.DataFrame(
        {
            "kind": kind,
            "shared": len(found),
            "train_images": int((found["size"] - found["sum"]).sum()),
            "test_images": int(found["sum"].sum()),
        }
        for kind, found in ((kind, shared[shared["kind"] == kind]) for kind in KINDS)
    )
