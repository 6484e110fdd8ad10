"""Any pyramid of timm's with a U-Net decoder of ours: a complete network from an encoder's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cfii.codecs import encoders
from cfii.codecs.blocks import BilinearUp

MIN_WIDTH = 8


class PyramidDecoder(nn.Module):
    """`BilinearUp` from the deepest stage to the shallowest, and on, without skips, to the image's size.

    Bilinear to the skip's own size, since not every encoder's maps halve exactly. Behind the shallowest stage the
    width halves with every step, down to `MIN_WIDTH`.

    Shapes: [(B, widths[i], H/strides[i], W/strides[i])] -> (B, C, H, W).
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        skips = list(reversed(widths[:-1]))
        outs = skips.copy()
        for _ in range(strides[0].bit_length() - 1):
            skips.append(0)
            outs.append(max(MIN_WIDTH, (outs or widths)[-1] // 2))
        ins = [widths[-1], *outs[:-1]]
        self.blocks = nn.ModuleList(BilinearUp(*abc) for abc in zip(ins, skips, outs, strict=True))

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = features
        skips = [*reversed(skips), *[None] * (len(self.blocks) - len(skips))]
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return x


def build(
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    *,
    encoder_name: str,
    encoder_weights: str | bool | None = None,
    **encoder_options: Any,
) -> tuple[nn.Module, type[nn.Module]]:
    encoder = encoders.pyramid_encoder(encoder_name, in_channels, image_size, encoder_weights, encoder_options)
    return encoder, PyramidDecoder
