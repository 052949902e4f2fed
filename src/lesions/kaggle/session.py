"""A notebook's session on Kaggle: link the inputs to where the scripts look for them, run scripts.

The scripts work below a scratch root of links to read-only mounts; only results go to the working
folder, which Kaggle keeps, up to 20 GB.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lesions.blending.submission import check_submission
from lesions.config import load_config, load_dataset_config
from lesions.data.table import load_table
from lesions.errors import InputError, listed
from lesions.files import write_text
from lesions.kaggle.inputs import EXTRAS, Inputs
from lesions.kaggle.kernels import config_of, set_name
from lesions.paths import CODE, at
from lesions.provenance import commit

CACHE = "jpeg"  # output is read over a network and 20 GB at most: a tenth of an array


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
        self._link_backbones()

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
        config, kept = load_config(run), self.working / "oof" / run
        self._link_prepared(config.dataset, config.data.image_size)
        kept.mkdir(parents=True, exist_ok=True)
        _link(at("oof", run), kept)
        weights, tag = config.model.pretrained, config.model.backbone
        if isinstance(weights, str) and tag in self.inputs.backbones():
            _link(at(weights), self.inputs.backbones()[tag])
        for file in reversed(self.inputs.find(f"oof/{run}/config.yaml")):  # the nearest one last
            shutil.copytree(file.parent, kept, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for fold in folds or range(int(load_table(config.dataset)[0]["fold"].max()) + 1):
            if (kept / f"fold{fold}.json").exists():
                continue
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
                return
        print(f"\n{run}: done; its files are in {kept}")

    def predict(self, run: str) -> None:
        """Leave submission.csv, the test predictions of a run, in the working folder."""
        self._link_run(run)
        config = config_of(run)
        self._link_prepared(config.dataset, config.data.image_size)
        _require(launch("predict", ["--run", run]), "predict")
        self._keep_submission(at("submissions", f"{run}.csv"))

    def blend(self, runs: list[str]) -> None:
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
        self._keep_submission(at("submissions/blend.csv"))

    def _link_backbones(self) -> None:
        """Show weights files as the hub's cache, so that a run's config is the same everywhere."""
        hub = at("input/hub")
        for tag, file in self.inputs.backbones().items():
            model = hub / f"models--timm--{tag}"
            name = "model.safetensors" if file.suffix == ".safetensors" else "pytorch_model.bin"
            _link(model / "snapshots" / "attached" / name, file)
            write_text(model / "refs" / "main", "attached")
            os.environ["HF_HUB_CACHE"] = str(hub)

    def _link_sources(self, dataset: str) -> None:
        found = self.inputs.sources()
        config = load_dataset_config(dataset)
        for name, source in config.sources.items():
            folder = found.get(source.reader or name)
            if folder is None and source.reader != "deotte":
                raise InputError(
                    f"{name}: none of the attached inputs holds its official files, which"
                    f" input/README.md names: attach its data set; there is"
                    f" {listed(found) or 'none of any source'}"
                )
            extras = [file for extra, of in EXTRAS.items() if of == name
                      for file in self.inputs.find(extra)[:1]]  # fmt: skip
            for file in [*(sorted(folder.iterdir()) if folder else []), *extras]:
                _link(at(source.folder, file.name), file)
        for name, folder in found.items():
            if name.startswith("jpeg-"):
                _link(at("input/deotte", name), folder)

    def _link_prepared(self, dataset: str, size: int | None = None) -> None:
        """InputError unless the prepared data set is attached with images of `size`."""
        folder = self.inputs.prepared(dataset)
        sizes = sorted(file.parent.name for file in folder.glob("*/cache.json")) if folder else []
        if folder is None or (size and str(size) not in sizes):
            has = f"attached with {listed(sizes) or 'no images'}" if folder else "missing"
            raise InputError(
                f"prepared data set {dataset} at {size or 'any'} pixels: {has}: attach the output"
                f" of its notebook: python scripts/kaggle_push.py kernel prepare {dataset}"
                f" --size {size or 256}"
            )
        _link(at("input/prepared", dataset), folder)

    def _link_run(self, run: str) -> None:
        """Link every attached file of the run to its folder below oof/."""
        folders = [file.parent for file in self.inputs.find(f"oof/{run}/config.yaml")]
        if not folders:
            raise InputError(
                f"run {run}: none of the attached inputs holds it: attach the data set"
                f" {set_name(run)}: python scripts/kaggle_push.py weights {run}"
            )
        for file in (file for folder in folders for file in sorted(folder.glob("*.*"))):
            path = at("oof", run, file.name)
            same = not path.exists() or file.suffix not in (".json", ".csv", ".yaml")
            if not same and path.read_bytes() != file.read_bytes():
                raise InputError(f"{path.resolve()} and {file} differ: detach one of the inputs")
            _link(path, file)

    def _keep_submission(self, path: Path) -> None:
        """Copy what was written to the working folder, checked against the competition's sample."""
        for file in path.parent.glob(f"{path.stem}*"):
            if not file.is_symlink():
                kept = self.working / file.relative_to(at())
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, kept)
        shutil.copyfile(path, self.working / "submission.csv")
        sample = self.inputs.sources().get("isic2020")
        if sample:
            print(check_submission(path, sample / "sample_submission.csv"))
        print(f"{self.working}/submission.csv is written")


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
