"""Bad input: everything wrong is named in one report, exit code 2, and nothing is touched."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import prepare
import pytest
from PIL import Image
from serving import huge_png

from lesions.cli import run
from lesions.data.decode import UnreadableImage, decode
from lesions.data.sample import write_sample
from lesions.errors import InputError

TRUTH = "isic2019/ISIC_2019_Training_GroundTruth.csv"
META = "isic2019/ISIC_2019_Training_Metadata.csv"
TRAIN = "isic2020/train.csv"
LATE = "isic2020/ISIC_2020_Training_"
PHOTOS = "isic2019/ISIC_2019_Training_Input"
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    write_sample(folder / "sample", 60)
    return folder / "sample"


@pytest.fixture
def sample(original, root) -> Path:
    return Path(shutil.copytree(original, root / "sample"))


@pytest.fixture
def call(sample, capsys) -> Callable[..., tuple[int, str]]:
    """Runs scripts/prepare.py on the sample; its exit code and what it printed."""

    def prepare_sample(*options: str) -> tuple[int, str]:
        arguments = ["--dataset", "demo", "--size", "32", *options]
        for source in ("isic2019", "isic2020"):
            arguments += ["--input", f"{source}={sample / source}"]
        with pytest.raises(SystemExit) as stop:
            run(lambda: prepare.main(arguments))
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out + said.err

    return prepare_sample


def edit(path: Path, change: Change) -> None:
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def cell(row: int, column: str, value: str) -> Change:
    return lambda table: table.assign(**{column: table[column].where(table.index != row, value)})


def again(row: int, **different: str) -> Change:
    return lambda table: pd.concat([table, table.iloc[[row]].assign(**different)])


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): p.read_bytes() for p in files if ".part" not in str(p.relative_to(folder))}


TABLES = {
    "missing column": (META, lambda t: t.drop(columns="sex"), "no column 'sex'"),
    "misnamed column": (META, lambda t: t.rename(columns={"age_approx": "age_aprox"}),
                        "no column 'age_approx' (did you mean age_aprox?)"),
    "twice the same row": (TRUTH, again(3), "row 5, 26: the same row for image"),
    "rows that differ": (TRAIN, again(0, target="1", diagnosis="melanoma"), "rows that differ"),
    "empty id": (TRAIN, cell(2, "image_name", " "), "row 4: image_name is ''"),
    "target not 0 or 1": (TRAIN, cell(4, "target", "2"), "row 6: target is '2': expected 0 or 1"),
    "empty target": (TRAIN, cell(4, "target", ""), "row 6: target is ''"),
    "two diagnoses": (TRUTH, lambda t: t.assign(MEL="1.0"), "exactly one must be 1"),
    "age as text": (META, cell(1, "age_approx", "45-50"), "row 3: age_approx is '45-50'"),
    "negative age": (META, cell(1, "age_approx", "-5"), "row 3: age_approx is '-5'"),
    "unknown diagnosis": (TRAIN, cell(1, "diagnosis", "mole"), "row 3: diagnosis is 'mole'"),
    "other target": (TRAIN, lambda t: t.assign(diagnosis="melanoma"), "contradict each other"),
    "missing metadata row": (META, lambda t: t.iloc[1:], "no row for ISIC_"),
    "no rows": (TRAIN, lambda t: t.iloc[:0], "has no rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_table_is_named_with_file_and_row(name, sample, call):
    path, change, message = TABLES[name]
    edit(sample / path, change)
    code, said = call("--tables-only")
    assert code == 2
    assert f"{path}: " in said
    assert message in said
    assert not (sample.parent / "input/prepared").exists()


def test_semicolons_and_other_encodings_are_named_and_a_byte_order_mark_is_read_over(sample, call):
    path = sample / META
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert call("--tables-only")[0] == 0
    path.write_text(text.replace(",", ";"))
    assert "Metadata.csv: separated by semicolons or tabs" in call("--tables-only")[1]
    path.write_text(text.replace("female", "weiblich \xfc"), encoding="latin-1")
    assert "Metadata.csv: not UTF-8 text" in call("--tables-only")[1]
    path.write_text("")
    assert "Metadata.csv: not a comma-separated table" in call("--tables-only")[1]
    path.unlink()
    assert "Metadata.csv: no such file: input/README.md" in call("--tables-only")[1]


def test_unseen_sites_and_sexes_are_unknown_and_counted(sample, call, tmp_path):
    edit(sample / META, lambda table: table.assign(anatom_site_general="hollow of the knee"))
    edit(sample / TRAIN, cell(0, "sex", "x"))
    code, said = call("--tables-only")
    assert code == 0
    assert "anatom_site_general 'hollow of the knee' (24 rows) not known: read as missing" in said
    assert "sex 'x' (1 rows) not known" in said
    table = pd.read_csv(tmp_path / "input/prepared/demo/table.csv")
    assert table.loc[table["source"] == "isic2019", "site"].isna().all()


def test_duplicates_that_disagree_are_named(sample, call):
    pairs = pd.read_csv(sample / f"{LATE}Duplicates.csv")
    first, second = pairs.iloc[0]
    train = pd.read_csv(sample / TRAIN).set_index("image_name")
    flipped = 1 - train.loc[first, "target"]
    edit(sample / TRAIN, lambda t: t.assign(
        target=t["target"].mask(t["image_name"] == first, str(flipped)),
        diagnosis=t["diagnosis"].mask(t["image_name"] == first, "melanoma" if flipped else "nevus"),
    ))  # fmt: skip
    code, said = call("--tables-only")
    assert code == 2
    assert f"{first} and {second} are listed as duplicates but have different targets" in said


def test_everything_wrong_is_in_one_report_and_nothing_made_before_changes(sample, call, tmp_path):
    assert call()[0] == 0
    before = bytes_of(tmp_path / "input/prepared")
    photos = sorted((sample / PHOTOS).glob("*.jpg"))
    photos[0].write_bytes(b"")
    photos[1].write_bytes(photos[1].read_bytes()[:-2000])
    photos[2].unlink()
    edit(sample / TRAIN, cell(4, "target", "yes"))
    edit(sample / TRUTH, again(3))
    edit(sample / META, cell(1, "age_approx", "45-50"))
    code, said = call()
    assert code == 2
    for part in (
        "6 problems", "'yes'", "the same row", "'45-50'", "empty file", "truncated",
        f"isic2019: 1 of 25: {photos[2].stem}",
    ):  # fmt: skip
        assert part in said
    assert bytes_of(tmp_path / "input/prepared") == before


BROKEN = [  # what is said of a photograph, and what happened to it
    ("empty file", lambda content: b""),
    ("truncated", lambda content: content[: len(content) // 2]),
    ("not an image", lambda content: b"<!doctype html><title>404</title>"),
    ("", lambda content: content[:150] + bytes(64) + content[214:]),  # in the tables
    ("900,000,000 pixels", lambda content: huge_png(30_000, 30_000)),
]


def test_broken_photographs_are_all_named_and_quarantine_keeps_them_aside(sample, call, tmp_path):
    broken = dict(zip(sorted((sample / PHOTOS).glob("*.jpg")), BROKEN, strict=False))
    for path, (_, damage) in broken.items():
        path.write_bytes(damage(path.read_bytes()))
    code, said = call()
    assert code == 2 and "--quarantine" in said
    for path, (message, _) in broken.items():
        assert [message in line for line in said.splitlines() if path.name in line] == [True]
    test = sorted((sample / "isic2020/jpeg/test").glob("*.jpg"))[0]
    test.write_bytes(b"")
    assert call("--quarantine")[0] == 0
    folder = tmp_path / "input/prepared" / "demo"
    table = pd.read_csv(folder / "table.csv").set_index("image_name")
    names = [path.stem for path in broken]
    assert (table.loc[names, "split"] == "quarantined").all()
    assert (table.loc[names, "fold"] == -1).all()
    assert table.loc[test.stem, "split"] == "test"
    assert table.loc[test.stem, "width"] == 0
    assert set(pd.read_csv(folder / "quarantine.csv")["image_name"]) == {*names, test.stem}


@pytest.mark.parametrize(
    ("name", "mode", "how"),
    [
        ("grey.jpg", "L", {"quality": 95}),
        ("cmyk.jpg", "CMYK", {"quality": 95}),
        ("alpha.png", "RGBA", {}),
        ("webp.jpeg", "RGB", {"format": "WEBP", "quality": 95}),
        ("upper.JPEG", "RGB", {"quality": 95}),
    ],
)
def test_odd_but_whole_photographs_are_read_as_rgb(name, mode, how, tmp_path):
    ramp = np.linspace(40, 200, 96)
    rgb = np.stack([*np.meshgrid(ramp, ramp[::-1]), np.full((96, 96), 90)], axis=-1)
    picture = Image.fromarray(rgb.astype(np.uint8))
    picture.convert(mode).save(tmp_path / name, **how)
    expected = np.asarray(picture.convert("L").convert("RGB") if mode == "L" else picture)
    pixels, size = decode(tmp_path / name, 96)
    assert size == (96, 96)
    assert np.abs(pixels.astype(int) - expected).mean() < 6


def test_a_file_of_another_format_is_refused_whatever_its_name(tmp_path):
    for kind in ("EPS", "GIF", "PPM"):
        Image.new("RGB", (96, 96)).save(tmp_path / "a.jpg", format=kind)
        with pytest.raises(UnreadableImage, match=r"not an image of a known format \(JPEG, PNG"):
            decode(tmp_path / "a.jpg", 32)


def test_folders_that_are_not_there_are_all_named(tmp_path):
    nowhere = [f"isic2019={tmp_path / 'a'}", f"isic2020={tmp_path / 'b'}"]
    with pytest.raises(InputError, match=r"(?s)a: no such folder.*b: no such folder"):
        prepare.main(["--dataset", "demo", "--input", nowhere[0], "--input", nowhere[1]])
