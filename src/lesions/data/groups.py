"""Which images must stay together: connected components over patients, lesions and duplicates."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def add_groups(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The table with `group`: two images share it if a chain of links leads from one to the other.

    Links are the same patient, the same lesion, the same photograph (an id with and without
    ISIC 2019's `_downsampled`, within or across sources), and the rows of `pairs` (columns
    image_name_1, image_name_2; names not in the table are passed over). A group is named after
    its alphabetically first image, so names do not depend on row order.
    """
    names = table["image_name"]
    photograph = names.str.removesuffix("_downsampled")
    links = [_links(photograph), _links(table["patient_id"]), _links(table["lesion_id"])]
    row_of = pd.Series(np.arange(len(table)), index=names)
    row_of = row_of[~row_of.index.duplicated()]  # the photograph link holds the others
    known = pairs[
        pairs["image_name_1"].isin(row_of.index) & pairs["image_name_2"].isin(row_of.index)
    ]
    links.append(
        np.stack([row_of[known["image_name_1"]], row_of[known["image_name_2"]]]).astype(int)
    )
    a, b = np.concatenate(links, axis=1)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(table), len(table)))
    component = pd.Series(connected_components(graph, directed=False)[1], index=table.index)
    return table.assign(group=names.groupby(component).transform("min"))


def _links(ids: pd.Series) -> np.ndarray:
    """Edges (2, E) that chain the rows of each id; rows with an empty id have none."""
    rows = np.flatnonzero((ids != "").to_numpy())
    codes = pd.factorize(ids.iloc[rows])[0]
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    return np.stack([rows[order][:-1][same], rows[order][1:][same]])
