"""A notebook's session on Kaggle: find what is attached, link it to where scripts look, run them.

Mounts go by many names, so inputs are known by their content. The scripts work below a scratch
root of links to read-only mounts; only results go to the working folder: Kaggle keeps 20 GB of it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import pandas as pd

from lesions.blending.submission import check_submission
from lesions.config import load_config, load_dataset_config
from lesions.data.table import load_table
from lesions.errors import InputError, listed
from lesions.files import read_json, write_text
from lesions.kaggle.download import catalogue, sent_tables
from lesions.kaggle.kernels import CACHE, SEAL, config_of, copy, set_name
from lesions.paths import CODE, at
from lesions.provenance import commit

WEIGHTS = (".safetensors", ".pth", ".bin")
KNOWN = {SEAL, "train.csv", "config.yaml", "table.json", "submission.csv"}
DEEPEST = 8  # folders below the root
MOST = 1000  # entries read in a folder: listing ten thousand photographs takes minutes


class Inputs:
    """The files below a folder of mounts; of two places the one nearest to the root comes first."""

    def __init__(self, root: Path):
        self.root, self.files = root, list[Path]()
        self.signatures = {
            name: source
            for source, facts in catalogue().items()
            for name in facts.get("signature", [])
        }
        level = [root]
        for _ in range(DEEPEST):
            entries = [entry for folder in level for entry in islice(os.scandir(folder), MOST)]
            self.files += sorted(Path(entry.path) for entry in entries if entry.is_file())
            folders = (entry for entry in entries if entry.is_dir() and entry.name[0] != ".")
            level = sorted(Path(folder.path) for folder in folders)

    def find(self, name: str) -> list[Path]:
        """The files of that name, or whose path ends so: oof/effnet_b1/config.yaml."""
        return [file for file in self.files if file.match(name)]

    def summary(self) -> str:
        """The files by which data sets, runs and code are known, one a line."""
        names = {*KNOWN, *self.signatures, *sent_tables()}
        known = [file for file in self.files if file.name in names or file.suffix in WEIGHTS]
        return "\n".join(f"  {file.relative_to(self.root)}" for file in known)

    def hashes(self) -> dict[str, str]:
        """The hash of each own data set, by its name."""
        seals = map(read_json, reversed(self.find(SEAL)))
        return {seal["set"]: seal["hash"] for seal in seals}

    def backbones(self) -> dict[str, Path]:
        """Files of first weights by timm tag."""
        files = [file for file in self.files if file.suffix in WEIGHTS and "oof" not in file.parts]
        return {file.stem: file for file in reversed(files)}

    def sources(self) -> dict[str, Path]:
        """The folder of each source's official files, and of Deotte's sets by their names."""
        found = {}
        for file in reversed(self.files):
            if source := self.signatures.get(file.name):
                found[source] = file.parent
            elif file.name == "train.csv":
                # Deotte's sets have the names of the competition's files, and one more column.
                if "tfrecord" in pd.read_csv(file, nrows=0):
                    kind = "melanoma" if (file.parent / "test.csv").exists() else "isic2019"
                    image = next(iter(os.scandir(file.parent / "train")))
                    pixels = cv2.imread(image.path)
                    width = 0 if pixels is None else pixels.shape[1]
                    found[f"jpeg-{kind}-{width}x{width}"] = file.parent
                elif (file.parent / "sample_submission.csv").exists():
                    found["isic2020"] = file.parent
        return found


class Session:
    """What one notebook does; results stay in `working`."""

    def __init__(self, inputs: Path, working: Path, expected: dict[str, str]):
        """`expected` are the hashes of own data sets that the notebook was made for."""
        self.started, self.working, self.inputs = time.monotonic(), working, Inputs(inputs)
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # seconds: a log is not a terminal
        print(f"code {CODE}, commit {commit()}\nfound below {inputs}:\n{self.inputs.summary()}")
        found = self.inputs.hashes()
        for name, digest in expected.items():
            if found.get(name) != digest:
                raise InputError(
                    f"{name}: Kaggle attached another version ({found.get(name, 'none')[:12]}) than"
                    f" this notebook was pushed for ({digest[:12]}): push the notebook again"
                )
        # Weights files look like the hub's cache: a run's config is the same everywhere.
        os.environ["HF_HUB_CACHE"] = str(at("input/hub"))
        for tag, file in self.inputs.backbones().items():
            model = at("input/hub", f"models--timm--{tag}")
            name = "model.safetensors" if file.suffix == ".safetensors" else "pytorch_model.bin"
            _link(model / "snapshots" / "attached" / name, file)
            write_text(model / "refs" / "main", "attached")

    def prepare(self, dataset: str, sizes: list[int]) -> Path:
        """Leave prepared/<dataset> in the working folder, from the attached originals."""
        folder = self.working / "prepared" / dataset
        folder.mkdir(parents=True, exist_ok=True)
        _link(at("input/prepared", dataset), folder)
        found = self.inputs.sources()
        for name, source in load_dataset_config(dataset).sources.items():
            place = found.get(source.reader or name)
            if place is None and source.reader != "deotte":
                raise InputError(
                    f"{name}: none of the attached inputs holds its official files, which"
                    f" input/README.md names: attach its data set; there is"
                    f" {listed(found) or 'none of any source'}"
                )
            extras = [file for extra, of in sent_tables().items() if of == name
                      for file in self.inputs.find(extra)[:1]]  # fmt: skip
            for file in [*(place.iterdir() if place else []), *extras]:
                _link(at(source.folder, file.name), file)
        for name, place in found.items():
            if name.startswith("jpeg-"):
                _link(at("input/deotte", name), place)
        arguments = ["--dataset", dataset, "--size", *map(str, sizes), "--set", f"cache={CACHE}"]
        _require(run_script("prepare", arguments), "prepare")
        return folder

    def train(self, run: str, folds: list[int] | None, max_hours: float) -> Path:
        """Train the folds, all by default, or resume them, for `max_hours` since the start."""
        config, kept = load_config(run), self.working / "oof" / run
        self._link_prepared(config.dataset, config.data.image_size)
        kept.mkdir(parents=True, exist_ok=True)
        _link(at("oof", run), kept)
        weights, tag = config.model.pretrained, config.model.backbone
        if isinstance(weights, str) and tag in self.inputs.backbones():
            _link(at(weights), self.inputs.backbones()[tag])
        for file in self.inputs.find(f"oof/{run}/config.yaml")[:1]:
            shutil.copytree(file.parent, kept, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for fold in folds or range(int(load_table(config.dataset)[0]["fold"].max()) + 1):
            left = max(max_hours - (time.monotonic() - self.started) / 3600, 1e-5)
            arguments = ["--config", run, "--fold", str(fold), "--max-hours", f"{left:.5f}"]
            code = launch("train", arguments)
            if not (kept / f"fold{fold}.json").exists():
                # The launcher does not pass the exit code on: the log tells a stop from a failure.
                lines = (kept / f"metrics{fold}.jsonl").read_text(encoding="utf-8").splitlines()
                if code == 0 or json.loads(lines[-1])["event"] != "stopped":
                    _require(code or 1, "train")
                resume = f"python scripts/kaggle_push.py kernel train {run} --wait"
                print(f"\nnot done yet: {resume} resumes it")
                return kept
        print(f"\n{run}: done; its files are in {kept}")
        return kept

    def predict(self, run: str) -> Path:
        """Leave submission.csv, the test predictions of a run, in the working folder."""
        self._link_run(run)
        config = config_of(run)
        self._link_prepared(config.dataset, config.data.image_size)
        _require(launch("predict", ["--run", run]), "predict")
        return self._keep_submission(at("submissions", f"{run}.csv"))

    def blend(self, runs: list[str]) -> Path:
        """Leave submission.csv, the blend of the runs' test predictions, in the working folder."""
        for run in runs:
            self._link_run(run)
            self._link_prepared(config_of(run).dataset)
            found = self.inputs.find(f"submissions/{run}.csv")
            if not found:
                print(f"no test predictions of {run} are attached: they are made here")
                self.predict(run)
            for file in (file for path in found[:1] for file in path.parent.glob(f"{path.stem}.*")):
                _link(at("submissions", run).with_name(file.name), file)
        _require(run_script("blend", runs), "blend")
        return self._keep_submission(at("submissions/blend.csv"))

    def _link_prepared(self, dataset: str, size: int | None = None) -> None:
        """InputError unless the prepared data set is attached with images of `size`."""
        tables = self.inputs.find("table.json")
        folders = [file.parent for file in tables if read_json(file)["dataset"] == dataset][:1]
        sizes = [file.parent.name for folder in folders for file in folder.glob("*/cache.json")]
        if not folders or (size and str(size) not in sizes):
            has = f"attached with {listed(sorted(sizes)) or 'no images'}" if folders else "missing"
            raise InputError(
                f"prepared data set {dataset} at {size or 'any'} pixels: {has}: attach the output"
                f" of its notebook: python scripts/kaggle_push.py kernel prepare {dataset}"
                f" --size {size or 256}"
            )
        _link(at("input/prepared", dataset), folders[0])

    def _link_run(self, run: str) -> None:
        """Link the attached folder of the run to its place below oof/."""
        found = self.inputs.find(f"oof/{run}/config.yaml")
        if not found:
            raise InputError(
                f"run {run}: none of the attached inputs holds it: attach the data set"
                f" {set_name(run)}: python scripts/kaggle_push.py weights {run}"
            )
        _link(at("oof", run), found[0].parent)

    def _keep_submission(self, path: Path) -> Path:
        """Copy what was written to the working folder, checked against the competition's sample."""
        for file in path.parent.glob(f"{path.stem}*"):
            copy(file, self.working / file.relative_to(at()))
        kept = self.working / "submission.csv"
        copy(path, kept)
        if sample := self.inputs.sources().get("isic2020"):
            print(check_submission(path, sample / "sample_submission.csv"))
        print(f"{kept} is written")
        return kept


def launch(name: str, arguments: list[str]) -> int:
    """Run a script by name on every GPU there is, or on the CPU; its exit code."""
    import torch

    count = torch.cuda.device_count()
    launcher = ["-m", "accelerate.commands.launch", "--quiet", "--num_processes", str(count),
                "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                *(["--multi_gpu"] if count > 1 else [])] if count else []  # fmt: skip
    return run_script(name, arguments, launcher)


def run_script(name: str, arguments: list[str], launcher: Sequence[str] = ()) -> int:
    """Run a script by name with its output in the notebook as it comes; its exit code."""
    command = [sys.executable, *launcher, str(CODE / "scripts" / f"{name}.py"), *arguments]
    print("$", " ".join(["python", *command[1:]]), flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or []:
            print(line, end="", flush=True)
    return process.returncode


def _require(code: int, name: str) -> None:
    if code:
        raise InputError(f"scripts/{name}.py ended with {code}: its last lines above say why")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
