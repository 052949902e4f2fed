"""Hostile and damaged input: bounded work, one sentence, the documented exit code."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from attack import attack, build_run
from conftest import interrupted_run, tiny_run
from PIL import Image
from predict import main as predict
from safetensors.torch import load_file
from train import main as train

from lesions.cli import run
from lesions.config import PreprocessConfig, load_config
from lesions.data.columns import MISSING, SEX_WORDS, SITE_WORDS
from lesions.data.decode import UnreadableImage, decode
from lesions.errors import InputError
from lesions.files import read_json, sha256, write_json
from lesions.inference.checkpoint import load_model, save_model
from lesions.inference.predictor import Patient, Predictor
from lesions.paths import CODE, at
from lesions.training.state import save_state, state_path


def portrait(orientation: int = 1, **how) -> bytes:
    """A JPEG that is 60 wide and 90 high when it is looked at, stored as `orientation` says."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    stored = np.rot90(pixels) if orientation == 6 else pixels
    Image.fromarray(stored.copy()).save(file, "JPEG", exif=exif, **how)
    return file.getvalue()


def test_no_damaged_file_and_no_option_ends_in_a_traceback(tmp_path):
    build_run(tmp_path)
    found = attack(tmp_path, seconds=10)
    assert found["tracebacks"] == [] and found["slow"] == []
    for kind, counts in found["counts"].items():
        assert sum(counts.values()) > 0, kind
    for ending in ("answer", "sentence"):
        assert sum(counts[ending] for counts in found["counts"].values()) > 5  # if the CPU is busy


def scans(whole: bytes, count: int) -> bytes:
    """A progressive JPEG with its last scan repeated, which changes nothing, up to `count`."""
    last, more = whole.rindex(b"\xff\xda"), count - whole.count(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * more + b"\xff\xd9"


def large(count: int) -> bytes:
    """A quarter of a megabyte that is 39.8 million pixels, in `count` scans."""
    file = BytesIO()
    Image.new("RGB", (7300, 5450), "tan").save(file, "JPEG", progressive=True)
    return scans(file.getvalue(), count)


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded():
    whole = portrait(progressive=True)
    assert decode(whole, 32)[1] == decode(scans(whole, 100), 32)[1] == (60, 90)
    bomb = scans(whole, 8000)
    for bad, most in ((bomb, 100), (large(31), 30)):
        with pytest.raises(UnreadableImage, match=f"scans, more than {most}"):
            decode(bad, 32)
    service = pytest.importorskip("lesions.serving.service", exc_type=ImportError)
    with pytest.raises(service.RefusedError, match="scans") as refused:
        service.check_photo(bomb, service.Limits())
    assert refused.value.status == 413


@pytest.fixture(scope="module")
def url(trained) -> Iterator[str]:
    """A server of the tiny run that gives a photograph a third of a second to become pixels."""
    pytest.importorskip("gradio", "6.16", reason="the serve extra is not installed")
    serving = importlib.import_module("serving")
    with serving.served(Predictor.load("tiny"), serving.Limits(decode_seconds=0.3)) as address:
        yield address


def post(url: str, content: bytes, **fields: object):
    httpx = pytest.importorskip("httpx")
    return httpx.post(f"{url}/api/predict", content=content, params=fields, timeout=60)


def test_a_photograph_that_takes_too_long_is_given_up_and_the_next_one_answered(url):
    for content, status in ((large(30), 422), (portrait(), 200), (large(30), 422)):
        answer = post(url, content)
        assert answer.status_code == status, answer.text
        assert status == 200 or "not decoded within 0.3 seconds" in answer.text


def test_a_pipe_or_a_folder_is_no_photograph(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {"pipe.jpg": "not a file", "": "not a file", "x": "no such file"}.items():
        with pytest.raises(UnreadableImage, match=reason):
            decode(tmp_path / name, 32)


def test_the_overlay_of_a_turned_photograph_has_its_upright_shape(trained):
    predictor = Predictor.load("tiny")
    for orientation in (1, 6):
        photo = portrait(orientation)
        found = predictor.predict(photo)
        assert (found.width, found.height) == (60, 90)
        assert predictor.explain(photo, None, found).shape == (448, 299, 3)


def test_a_person_is_described_in_the_words_of_the_tables():
    for word in MISSING:
        assert Patient(word.upper(), word, word) == Patient()
    for words, field in ((SEX_WORDS, "sex"), (SITE_WORDS, "site")):
        for word, meaning in words.items():
            assert getattr(Patient(**{field: f" {word.title()} "}), field) == meaning
    assert Patient("55").age == Patient(55).age == 55
    for wrong in ({"age": 5500}, {"age": "inf"}, {"sex": "x"}, {"site": "moon"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} .*leave it out"):
            Patient(**wrong)


def test_rest_and_the_command_line_take_and_refuse_the_same_words(url, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(portrait())
    command = ["--run", "tiny", "--images", str(tmp_path / "a.jpg"),
               "--out", str(tmp_path / "o.csv")]  # fmt: skip
    given = {"age": " 55", "sex": "Female", "site": "POSTERIOR torso"}
    told = Predictor.load("tiny").predict(portrait(), Patient(**given))
    predict([*command, *(word for key in given for word in (f"--{key}", given[key]))])
    assert pd.read_csv(tmp_path / "o.csv")["prob"][0] == pytest.approx(told.score, abs=1e-6)
    assert post(url, portrait(), **given).json()["score"] == pytest.approx(told.score, abs=1e-6)
    for key, wrong in {"age": "5500", "sex": "x", "site": "moon"}.items():
        with pytest.raises((InputError, SystemExit)) as refused:
            predict([*command, f"--{key}", wrong])
        said = f"{refused.value}{capsys.readouterr().err}"
        answer = post(url, portrait(), **{key: wrong})
        reason = f"{key} '{wrong}': give "
        assert reason in said and reason in answer.text and answer.status_code == 422


def test_a_state_under_a_true_checksum_whose_values_are_of_no_fold_is_refused(demo, monkeypatch):
    arguments = [*tiny_run("sealed", "train.save_steps=1"), "--fold", "0"]
    interrupted_run(arguments, 1, monkeypatch)
    path = state_path(at("oof/sealed"), 0)
    state = torch.load(path, weights_only=True)
    moments = state["optimizer"]["state"]
    for key, wrong in (
        ("progress", state["progress"] | {"step": 10**6}),
        ("progress", state["progress"] | {"history": ["x"]}),
        ("model", {}),
        ("best", {"x": None}),
        ("optimizer", {"state": moments | {0: moments[0] | {"exp_avg": torch.tensor(torch.nan)}}}),
        ("optimizer", {"state": moments | {0: {"step": torch.tensor(1.0)}}}),
    ):
        save_state(path, state | {key: wrong})
        with pytest.raises(InputError, match=r"fold0\.pt: no state of this fold .*delete"):
            train(arguments)
    save_state(path, state)
    assert train(arguments) == 0


def test_what_cannot_be_written_is_one_sentence(demo, capsys):
    oof = at("oof/places")
    (oof / "folder/config.yaml").mkdir(parents=True)
    (oof / "lock/.fold0.lock").mkdir(parents=True)
    (oof / "file").write_text("")
    (oof / "dangling").symlink_to(oof / "nowhere/at all")
    (oof / "closed").symlink_to("/sys")  # closed to root, too
    before = sorted(oof.iterdir())
    for name in ("folder", "lock", "file", "dangling", "closed", "a" * 300):
        with pytest.raises(SystemExit) as ended:
            run(lambda name=name: train([*tiny_run(f"places/{name}"), "--fold", "0"]))
        assert ended.value.code == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ") and name in last, last
    assert sorted(oof.iterdir()) == before


def test_yaml_and_json_that_expand_nest_or_are_of_another_shape_are_refused_at_once(tmp_path):
    path = tmp_path / "a.yaml"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for content, message in {
        b"dataset: demo\nmodel: {backbone: x, backbone_args: {a: &a 1, b: *a}}": "aliases",
        bomb.encode(): "aliases",
        b"extends: 5": "give one file's name",
        b"[" * 100_000: "not valid YAML",
        b"dataset: \xff": "not a readable text file",
        b"- a": "expected keys",
        b"seed: 2026-11-26": "not valid YAML",
    }.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_config(path)
    with pytest.raises(InputError, match="no such config"):
        load_config(tmp_path)
    for content in (b"[" * 100_000, b'{"a": "\xff"}', b"[1]", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.yaml: (not valid JSON|no task)"):
            read_json(path, ("task",))


def test_every_launch_is_quiet_so_that_the_last_line_is_ours():
    launch = re.compile(r"accelerate[ \",']+launch[ \",']+([^`\n]*\.py)")
    found = []
    for folder in ("README.md", "docs", "scripts", "src", "notebooks", "configs", "studies"):
        place = CODE / folder
        for path in [place] if place.is_file() else place.rglob("*.*"):
            if path.suffix in (".md", ".j2", ".py", ".sh", ".yaml", ".ipynb"):
                found += [(path, end) for end in launch.findall(path.read_text(encoding="utf-8"))]
    assert len(found) > 20
    assert [each for each in found if not each[1].startswith("--quiet")] == []


KINDS = [{"circle": True}, {"clahe": True}, {"hair": True}, {"shades_of_gray": True},
         {"fit": "crop"}, {"fit": "pad"}]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_photograph_of_ones_own_goes_through_the_preprocessing_of_the_training(
    kind, trained, tmp_path
):
    """The answer is that of a run without any for the pixels that the preprocessing makes."""
    weights, (_, header) = trained / "fold0.safetensors", load_model(trained / "fold0.safetensors")
    for name, preprocess in {"plain": {}, "own": kind, "calibrated": kind}.items():
        own = {"preprocess": PreprocessConfig(**preprocess).model_dump()}
        save_model(tmp_path / name / weights.name, load_file(weights), header | own)
    known = read_json(trained / "calibration.json")
    known["weights"] = {weights.name: sha256(tmp_path / "calibrated" / weights.name)}
    write_json(tmp_path / "calibrated/calibration.json", known)
    y, x = np.mgrid[:300, :400]
    field = np.full((300, 400, 3), (190, 150, 120), np.uint8)
    field[np.hypot(x - 200, y - 150) < 70] = (110, 70, 60)
    field[np.abs(x - y - 20) < 3] = (45, 35, 30)  # a hair
    field[np.hypot(x - 200, y - 150) > 205] = 5
    photo, made = BytesIO(), BytesIO()
    Image.fromarray(field).save(photo, "PNG")
    content = photo.getvalue()
    Image.fromarray(decode(content, 32, PreprocessConfig(**kind))[0]).save(made, "PNG")
    plain = Predictor.load(tmp_path / "plain")
    expected = plain.predict(made.getvalue()).score
    assert abs(expected - plain.predict(content).score) > 5e-6  # it matters
    for name in ("own", "calibrated"):
        spied = Mock(side_effect=decode)
        predictor = replace(Predictor.load(tmp_path / name), decode=spied)
        told = predictor.predict(content)
        assert told.score == pytest.approx(expected, abs=1e-6)
        assert (told.calibrated is not None) == (name == "calibrated")
        predictor.explain(content, None, told)
        assert [call.args[2] for call in spied.call_args_list] == 3 * [PreprocessConfig(**kind)]


def stubbed(tmp_path, script, *arguments, **programs):
    """What a shell script does with programs that only print their name and arguments."""
    for name, text in {"nvidia-smi": "exit 1", **programs}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} $* >&2\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "7"}
    return subprocess.run(["bash", CODE / "scripts" / script, *arguments], env=environment,
                          capture_output=True, text=True)  # fmt: skip


@pytest.mark.parametrize("code", [0, 2, 75, 130, 143])
def test_shell_scripts_end_with_the_exit_code_of_what_they_run(code, tmp_path, monkeypatch):
    """A SLURM task requeues itself until its fold is done."""
    monkeypatch.setenv("HOURS", "2")
    done = stubbed(tmp_path, "train_all.sh", "configs/effnet_b1.yaml", python=f"exit {code}")
    assert done.returncode == code
    first = done.stderr.splitlines()[0]
    assert re.search(r"train.py --config configs/effnet_b1.yaml .*--max-hours 2$", first)
    kernel = f'case "$*" in *train*) exit {code};; -c*) echo demo 32;; esac'
    done = stubbed(tmp_path, "kaggle_run.sh", "effnet_b1", "effnet_b3", python=kernel)
    assert done.returncode == code, done.stderr
    done = stubbed(tmp_path, "slurm_fold.sh", "effnet_b1", srun=f"exit {code}", scontrol="exit 0")
    assert done.returncode == code and "--config effnet_b1 --fold 3" in done.stderr
    assert ("scontrol requeue 7_3" in done.stderr) == (code in (75, 143))


def test_the_four_configs_are_trained_on_deottes_copies_under_their_own_names(tmp_path):
    done = stubbed(tmp_path, "train_all.sh", "--dataset", "isic_deotte", python="exit 0")
    lines, runs = done.stderr.splitlines(), ["effnet_b1", "effnet_b3", "effnet_b4", "resnest50"]
    for name, line in zip(runs, lines[::2], strict=False):
        assert f"--config configs/{name}.yaml --name deotte/{name} --fold all" in line
        assert line.endswith("--set dataset=isic_deotte")
        config = load_config(name, ["dataset=isic_deotte"])
        assert (CODE / f"configs/datasets/{config.dataset}.yaml").exists()
    assert lines[-1].endswith(" ".join(f"deotte/{run}" for run in runs))


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        ('import torch; raise torch.OutOfMemoryError("CUDA")', 2, "train.micro_batch"),
        ('open("no/such/file")', 2, "error: no/such/file: No such file"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise BrokenPipeError", 0, ""),  # what is printed is read by head, say
        ('raise RuntimeError("a bug")', 1, "Traceback"),
    ],
)
def test_what_is_not_the_programs_fault_is_one_sentence(problem, code, message):
    program = f"from lesions.cli import run\ndef main(): {problem}\nrun(main)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": str(CODE / "src")})  # fmt: skip
    assert ended.returncode == code and message in ended.stderr
    assert ("Traceback" in ended.stderr) == (code == 1)
