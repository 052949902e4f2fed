"""Test-time views: the same lesion flipped and turned; their probabilities are averaged."""

from torch import Tensor


def views_of(images: Tensor, count: int) -> list[Tensor]:
    """`count` views of a batch (B, S, S, 3): 1 identity; 4 with both flips; 8 all turns too."""
    flips = [images, images.flip(2), images.flip(1), images.flip(1, 2)]
    if count == 8:
        flips += [view.transpose(1, 2) for view in flips]
    return flips[:count]
