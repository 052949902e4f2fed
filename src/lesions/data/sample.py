"""Draw the embedded sample: lesions in the file layout of the ISIC 2019 and 2020 downloads.

Nothing here is a photograph, so it needs no account, network or licence. A lesion has a hidden
score; asymmetry, border, colours and diameter follow it loosely, and the classes overlap, so a
small CNN trained from random weights for a few epochs separates them well but not perfectly.
"""

import shutil
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.errors import InputError
from lesions.files import read_json, write_csv, write_json

VERSION = 1  # raise when a change alters any byte: samples of another version are drawn again
CLASSES = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
SITES = ["torso", "lower extremity", "upper extremity", "head/neck", "palms/soles", "oral/genital"]
SITE_SHARES = {0: [0.50, 0.24, 0.15, 0.08, 0.02, 0.01], 1: [0.42, 0.19, 0.19, 0.17, 0.02, 0.01]}
SHARES = {
    "isic2019": {"MEL": 0.30, "NV": 0.38, "BCC": 0.11, "BKL": 0.10, "AK": 0.04, "SCC": 0.03}
    | {"DF": 0.02, "VASC": 0.02},
    "isic2020": {"MEL": 0.12, "NV": 0.84, "BKL": 0.04},
}
LATE_NAMES = {"MEL": "melanoma", "BKL": "seborrheic keratosis", "NV": "unknown"}
SIZES = [(200, 150), (300, 225), (450, 300), (400, 400), (600, 450), (600, 450), (1024, 768)]

LOOKS = {  # mean hidden score, and RGB of the lesion's body
    "MEL": (2.2, (122, 80, 58)), "NV": (0.0, (138, 92, 66)), "BKL": (0.5, (146, 112, 84)),
    "BCC": (0.5, (186, 122, 112)), "SCC": (0.5, (184, 110, 100)), "AK": (0.0, (190, 128, 112)),
    "DF": (0.0, (168, 124, 104)), "VASC": (0.0, (160, 54, 60)),
}  # fmt: skip
PATCHES = [  # the further colours of a malignant lesion, RGB and strength: black, blue, red, white
    ((52, 34, 30), 0.85), ((92, 98, 118), 0.7), ((176, 74, 66), 0.5), ((214, 190, 176), 0.4),
]  # fmt: skip


def write_sample(out: Path, images: int = 900, seed: int = 0) -> pd.DataFrame:
    """Draw the sample into `out`; returns its plan (`plan_sample`), with the test rows' targets.

    The folder appears complete or not at all; a complete sample of the same arguments is left as it
    is, another sample is replaced. InputError if `out` holds anything else.
    """
    plan = plan_sample(images, seed)
    label = {"generator": VERSION, "images": images, "seed": seed, "files": len(plan)}
    if (out / "sample.json").is_file():
        found = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
        if found >= {*plan["path"], *tables(plan)} and read_json(out / "sample.json") == label:
            return plan
    elif out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out}: holds something else than a sample: name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        part = Path(work) / "sample"
        for name, table in tables(plan).items():
            write_csv(part / name, table)
        bar = tqdm(plan.to_dict("records"), "drawing the sample", unit="image", disable=None)
        for row in bar:
            path = part / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            quality = [cv2.IMWRITE_JPEG_QUALITY, row["quality"]]
            if not cv2.imwrite(str(path), draw_photo(seed, row)[..., ::-1], quality):
                raise InputError(f"{path}: cannot be written")
        write_json(part / "sample.json", label)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    return plan


def plan_sample(images: int, seed: int) -> pd.DataFrame:
    """One row an image: two fifths of `images` from 2019, the rest from 2020, then test rows.

    The test rows are 2/15 more. `twin` marks the second image of a planted pair: same photograph,
    other name, size and quality (2019: `<id>` and `<id>_downsampled`; 2020: a listed duplicate).
    """
    if seed < 0:
        raise InputError(f"seed: {seed}: at least 0")
    if images < 40:
        raise InputError(f"images: {images}: at least 40, or the folds are without melanomas")
    rng, early = np.random.default_rng([seed, 0]), images * 2 // 5
    parts = [
        _plan_part("isic2019", "train", early, 0, rng),
        _plan_part("isic2020", "train", images - early, early, rng),
        _plan_part("isic2020", "test", images * 2 // 15, images, rng),
    ]
    return _name_images(pd.concat(parts, ignore_index=True), rng)


def _plan_part(
    source: str, split: str, count: int, start: int, rng: np.random.Generator
) -> pd.DataFrame:
    """The rows of one official table; `start` is its first number of lesion, photo and person."""
    twins = max(2, count // 60) if split == "train" else 0
    photos = rng.choice([1, 2, 3], count, p=[0.82, 0.15, 0.03])
    photos[: twins + 2] = rng.permutation([1] * twins + [2, 2])  # both kinds of pair, at any size
    photos = photos[: np.searchsorted(np.cumsum(photos), count - twins) + 1]
    photos[-1] -= photos.sum() - (count - twins)
    lesion = person = start + np.arange(len(photos))  # 2019 names no patients
    if source == "isic2020":
        person = np.repeat(lesion, rng.integers(2, 9, len(lesion)))[: len(lesion)]
    lesions = pd.DataFrame({"source": source, "split": split, "lesion": lesion, "person": person})
    lesions["photos"] = photos
    ends = np.round(np.cumsum([*SHARES[source].values()]) * len(lesion)).astype(int)
    diagnoses = np.repeat([*SHARES[source]], np.diff(ends, prepend=0))  # shares up to rounding
    lesions["diagnosis"] = rng.permutation(diagnoses)
    lesions["target"] = (lesions["diagnosis"] == "MEL").astype(int)
    mean = [LOOKS[name][0] for name in lesions["diagnosis"]]
    lesions["score"] = mean + rng.normal(size=len(lesion))
    lesions["site"] = [rng.choice(SITES, p=SITE_SHARES[target]) for target in lesions["target"]]
    if source == "isic2019":
        torso = np.array(["anterior torso", "posterior torso", "anterior torso", "lateral torso"])
        lesions["site"] = lesions["site"].mask(lesions["site"] == "torso", torso[lesion % 4])
    at_risk = lesions.groupby("person")["target"].transform("max")
    lesions["age"] = (5 * np.round(rng.normal(45 + 10 * at_risk, 14) / 5)).clip(15, 90)
    lesions["sex"] = rng.choice(["male", "female"], len(lesion))
    lesions[["age", "sex"]] = lesions.groupby("person")[["age", "sex"]].transform("first")
    rows = lesions.loc[lesions.index.repeat(lesions["photos"])].reset_index(drop=True)
    rows["photo"] = start + np.arange(len(rows))
    rows["width"], rows["height"] = np.array(SIZES)[rng.integers(len(SIZES), size=len(rows))].T
    rows["quality"] = rng.integers(75, 93, len(rows))
    rows["twin"] = False
    single = rows.index[rows["photos"] == 1]
    again = rows.loc[single[:: max(1, len(single) // max(1, twins))][:twins]].copy()
    again[["width", "height"]] = again[["width", "height"]] * 2 // 3
    again["quality"], again["twin"] = 70, True
    for column in ("age", "sex", "site") if twins else ("site",):  # test misses sites only
        blank = rng.choice(len(rows), max(1, len(rows) // 30), replace=False)
        rows.loc[blank, column] = None
    return pd.concat([rows, again], ignore_index=True)


def _name_images(plan: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The plan with official names and paths: unique, and independent of the target."""
    early = plan["source"] == "isic2019"
    low = rng.choice(73_000, len(plan), replace=False)  # the two archives' ids do not meet
    high = rng.choice(np.arange(73_000, 9_999_999), len(plan), replace=False)
    plan["image_name"] = [f"ISIC_{number:07d}" for number in np.where(early, low, high)]
    people = rng.choice(np.arange(1_000_000, 9_999_999), len(plan), replace=False)
    plan["patient_id"] = [f"IP_{number}" for number in people[plan["person"]]]
    plan.loc[early, "patient_id"] = None
    archive = np.where(early, np.where(plan["lesion"] % 2, "HAM", "BCN"), "IL")
    plan["lesion_id"] = [f"{a}_{n:07d}" for a, n in zip(archive, plan["lesion"], strict=True)]
    paired = early & plan["lesion"].isin(plan.loc[plan["twin"], "lesion"])
    lone = early & ~paired & (plan["photos"] == 1) & (plan["lesion"] % 7 == 0)
    plan.loc[paired | lone, "lesion_id"] = None  # only the name links a twin of 2019
    second = paired & plan["twin"]
    first = plan[paired & ~plan["twin"]].set_index("lesion")["image_name"]
    plan.loc[second, "image_name"] = plan.loc[second, "lesion"].map(first)
    plan.loc[second | (lone & (plan["lesion"] % 2 == 0)), "image_name"] += "_downsampled"
    folder = ("isic2020/jpeg/" + plan["split"]).mask(early, "isic2019/ISIC_2019_Training_Input")
    plan["path"] = folder + "/" + plan["image_name"] + ".jpg"
    return plan.sort_values("image_name", kind="stable", ignore_index=True)


def tables(plan: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The official CSV files of a plan by path, with the owners' headers, order and spelling."""
    early, late = plan[plan["source"] == "isic2019"], plan[plan["source"] == "isic2020"]
    early = early.astype({"age": "Int64"}).rename(
        columns={"image_name": "image", "age": "age_approx", "site": "anatom_site_general"}
    )
    truth = {name: (early["diagnosis"] == name).astype(float) for name in CLASSES}
    known = ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    nevus = (late["diagnosis"] == "NV") & (late["lesion"] % 4 == 0)  # most have no known one
    late = late.assign(
        diagnosis=late["diagnosis"].map(LATE_NAMES).mask(nevus, "nevus"),
        benign_malignant=late["target"].map({0: "benign", 1: "malignant"}),
    ).rename(columns={"age": "age_approx", "site": "anatom_site_general_challenge"})
    train, test = late[late["split"] == "train"], late[late["split"] == "test"]
    pairs = train[train["twin"]].merge(train[~train["twin"]], on="photo", suffixes=("_2", "_1"))
    who = ["image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge"]
    what = ["diagnosis", "benign_malignant", "target"]
    lesions = train.astype({"age_approx": "Int64"})[[*who[:2], "lesion_id", *who[2:], *what]]
    return {
        "isic2019/ISIC_2019_Training_GroundTruth.csv": early[["image"]].assign(**truth),
        "isic2019/ISIC_2019_Training_Metadata.csv": early[known],
        "isic2020/train.csv": train[who + what],
        "isic2020/test.csv": test[who],
        "isic2020/sample_submission.csv": test[["image_name"]].assign(target=0),
        "isic2020/ISIC_2020_Training_Duplicates.csv": pairs[["image_name_1", "image_name_2"]],
        "isic2020/ISIC_2020_Training_GroundTruth_v2.csv": lesions,
    }


def _grain(rng: np.random.Generator, cells: int, shape: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about unit spread, `cells` bumps across."""
    coarse = rng.normal(size=(cells, cells)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def draw_lesion(seed: int, lesion: int, diagnosis: str, score: float) -> np.ndarray:
    """(192, 192, 4) float32: RGB of 0 to 255, and opacity over the skin, 0 to 1."""
    rng = np.random.default_rng([seed, 2, lesion])
    signs = 1 / (1 + np.exp(-(score - 1.1 + rng.normal(0, 0.8, 4))))
    lopsided, ragged, colourful, wide = signs  # the A, B, C and D of the ABCD rule
    axis = np.linspace(-1, 1, 192, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    waves = np.arange(3, 12)
    bumps = rng.normal(size=9) * (0.03 + 0.24 * ragged) / waves
    edge = 1 + 0.12 * np.cos(2 * turn) + (0.05 + 0.25 * lopsided) * np.cos(turn + 1)
    edge = edge + np.cos(waves * turn[:, None] + rng.uniform(0, 6.28, 9)) @ bumps
    radius = (0.32 + 0.26 * wide) * edge.astype(np.float32)
    angle = ((np.arctan2(y, x) + np.pi) * (359 / (2 * np.pi))).astype(np.int32)
    depth = radius[angle] - np.hypot(x, y)
    cover = 1 / (1 + np.exp(-depth / rng.uniform(0.015, 0.05)))
    shape = (192, 192)
    body = np.asarray(LOOKS[diagnosis][1], np.float32) + rng.normal(0, 5, 3) + rng.normal(0, 16)
    tone = 7 * _grain(rng, 7, shape) + 8 * _grain(rng, 44, shape) - 45 * np.clip(depth, 0, 0.5)
    colour = body + tone[..., None]
    for hue, strength in PATCHES:
        field = _grain(rng, 8, shape) + 2.2 * colourful - 2.0
        share = strength / (1 + np.exp(-4 * field))[..., None]
        colour = colour + share * (np.asarray(hue, np.float32) - colour)
    return np.dstack([colour, cover]).astype(np.float32)


def draw_photo(seed: int, row: dict[Hashable, Any]) -> np.ndarray:
    """(height, width, 3) uint8 RGB: one photograph of the lesion on the person's skin."""
    skin = np.random.default_rng([seed, 1, row["person"]])
    rng = np.random.default_rng([seed, 3, row["photo"]])
    shape = (192, 256)
    tone = np.array([222, 176, 152], np.float32) + skin.normal(0, 11) + skin.normal(0, 6, 3)
    scene = tone + (4 * _grain(rng, 4, shape) + 3 * _grain(rng, 60, shape))[..., None]
    zoom = rng.uniform(0.85, 1.15)
    place = np.array(cv2.getRotationMatrix2D((95.5, 95.5), rng.uniform(0, 360), zoom), float)
    place[:, 2] += np.array([32.5, 0.5]) + rng.normal(0, 7, 2)
    lesion = draw_lesion(seed, row["lesion"], row["diagnosis"], row["score"])
    layer = cv2.warpAffine(lesion, place, shape[::-1])
    scene += layer[..., 3:] * (layer[..., :3] - scene)
    light = rng.normal(1, 0.05) + 0.04 * _grain(rng, 2, shape)
    scene = scene * light[..., None] * rng.normal(1, 0.02, 3)
    x, y = np.meshgrid(np.linspace(-4 / 3, 4 / 3, 256), np.linspace(-1, 1, 192))
    if rng.random() < 0.25:
        rim = 1 / (1 + np.exp((np.hypot(x, y) - rng.uniform(1.15, 1.45)) * 25))
        scene *= rim[..., None]
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        draw_hairs(picture, rng)
    width, height = row["width"], row["height"]
    keep = min(256, 192 * width // height), min(192, 256 * height // width)
    left, top = (256 - keep[0]) // 2, (192 - keep[1]) // 2
    middle = picture[top : top + keep[1], left : left + keep[0]]  # in the wanted shape
    return cv2.resize(middle, (width, height), interpolation=cv2.INTER_CUBIC)


def draw_hairs(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw some hairs of similar direction and colour over a picture of 256 x 192, in place."""
    lean, dark = rng.uniform(0, np.pi), rng.uniform(30, 80)
    along = np.linspace(-1, 1, 24)
    for _ in range(rng.integers(4, 16)):
        turn, reach, bow = rng.normal(lean, 0.5), rng.uniform(25, 90), rng.normal(0, 14)
        middle = rng.uniform([0, 0], [256, 192])
        x, y = reach * along, bow * along**2
        cos, sin = np.cos(turn), np.sin(turn)
        curve = middle + np.column_stack([cos * x - sin * y, sin * x + cos * y])
        points = np.round(curve * 16).astype(np.int32)  # four bits of it are the fraction
        colour = (dark * 1.1, dark * 0.9, dark * 0.8)
        cv2.polylines(picture, [points], False, colour, 1, cv2.LINE_AA, 4)
