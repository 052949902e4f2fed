"""The diagnoses under one name each, and what a task makes of them. Data, no code paths."""

import pandas as pd

DIAGNOSES = {
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
    "scc": "squamous cell carcinoma",
    "benign": "benign, not told which: most of ISIC 2020",
}

MALIGNANT = ("mel", "bcc", "akiec", "scc")

# What the published files write, in lower case -> the name above; "" where nothing is known.
WORDS = {name: name for name in DIAGNOSES} | {words: name for name, words in DIAGNOSES.items()}
WORDS |= {
    "": "", "unk": "", "unknown": "", "nan": "",
    "ak": "akiec", "actinic keratosis": "akiec", "nevus": "nv",
    "seborrheic keratosis": "bkl", "lichenoid keratosis": "bkl", "solar lentigo": "bkl",
    "lentigo nos": "bkl",
    # one image each, benign by their file's own column
    "cafe-au-lait macule": "benign", "atypical melanocytic proliferation": "benign",
}  # fmt: skip

# diagnosis -> label. HAM10000 counts in situ SCC as akiec; its akiec come back in ISIC 2019 as
# 130 AK and 197 SCC, so scc goes back there where a task has no class for it.
TASKS: dict[str, dict] = {
    "melanoma": {name: int(name == "mel") for name in DIAGNOSES},
    "malignant": {name: int(name in MALIGNANT) for name in DIAGNOSES},
    # as one prior system says of itself: a vascular lesion is benign in all but rare cases
    "malignant_vasc": {name: int(name in (*MALIGNANT, "vasc")) for name in DIAGNOSES},
    "diagnosis7": {n: n for n in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")}
    | {"scc": "akiec"},
    "diagnosis8": {n: n for n in ("akiec", "bcc", "bkl", "df", "mel", "nv", "scc", "vasc")},
}


def classes_of(task: str) -> list[str]:
    """The task's classes in the order of its probabilities; empty where it asks yes or no."""
    names = set(TASKS[task].values())
    return sorted(names) if names != {0, 1} else []


def targets(diagnosis: pd.Series, task: str) -> pd.Series:
    """Each diagnosis as 0 or 1, or as its class's number; NaN where the task has no class for it.

    float64, in the order of `diagnosis`.
    """
    label = diagnosis.map(TASKS[task])
    classes = classes_of(task)
    if classes:
        label = label.map({name: number for number, name in enumerate(classes)})
    return label.astype(float)
