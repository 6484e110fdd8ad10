"""What an encoder says of itself, and how its output is read: the only place that knows timm and SMP.

An encoder is any module that maps images to feature maps, from shallow to deep. Its output may be

- a list or tuple of maps, or a dict of them (the values, in their order);
- an object with `feature_maps` (Hugging Face backbones);
- a tuple `(maps, ...)` whose first element is itself such a collection: the rest goes to the decoder as it
  is, after the list (SMP's DPT: the prefix tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cfii.arguments import describe

PYRAMID = "a list, tuple or dict of feature maps (B, C, H, W), from shallow to deep"


def read(output: Any) -> tuple[list[Tensor], tuple]:
    """An encoder's output -> its feature maps in its own layout, and what it hands the decoder beside them."""
    maps = getattr(output, "feature_maps", output)
    extras: tuple = ()
    if isinstance(maps, (tuple, list)) and maps and isinstance(maps[0], (tuple, list, Mapping)):
        maps, *rest = maps
        extras = tuple(rest)
    if isinstance(maps, Mapping):
        maps = list(maps.values())
    if not isinstance(maps, (list, tuple)) or not maps:
        raise TypeError(f"encoder: expected it to return {PYRAMID}, got {describe(output)}")
    for i, x in enumerate(maps):
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise ValueError(f"encoder: expected it to return {PYRAMID}; its map {i} is {describe(x)}")
    return list(maps), extras


def channels_first(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W), without a copy."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), without a copy."""
    return x.permute(0, 2, 3, 1)


def all_channels_first(maps: Sequence[Tensor], image_stages: Sequence[int]) -> list[Tensor]:
    """Every map but the image itself, which never changes its layout."""
    return [x if i in image_stages else channels_first(x) for i, x in enumerate(maps)]


def all_channels_last(maps: Sequence[Tensor], image_stages: Sequence[int]) -> list[Tensor]:
    """Every map but the image itself, which never changes its layout."""
    return [x if i in image_stages else channels_last(x) for i, x in enumerate(maps)]


def declares_channels_last(encoder: nn.Module) -> bool | None:
    """timm's `output_fmt`; None if the encoder declares none."""
    layout = getattr(encoder, "output_fmt", None)
    if layout is None:
        return None
    return str(getattr(layout, "value", layout)).upper() == "NHWC"


def declared_widths(encoder: nn.Module) -> tuple[str, list[int]] | None:
    """The widths of the stages and where they are declared: SMP's `out_channels`, timm's `feature_info`."""
    widths = getattr(encoder, "out_channels", None)
    if isinstance(widths, (list, tuple)):
        return "out_channels", [int(width) for width in widths]
    channels = getattr(getattr(encoder, "feature_info", None), "channels", None)
    if callable(channels):
        return "feature_info", [int(width) for width in channels()]
    return None


def possible_in_channels(encoder: nn.Module) -> list[int]:
    """The number of image channels: an attribute's, then the first convolution's; empty if neither says.

    Both are returned, for an attribute of that name may mean something else (the running width of a ResNet).
    """
    values = [getattr(encoder, name, None) for name in ("in_channels", "_in_channels", "in_chans")]
    values += [module.in_channels for module in encoder.modules() if isinstance(module, nn.Conv2d)][:1]
    return list(dict.fromkeys(value for value in values if isinstance(value, int) and value > 0))


def declared_sizes(encoder: nn.Module) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The image sizes that parts of the encoder say they are made for (an attribute of timm's and torchvision's
    transformers), and those at which, as timm's configuration says, the weights were trained."""
    own, trained = [], []
    for module in encoder.modules():
        size = getattr(module, "img_size", getattr(module, "image_size", None))
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(x, int) for x in size):
            own.append(tuple(size))
        configuration = getattr(module, "pretrained_cfg", None)
        if isinstance(configuration, Mapping) and len(configuration.get("input_size") or ()) == 3:
            trained.append(tuple(configuration["input_size"][1:]))
    return list(dict.fromkeys(own)), list(dict.fromkeys(trained))


def smp_parts(model: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Encoder, decoder and head of a segmentation-models-pytorch model."""
    parts = [getattr(model, name, None) for name in ("encoder", "decoder", "segmentation_head")]
    if not all(isinstance(part, nn.Module) for part in parts):
        raise TypeError(
            "smp_model: expected a segmentation_models_pytorch model (with encoder, decoder and "
            f"segmentation_head), got a {type(model).__name__}; wrap other networks with "
            "CFIIWrapper(encoder, decoder, num_classes)"
        )
    if getattr(model, "classification_head", None) is not None:
        raise ValueError(
            "smp_model: expected a model without a classification head (aux_params=None), as CFIIWrapper "
            "returns masks only; set model.classification_head = None to leave it out"
        )
    return tuple(parts)
