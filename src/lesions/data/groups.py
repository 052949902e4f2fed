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
    component = _components(len(table), [*links, _pair_links(names, pairs)])
    return table.assign(group=names.groupby(component).transform("min"))


def merge_groups(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The table with the groups of each of the `pairs` joined; the first name stays."""
    links = [_links(table["group"]), _pair_links(table["image_name"], pairs)]
    group = table["group"].reset_index(drop=True)
    joined = group.groupby(_components(len(table), links)).transform("min")
    return table.assign(group=joined.to_numpy())


def _components(rows: int, links: list[np.ndarray]) -> np.ndarray:
    a, b = np.concatenate(links, axis=1)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(rows, rows))
    return connected_components(graph, directed=False)[1]


def _pair_links(names: pd.Series, pairs: pd.DataFrame) -> np.ndarray:
    """Edges (2, E) of the pairs of which both names are in the table."""
    row_of = pd.Series(np.arange(len(names)), index=names)
    row_of = row_of[~row_of.index.duplicated()]  # the photograph link holds the others
    known = pairs[
        pairs["image_name_1"].isin(row_of.index) & pairs["image_name_2"].isin(row_of.index)
    ]
    ends = [row_of[known[name]].to_numpy(int) for name in ("image_name_1", "image_name_2")]
    return np.stack(ends)


def _links(ids: pd.Series) -> np.ndarray:
    """Edges (2, E) that chain the rows of each id; rows with an empty id have none."""
    rows = np.flatnonzero((ids != "").to_numpy())
    codes = pd.factorize(ids.iloc[rows])[0]
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    return np.stack([rows[order][:-1][same], rows[order][1:][same]])
