"""Groups are what the links connect: no more, no less, whatever the order of the rows."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folds import real_table

from lesions.data.groups import add_groups

NAMES = st.builds(
    lambda n, twin: f"ISIC_{n}{'_downsampled' * twin}", st.integers(0, 11), st.booleans()
)
IDS = st.sampled_from(["", "", "a", "b", "c", "d"])
ROWS = st.lists(st.tuples(NAMES, IDS, IDS), min_size=1, max_size=14)
PAIRS = st.lists(st.tuples(NAMES, NAMES), max_size=5)  # fmt: skip


def build_table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_name", "patient_id", "lesion_id"])


def build_pairs(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["image_name_1", "image_name_2"], dtype=str)


def linked(a: tuple, b: tuple, pairs: list[tuple[str, str]]) -> bool:
    """Whether two rows (image_name, patient_id, lesion_id) must stay together by themselves."""
    same = a[0].removesuffix("_downsampled") == b[0].removesuffix("_downsampled")
    patient, lesion = a[1] != "" and a[1] == b[1], a[2] != "" and a[2] == b[2]
    return same or patient or lesion or (a[0], b[0]) in pairs or (b[0], a[0]) in pairs


def components(rows: list[tuple], pairs: list[tuple[str, str]]) -> list[int]:
    """A component number for each row by the plainest union-find there is."""
    parent = list(range(len(rows)))

    def find(i: int) -> int:
        return i if parent[i] == i else find(parent[i])

    for i in range(len(rows)):
        for j in range(i):
            if linked(rows[i], rows[j], pairs):
                parent[find(i)] = find(j)
    return [find(i) for i in range(len(rows))]


@settings(max_examples=80, deadline=None)
@given(ROWS, PAIRS)
def test_groups_are_exactly_the_connected_components(rows, pairs):
    group = add_groups(build_table(rows), build_pairs(pairs))["group"]
    expected = components(rows, pairs)
    for i in range(len(rows)):
        for j in range(i):
            assert (group[i] == group[j]) == (expected[i] == expected[j]), (rows[i], rows[j])


@settings(max_examples=50, deadline=None)
@given(ROWS, PAIRS, st.randoms())
def test_groups_do_not_depend_on_row_order_or_pair_order(rows, pairs, random):
    table = build_table(rows)
    before = add_groups(table, build_pairs(pairs))["group"]
    order = list(range(len(rows)))
    random.shuffle(order)
    turned = [pair[::-1] for pair in random.sample(pairs, len(pairs))]
    shuffled = table.iloc[order].reset_index(drop=True)
    after = add_groups(shuffled, build_pairs(turned))["group"]
    assert after.tolist() == before.iloc[order].tolist()


@settings(max_examples=30, deadline=None)
@given(ROWS, PAIRS)
def test_a_group_is_named_after_its_first_image_and_nothing_else_changes(rows, pairs):
    table = build_table(rows)
    grouped = add_groups(table, build_pairs(pairs))
    pd.testing.assert_frame_equal(grouped.drop(columns="group"), table)
    for name, part in grouped.groupby("group"):
        assert name == min(part["image_name"])


def test_a_chain_of_different_links_is_one_group():
    rows = [
        ("x", "p", ""),
        ("y", "p", "l"),
        ("z", "", "l"),
        ("z_downsampled", "", ""),
        ("w", "", ""),
    ]
    group = add_groups(build_table(rows), build_pairs([("w", "z_downsampled")]))["group"]
    assert group.nunique() == 1


def test_rows_without_ids_are_not_one_group():
    group = add_groups(build_table([("x", "", ""), ("y", "", "")]), build_pairs([]))["group"]
    assert group.tolist() == ["x", "y"]


def test_a_pair_with_an_unknown_photograph_ties_nothing():
    pairs = build_pairs([("x", "gone"), ("gone", "y")])
    group = add_groups(build_table([("x", "", ""), ("y", "", "")]), pairs)["group"]
    assert group.nunique() == 2


@pytest.mark.real
def test_the_official_files_give_the_published_counts():
    table = real_table()
    train = table[table["split"] == "train"]
    late, early = (train[train["source"] == source] for source in ("isic2020", "isic2019"))
    assert (len(late), late["target"].sum(), late["patient_id"].nunique()) == (33_126, 584, 2_056)
    assert (table["split"] == "test").sum() == 10_982
    assert (len(early), early["target"].sum()) == (25_331, 4_522)
    assert (early["lesion_id"] == "").sum() == 2_084 and (early["patient_id"] == "").all()
    assert (len(train), train["target"].sum()) == (58_457, 5_106)


@pytest.mark.real
def test_real_patients_lesions_and_official_duplicates_share_a_group():
    from lesions.data.columns import Report
    from lesions.data.sources import read_duplicates

    table = real_table()
    for name in ("patient_id", "lesion_id"):
        known = table[table[name] != ""]
        assert (known.groupby(name)["group"].nunique() == 1).all()
    from conftest import REAL

    pairs = read_duplicates(REAL / "isic2020", Report(strict=True))
    group = table.set_index("image_name")["group"]
    assert len(pairs) == 425
    assert (group[pairs["image_name_1"]].values == group[pairs["image_name_2"]].values).all()
