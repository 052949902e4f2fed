"""Downloads through the genuine client and from plain addresses, with every fault to order."""

import hashlib
import io
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import download as script
import numpy as np
import pytest
from kaggle_fake import TOKEN

from lesions.cli import run
from lesions.data import downloads
from lesions.errors import InputError
from lesions.kaggle import client
from lesions.paths import CODE

CSV = b"image_name\nISIC_1\n"
BODY = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def place(root) -> Path:
    """input/here, where the data set `here` goes."""
    return root / "input/here"


def use(monkeypatch, *items: dict[str, Any]) -> None:
    """Make `here` the only data set, of these files, which come from the fake."""
    source = {"folder": "here", "licence": "CC-0", "page": "https://owner.example/data",
              "files": [{"megabytes": 1} | item for item in items]}  # fmt: skip
    monkeypatch.setattr(downloads, "catalogue", lambda: {"here": source})
    monkeypatch.setitem(client.ADDRESSES, "owner", ["http://owner.invalid"])


def plain(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "from": f"owner/{name}"} | more


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def failure(capsys) -> str:
    """What is printed when the command ends with 2, on one line and without secrets."""
    with pytest.raises(SystemExit) as ended:
        run(lambda: script.main(["here"]))
    text = "".join(capsys.readouterr())
    assert ended.value.code == 2
    assert len([line for line in text.splitlines() if line.startswith("error:")]) == 1
    assert TOKEN not in text and "sig0nature" not in text and "Traceback" not in text
    return text


def test_a_data_set_is_fetched_with_its_checksums(kaggle, place, monkeypatch, capsys):
    kaggle.files["train.csv.zip"] = zipped({"train.csv": CSV})  # as Kaggle sends larger ones
    kaggle.stored["/photographs.zip"] = zipped({"a.jpg": b"jpeg"})
    use(monkeypatch, {"name": "train.csv", "kaggle": True}, plain("photographs.zip"))
    assert script.main(["here"]) == 0
    assert (place / "train.csv").read_bytes() == CSV
    sums = (place / "SHA256SUMS").read_text().splitlines()
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    names = sorted(path.name for path in place.iterdir())
    assert names == ["SHA256SUMS", "photographs.zip", "train.csv"] and len(sums) == 2
    capsys.readouterr()
    before = len(kaggle.requests)
    assert script.main(["here"]) == 0
    assert "everything is here" in capsys.readouterr().out
    assert len(kaggle.requests) == before


def test_a_dry_run_and_an_unknown_name_ask_no_server(kaggle, place, capsys, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))
    assert script.main(["isic2020", "ham10000", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for expected in ("CC BY-NC 4.0", "31 GB", "2.8 GB", "train.csv", "free for "):
        assert expected in printed
    with pytest.raises(InputError, match="isic2020"):
        script.main(["isic2021"])
    assert not kaggle.requests and not place.parent.exists()


def test_too_small_a_disk_is_an_error_before_the_first_byte(kaggle, place, monkeypatch, capsys):
    use(monkeypatch, plain("huge.zip", megabytes=1e9))
    assert "make room" in failure(capsys)
    assert not kaggle.requests


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (401, "make a new token"),
        (403, "https://www.kaggle.com/competitions/siim-isic-melanoma-classification/rules"),
        (404, "check the name"),
        (500, "try again later"),
        ("lost", "no answer"),
        ("html", "web page"),
    ],
)
def test_a_refusing_server_ends_in_one_line(kaggle, place, monkeypatch, capsys, kind, expected):
    use(monkeypatch, {"name": "train.csv", "kaggle": True})
    kaggle.files["train.csv"] = CSV
    if kind == "html":
        kaggle.fail("/file/train.csv", kind)
    else:
        kaggle.fail("DownloadDataFile", kind, times=9, message=f"no, token {TOKEN}")
    assert expected in failure(capsys)
    assert not (place / "train.csv").exists()


@pytest.mark.parametrize("item", [{"name": "big.csv", "kaggle": True}, plain("big.csv")])
def test_a_cut_connection_resumes_at_the_byte(kaggle, place, monkeypatch, item):
    use(monkeypatch, item)
    kaggle.files["big.csv"] = kaggle.stored["/big.csv"] = BODY
    place_of = "/file/big.csv" if "kaggle" in item else "/big.csv"
    kaggle.fail(place_of, "cut", times=2, after=1_500_000)
    assert script.main(["here"]) == 0
    assert (place / "big.csv").read_bytes() == BODY
    starts = [headers["Range"] for _, _, headers in kaggle.requests if "Range" in headers]
    assert len(starts) == 2 and all(start != "bytes=0-" for start in starts)
    assert [path.name for path in place.iterdir() if path.name != "SHA256SUMS"] == ["big.csv"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_connection_cut_for_good_keeps_its_part(kaggle, place, monkeypatch, capsys, changed):
    use(monkeypatch, plain("big.csv"))
    kaggle.stored["/big.csv"] = BODY
    kaggle.fail("/big.csv", "cut", after=1_500_000)
    kaggle.fail("/big.csv", "cut", times=99)
    assert "check the network" in failure(capsys)
    assert not (place / "big.csv").exists()
    held = (place / ".part/big.csv").stat().st_size
    assert held >= 1_000_000
    kaggle.faults.clear()
    if changed:
        kaggle.stored["/big.csv"], kaggle.etag = BODY[::-1], '"2"'
    assert script.main(["here"]) == 0
    assert (place / "big.csv").read_bytes() == kaggle.stored["/big.csv"]
    resumed = kaggle.requests[-1][2].get("Range") == f"bytes={held}-"
    assert resumed != changed


def test_a_truncated_zip_is_removed(kaggle, place, monkeypatch, capsys):
    whole = zipped({"a.jpg": BODY})
    kaggle.stored["/p.zip"] = whole
    use(monkeypatch, plain("p.zip"))
    kaggle.fail("/p.zip", "truncated", after=len(whole) // 2)
    assert "not a whole zip" in failure(capsys) and not (place / "p.zip").exists()
    assert script.main(["here"]) == 0
    assert (place / "p.zip").read_bytes() == whole


def test_another_checksum_than_the_publishers_is_refused(kaggle, place, monkeypatch, capsys):
    kaggle.stored["/d.npz"] = BODY
    use(monkeypatch, plain("d.npz", md5="0" * 32))
    assert "not its publisher's" in failure(capsys)
    assert not list(place.rglob("*.*z"))
    use(monkeypatch, plain("d.npz", md5=hashlib.md5(BODY).hexdigest()))
    assert script.main(["here"]) == 0


def test_a_moved_file_is_looked_for_at_the_older_address(kaggle, place, monkeypatch, capsys):
    kaggle.stored["/older/a.csv"] = CSV
    use(monkeypatch, plain("a.csv"))
    addresses = ["http://new.invalid/newer", "http://old.invalid/older"]
    monkeypatch.setitem(client.ADDRESSES, "owner", addresses)
    assert script.main(["here"]) == 0
    assert (place / "a.csv").read_bytes() == CSV
    use(monkeypatch, plain("b.csv"))
    text = failure(capsys)
    assert "https://owner.example/data" in text and "owner.invalid" in text


def test_a_data_set_is_unpacked_to_its_folder(kaggle, place, monkeypatch):
    content = zipped({"train/a.jpg": b"jpeg", "train.csv": b"x", "readme.exe": b"?"})
    kaggle.datasets["cdeotte/jpeg"] = {"zip": content}
    zips = {"unpack": "all", "instead": "jpeg"}
    use(monkeypatch, {"name": "jpeg.zip", "dataset": "cdeotte/jpeg"} | zips)
    assert script.main(["here"]) == 0
    files = (path.relative_to(place / "jpeg") for path in (place / "jpeg").rglob("*.*"))
    assert sorted(map(str, files)) == ["train.csv", "train/a.jpg"]
    assert not (place / "jpeg.zip").exists()
    before = len(kaggle.requests)
    assert script.main(["here"]) == 0 and len(kaggle.requests) == before


def test_tables_come_out_of_a_zip_that_stays(kaggle, place, monkeypatch):
    kaggle.stored["/t.zip"] = zipped({"deep/er/truth.csv": b"x", "deep/a.jpg": b"jpeg"})
    use(monkeypatch, plain("t.zip", unpack="tables", instead="truth.csv"))
    assert script.main(["here"]) == 0
    assert (place / "truth.csv").read_bytes() == b"x"
    assert (place / "t.zip").exists() and not (place / "deep").exists()
    (place / "truth.csv").unlink()  # killed between download and unpacking
    before = len(kaggle.requests)
    assert script.main(["here"]) == 0
    assert (place / "truth.csv").exists() and len(kaggle.requests) == before


def test_an_archive_that_would_write_elsewhere_is_not_unpacked(kaggle, place, monkeypatch, capsys):
    kaggle.datasets["evil/jpeg"] = {"zip": zipped({"../../evil.csv": b"x"})}
    zips = {"unpack": "all", "instead": "jpeg"}
    use(monkeypatch, {"name": "jpeg.zip", "dataset": "evil/jpeg"} | zips)
    assert "evil.csv" in failure(capsys)
    assert not list(place.parents[1].rglob("evil.csv")) and not list(place.rglob("*.zip"))


def test_catalogue_and_readme_agree_and_a_file_has_one_origin_at_a_secure_address():
    addresses = [address for several in client.ADDRESSES.values() for address in several]
    assert all(address.startswith("https://") for address in addresses)
    rows = {}
    for line in (CODE / "input/README.md").read_text().splitlines():
        if line.startswith("| `") and "/`" in line:
            rows[line.split("`")[1].rstrip("/")] = line
    for name, source in downloads.catalogue().items():
        row = rows[source["folder"]]
        size = downloads.size_text(sum(item["megabytes"] for item in source["files"]))
        assert f"`{name}`" in row and source["licence"] in row and size in row, (name, size)
        for item in source["files"]:
            known = item.get("instead", item["name"])
            assert known.removesuffix(".zip") in row, item["name"]
            assert sum(bool(item.get(key)) for key in ("kaggle", "dataset", "from")) == 1
            assert item.get("from", "isic/").partition("/")[0] in client.ADDRESSES
