"""`create_model`: a complete network from a name and JSON-able arguments."""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from cfii.arguments import require_choice, require_count, require_flag, require_size
from cfii.codecs.hub import HubMixin
from cfii.neck import CFIINeck
from cfii.wrapper import Codec

# SMP's architectures; `create_model` writes them in lower case behind `smp-`.
SMP = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN"),
    *("DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer", "DPT"),
)
# Each name's module, imported on first use (timm and SMP take seconds), and what its `build` is told first.
CODECS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("resunet", "unet", "transunet", "swinunet")},
    "timm-unet": ("timm",),
    **{f"smp-{architecture.lower()}": ("smp", architecture) for architecture in SMP},
}

# Options of timm's that would load files or configurations past `encoder_weights`, and perhaps unpickle them.
FORBIDDEN = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
# What a user may set of the neck; the rest follows from the codec.
FOLLOWS = ("in_channels", "strides", "num_classes", "stages", "keep", "rejoin")
NECK_OPTIONS = [option for option in inspect.signature(CFIINeck).parameters if option not in FOLLOWS]


def find_builder(name: str) -> Callable[..., tuple[nn.Module, Callable[..., nn.Module]]]:
    """The function that makes a codec's encoder, and the factory of its decoder, from the codec's options."""
    require_choice("name", name, list_models())
    module, *arguments = CODECS[name]
    return partial(import_module(f"cfii.codecs.{module}").build, *arguments)


class CFIIModel(Codec, HubMixin):
    """A network by name, with or without CFII; made by `create_model`, which documents the arguments.

    `save_pretrained`, `from_pretrained` and `push_to_hub` keep these arguments as JSON and the weights as
    safetensors.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        in_channels: int = 3,
        image_size: int | Sequence[int] | None = None,
        *,
        cfii: bool = True,
        stages: Sequence[int] | None = None,
        pad: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        builder = find_builder(name)
        num_classes = require_count("num_classes", num_classes)
        in_channels = require_count("in_channels", in_channels)
        size = require_size("image_size", image_size)
        require_flag("cfii", cfii)
        told = {"num_classes": num_classes, "in_channels": in_channels, "image_size": size}
        parameters = inspect.signature(builder).parameters
        own = [option for option in parameters if option not in told]
        check_options(name, parameters, own, options)
        encoder, decoder = builder(
            **{k: v for k, v in told.items() if k in parameters},
            **{k: v for k, v in options.items() if k not in NECK_OPTIONS},
        )
        neck = {k: v for k, v in options.items() if k in NECK_OPTIONS} if cfii else None
        self.assemble(encoder, decoder, num_classes, None, in_channels, size, stages, pad, neck)


def check_options(name: str, parameters: Any, own: Sequence[str], options: dict[str, Any]) -> None:
    """Raise if an option is unknown, missing, or could not be saved as JSON."""
    forbidden = sorted(set(options) & set(FORBIDDEN))
    if forbidden:
        raise ValueError(f"create_model: {', '.join(forbidden)}: expected encoder_weights instead, for weights")
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [] if takes_any else sorted(set(options) - {*own, *NECK_OPTIONS})
    if unknown:
        takes = f"{', '.join(own)} and the neck's" if own else "the neck's"
        raise TypeError(
            f"create_model: unknown argument {', '.join(unknown)}; {name!r} takes {takes} "
            f"{', '.join(NECK_OPTIONS)}"
        )
    required = [
        option
        for option in own
        if parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        and parameters[option].default is inspect.Parameter.empty
    ]
    for option in required:
        if option not in options:
            raise TypeError(f"create_model: {name!r} needs {option}=...")
    for option, value in options.items():
        try:
            json.dumps(value)
        except TypeError:
            raise TypeError(
                f"create_model: {option}: expected a value that JSON can hold, so that the network can be saved, "
                f"got {value!r}; to attach modules of your own use CFIIWrapper(encoder, decoder, num_classes)"
            ) from None


def create_model(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | Sequence[int] | None = None,
    *,
    cfii: bool = True,
    **options: Any,
) -> CFIIModel:
    """Build a network by name.

    Args:
        name: one of `list_models()`.
        num_classes: the number of output channels, background included.
        in_channels: of the images.
        image_size: (height, width) or one number, for what is made for a size: position embeddings, windows. By
            default the encoder's own, or 224. Most networks then run at any size; an encoder of timm's that does
            not needs its size here. Convolutional codecs have none.
        cfii: with the neck, and the decoder at half the encoder's widths, its own widths halved likewise; without
            it, the same codec, plain, at full width (the neck's options then have no effect).
        **options: the codec's own, see below; `stages` and `pad` of `CFIIWrapper`; and the neck's `embeddings`,
            `update_embeddings`, `update_features`, `num_heads`, `ffn_ratio`, `sit_min_stride`, `start`.

    The codecs' own options:

    - resunet, unet: `widths`.
    - transunet, swinunet: `encoder_weights`.
    - timm-unet: `encoder_name` (any pyramid of timm's), `encoder_weights`, and whatever timm takes.
    - smp-…: `encoder_name`, `encoder_weights`, and whatever SMP's architecture takes.

    `encoder_weights` is None (random), True or a name (the library's own weights), or the path of a safetensors
    file with weights for that encoder.

    Raises:
        ValueError, TypeError: an unknown name or argument.

    Examples:
        >>> model = create_model("resunet", num_classes=9)
        >>> model = create_model("timm-unet", num_classes=9, encoder_name="convnext_tiny")
    """
    return CFIIModel(name, num_classes, in_channels, image_size, cfii=cfii, **options)


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows, filtered by a shell pattern."""
    if not isinstance(pattern, str):
        raise TypeError(f"pattern: expected a shell pattern such as 'smp-*', got {pattern!r}")
    return sorted(fnmatch.filter(CODECS, pattern))


def from_pretrained(path_or_repo: str, **options: Any) -> CFIIModel:
    """The network that `save_pretrained` or `push_to_hub` wrote, from a folder or the Hugging Face Hub.

    Args:
        path_or_repo: a folder or a repository's name.
        **options: what replaces the saved arguments; another `num_classes` loads all but what depends on it and
            warns, naming what starts anew. Also huggingface_hub's `revision`, `token`, `cache_dir`,
            `force_download` and `local_files_only`.
    """
    if not isinstance(path_or_repo, str | os.PathLike):
        raise TypeError(f"path_or_repo: expected a folder or a repository's name, got {path_or_repo!r}")
    path = os.fspath(path_or_repo)
    if not os.path.isdir(path) and (os.path.isabs(path) or path.startswith(".") or path.count("/") != 1):
        raise ValueError(
            f"path_or_repo: expected a folder that save_pretrained wrote, or a repository 'owner/name', got "
            f"{path!r}"
        )
    if os.path.isdir(path):
        check_config(Path(path) / "config.json")
    return CFIIModel.from_pretrained(path, **options)


def check_config(file: Path) -> None:
    """Raise unless it is an object with the arguments of a network."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: expected the JSON that save_pretrained writes, but {error}") from error
    if not isinstance(config, dict) or not {"name", "num_classes"} <= config.keys():
        raise ValueError(f"{file}: expected an object with name and num_classes, as save_pretrained writes it")
