"""timm's encoders: which names form a pyramid, image sizes, and weights from timm or from a file."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

# timm's two words for "accepts any image size", and none.
FLEXIBLE = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


def is_file(weights: str | bool | None) -> bool:
    """Whether `encoder_weights` names a file rather than weights that a library knows."""
    return isinstance(weights, str) and (weights.endswith(".safetensors") or Path(weights).exists())


def require_safetensors(path: str) -> Path:
    """The path of an existing safetensors file; other formats would have to be unpickled."""
    if Path(path).suffix != ".safetensors" or not Path(path).is_file():
        raise ValueError(
            "encoder_weights: expected None, a name of weights, or the path of an existing .safetensors file, "
            f"got {path!r}"
        )
    return Path(path)


def timm_encoder(name: str, weights: str | bool | None, **options: Any) -> nn.Module:
    """A timm model; `weights` is None (random), the path of a safetensors file, or any word for timm's own."""
    if is_file(weights):
        options["pretrained_cfg_overlay"] = {"file": str(require_safetensors(weights))}
    return timm.create_model(name, pretrained=bool(weights), **options)


def require_timm_name(name: str) -> None:
    """`name`, perhaps with a tag of weights behind a dot, is one of timm's, or leads to a hub (`hf-hub:...`)."""
    base = str(name).split(".", 1)[0]
    if ":" not in base and not timm.is_model(base):
        raise unknown_name(name, "timm.list_models()", timm.list_models())


def unknown_name(name: str, source: str, names: Sequence[str]) -> ValueError:
    """The error for an encoder's name that its library does not have, with the nearest that it has."""
    close = difflib.get_close_matches(str(name).split(".", 1)[0], names, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    return ValueError(f"encoder_name: expected one of {source}, got {name!r}{hint}")


def try_sizes(name: str, image_size: tuple[int, int] | None, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A timm model for a look, and the options with which it is made for `image_size` if one is given,
    and accepts as many sizes as it can.

    Which of timm's options for this a model knows, no attribute says: each is tried.
    """
    made_for = ({"img_size": image_size}, {}) if image_size else ({},)
    for size, flexible in itertools.product(made_for, FLEXIBLE):
        try:
            return build_trial(name, options | size | flexible), size | flexible
        except TypeError as error:  # an option that this model does not know
            failure = error
    raise failure  # also without any of ours: what is wrong is one of the caller's


def build_trial(name: str, options: Mapping[str, Any]) -> nn.Module:
    """On the meta device; for real where timm computes with values while it builds (1.0.8)."""
    try:
        with torch.device("meta"):
            return timm.create_model(name, **options)
    except RuntimeError:
        return timm.create_model(name, **options)


def pyramid_encoder(
    name: str,
    in_channels: int,
    image_size: tuple[int, int] | None,
    weights: str | bool | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """A timm encoder whose stages each have half the size of the one before.

    Raises:
        ValueError: timm has no such name, or its stages form no pyramid; the message says what to use instead.
    """
    require_timm_name(name)
    options = {"features_only": True, "in_chans": in_channels} | dict(options)
    try:
        trial, size = try_sizes(name, image_size, **options)
    except RuntimeError as error:
        if "features_only" not in str(error):
            raise
        raise ValueError(
            f"encoder_name: timm {timm.__version__} does not give the maps of {name!r} ({error}). Wrap an "
            "encoder of your own that does: CFIIWrapper(encoder, decoder, num_classes)"
        ) from error
    strides = trial.feature_info.reduction()
    if len(strides) > 1 and set(strides) == {2 ** (strides[0].bit_length() - 1)}:
        raise ValueError(
            f"encoder_name: {name!r} gives all its maps at one stride ({strides[0]}), so they form no pyramid; "
            f'use create_model("smp-dpt", encoder_name="tu-{name}", ...), whose decoder is made for transformers'
        )
    if any(deep != 2 * shallow for shallow, deep in itertools.pairwise(strides)):
        raise ValueError(
            f"encoder_name: {name!r} gives maps at strides {strides}; expected a pyramid, in which each is twice "
            "the one before. Wrap it with a decoder of your own: CFIIWrapper(encoder, decoder, num_classes)"
        )
    return timm_encoder(name, weights, **options | size)
