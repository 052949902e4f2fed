"""GPU hours of a config on Kaggle's two T4, worked out from published rates; nothing is timed."""

from typing import Any

import numpy as np
import timm
import torch

from lesions.config import Config

# Training images/s of one RTX 3090, mixed precision, channels_last.
PUBLISHED: list[dict[str, Any]] = [
    {"backbone": "tf_efficientnet_b1", "pixels": 240, "images_per_second": 1100},
    {"backbone": "efficientnet_b0", "pixels": 224, "images_per_second": 1752},
    {"backbone": "resnet18", "pixels": 224, "images_per_second": 3482},
]
TIMM = "timm, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv"
NVIDIA = "NVIDIA DeepLearningExamples, EfficientNet for PyTorch, 21.03, A100 80 GB, AMP"
SHEETS = "NVIDIA's data sheets: memory bandwidth in GB/s"
ISIC = "ISIC challenge data of 2019 and 2020: published counts"
INPUTS: dict[str, dict[str, Any]] = {
    "t4_over_3090": {"value": 320 / 936, "how": "320 / 936", "source": SHEETS},
    "two_over_one": {"value": 2 * 6.51 / 8, "how": "2 x 6.51 / 8 (8 GPUs are 6.51 times as fast)",
                     "source": NVIDIA},
    "predict_over_train": {"value": 10_239 / 2_514, "how": "10,239 / 2,514 (B0)", "source": NVIDIA},
    "train_rows": {"value": 33_126 + 25_331, "how": "33,126 + 25,331", "source": ISIC},
    "test_rows": {"value": 10_982, "how": "10,982", "source": ISIC},
    "session_hours": {"value": 0.1, "how": "0.1 a session: start, inputs, output",
                      "source": "assumed"},
}  # fmt: skip
FOLDS, WEEK, SESSION = 5, 30.0, 11.5


def work_out(configs: dict[str, Config]) -> dict[str, Any]:
    """The content of docs/results/kaggle_hours.json: inputs with their sources, hours by config."""
    cost, misses = fit_published()
    return {
        "published": PUBLISHED,
        "published_source": TIMM,
        "inputs": INPUTS,
        "fit": {
            "seconds_a_million_activations": cost[0],
            "seconds_a_gigamac": cost[1],
            "largest_miss": float(np.abs(misses).max()),
        },
        "folds": FOLDS,
        "week_hours": WEEK,
        "session_hours": SESSION,
        "configs": {name: _hours(config, cost) for name, config in configs.items()},
    }


def fit_published() -> tuple[np.ndarray, np.ndarray]:
    """(2,) seconds on a 3090 for a million activations and for 10^9 multiply-adds; relative misses.

    Depthwise networks wait for memory, plain convolutions for arithmetic: an image costs both.
    """
    work = np.array([work_of(row["backbone"], row["pixels"]) for row in PUBLISHED])
    rates = np.array([float(row["images_per_second"]) for row in PUBLISHED])
    cost = np.linalg.lstsq(work * rates[:, None], np.ones(len(rates)), rcond=None)[0]
    return cost, (work @ cost) * rates - 1


def work_of(backbone: str, pixels: int) -> tuple[float, float]:
    """Millions of activations and 10^9 multiply-adds of one image's forward pass."""
    total = [0.0, 0.0]

    def count(layer: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        weight = next(layer.parameters())
        total[0] += output.numel() / 1e6
        total[1] += output.numel() * weight[0].numel() / 1e9

    with torch.device("meta"), torch.no_grad():
        model = timm.create_model(backbone, pretrained=False).eval()
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(count)
        model(torch.empty(1, 3, pixels, pixels))
    return total[0], total[1]


def _hours(config: Config, cost: np.ndarray) -> dict[str, Any]:
    """Rates and hours of one config, all folds and the test predictions."""
    value = {name: float(item["value"]) for name, item in INPUTS.items()}
    work = work_of(config.model.backbone, config.data.image_size)
    single = value["t4_over_3090"] / float(np.dot(work, cost))
    rate = single * value["two_over_one"]
    predicting = rate * value["predict_over_train"]
    epochs, views = config.train.epochs, config.predict.views
    trained = epochs * value["train_rows"] * (FOLDS - 1) / FOLDS
    validated = (epochs + views) * value["train_rows"] / FOLDS
    fold = (trained / rate + validated / predicting) / 3600 + value["session_hours"]
    test = FOLDS * views * value["test_rows"] / predicting / 3600 + value["session_hours"]
    return {
        "backbone": config.model.backbone,
        "pixels": config.data.image_size,
        "epochs": epochs,
        "million_activations": work[0],
        "gigamacs": work[1],
        "t4_images_per_second": single,
        "two_t4_images_per_second": rate,
        "fold_hours": fold,
        "predict_hours": test,
        "run_hours": FOLDS * fold + test,
    }
