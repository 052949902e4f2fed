"""The benchmarks measure what they say; help is quick; the page is made from what they write."""

import subprocess
import sys
import time

import numpy as np
import pytest

from lesions.config import Config
from lesions.data import loader_parts
from lesions.data.loader_parts import (
    measure_augmentation,
    measure_batches,
    measure_metadata,
    measure_validation,
)
from lesions.data.loader_speed import (
    STOCK,
    UsualDataset,
    find_photos,
    measure_loader,
    measure_originals,
    ours,
    usual_transform,
    write_jpegs,
)
from lesions.errors import InputError
from lesions.paths import CODE
from lesions.timing import in_child, in_turns, times_as_fast

SCRIPTS = sorted(path.name for path in (CODE / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_at_once_and_without_torch(script: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = [{script!r}, '--help']\n"
        f"try: runpy.run_path({str(CODE / 'scripts' / script)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'albumentations'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import time; print('CPU', time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]
    assert float(done.stdout.rsplit("CPU", 1)[1]) < 2


def test_ways_take_turns_and_are_compared_turn_by_turn() -> None:
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name) or len(order)) for name in "ab"}
    found = in_turns(ways, 3)
    assert order == list("ababab") and found == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert times_as_fast([4, 9, 8], [2, 3, 2]) == {"ratio": 3.0, "low": 2.0, "high": 4.0}


def test_a_child_returns_its_result_and_leaves_nothing() -> None:
    kept: list[int] = []
    assert in_child(lambda: kept.append(1) or len(kept)) == 1 and kept == []
    with pytest.raises(EOFError):
        in_child(lambda: 1 // 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def photos(folder):
    return find_photos([], folder / "drawn", most=12)


def test_both_loaders_load_the_same_photographs(folder, photos) -> None:
    table = write_jpegs(photos, folder / "jpegs64", 64)
    usual = UsualDataset(table, usual_transform(64))
    (image, metadata), target = usual[3]
    assert image.shape == (3, 64, 64) and image.dtype.is_floating_point
    assert len(metadata) == 14 and target == 0
    plain = usual_transform(64)
    plain.transforms = [t for t in plain.transforms if type(t).__name__ in ("Resize", "ToTensorV2")]
    decoded = UsualDataset(table, plain)[3][0][0].permute(1, 2, 0).numpy()
    assert np.array_equal(decoded, ours(folder, table, 64, "array", None).images[3])


def test_every_part_is_measured(folder, photos, monkeypatch) -> None:
    monkeypatch.setattr(loader_parts, "LARGE", 2**20)
    sizes = measure_loader(photos, folder, 64, repeats=1, samples=16)
    assert set(sizes["ratios"]) == {
        f"{mode}, {kind} against {base}, usual"
        for mode in ("array", "jpeg") for kind in ("fused", "stock")
        for base in ("512 px JPEGs", "same-size JPEGs")
    }  # fmt: skip
    assert all(
        found["low"] <= found["ratio"] <= found["high"] for found in sizes["ratios"].values()
    )
    assert sizes["ratios"]["array, fused against 512 px JPEGs, usual"]["ratio"] > 1.5
    table = write_jpegs(photos, folder / "jpegs64", 64)
    dataset = ours(folder, table, 64, "array", STOCK)
    assert measure_augmentation(photograph(), 1, 20)["ratio"] > 0
    assert 0 < measure_validation(dataset, 1, 128)["ratio"] < 2
    assert measure_metadata(300, 1)["ratio"] > 20
    assert measure_batches(dataset, 1, 64)["ratio"] > 0
    assert len(measure_originals(photos, 64, 1)) == 1


def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_a_folder_without_jpegs_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no JPEG below"):
        find_photos([tmp_path], tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_growth_counts_rates_and_own_memory(tmp_path) -> None:
    from lesions.data.loader_growth import measure_growth

    rows = measure_growth(tmp_path, [64, 640], [0, 1], 32)
    assert [(row["images"], row["workers"], row["processes"]) for row in rows] == [
        (count, *rest) for count in (64, 640) for rest in ((0, 1), (1, 1), (1, 2))
    ]
    assert all(row["images_per_second"] > 0 and row["own_mb"] > 0 for row in rows)
    assert not list(tmp_path.glob("*.npy"))


def tiny() -> Config:
    return Config.model_validate(
        {
            "dataset": "demo",
            "data": {"image_size": 32},
            "model": {"backbone": "resnet10t", "pretrained": False},
            "train": {"workers": 0, "precision": "fp32", "batch_size": 4, "micro_batch": 4},
        }
    )


def test_inference_and_the_gpu_part_run_on_a_cpu_too() -> None:
    from lesions.inference.accelerator import build_accelerator
    from lesions.inference.speed import measure_inference
    from lesions.training.gpu_speed import measure_training, measure_waiting

    accelerator = build_accelerator("fp32")
    found = measure_inference(tiny(), accelerator, 1, 2)
    assert found["views"] == 4 and found["ratio"] > 0
    limits = {"copy_gb_per_second": 10.0, "matrix_tflops": 0.1}
    rows = measure_training(tiny(), 4, accelerator, limits, 1, modes=[False])
    assert [row["way"] for row in rows] == ["plain fp32, eager", "stock AMP, eager", "ours, eager"]
    assert all(row["images_per_second"] > 0 and row["matrix_share"] > 0 for row in rows)
    assert 0 <= measure_waiting(tiny(), 4, accelerator, 3) < 1


def test_both_ways_of_inference_answer_alike() -> None:
    import torch

    from lesions.inference.accelerator import build_accelerator
    from lesions.inference.speed import _ours, _plain
    from lesions.models.classifier import LesionClassifier

    model = LesionClassifier(tiny().model, 9, weights=False).eval()
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    metadata = torch.rand(3, 9)
    with torch.no_grad():
        plain = _plain(model, images, metadata, 4)
        mine = _ours(model, images, metadata, 4, build_accelerator("fp32"))
    assert torch.allclose(plain, mine, atol=1e-5)


def test_without_a_gpu_the_gpu_benchmark_says_so(capsys, monkeypatch, tmp_path) -> None:
    import bench_gpu
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    begun = time.monotonic()
    assert bench_gpu.main(["--out", str(tmp_path / "performance.json")]) == 0
    assert "no GPU here" in capsys.readouterr().out and not list(tmp_path.iterdir())
    assert time.monotonic() - begun < 60
