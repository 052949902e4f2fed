"""The vocabulary of diagnoses, and tasks: one object for yes-or-no and for several classes."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

DIAGNOSES = {
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
    "scc": "squamous cell carcinoma",
    "benign": "benign, unspecified: most of ISIC 2020",
}

MALIGNANT = ("mel", "bcc", "akiec", "scc")

# The words of the published files, in lower case -> the name above; "" for unknown.
WORDS = {name: name for name in DIAGNOSES} | {words: name for name, words in DIAGNOSES.items()}
WORDS |= {
    "": "", "unk": "", "unknown": "", "nan": "",
    "ak": "akiec", "actinic keratosis": "akiec", "nevus": "nv",
    "seborrheic keratosis": "bkl", "lichenoid keratosis": "bkl", "solar lentigo": "bkl",
    "lentigo nos": "bkl",
    # PAD-UFES-20's, and those of today's ISIC Archive; squamous cell carcinoma: see below
    "ack": "akiec", "nev": "nv", "sek": "bkl", "solar or actinic keratosis": "akiec",
    "pigmented benign keratosis": "bkl", "lichen planus like keratosis": "bkl",
    "melanoma, nos": "mel", "melanoma in situ": "mel", "melanoma invasive": "mel",
    "melanoma metastasis": "mel", "squamous cell carcinoma in situ": "akiec",
    "squamous cell carcinoma, nos": "scc", "squamous cell carcinoma, invasive": "scc",
    "malignant melanocytic proliferations (melanoma)": "mel",
    "benign soft tissue proliferations - vascular": "vasc", "hemangioma": "vasc",
    "angioma": "vasc", "angiokeratoma": "vasc", "pyogenic granuloma": "vasc",
    # one image each, benign by the file's column benign_malignant
    "cafe-au-lait macule": "benign", "atypical melanocytic proliferation": "benign",
}  # fmt: skip

# diagnosis -> label. HAM10000 counts in situ SCC as akiec; ISIC 2019 has its akiec as 130 AK and
# 197 SCC, so scc counts as akiec in a task without a class for it.
TASKS: dict[str, dict] = {
    "melanoma": {name: int(name == "mel") for name in DIAGNOSES},
    "malignant": {name: int(name in MALIGNANT) for name in DIAGNOSES},
    "diagnosis7": {n: n for n in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")}
    | {"scc": "akiec"},
    "diagnosis8": {n: n for n in ("akiec", "bcc", "bkl", "df", "mel", "nv", "scc", "vasc")},
}


@dataclass(frozen=True)
class Task:
    """A question asked of every photograph, and how files and arrays hold its answers.

    Probabilities are (N, C), one column for each of `classes`; a yes-or-no task has one class, its
    own name, and the column is P(yes). Codes are (N,): class numbers, or 1 for yes and 0 for no.
    Everything else in the repository works on codes and (N, C), whatever the task.
    """

    name: str
    classes: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether the task has several classes, rather than yes or no."""
        return len(self.classes) > 1

    @property
    def columns(self) -> list[str]:
        """The columns of a predictions' file: prob, or prob_<class> for each class."""
        return [f"prob_{name}" for name in self.classes] if self.several else ["prob"]

    @property
    def listed(self) -> list[str]:
        """The classes as headers and fold<k>.json list them: empty for yes or no."""
        return list(self.classes) if self.several else []

    @property
    def malignant(self) -> np.ndarray:
        """Which classes count as positive in a decision, bool (C,)."""
        return np.isin(self.classes, MALIGNANT) if self.several else np.array([True])

    def score(self, probs: ArrayLike) -> np.ndarray:
        """P(positive), float64 (...,), of probabilities (..., C): the malignant classes' sum."""
        return np.asarray(probs, np.float64)[..., self.malignant].sum(axis=-1).clip(0, 1)

    def positive(self, codes: ArrayLike) -> np.ndarray:
        """Whether each row is positive, bool (N,)."""
        found = np.asarray(codes).astype(int)
        return self.malignant[found] if self.several else found == 1

    def codes(self, target: ArrayLike) -> np.ndarray:
        """Codes int64 (N,) of a file's column `target`; ValueError for a value of another task."""
        values = pd.Index(np.asarray(target))
        known = pd.Index(self.classes if self.several else [0.0, 1.0])
        keys = values if self.several else pd.to_numeric(values, errors="coerce").astype(float)
        found = known.get_indexer(keys)
        if (found < 0).any():
            wanted = ", ".join(self.classes) if self.several else "0 or 1"
            raise ValueError(f"target {values[found < 0][0]} is not {wanted}")
        return found.astype(np.int64)

    def as_frame(self, probs: ArrayLike, codes: ArrayLike | None = None) -> pd.DataFrame:
        """The columns of a predictions file: target, if `codes` are given, and probabilities."""
        frame = pd.DataFrame(np.asarray(probs).reshape(-1, len(self.classes)), columns=self.columns)
        if codes is not None:
            found = np.asarray(codes).astype(int)
            frame.insert(0, "target", np.array(self.classes)[found] if self.several else found)
        return frame


def build_task(name: str) -> Task:
    """The task of that name in TASKS; its classes in alphabetical order."""
    labels = set(TASKS[name].values())
    return Task(name, (name,) if labels == {0, 1} else tuple(sorted(labels)))


def task_in(columns: Iterable[Hashable]) -> Task | None:
    """The task of a predictions' file by its columns prob_<class>, or prob; None without either."""
    names = list(map(str, columns))
    classes = tuple(column.removeprefix("prob_") for column in names if column.startswith("prob_"))
    return Task("positive", classes or ("positive",)) if classes or "prob" in names else None


def targets(diagnosis: pd.Series, task: str) -> pd.Series:
    """The code of each diagnosis, float64 in the order of `diagnosis`; NaN where it has none."""
    label, found = diagnosis.map(TASKS[task]), build_task(task)
    if found.several:
        label = label.map({name: number for number, name in enumerate(found.classes)})
    return label.astype(float)
