"""The documentation pages: made from results files, and never different from them."""

import copy
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import docs
from lesions import provenance
from lesions.errors import InputError
from lesions.evaluation.intervals import format_interval
from lesions.files import read_json
from lesions.paths import CODE

RESULTS = read_json(CODE / "docs/results/real.json")
RUN = RESULTS["runs"][0]
RUN |= {"run": "real/small", "question": "Does a|pipe break the table?"}
RUN["oof"]["overall"] = {"auc": 0.9123, "low": 0.9023, "high": 0.9223, "rows": 900}


@pytest.fixture
def root(tmp_path) -> Path:
    write(tmp_path, RESULTS)
    for name in ("siim2020", "ham10000", "dermamnist", "published"):
        shutil.copy(CODE / f"docs/results/{name}.json", tmp_path / "docs/results")
    return tmp_path


def write(root: Path, results: dict) -> None:
    (root / "docs/results").mkdir(parents=True, exist_ok=True)
    (root / "docs/results/real.json").write_text(json.dumps(results))


def test_the_pages_of_this_checkout_are_those_of_its_results():
    assert docs.main(["--check"]) == 0
    index = (CODE / "docs/index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (CODE / "docs").glob("*.md")} - {"index.md"}
    assert [page for page in sorted(pages) if f"({page})" not in index] == []


def test_check_finds_pages_that_are_missing_or_changed_by_hand_and_writes_nothing(root):
    asked = ["--root", str(root)]
    assert docs.main(["--check", *asked]) == 1
    assert not (root / "docs/results.md").exists()
    for path in (root / "docs/results.md", root / "README.md"):
        docs.main(asked)
        assert docs.main(["--check", *asked]) == 0
        path.write_text(path.read_text().replace("0.912", "0.999"))
        assert docs.main(["--check", *asked]) == 1


def test_every_score_and_command_is_on_the_pages(root):
    docs.main(["--root", str(root)])
    readme, page = (root / "README.md").read_text(), (root / "docs/results.md").read_text()
    assert "| `real/small` | 0.912 (0.902 to 0.922) |" in page
    assert "AUC 0.912 (0.902 to 0.922) | metadata alone 0." in readme
    assert len(readme.splitlines()) <= 150
    for one in RESULTS["runs"] + RESULTS["no_pixel"]:
        for score in one["oof"].values() if "oof" in one else [one]:
            assert format_interval(score["auc"], score["low"], score["high"]) in page
    nested = RESULTS["blend"]["nested"]["overall"]
    assert f"nested) | {format_interval(nested['auc'], nested['low'], nested['high'])} |" in page
    assert RESULTS["commands"][0] in page and RESULTS["machine"]["cpu"] in page


@pytest.mark.parametrize("changes", [{}, {"blend": None}, {"test": None}])
def test_tables_have_as_many_cells_in_each_row(root, changes):
    results = copy.deepcopy(RESULTS)
    results["blend"] = changes.get("blend", results["blend"])
    results["runs"][0]["test"] = changes.get("test", results["runs"][0]["test"])
    write(root, results)
    docs.main(["--root", str(root)])
    for page in [*CODE.glob("docs/*.md"), root / "docs/results.md", root / "README.md"]:
        for block in page.read_text().split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1, block


def test_a_missing_key_and_missing_results_are_named(root):
    asked = ["--root", str(root)]
    docs.main(asked)
    write(root, {key: value for key, value in RESULTS.items() if key != "machine"})
    with pytest.raises(InputError, match="results.md.j2: .*'machine'; its results are real"):
        docs.main(asked)
    write(root, RESULTS)
    (root / "docs/results/real.json").unlink()
    with pytest.raises(InputError, match="results are missing: docs/results/real.json"):
        docs.main(asked)


def test_results_are_refused_from_code_that_is_not_committed(tmp_path, monkeypatch, capsys):
    import blending

    for file in ("docs/page.md", "code.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("one")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "CODE", tmp_path)
    (tmp_path / "docs/page.md").write_text("two")
    assert provenance.commit().endswith("-dirty")
    assert not provenance.clean_commit().endswith("-dirty")  # a written page is no code
    out, small = tmp_path / "out.json", ["--rows", "400", "--members", "2"]
    (tmp_path / "code.py").write_text("two")
    with pytest.raises(InputError, match=r"code\.py.*commit first"):
        blending.main(["--out", str(out)])
    assert not out.exists()
    assert blending.main([*small, "--out", str(out), "--allow-dirty"]) == 0
    assert read_json(out)["commit"].endswith("-dirty") and "warning" in capsys.readouterr().out
