"""A notebook's session: what is attached is linked to where the scripts look for it, and they run.

On Kaggle and Colab the scripts work below a scratch root that holds links to read-only mounts;
only results go to the working folder, which Kaggle keeps, up to 20 GB. In a checkout everything is
in its place already.
"""

import json
import os
import shutil
import time
from pathlib import Path

from lesions.config import load_config, load_dataset_config
from lesions.errors import InputError, listed
from lesions.files import write_text
from lesions.kaggle.inputs import EXTRAS, Inputs, find_inputs, sizes
from lesions.kaggle.launch import launch, run_script
from lesions.paths import CODE, at
from lesions.provenance import commit

# What is kept of a session is 20 GB at most and is read over a network: a tenth of an array.
CACHE = "jpeg"


class Session:
    """What one notebook does; `working` is where its results stay."""

    def __init__(self, place: str, inputs: Path, working: Path):
        self.begun = time.monotonic()
        self.working = working
        self.linked = working.resolve() != CODE  # not in a checkout
        self.found = Inputs()
        print(f"{place}: code {CODE}, commit {commit()}")
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # seconds: a log is no terminal
        if self.linked:
            self.found = find_inputs(inputs)
            print(f"found below {inputs}:\n{self.found.told()}")
            self._link_backbones()

    def prepare(self, dataset: str, sizes: list[int]) -> None:
        """Leave prepared/<dataset> in the working folder, from the attached originals."""
        if self.linked:
            place = self.working / "prepared" / dataset
            place.mkdir(parents=True, exist_ok=True)
            _link(at("input/prepared") / dataset, place)
            self._link_sources(dataset)
        arguments = ["--dataset", dataset, "--size", *map(str, sizes)]
        if self.linked:
            arguments += ["--set", f"cache={CACHE}"]
        _require(run_script("prepare", arguments), "prepare")

    def train_fold(self, run: str, fold: int, max_hours: float) -> None:
        """Train the fold, or go on with it, for `max_hours` since this session began."""
        config = load_config(at("configs") / f"{run}.yaml")
        self._require_prepared(config.dataset, config.data.image_size)
        folder = at("oof") / run
        if self.linked:
            kept = self.working / "oof" / run
            kept.mkdir(parents=True, exist_ok=True)
            _link(folder, kept)
            take_up(self.found.runs.get(run, []), kept, fold)
            weights = config.model.pretrained
            if isinstance(weights, str) and config.model.backbone in self.found.backbones:
                _link(at() / weights, self.found.backbones[config.model.backbone])
        left = max_hours - (time.monotonic() - self.begun) / 3600
        arguments = ["--config", str(at("configs") / f"{run}.yaml"), "--fold", str(fold)]
        code = launch("train", [*arguments, "--max-hours", f"{left:.5f}"])
        if (folder / f"fold{fold}.json").exists():
            print(f"\nfold {fold} of {run} is done: its files are in {self.working}/oof/{run}")
        elif code == 0 or _last_event(folder, fold).get("event") != "stopped":
            _require(code or 1, "train")
        else:
            print("\nnot done yet: run this notebook again, with its own output attached to it")

    def predict(self, run: str) -> None:
        """Leave submission.csv, the test predictions of a run, in the working folder."""
        config = load_config(self._take_runs([run])[0] / "config.yaml")
        self._require_prepared(config.dataset, config.data.image_size)
        _require(launch("predict", ["--run", run]), "predict")
        self._keep_submission(at("submissions") / f"{run}.csv")

    def blend(self, runs: list[str]) -> None:
        """Leave submission.csv, the blend of the runs' test predictions, in the working folder."""
        for folder in self._take_runs(runs):
            self._require_prepared(load_config(folder / "config.yaml").dataset)
        for run in runs if self.linked else []:
            if run in self.found.submissions:
                _link(at("submissions") / f"{run}.csv", self.found.submissions[run])
            else:
                print(f"no test predictions of {run} are attached: they are made here")
                self.predict(run)
        _require(run_script("blend", runs), "blend")
        self._keep_submission(at("submissions") / "blend.csv")

    def _link_backbones(self) -> None:
        """Show weights files as the hub's cache, so that a run's config is the same everywhere."""
        hub = at("input") / "hub"
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
            at = self.found.sources.get(source.reader or name)
            if at is None and source.reader != "deotte":
                raise InputError(
                    f"{name}: none of the attached inputs holds its official files"
                    f" (input/README.md names them): attach its data set; there is"
                    f" {listed(self.found.sources) or 'none of any source'}"
                )
            if at:
                _link_all(at() / source.folder, sorted(at.iterdir()))
        for file, source_name in EXTRAS.items():
            if file in self.found.extras and source_name in config.sources:
                folder = at() / config.sources[source_name].folder
                _link_all(folder, [self.found.extras[file]])
        for name, at in self.found.deotte.items():
            _link(at("input") / "deotte" / name, at)

    def _require_prepared(self, dataset: str, size: int | None = None) -> None:
        """Link the prepared data set; InputError unless it is attached with images of `size`."""
        if not self.linked:
            return  # the scripts say what a checkout lacks
        at = self.found.prepared.get(dataset)
        if at is None or (size and str(size) not in sizes(at)):
            has = (
                f"it is attached with {listed(sizes(at)) or 'no images'}" if at else "not attached"
            )
            raise InputError(
                f"prepared data set {dataset} at {size or 'any'} pixels: {has}: attach the output"
                f" of its notebook (python scripts/kaggle_push.py kernel prepare --dataset"
                f" {dataset} --size {size or 256})"
            )
        _link(at("input/prepared") / dataset, at)

    def _take_runs(self, runs: list[str]) -> list[Path]:
        """The runs' folders below oof/, with every attached file of each linked into it."""
        for run in runs if self.linked else []:
            if run not in self.found.runs:
                raise InputError(
                    f"run {run}: none of the attached inputs holds it (there is"
                    f" {listed(self.found.runs) or 'no run'}): python scripts/kaggle_push.py"
                    f" weights {run}, and attach lesions-weights"
                )
            for folder in self.found.runs[run]:
                for file in sorted(folder.glob("*.*")):
                    _link_same(at("oof") / run / file.name, file)
        return [at("oof") / run for run in runs]

    def _keep_submission(self, path: Path) -> None:
        """Copy what was written to the working folder, checked against the competition's sample."""
        if self.linked:
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


def take_up(folders: list[Path], kept: Path, fold: int) -> None:
    """Copy to `kept` the state of a fold that got furthest, or its results where it is done."""
    candidates = [folder for folder in folders if _steps(folder, fold) > _steps(kept, fold)]
    if not candidates:
        return
    best = max(candidates, key=lambda folder: _steps(folder, fold))
    names = [f"fold{fold}.*", f"history{fold}.*", f"metrics{fold}.*", f"state/fold{fold}.*"]
    for file in (file for name in ["config.yaml", *names] for file in best.glob(name)):
        target = kept / file.relative_to(best)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    print(f"fold {fold}: going on from {best}")


def _steps(folder: Path, fold: int) -> float:
    """How far a fold is in a run's folder: the steps saved, -1 if not begun; done is infinite."""
    if (folder / f"fold{fold}.json").exists():
        return float("inf")
    if not (folder / "state" / f"fold{fold}.pt").exists():
        return -1
    return float(_last_event(folder, fold).get("step", 0))


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


def _link_all(folder: Path, targets: list[Path]) -> None:
    for target in targets:
        _link(folder / target.name, target)


def _link_same(path: Path, file: Path) -> None:
    """Link a run's file; InputError if two attached inputs have it, and not the same."""
    if path.is_symlink() and file.suffix in (".json", ".csv", ".yaml"):
        if path.read_bytes() != file.read_bytes():
            raise InputError(f"{path.resolve()} and {file} differ: detach one of the two inputs")
        return
    _link(path, file)
