"""What the repository is besides its code: requirements, the wheel, the model in models/."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from lesions import __version__
from lesions.inference import Predictor
from lesions.inference.predictor import Patient
from lesions.paths import CODE

EXAMPLES = CODE / "models/examples"
ANSWERS = json.loads((EXAMPLES / "answers.json").read_text())
PROJECT = tomllib.loads((CODE / "pyproject.toml").read_text())["project"]


def test_requirements_are_those_of_inference_and_of_kaggle():
    lines = (CODE / "requirements.txt").read_text().splitlines()
    listed = {re.sub(r"\s*#.*", "", line) for line in lines} - {""}
    assert listed == {*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["kaggle"]}


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_the_model_in_the_box_gives_its_stored_answers(name):
    known = ANSWERS[name]
    answer = Predictor.load(None).predict(EXAMPLES / f"{name}.jpg", Patient(**known["person"]))
    assert answer.probs == pytest.approx(known["probs"], abs=1e-3)
    assert answer.threshold == pytest.approx(known["threshold"], abs=1e-9)


def test_a_wheel_predicts_without_the_checkout_and_without_kaggles_client(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "copy"  # building leaves files beside the code
    for name in ("src", "configs", "models"):
        shutil.copytree(CODE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CODE / name, copy)
    subprocess.run([*build, str(copy), "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("lesions-*.whl")
    assert __version__ in wheel.name
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "asked.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import lesions\n"
        "from lesions.config import load_config\n"
        "from lesions.inference import Predictor\n"
        "from lesions.reporting.page import environment\n"
        "print(lesions.__version__, load_config('effnet_b1').train.epochs)\n"
        "print(Predictor.load(None).predict(Path(sys.argv[1])).score)\n"
        "print('report.html.j2' in environment().list_templates())\n"
        "print({'kaggle', 'jupytext', 'gradio'} & {*sys.modules})\n"
    )
    photo = str(EXAMPLES / f"{min(ANSWERS)}.jpg")
    environment = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "asked.py", photo],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    version, epochs, score, *rest = done.stdout.split()
    assert (version, epochs, rest) == (__version__, "15", ["True", "set()"])
    assert 0 < float(score) < 1
