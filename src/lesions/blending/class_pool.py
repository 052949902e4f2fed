"""The members of a blend of more than two classes: a probability per class, and the objective."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lesions.blending.fast_auc import fast_auc
from lesions.blending.pool import Pool, Search
from lesions.evaluation.intervals import Interval, bootstrap_values
from lesions.evaluation.metrics import Floats
from lesions.evaluation.multiclass import (
    LABELS,
    SCORES,
    all_scores,
    class_scores,
    codes_of,
    matrix_scores,
)


@dataclass(frozen=True)
class ClassPool:
    """The place of each row's class (N,), and the members' probabilities (K, C, N).

    `objective` is the one of `multiclass.SCORES` that methods raise and estimates are of.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    target: NDArray[np.int64]
    probs: Floats
    objective: str = "macro_auc"

    scale: ClassVar[str] = "prob"
    powers: ClassVar[tuple[float, ...]] = (0.0, 0.5, 1.0, 2.0, 4.0)  # 0 is the geometric mean
    sizes: ClassVar[range] = range(2, 7)

    @property
    def label(self) -> str:
        """The objective as a heading."""
        return LABELS[self.objective]

    def take(self, rows: ArrayLike) -> "ClassPool":
        """The pool of those rows."""
        chosen = np.asarray(rows)
        return replace(self, target=self.target[chosen], probs=self.probs[:, :, chosen])

    def search(self) -> Search:
        """The probabilities (K, C, N), and the objective of their sums."""
        return Search(self.probs, build_objective(self.objective, self.target, len(self.classes)))

    def score(self, blended: Floats) -> float:
        """The objective of probabilities (N, C)."""
        return self.search().score(blended.T)

    def blend(self, weights: Floats, scale: str, power: float) -> Floats:
        """Blended probabilities (N, C); rows sum to 1."""
        if power == 1:
            return np.tensordot(weights, self.probs, 1).T
        if power == 0:
            blended = np.exp(np.tensordot(weights, np.log(np.maximum(self.probs, 1e-7)), 1)).T
        else:
            blended = (np.tensordot(weights, self.probs**power, 1) ** (1 / power)).T
        return blended / blended.sum(axis=1, keepdims=True)

    def comparable(self, blended: Floats) -> Floats:
        """The probabilities as they are: they mean the same whatever the weights."""
        return blended

    def bootstrap(self, scores: Sequence[Floats], groups: ArrayLike, seed: int = 0) -> Floats:
        """The objective of each of `scores` on the same resamples of groups, (2,000, K)."""
        values = bootstrap_values(all_scores, self.target, scores, groups, seed=seed)
        return values[:, :, SCORES.index(self.objective)]

    def intervals(self, groups: ArrayLike) -> dict[str, Interval]:
        """The objective of each member."""
        target = np.array(self.classes)[self.target]
        return {
            name: class_scores(target, probs.T, self.classes, groups)[self.objective]
            for name, probs in zip(self.names, self.probs, strict=True)
        }

    def undefined(self) -> str | None:
        """Why nothing can be scored on these rows, or None."""
        return "one class only" if len(np.unique(self.target)) < 2 else None

    def columns(self, blended: Floats, name: str) -> dict[str, Floats]:
        """The blended probabilities as columns of a file: prob_<class>, whatever the `name`."""
        return {f"prob_{of}": column for of, column in zip(self.classes, blended.T, strict=True)}

    def correlation(self) -> Floats:
        """How alike the members are, (K, K): correlation of their probabilities."""
        return np.asarray(np.corrcoef(self.probs.reshape(len(self.names), -1)))

    def counts(self) -> dict[str, Any]:
        """What the rows are, and what was asked of them, for blend.json."""
        counts = np.bincount(self.target, minlength=len(self.classes))
        named = {name: int(n) for name, n in zip(self.classes, counts, strict=True)}
        return {"classes": named, "objective": self.objective}


AnyPool = Pool | ClassPool


def build_class_pool(
    probs: pd.DataFrame,
    classes: Sequence[str],
    target: ArrayLike | None = None,
    objective: str = "macro_auc",
) -> ClassPool:
    """The members' probabilities, `probs` with columns (member, prob_<class>), `target` names.

    Without `target`, as on a test set, the pool can be scored but not fitted.
    """
    names = tuple(dict.fromkeys(probs.columns.get_level_values(0)))
    matrices = [
        probs[name][[f"prob_{of}" for of in classes]].to_numpy(np.float64) for name in names
    ]
    codes = np.full(len(probs), -1) if target is None else codes_of(target, classes)
    return ClassPool(names, tuple(classes), codes, np.stack(matrices).swapaxes(1, 2), objective)


def build_objective(
    name: str, target: NDArray[np.int64], classes: int
) -> Callable[[Floats], float]:
    """One of `multiclass.SCORES` from probabilities, or sums of them, (C, N): in milliseconds."""
    if name != "macro_auc":

        def score(total: Floats) -> float:
            cells = np.bincount(target * classes + total.argmax(axis=0), minlength=classes**2)
            return float(matrix_scores(cells.reshape(1, classes, classes).astype(float))[name][0])

        return score
    parts = [(np.flatnonzero(target == k), np.flatnonzero(target != k)) for k in range(classes)]
    known = [(k, own, rest) for k, (own, rest) in enumerate(parts) if len(own) and len(rest)]
    return lambda total: float(
        np.mean([fast_auc(total[k][own], total[k][rest]) for k, own, rest in known])
    )
