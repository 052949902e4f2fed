"""What cross-validation says of a submission file, from the files that made it."""

from dataclasses import dataclass
from pathlib import Path

from lesions.errors import InputError
from lesions.files import read_json, sha256
from lesions.paths import at


@dataclass(frozen=True)
class Estimate:
    """AUC on held-out patients with its 95 % interval; NaN with the reason in `origin` if none."""

    value: float
    low: float
    high: float
    origin: str

    def __str__(self) -> str:
        if self.value != self.value:
            return f"no CV estimate: {self.origin}"
        return f"CV {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.origin})"


def cv_estimate(path: Path) -> Estimate:
    """A blend's nested AUC, if blend.json is of these very bytes, or a run's out-of-fold AUC.

    A run's submission is known by its name: submissions/<run>.csv belongs to oof/<run>.
    """
    beside = path.with_suffix(".json")
    path = path.resolve()
    run = (
        path.relative_to(at("submissions")).with_suffix("") if path.is_relative_to(at("submissions")) else None
    )
    try:
        if beside.exists():
            return _of_blend(path, beside)
        if run and any((at("oof") / run).glob("fold*.csv")):
            return _of_run(run.as_posix())
    except InputError as error:
        return _none(str(error))
    return _none(f"neither {beside.name} beside it nor a run of this name")


def _of_blend(path: Path, beside: Path) -> Estimate:
    blend = read_json(beside)
    try:
        made, method = blend["submission"]["sha256"], blend["methods"][blend["chosen"]]
        low, high = method["interval"]
        value = method["nested"]
    except (KeyError, TypeError, ValueError):
        return _none(f"{beside.name} is not one that scripts/blend.py wrote")
    if made != sha256(path):
        return _none(f"{beside.name} is of another file than this: blend again")
    value, low, high = (float("nan") if number is None else number for number in (value, low, high))
    return Estimate(value, low, high, f"nested, {blend['chosen']} of {len(blend['members'])}")


def _of_run(run: str) -> Estimate:
    from lesions.blending.members import load_members
    from lesions.blending.rows import load_rows
    from lesions.evaluation.delong import delong

    member = load_members([run])[0]
    if "prob" not in member.table:
        return _none(f"{run} is a task of several classes")
    rows, _ = load_rows([member])
    prob = member.table.set_index("image_name")["prob"].loc[rows["image_name"]]
    score = delong(rows["target"], prob.to_numpy(), rows["group"])
    folds = len(member.files)
    return Estimate(score.value, score.low, score.high, f"out-of-fold, {folds} folds of {run}")


def _none(reason: str) -> Estimate:
    nan = float("nan")
    return Estimate(nan, nan, nan, reason)
