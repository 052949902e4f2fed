"""What ties photographs together, and which of these links lie in two folds.

Imports neither scipy nor scikit-learn: the audit of a split answers within a second.
"""

import numpy as np
import pandas as pd

EXPOSED = ["part", "seen", "kind", "images", "exposed", "links", "positives", "positives_exposed"]
KINDS = ["patient", "lesion", "photograph", "duplicate pair", "group"]


def build_links(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """What ties images together: columns kind, id, row (position in `table`).

    photograph: one image name, with or without ISIC 2019's `_downsampled`. Names of `pairs` that
    are not in the table tie nothing.
    """
    rows = pd.Series(np.arange(len(table)), table["image_name"].to_numpy())
    photograph = table["image_name"].str.removesuffix("_downsampled")
    ids = [table["patient_id"], table["lesion_id"], photograph, table["group"]]
    links = [
        pd.DataFrame({"kind": kind, "id": values.to_numpy(), "row": rows.to_numpy()})
        for kind, values in zip(["patient", "lesion", "photograph", "group"], ids, strict=True)
    ]
    rows = rows[~rows.index.duplicated()]
    both = pairs[pairs.isin(set(rows.index)).all(axis=1)]
    pair = both["image_name_1"] + " = " + both["image_name_2"]
    for name in ("image_name_1", "image_name_2"):
        there = rows.reindex(both[name]).to_numpy()
        links.append(pd.DataFrame({"kind": "duplicate pair", "id": pair, "row": there}))
    found = pd.concat(links, ignore_index=True)
    return found[found["id"].notna() & (found["id"] != "")]


def reach(links: pd.DataFrame, part: pd.Series) -> pd.DataFrame:
    """Each link with more than one used image: kind, id, images, folds, test (images there).

    `straddling` are those in two folds, or in a fold and the test rows.
    """
    part_of = part.to_numpy()[links["row"]]
    used = links.assign(fold=part_of, test=part_of == "test")[part_of != ""]
    used["fold"] = used["fold"].mask(used["test"])
    found = used.groupby(["kind", "id"], sort=True).agg(
        images=("row", "nunique"), folds=("fold", "nunique"), test=("test", "sum")
    )
    found = found[found["images"] > 1].reset_index()
    return found.assign(straddling=found["folds"] + (found["test"] > 0) > 1)


def scored(part: pd.Series) -> np.ndarray:
    """Which rows get an out-of-fold score, (N,) bool."""
    return ~part.isin(["", "test", "-1"]).to_numpy()


def exposures(table: pd.DataFrame, links: pd.DataFrame, part: pd.Series) -> pd.DataFrame:
    """How many images of each part share a link with a part that its model was trained on.

    `part` is a fold's number, of which -1 is trained on alone, or train, val or test; test beside
    folds counts as neither. Columns part, seen, kind, images, exposed, links (ids on both sides),
    positives, positives_exposed; a row for each kind of link there is.
    """
    at, positive = part.to_numpy(), (table["target"] == 1).to_numpy()
    both = [("val", ["train"]), ("test", ["train"]), ("test", ["val"]), ("test", ["train", "val"])]
    both = [pair for pair in both if {pair[0], *pair[1]} <= {*at}]
    known = links.assign(part=at[links["row"]]).query("part != ''")
    if not both:
        both, known = [("each fold", [])], known[known["part"] != "test"]
    found = []
    for kind, of_kind in known.groupby("kind", sort=False):
        if len(of_kind) == of_kind["id"].nunique():
            continue
        for name, seen in both:
            rows = at == name if seen else scored(part)
            apart = of_kind.groupby("id")["part"].transform("nunique") > 1
            if seen:
                apart = of_kind["id"].isin(of_kind.loc[of_kind["part"].isin(seen), "id"])
            shared = of_kind[apart & rows[of_kind["row"]]]
            exposed = shared["row"].unique()
            images = rows.sum(), len(exposed), shared["id"].nunique()
            positives = positive[rows].sum(), positive[exposed].sum()
            seen_in = " or ".join(seen) or "the other folds"
            found.append((name, seen_in, kind, *images, *positives))
    return pd.DataFrame(found, columns=EXPOSED)
