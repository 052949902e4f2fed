"""Batches are a function of seed, epoch, step, rank and row, whoever loads them."""

import numpy as np
import pandas as pd
import pytest

from lesions.config import AugmentConfig
from lesions.data.augmentation import build_augmentation
from lesions.data.loading import LesionDataset, TrainBatches, build_loader, eval_batches
from lesions.data.metadata import COLUMNS, encode_metadata, fit_metadata

ROWS = np.arange(3, 43)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)


def dataset(seed: int = 7) -> LesionDataset:
    pipeline = build_augmentation(AugmentConfig(shift_scale_rotate=1))
    zeros = np.zeros(50, np.float32)
    return LesionDataset(IMAGES, np.zeros((50, 2), np.float32), zeros, pipeline, seed)


def epoch(number: int, workers: int, first: int = 0) -> list[dict]:
    batches = TrainBatches(ROWS, 8, 8, seed=7)
    batches.start(number, first)
    return list(build_loader(dataset(), batches, workers))


def test_epochs_differ_in_order_and_in_augmentation():
    pipeline = dataset()
    rows = [np.concatenate([b["row"] for b in epoch(number, 0)]) for number in (0, 1)]
    assert not np.array_equal(*rows) and set(rows[0]) == set(rows[1]) == set(ROWS)
    items = [*((number, 5) for number in range(8)), (0, 5, 1)]  # the last: drawn a second time
    assert len({pipeline[item]["image"].tobytes() for item in items}) == 9


def test_an_epoch_resumed_with_workers_goes_on_with_the_batches_that_were_left():
    for a, b in zip(epoch(1, 0)[3:], epoch(1, 2, first=3), strict=True):
        assert np.array_equal(a["image"], b["image"]) and np.array_equal(a["row"], b["row"])


@pytest.mark.parametrize("processes, micro", [(1, 8), (2, 4), (2, 3), (4, 2)])
def test_processes_and_micro_batches_share_out_the_same_steps(processes, micro):
    whole = list(TrainBatches(ROWS, 8, 8, seed=7))
    shares = [list(TrainBatches(ROWS, 8, micro, 7, rank, processes)) for rank in range(processes)]
    parts = TrainBatches(ROWS, 8, micro, 7, 0, processes).micro_batches
    for step, batch in enumerate(whole):
        rows = [item for share in shares for part in share[step * parts : (step + 1) * parts]
                for item in part]  # fmt: skip
        assert sorted(rows) == sorted(batch)
    assert all(len(part) <= micro for share in shares for part in share)
    assert [len(batch) for batch in TrainBatches(np.arange(5), 8, 8, seed=0)] == [5]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_evaluation_covers_every_row_with_equal_shares(count, processes):
    rows = np.arange(100, 100 + count)
    shares = [eval_batches(rows, 4, rank, processes) for rank in range(processes)]
    seen = [row for share in shares for batch in share for _, row in batch]
    assert set(seen) == set(rows)
    assert len({sum(map(len, share)) for share in shares}) == 1


def test_a_batch_is_its_items_stacked():
    data = dataset()
    items = [(2, 5), (2, 9, 1), (2, 5)]
    batch = data.__getitems__(items)
    for place, item in enumerate(items):
        for name, value in data[item].items():
            assert np.array_equal(batch[name][place], value), name


def test_the_memory_map_is_never_written_to():
    images = IMAGES.copy()
    images.flags.writeable = False
    zeros = np.zeros(50, np.float32)
    for pipeline in (None, build_augmentation(AugmentConfig(shift_scale_rotate=1))):
        data = LesionDataset(images, np.zeros((50, 2), np.float32), zeros, pipeline, 1)
        data[(0, 1)]["image"][:] = 0
    assert np.array_equal(images, IMAGES)


def row(**values) -> pd.DataFrame:
    empty = {"sex": "", "age_approx": np.nan, "site": "", "images_per_patient": np.nan,
             "bytes": np.nan}  # fmt: skip
    return pd.DataFrame([empty | values])


def test_metadata_is_encoded_as_documented_and_neutral_is_the_mean_of_the_known():
    table = pd.concat([row(images_per_patient=1), row(images_per_patient=3), row(bytes=100)])
    neutral = fit_metadata(table)
    known = row(sex="male", age_approx=45, site="torso", images_per_patient=3, bytes=np.e**2)
    unknown = row()
    sizes = {"none": 0, "clinical": 9, "full": 11, "ham10000": 17}
    assert {kind: len(names) for kind, names in COLUMNS.items()} == sizes
    encoded = encode_metadata(pd.concat([known, unknown]), "full", neutral)
    names = COLUMNS["full"]
    first, second = (dict(zip(names, values, strict=True)) for values in encoded.tolist())
    assert first["sex"] == 1 and first["age"] == 0.5 and first["torso"] == 1
    assert first["log bytes"] == pytest.approx(2) and first["site unknown"] == 0
    assert first["log images per patient"] == pytest.approx(np.log(4))
    assert second["sex"] == second["age"] == -1 and second["site unknown"] == 1
    assert second["log images per patient"] == pytest.approx(np.log([2, 4]).mean())
    assert second["log bytes"] == pytest.approx(np.log(100))
    assert sum(second[site] for site in names[4:10]) == 0
