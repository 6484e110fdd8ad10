"""U-Net (Ronneberger et al. 2015) with batch norm and transposed convolutions: the paper's 31.04 M baseline."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cfii.arguments import require_counts
from cfii.codecs.blocks import TransposedUp, double_conv

WIDTHS = (64, 128, 256, 512, 1024)


class UNetEncoder(nn.Module):
    """One block a stage, max-pooling between stages: strides 1, 2, 4, …

    Shapes: (B, in_channels, H, W) -> [(B, widths[i], H/2^i, W/2^i)].
    """

    block = staticmethod(double_conv)

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, list(widths)
        inputs = [in_channels, *widths[:-1]]
        self.stages = nn.ModuleList(self.block(a, b) for a, b in zip(inputs, widths, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if i else x)
            features.append(x)
        return features


class UNetDecoder(nn.Module):
    """`TransposedUp` from the deepest stage to the shallowest, at the widths it is given.

    Shapes: [(B, widths[i], H/2^i, W/2^i)] -> (B, widths[0], H, W).
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransposedUp(deep, shallow) for shallow, deep in itertools.pairwise(widths))

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for block, skip in zip(reversed(self.blocks), reversed(features[:-1]), strict=True):
            x = block(x, skip)
        return x


def build(in_channels: int, *, widths: Sequence[int] = WIDTHS) -> tuple[nn.Module, type[nn.Module]]:
    return UNetEncoder(in_channels, require_counts("widths", widths)), UNetDecoder
