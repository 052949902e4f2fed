"""A model and table rows -> probabilities, in the rows' order, on any number of processes."""

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from lesions.config import PredictConfig
from lesions.data.loading import LesionDataset, build_loader, eval_batches
from lesions.inference.views import views_of


@torch.no_grad()
def predict(
    model: nn.Module,
    dataset: LesionDataset,
    rows: np.ndarray,
    config: PredictConfig,
    accelerator: Accelerator,
    views: int,
    title: str,
) -> np.ndarray:
    """P(positive) of each of `rows` (dataset rows, all different): float64 (N,), mean over `views`.

    Of a model with several outputs P(class), (N, K). The processes share the rows; all of them get
    the whole result. RuntimeError if a row comes back without a number.
    """
    model.eval()
    batches = eval_batches(
        rows, config.batch_size, accelerator.process_index, accelerator.num_processes
    )
    loader = build_loader(dataset, batches, workers=0)
    seen: list[np.ndarray] = []
    told: list[np.ndarray] = []
    for batch in tqdm(
        loader, title, unit="batch", leave=False, disable=not accelerator.is_main_process
    ):
        image = batch["image"].to(accelerator.device, non_blocking=True)
        metadata = batch["metadata"].to(accelerator.device)
        parts = []
        for view in views_of(image, views):
            with accelerator.autocast():
                parts.append(probabilities(model(view, metadata)))
        prob = torch.stack(parts).mean(dim=0)
        row, prob = accelerator.gather((batch["row"].to(accelerator.device), prob))
        seen.append(row.cpu().numpy())
        told.append(prob.cpu().numpy())
    probs = np.full((len(dataset), told[0].shape[1]), np.nan)
    probs[np.concatenate(seen)] = np.concatenate(told)  # a repeated row lands on itself
    missing = int(np.isnan(probs[rows]).any(axis=1).sum())
    if missing:
        raise RuntimeError(f"{title}: {missing} of {len(rows)} rows got no finite prediction")
    return probs[rows, 0] if probs.shape[1] == 1 else probs[rows]


def probabilities(logit: torch.Tensor) -> torch.Tensor:
    """Logits (B, K) as probabilities (B, K): of yes where K is 1, else of classes, summing to 1."""
    return logit.sigmoid() if logit.shape[1] == 1 else logit.softmax(dim=1)
