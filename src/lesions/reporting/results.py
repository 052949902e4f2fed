"""What a report is made of: a run's or a blend's predictions joined to the table they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions import files
from lesions.config import load_config
from lesions.data.table import names_hash
from lesions.errors import InputError, listed
from lesions.paths import shown

TABLE_TEXT = (
    "image_name",
    "source",
    "split",
    "patient_id",
    "lesion_id",
    "diagnosis",
    "sex",
    "site",
)


@dataclass(frozen=True)
class Results:
    """One model's predictions and everything beside them; what is absent is empty or None.

    `oof` and `test` are rows of the table with `prob` added and the table's position as index, so
    that `images[oof.index]` are the photographs. `oof` has no row without a target.
    """

    name: str
    dataset: str
    oof: pd.DataFrame
    test: pd.DataFrame
    folds: list[dict[str, Any]] = field(default_factory=list)  # fold<k>.json
    shortcuts: list[dict[str, Any]] | None = None  # models without pixels, from audit.json
    images: np.ndarray | None = None  # uint8 (rows of the table, S, S, 3), RGB
    details: dict[str, str] = field(default_factory=dict)  # title -> text, shown folded away
    is_probability: bool = True  # False: ranks, which order rows but are no probabilities
    blend: dict[str, Any] | None = None  # blend.json

    @property
    def score_label(self) -> str:
        return "predicted score" if self.is_probability else "rank of the blended score"


def load_table(folder: Path) -> pd.DataFrame:
    """table.csv of a prepared data set, indexed by position, missing numbers as NaN."""
    columns = ["image_name", "source", "split", "diagnosis", "target", "sex", "age_approx"]
    columns += ["site", "width", "height", "group", "fold"]
    return files.read_csv(folder / "table.csv", columns, text=(*TABLE_TEXT, "group", "path"))


def load_run(run: str, oof_dir: Path, prepared: Path, submissions: Path) -> Results:
    """The results of `oof/<run>`; its test predictions if they have been made."""
    folder = oof_dir / run
    paths = sorted(folder.glob("fold*.csv"))
    if not paths:
        raise InputError(
            f"{shown(folder)} has no fold<k>.csv: train it with\n"
            f"    python scripts/train.py --config configs/{run}.yaml --fold all"
        )
    config = load_config(folder / "config.yaml")
    folds = [files.read_json(path) for path in sorted(folder.glob("fold*.json"))]
    if any(fold.get("task", "melanoma") != "melanoma" for fold in folds):
        raise InputError(f"{shown(folder)}: only runs of the task melanoma can be reported")
    predictions = pd.concat(
        [files.read_csv(path, ["image_name", "target", "prob"], ("image_name",)) for path in paths]
    )
    details = {"config.yaml": (folder / "config.yaml").read_text(encoding="utf-8")}
    if folds:
        details["Versions and hashes"] = _provenance(folds[0])
    return join(
        run,
        prepared / config.dataset,
        predictions,
        submissions / f"{run}.csv",
        folds=folds,
        details=details,
        image_size=config.data.image_size,
    )


def load_blend(path: Path, oof_dir: Path, prepared: Path) -> Results:
    """The results of a blend.json: its scores are ranks, each by weights that did not see the row.

    Test scores are ranked too, among themselves.
    """
    if not path.exists():
        raise InputError(f"{shown(path)}: no such file: python scripts/blend.py RUN RUN makes it")
    blend = files.read_json(path)
    configs = [oof_dir / member / "config.yaml" for member in blend["members"]]
    config = next((load_config(config) for config in configs if config.exists()), None)
    if config is None:
        raise InputError(
            f"{shown(path)}: no member is a run below {shown(oof_dir)}, so its images are in no "
            "prepared table, and there is nothing to report beside blend.json"
        )
    predictions = files.read_csv(
        path.with_name(f"{path.stem}_oof.csv"), ["image_name", "prob"], ("image_name",)
    )
    results = join(
        f"Blend of {len(blend['members'])} runs",
        prepared / config.dataset,
        predictions,
        path.with_suffix(".csv"),
        details={path.name: path.read_text(encoding="utf-8")},
        image_size=config.data.image_size,
    )
    test = results.test.assign(prob=results.test["prob"].rank(pct=True))
    return replace(results, test=test, is_probability=False, blend=blend)


def join(
    name: str,
    prepared: Path,
    predictions: pd.DataFrame,
    submission: Path,
    folds: Sequence[dict[str, Any]] = (),
    details: dict[str, str] | None = None,
    image_size: int = 256,
) -> Results:
    """Predictions (image_name, prob) joined to the table of the data set in `prepared`."""
    table = load_table(prepared)
    _check_hashes(name, prepared, folds)
    oof = _joined(table, predictions, f"out-of-fold predictions of {name}")
    if oof["target"].isna().any():
        rows = listed(oof.loc[oof["target"].isna(), "image_name"])
        raise InputError(f"{name}: out-of-fold rows without a target in table.csv: {rows}")
    test = table.iloc[:0].assign(prob=np.empty(0))
    if submission.exists():
        sent = files.read_csv(submission, ["image_name", "target"], ("image_name",))
        test = _joined(table, sent.rename(columns={"target": "prob"}), shown(submission))
    return Results(
        name=name,
        dataset=prepared.name,
        oof=oof.astype({"target": int}),
        test=test,
        folds=list(folds),
        shortcuts=_shortcuts(prepared / "audit.json", oof["source"]),
        images=_open_images(prepared, table, image_size),
        details=details or {},
    )


def _shortcuts(audit: Path, sources: pd.Series) -> list[dict[str, Any]] | None:
    """The scores without pixels on the rows that are scored: one source's where there is one."""
    if not audit.exists():
        return None
    scores = files.read_json(audit)["shortcuts"]
    only = sources.unique()
    own = [row | {"source": "all"} for row in scores if len(only) == 1 and row["source"] == only[0]]
    return own or scores


def _joined(table: pd.DataFrame, predictions: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table's rows that have a prediction, in the table's order, with `prob`."""
    names = predictions["image_name"]
    if names.duplicated().any():
        raise InputError(f"{what}: predicted twice: {listed(names[names.duplicated()])}")
    unknown = names[~names.isin(table["image_name"])]
    if len(unknown):
        raise InputError(
            f"{what}: {len(unknown):,} rows are not in table.csv ({listed(unknown)}): "
            "it was prepared again since; predict again, or prepare as before"
        )
    prob = table["image_name"].map(predictions.set_index("image_name")["prob"])
    if int(prob.notna().sum()) != len(names):
        raise InputError(f"{what}: {int(predictions['prob'].isna().sum()):,} probabilities are NaN")
    return table.assign(prob=prob)[prob.notna()]


def _check_hashes(name: str, prepared: Path, folds: Sequence[dict[str, Any]]) -> None:
    path = prepared / "table.json"
    table_hash = files.read_json(path).get("table_hash") if path.exists() else None
    others = {fold["table_hash"] for fold in folds if fold.get("table_hash")} - {table_hash}
    if table_hash and others:
        raise InputError(
            f"{name} was trained on table {listed(sorted(others))}, but {shown(path)} is "
            f"{table_hash}: train again, or prepare {prepared.name} as it was"
        )


def _open_images(prepared: Path, table: pd.DataFrame, wanted: int) -> np.ndarray | None:
    """The image cache at the run's own size, else the one nearest to it; None without any.

    A cache made for other rows is passed over: it would show photographs of other lesions.
    """
    sizes = [int(path.parent.name) for path in prepared.glob("[0-9]*/images.npy")]
    for size in sorted(sizes, key=lambda size: abs(size - wanted)):
        folder = prepared / str(size)
        facts = files.read_json(folder / "cache.json") if (folder / "cache.json").exists() else {}
        images = np.load(folder / "images.npy", mmap_mode="r")
        known = names_hash(table)
        if len(images) == len(table) and facts.get("names_hash", known) == known:
            return images
    return None


def _provenance(fold: dict[str, Any]) -> str:
    hashes = ("config_hash", "table_hash", "fold_hash", "commit")
    lines = [f"{key}: {fold[key]}" for key in hashes if key in fold]
    lines += [f"{package}: {version}" for package, version in fold.get("versions", {}).items()]
    return "\n".join(lines)
