"""ResUNet, the paper's own backbone and decoder (section 4.2; 23.49 M parameters with CFII)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512, 512)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm; a 1×1 shortcut where the width changes."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, kernel_size=1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResUNetEncoder(nn.Module):
    """One residual block a stage, max-pooling between stages: strides 1, 2, 4, …

    Left open by the paper, decided here: the widths and one block a stage, which reproduce its 23.49 M.

    Shapes: (B, in_channels, H, W) -> [(B, widths[i], H/2^i, W/2^i)].
    """

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, list(widths)
        inputs = [in_channels, *widths[:-1]]
        self.stages = nn.ModuleList(ResidualBlock(a, b) for a, b in zip(inputs, widths, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if i else x)
            features.append(x)
        return features


class UpBlock(nn.Module):
    """2×2 transposed convolution, concatenation with the skip, two 3×3 conv-BN-ReLU."""

    def __init__(self, deep_channels: int, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deep_channels, channels, kernel_size=2, stride=2)
        self.convs = nn.Sequential(
            nn.Conv2d(2 * channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([self.up(deep), skip], 1))


class ResUNetDecoder(nn.Module):
    """Up-blocks from the deepest stage to the shallowest, at the widths it is given (section 3.3).

    Shapes: [(B, widths[i], H/2^i, W/2^i)] -> (B, widths[0], H, W).
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(UpBlock(deep, shallow) for shallow, deep in itertools.pairwise(widths))

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for block, skip in zip(reversed(self.blocks), reversed(features[:-1]), strict=True):
            x = block(x, skip)
        return x
