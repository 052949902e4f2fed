"""The documentation pages: made from results files, and never different from them."""

import copy
import json
from pathlib import Path

import pytest

import docs
from lesions.errors import InputError
from lesions.paths import CODE
from lesions.reporting.pages import BEGIN, END, PAGES, render


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
            "run": "real/small",
            "question": "Does a|pipe break the table?",
            "backbone": "mobilenetv2_100",
            "image_size": 128,
            "parameters": 2_900_000,
            "seconds": 3600.0,
            "images_per_second": 51.4,
            "oof": {"overall": score(0.9123), "isic2019": score(0.93), "isic2017": score(None)},
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
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, RESULTS)
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\nstale text\n{END}\n\nrest\n")
    return tmp_path


def write(root: Path, results: dict) -> None:
    (root / "docs/results").mkdir(parents=True, exist_ok=True)
    (root / "docs/results/real.json").write_text(json.dumps(results))


def test_the_pages_of_this_checkout_are_those_of_its_results():
    assert docs.main(["--check", "--root", str(CODE)]) == 0


def test_check_fails_until_the_pages_are_written_and_writes_nothing(root):
    assert docs.main(["--check", "--root", str(root)]) == 1
    assert not (root / "docs/results.md").exists()
    assert docs.main(["--root", str(root)]) == 0
    assert docs.main(["--check", "--root", str(root)]) == 0


@pytest.mark.parametrize("page", ["docs/results.md", "README.md"])
def test_a_number_changed_by_hand_is_found(root, page):
    docs.main(["--root", str(root)])
    path = root / page
    path.write_text(path.read_text().replace("0.912", "0.999"))
    assert docs.main(["--check", "--root", str(root)]) == 1


def test_the_readme_keeps_what_stands_around_the_block(root):
    docs.main(["--root", str(root)])
    text = (root / "README.md").read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nrest\n")
    assert "stale text" not in text
    assert "| `real/small` | 0.912 (0.902–0.922) | 0.900 (0.890–0.910) |" in text


def test_every_score_and_command_is_on_the_page(root):
    text = render(root)[root / "docs/results.md"]
    assert "| `real/small` | 0.912 (0.902–0.922) | 0.930 (0.920–0.940) | n/a |" in text
    assert "| no pixels: sex, age | 0.710 (0.690–0.730) |  | 0.650 (0.600–0.700) |" in text
    assert "| **blend** (rank_mean, nested) | 0.921 (0.911–0.931) |" in text
    assert "chosen on the rows that are scored | 0.925 |" in text
    assert "python scripts/prepare.py --dataset real" in text
    assert "Some CPU, 2 cores" in text


def test_tables_have_as_many_cells_in_each_row(root):
    for text in render(root).values():
        for block in text.split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1


def test_a_run_without_blend_or_test_still_has_a_page(root):
    results = copy.deepcopy(RESULTS)
    results["blend"] = None
    results["runs"][0]["test"] = None
    write(root, results)
    assert "Not measured." in render(root)[root / "docs/results.md"]


def test_a_missing_key_names_the_file_and_the_key(root):
    write(root, {key: value for key, value in RESULTS.items() if key != "machine"})
    with pytest.raises(InputError, match=r"real.json: docs/results.md needs the key 'machine'"):
        render(root)


def test_a_readme_without_the_markers_is_refused(root):
    (root / "README.md").write_text("# Title\n")
    with pytest.raises(InputError, match="results:begin"):
        render(root)


def test_a_page_whose_results_are_gone_is_refused(root):
    docs.main(["--root", str(root)])
    (root / "docs/results/real.json").unlink()
    with pytest.raises(InputError, match="which is not there"):
        render(root)


def test_no_page_is_listed_twice():
    assert len({page.path for page in PAGES}) == len(PAGES)
