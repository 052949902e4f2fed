"""The benchmarks run to their results, whose two ways do the same work; help comes at once."""

import subprocess
import sys
from pathlib import Path

import blending
import cache
import gpu
import loader
import numpy as np
import pytest
import serving
import step
import torch

from lesions.config import load_config
from lesions.errors import InputError
from lesions.files import read_json
from lesions.inference.accelerator import build_accelerator
from lesions.paths import CODE, at

SCRIPTS = sorted(path.name for path in (CODE / "scripts").glob("*.py"))
SMALL = ["--batch", "2", "--repeats", "1", "--set", "data.image_size=32",
         "--set", "model.backbone=resnet10t", "--set", "train.precision=fp32"]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_comes_at_once_and_without_torch(script: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = [{script!r}, '--help']\n"
        f"try: runpy.run_path({str(CODE / 'scripts' / script)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'albumentations'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-800:]


def found(benchmark, tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "found.json"
    assert benchmark.main([*arguments, "--out", str(out), "--allow-dirty"]) == 0
    return read_json(out)


def test_step_and_inference_are_timed_both_ways_and_both_answer_alike(tmp_path) -> None:
    told = found(step, tmp_path, *SMALL)
    answered = told["inference"]
    assert set(told["seconds"]) == set(answered["seconds"]) == {"plain", "ours"}
    assert answered["views"] == 4 and answered["largest_difference"] < 1e-5


def test_both_searches_of_a_blend_pick_alike(tmp_path) -> None:
    told = found(blending, tmp_path, "--rows", "800", "--members", "4")["climb"]
    assert told["same_picks"] and told["picks"] > 1 and told["auc_difference"] < 1e-12


def test_both_loaders_load_the_same_photographs(tmp_path) -> None:
    photos = loader.find_photos([], tmp_path / "drawn", most=6)
    table = loader.write_jpegs(photos, tmp_path / "jpegs64", 64)
    plain = loader.usual_transform(64)
    plain.transforms = [t for t in plain.transforms if type(t).__name__ in ("Resize", "ToTensorV2")]
    decoded = loader.UsualDataset(table, plain)[3][0][0].permute(1, 2, 0).numpy()
    ours = loader.ours(tmp_path, table, 64, "array", None)
    assert np.array_equal(decoded, ours.images[3])
    with pytest.raises(InputError, match="no JPEG below"):
        loader.find_photos([tmp_path / "empty"], tmp_path)


def test_every_part_of_the_loader_is_timed(tmp_path) -> None:
    small = ["--size", "64", "--repeats", "1", "--samples", "8", "--growth", "32", "256"]
    told = found(loader, tmp_path, *small)
    ratios = told["sizes"][0]["ratios"]
    assert len(ratios) == 8 and all(one["low"] <= one["ratio"] for one in ratios.values())
    if sys.platform == "linux":
        rows = told["growth"]["rows"]
        assert [row["images"] for row in rows] == 3 * [32] + 3 * [256]
        assert all(row["images_per_second"] > 0 and row["own_mb"] > 0 for row in rows)


def test_a_cache_is_timed_and_compared(demo, tmp_path) -> None:
    told = found(cache, tmp_path, "--images", str(at("input/sample")), "--size", "32")
    assert told["sizes"][0]["psnr_least"] > 20 and told["sizes"][0]["files"] >= 8


def test_a_served_run_is_timed_and_refuses_bad_files(calibrated, tmp_path) -> None:
    told = found(serving, tmp_path, "--run", "calibrated", "--requests", "2")
    assert [load["answered"] for load in told["loads"]] == 4 * [2]
    assert all(bad["status"] in (413, 415, 422) for bad in told["bad_inputs"])


def test_without_a_gpu_the_gpu_benchmark_says_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 0
    assert "no GPU here" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_training_and_waiting_are_timed_on_any_device() -> None:
    changes = ["model.pretrained=false", *SMALL[5::2], "train.workers=0"]
    config, accelerator = load_config("effnet_b1", changes), build_accelerator("fp32")
    limits = {"copy_gb_per_second": 10.0, "matrix_tflops": 0.1}
    rows = gpu.measure_training(config, 4, accelerator, limits, 1, modes=[False])
    assert [row["way"] for row in rows] == ["plain fp32, eager", "stock AMP, eager", "ours, eager"]
    assert all(row["images_per_second"] > 0 and row["matrix_share"] > 0 for row in rows)
    assert 0 <= gpu.measure_waiting(config, 4, accelerator, 3) < 1
