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
from itertools import islice
from pathlib import Path

from lesions.blending.submission import check_submission
from lesions.config import Config, load_config, load_dataset_config
from lesions.errors import InputError, listed
from lesions.files import read_json, write_text
from lesions.kaggle.download import catalogue
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
        known = [file for file in self.files if file.name in KNOWN or file.suffix in WEIGHTS]
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
        """The folder of each source's official files, known by the first of them."""
        found = {}
        for name, source in catalogue().items():
            first = source["files"][0].get("instead", source["files"][0]["name"])
            for file in reversed(self.find(first)):
                if not file.match("jpeg-*/*"):  # Deotte's have the names of the competition's files
                    found[name] = file.parent
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
            if place is None:
                raise InputError(
                    f"{name}: none of the attached inputs holds its official files, which"
                    f" input/README.md names: attach its data set; there is"
                    f" {listed(found) or 'none of any source'}"
                )
            tables = CODE / "tables" / Path(source.folder).name
            for file in (*place.iterdir(), *tables.glob("*")):
                _link(at(source.folder, file.name), file)
        for file in self.inputs.find("jpeg-*/train.csv"):
            _link(at("input/deotte", file.parent.name), file.parent)
        arguments = ["--dataset", dataset, "--size", *map(str, sizes), "--set", f"cache={CACHE}"]
        _require(run_script("prepare", arguments), "prepare")
        return folder

    def train(self, run: str, folds: list[int] | None, max_hours: float) -> Path:
        """Train the folds, all by default, or resume them, for `max_hours` since the start."""
        config, kept = load_config(run), self.working / "oof" / run
        self._link_prepared(config)
        kept.mkdir(parents=True, exist_ok=True)
        _link(at("oof", run), kept)
        weights, tag = config.model.pretrained, config.model.backbone
        if isinstance(weights, str) and tag in self.inputs.backbones():
            _link(at(weights), self.inputs.backbones()[tag])
        for file in self.inputs.find(f"oof/{run}/config.yaml")[:1]:
            shutil.copytree(file.parent, kept, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for fold in [str(fold) for fold in folds] if folds else ["all"]:
            left = max(max_hours - (time.monotonic() - self.started) / 3600, 1e-5)
            arguments = ["--config", run, "--fold", fold, "--max-hours", f"{left:.5f}"]
            if code := run_script("train", arguments):
                # The launcher does not pass the exit code on: the log tells a stop from a failure.
                logs = [log.read_text(encoding="utf-8") for log in kept.glob("metrics*.jsonl")]
                if not any(json.loads(log.splitlines()[-1])["event"] == "stopped" for log in logs):
                    _require(code, "train")
                resume = f"python scripts/kaggle_push.py kernel train {run} --wait"
                print(f"\nnot done yet: {resume} resumes it")
                return kept
        print(f"\n{run}: done; its files are in {kept}")
        return kept

    def predict(self, run: str) -> Path:
        """Leave submission.csv, the test predictions of a run, in the working folder."""
        self._link_run(run)
        _require(run_script("predict", ["--run", run]), "predict")
        return self._keep_submission(at("submissions", f"{run}.csv"))

    def blend(self, runs: list[str]) -> Path:
        """Leave submission.csv, the blend of the runs' attached predictions, in the folder."""
        for run in runs:
            self._link_run(run)
            for path in self.inputs.find(f"submissions/{run}.csv")[:1]:
                for file in path.parent.glob(f"{path.stem}.*"):
                    _link(at("submissions", run).with_name(file.name), file)
        _require(run_script("blend", runs), "blend")
        return self._keep_submission(at("submissions/blend.csv"))

    def _link_prepared(self, config: Config) -> None:
        """Link the attached data set, prepared at the run's image size, to its place."""
        dataset, size = config.dataset, config.data.image_size
        tables = self.inputs.find("table.json")
        found = [file.parent for file in tables if read_json(file)["dataset"] == dataset][:1]
        if not found or not (found[0] / str(size) / "cache.json").exists():
            raise InputError(
                f"data set {dataset}: none of the attached inputs holds it, prepared at {size}"
                f" pixels: python scripts/kaggle_push.py kernel prepare {dataset} --size {size}"
            )
        _link(at("input/prepared", dataset), found[0])

    def _link_run(self, run: str) -> None:
        """Link the attached folder of the run, and its data set, to their places."""
        found = self.inputs.find(f"oof/{run}/config.yaml")
        if not found:
            raise InputError(
                f"run {run}: none of the attached inputs holds it: attach the data set"
                f" {set_name(run)}: python scripts/kaggle_push.py weights {run}"
            )
        _link(at("oof", run), found[0].parent)
        self._link_prepared(config_of(run))

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


def run_script(name: str, arguments: list[str]) -> int:
    """Run a script on every GPU there is, its output in the notebook as it comes; its exit code."""
    import torch

    command, count = [sys.executable], torch.cuda.device_count()
    if count:
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
    return process.returncode


def _require(code: int, name: str) -> None:
    if code:
        raise InputError(f"scripts/{name}.py ended with {code}: its last lines above say why")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
