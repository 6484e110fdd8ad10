"""What the codecs' encoders and decoders share: convolutions and the two ways up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def double_conv(in_channels: int, channels: int) -> nn.Sequential:
    """Twice 3×3 convolution, batch norm, ReLU."""
    layers: list[nn.Module] = []
    for width in (in_channels, channels):
        layers += [
            nn.Conv2d(width, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class TransposedUp(nn.Module):
    """U-Net's way up: 2×2 transposed convolution, concatenation with the skip, `double_conv`."""

    def __init__(self, deep_channels: int, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deep_channels, channels, kernel_size=2, stride=2)
        self.convs = double_conv(2 * channels, channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([self.up(deep), skip], 1))


class BilinearUp(nn.Module):
    """Bilinear to the skip's size, concatenation with it, `double_conv`; without a skip, to twice the size."""

    def __init__(self, deep_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.convs = double_conv(deep_channels + skip_channels, channels)

    def forward(self, deep: Tensor, skip: Tensor | None = None) -> Tensor:
        size = [2 * extent for extent in deep.shape[2:]] if skip is None else skip.shape[2:]
        x = F.interpolate(deep, size=size, mode="bilinear")
        return self.convs(x if skip is None else torch.cat([x, skip], 1))
