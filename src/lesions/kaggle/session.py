"""A notebook's session on Kaggle: link the inputs to where the scripts look for them, run scripts.

The scripts work below a scratch root of links to read-only mounts; only results go to the working
folder, which Kaggle keeps, up to 20 GB.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lesions.config import load_config, load_dataset_config
from lesions.errors import InputError, listed
from lesions.files import write_text
from lesions.kaggle.inputs import EXTRAS, find_inputs, sizes
from lesions.paths import CODE, at
from lesions.provenance import commit

# Output is read over a network and 20 GB at most: JPEGs take a tenth of an array.
CACHE = "jpeg"
PACKAGES = ("torch", "torchvision", "timm", "albumentations", "opencv-python", "accelerate",
            "numpy", "pandas", "scikit-learn", "pydantic")  # fmt: skip


class Session:
    """What one notebook does; results stay in `working`."""

    def __init__(self, inputs: Path, working: Path, expected: dict[str, str]):
        """`expected` are the hashes of own data sets that the notebook was made for."""
        self.started = time.monotonic()
        self.working = working
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # seconds: a log is not a terminal
        self.found = find_inputs(inputs)
        print(f"code {CODE}, commit {commit()}\nfound below {inputs}:\n{self.found.summary()}")
        for name, digest in expected.items():
            seal = self.found.seals.get(name, "none")
            if seal != digest:
                raise InputError(
                    f"{name}: Kaggle attached another version ({seal[:12]}) than this notebook was"
                    f" pushed for ({digest[:12]}): push the notebook again"
                )
        self._link_backbones()

    def check(self) -> None:
        """Leave check.txt in the working folder: hashes, inputs, versions and GPUs."""
        lines = [f"commit {commit()}", f"inputs:\n{self.found.summary()}",
                 f"python {platform.python_version()}"]  # fmt: skip
        for name in PACKAGES:
            try:
                lines.append(f"{name} {version(name)}")
            except ModuleNotFoundError:
                lines.append(f"{name} is not installed")
        lines.append(f"{_gpus()} GPUs, {os.cpu_count()} cores")
        text = "\n".join(lines) + "\n"
        write_text(self.working / "check.txt", text)
        print(text)

    def prepare(self, dataset: str, sizes: list[int]) -> None:
        """Leave prepared/<dataset> in the working folder, from the attached originals."""
        folder = self.working / "prepared" / dataset
        folder.mkdir(parents=True, exist_ok=True)
        _link(at("input/prepared", dataset), folder)
        self._link_sources(dataset)
        arguments = ["--dataset", dataset, "--size", *map(str, sizes), "--set", f"cache={CACHE}"]
        _require(run_script("prepare", arguments), "prepare")

    def train(self, run: str, folds: list[int] | None, max_hours: float) -> None:
        """Train the folds, all by default, or resume them, for `max_hours` since the start."""
        from lesions.data.table import load_table

        path = at("configs", f"{run}.yaml")
        config = load_config(path)
        self._require_prepared(config.dataset, config.data.image_size)
        kept = self.working / "oof" / run
        kept.mkdir(parents=True, exist_ok=True)
        _link(at("oof", run), kept)
        weights = config.model.pretrained
        if isinstance(weights, str) and config.model.backbone in self.found.backbones:
            _link(at(weights), self.found.backbones[config.model.backbone])
        for folder in reversed(self.found.runs.get(run, [])):  # the nearest one last
            shutil.copytree(folder, kept, dirs_exist_ok=True, copy_function=shutil.copyfile)
        numbers = range(int(load_table(config.dataset)[0]["fold"].max()) + 1)
        for fold in folds or numbers:
            if (kept / f"fold{fold}.json").exists():
                continue
            left = max_hours - (time.monotonic() - self.started) / 3600
            arguments = ["--config", str(path), "--fold", str(fold), "--max-hours", f"{left:.5f}"]
            code = launch("train", arguments)
            if (kept / f"fold{fold}.json").exists():
                continue
            # The launcher does not pass the exit code on: the log tells a stop from a failure.
            if code == 0 or _last_event(kept, fold).get("event") != "stopped":
                _require(code or 1, "train")
            print(
                f"\nnot done yet: python scripts/kaggle_push.py kernel train {run} --wait resumes"
            )
            return
        print(f"\n{run}: done; its files are in {kept}")

    def predict(self, run: str) -> None:
        """Leave submission.csv, the test predictions of a run, in the working folder."""
        config = load_config(self._take_runs([run])[0] / "config.yaml")
        self._require_prepared(config.dataset, config.data.image_size)
        _require(launch("predict", ["--run", run]), "predict")
        self._keep_submission(at("submissions", f"{run}.csv"))

    def blend(self, runs: list[str]) -> None:
        """Leave submission.csv, the blend of the runs' test predictions, in the working folder."""
        for folder in self._take_runs(runs):
            self._require_prepared(load_config(folder / "config.yaml").dataset)
        for run in runs:
            found = self.found.submissions.get(run)
            if found is None:
                print(f"no test predictions of {run} are attached: they are made here")
                self.predict(run)
                continue
            for file in (found, found.with_suffix(".json")):
                if file.exists():
                    _link(at("submissions", run).with_suffix(file.suffix), file)
        _require(run_script("blend", runs), "blend")
        self._keep_submission(at("submissions/blend.csv"))

    def _link_backbones(self) -> None:
        """Show weights files as the hub's cache, so that a run's config is the same everywhere."""
        hub = at("input/hub")
        for tag, file in self.found.backbones.items():
            model = hub / f"models--timm--{tag}"
            name = "model.safetensors" if file.suffix == ".safetensors" else "pytorch_model.bin"
            _link(model / "snapshots" / "attached" / name, file)
            write_text(model / "refs" / "main", "attached")
        if self.found.backbones:
            os.environ["HF_HUB_CACHE"] = str(hub)

    def _link_sources(self, dataset: str) -> None:
        config = load_dataset_config(dataset)
        for name, source in config.sources.items():
            folder = self.found.sources.get(source.reader or name)
            if folder is None and source.reader != "deotte":
                raise InputError(
                    f"{name}: none of the attached inputs holds its official files, which"
                    f" input/README.md names: attach its data set; there is"
                    f" {listed(self.found.sources) or 'none of any source'}"
                )
            for file in sorted(folder.iterdir()) if folder else []:
                _link(at(source.folder, file.name), file)
        for file_name, source_name in EXTRAS.items():
            if file_name in self.found.extras and source_name in config.sources:
                target = at(config.sources[source_name].folder, file_name)
                _link(target, self.found.extras[file_name])
        for name, folder in self.found.deotte.items():
            _link(at("input/deotte", name), folder)

    def _require_prepared(self, dataset: str, size: int | None = None) -> None:
        """Link the prepared data set; InputError unless it is attached with images of `size`."""
        folder = self.found.prepared.get(dataset)
        if folder is None or (size and str(size) not in sizes(folder)):
            has = f"attached with {listed(sizes(folder)) or 'no images'}" if folder else "missing"
            raise InputError(
                f"prepared data set {dataset} at {size or 'any'} pixels: {has}: attach the output"
                f" of its notebook: python scripts/kaggle_push.py kernel prepare {dataset}"
                f" --size {size or 256}"
            )
        _link(at("input/prepared", dataset), folder)

    def _take_runs(self, runs: list[str]) -> list[Path]:
        """The runs' folders below oof/, with every attached file of each linked into it."""
        from lesions.kaggle.kernels import weights_set

        for run in runs:
            if run not in self.found.runs:
                raise InputError(
                    f"run {run}: none of the attached inputs holds it (there is"
                    f" {listed(self.found.runs) or 'no run'}): attach the data set"
                    f" {weights_set(run)}: python scripts/kaggle_push.py weights {run}"
                )
            for folder in self.found.runs[run]:
                for file in sorted(folder.glob("*.*")):
                    _link_same(at("oof", run, file.name), file)
        return [at("oof", run) for run in runs]

    def _keep_submission(self, path: Path) -> None:
        """Copy what was written to the working folder, checked against the competition's sample."""
        for file in path.parent.glob(f"{path.stem}*"):
            if not file.is_symlink():
                kept = self.working / file.relative_to(at())
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, kept)
        shutil.copyfile(path, self.working / "submission.csv")
        sample = self.found.sources.get("isic2020")
        if sample:
            from lesions.blending.submission import check_submission

            print(check_submission(path, sample / "sample_submission.csv"))
        print(f"{self.working}/submission.csv is written")


def launch(name: str, arguments: list[str]) -> int:
    """Run a script by name on every GPU there is, or on the CPU; its exit code."""
    count = _gpus()
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


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _last_event(folder: Path, fold: int) -> dict:
    path = folder / f"metrics{fold}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return json.loads(lines[-1]) if lines else {}


def _require(code: int, name: str) -> None:
    if code:
        raise InputError(f"scripts/{name}.py ended with {code}: its last lines above say why")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _link_same(path: Path, file: Path) -> None:
    """Link a run's file; InputError if two attached inputs have it, and not the same."""
    if path.is_symlink() and file.suffix in (".json", ".csv", ".yaml"):
        if path.read_bytes() != file.read_bytes():
            raise InputError(f"{path.resolve()} and {file} differ: detach one of the two inputs")
        return
    _link(path, file)
