"""Find photographs that are published twice under different names, from the pixels.

Every image is compared with every other by how strong its fine structure is at each frequency,
which no shift, and folded no turn or flip, changes; each keeps its few nearest neighbours. Pairs
that correlate in one of the eight turns are compared pixel by pixel: only a copy has the same pores
and hairs in the same places. Of planted copies 99.8 % score 0.83 and more; the most similar
photographs of different lesions, dark spots on plain skin, score 0.81 (docs/near_duplicates.md).
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.fft import fft2, ifft2, irfft2, rfft2
from tqdm import tqdm

from lesions.data.decode import decode
from lesions.data.folds import ENDS, add_groups
from lesions.data.photographs import images_below
from lesions.errors import InputError, listed
from lesions.files import read_csv, read_json, write_csv, write_json
from lesions.paths import shown

VERSION = 4  # raise it when other pairs would be found
SIZE = 64  # pixels of the images compared
SAME = 0.83  # least score of a copy
REVIEWED = 0.6  # least score of a pair that a person is asked about
STOP = 58  # pairs in a row that differ: of 5 % copies, one time in twenty (0.95^58)
DECISIONS = ("same", "different", "")
NEIGHBOURS = 4  # candidates of each image
_WAVES, _DIMENSIONS = 28, 32  # frequencies of a descriptor, and its length
_LEARNT = 4000  # images that the descriptor's directions are learnt from
_STRIPES = 32  # parts of a row that its largest values are sought in
_BLOCK = 256  # rows compared at once: memory is a block times all rows
_HALF = SIZE // 2
_HOPE = 0.42  # least correlation at half the size; copies have 0.45
_PART = 42  # pixels of the middle that is searched for in the other image
_SCALES = (1.0, 0.94, 1.06, 0.88, 0.91, 0.97, 1.03, 1.10, 1.14)  # a cropped copy is larger
_FIRST = 3  # scales tried before most pairs are given up
_HOPELESS, _SURE = 0.5, 0.92  # scores at which no other scale is tried


def find_near_duplicates(
    images: np.ndarray, group: np.ndarray | None = None, least: float = SAME
) -> pd.DataFrame:
    """Pairs of rows (first < second) of uint8 (N, 64, 64, 3) that show one photograph.

    Columns first, second, score (`least` to 1), best first. Pairs within a `group` (N labels) are
    skipped. All pairs are compared, in O(N) memory; images without any contrast have no copies.
    """
    group = np.arange(len(images)) if group is None else pd.factorize(pd.Series(group))[0]
    rows = np.array([row for row, image in enumerate(images) if image.std() > 2], int)
    if len(rows) < 2:
        return pd.DataFrame({"first": [], "second": [], "score": []})
    if len(rows) < len(images):  # which takes a copy
        images, group = images[rows], group[rows]
    details = np.stack([_detail(image).astype(np.float16) for image in images])
    halves, prints = _describe(details)
    first, second = _neighbours(prints, group)
    turn, likeness = _best_turn(halves, first, second)
    hope = likeness > _HOPE
    first, second, turn = first[hope], second[hope], turn[hope]
    score = _verify(details, first, second, turn)
    pairs = pd.DataFrame({"first": rows[first], "second": rows[second], "score": score})
    pairs = pairs[pairs["score"] >= least]
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
    return pd.DataFrame(np.array(found)[pairs[["first", "second"]].to_numpy(int)], columns=ENDS)


def link_near_duplicates(
    table: pd.DataFrame, images: np.ndarray, path: Path, review: Path | None
) -> tuple[pd.DataFrame, str]:
    """The table with near-duplicates in one group, and what was found, in words.

    Of unreadable photographs `images` are black, and black images have no copies.
    Pairs are saved in `path` (JSON) and read from there as long as rows and pixels are the same.
    The CSV beside it lists them, best first, with the decisions of this and earlier reviews, which
    overrule the score. A training and an official test photograph are counted, not grouped: the
    split is given.
    """
    key = _key(table, images)
    kept = read_json(path) if path.exists() else {}
    if kept.get("key") != key:
        found = find_near_duplicates(images, table["group"].to_numpy(), REVIEWED)
        image_name = table["image_name"].to_numpy()
        ends = [image_name[found[end].astype(int)].tolist() for end in ("first", "second")]
        scores = found["score"].round(4).tolist()
        kept = {"key": key, "pairs": list(zip(*ends, scores, strict=True))}
        write_json(path, kept)
    listing, names = path.with_suffix(".csv"), set(table["image_name"])
    pairs = pd.DataFrame(kept["pairs"], columns=[*ENDS, "score"])
    told = _decisions(listing, None) if listing.exists() else {}
    told |= _decisions(review, names.union(*told)) if review else {}
    pairs["decision"] = [told.pop(frozenset(pair), "") for pair in pairs[ENDS].to_numpy().tolist()]
    own = [(*sorted(pair), np.nan, decision) for pair, decision in told.items()]
    pairs = pd.concat([pairs, pd.DataFrame(own, columns=pairs.columns)]) if own else pairs
    write_csv(listing, pairs)
    likely = (pairs["score"] >= SAME) & (pairs["decision"] == "")
    linked = pairs[(likely | (pairs["decision"] == "same")) & pairs[ENDS].isin(names).all(axis=1)]
    rows_of = table.set_index("image_name")
    first, second = (rows_of.loc[linked[end]].reset_index() for end in ENDS)
    within = (first["split"] == second["split"]).to_numpy()
    differ = (first["target"] - second["target"]).abs() > 0  # not so where one is unlabelled
    text = (
        f"near-duplicates: {len(linked):,} pairs,"
        f" {(first['source'] != second['source']).sum():,} across sources,"
        f" {(~within).sum():,} train with test, {differ.sum():,} targets differ\n"
    )
    if len(pairs):
        text += f"{shown(listing)}: {_what_next(pairs['decision'].mask(likely, 'same').tolist())}\n"
    return add_groups(table, linked[within]), text


def _decisions(path: Path, names: set[str] | None) -> dict[frozenset[str], str]:
    """What a person decided, by pair, of `names` if given; InputError for what cannot be meant."""
    told: dict[frozenset[str], str] = {}
    columns = [*ENDS, "decision"]
    rows = read_csv(path, columns, text=columns)[columns].fillna("")
    for row, (one, other, decision) in enumerate(rows.itertuples(index=False), 2):
        pair, decision = frozenset((one, other)), decision.strip().lower()
        where = f"{shown(path)}: row {row}: {one}, {other}, {decision}"
        if len(pair) < 2 or (names and not pair <= names) or decision not in DECISIONS:
            raise InputError(f"{where}: expected two images of the data set, and same, different"
                             " or nothing")  # fmt: skip
        if decision and told.setdefault(pair, decision) != decision:
            raise InputError(f"{where}: a row above says {told[pair]}")
    return told


def _what_next(decisions: list[str]) -> str:
    """What a person has still to look at in the list, best first, after these decisions."""
    in_a_row = 0
    for row, decision in enumerate(decisions, 2):
        if not decision:
            return (
                f"look at its pairs from row {row} on, put same or different under decision until"
                f" {STOP} in a row differ ({in_a_row} do), and give it to --review"
            )
        in_a_row = in_a_row + 1 if decision == "different" else 0
        if in_a_row == STOP:
            return f"{STOP} pairs in a row differ: the rest need no look"
    return "no pair is left to look at"


def _key(table: pd.DataFrame, images: np.ndarray) -> str:
    """Sixteen hex digits of the rows, pixels and version that decide which pairs are found."""
    rows = table[["image_name", "group"]].to_csv(index=False)
    digest = hashlib.sha256(f"{VERSION} {images.shape} {rows}".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()[:16]


def _describe(details: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each detail at half the size, whitened (N, 32, 32) float16, and its descriptor (N, 32).

    Descriptors are of unit length and the same in all eight turns. Rare differences count for more:
    directions are half whitened.
    """
    window = np.outer(*[np.hanning(SIZE).astype(np.float32)] * 2)
    sample = details[:: -(-len(details) // _LEARNT)]
    strength = _folded(np.abs(fft2(sample * window)))
    spread, axes = np.linalg.eigh(np.cov(strength.T))
    basis = axes[:, -_DIMENSIONS:] / np.maximum(spread[-_DIMENSIONS:], 1e-9) ** 0.25
    mean, basis = strength.mean(axis=0), basis.astype(np.float32)
    halves, prints = [], []
    low = np.r_[: _HALF // 2, -_HALF // 2 : 0]
    shift = np.exp(-1j * np.pi / SIZE * (low[:, None] + low)).astype(np.complex64)  # see _best_turn
    for start in range(0, len(details), _BLOCK):
        waves = fft2(details[start : start + _BLOCK] * window)
        prints.append(_unit((_folded(np.abs(waves)) - mean) @ basis))
        waves = waves[:, low[:, None], low] * shift
        half = ifft2(waves / np.maximum(np.abs(waves), 1e-6) ** 0.5).real
        halves.append(_unit(half.reshape(len(half), -1)).reshape(half.shape).astype(np.float16))
    return np.concatenate(halves), np.concatenate(prints)


def _folded(strength: np.ndarray) -> np.ndarray:
    """What no turn changes of the strengths (N, 64, 64) of all frequencies: sums and distances."""
    one, other = strength[:, :_WAVES, :_WAVES], strength[:, -np.arange(_WAVES), :_WAVES]
    both, apart = one + other, np.abs(one - other)
    turned = both.swapaxes(1, 2)
    steady = np.stack([both + turned, np.abs(both - turned), apart + apart.swapaxes(1, 2)], axis=1)
    return steady[..., *np.triu_indices(_WAVES)].reshape(len(strength), -1)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def _neighbours(prints: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows first < second of all pairs of other groups where one is among the other's nearest."""
    members = pd.Series(np.arange(len(group))).groupby(group).indices
    width = max(NEIGHBOURS, -(-len(prints) // _STRIPES))
    columns = np.zeros((prints.shape[1], _STRIPES * width), np.float32)
    columns[:, : len(prints)] = prints.T
    found = []
    bar = tqdm(range(0, len(prints), _BLOCK), "near-duplicates", unit="block", disable=None)
    for start in bar:
        alike = prints[start : start + _BLOCK] @ columns
        alike[:, len(prints) :] = -2
        for row, name in enumerate(group[start : start + _BLOCK]):
            alike[row, members[name]] = -2
        # In the columns, of every width-th, with the largest maxima: ten times faster than in all.
        stripes = alike.reshape(len(alike), _STRIPES, width)
        place = _largest(stripes.max(axis=1))
        near = np.take_along_axis(stripes, place[:, None], axis=2).reshape(len(alike), -1)
        best = _largest(near)
        query, at = np.nonzero(np.take_along_axis(near, best, axis=1) > -2)
        stripe, nth = np.divmod(best[query, at], NEIGHBOURS)
        other = stripe * width + place[query, nth]
        found.append(np.sort(np.stack([start + query, other], axis=1), axis=1))
    first, second = np.unique(np.concatenate(found), axis=0).T
    return first, second


def _largest(values: np.ndarray) -> np.ndarray:
    """Columns of the NEIGHBOURS largest values of each row, in no order."""
    return np.argpartition(values, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]


def _best_turn(
    halves: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The turn that makes each `second` most like its `first`, and their correlation, any shift."""
    place = np.arange(_HALF**2).reshape(_HALF, _HALF)
    # Half a pixel off, the middle of an image is a pixel, and a turn of the image is one of its
    # transform.
    turned = np.stack([np.roll(_turned(place, turn), (turn >> 1 & 1, turn & 1), (0, 1))
                       for turn in range(8)])[..., : _HALF // 2 + 1]  # fmt: skip
    found = [np.zeros((0, 8), np.float32)]
    bar = tqdm(range(0, len(first), _BLOCK), "correlating pairs", unit="block", disable=None)
    for start in bar:
        here = slice(start, start + _BLOCK)
        one = rfft2(halves[first[here]].astype(np.float32)).conj()
        other = fft2(halves[second[here]].astype(np.float32)).reshape(len(one), -1)
        found.append(irfft2(one[:, None] * other[:, turned]).max(axis=(2, 3)))
    scores = np.concatenate(found)
    return scores.argmax(axis=1), scores.max(axis=1)


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


def _verify(
    details: np.ndarray, first: np.ndarray, second: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """The score of each pair: the best correlation of the middle of the second in the first."""
    edge = (SIZE - _PART) // 2

    def score(query: int, other: int, how: int) -> float:
        detail, best = details[query].astype(np.float32), -1.0
        turned = np.ascontiguousarray(_turned(details[other], how), np.float32)
        middle = turned[edge : edge + _PART, edge : edge + _PART]
        for count, scale in enumerate(_SCALES):
            if best > _SURE or (count == _FIRST and best < _HOPELESS):
                break
            shown = cv2.resize(detail, None, fx=scale, fy=scale)
            best = max(best, cv2.matchTemplate(shown, middle, cv2.TM_CCOEFF_NORMED).max())
        return best

    with ThreadPoolExecutor() as pool:
        scores = pool.map(score, first.tolist(), second.tolist(), turn.tolist(), chunksize=256)
        return np.array(list(tqdm(scores, "verifying pairs", len(first), disable=None)), float)
