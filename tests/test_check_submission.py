"""A submission is checked before it is sent: everything wrong with it is told at once."""

import check_submission
import numpy as np
import pandas as pd
import pytest

from lesions.errors import InputError

IDS = [f"ISIC_{i:04d}" for i in range(200)]


@pytest.fixture
def files(tmp_path):
    """Writers of a submission, and of an earlier one."""
    pd.DataFrame({"image_name": IDS, "target": 0}).to_csv(tmp_path / "sample.csv", index=False)

    def check(table, earlier=()):
        table.to_csv(tmp_path / "mine.csv", index=False)
        paths = []
        for i, other in enumerate(earlier):
            other.to_csv(tmp_path / f"earlier{i}.csv", index=False)
            paths.append(str(tmp_path / f"earlier{i}.csv"))
        before = ["--earlier", *paths] if paths else []
        sample = ["--sample", str(tmp_path / "sample.csv")]
        return check_submission.main([str(tmp_path / "mine.csv"), *sample, *before])

    return check


def good(seed=0):
    return pd.DataFrame({"image_name": IDS, "target": np.random.default_rng(seed).random(200)})


def test_a_good_submission_passes_with_one_line(files, capsys):
    assert files(good(), [good()]) == 0
    assert "200 rows, 200 values, rank correlation 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.rename(columns={"target": "prob"}), "header is image_name,prob"),
        (lambda t: t.assign(extra=1), "header is image_name,target,extra"),
        (lambda t: t[["target", "image_name"]], "header is target,image_name"),
        (lambda t: t.drop(index=[5]), "missing images: 1 .ISIC_0005"),
        (lambda t: t.replace("ISIC_0005", "ISIC_9999"), "images not in the sample: 1 .ISIC_9999"),
        (lambda t: pd.concat([t, t.tail(2)]), "doubled images: 2 .ISIC_0198, ISIC_0199"),
        (lambda t: t.iloc[::-1], "another order than the sample's, from row 1 on"),
        (lambda t: t.assign(target=t["target"].where(t.index != 7)), "not numbers, first in row 8"),
        (lambda t: t.assign(target=["high"] * 200), "200 targets are not numbers"),
        (lambda t: t.assign(target=np.where(t.index == 1, np.inf, 0.1)), "1 targets are not"),
        (lambda t: t.assign(target=t["target"] * 2 - 0.5), "not within 0 to 1"),
        (lambda t: t.assign(target=0.5), "constant"),
        (lambda t: t.assign(target=t["target"].round(0)), "only 2 distinct targets in 200 rows"),
        (lambda t: t.assign(image_name=t["image_name"].mask(t.index == 3)), "1 rows without an im"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(files, change, told):
    with pytest.raises(InputError, match=told):
        files(change(good()))


def test_everything_wrong_is_told_at_once(files):
    table = good().drop(index=[5]).assign(target=0.5)
    with pytest.raises(InputError, match=r"missing images: 1(.|\n)*constant"):
        files(table)


def test_an_inverted_submission_is_seen_against_an_earlier_one(files):
    noisy = good().assign(target=lambda t: 0.9 * t["target"] + 0.05)
    assert files(noisy, [good()]) == 0
    with pytest.raises(InputError, match=r"inverted\? its rank correlation with .* is -1.00"):
        files(good().assign(target=1 - good()["target"]), [good()])


def test_an_earlier_submission_on_other_images_is_not_compared(files, capsys):
    other = good().assign(image_name=lambda t: "x" + t["image_name"], target=1 - good()["target"])
    assert files(good(), [other]) == 0
    assert "correlation" not in capsys.readouterr().out


def test_scores_that_differ_in_the_last_digit_are_written_apart(tmp_path):
    from lesions.files import read_csv, write_csv

    values = np.nextafter(0.3, np.arange(200) % 2)  # the two neighbours of 0.3
    write_csv(tmp_path / "full.csv", pd.DataFrame({"image_name": IDS, "target": values}))
    assert (read_csv(tmp_path / "full.csv", ["target"])["target"].to_numpy() == values).all()
