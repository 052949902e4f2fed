"""On a GPU, a fold of the demo trains, resumes, predicts and exports as on the CPU."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import interrupted_run, tiny_run
from train import main as train

from lesions.files import read_csv
from lesions.paths import at

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


def oof(name: str) -> pd.Series:
    return read_csv(at(f"oof/{name}/fold0.csv")).set_index("image_name")["prob"].sort_index()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_fold_killed_on_the_gpu_resumes_as_on_the_cpu(precision, demo, trained, monkeypatch):
    from export import main as export
    from predict import main as predict

    name = f"gpu_{precision}"
    run = [*tiny_run(name, f"train.precision={precision}", "train.save_steps=1"), "--fold", "0"]
    interrupted_run(run, 3, monkeypatch)
    assert train(run) == 0
    whole = [*tiny_run(f"{name}_whole", f"train.precision={precision}"), "--fold", "0"]
    assert train(whole) == 0
    np.testing.assert_allclose(oof(name), oof(f"{name}_whole"), atol=2e-2)
    # After a few steps from the same weights: the CPU's float32 run, within half precision.
    assert np.abs(oof(name) - oof("tiny")).mean() < 0.1
    assert predict(["--run", name, "--folds", "0"]) == 0
    assert export(["--run", name, "--folds", "0", "--to", "onnx"]) == 0
