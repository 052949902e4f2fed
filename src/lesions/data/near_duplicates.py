"""Find photographs that are published twice under different names, from the pixels.

First every image is compared with every other by a descriptor of its coarse colours, over turns,
flips and a trimmed border; each keeps its few nearest neighbours. These pairs are then compared in
fine detail: only a copy has the same pores and hairs in the same places. Planted copies score 0.85
and more; the most similar photographs of different lesions, small dark spots on plain skin, score
0.78 (docs/results/near_duplicates.json).
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from lesions.data.folds import merge_groups
from lesions.files import read_json, write_json

VERSION = 1  # raise it when other pairs would be found
SIZE = 64  # pixels of the images compared
SAME = 0.8  # least score of a copy
NEIGHBOURS = 8  # candidates of each image
_WAVES, _DIMENSIONS = 12, 96
_TRIM = 2  # pixels off each side: a copy may have lost its border
_BLOCK = 512  # rows compared at once: memory is a block times all rows
_PART = 42  # pixels of the middle that is searched for in the other image
_SCALES = (1.0, 0.94, 1.06, 0.88, 0.91, 0.97, 1.03, 1.10, 1.14)  # a cropped copy is larger
_FIRST = 3  # scales tried before most pairs are given up
_HOPELESS = 0.35
_TURNS = 8  # bit 1 and 2 flip an axis, then bit 4 transposes


def find_near_duplicates(images: np.ndarray, group: np.ndarray | None = None) -> pd.DataFrame:
    """Pairs of rows (first < second) of uint8 (N, 64, 64, 3) that show one photograph.

    Columns first, second, score (0.8 to 1), best first. Pairs within a `group` (N labels) are
    skipped. All pairs are compared, in O(N) memory; images without any contrast have no copies.
    """
    group = np.arange(len(images)) if group is None else pd.factorize(pd.Series(group))[0]
    rows = np.array([row for row, image in enumerate(images) if image.std() > 2], int)
    if len(rows) < 2:
        return pd.DataFrame({"first": [], "second": [], "score": []})
    if len(rows) < len(images):  # which takes a copy
        images, group = images[rows], group[rows]
    first, second, turn = _candidates(images, group)
    details = np.stack([_detail(image).astype(np.float16) for image in images])
    score = _verify(details, first, second, turn)
    pairs = pd.DataFrame({"first": rows[first], "second": rows[second], "score": score})
    pairs[["first", "second"]] = np.sort(pairs[["first", "second"]].to_numpy(), axis=1)
    pairs = pairs[pairs["score"] >= SAME].sort_values("score", ascending=False, kind="stable")
    return pairs.drop_duplicates(["first", "second"]).reset_index(drop=True)


def link_near_duplicates(
    table: pd.DataFrame, images: np.ndarray, readable: np.ndarray, path: Path
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table with near-duplicates in one group, and counts of the pairs found.

    The pairs are saved in `path` (JSON) and read from there as long as rows and pixels are the
    same. A training and an official test photograph are counted, not grouped: the split is given.
    """
    key = _key(table, images)
    kept = read_json(path) if path.exists() else {}
    if kept.get("key") != key:
        seen = images if readable.all() else images[readable]
        found = find_near_duplicates(seen, table["group"].to_numpy()[readable])
        names = table["image_name"].to_numpy()[readable]
        ends = [names[found[end]].tolist() for end in ("first", "second")]
        scores = found["score"].round(4).tolist()
        kept = {"key": key, "pairs": list(zip(*ends, scores, strict=True))}
        write_json(path, kept)
    pairs = pd.DataFrame(kept["pairs"], columns=["image_name_1", "image_name_2", "score"])
    rows_of = table.set_index("image_name")
    first, second = (rows_of.loc[pairs[f"image_name_{end}"]].reset_index() for end in (1, 2))
    within = (first["split"] == second["split"]).to_numpy()
    differ = (first["target"] - second["target"]).abs() > 0  # not so where one is unlabelled
    facts = {
        "pairs": len(pairs),
        "across_sources": int((first["source"] != second["source"]).sum()),
        "train_with_test": int((~within).sum()),
        "targets_differ": int(differ.sum()),
    }
    return merge_groups(table, pairs[within]), facts


def _key(table: pd.DataFrame, images: np.ndarray) -> str:
    """Sixteen hex digits of the rows, pixels and version that decide which pairs are found."""
    rows = table[["image_name", "group"]].to_csv(index=False)
    digest = hashlib.sha256(f"{VERSION} {images.shape} {rows}".encode())
    for start in range(0, len(images), _BLOCK):
        digest.update(images[start : start + _BLOCK].tobytes())
    return digest.hexdigest()[:16]


def _candidates(images: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (query, neighbour) and the turn of the query that matches best."""
    waves = _waves(images)
    trimmed = _waves(images[:, _TRIM:-_TRIM, _TRIM:-_TRIM])
    basis = _basis(waves)
    gallery = [_unit(part) @ basis for part in (waves, trimmed)]
    members = pd.Series(np.arange(len(images))).groupby(group).indices
    keep = min(NEIGHBOURS, len(images) - 1)
    found = []
    bar = tqdm(range(0, len(images), _BLOCK), "near-duplicates", unit="block", disable=None)
    for start in bar:
        block = np.arange(start, min(start + _BLOCK, len(images)))
        turned = np.stack([_unit(_turn(waves[block], turn)) @ basis for turn in range(_TURNS)])
        best = np.full((len(block), len(images)), -1, np.float32)
        for queries in turned:
            for part in gallery:
                np.maximum(best, queries @ part.T, out=best)
        for row, name in enumerate(group[block]):
            best[row, members[name]] = -1
        near = np.argpartition(best, -keep, axis=1)[:, -keep:]
        each = [np.einsum("trd,rkd->trk", turned, part[near]) for part in gallery]
        turn = np.maximum(*each).argmax(axis=0)
        real = np.take_along_axis(best, near, axis=1) > 0
        query = np.repeat(block[:, None], keep, axis=1)
        found.append(np.stack([query[real], near[real], turn[real]]))
    first, second, turn = np.concatenate(found, axis=1)
    return first, second, turn


def _waves(images: np.ndarray) -> np.ndarray:
    """The low frequencies (cosine transform) of each image's logarithm, (N, 3, 12, 12) float32.

    Without the mean, so that brightness and tint do not count.
    """
    place = (np.arange(32) + 0.5) / 32
    cosines = np.cos(np.pi * np.arange(_WAVES)[:, None] * place).astype(np.float32)
    waves = np.empty((len(images), 3, _WAVES, _WAVES), np.float32)
    for row, image in enumerate(images):
        small = np.log1p(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA), dtype="f4")
        waves[row] = cosines @ small.transpose(2, 0, 1) @ cosines.T
    waves[:, :, 0, 0] = 0
    height, width = np.indices((_WAVES, _WAVES))
    return waves * np.maximum(1, np.hypot(height, width)).astype(np.float32) ** 0.5


def _turn(waves: np.ndarray, turn: int) -> np.ndarray:
    """The waves of the turned image: a flip changes the sign of every odd one."""
    sign = (-1.0) ** np.arange(_WAVES, dtype=np.float32)
    if turn & 1:
        waves = waves * sign[:, None]
    if turn & 2:
        waves = waves * sign
    return waves.swapaxes(2, 3) if turn & 4 else waves


def _unit(waves: np.ndarray) -> np.ndarray:
    flat = waves.reshape(len(waves), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _basis(waves: np.ndarray) -> np.ndarray:
    """The principal directions of all descriptors in all turns, with 96 % of their norm."""
    square = np.zeros((waves[0].size,) * 2)
    for turn in range(_TURNS):
        for start in range(0, len(waves), 4096):
            part = _unit(_turn(waves[start : start + 4096], turn))
            square += part.T @ part
    return np.linalg.eigh(square)[1][:, ::-1][:, :_DIMENSIONS].astype(np.float32)


def _detail(image: np.ndarray) -> np.ndarray:
    """(64, 64) float32: fine structure, normalised to equal strength everywhere."""
    grey = np.log1p(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.6)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
    return fine / (np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 5)) + 0.01)


def _verify(
    details: np.ndarray, first: np.ndarray, second: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """The score of each pair: the best correlation of the middle of the second in the first."""

    def score(query: int, other: int, how: int) -> float:
        turned = details[query].astype(np.float32)
        if how & 1:
            turned = turned[::-1]
        if how & 2:
            turned = turned[:, ::-1]
        if how & 4:
            turned = turned.T
        return _likeness(np.ascontiguousarray(turned), details[other].astype(np.float32))

    with ThreadPoolExecutor() as pool:
        scores = pool.map(score, first.tolist(), second.tolist(), turn.tolist(), chunksize=256)
        bar = tqdm(scores, "verifying pairs", len(first), unit="pair", disable=None)
        return np.array(list(bar), dtype=float)


def _likeness(detail: np.ndarray, other: np.ndarray) -> float:
    edge = (SIZE - _PART) // 2
    middle = other[edge : edge + _PART, edge : edge + _PART]
    best = -1.0
    for count, scale in enumerate(_SCALES):
        if count == _FIRST and best < _HOPELESS:
            break
        side = round(SIZE * scale)
        shown = cv2.resize(detail, (side, side), interpolation=cv2.INTER_LINEAR)
        best = max(best, float(cv2.matchTemplate(shown, middle, cv2.TM_CCOEFF_NORMED).max()))
    return best
