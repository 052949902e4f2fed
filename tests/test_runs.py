"""What --run means: the same in every script."""

import pytest

from lesions.errors import InputError
from lesions.runs import find_run, run_folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LESIONS_ROOT", str(tmp_path))
    for run in ("effnet_b1", "demo/tiny"):
        (tmp_path / "oof" / run).mkdir(parents=True)
        for name in ("fold0.csv", "fold1.csv", "fold10.csv", "fold1.safetensors"):
            (tmp_path / "oof" / run / name).touch()
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions/blend.json").touch()
    return tmp_path


def test_a_name_a_folder_and_an_absolute_path_are_one_run(root, monkeypatch):
    monkeypatch.chdir(root)
    for spec in ("demo/tiny", "oof/demo/tiny", str(root / "oof/demo/tiny"), root / "oof/demo/tiny"):
        found = find_run(spec)
        assert found.name == "demo/tiny" and found.folder.resolve() == root / "oof/demo/tiny"
        assert found.folds is None and found.blend is None
        assert found.numbers(".csv") == [0, 1, 10] and found.numbers(".safetensors") == [1]


def test_a_weights_file_is_one_fold_of_its_run(root):
    found = find_run("oof/demo/tiny/fold1.safetensors")
    assert (found.name, found.folds) == ("demo/tiny", (1,))
    assert found.numbers(".csv") == [1] and found.file(1, ".csv").is_file()


def test_a_blend_is_found_below_submissions_and_refused_where_it_has_no_meaning(root):
    found = find_run("submissions/blend.json")
    assert found.blend == find_run("blend.json").blend == root / "submissions/blend.json"
    with pytest.raises(InputError, match="blend.json is a blend; this takes a run or one fold's"):
        find_run("blend.json", takes=("run", "weights"))
    with pytest.raises(InputError, match=r"fold1.safetensors is one fold's weights; this takes a"):
        find_run("oof/effnet_b1/fold1.safetensors", takes=("run",))


def test_a_wrong_name_is_answered_with_the_near_ones(root):
    with pytest.raises(
        InputError, match=r"no such run \(did you mean effnet_b1\?\); runs here: de"
    ):
        find_run("oof/effnet_b2")
    with pytest.raises(InputError, match="weights is called|are called fold<k>.safetensors"):
        (root / "oof/effnet_b1/last.safetensors").touch()
        find_run("oof/effnet_b1/last.safetensors")


@pytest.mark.parametrize("name", ["", "../x", "/tmp/x", ".", "a/../../b"])
def test_a_run_is_written_below_oof_alone(root, name):
    with pytest.raises(InputError, match="give a name below oof/"):
        run_folder(name)
    assert run_folder("tests/quick") == root / "oof/tests/quick"
