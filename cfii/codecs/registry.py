"""`create_model`: a complete network from a name and JSON-able arguments."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from cfii.codecs.resunet import WIDTHS, ResUNetDecoder, ResUNetEncoder
from cfii.neck import CFIINeck
from cfii.wrapper import Codec

# A builder takes in_channels and its own options, and returns an encoder and a decoder factory.
Builder = Callable[..., tuple[nn.Module, Callable[..., nn.Module]]]


def resunet(in_channels: int = 3, widths: Sequence[int] = WIDTHS) -> tuple[nn.Module, type[nn.Module]]:
    return ResUNetEncoder(in_channels, widths), ResUNetDecoder


BUILDERS: dict[str, Builder] = {"resunet": resunet}

# What a user may set of the neck; the rest follows from the codec.
FOLLOWS = ("in_channels", "strides", "num_classes", "stages", "keep", "rejoin")
NECK_OPTIONS = [option for option in inspect.signature(CFIINeck).parameters if option not in FOLLOWS]


class CFIIModel(Codec, PyTorchModelHubMixin):
    """A network by name, with or without CFII; made by `create_model`, which documents the arguments.

    `save_pretrained`, `from_pretrained` and `push_to_hub` keep these arguments as JSON and the weights as
    safetensors.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        in_channels: int = 3,
        *,
        cfii: bool = True,
        stages: Sequence[int] | None = None,
        pad: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        if name not in BUILDERS:
            raise ValueError(f"name: expected one of {', '.join(list_models())}, got {name!r}")
        builder = BUILDERS[name]
        own = [option for option in inspect.signature(builder).parameters if option != "in_channels"]
        unknown = sorted(set(options) - {*own, *NECK_OPTIONS})
        if unknown:
            raise TypeError(
                f"create_model: unknown argument {', '.join(unknown)}; {name!r} takes {', '.join(own)} and the "
                f"neck's {', '.join(NECK_OPTIONS)}"
            )
        encoder, decoder = builder(in_channels, **{k: v for k, v in options.items() if k in own})
        neck = {k: v for k, v in options.items() if k in NECK_OPTIONS} if cfii else None
        self.assemble(encoder, decoder, num_classes, None, in_channels, stages, pad, neck)


def create_model(
    name: str, num_classes: int, in_channels: int = 3, *, cfii: bool = True, **options: Any
) -> CFIIModel:
    """Build a network by name.

    Args:
        name: one of `list_models()`.
        num_classes: the number of output channels, background included.
        in_channels: of the images.
        cfii: with the neck, and the decoder at half the encoder's widths; without it, the same codec, plain,
            at full width (the neck's options then have no effect).
        **options: the codec's own (`resunet`: `widths`), `stages` and `pad` of `CFIIWrapper`, and the neck's
            `embeddings`, `update_embeddings`, `update_features`, `num_heads`, `ffn_ratio`, `sit_min_stride`,
            `start`.

    Raises:
        ValueError, TypeError: an unknown name or argument.

    Example:
        >>> model = create_model("resunet", num_classes=9)
    """
    return CFIIModel(name, num_classes, in_channels, cfii=cfii, **options)


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows, filtered by a shell pattern."""
    return sorted(fnmatch.filter(BUILDERS, pattern))


def from_pretrained(path_or_repo: str, **options: Any) -> CFIIModel:
    """The network that `save_pretrained` or `push_to_hub` wrote, from a folder or the Hugging Face Hub."""
    return CFIIModel.from_pretrained(path_or_repo, **options)
