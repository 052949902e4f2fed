"""Hostile and damaged input: bounded work, one sentence, the documented exit code."""

import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from attack import attack, build_run
from PIL import Image

from lesions.cli import run
from lesions.data.columns import MISSING, SEX_WORDS, SITE_WORDS
from lesions.data.decode import UnreadableImage, decode
from lesions.errors import InputError
from lesions.inference.predictor import Patient, Predictor
from lesions.paths import CODE


def portrait(orientation: int = 1, **how) -> bytes:
    """A JPEG that is 60 wide and 90 high when it is looked at, stored as `orientation` says."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    stored = np.rot90(pixels) if orientation == 6 else pixels
    Image.fromarray(stored.copy()).save(file, "JPEG", exif=exif, **how)
    return file.getvalue()


def test_no_damaged_file_and_no_option_ends_in_a_traceback(tmp_path: Path) -> None:
    build_run(tmp_path)
    found = attack(tmp_path, seconds=10)
    assert found["tracebacks"] == [] and found["slow"] == []
    for kind, counts in found["counts"].items():
        assert sum(counts.values()) > 0, kind
    for ending in ("answer", "sentence"):
        assert sum(counts[ending] for counts in found["counts"].values()) > 5  # if the CPU is busy


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    whole = portrait(progressive=True)
    assert decode(whole, 32)[1] == (60, 90)
    last = whole.rindex(b"\xff\xda")
    bomb = whole[:-2] + whole[last:-2] * 8000 + b"\xff\xd9"
    with pytest.raises(UnreadableImage, match="scans, more than 100"):
        decode(bomb, 32)
    service = pytest.importorskip("lesions.serving.service", exc_type=ImportError)
    with pytest.raises(service.RefusedError, match="scans") as refused:
        service.check_photo(bomb, service.Limits())
    assert refused.value.status == 413


def test_a_pipe_or_a_folder_is_no_photograph(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in {"pipe.jpg": "not a file", "": "not a file", "x": "no such file"}.items():
        with pytest.raises(UnreadableImage, match=reason):
            decode(tmp_path / name, 32)


def test_the_overlay_of_a_turned_photograph_has_its_upright_shape(trained: Path) -> None:
    predictor = Predictor.load("tiny")
    for orientation in (1, 6):
        photo = portrait(orientation)
        found = predictor.predict(photo)
        assert (found.width, found.height) == (60, 90)
        assert predictor.explain(photo, None, found).shape == (448, 299, 3)


def test_a_person_is_described_in_the_words_of_the_tables() -> None:
    for word in MISSING:
        assert Patient(word.upper(), word, word) == Patient()
    for words, field in ((SEX_WORDS, "sex"), (SITE_WORDS, "site")):
        for word, meaning in words.items():
            assert getattr(Patient(**{field: f" {word.title()} "}), field) == meaning
    assert Patient("55").age == Patient(55).age == 55
    for wrong in ({"age": 5500}, {"age": "inf"}, {"sex": "x"}, {"site": "moon"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} .*leave it out"):
            Patient(**wrong)


@pytest.mark.parametrize("code", [2, 75, 130, 143])
def test_train_all_ends_with_the_exit_code_of_train(code: int, tmp_path: Path) -> None:
    for name, text in {"python": f"echo $*; exit {code}", "nvidia-smi": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOURS": "2"}
    ended = subprocess.run(["bash", CODE / "scripts/train_all.sh", "configs/effnet_b1.yaml"],
                           env=os.environ | path, capture_output=True, text=True)  # fmt: skip
    assert ended.returncode == code
    assert re.search(r"train.py --config configs/effnet_b1.yaml .*--max-hours 2$", ended.stdout)


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        ('raise torch.OutOfMemoryError("CUDA out of memory. Tried")', 2, "train.micro_batch"),
        ('open("no/such/file")', 2, "error: no/such/file: No such file"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ('raise RuntimeError("a bug")', 1, "Traceback"),
    ],
)
def test_what_is_not_the_programs_fault_is_one_sentence(
    problem: str, code: int, message: str
) -> None:
    program = f"import torch\nfrom lesions.cli import run\ndef main(): {problem}\nrun(main)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": str(CODE / "src")})  # fmt: skip
    assert ended.returncode == code and message in ended.stderr
    assert ("Traceback" in ended.stderr) == (code == 1)


def test_a_reader_that_closes_the_pipe_is_no_error(capfd: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise BrokenPipeError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "stdout", sys.stdout)
        run(main)
    assert ended.value.code == 0
