"""On paper: how many cores feed a GPU, and what the ensemble costs; rates with their source."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import joined, table

# Training images/s of tf_efficientnet_b1 at 256 pixels in mixed precision, worked out: an RTX 3090
# does 1,100 at 240 pixels (timm's benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv), an A100 80 GB
# 2,514 of WideSE-B0 (NVIDIA DeepLearningExamples, EfficientNet, 21.03); the rest by image area and
# memory bandwidth.
RATES = {"T4": 330, "A100": 1370, "H100": 2500}
PRICES = {"A100": 2.0, "H100": 3.0}  # dollars an hour: assumed, to be replaced by one's own
LOADERS = ("512 px JPEGs, usual", "jpeg, fused", "array, fused")


def feeding_table(loader: Mapping[str, Any]) -> str:
    """Cores that keep a GPU busy at 256 pixels: the GPU's images/s over a core's."""
    seconds = next(part["seconds"] for part in loader["sizes"] if part["size"] == 256)
    rows = [
        [name, f"{1 / seconds[name]:,.0f}", *(f"{r * seconds[name]:.1f}" for r in RATES.values())]
        for name in LOADERS
    ]
    header = ["loader", "images/s a core", *(f"{gpu} ({rate:,}/s)" for gpu, rate in RATES.items())]
    return (
        "On paper: the rates of a core are those above; the GPUs' rates for EfficientNet-B1 are "
        "worked out from published ones (timm on an RTX 3090, NVIDIA on an A100) by image area "
        "and memory bandwidth, not measured here. A core of Kaggle's may do half as much.\n\n"
        + table(header, rows)
    )


def cost_table(hours: Mapping[str, Any] | None) -> str:
    """GPU hours, hours of waiting and money of the ensemble, from docs/results/kaggle_hours.json.

    What a T4 takes for each config is known from there; the others by EfficientNet-B1's rates.
    """
    if not hours:
        return "Not worked out: docs/results/kaggle_hours.json is not there."
    configs, folds = hours["configs"], hours["folds"]
    rows_a_fold = hours["inputs"]["train_rows"]["value"] * (folds - 1) / folds
    images = {name: rows_a_fold * config["epochs"] * folds for name, config in configs.items()}

    def total(rate: str, times: float = 1.0) -> float:
        seconds = (images[name] / (config[rate] * times) for name, config in configs.items())
        return sum(seconds) / 3600

    two = total("two_t4_images_per_second")
    rows = [["Kaggle, T4 x2", f"{2 * two:,.0f}", f"{two:,.0f}", "none: 30 free hours a week"]]
    for gpu, price in PRICES.items():
        taken = total("t4_images_per_second", RATES[gpu] / RATES["T4"])
        money = f"${taken * price:,.0f} at ${price:g} an hour (assumed)"
        rows.append([f"one {gpu}", f"{taken:,.0f}", f"{taken:,.0f}", money])
    return (
        f"On paper: {joined(list(configs))}, {folds} folds of four fifths of the 58,457 images, "
        "training alone. A T4's images/s by config are worked out in docs/results/"
        "kaggle_hours.json from published rates; an A100 and an H100 are as many times as fast "
        "as in the table above.\n\n" + table(["machine", "GPU hours", "hours", "money"], rows)
    )
