"""Every architecture of segmentation-models-pytorch, at full width or rebuilt for half the encoder's widths."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import segmentation_models_pytorch as smp
from safetensors.torch import load_file
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import Tensor, nn

from cfii.codecs import encoders
from cfii.features import smp_parts

# SMP's parameters that follow from create_model's own, or would make something else than logits of its output.
HANDLED = {"self", "kwargs", "encoder_weights", "in_channels", "classes", "activation", "aux_params"}


class SMPDecoder(nn.Module):
    """SMP's decoder and segmentation head; DPT's prefix tokens are cut to the widths of its maps.

    DPT's encoder hands on prefix tokens (the class token) at the encoder's full width beside the maps. Where the
    maps are halved, the tokens are split as they are, and the second half is used.
    """

    def __init__(self, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.decoder, self.head = decoder, head

    def forward(self, features: list[Tensor], prefix_tokens: Sequence[Tensor | None] | None = None) -> Tensor:
        if prefix_tokens is None:
            return self.head(self.decoder(features))
        tokens = [
            token if token is None else token[..., -f.shape[1] :]
            for f, token in zip(features, prefix_tokens, strict=True)
        ]
        return self.head(self.decoder(features, tokens))


class Widths(nn.Module):
    """What SMP asks of an encoder when it builds a decoder: here, only its widths."""

    def __init__(self, widths: Sequence[int], depth: int, output_stride: int) -> None:
        super().__init__()
        self.out_channels, self.output_stride = list(widths), output_stride

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        pass

    def make_dilated(self, output_stride: int) -> None:
        pass


@contextmanager
def registered(widths: Sequence[int], encoder_name: str) -> Iterator[str]:
    """A name under which SMP's registry of encoders has `Widths` while the context lasts."""
    # SMP asks whether names begin with vgg or mit_b; tu- and timm- would lead past the registry.
    name = ("encoder" if encoder_name.startswith(("tu-", "timm-")) else encoder_name) + "-for-cfii"
    smp_encoders[name] = {"encoder": Widths, "pretrained_settings": {}, "params": {"widths": list(widths)}}
    try:
        yield name
    finally:
        del smp_encoders[name]


def with_weights(
    architecture: type[nn.Module], options: Mapping[str, Any], weights: str | bool | None
) -> nn.Module:
    """The SMP model, its encoder's weights from SMP, from timm (`tu-`), or from a safetensors file."""
    if encoders.is_file(weights) and options["encoder_name"].startswith("tu-"):
        overlay = {"file": str(encoders.require_safetensors(weights))}
        return architecture(**options, encoder_weights=True, pretrained_cfg_overlay=overlay)
    if encoders.is_file(weights):
        model = architecture(**options, encoder_weights=None)
        model.encoder.load_state_dict(load_file(encoders.require_safetensors(weights)))
        return model
    if options["encoder_name"].startswith("tu-"):
        return architecture(**options, encoder_weights=True if weights else None)
    try:
        return architecture(**options, encoder_weights="imagenet" if weights is True else weights or None)
    except KeyError as error:  # SMP's, which lists the weights that there are
        raise ValueError(f"encoder_weights: {error.args[0]}") from error


def with_half_widths(architecture: type[nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the widths of SMP's decoder, such as `decoder_channels`, halved.

    With scSE attention not below 16: its blocks divide the width by 16.
    """
    least = 16 if options.get("decoder_attention_type") == "scse" else 1

    def half(width: int) -> int:
        return min(width, max(least, width // 2))

    result = dict(options)
    for name, parameter in inspect.signature(architecture.__init__).parameters.items():
        if name.endswith("_channels") and name != "in_channels":
            widths = options.get(name, parameter.default)
            result[name] = half(widths) if isinstance(widths, int) else [half(width) for width in widths]
    return result


def half_decoder(full: nn.Module, options: Mapping[str, Any], widths: Sequence[int]) -> SMPDecoder:
    """SMP's decoder and head of the same architecture, for the given widths and with its own widths halved."""
    architecture = type(full)
    options = with_half_widths(architecture, options)
    if architecture is not smp.DPT:
        with registered(widths, options["encoder_name"]) as name:
            half = architecture(**options | {"encoder_name": name, "encoder_weights": None})
        return SMPDecoder(half.decoder, half.segmentation_head)
    # DPT takes no encoder but timm's transformers, so its two parts are built directly.
    fusion = options["decoder_fusion_channels"]
    decoder = type(full.decoder)(
        encoder_out_channels=list(widths),
        encoder_output_strides=full.encoder.output_strides,
        encoder_has_prefix_tokens=full.encoder.has_prefix_tokens,
        readout=options.get("decoder_readout", "cat"),
        intermediate_channels=options["decoder_intermediate_channels"],
        fusion_channels=fusion,
    )
    head = type(full.segmentation_head)(fusion, options["classes"], kernel_size=3, upsampling=2)
    initialize_decoder(decoder)
    initialize_head(head)
    return SMPDecoder(decoder, head)


def build(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    *,
    encoder_name: str | None = None,
    encoder_weights: str | bool | None = None,
    **options: Any,
) -> tuple[nn.Module, Callable[[Sequence[int]], nn.Module]]:
    """SMP's encoder, and its decoder with head for whatever widths it is given.

    `options` are those of SMP's architecture, and timm's for a `tu-` encoder.
    """
    model_class = getattr(smp, architecture)
    parameters = inspect.signature(model_class.__init__).parameters
    own = [name for name in parameters if name not in HANDLED]
    encoder_name = parameters["encoder_name"].default if encoder_name is None else encoder_name
    encoder_options = {name: value for name, value in options.items() if name not in own}
    unknown = sorted(set(encoder_options) & HANDLED)
    if encoder_name.startswith("tu-"):
        timm_name = encoder_name.removeprefix("tu-")
        encoders.require_timm_name(timm_name)
        features_only = {} if model_class is smp.DPT else {"features_only": True}
        options |= encoders.try_sizes(timm_name, image_size, **encoder_options | features_only)[1]
    else:
        if encoder_name not in smp_encoders and not encoder_name.startswith("timm-"):
            raise encoders.unknown_name(
                encoder_name, "SMP's encoders, or of timm's behind tu-", smp.encoders.get_encoder_names()
            )
        unknown = sorted(encoder_options)
    if unknown:
        raise TypeError(
            f"create_model: unknown argument {', '.join(unknown)}; 'smp-{architecture.lower()}' with encoder "
            f"{encoder_name!r} takes {', '.join(own)}"
        )

    options |= {"encoder_name": encoder_name, "in_channels": in_channels, "classes": num_classes}
    full = with_weights(model_class, options, encoder_weights)
    encoder, decoder, head = smp_parts(full)

    def decoder_for(widths: Sequence[int]) -> nn.Module:
        if list(widths) == list(encoder.out_channels):
            return SMPDecoder(decoder, head)
        return half_decoder(full, options, widths)

    return encoder, decoder_for
