"""How metadata (B, C) enter the network: beside the features, or as weights of their channels."""

import torch
from torch import Tensor, nn


class MetadataBranch(nn.Sequential):
    """(B, C) metadata -> (B, 128) features."""

    width = 128

    def __init__(self, columns: int):
        super().__init__(
            nn.Linear(columns, 512),
            nn.BatchNorm1d(512),
            nn.SiLU(),
            nn.Dropout(0.3),
            nn.Linear(512, self.width),
            nn.BatchNorm1d(self.width),
            nn.SiLU(),
        )


class MetadataGate(nn.Module):
    """(B, C) metadata -> (B, channels), the factor 1 + alpha m of each channel, m in -1 to 1."""

    width = 64
    noise = 0.05  # standard deviation, in training alone

    def __init__(self, columns: int, channels: int):
        super().__init__()
        self.hidden = nn.Linear(columns, self.width)
        self.output = nn.Linear(self.width, channels)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, metadata: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.hidden(metadata))
        if self.training:
            hidden = hidden + self.noise * torch.randn_like(hidden)
        return 1 + self.alpha * self.output(hidden).tanh()
