"""How sure is a model of one photograph: Monte Carlo dropout over its head and metadata branch."""

import torch
from torch import Tensor, nn

from lesions.inference.predict import probabilities
from lesions.models.classifier import LesionClassifier
from lesions.models.layers import MultiSampleDropout

SAMPLES = 50
SEED = 0  # the same photograph gets the same answer


@torch.no_grad()
def mc_dropout(
    model: LesionClassifier, features: Tensor, metadata: Tensor, samples: int = SAMPLES
) -> Tensor | None:
    """Probabilities (samples, K) of one image under random dropout masks; None without dropout.

    `features` (1, F) are what entered the head, `metadata` (1, C). The backbone is not run again,
    so its own dropout stays off. Gal and Ghahramani, 2016: https://arxiv.org/abs/1506.02142.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    layers = [layer for layer in layers if layer.p and not _of_backbone(layer, model)]
    if not layers:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for layer in layers:
            layer.train()
        try:
            fused = features.repeat(samples, 1)
            if model.metadata is not None:
                person = model.metadata(metadata.float().repeat(samples, 1))
                fused = torch.cat([fused[:, : -person.shape[1]], person], dim=1)
            return probabilities(_masked_head(model.head, fused))
        finally:
            for layer in layers:
                layer.eval()


def _of_backbone(layer: nn.Module, model: LesionClassifier) -> bool:
    return any(layer is module for module in model.backbone.modules())


def _masked_head(head: nn.Module, fused: Tensor) -> Tensor:
    if isinstance(head, MultiSampleDropout):
        return head.linear(head.dropout(fused))  # one mask each, as the average is ours
    return head(fused)
