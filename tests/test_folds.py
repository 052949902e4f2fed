"""Groups are what the links connect; folds keep them whole and alike, whatever the row order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesions.data.folds import (
    add_folds,
    add_groups,
    fold_hash,
    split_groups,
    straddling,
)
from lesions.errors import InputError


@st.composite
def tables(draw: st.DrawFn, least: int = 5) -> pd.DataFrame:
    """Tables of groups of 1 to 12 images, of two sources, with 0 to all of them positive."""
    group = st.tuples(st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 3))
    groups = draw(st.lists(group, min_size=least, max_size=40))
    images = ((*group, number, image) for number, group in enumerate(groups)
              for image in range(group[0]))  # fmt: skip
    return pd.DataFrame({
        "image_name": f"ISIC_{number:03}_{image:02}",
        "group": f"ISIC_{number:03}_00",
        "source": "isic2020" if late else "isic2019",
        "target": float(positive and image % 2 == 0),
        "images_per_patient": float(size) if late else np.nan,
        "split": "test" if unlabelled == 3 and number >= least else "train",
        "patient_id": f"p{number}",
    } for size, late, positive, unlabelled, number, image in images)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(2, 5), st.integers(0, 99), st.randoms())
def test_no_group_is_in_two_folds_and_none_is_empty_in_any_row_order(table, folds, seed, random):
    folded = add_folds(table, folds, seed)
    train = folded["split"] == "train"
    assert folded[train].groupby("group")["fold"].nunique().max() == 1
    assert set(folded.loc[train, "fold"]) == set(range(folds))
    assert (folded.loc[~train, "fold"] == -1).all()
    assert straddling(folded) == []
    pd.testing.assert_frame_equal(folded.drop(columns="fold"), table)
    order = random.sample(range(len(table)), len(table))
    after = add_folds(table.iloc[order].reset_index(drop=True), folds, seed)
    assert after["fold"].tolist() == folded["fold"].iloc[order].tolist()
    assert fold_hash(after) == fold_hash(folded)


def even_table(groups: int = 300) -> pd.DataFrame:
    """`groups` groups of 1 to 6 images, a tenth of the groups positive."""
    sizes = np.arange(groups) % 6 + 1
    group = np.repeat([f"g{number:04}" for number in range(groups)], sizes)
    return pd.DataFrame({
        "image_name": [f"ISIC_{row:06}" for row in range(len(group))],
        "group": group,
        "patient_id": group,
        "source": "isic2020",
        "target": np.repeat((np.arange(groups) % 10 == 0).astype(float), sizes),
        "images_per_patient": np.repeat(sizes, sizes).astype(float),
        "split": "train",
    })  # fmt: skip


def test_a_seed_repeats_its_folds_and_another_seed_draws_others():
    table = even_table()
    first, again, other = (add_folds(table, 5, seed)["fold"] for seed in (1, 1, 2))
    assert first.equals(again)
    assert 0.1 < (first == other).mean() < 0.5  # chance is a fifth


def test_parts_take_their_shares_of_rows_and_positives():
    table = even_table()
    held = split_groups(table, [0.15, 0.85], 3) == 0
    assert abs(held.mean() - 0.15) < 0.01
    assert abs(table["target"][held].sum() / table["target"].sum() - 0.15) < 0.02


def test_too_few_groups_for_the_folds_are_refused():
    table = even_table(4)
    with pytest.raises(InputError, match="4 groups cannot fill 5 folds"):
        add_folds(table, 5, 0)


def test_the_hash_of_the_folds_knows_every_fold_and_target():
    table = add_folds(even_table(30), 3, 0)
    other_fold, other_target = table.copy(), table.copy()
    other_fold.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
    other_target.loc[0, "target"] = 1 - table.loc[0, "target"]
    assert len({fold_hash(each) for each in (table, other_fold, other_target)}) == 3


def test_quarantined_rows_split_no_group_and_rows_that_are_never_scored_do():
    table = add_folds(even_table(30), 3, 0)
    rows = table.index[table["group"] == "g0005"]
    aside, never = table.copy(), table.copy()
    aside.loc[rows[0], ["split", "fold"]] = ["quarantined", -1]
    never.loc[rows, "fold"] = -1
    assert straddling(aside) == straddling(never) == []
    never.loc[rows[0], "split"] = "test"
    assert straddling(never) == ["g0005"]


NAMES = st.builds(
    lambda n, twin: f"ISIC_{n}{'_downsampled' * twin}", st.integers(0, 11), st.booleans()
)
IDS = st.sampled_from(["", "", "a", "b", "c", "d"])
ROWS = st.lists(st.tuples(NAMES, IDS, IDS), min_size=1, max_size=14)
PAIRS = st.lists(st.tuples(NAMES, NAMES), max_size=5)  # also of photographs not in the table


def build_pairs(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["image_name_1", "image_name_2"], dtype=str)


def linked(a: tuple, b: tuple, pairs: list[tuple[str, str]]) -> bool:
    """Whether two rows (image_name, patient_id, lesion_id) must stay together by themselves."""
    same = a[0].removesuffix("_downsampled") == b[0].removesuffix("_downsampled")
    patient, lesion = a[1] != "" and a[1] == b[1], a[2] != "" and a[2] == b[2]
    return same or patient or lesion or (a[0], b[0]) in pairs or (b[0], a[0]) in pairs


def components(rows: list[tuple], pairs: list[tuple[str, str]]) -> list[int]:
    """A component number for each row: every link gives one component the other's number."""
    numbers = list(range(len(rows)))
    for i in range(len(rows)):
        for j in range(i):
            if linked(rows[i], rows[j], pairs):
                numbers = [numbers[j] if number == numbers[i] else number for number in numbers]
    return numbers


@settings(max_examples=40, deadline=None)
@given(ROWS, PAIRS, st.randoms())
def test_groups_are_the_connected_components_in_any_order_of_rows_and_pairs(rows, pairs, random):
    table = pd.DataFrame(rows, columns=["image_name", "patient_id", "lesion_id"])
    grouped = add_groups(table, build_pairs(pairs))
    pd.testing.assert_frame_equal(grouped.drop(columns="group"), table)
    assert all(name == min(part["image_name"]) for name, part in grouped.groupby("group"))
    group, expected = grouped["group"], components(rows, pairs)
    for i in range(len(rows)):
        for j in range(i):
            assert (group[i] == group[j]) == (expected[i] == expected[j]), (rows[i], rows[j])
    order = random.sample(range(len(rows)), len(rows))
    turned = [pair[::-1] for pair in random.sample(pairs, len(pairs))]
    after = add_groups(table.iloc[order].reset_index(drop=True), build_pairs(turned))["group"]
    assert after.tolist() == group.iloc[order].tolist()


def test_joined_groups_keep_the_first_name_and_chains_hold():
    groups = ["a", "a", "c", "c", "e"]
    table = pd.DataFrame({"image_name": list("abcde"), "group": groups})
    pairs = pd.DataFrame({"image_name_1": ["b", "zz"], "image_name_2": ["d", "a"]})
    assert add_groups(table, pairs)["group"].tolist() == ["a", "a", "a", "a", "e"]
    assert add_groups(table, pairs[:0])["group"].tolist() == groups
