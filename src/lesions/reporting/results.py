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
from lesions.evaluation.multiclass import classes_in
from lesions.paths import shown
from lesions.reporting.predictions import (
    join_table,
    label,
    load_table,
    read_predictions,
    scores_of,
)
from lesions.reporting.words import Words, words_of


@dataclass(frozen=True)
class Results:
    """One model's predictions and everything beside them; what is absent is empty or None.

    `oof` and `test` are rows of the table with `prob` added and the table's position as index, so
    that `images[oof.index]` are the photographs. `oof` has no row without a target. With `classes`
    there is prob_<class> instead of `prob`, and the target is the class's name.
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
    task: str = "melanoma"
    classes: list[str] = field(default_factory=list)  # none: the task asks yes or no

    @property
    def words(self) -> Words:
        """What the lesions are called that are looked for."""
        return words_of(self.task)

    @property
    def score_label(self) -> str:
        return "predicted score" if self.is_probability else "rank of the blended score"


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
    predictions = pd.concat([read_predictions(path) for path in paths])
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
        task=config.data.task,
    )


def load_blend(path: Path, oof_dir: Path, prepared: Path) -> Results:
    """The results of a blend.json, each row scored by weights that did not see it.

    Of two classes the scores are ranks, and test scores are ranked too, among themselves.
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
    predictions = read_predictions(path.with_name(f"{path.stem}_oof.csv"))
    results = join(
        f"Blend of {len(blend['members'])} runs",
        prepared / config.dataset,
        predictions,
        path.with_suffix(".csv"),
        details={path.name: path.read_text(encoding="utf-8")},
        image_size=config.data.image_size,
        task=config.data.task,
    )
    if results.classes:
        return replace(results, blend=blend)
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
    task: str | None = None,
) -> Results:
    """Predictions (image_name, prob or prob_<class>) joined to the table of the data set.

    `task` None is the data set's own.
    """
    facts = files.read_json(prepared / "table.json") if (prepared / "table.json").exists() else {}
    own = facts.get("config", {}).get("task", "melanoma")
    classes = classes_in(predictions.columns)
    asked = "malignant" if classes else task or own
    table = label(load_table(prepared), own, task or own)
    _check_hashes(name, facts.get("table_hash"), folds)
    oof = join_table(table, predictions, f"out-of-fold predictions of {name}")
    if oof["target"].isna().any():
        rows = listed(oof.loc[oof["target"].isna(), "image_name"])
        raise InputError(f"{name}: out-of-fold rows without a target in table.csv: {rows}")
    test = table.iloc[:0].assign(**{column: np.empty(0) for column in scores_of(predictions)})
    if submission.exists():
        sent = files.read_csv(submission, ["image_name"], ("image_name",))
        sent = sent.rename(columns={} if classes else {"target": "prob"})
        if missing := [column for column in scores_of(predictions) if column not in sent]:
            raise InputError(f"{shown(submission)}: no column {listed(missing)}: predict again")
        test = join_table(table, sent, shown(submission))
    return Results(
        name=name,
        dataset=prepared.name,
        task=task or own,
        classes=classes,
        oof=oof if classes else oof.astype({"target": int}),
        test=test,
        folds=list(folds),
        # The audit asks the data set's own question, which a run may not.
        shortcuts=_shortcuts(prepared / "audit.json", oof["source"]) if asked == own else None,
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


def _check_hashes(name: str, table_hash: str | None, folds: Sequence[dict[str, Any]]) -> None:
    others = {fold["table_hash"] for fold in folds if fold.get("table_hash")} - {table_hash}
    if table_hash and others:
        raise InputError(
            f"{name} was trained on table {listed(sorted(others))}, but the prepared one is "
            f"{table_hash}: train again, or prepare it as it was"
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
