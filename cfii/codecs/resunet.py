"""ResUNet, the paper's own backbone and decoder (section 4.2; 23.49 M parameters with CFII)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cfii.arguments import require_counts
from cfii.codecs.unet import UNetDecoder, UNetEncoder

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


class ResUNetEncoder(UNetEncoder):
    """U-Net's encoder with one residual block a stage.

    Left open by the paper, decided here: the widths and one block a stage, which, with U-Net's decoder,
    reproduce its 23.49 M.
    """

    block = ResidualBlock


def build(in_channels: int, *, widths: Sequence[int] = WIDTHS) -> tuple[nn.Module, type[nn.Module]]:
    return ResUNetEncoder(in_channels, require_counts("widths", widths)), UNetDecoder
