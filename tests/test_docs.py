"""The documentation pages: made from results files, and never different from them."""

import copy
import json
import subprocess
from pathlib import Path

import pytest

import docs
from lesions import provenance
from lesions.errors import InputError
from lesions.files import read_json
from lesions.paths import CODE
from lesions.reporting.docs import BEGIN, END


def score(auc: float | None) -> dict:
    if auc is None:
        return {"auc": None, "low": None, "high": None, "rows": 10, "positives": 0}
    return {"auc": auc, "low": auc - 0.01, "high": auc + 0.01, "rows": 900, "positives": 90}


RESULTS = {
    "dataset": "real",
    "commands": ["python scripts/prepare.py --dataset real"],
    "machine": {"cpu": "Some CPU", "cores": 2, "memory_gb": 23.4},
    "versions": {"torch": "2.12.0", "timm": "1.0.26"},
    "commit": "abc1234",
    "data": {
        "rows": 12015,
        "positives": 1487,
        "groups": 9000,
        "sources": {
            "isic2019": {"rows": 10015, "positives": 1113, "test_rows": 1500},
            "isic2017": {"rows": 2000, "positives": 374, "test_rows": 300},
        },
    },
    "no_pixel": [
        {"features": "sex, age", "auc": 0.71, "low": 0.69, "high": 0.73, "source": None},
        {"features": "sex, age", "auc": 0.65, "low": 0.6, "high": 0.7, "source": "isic2017"},
    ],
    "runs": [
        {
            "run": "real/small", "question": "Does a|pipe break the table?",
            "backbone": "mobilenetv2_100", "image_size": 128, "parameters": 2_900_000,
            "seconds": 3600.0, "images_per_second": 51.4,
            "oof": {"overall": score(0.9123), "isic2019": score(0.93), "isic2017": score(None)},
            "last_auc": [0.9, 0.8], "best_auc": [0.9, 0.9],
            "test": {"overall": score(0.9), "isic2019": score(0.91), "isic2017": score(0.8)},
        }
    ],
    "blend": {
        "chosen": "rank_mean",
        "members": ["real/small"],
        "weights": {"real/small": 1.0},
        "oof": {"overall": {"auc": 0.925, "low": None, "high": None}},
        "nested": {"overall": score(0.921), "isic2019": score(0.93), "isic2017": score(0.85)},
        "test": {"overall": score(0.911), "isic2019": score(0.92), "isic2017": score(0.84)},
    },
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, RESULTS)
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\nstale text\n{END}\n\nrest\n")
    return tmp_path


def write(root: Path, results: dict) -> None:
    (root / "docs/results").mkdir(parents=True, exist_ok=True)
    (root / "docs/results/real.json").write_text(json.dumps(results))


def test_the_pages_of_this_checkout_are_those_of_its_results():
    assert docs.main(["--check"]) == 0


def test_check_finds_pages_that_are_missing_or_changed_by_hand_and_writes_nothing(root):
    asked = ["--root", str(root)]
    assert docs.main(["--check", *asked]) == 1
    assert not (root / "docs/results.md").exists()
    for path in (root / "docs/results.md", root / "README.md"):
        docs.main(asked)
        assert docs.main(["--check", *asked]) == 0
        path.write_text(path.read_text().replace("0.912", "0.999"))
        assert docs.main(["--check", *asked]) == 1


def test_every_score_and_command_is_on_the_pages_and_the_readme_keeps_its_own_text(root):
    docs.main(["--root", str(root)])
    readme, page = (root / "README.md").read_text(), (root / "docs/results.md").read_text()
    assert readme.startswith(f"# Title\n\n{BEGIN}\n") and readme.endswith(f"{END}\n\nrest\n")
    assert "stale text" not in readme
    assert "| `real/small` | 0.912 (0.902 to 0.922) | 0.900 (0.890 to 0.910) |" in readme
    assert "| `real/small` | 0.912 (0.902 to 0.922) | 0.930 (0.920 to 0.940) | n/a |" in page
    assert "sex, age | 0.710 (0.690 to 0.730) |  | 0.650 (0.600 to 0.700) |" in page
    assert "| **blend** (rank_mean, nested) | 0.921 (0.911 to 0.931) |" in page
    assert "python scripts/prepare.py --dataset real" in page
    assert "Some CPU, 2 cores" in page


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


def test_a_missing_key_missing_markers_and_missing_results_are_named(root):
    asked = ["--root", str(root)]
    docs.main(asked)
    write(root, {key: value for key, value in RESULTS.items() if key != "machine"})
    with pytest.raises(InputError, match="results.md.j2: .*'machine'; its results are real"):
        docs.main(asked)
    write(root, RESULTS)
    (root / "README.md").write_text("# Title\n")
    with pytest.raises(InputError, match="results:begin"):
        docs.main(asked)
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
