"""Which images stay together, and in which fold: groups, our grouped folds, published splits."""

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd

from lesions.config import DatasetConfig
from lesions.errors import InputError, listed

ENDS = ["image_name_1", "image_name_2"]  # of pairs of photographs that belong together
NO_PAIRS = pd.DataFrame(columns=ENDS, dtype=str)


def add_groups(table: pd.DataFrame, pairs: pd.DataFrame = NO_PAIRS) -> pd.DataFrame:
    """The table with `group`: two images share it if a chain of links leads from one to the other.

    Links are the same patient, the same lesion, the same photograph (an id with and without
    ISIC 2019's `_downsampled`, within or across sources), and the rows of `pairs` (names not in the
    table are skipped). A group is named after its alphabetically first image, so names do not
    depend on row order. The groups of a table that has them are merged by `pairs` alone.
    """
    names = labels = table["image_name"]
    if "group" in table:
        labels, ids = table["group"], [table["group"]]
    else:
        ids = [names.str.removesuffix("_downsampled"), table["patient_id"], table["lesion_id"]]
    row_of = pd.Series(np.arange(len(names)), names)
    row_of = row_of[~row_of.index.duplicated()]  # rows of one name are linked as one photograph
    edges = [pairs[ENDS].apply(lambda column: column.map(row_of)).dropna().to_numpy(int)]
    nodes = len(names)  # and one more for each id; "" links nothing
    for column in ids:
        codes, found = pd.factorize(column.mask(column == ""))
        edges.append(np.column_stack([np.arange(len(names)), nodes + codes])[codes >= 0])
        nodes += len(found)
    a, b = np.concatenate(edges).T
    from scipy.sparse import coo_matrix, csgraph  # not above: a missing table is said without it

    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(nodes, nodes))
    component = csgraph.connected_components(graph, directed=False)[1][: len(names)]
    ordered = labels.argsort().to_numpy()  # groupby's own min takes seconds
    _, first = np.unique(component[ordered], return_index=True)
    return table.assign(group=labels.to_numpy()[ordered[first]][component])


def split_groups(
    table: pd.DataFrame, shares: list[float], seed: int, diagnoses: bool = False
) -> np.ndarray:
    """The part (0..len(shares)-1) of each row: groups stay whole, strata are split by `shares`.

    A stratum is source, target and how many images the patient has; with `diagnoses` the diagnosis
    too, for tasks of several classes. Groups are placed from the largest to the smallest, each in
    the part where it adds least to the chi-square distance from the shares, over the strata, all
    rows and all positives. Ties are broken by a hash of seed and name, so that the result depends
    on the rows alone, not on their order.
    """
    bins = pd.cut(table["images_per_patient"], [0, 5, 15, 40, np.inf], labels=False).fillna(-1)
    target = table["target"].fillna(-1).astype(int).astype(str)
    stratum = table["source"] + " " + target + " " + bins.astype(int).astype(str)
    if diagnoses:
        stratum = stratum + " " + table["diagnosis"]
    counts = pd.crosstab(table["group"], stratum)
    sizes = counts.sum(axis=1)
    positives = table["target"].fillna(0).groupby(table["group"]).sum().reindex(counts.index)
    features = np.column_stack([counts, sizes, positives]).astype(float)
    features = features[:, features.sum(axis=0) > 0]
    features /= np.sqrt(features.sum(axis=0))  # so that squared differences are chi-square terms
    tie = np.array([hashlib.sha256(f"{seed} {name}".encode()).hexdigest() for name in counts.index])
    share = np.array(shares, float)[:, None] / np.sum(shares)
    wanted = share * [_pairwise_sum(column) for column in features.T]
    filled = np.zeros_like(wanted)
    parts = np.empty(len(counts), int)
    for row in np.lexsort([tie, -positives.to_numpy(), -sizes.to_numpy()]):
        group = features[row]
        added = group * (2 * (filled - wanted) + group) / share
        parts[row] = added.sum(axis=1).argmin()
        filled[parts[row]] += group
    return pd.Series(parts, index=counts.index).reindex(table["group"]).to_numpy()


def _pairwise_sum(values: np.ndarray) -> float:
    """The sum in numpy's usual order, which its versions and processors do not all keep.

    Another order changes the last bit, which breaks ties between parts: other folds on Kaggle.
    """
    if len(values) > 128:
        half = len(values) // 16 * 8
        return _pairwise_sum(values[:half]) + _pairwise_sum(values[half:])
    eights = len(values) // 8 * 8
    lanes = values[:eights].reshape(-1, 8).sum(axis=0)
    while len(lanes) > 1:
        lanes = lanes[::2] + lanes[1::2]
    for value in values[eights:]:  # Python 3.12's sum compensates, that of 3.11 does not
        lanes[0] += value
    return float(lanes[0])


def add_folds(table: pd.DataFrame, folds: int, seed: int, diagnoses: bool = False) -> pd.DataFrame:
    """The table with `fold`: 0..folds-1 on train rows, -1 elsewhere."""
    train = table["split"] == "train"
    groups = table.loc[train, "group"].nunique()
    if groups < folds:
        raise InputError(f"{groups} groups cannot fill {folds} folds: lower `folds`")
    fold = np.full(len(table), -1)
    fold[train] = split_groups(table[train], [1.0] * folds, seed, diagnoses)
    return table.assign(fold=fold)


def straddling(table: pd.DataFrame) -> list[str]:
    """Groups that lie in two folds, or in a fold and the test rows of a held-out split."""
    part = table["fold"].where(table["split"] == "train", -2)
    used = table["split"] != "quarantined"
    parts = part[used].groupby(table.loc[used, "group"]).nunique()
    return parts.index[parts > 1].tolist()


def require_whole_groups(table: pd.DataFrame, where: str) -> None:
    """InputError if a group lies in two folds: a model would be scored on what it has seen."""
    if broken := straddling(table):
        raise InputError(
            f"{where}: {len(broken):,} groups lie in two folds ({listed(broken)}):"
            " run scripts/prepare.py again"
        )


def fold_warnings(table: pd.DataFrame) -> list[str]:
    """What spoils a fold's model or score: no positive rows, or a group with most training rows."""
    rows = table[(table["split"] == "train") & table["target"].notna()]
    warnings = []
    for fold in range(int(table["fold"].max()) + 1):
        train, valid = rows[rows["fold"] != fold], rows[rows["fold"] == fold]
        for name, part in (("training", train), ("validation", valid)):
            if not (part["target"] == 1).any():
                warnings.append(f"fold {fold} has no positive in its {len(part):,} {name} rows")
        sizes = train["group"].value_counts()
        if 2 * sizes.max() > len(train):
            warnings.append(
                f"group {sizes.index[0]} has {sizes.max():,} of the {len(train):,} training rows of"
                f" fold {fold}: the model learns one patient"
            )
    return warnings


def fold_hash(table: pd.DataFrame) -> str:
    """Sixteen hex digits of image name, fold and target of each row, whatever the row order.

    Rows that a published split trains on and never scores (fold -1) count too.
    """
    used = (table["fold"] >= 0) | (table["split"] == "train")
    rows = table.loc[used, ["image_name", "fold", "target"]].sort_values("image_name")
    lines = "\n".join(f"{n} {f} {t:g}" for n, f, t in rows.itertuples(index=False))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


# Published splits. A scheme returns the fold of each row of a table in the publisher's order, or:
# trained on and never scored, test row, left out. Most put images of one lesion on both sides: a
# score is too high, and only comparable with another on the same split.
NEVER, TEST, OUT = -1, -2, -3


def legacy(table: pd.DataFrame, config: DatasetConfig) -> np.ndarray:
    """Chris Deotte's `tfrecord` modulo the folds, as SIIM-ISIC 2020's first place used it.

    Patients of 2020 are whole, lesions of 2019 are not; duplicates (tfrecord -1) are left out.
    """
    record = table.get("tfrecord", pd.Series(np.nan, table.index)).fillna(-1)
    if (record < 0).all():
        raise InputError("scheme legacy: no `tfrecord`: give Deotte's CSVs with `deotte: FOLDER`")
    part = (record % config.folds).where(record >= 0, OUT).mask(table["split"] == "test", TEST)
    return part.astype(int).to_numpy()


def official(table: pd.DataFrame, config: DatasetConfig) -> np.ndarray:
    """The publisher's split: its validation rows are fold 0, its test rows the test rows."""
    part = table["official"]
    if not (part == "val").any():
        raise InputError("scheme official: no source of this data set has validation rows")
    return part.map({"train": NEVER, "val": 0, "test": TEST, "": OUT}).to_numpy(int)


def system001(table: pd.DataFrame, config: DatasetConfig) -> np.ndarray:
    """HAM10000, 8,012 images to train and 2,003 to validate, split by image: lesions straddle."""
    _, val = _ham10000_cut(table, np.arange(len(table)), 0.2, config.seed)
    part = np.full(len(table), NEVER)
    part[val] = 0
    return part


def system002(table: pd.DataFrame, config: DatasetConfig) -> np.ndarray:
    """HAM10000, validated and tested on lesions with one image: 926 and 618 of them.

    Trained on the other single images and all images of the other lesions, nevi excepted (6,181);
    2,290 further nevi are left out. Its seeds were 9, 333 and 666.
    """
    alone = table.groupby("lesion_id")["image_name"].transform("size") == 1
    _, rest = _ham10000_cut(table, np.flatnonzero(alone), 0.28, config.seed)
    val, test = _ham10000_cut(table, rest, 0.4, config.seed)
    part = np.where(~alone & (table["diagnosis"] == "nv"), OUT, NEVER)
    part[val], part[test] = 0, TEST
    return part


def system003(table: pd.DataFrame, config: DatasetConfig) -> np.ndarray:
    """ISIC 2020, alone or merged, stratified by source and target, split by image.

    Patients straddle, and merged lesions do. The order of its merged rows was that of a folder's
    listing on one machine, so of a merge these are folds of its scheme and not its own.
    """
    from sklearn.model_selection import StratifiedKFold

    train = np.flatnonzero(table["split"] == "train")
    rows = table.iloc[train]
    if (rows["source"] == "isic2020").sum() != 33_126:
        raise InputError(
            "scheme system003 splits the 33,126 training rows of isic2020, alone or merged"
        )
    part = np.where(table["split"] == "test", TEST, OUT)
    cut = StratifiedKFold(config.folds, shuffle=True, random_state=config.seed)
    strata = rows["source"] + rows["target"].astype(str)
    for fold, (_, inside) in enumerate(cut.split(train, strata)):
        part[train[inside]] = fold
    return part


def system004(table: pd.DataFrame, config: DatasetConfig) -> np.ndarray:
    """HAM10000, 7,009 / 1,503 / 1,503 images, split by image: lesions straddle."""
    rest, test = _ham10000_cut(table, np.arange(len(table)), 0.15, config.seed)
    _, val = _ham10000_cut(table, rest, 0.15 / 0.85, config.seed)
    part = np.full(len(table), NEVER)
    part[val], part[test] = 0, TEST
    return part


SCHEMES: dict[str, Callable[[pd.DataFrame, DatasetConfig], np.ndarray]] = {
    scheme.__name__: scheme
    for scheme in (legacy, official, system001, system002, system003, system004)
}


def _ham10000_cut(
    table: pd.DataFrame, rows: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's split of the rows by diagnosis, with the arguments of those systems."""
    from sklearn.model_selection import train_test_split

    sources = set(table["source"])
    if sources != {"ham10000"} or len(table) != 10_015:
        raise InputError(
            "this scheme splits the 10,015 rows of ham10000, in file order; this table has"
            f" {len(table):,} of {', '.join(sorted(sources))}"
        )
    diagnosis = table["diagnosis"].iloc[rows]
    return train_test_split(rows, test_size=share, random_state=seed, stratify=diagnosis)
