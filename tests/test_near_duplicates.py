"""Near-duplicates: copies under other names are found whatever was done to them, others are not."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import prepare
import pytest
from conftest import REAL

from lesions.data import near_duplicates
from lesions.data.decode import decode
from lesions.data.near_duplicates import SIZE, find_near_duplicates
from lesions.data.sample import draw_photo, plan_sample, write_sample
from lesions.errors import InputError

ROWS = plan_sample(150, 0).drop_duplicates("lesion").to_dict("records")


def photograph(number: int) -> np.ndarray:
    """uint8 (150, 200, 3): a photograph of the sample, of another lesion for each number."""
    return cv2.resize(draw_photo(0, ROWS[number]), (200, 150), interpolation=cv2.INTER_AREA)


def encoded(picture: np.ndarray, quality: int = 85) -> np.ndarray:
    packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(packed, cv2.IMREAD_COLOR)


def scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(picture.astype(float) * factor, 0, 255).astype(np.uint8)


COPIES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda picture: encoded(picture, 40),
    lambda picture: encoded(cv2.resize(picture, (120, 90))),
    lambda picture: encoded(picture[3:146, 8:198]),  # cropped by 5 %
    lambda picture: encoded(picture[:, ::-1]),
    lambda picture: encoded(np.rot90(picture)),
    lambda picture: encoded(np.rot90(picture, 3)),
    lambda picture: encoded(scaled(picture, 1.2)),
    lambda picture: encoded(scaled(picture, 0.75)),
]


def small(pictures: list[np.ndarray]) -> np.ndarray:
    size = (SIZE, SIZE)
    return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])


def test_every_kind_of_copy_is_found_and_nothing_else():
    originals = [photograph(seed) for seed in range(80)]
    copies = [COPIES[row // 4](originals[row]) for row in range(32)]
    found = find_near_duplicates(small(originals + copies))
    expected = {(row, 80 + row) for row in range(32)}
    assert set(zip(found["first"], found["second"], strict=True)) == expected
    assert found["score"].is_monotonic_decreasing
    assert found["score"].between(near_duplicates.SAME, 1.001).all()


def test_few_black_and_no_images_give_no_pairs():
    assert find_near_duplicates(np.zeros((4, SIZE, SIZE, 3), np.uint8)).empty
    assert find_near_duplicates(np.zeros((0, SIZE, SIZE, 3), np.uint8)).empty
    assert find_near_duplicates(small([photograph(0)])).empty


def test_prepare_groups_look_alikes_and_a_review_overrules_it(root, monkeypatch, capsys):
    write_sample(root / "sample", 40)
    official = root / "sample/isic2019"
    lesions = pd.read_csv(official / "ISIC_2019_Training_Metadata.csv").drop_duplicates("lesion_id")
    one, two, three = lesions["image"].iloc[:3]
    paths = {path.stem: str(path) for path in official.rglob("*.jpg")}
    assert cv2.imwrite(paths[two], encoded(cv2.imread(paths[one])[:, ::-1], 70))
    arguments = ["--dataset", "demo", "--size", "32", "--set", "near_duplicates=true"]
    for source in ("isic2019", "isic2020"):
        arguments += ["--input", f"{source}={root / 'sample' / source}"]
    prepared = root / "input/prepared/demo"

    def groups(*more: str) -> list[str]:
        assert prepare.main([*arguments, *more]) == 0
        table = pd.read_csv(prepared / "table.csv").set_index("image_name")
        assert table.groupby("group")["fold"].nunique().max() == 1
        return table.loc[[one, two, three], "group"].tolist()

    first, second, _ = groups("--report")
    assert first == second
    page, table = (prepared / "report.html").read_text(), pd.read_csv(prepared / "table.csv")
    for diagnosis, rows in table[table["split"] == "train"].groupby("diagnosis"):
        assert f"<td>{diagnosis}</td><td>{len(rows)}</td>" in page
        tiles = page.split(f"<h3>{diagnosis}</h3>")[1].split("</figure>")[0].count("<img src")
        assert tiles == min(8, rows["group"].nunique())
    shown = page.split('<section id="pairs">')[1].split("</li>")[0]
    assert f"<span>{one}</span>" in shown and f"<span>{two}</span>" in shown
    assert "near-duplicates: 1 pairs" in capsys.readouterr().out  # of one group they are not told
    pairs = pd.read_csv(prepared / "near_duplicates.csv")
    assert {pairs["image_name_1"][0], pairs["image_name_2"][0]} == {one, two}
    assert pairs["score"].is_monotonic_decreasing

    # From now on the pairs are taken from the file.
    monkeypatch.setattr(near_duplicates, "find_near_duplicates", None)
    review = root / "pairs.csv"
    decide = "image_name_1,image_name_2,decision\n" + f"{two},{one},Different\n{one},{three},same\n"
    review.write_text(decide)
    listing = prepared / "near_duplicates.csv"
    with listing.open("a") as file:
        file.write("elsewhere,nowhere,,same\n")  # decided where other images were prepared
    for more in (["--review", str(review)], [], ["--review", str(listing)]):  # it is kept
        first, second, third = groups(*more)
        assert first == third != second
    for row, problem in {
        f"{one},{three},different": "row 4: .* a row above says same",
        f"{one},{two},maybe": "row 4: .* maybe: expected",
        f"{one},nobody,same": "row 4: .* nobody, same: expected",
    }.items():
        review.write_text(decide + row)
        with pytest.raises(InputError, match=problem):
            prepare.main([*arguments, "--review", str(review)])


@pytest.mark.parametrize(("differ", "told"), [(57, "from row 61 on"), (58, "need no look")])
def test_a_review_ends_after_58_pairs_in_a_row_that_differ(differ, told, tmp_path, monkeypatch):
    # Were 5 % of them copies, 58 in a row without one would come up 1 time in 20.
    assert 0.95**58 < 0.0511 < 0.95**57
    table = pd.DataFrame({"image_name": [f"i{row}" for row in range(80)], "source": "own"})
    table = table.assign(group=table["image_name"], split="train", target=0.0)
    first = np.arange(70)
    found = pd.DataFrame({"first": first, "second": first + 1, "score": 0.99 - 0.005 * first})
    monkeypatch.setattr(near_duplicates, "find_near_duplicates", lambda *given: found)
    images = np.zeros((80, SIZE, SIZE, 3), np.uint8)
    decisions = ["different", "same"] + ["different"] * differ
    lines = [f"i{row},i{row + 1},{decision}\n" for row, decision in enumerate(decisions)]
    review = "image_name_1,image_name_2,decision\n" + "".join(lines)
    (tmp_path / "review.csv").write_text(review)
    files = tmp_path / "pairs.json", tmp_path / "review.csv"
    linked, text = near_duplicates.link_near_duplicates(table, images, *files)
    assert told in text
    assert linked.groupby("group").size().nlargest(2).tolist() == [2, 1]


@pytest.mark.real
def test_real_photographs_of_different_lesions_are_not_taken_for_copies():
    table = pd.read_csv(REAL / "ham10000" / "HAM10000_metadata.csv")
    table = table.drop_duplicates("lesion_id").iloc[:600]
    paths = [REAL / "ham10000" / "images" / f"{name}.jpg" for name in table["image_id"]]
    images = np.stack([decode(Path(path), SIZE)[0] for path in paths])
    copies = np.stack([image[:, ::-1] for image in images[:60]])
    found = find_near_duplicates(np.concatenate([images, copies]))
    of_copies = found["second"] >= 600
    assert of_copies.sum() == 60
    assert (found.loc[of_copies, "second"] - found.loc[of_copies, "first"] == 600).all()
    assert (~of_copies).sum() <= 1  # HAM10000 has a few photographs under two lesion ids
