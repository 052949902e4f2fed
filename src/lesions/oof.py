"""The one door to a run's out-of-fold predictions: read, checked, joined to their table by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.config import read_yaml, saved_config
from lesions.data.table import load_table, task_targets
from lesions.data.tasks import Task, build_task, task_in
from lesions.errors import InputError, listed
from lesions.files import read_csv, read_json
from lesions.paths import shown
from lesions.runs import RunFiles, find_run


@dataclass(frozen=True)
class Oof:
    """Predictions of rows that the model did not see, one row an image.

    `table` has image_name, fold (-1 unknown), group and source, and where the data set is prepared
    all columns of its table.csv; its index is 0..N-1, and column `row` the place in table.csv.
    `probs` are float64 (N, C) in the order of `task.classes`, `codes` int64 (N,); see data/tasks.py.
    `facts` are fold<k>.json by fold, of a run alone; `blend` is blend.json, of a blend alone.
    """

    name: str
    task: Task
    table: pd.DataFrame
    probs: np.ndarray
    codes: np.ndarray
    files: list[Path]
    groups_from: str  # which column of which file `group` is, for people to read
    run: RunFiles | None = None
    dataset: str | None = None
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    blend: dict[str, Any] | None = None

    @property
    def names(self) -> pd.Series:
        """image_name of each row."""
        return self.table["image_name"]

    @property
    def groups(self) -> np.ndarray:
        """The group of each row, (N,): patient, lesion or duplicates, which stay together."""
        return self.table["group"].to_numpy()

    @property
    def score(self) -> np.ndarray:
        """P(positive) of each row, (N,)."""
        return self.task.score(self.probs)

    @property
    def positive(self) -> np.ndarray:
        """Whether each row is positive, bool (N,)."""
        return self.task.positive(self.codes)

    @property
    def is_probability(self) -> bool:
        """Whether `probs` are meant as probabilities: a blend of ranks only orders rows."""
        return self.blend is None or self.blend.get("scale") != "rank"

    def take(self, rows: np.ndarray) -> "Oof":
        """The same of some rows: positions, or a mask."""
        table = self.table.iloc[np.arange(len(self.table))[rows]].reset_index(drop=True)
        return replace(self, table=table, probs=self.probs[rows], codes=self.codes[rows])
