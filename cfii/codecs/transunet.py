"""TransUNet (Chen et al. 2021), R50 + ViT-B/16: the paper's 105.28 M backbone of Table 5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import StdConv2dSame
from torch import Tensor, nn

from cfii.codecs import encoders
from cfii.codecs.blocks import BilinearUp

WIDTHS = (64, 256, 512, 768)
DECODER_WIDTHS = (16, 64, 128, 256)  # from shallow to deep
BOTTLENECK_WIDTH = 512


class TransUNetEncoder(nn.Module):
    """timm's `vit_base_r50_s16_224`: a ResNet-50 without its last stage, then twelve transformer blocks.

    The stem and the first two stages are the skips, the transformer's tokens as a map the deepest stage. Position
    embeddings are interpolated to the size of the map, so any image size works.

    Left open by the paper, decided here: timm's class token stays (it attends, and is dropped from the map), so
    that its pretrained weights fit. Convolutions are padded symmetrically, as in TransUNet's code; timm pads as
    TensorFlow does, by an amount that depends on the image's size and cannot be exported for any size.

    Shapes: (B, in_channels, H, W) -> (B, 64, H/2, W/2), (B, 256, H/4, W/4), (B, 512, H/8, W/8),
    (B, 768, H/16, W/16).
    """

    def __init__(self, in_channels: int, image_size: tuple[int, int], weights: str | bool | None) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, list(WIDTHS)
        self.vit = encoders.timm_encoder(
            "vit_base_r50_s16_224", weights, in_chans=in_channels, img_size=image_size, num_classes=0
        )
        pad_symmetrically(self.vit.patch_embed.backbone)
        self.grid_size = tuple(self.vit.patch_embed.grid_size)

    def forward(self, images: Tensor) -> list[Tensor]:
        backbone = self.vit.patch_embed.backbone
        x = backbone.stem.norm(backbone.stem.conv(images))
        features = [x]
        x = backbone.stem.pool(x)
        for stage in backbone.stages:
            x = stage(x)
            features.append(x)
        x = self.vit.patch_embed.proj(backbone.norm(x))
        features[-1] = self.attend(x)
        return features

    def attend(self, x: Tensor) -> Tensor:
        """The transformer on a map (B, 768, h, w)."""
        vit, (h, w) = self.vit, x.shape[2:]
        # vit.pos_embed (1, 1 + h0·w0, C): the class token's, then the grid's for the size it was made for.
        grid = rearrange(vit.pos_embed[:, 1:], "1 (h w) c -> 1 c h w", h=self.grid_size[0])
        grid = F.interpolate(grid, size=(h, w), mode="bicubic")
        tokens = rearrange(x + grid, "b c h w -> b (h w) c")
        class_token = (vit.cls_token + vit.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        tokens = vit.norm_pre(vit.pos_drop(torch.cat([class_token, tokens], 1)))
        tokens = vit.norm(vit.blocks(tokens))
        return rearrange(tokens[:, 1:], "b (h w) c -> b c h w", h=h)


def pad_symmetrically(backbone: nn.Module) -> None:
    """Fixed padding, by half a kernel on each side, instead of TensorFlow's."""
    for module in backbone.modules():
        if isinstance(module, StdConv2dSame):
            module.same_pad = False
            module.padding = tuple(extent // 2 for extent in module.kernel_size)
    backbone.stem.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)


class TransUNetDecoder(nn.Module):
    """The cascaded upsampler with three skips; its own widths are in proportion to the deepest stage's.

    Shapes: [(B, widths[i], …)] at strides 2, 4, 8, 16 -> (B, 16·widths[-1]/768, H, W).
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        *skips, deepest = widths
        bottleneck, *outs = (
            max(1, width * deepest // WIDTHS[-1]) for width in (BOTTLENECK_WIDTH, *reversed(DECODER_WIDTHS))
        )
        self.bottleneck = nn.Sequential(
            nn.Conv2d(deepest, bottleneck, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(bottleneck),
            nn.ReLU(),
        )
        ins = [bottleneck, *outs[:-1]]
        self.blocks = nn.ModuleList(
            BilinearUp(a, skip, b) for a, skip, b in zip(ins, [*reversed(skips), 0], outs, strict=True)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = features
        x = self.bottleneck(x)
        for block, skip in zip(self.blocks, [*reversed(skips), None], strict=True):
            x = block(x, skip)
        return x


def build(
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    *,
    encoder_weights: str | bool | None = None,
) -> tuple[nn.Module, type[nn.Module]]:
    return TransUNetEncoder(in_channels, image_size or (224, 224), encoder_weights), TransUNetDecoder
