"""A notebook's session on Kaggle: find what is attached, link it to where scripts look, run them.

Mounts go by many names, so inputs are known by their content: official files by their names, and
what this repository made by a SEAL, beside which lies a part of a checkout. The scripts work below
a scratch root of links to read-only mounts; only results go to the working folder: Kaggle keeps
20 GB of it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from itertools import islice
from pathlib import Path

from lesions.blending.submission import check_submission
from lesions.config import load_dataset_config
from lesions.data.downloads import catalogue
from lesions.errors import InputError, listed
from lesions.files import read_json, write_json
from lesions.kaggle.kernels import CACHE, SEAL, config_of, set_name
from lesions.paths import CODE, at
from lesions.provenance import commit

PACKAGES = ("torch", "timm", "albumentations", "accelerate", "numpy", "pandas", "scikit-learn")
KNOWN = (SEAL, "train.csv", "config.yaml", "table.json", "submission.csv", "*.safetensors", "*.pth")
DEEPEST = 9  # folders below the root
MOST = 1000  # entries read in a folder: listing ten thousand photographs takes minutes


class Session:
    """What one notebook does with what is attached below `inputs`; results stay in `working`.

    `expected` are the hashes of own data sets that the notebook was made for.
    """

    def __init__(self, inputs: Path, working: Path, expected: dict[str, str]):
        self.started, self.working, self.files = time.monotonic(), working, list[Path]()
        folders = [inputs]
        for _ in range(DEEPEST):  # of two places the one nearest to the root comes first
            found = [Path(e) for folder in folders for e in islice(os.scandir(folder), MOST)]
            self.files += sorted(path for path in found if path.is_file())
            folders = sorted(path for path in found if path.is_dir() and path.name[0] != ".")
        print(f"code {CODE}, commit {commit()}, python {sys.version.split()[0]}")
        print(f"{count_gpus()} GPUs, {os.cpu_count()} cores")
        versions = {each.metadata["Name"]: each.version for each in distributions()}
        print(*(f"{name} {versions.get(name, 'is missing')}" for name in PACKAGES), sep="\n")
        print(*(f"input {file.relative_to(inputs)}" for file in self.find(*KNOWN)), sep="\n")
        print("sources:", ", ".join(self.sources()))
        os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1"}  # no network
        os.environ.setdefault("LESIONS_ROOT", tempfile.mkdtemp(prefix="lesions-"))
        os.environ["HF_HUB_CACHE"] = str(at("input/hub"))
        hashes = {}
        for seal in self.find(SEAL)[::-1]:
            held = read_json(seal)
            hashes[held["set"]] = held["hash"]
            print(f"data set {held['set']}: {held['hash']}")
            for file in self.files:
                if file.is_relative_to(seal.parent):
                    _link(at() / file.relative_to(seal.parent), file)
        for name, digest in expected.items():
            if (attached := hashes.get(name, "none")) != digest:
                raise InputError(
                    f"{name}: Kaggle attached another version ({attached[:12]}) than this notebook"
                    f" was pushed for ({digest[:12]}): push the notebook again"
                )
        write_json(working / SEAL, {"set": "output", "hash": ""})

    def find(self, *names: str) -> list[Path]:
        """The files of such a name, or whose path ends so: oof/effnet_b1/config.yaml."""
        return [file for file in self.files if any(map(file.match, names))]

    def sources(self) -> dict[str, Path]:
        """The folder of each source's official files, known by the first of them."""
        found = {}
        for name, source in catalogue().items():
            first = source["files"][0].get("instead", source["files"][0]["name"])
            for file in self.find(first)[::-1]:
                if not file.match("jpeg-*/*"):  # Deotte's have the names of the competition's files
                    found[name] = file.parent
        return found

    def prepare(self, dataset: str, sizes: list[int]) -> Path:
        """Leave prepared/<dataset> in the working folder, from the attached originals."""
        folder = self.working / "input/prepared" / dataset
        folder.mkdir(parents=True, exist_ok=True)
        _link(at("input/prepared", dataset), folder)
        found = self.sources()
        for name, source in load_dataset_config(dataset).sources.items():
            place = found.get(source.reader or name)
            if place is None:
                raise InputError(
                    f"{name}: none of the attached inputs holds its official files, which"
                    f" input/README.md names: attach its data set; there is"
                    f" {listed(found) or 'none of any source'}"
                )
            for file in place.iterdir():
                _link(at(source.folder, file.name), file)
        for file in self.find("jpeg-*/train.csv"):
            _link(at("input/deotte", file.parent.name), file.parent)
        arguments = ["--dataset", dataset, "--size", *map(str, sizes), "--set", f"cache={CACHE}"]
        run_script("prepare", arguments)
        return folder

    def train(self, run: str, folds: list[int] | None, max_hours: float) -> Path:
        """Train the folds, all by default, or resume them, for `max_hours` since the start."""
        kept, own = self.working / "oof" / run, at("oof", run)
        _require_inputs(run, trained=False)
        kept.mkdir(parents=True, exist_ok=True)
        if own.is_dir() and not own.is_symlink():  # it was attached, read-only
            shutil.copytree(own, kept, dirs_exist_ok=True, copy_function=shutil.copyfile)
            shutil.rmtree(own)
        _link(own, kept)
        for fold in map(str, folds) if folds else ["all"]:
            left = max(max_hours - (time.monotonic() - self.started) / 3600, 1e-5)
            arguments = ["--config", run, "--fold", fold, "--max-hours", f"{left:.5f}"]
            try:
                run_script("train", arguments)
            except InputError:
                # The launcher does not pass the exit code on: the log tells a stop from a failure.
                logs = [log.read_text(encoding="utf-8") for log in kept.glob("metrics*.jsonl")]
                if not any(json.loads(log.splitlines()[-1])["event"] == "stopped" for log in logs):
                    raise
                resume = f"python scripts/kaggle_push.py kernel train {run} --wait"
                print(f"\nnot done yet: {resume} resumes it")
                return kept
        print(f"\n{run}: done; its files are in {kept}")
        return kept

    def predict(self, *runs: str) -> Path:
        """Leave submission.csv, of a run or the blend of several, checked against the sample."""
        for run in runs:
            _require_inputs(run, trained=True)
        name, arguments = ("blend", [*runs]) if len(runs) > 1 else (runs[0], ["--run", *runs])
        run_script("blend" if len(runs) > 1 else "predict", arguments)
        path, kept = at("submissions", f"{name}.csv"), self.working / "submission.csv"
        shutil.copytree(at("submissions"), self.working / "submissions", dirs_exist_ok=True)
        shutil.copy(path, kept)
        if sample := self.sources().get("isic2020"):
            print(check_submission(path, sample / "sample_submission.csv"))
        print(f"{kept} is written")
        return kept


def _require_inputs(run: str, trained: bool) -> None:
    """InputError if the attached inputs lack the run's data set, or its folds if `trained`."""
    config = config_of(run)
    dataset, size = config.dataset, config.data.image_size
    push = "none of the attached inputs holds it: python scripts/kaggle_push.py"
    if trained and not at("oof", run, "config.yaml").exists():
        raise InputError(f"data set {set_name(run)}, the run: {push} weights {run}")
    if not at("input/prepared", dataset, str(size), "cache.json").exists():
        command = f"{push} kernel prepare {dataset} --size {size}"
        raise InputError(f"data set {dataset}, prepared at {size} pixels: {command}")


def count_gpus() -> int:
    gpus = subprocess.run("nvidia-smi --list-gpus", shell=True, capture_output=True, text=True)
    return gpus.stdout.count("GPU ")


def run_script(name: str, arguments: list[str]) -> None:
    """Run a script on every GPU there is, its output in the notebook as it comes."""
    command = [sys.executable]
    if count := count_gpus():
        command += ["-m", "accelerate.commands.launch", "--quiet", "--num_processes", str(count),
                    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                    *(["--multi_gpu"] if count > 1 else [])]  # fmt: skip
    command += [str(CODE / "scripts" / f"{name}.py"), *arguments]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or []:
            print(line, end="", flush=True)
    if code := process.returncode:
        raise InputError(f"scripts/{name}.py ended with {code}: its last lines above say why")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
