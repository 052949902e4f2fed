"""The embedded sample: official shape, planted traps, the same bytes every time."""

import hashlib
import shutil
from pathlib import Path

import cv2
import make_sample
import numpy as np
import pandas as pd
import pytest

from lesions.data import sample
from lesions.data.sample import plan_sample, tables, write_sample
from lesions.errors import InputError

IMAGES = 40
EARLY = "isic2019/ISIC_2019_Training_"
LATE = "isic2020/ISIC_2020_Training_"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("made") / "sample"
    return out, write_sample(out, IMAGES)


def read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / name, dtype=str, keep_default_na=False)


def thumbnail(path: Path) -> np.ndarray:
    return cv2.resize(cv2.imread(str(path)), (32, 32), interpolation=cv2.INTER_AREA).astype(int)


def test_every_row_has_its_image_of_the_planned_size(made):
    out, plan = made
    rows = {
        "isic2019/ISIC_2019_Training_Input": list(read(out, f"{EARLY}Metadata.csv")["image"]),
        "isic2020/jpeg/train": list(read(out, "isic2020/train.csv")["image_name"]),
        "isic2020/jpeg/test": list(read(out, "isic2020/test.csv")["image_name"]),
    }
    assert [len(names) for names in rows.values()] == [16, 24, 5]
    for folder, names in rows.items():
        assert sorted(path.stem for path in (out / folder).iterdir()) == sorted(names)
    assert plan["image_name"].is_unique
    for row in plan.itertuples():
        assert cv2.imread(str(out / row.path)).shape == (row.height, row.width, 3)
    assert plan[["width", "height"]].drop_duplicates().shape[0] >= 5


@pytest.mark.parametrize("images, golden", [(60, "457198a32fd47890"), (900, "d05ca75d77835e56")])
def test_the_tables_are_those_of_the_first_version(images, golden):
    """Two lesions photographed twice, twins, missing values, enough melanomas: all is planned."""
    text = "".join(table.to_csv() for table in tables(plan_sample(images, 0)).values())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == golden
    other = plan_sample(images, 1)["image_name"]
    assert not other.isin(plan_sample(images, 0)["image_name"]).all()


def test_listed_duplicates_and_downsampled_twins_look_alike_and_others_do_not(made):
    out, plan = made
    path = plan.set_index("image_name")["path"]
    listed = read(out, f"{LATE}Duplicates.csv")
    late = read(out, f"{LATE}GroundTruth_v2.csv").set_index("image_name")
    same = ["patient_id", "lesion_id", "target"]
    pairs = list(zip(listed["image_name_1"], listed["image_name_2"], strict=True))
    assert all((late.loc[one, same] == late.loc[two, same]).all() for one, two in pairs)
    twins = [(n.removesuffix("_downsampled"), n) for n in path.index if n.endswith("_downsampled")]
    pairs += [pair for pair in twins if pair[0] in path.index]
    assert len(pairs) == 4
    for first, second in pairs:
        ours, theirs = thumbnail(out / path[first]), thumbnail(out / path[second])
        other = thumbnail(out / path.drop([first, second]).iloc[0])
        assert (out / path[first]).read_bytes() != (out / path[second]).read_bytes()
        assert np.abs(ours - theirs).mean() < 3 < np.abs(ours - other).mean()


@pytest.mark.parametrize("source", ["isic2019", "isic2020"])
@pytest.mark.parametrize("column", ["image_name", "width", "quality"])
def test_names_and_sizes_do_not_tell_the_target(source, column):
    plan = plan_sample(3000, 0)
    rows = plan[(plan["source"] == source) & ~plan["twin"]]
    rank, positive = rows[column].rank(), rows["target"] == 1
    wins = rank[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    assert 0.45 < wins / (positive.sum() * (~positive).sum()) < 0.55


def test_a_complete_sample_is_left_alone_and_an_incomplete_one_made_again(made, tmp_path, capsys):
    first, plan = made
    out = Path(shutil.copytree(first, tmp_path / "sample"))
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make_sample.main(["--out", str(out), "--images", str(IMAGES)]) == 0
    said = capsys.readouterr().out
    assert "16 train images" in said and "labels hidden" in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    (out / plan["path"][0]).unlink()
    write_sample(out, IMAGES)
    files = [path.relative_to(first) for path in first.rglob("*.*")]
    assert len(files) == 53
    assert all((out / name).read_bytes() == (first / name).read_bytes() for name in files)


def test_a_stop_on_the_way_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "draw_photo", stop)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "sample", IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "seed", "said"),
    [(39, 0, "at least 40"), (40, -1, "at least 0"), (40, 0, "holds something else")],
)
def test_impossible_arguments_and_other_folders_are_named(tmp_path, images, seed, said):
    (tmp_path / "isic2020").mkdir()
    with pytest.raises(InputError, match=said):
        write_sample(tmp_path, images, seed)
    assert (tmp_path / "isic2020").is_dir()
