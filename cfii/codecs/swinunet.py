"""SwinUNet (Cao et al. 2021), tiny: the paper's 27.17 M backbone of Table 5."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from einops import rearrange
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn

from cfii.codecs import encoders
from cfii.features import channels_first, channels_last

ENCODER = "swin_tiny_patch4_window7_224"
DEPTH = 2  # blocks a stage, in encoder and decoder
WINDOW = 7
HEAD_WIDTH = 32


class Expand(nn.Module):
    """Patch expanding: a linear map to scale² pieces of `channels`, laid out as a map, layer norm.

    Shapes: (B, H, W, in_channels) -> (B, scale·H, scale·W, channels).
    """

    def __init__(self, in_channels: int, channels: int, scale: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, scale * scale * channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(self.linear(x), "b h w (p q c) -> b (h p) (w q) c", p=self.scale, q=self.scale)
        return self.norm(x)


class SwinUp(nn.Module):
    """Patch expanding, concatenation with the skip, a linear map, two Swin blocks."""

    def __init__(self, deep_channels: int, channels: int, resolution: tuple[int, int]) -> None:
        super().__init__()
        self.expand = Expand(deep_channels, channels, scale=2)
        self.join = nn.Linear(2 * channels, channels)
        heads = max(h for h in range(1, max(1, channels // HEAD_WIDTH) + 1) if channels % h == 0)
        self.blocks = SwinTransformerStage(
            channels,
            channels,
            resolution,
            depth=DEPTH,
            downsample=False,
            num_heads=heads,
            window_size=WINDOW,
            dynamic_mask=True,  # any image size
        )

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return self.blocks(self.join(torch.cat([self.expand(deep), skip], -1)))


class SwinUNetDecoder(nn.Module):
    """`SwinUp` from the deepest stage to the shallowest, then a fourfold patch expanding to the image's size.

    Left open by the paper, decided here: each skip is a stage's output, after its blocks, as timm gives it (the
    code of SwinUNet takes it before them); no stochastic depth in the decoder.

    Args:
        widths: from shallow to deep.
        strides: of the stages.
        image_size: for which windows larger than a map are cut to it.

    Shapes: [(B, widths[i], H/strides[i], W/strides[i])] -> (B, widths[0], H, W).
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[int], image_size: tuple[int, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(widths[-1])
        self.blocks = nn.ModuleList(
            SwinUp(deep, shallow, tuple(-(-extent // stride) for extent in image_size))
            for (shallow, deep), stride in zip(itertools.pairwise(widths), strides, strict=False)
        )
        self.last_norm = nn.LayerNorm(widths[0])
        self.expand = Expand(widths[0], widths[0], scale=strides[0])

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = (channels_last(f) for f in features)
        x = self.norm(x)
        for block, skip in zip(reversed(self.blocks), reversed(skips), strict=True):
            x = block(x, skip)
        return channels_first(self.expand(self.last_norm(x)))


def build(
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    *,
    encoder_weights: str | bool | None = None,
) -> tuple[nn.Module, Callable[..., nn.Module]]:
    image_size = image_size or (224, 224)
    options = {"in_chans": in_channels, "img_size": image_size, "strict_img_size": False, "features_only": True}
    encoder = encoders.timm_encoder(ENCODER, None, **options, depths=(DEPTH,) * 4)
    if encoder_weights:
        # The weights are of timm's own depths, 2-2-6-2; as in SwinUNet's code, each stage takes its first blocks.
        deeper = encoders.timm_encoder(ENCODER, encoder_weights, **options).state_dict()
        encoder.load_state_dict({name: deeper[name] for name in encoder.state_dict()})
    return encoder, partial(SwinUNetDecoder, image_size=image_size)
