"""Find photographs that are published twice under different names, from the pixels.

Every image is compared with every other by a descriptor of its coarse colours that turns and flips
leave as it is, with and without a border; each keeps its few nearest neighbours. These pairs are
then compared in fine detail: only a copy has the same pores and hairs in the same places. Planted
copies score 0.85 and more; the most similar photographs of different lesions, small dark spots on
plain skin, score 0.78 (docs/results/near_duplicates.json).
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from tqdm import tqdm

from lesions.data.decode import decode
from lesions.data.folds import merge_groups
from lesions.data.photographs import images_below
from lesions.errors import InputError, listed
from lesions.files import read_json, write_json

VERSION = 2  # raise it when other pairs would be found
SIZE = 64  # pixels of the images compared
SAME = 0.8  # least score of a copy
NEIGHBOURS = 6  # candidates of each image
_WAVES, _DIMENSIONS = 12, 64
_AWAY = 3  # pixels at half the size that the middle may lie off
_TRIM = 2  # pixels off each side: a copy may have lost its border
_BLOCK = 256  # rows compared at once: memory is a block times all rows
_PART = 42  # pixels of the middle that is searched for in the other image
_SCALES = (1.0, 0.94, 1.06, 0.88, 0.91, 0.97, 1.03, 1.10, 1.14)  # a cropped copy is larger
_FIRST = 3  # scales tried before most pairs are given up
_HOPELESS = 0.45  # of a pair that the first scales give up; copies reach 0.48 at half the size


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
    details = np.stack([_detail(image).astype(np.float16) for image in images])
    first, second, turn = _candidates(images, details, group)
    score = _verify(details, first, second, turn)
    pairs = pd.DataFrame({"first": rows[first], "second": rows[second], "score": score})
    pairs[["first", "second"]] = np.sort(pairs[["first", "second"]].to_numpy(), axis=1)
    pairs = pairs[pairs["score"] >= SAME]
    return pairs.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def search_folders(folders: Sequence[Path], names: pd.Series) -> pd.DataFrame:
    """Near-duplicates among the named photographs below `folders`: image_name_1, image_name_2."""
    wanted = set(names)
    files = {Path(path).stem: Path(path) for place in folders for path in images_below(place)}
    found = [name for name in files if name in wanted]
    if not found:
        raise InputError(f"{listed(folders)}: none of the images: expected {listed(names, 2)}")
    bar = tqdm(found, "reading photographs", unit="image", disable=None)
    pairs = find_near_duplicates(np.stack([decode(files[name], SIZE)[0] for name in bar]))
    ends = {"image_name_1": pairs["first"], "image_name_2": pairs["second"]}
    return pd.DataFrame({end: np.array(found)[rows.astype(int)] for end, rows in ends.items()})


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


def _candidates(
    images: np.ndarray, details: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (query, neighbour) that a rough look does not rule out, and the neighbour's turn."""
    waves, side = _waves(images), (SIZE // 2, SIZE // 2)
    half = np.stack([cv2.resize(each.astype(np.float32), side, interpolation=cv2.INTER_AREA)
                     for each in details])  # fmt: skip
    plain, trimmed = _descriptors(waves, _waves(images[:, _TRIM:-_TRIM, _TRIM:-_TRIM]))
    members = pd.Series(np.arange(len(images))).groupby(group).indices
    keep = min(NEIGHBOURS, len(images) - 1)
    found = []
    bar = tqdm(range(0, len(images), _BLOCK), "near-duplicates", unit="block", disable=None)
    for start in bar:
        block = slice(start, start + _BLOCK)
        best = plain[block] @ plain.T
        np.maximum(best, plain[block] @ trimmed.T, out=best)
        for row, name in enumerate(group[block]):
            best[row, members[name]] = -2
        near = _largest(best, keep)
        turn = _best_turn(waves[block], waves[near])
        hope = _rough_likeness(half[block], half[near], turn) > _HOPELESS
        hope &= np.take_along_axis(best, near, axis=1) > -2
        query, place = np.nonzero(hope)
        found.append(np.stack([start + query, near[query, place], turn[query, place]]))
    first, second, turn = np.concatenate(found, axis=1)
    # Of a pair that is found from either end, one is enough.
    ends = np.sort(np.stack([first, second], axis=1), axis=1)
    once = np.sort(np.unique(ends, axis=0, return_index=True)[1])
    return first[once], second[once], turn[once]


def _waves(images: np.ndarray) -> np.ndarray:
    """The low frequencies (cosine transform) of each image's logarithm, (N, 3, 12, 12) float32.

    Of unit length, and without the mean, so that brightness and tint do not count.
    """
    place = (np.arange(32) + 0.5) / 32
    cosines = np.cos(np.pi * np.arange(_WAVES)[:, None] * place).astype(np.float32)
    waves = np.empty((len(images), 3, _WAVES, _WAVES), np.float32)
    for row, image in enumerate(images):
        small = np.log1p(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA), dtype="f4")
        waves[row] = cosines @ small.transpose(2, 0, 1) @ cosines.T
    waves[:, :, 0, 0] = 0
    height, width = np.indices((_WAVES, _WAVES))
    waves *= np.maximum(1, np.hypot(height, width)).astype(np.float32) ** 0.5
    return _unit(waves.reshape(len(waves), -1)).reshape(waves.shape)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def _descriptors(*waves: np.ndarray) -> list[np.ndarray]:
    """A unit vector (N, 64) for each image of each of the `waves`, the same in all eight turns.

    A flip changes signs and a transposition swaps axes: absolute values, their sums and distances
    over the diagonal stay. Rare differences count for more: directions are half whitened.
    """
    upper = np.triu_indices(_WAVES)

    def steady(part: np.ndarray) -> np.ndarray:
        part = np.abs(part)
        turned = part.swapaxes(2, 3)
        both = np.stack([part + turned, np.abs(part - turned)], axis=1)
        return both[..., *upper].reshape(len(part), -1)

    parts = [steady(part) for part in waves]
    mean = parts[0].mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov(parts[0].T))
    basis = axes[:, -_DIMENSIONS:] / np.maximum(spread[-_DIMENSIONS:], 1e-9) ** 0.25
    return [_unit((part - mean) @ basis.astype(np.float32)) for part in parts]


def _largest(values: np.ndarray, keep: int) -> np.ndarray:
    """Columns of the `keep` largest values of each row: (R, keep), in no order.

    Sought in the `keep` stripes of columns with the largest maxima: ten times faster than in all.
    """
    stripes = max(keep, values.shape[1] // 32)
    rest = values.shape[1] % stripes
    whole = values[:, : values.shape[1] - rest].reshape(len(values), -1, stripes)
    top = whole.max(axis=1)
    top[:, :rest] = np.maximum(top[:, :rest], values[:, values.shape[1] - rest :])
    stripe = np.argpartition(top, -keep, axis=1)[:, -keep:]
    columns = stripe[:, :, None] + stripes * np.arange(whole.shape[1] + 1)
    columns = columns.reshape(len(values), -1)
    inside = np.minimum(columns, values.shape[1] - 1)
    within = np.take_along_axis(values, inside, axis=1)
    within[columns >= values.shape[1]] = -3
    return np.take_along_axis(inside, np.argpartition(within, -keep, axis=1)[:, -keep:], axis=1)


def _best_turn(waves: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The turn (R, K) of each of `others` (R, K, 3, 12, 12) that makes it most like its row.

    A flip changes the sign of every odd wave: sums over odd and even ones give all four flips.
    """
    parity = (3, _WAVES // 2, 2, _WAVES // 2, 2)
    rows = waves.reshape(-1, *parity)
    others = others.reshape(*others.shape[:2], *parity)
    flips = np.array([[1, 1], [1, -1]])
    products = [np.einsum(f"rcikjl,rnc{how}->rnkl", rows, others) for how in ("ikjl", "jlik")]
    scores = np.stack([flips @ product @ flips for product in products], axis=2)
    return scores.reshape(*others.shape[:2], 8).argmax(axis=2)


def _turned(image: np.ndarray, turn: int) -> np.ndarray:
    """The (S, S) image in one of eight turns: bit 4 transposes, then bits 2 and 1 flip an axis."""
    image = image.T if turn & 4 else image
    image = image[::-1] if turn & 2 else image
    return image[:, ::-1] if turn & 1 else image


def _detail(image: np.ndarray) -> np.ndarray:
    """(64, 64) float32: fine structure, normalised to equal strength everywhere."""
    grey = np.log1p(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.6)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
    return fine / (np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), 5)) + 0.01)


def _rough_likeness(half: np.ndarray, others: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Correlation (R, K) of the turned middles of `others` (R, K, 32, 32) in `half` (R, 32, 32).

    In three scales, and up to _AWAY pixels off.
    """
    side, part = half.shape[1], _PART // 2
    edge = (side - part) // 2
    place = np.arange(side * side).reshape(side, side)
    places = np.stack([_turned(place, how)[edge : edge + part, edge : edge + part].reshape(-1)
                       for how in range(8)])  # fmt: skip
    middle = np.take_along_axis(others.reshape(*turn.shape, -1), places[turn], axis=2)
    middle = _unit(middle - middle.mean(axis=2, keepdims=True))
    shown = []
    for scale in _SCALES[:_FIRST]:
        size = round(side * scale)
        low = (size - part) // 2 - _AWAY
        high = low + part + 2 * _AWAY
        shown.append([cv2.resize(each, (size, size))[low:high, low:high] for each in half])
    windows = sliding_window_view(np.array(shown), (part, part), axis=(2, 3)).swapaxes(0, 1)
    flat = windows.reshape(len(half), -1, part * part)
    strength = np.sqrt(np.einsum("rwp,rwp->rw", flat, flat))[..., None]
    return (flat @ middle.swapaxes(1, 2) / (strength + 1e-6)).max(axis=1)


def _verify(
    details: np.ndarray, first: np.ndarray, second: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """The score of each pair: the best correlation of the middle of the second in the first."""

    def score(query: int, other: int, how: int) -> float:
        turned = np.ascontiguousarray(_turned(details[other], how), np.float32)
        return _likeness(details[query].astype(np.float32), turned)

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
