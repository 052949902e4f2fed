"""What a tracker gets of a run whose folds are all done: its scores, figures and report."""

from importlib import import_module

import numpy as np
from accelerate import Accelerator
from PIL import Image

from lesions.config import Config
from lesions.evaluation.scores import LABELS, score_rows
from lesions.inference.accelerator import tracking
from lesions.oof import load_oof
from lesions.reporting.report import write_report
from lesions.runs import find_run


def track_results(accelerator: Accelerator, config: Config, name: str) -> None:
    """Write the run's report and hand it on, if every fold is done, as the part `all` of the run.

    W&B gets the page; TensorBoard, which shows none, its text.
    """
    files = find_run(name)
    oof = load_oof(files)
    if len(oof.facts) < oof.folds:
        return
    page, _ = write_report(files, None, None)
    figures = {path.stem: path for path in sorted(page.with_suffix("").glob("*.png"))}
    figures["training_curves"] = files.folder / "training_curves.png"
    found = score_rows(oof.codes, oof.probs, oof.task.classes, oof.groups).overall
    with tracking(accelerator, config, name, "all"):
        for tracker in accelerator.trackers:
            tracker.log({f"out-of-fold {LABELS[key]}": score.value for key, score in found.items()})
            to = tracker.tracker
            if tracker.name == "wandb":
                wandb = import_module("wandb")
                to.log({key: wandb.Image(str(path)) for key, path in figures.items()})
                to.log({"report": wandb.Html(page.read_text(encoding="utf-8"))})
                continue
            for key, path in figures.items():
                pixels = np.asarray(Image.open(path).convert("RGB"))
                to.add_image(key, pixels, dataformats="HWC")
            to.add_text("report", page.with_suffix(".md").read_text(encoding="utf-8"))
