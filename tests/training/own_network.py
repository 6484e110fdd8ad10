"""A user's own network, for `--model.network`: without batch statistics, with dropout if asked for."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from cfii import CFIIWrapper


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1) for a, b, stride in ((1, 16, 2), (16, 24, 2), (24, 32, 2))
        )

    def forward(self, x):
        features = []
        for stage in self.stages:
            x = torch.relu(stage(x))
            features.append(x)
        return features


class Decoder(nn.Module):
    def __init__(self, widths, dropout=0.0):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, 16, 1) for width in widths)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features):
        size = features[0].shape[2:]
        return self.dropout(sum(interpolate(c(f), size) for c, f in zip(self.convs, features, strict=True)))


class Own(CFIIWrapper):
    def __init__(self, num_classes: int = 9, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        super().__init__(Encoder(), lambda widths: Decoder(widths, dropout), num_classes, in_channels=1)
