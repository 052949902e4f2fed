"""Each source's official files -> rows of one common shape.

A reader takes the folder of the files as published and returns a table with the columns COMMON,
one row a photograph, in file order; `split` is train or test, text columns are empty ("") where
nothing is known, `target` is 1 for melanoma, 0 for anything else, NaN on an unlabelled test row.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lesions.data.columns import number, require_target, require_unique, text
from lesions.errors import InputError
from lesions.files import read_csv

COMMON = [
    "image_name", "source", "split", "patient_id", "lesion_id", "diagnosis", "target",
    "sex", "age_approx", "site",
]  # fmt: skip

SITES = [
    "head/neck", "lower extremity", "oral/genital", "palms/soles", "torso", "upper extremity",
]  # fmt: skip

# 2019 tells the sides of the torso apart, 2020 does not.
_SITE_NAMES = {site: site for site in SITES} | {
    "anterior torso": "torso",
    "posterior torso": "torso",
    "lateral torso": "torso",
}

_DIAGNOSES_2019 = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]


def read_isic2019(folder: Path) -> pd.DataFrame:
    """ISIC 2019's 25,331 training rows, 4,522 of them melanomas. No patient ids are published."""
    path = folder / "ISIC_2019_Training_GroundTruth.csv"
    truth = read_csv(path, ["image", *_DIAGNOSES_2019], text=("image",))
    require_unique(path, truth["image"])
    one_hot = truth[_DIAGNOSES_2019].to_numpy(float)
    wrong = np.flatnonzero(~np.isin(one_hot, [0, 1]).all(axis=1) | (one_hot.sum(axis=1) != 1))
    if len(wrong):
        raise InputError(
            f"{path}: row {wrong[0] + 2}: exactly one diagnosis must be 1 and the others 0"
            f" ({len(wrong):,} such rows)"
        )
    path = folder / "ISIC_2019_Training_Metadata.csv"
    meta = read_csv(
        path, ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"], ("image",)
    )
    require_unique(path, meta["image"])
    rows = _joined(truth[["image"]], meta, "image", path)
    return pd.DataFrame(
        {
            "image_name": rows["image"],
            "source": "isic2019",
            "split": "train",
            "patient_id": "",
            "lesion_id": text(rows["lesion_id"]),
            "diagnosis": np.array(_DIAGNOSES_2019)[one_hot.argmax(axis=1)],
            "target": one_hot[:, 0],
            "sex": _sex(path, rows["sex"]),
            "age_approx": number(path, rows["age_approx"]),
            "site": _site(path, rows["anatom_site_general"]),
        }
    )


def read_isic2020(folder: Path) -> pd.DataFrame:
    """SIIM-ISIC 2020: 33,126 training rows (584 melanomas, 2,056 patients), 10,982 test rows.

    Lesion ids come from ISIC_2020_Training_GroundTruth_v2.csv, which Kaggle does not carry;
    without that file patients alone hold images together.
    """
    columns = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge"]
    ids = ("image_name", "patient_id")
    path = folder / "train.csv"
    train = read_csv(path, [*columns, "diagnosis", "target"], ids)
    require_unique(path, train["image_name"])
    train["target"] = require_target(path, train["target"])
    train["split"] = "train"
    lesions = folder / "ISIC_2020_Training_GroundTruth_v2.csv"
    if lesions.exists():
        truth = read_csv(lesions, ["image_name", "lesion_id"], ("image_name",))
        require_unique(lesions, truth["image_name"])
        train["lesion_id"] = train["image_name"].map(truth.set_index("image_name")["lesion_id"])
    test = read_csv(folder / "test.csv", columns, ids)
    require_unique(folder / "test.csv", test["image_name"])
    test["split"] = "test"
    rows = pd.concat([train, test], ignore_index=True)
    rows = rows.reindex(columns=[*columns, "diagnosis", "target", "split", "lesion_id"])
    return pd.DataFrame(
        {
            "image_name": rows["image_name"],
            "source": "isic2020",
            "split": rows["split"],
            "patient_id": text(rows["patient_id"]),
            "lesion_id": text(rows["lesion_id"]),
            "diagnosis": text(rows["diagnosis"]),
            "target": rows["target"].astype(float),
            "sex": _sex(path, rows["sex"]),
            "age_approx": number(path, rows["age_approx"]),
            "site": _site(path, rows["anatom_site_general_challenge"]),
        }
    )


def read_isic2017(folder: Path) -> pd.DataFrame:
    """ISIC 2017 task 3: 2,000 training photographs, 374 melanomas; age and sex alone are known."""
    path = folder / "ISIC-2017_Training_Part3_GroundTruth.csv"
    truth = read_csv(path, ["image_id", "melanoma", "seborrheic_keratosis"], ("image_id",))
    require_unique(path, truth["image_id"])
    meta_path = folder / "ISIC-2017_Training_Data_metadata.csv"
    meta = read_csv(meta_path, ["image_id", "age_approximate", "sex"], ("image_id",))
    require_unique(meta_path, meta["image_id"])
    rows = _joined(truth, meta, "image_id", meta_path)
    target = require_target(path, rows["melanoma"])
    keratosis = require_target(path, rows["seborrheic_keratosis"]) == 1
    return pd.DataFrame(
        {
            "image_name": rows["image_id"],
            "source": "isic2017",
            "split": "train",
            "patient_id": "",
            "lesion_id": "",
            "diagnosis": np.select([target == 1, keratosis], ["MEL", "BKL"], "NV"),
            "target": target,
            "sex": _sex(meta_path, rows["sex"]),
            "age_approx": number(meta_path, rows["age_approximate"]),
            "site": "",
        }
    )


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "isic2017": read_isic2017,
    "isic2019": read_isic2019,
    "isic2020": read_isic2020,
}

# Where the images lie below a source's folder, as its archive unpacks: split -> folders.
IMAGE_FOLDERS: dict[str, dict[str, list[str]]] = {
    "isic2017": {"train": ["ISIC-2017_Training_Data", "images"]},
    "isic2019": {"train": ["ISIC_2019_Training_Input/ISIC_2019_Training_Input",
                           "ISIC_2019_Training_Input", "images"]},
    "isic2020": {"train": ["jpeg/train", "train"], "test": ["jpeg/test", "test"]},
}  # fmt: skip


def read_duplicates(folder: Path) -> pd.DataFrame:
    """ISIC 2020's official duplicate pairs: columns image_name_1 and image_name_2."""
    path = folder / "ISIC_2020_Training_Duplicates.csv"
    if not path.exists():
        return pd.DataFrame({"image_name_1": [], "image_name_2": []}, dtype=str)
    return read_csv(path, ["image_name_1", "image_name_2"], ("image_name_1", "image_name_2"))


def _joined(rows: pd.DataFrame, meta: pd.DataFrame, key: str, path: Path) -> pd.DataFrame:
    missing = rows.loc[~rows[key].isin(meta[key]), key]
    if len(missing):
        raise InputError(f"{path}: no row for {missing.iloc[0]} ({len(missing):,} images lack one)")
    return rows.merge(meta, on=key, how="left", validate="one_to_one")


def _sex(path: Path, values: pd.Series) -> pd.Series:
    return _vocabulary(path, "sex", values, {"male": "male", "female": "female"})


def _site(path: Path, values: pd.Series) -> pd.Series:
    return _vocabulary(path, "site", values, _SITE_NAMES)


def _vocabulary(path: Path, what: str, values: pd.Series, names: dict[str, str]) -> pd.Series:
    values = text(values).replace("unknown", "")
    unknown = sorted(set(values) - set(names) - {""})
    if unknown:
        raise InputError(
            f"{path}: unknown {what} {', '.join(unknown)}: expected {', '.join(names)}"
        )
    return values.map(names).fillna("")
