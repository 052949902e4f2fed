"""What scripts/kaggle_push.py is asked for: data sets to send, kernels to run."""

from dataclasses import dataclass
from pathlib import Path

from lesions.errors import InputError
from lesions.kaggle import client, follow, push
from lesions.kaggle.kernels import (
    Kernel,
    blend_kernel,
    predict_kernel,
    prepare_kernel,
    slug,
    train_kernel,
)
from lesions.kaggle.notebooks import KINDS
from lesions.paths import shown

OWNER_UNKNOWN = "your-name"  # in what is written without asking Kaggle who we are


def send_sets(what: str, runs: list[str], write: Path | None = None) -> None:
    """Send the code, or the weights of each run, or write them below `write` instead."""
    if what == "code" and runs:
        raise InputError(f"code: takes no names, not {' '.join(runs)}")
    if what == "weights" and not runs:
        raise InputError("weights: name the runs, such as effnet_b1")
    if what == "code" and not write:
        push.push_code()
    elif what == "code" and write:
        push.write_code(write)
    for run in runs:
        if write:
            push.write_weights(write, run)
        else:
            push.push_weights(run)
    if write:
        print(f"written to {shown(write)}")


@dataclass
class KernelOrder:
    """A kernel by its kind, then run, runs or data set: `names` as they were typed."""

    names: list[str]
    fold: int
    sizes: list[int]
    max_hours: float
    attach: list[str]

    def __post_init__(self) -> None:
        if not self.names or self.names[0] not in KINDS:
            raise InputError(f"kernel: say which: {', '.join(KINDS)}")
        if self.kind == "blend" and len(self.names) < 3:
            raise InputError("kernel blend: name two runs at least")
        if self.kind != "blend" and len(self.names) != 2:
            wanted = "data set" if self.kind == "prepare" else "run"
            raise InputError(f"kernel {self.kind}: name one {wanted}")

    @property
    def kind(self) -> str:
        return self.names[0]

    def kernel(self, begun: bool = False) -> Kernel:
        """The kernel; `begun` attaches what an earlier session of the fold has left."""
        if self.kind == "prepare":
            return prepare_kernel(self.names[1], self.sizes)
        if self.kind == "train-fold":
            return train_kernel(self.names[1], self.fold, self.max_hours, begun)
        if self.kind == "predict":
            return predict_kernel(self.names[1])
        return blend_kernel(self.names[1:])

    def write(self, folder: Path) -> None:
        """The kernel's notebook and metadata, below `folder`."""
        self.kernel().write(folder, OWNER_UNKNOWN)
        print(f"written to {shown(folder)}")

    def send(self, every: float | None) -> int:
        """Send and start it; with `every`, look so often until it has ended, and fetch its output.

        0, or 75 where the week's quota ends before a fold does.
        """
        run = self.names[1]
        if self.kind == "train-fold":
            if every is not None:
                return follow.train_on_kaggle(run, self.fold, self.max_hours, every, self.attach)
            name = f"{client.username()}/{slug(run, f'fold{self.fold}')}"
            push.push_kernel(self.kernel(begun=follow.exists(name)), self.attach)
        elif every is None:
            push.push_kernel(self.kernel(), self.attach)
        elif self.kind == "prepare":
            follow.prepare_on_kaggle(run, self.sizes, every, self.attach)
        else:
            stem = run if self.kind == "predict" else "blend"
            follow.submission_on_kaggle(self.kernel(), stem, every, self.attach)
        return 0
