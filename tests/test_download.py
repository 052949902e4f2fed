"""Downloads through the genuine client and from plain addresses, with every fault to order."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import download as script
import numpy as np
import pytest
from kaggle_fake import TOKEN, FakeKaggle

from lesions.cli import run
from lesions.errors import InputError
from lesions.kaggle import catalogue, download, remote
from lesions.kaggle.catalogue import Item, Source
from lesions.kaggle.transfer import at, fetch, held
from lesions.paths import CODE

CSVS = {"train.csv": b"image_name\nISIC_1\n", "test.csv": b"image_name\nISIC_2\n"}
BODY = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def place(monkeypatch, tmp_path) -> Path:
    """input/ in an empty folder, and a catalogue whose plain addresses lead to the fake."""
    monkeypatch.setattr(download, "INPUT", tmp_path / "input")
    return tmp_path / "input"


def use(monkeypatch, *items: Item, licence: str = "CC BY-NC 4.0") -> None:
    source = Source("here", licence, "https://owner.example/data", items)
    monkeypatch.setattr(download, "CATALOGUE", {"here": source})


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def text_of_exit(arguments: list[str], capsys) -> tuple[int, str]:
    """Exit code and all that was printed of the script, as a user runs it."""
    with pytest.raises(SystemExit) as ended:
        run(lambda: script.main(arguments))
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


def test_a_data_set_comes_whole_with_its_checksums(kaggle: FakeKaggle, place, monkeypatch, capsys):
    kaggle.files = dict(CSVS)
    kaggle.stored["/more/photographs.zip"] = zipped({"a.jpg": b"jpeg"})
    use(
        monkeypatch,
        Item("train.csv", 1, kaggle=True),
        Item("photographs.zip", 1, "http://owner.invalid/more/photographs.zip"),
    )
    assert script.main(["here"]) == 0
    assert (place / "here/train.csv").read_bytes() == CSVS["train.csv"]
    sums = (place / "here/SHA256SUMS").read_text().splitlines()
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256((place / "here" / name).read_bytes()).hexdigest() == digest
    assert len(sums) == 2
    assert sorted(path.name for path in (place / "here").iterdir()) == [
        "SHA256SUMS", "photographs.zip", "train.csv",
    ]  # fmt: skip
    capsys.readouterr()
    before = len(kaggle.requests)
    assert script.main(["here"]) == 0
    assert "nothing more to come" in capsys.readouterr().out
    assert len(kaggle.requests) == before


def test_a_dry_run_tells_size_and_licence_and_asks_no_server(kaggle, place, capsys, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))
    assert script.main(["isic2020", "ham10000", "--dry-run"]) == 0
    told = capsys.readouterr().out
    for expected in ("CC BY-NC 4.0", "30 GB", "2.8 GB", "train.csv", " free for "):
        assert expected in told
    assert not kaggle.requests and not place.exists()


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(kaggle, place, monkeypatch, capsys):
    use(monkeypatch, Item("huge.zip", 1e9, "http://owner.invalid/huge.zip"))
    code, told = text_of_exit(["here"], capsys)
    assert code == 2 and "make room" in told
    assert not kaggle.requests


def test_a_file_larger_than_the_disk_is_refused_when_its_size_is_told(
    kaggle, monkeypatch, tmp_path
):
    kaggle.stored["/x"] = BODY
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("lesions.kaggle.transfer.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="300,000 bytes to come, 1,000 free"):
        fetch(at("http://owner.invalid/x"), tmp_path / "x")


def test_what_lies_there_unpacked_by_hand_is_not_fetched(kaggle, place, monkeypatch, capsys):
    use(monkeypatch, Item("p.zip", 5, "http://owner.invalid/p.zip", instead="p"))
    (place / "here/p").mkdir(parents=True)
    assert script.main(["here"]) == 0
    assert not kaggle.requests


def test_an_unknown_name_lists_those_there_are(place, capsys):
    code, told = text_of_exit(["isic2021"], capsys)
    assert code == 2 and "isic2020" in told


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (401, "make a new token"),
        (403, "https://www.kaggle.com/competitions/siim-isic-melanoma-classification/rules"),
        (404, "check the name"),
        (500, "give the command again later"),
        ("cut", "the connection was cut"),
        ("html", "web page"),
    ],
)
def test_a_refusing_server_ends_in_one_line(
    kaggle: FakeKaggle, place, monkeypatch, capsys, kind, expected
):
    use(monkeypatch, Item("train.csv", 1, kaggle=True))
    kaggle.files = dict(CSVS)
    if kind == "html":
        kaggle.fail("/file/train.csv", kind)
    else:
        kaggle.fail("DownloadDataFile", kind, times=9, message=f"no, token {TOKEN}")
    code, told = text_of_exit(["here"], capsys)
    assert code == 2
    errors = [line for line in told.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and expected in errors[0]
    assert TOKEN not in told and "sig0nature" not in told and "Traceback" not in told
    assert not (place / "here/train.csv").exists()


def test_too_many_requests_are_waited_out_as_long_as_the_server_says(kaggle: FakeKaggle, tmp_path):
    kaggle.files = dict(CSVS)
    kaggle.fail("DownloadDataFile", 429, times=2, headers={"Retry-After": "7"})
    remote.competition_download("train.csv", tmp_path / "train.csv")
    assert kaggle.waits == [7.0, 7.0]
    assert (tmp_path / "train.csv").read_bytes() == CSVS["train.csv"]


def test_a_wait_of_hours_is_told_instead(kaggle: FakeKaggle, tmp_path):
    kaggle.files = dict(CSVS)
    kaggle.fail("DownloadDataFile", 429, headers={"Retry-After": "7200"})
    with pytest.raises(InputError, match="again in 7200 s"):
        remote.competition_download("train.csv", tmp_path / "train.csv")
    assert kaggle.waits == []


def test_a_server_error_passes_when_tried_again(kaggle: FakeKaggle, tmp_path):
    kaggle.files = dict(CSVS)
    kaggle.fail("DownloadDataFile", 500, times=2)
    kaggle.fail("/file/", 503)
    remote.competition_download("train.csv", tmp_path / "train.csv")
    assert (tmp_path / "train.csv").read_bytes() == CSVS["train.csv"]


def test_a_cut_connection_is_gone_on_from_at_the_byte(kaggle: FakeKaggle, tmp_path):
    kaggle.files["big.zip"] = BODY
    kaggle.fail("/file/big.zip", "cut", times=2, after=100_000)
    digest = remote.competition_download("big.zip", tmp_path / "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BODY
    assert digest == hashlib.sha256(BODY).hexdigest()
    ranges = [headers["Range"] for _, _, headers in kaggle.requests if "Range" in headers]
    assert ranges == ["bytes=65536-", "bytes=131072-"]
    assert [path.name for path in tmp_path.iterdir()] == ["big.zip"]


def test_a_connection_cut_for_good_keeps_the_part_for_the_next_command(
    kaggle: FakeKaggle, tmp_path
):
    path = tmp_path / "big.zip"
    kaggle.files["big.zip"] = BODY
    kaggle.fail("/file/big.zip", "cut", after=100_000)
    kaggle.fail("/file/big.zip", "cut", times=9)
    with pytest.raises(InputError, match="65,536 bytes are kept"):
        remote.competition_download("big.zip", path)
    assert held(path) == 65536 and not path.exists()
    kaggle.faults.clear()
    remote.competition_download("big.zip", path)
    assert path.read_bytes() == BODY
    assert kaggle.requests[-1][2]["Range"] == "bytes=65536-"


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(kaggle: FakeKaggle, tmp_path):
    kaggle.files["big.zip"] = BODY
    kaggle.fail("/file/big.zip", "cut", after=100_000)
    kaggle.fail("/file/big.zip", "cut", times=9)
    with pytest.raises(InputError):
        remote.competition_download("big.zip", tmp_path / "big.zip")
    kaggle.faults.clear()
    kaggle.files["big.zip"], kaggle.etag = BODY[::-1], '"2"'
    remote.competition_download("big.zip", tmp_path / "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BODY[::-1]


def test_a_part_as_long_as_the_file_or_longer_is_no_obstacle(kaggle: FakeKaggle, tmp_path):
    kaggle.files["big.zip"] = BODY
    for there in (BODY, BODY + b"more"):
        (tmp_path / ".big.zip.part").write_bytes(there)
        mark = {"validator": kaggle.etag, "size": len(BODY)}
        (tmp_path / ".big.zip.part.json").write_text(json.dumps(mark))
        remote.competition_download("big.zip", tmp_path / "big.zip")
        assert (tmp_path / "big.zip").read_bytes() == BODY


def test_a_truncated_zip_is_removed_and_told(kaggle: FakeKaggle, place, monkeypatch, capsys):
    whole = zipped({"a.jpg": BODY})
    kaggle.stored["/p.zip"] = whole
    use(monkeypatch, Item("p.zip", 1, "http://owner.invalid/p.zip"))
    kaggle.fail("/p.zip", "truncated", after=len(whole) // 2)
    code, told = text_of_exit(["here"], capsys)
    assert code == 2 and "no whole zip" in told and not (place / "here/p.zip").exists()
    assert script.main(["here"]) == 0
    assert (place / "here/p.zip").read_bytes() == whole


def test_another_checksum_than_the_publishers_is_refused(kaggle, place, monkeypatch, capsys):
    kaggle.stored["/d.npz"] = BODY
    use(monkeypatch, Item("d.npz", 1, "http://owner.invalid/d.npz", md5="0" * 32))
    code, told = text_of_exit(["here"], capsys)
    assert code == 2 and "not its publisher's" in told
    assert not list((place / "here").iterdir())
    md5 = hashlib.md5(BODY).hexdigest()
    use(monkeypatch, Item("d.npz", 1, "http://owner.invalid/d.npz", md5=md5))
    assert script.main(["here"]) == 0


def test_an_owner_that_moved_a_file_is_named_with_the_page_to_look_at(
    kaggle, place, monkeypatch, capsys
):
    use(monkeypatch, Item("p.zip", 1, "http://owner.invalid/p.zip"))
    code, told = text_of_exit(["here"], capsys)
    assert code == 2 and "https://owner.example/data" in told and "owner.invalid" in told


def test_a_csv_that_kaggle_sends_as_a_zip_is_a_csv_here(kaggle, place, monkeypatch):
    kaggle.files["train.csv"] = zipped(dict(list(CSVS.items())[:1]))
    use(monkeypatch, Item("train.csv", 1, kaggle=True))
    assert script.main(["here"]) == 0
    assert (place / "here/train.csv").read_bytes() == CSVS["train.csv"]


def test_a_data_set_is_unpacked_to_its_folder(kaggle: FakeKaggle, place, monkeypatch):
    content = zipped({"train/a.jpg": b"jpeg", "train.csv": b"x", "readme.exe": b"?"})
    kaggle.datasets["cdeotte/jpeg"] = {"zip": content, "files": {}}
    use(monkeypatch, Item("jpeg.zip", 1, dataset="cdeotte/jpeg", unpack="all", instead="jpeg"))
    assert script.main(["here"]) == 0
    folder = place / "here/jpeg"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == [
        "train.csv", "train/a.jpg",
    ]  # fmt: skip
    assert not (place / "here/jpeg.zip").exists()
    assert script.main(["here"]) == 0


def test_tables_come_out_of_a_zip_that_stays(kaggle: FakeKaggle, place, monkeypatch):
    kaggle.stored["/t.zip"] = zipped({"deep/er/truth.csv": b"x", "deep/a.jpg": b"jpeg"})
    use(
        monkeypatch,
        Item("t.zip", 1, "http://owner.invalid/t.zip", unpack="tables", instead="truth.csv"),
    )
    assert script.main(["here"]) == 0
    assert (place / "here/truth.csv").read_bytes() == b"x"
    assert (place / "here/t.zip").exists() and not (place / "here/deep").exists()
    # Killed between download and unpacking:
    (place / "here/truth.csv").unlink()
    before = len(kaggle.requests)
    assert script.main(["here"]) == 0
    assert (place / "here/truth.csv").exists() and len(kaggle.requests) == before


def test_an_archive_that_would_write_elsewhere_is_not_unpacked(
    kaggle: FakeKaggle, place, monkeypatch, capsys
):
    kaggle.datasets["evil/jpeg"] = {"zip": zipped({"../../evil.csv": b"x"}), "files": {}}
    use(monkeypatch, Item("jpeg.zip", 1, dataset="evil/jpeg", unpack="all", instead="jpeg"))
    code, told = text_of_exit(["here"], capsys)
    assert code == 2 and "would leave the folder" in told
    assert not list(place.parent.rglob("evil.csv"))
    assert not list(place.rglob("*.zip"))


def test_files_of_many_pages_are_listed(kaggle: FakeKaggle):
    kaggle.files = {f"{i}.csv": bytes(i) for i in range(8)}
    assert remote.competition_files() == {f"{i}.csv": i for i in range(8)}
    kaggle.datasets["a/b"] = {"files": {f"{i}.csv": bytes(i) for i in range(8)}}
    assert remote.dataset_files("a/b") == {f"{i}.csv": i for i in range(8)}


def test_catalogue_and_input_readme_agree():
    rows = {}
    for line in (CODE / "input/README.md").read_text().splitlines():
        if line.startswith("| `") and "/`" in line:
            rows[line.split("`")[1].rstrip("/")] = line
    for name, source in catalogue.CATALOGUE.items():
        row = rows[source.folder]
        assert f"`{name}`" in row and source.licence in row, name
        assert source.size in row, (name, source.size)
        for item in source.items:
            known = item.instead or item.name
            assert known.removesuffix(".zip") in row, item.name


def test_addresses_are_those_that_the_owners_publish():
    for source in catalogue.CATALOGUE.values():
        for item in source.items:
            assert sum([bool(item.address), bool(item.dataset), item.kaggle]) == 1
            assert not item.address or item.address.startswith("https://")
