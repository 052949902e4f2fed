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

    The processes share the rows; all of them get the whole result. RuntimeError if a row comes
    back without a number.
    """
    model.eval()
    batches = eval_batches(
        rows, config.batch_size, accelerator.process_index, accelerator.num_processes
    )
    loader = build_loader(dataset, batches, workers=0)
    probs = np.full(len(dataset), np.nan)
    for batch in tqdm(
        loader, title, unit="batch", leave=False, disable=not accelerator.is_main_process
    ):
        image = batch["image"].to(accelerator.device, non_blocking=True)
        metadata = batch["metadata"].to(accelerator.device)
        prob = torch.zeros(len(image), device=accelerator.device)
        for view in views_of(image, views):
            with accelerator.autocast():
                logit = model(view, metadata)
            prob += logit.squeeze(1).sigmoid() / views
        row, prob = accelerator.gather((batch["row"].to(accelerator.device), prob))
        probs[row.cpu().numpy()] = prob.cpu().numpy()  # a repeated row lands on itself
    missing = int(np.isnan(probs[rows]).sum())
    if missing:
        raise RuntimeError(f"{title}: {missing} of {len(rows)} rows got no finite prediction")
    return probs[rows]
