"""The benchmarks run to their results, whose two ways do the same work; help comes at once."""

import os
import subprocess
import sys
from pathlib import Path

import blending
import cache
import gpu
import loader
import numpy as np
import peers
import pytest
import serving
import step
import torch
from waiting import WRONG

from lesions.errors import InputError
from lesions.files import read_json
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


def test_wrong_input_is_answered_before_anything_heavy_is_imported(tmp_path) -> None:
    code = (
        "import runpy, sys\n"
        "for line in sys.stdin:\n"
        "    sys.argv = line.split()\n"
        f"    try: runpy.run_path(f'{CODE}/scripts/{{sys.argv[0]}}.py', run_name='__main__')\n"
        "    except SystemExit as end: assert end.code == 2, line\n"
        "    heavy = {'torch', 'timm', 'sklearn', 'scipy.stats', 'matplotlib'} & {*sys.modules}\n"
        "    assert not heavy, (line, heavy)\n"
    )
    wrong = "\n".join(map(" ".join, WRONG))
    done = subprocess.run([sys.executable, "-c", code], input=wrong, capture_output=True, text=True,
                          env=os.environ | {"LESIONS_ROOT": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]


def found(benchmark, tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "found.json"
    assert benchmark.main([*arguments, "--out", str(out), "--allow-dirty"]) == 0
    return read_json(out)


def test_a_timm_that_takes_more_of_the_compiler_is_imported_as_usual(tmp_path) -> None:
    (tmp_path / "timm.py").write_text("from torch._dynamo import config as taken\n")
    code = "import lesions.models, timm, torch; assert torch._dynamo.config is timm.taken"
    path = {"PYTHONPATH": f"{tmp_path}:{CODE / 'src'}"}
    subprocess.run([sys.executable, "-c", code], env=os.environ | path, check=True)


def test_step_and_inference_are_timed_both_ways_and_both_answer_alike(tmp_path) -> None:
    told = found(step, tmp_path, *SMALL, "--layouts", "effnet_b1")
    answered = told["inference"]
    assert set(told["seconds"]) == set(answered["seconds"]) == {"plain", "ours"}
    assert set(told["layouts"][0]["seconds"]) == {"contiguous", "channels_last"}
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
    assert len(ratios) == 4 and all(one["low"] <= one["ratio"] for one in ratios.values())
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
    assert set(told["photographs"]["per_second"]) == {"one at a time", "together", "backbones"}
    assert all(bad["status"] in (413, 415, 422) for bad in told["bad_inputs"])


def test_without_a_gpu_the_gpu_benchmark_says_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--allow-dirty", "--out", str(tmp_path / "gpu.json")]) == 0
    assert "no GPU here" in capsys.readouterr().out and not list(tmp_path.iterdir())


BARE = ("pydantic", "albumentations", "accelerate", "pandas", "cv2", "sklearn", "scipy")
TRIAL = [
    "--device", "cpu", "--size", "32", "--batch", "2", "--repeats", "1", "--minutes", "2",
    "--workers", "1", "--runs", "demo/resnet10t", "--allow-dirty", "--out",
]  # fmt: skip


def test_the_gpu_benchmark_runs_on_a_machine_with_torch_and_timm_alone(tmp_path) -> None:
    out = tmp_path / "gpu.json"
    code = f"import sys; sys.modules |= dict.fromkeys({BARE!r}); import gpu; gpu.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *TRIAL, str(out)],
        cwd=CODE / "benchmarks", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-800:]
    told = read_json(out)
    eager = [row for row in told["rows"] if "compiled" not in row["way"]]
    assert len(eager) == 5 and all(row["images_per_second"] > 0 for row in eager), told["rows"]
    assert 0 <= told["waiting"][0]["share"] < 1 and told["matrix_tflops"] > 0
    assert told["left_out"] == ["demo/resnet10t, AMP, channels_last, compiled"]


def test_a_row_that_fails_on_the_gpu_says_why_and_the_others_count() -> None:
    def build():
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    row = gpu.measure_way(build, torch.zeros(1), 1, "cpu")
    assert row == {"problem": "RuntimeError: CUDA out of memory. Tried to allocate"}


def test_the_range_of_a_ratio_holds_those_of_other_times():
    times = [(2.0, 1.9, 2.1), (2.4, 2.3, 2.6), (1.5, 1.4, 1.6)]
    told = [dict(zip(("ratio", "low", "high"), each, strict=True)) for each in times]
    now, *earlier = ({"ratios": [{"wall": each, "cpu": dict(each)}]} for each in told)
    peers.widen(now, earlier)
    wide = {"ratio": 2.0, "low": 1.4, "high": 2.6}
    assert now["ratios"] == [{"wall": wide, "cpu": wide}]


def test_libraries_load_the_same_photographs_and_a_missing_one_is_named(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "streaming", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    small = ["--size", "32", "--repeats", "1", "--samples", "12", "16", "--workers", "0"]
    told = found(peers, tmp_path, *small)
    assert told["missing"] == ["datasets", "mosaicml-streaming", "webdataset"]
    assert "WebDataset: skipped: webdataset is not installed" in capsys.readouterr().out
    assert set(told["versions"]) == {"timm", "torchvision v2", "winner's class"}
    assert [case["photos"] for case in told["cases"]] == ["originals", "512 px JPEGs"]
    for case in told["cases"]:
        assert len(case["rows"]) == 5 and len(case["ratios"]) == 6
        assert all(row["cpu_ms"] > 0 and row["images_per_second"][0] > 0 for row in case["rows"])
