"""HAM10000, and DermaMNIST, which is made from it."""

from pathlib import Path

import numpy as np
import pandas as pd

from lesions.data.columns import Report, common_rows, no_rows, read_columns

# Its own places of the body, finer than the table's sites, in alphabetical order.
PLACES = [
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand",
    "lower extremity", "neck", "scalp", "trunk", "upper extremity",
]  # fmt: skip
DERMAMNIST = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]  # its labels 0 to 6


def read_ham10000(folder: Path, report: Report) -> pd.DataFrame:
    """HAM10000: 10,015 images of 7,470 lesions, seven diagnoses, no patient ids.

    Its rows have a column more than those of other sources: `localization`, one of PLACES or "".
    """
    path = folder / "HAM10000_metadata.csv"
    if not path.exists() and (folder / "HAM10000_metadata").exists():
        path = folder / "HAM10000_metadata"  # Dataverse's file has no suffix
    rows = read_columns(
        report, path,
        {"image_name": "image_id", "lesion_id": "lesion_id", "diagnosis": "dx",
         "age_approx": "age", "sex": "sex", "site": "localization",
         "localization": "localization"},
    )  # fmt: skip
    if rows is None:
        return no_rows("ham10000")
    return common_rows(rows, "ham10000").assign(localization=rows["localization"].str.lower())


def read_dermamnist(folder: Path, report: Report) -> pd.DataFrame:
    """DermaMNIST of any size: 7,007 + 1,003 + 2,005 images, official split, no metadata.

    693 of its 2,005 test images show a lesion that is also in training (Abhishek et al., Sci Data
    12:196, 2025). dermamnist_to_ham10000.csv, where it is there, gives the lesion ids that show it.
    """
    path = find_dermamnist(folder)
    if path is None:
        report.problem(folder, "no dermamnist*.npz in it: see input/README.md")
        return no_rows("dermamnist")
    parts = []
    with np.load(path, allow_pickle=False) as arrays:
        for official in ("train", "val", "test"):
            label = arrays[f"{official}_labels"].reshape(-1)
            names = [f"dermamnist_{official}_{index:05d}" for index in range(len(label))]
            diagnosis = np.array(DERMAMNIST)[label]
            parts.append(pd.DataFrame({"image_name": names, "diagnosis": diagnosis})
                         .assign(official=official))  # fmt: skip
    rows = pd.concat(parts, ignore_index=True)
    lesions = folder / "dermamnist_to_ham10000.csv"
    if lesions.exists():
        table = pd.read_csv(lesions, dtype={"index": int})
        known = "dermamnist_" + table["split"] + "_" + table["index"].map("{:05d}".format)
        rows["lesion_id"] = rows["image_name"].map(table.set_index(known)["lesion_id"])
    return common_rows(rows, "dermamnist")


def find_dermamnist(folder: Path) -> Path | None:
    """The npz of the largest images: dermamnist.npz is of 28 pixels, dermamnist_224.npz of 224."""
    sizes = {path: _size(path) for path in folder.glob("dermamnist*.npz")}
    return max(sizes, key=sizes.__getitem__) if sizes else None


def _size(path: Path) -> int:
    digits = path.stem.removeprefix("dermamnist").strip("_")
    return int(digits) if digits.isdigit() else 28
