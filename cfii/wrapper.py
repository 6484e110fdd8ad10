"""CFIIWrapper: the neck between any encoder and decoder (paper, figure 2)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfii import features, probe
from cfii.arguments import (
    describe,
    refuse_scripting,
    require_count,
    require_flag,
    require_floats,
    require_number,
    require_size,
)
from cfii.neck import CFIINeck, half_width


class CFIIOutput(NamedTuple):
    """What a network returns with `return_aux=True`; the lists run shallow to deep over `model.stages`.

    Attributes:
        logits: (B, num_classes, H, W), at the image's size.
        embeddings: the interacted class embeddings $E'_i$ (B, N, C_i) of each stage.
        class_logits: ECEG's class maps $Y_i$ (B, N, H_i, W_i) of each stage (empty with learned embeddings).
    """

    logits: Tensor
    embeddings: list[Tensor]
    class_logits: list[Tensor]


@dataclass(frozen=True)
class Layout:
    """What the dry run found out about the parts that `forward` must know."""

    in_channels: int
    grid: tuple[int, int]  # images are padded to multiples of this height and width
    fixed: bool  # to just that size, the only one that the encoder takes
    image_stages: list[int]  # stages that are the image itself, always (B, C, H, W)
    features_last: bool  # the encoder returns (B, H, W, C)
    decoder_last: bool  # the decoder wants (B, H, W, C)
    resize: bool  # the decoder's output has another size than the image


class Codec(nn.Module):
    """An encoder, a neck or none, a decoder and a head, on images of any size.

    `CFIIWrapper` is a codec with CFII's neck; the plain codecs of `create_model(cfii=False)` have none.
    """

    encoder: nn.Module
    neck: CFIINeck | None
    decoder: nn.Module
    head: nn.Module | None
    __prepare_scriptable__ = refuse_scripting

    def assemble(
        self,
        encoder: nn.Module,
        decoder: nn.Module | Callable[..., nn.Module],
        num_classes: int,
        head: nn.Module | None,
        in_channels: int | None,
        image_size: tuple[int, int] | None,
        stages: Sequence[int] | None,
        pad: bool,
        neck: dict[str, Any] | None,
    ) -> None:
        """Find out what the parts are by a dry run, and build what is missing; `neck=None` builds no neck."""
        encoder, decoder, head = (uncompiled(part) for part in (encoder, decoder, head))
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder: expected a torch.nn.Module, got {describe(encoder)}")
        if head is not None and not isinstance(head, nn.Module):
            raise TypeError(f"head: expected a torch.nn.Module or None, got {describe(head)}")
        num_classes = require_count("num_classes", num_classes)
        require_flag("pad", pad)
        in_channels = None if in_channels is None else require_count("in_channels", in_channels)
        image_size = require_size("image_size", image_size)
        found = probe.probe_encoder(encoder, in_channels, image_size)

        if neck is not None and sorted(found.strides) != found.strides:
            raise ValueError(
                f"encoder: expected its maps from shallow to deep, got maps of the strides {found.strides}; "
                "wrap it in "
                "a module that sorts them"
            )
        built = isinstance(decoder, nn.Module)
        # The image and empty placeholders pass, and so do stages too narrow to be halved and normalised.
        keep = [i for i, width in enumerate(found.widths) if width < 3 or i in found.image_stages]
        widths = [
            width if built or neck is None or i in keep else half_width(width)
            for i, width in enumerate(found.widths)
        ]
        like_encoder = {"device": probe.device_of(encoder), "dtype": probe.dtype_of(encoder)}
        if not built:
            decoder = build_decoder(decoder, widths, found.strides).to(**like_encoder)
        seen = probe.probe_decoder(decoder, head, encoder, found, widths, built)
        if head is None and seen.out_channels != num_classes:
            head = build_head(seen.out_channels, num_classes).to(**like_encoder)
        elif seen.out_channels != num_classes:
            raise ValueError(
                f"head: expected it to give num_classes = {num_classes} channels, got {seen.out_channels}"
            )

        if neck is not None:
            if stages is None:
                stages = [i for i in seen.stages_read if i not in keep]
                if not stages:
                    raise ValueError(
                        "decoder: it reads none of the encoder's features, so there is nothing to interact with; "
                        f"it was given the widths {widths}"
                    )
            if neck.get("start") is None:  # left to the neck
                neck = {option: value for option, value in neck.items() if option != "start"}
            neck = CFIINeck(
                found.widths,
                found.strides,
                num_classes,
                stages=stages,
                keep=keep,
                rejoin=built,
                **neck,
            ).to(**like_encoder)
        grid, fixed = probe.find_grid(encoder, decoder, head, found, widths, seen)
        layout = Layout(
            in_channels=found.in_channels,
            grid=grid,
            fixed=fixed,
            image_stages=found.image_stages,
            features_last=found.channels_are_last,
            decoder_last=seen.channels_are_last,
            resize=seen.out_size != found.image_size,
        )
        self.connect(encoder, neck, decoder, head, num_classes, layout, pad)

    def connect(
        self,
        encoder: nn.Module,
        neck: CFIINeck | None,
        decoder: nn.Module,
        head: nn.Module | None,
        num_classes: int,
        layout: Layout,
        pad: bool,
    ) -> None:
        self.encoder, self.neck, self.decoder, self.head = encoder, neck, decoder, head
        self.num_classes, self.layout, self.pad = num_classes, layout, pad
        self.encoder_is_frozen = False

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return self.layout.in_channels

    @property
    def stages(self) -> list[int]:
        """Indices of the encoder's stages that take part in the interaction; empty without a neck."""
        return [] if self.neck is None else self.neck.stages

    def plain(self) -> Codec:
        """The same encoder, decoder and head without the neck, their modules shared.

        Raises:
            ValueError: the decoder was built for half the encoder's widths and cannot take all of them.
        """
        if self.neck is not None and not self.neck.rejoin:
            raise ValueError(
                "plain: the decoder was built for half the encoder's widths, so it cannot follow the encoder "
                "without the neck; build the plain network anew, with create_model(..., cfii=False) or a decoder "
                "for the encoder's own widths"
            )
        plain = Codec()
        plain.connect(self.encoder, None, self.decoder, self.head, self.num_classes, self.layout, self.pad)
        plain.encoder_is_frozen = self.encoder_is_frozen
        plain.training = self.training
        return plain

    def freeze_encoder(self) -> None:
        """Fix the encoder: no gradients, and eval mode (batch statistics, dropout), also through `.train()`."""
        self.encoder_is_frozen = True
        self.encoder.requires_grad_(False).eval()

    def unfreeze_encoder(self) -> None:
        """Train the encoder again, all its parameters."""
        self.encoder_is_frozen = False
        self.encoder.requires_grad_(True).train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: the neck's `set_grad_checkpointing`, and the encoder's (timm's)."""
        if self.neck is not None:
            self.neck.set_grad_checkpointing(enable)
        own = getattr(self.encoder, "set_grad_checkpointing", None)
        if callable(own):
            own(enable)

    def train(self, mode: bool = True) -> Codec:
        """As in PyTorch, but a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.encoder.eval()
        return self

    def parameter_groups(self, lr: float, encoder_lr: float) -> list[dict[str, Any]]:
        """For an optimiser: what trains of the encoder at `encoder_lr`, and of all the rest at `lr`.

        Examples:
            >>> optimizer = torch.optim.AdamW(model.parameter_groups(lr=1e-3, encoder_lr=1e-4))
        """
        require_number("lr", lr), require_number("encoder_lr", encoder_lr)
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        known = {id(p) for p in self.encoder.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        groups = [
            {"name": "rest", "params": rest, "lr": lr},
            {"name": "encoder", "params": encoder, "lr": encoder_lr},
        ]
        return [group for group in groups if group["params"]]

    def require_memory(self, images: Tensor) -> None:
        """Raise if either the parameters or the images have shapes only (the meta device)."""
        parameter = next(self.parameters(), None)
        if parameter is not None and parameter.is_meta != images.is_meta:
            where = "the images" if images.is_meta else "the network's parameters"
            raise ValueError(
                f"images: expected images and parameters with values, but {where} are on the meta device; give a "
                "network memory with .to_empty(device=...) and load its weights"
            )

    def encode(self, x: Tensor) -> Any:
        """The encoder's output; its complaint about the images' type is told as what it is."""
        if torch.compiler.is_compiling():
            return self.encoder(x)
        try:
            return self.encoder(x)
        except RuntimeError as error:
            own = {p.dtype for p in self.encoder.parameters()}
            if own and x.dtype not in own and not torch.is_autocast_enabled(x.device.type):
                names = " or ".join(map(str, own))
                raise TypeError(
                    f"images: expected {names}, like the encoder's parameters, got {x.dtype}"
                ) from error
            raise

    def forward(self, images: Tensor, return_aux: bool = False) -> Tensor | CFIIOutput:
        """Images (B, in_channels, H, W) -> logits (B, num_classes, H, W), or a `CFIIOutput`."""
        layout = self.layout
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"images: expected (B, {self.in_channels}, H, W), got {describe(images)}")
        require_floats(images, "images")
        if not torch.compiler.is_compiling():
            self.require_memory(images)
        # Padding by 0 and cropping by 0 stay in, and F.pad crops too: a condition, or a slice (contiguous for
        # some sizes only), would tie an exported program to the sizes of its example.
        missing = [
            (grid - extent % grid) % grid for grid, extent in zip(layout.grid, images.shape[2:], strict=True)
        ]
        padded = self.pad and layout.grid != (1, 1)
        if layout.fixed and any(
            extent > size for extent, size in zip(images.shape[2:], layout.grid, strict=True)
        ):
            raise ValueError(
                f"images: expected at most {layout.grid} pixels, the one size that this encoder takes, got "
                f"{tuple(images.shape[2:])}; resize them, predict by sliding window, or build the encoder for "
                "another size (timm: img_size=, create_model: image_size=)"
            )
        x = F.pad(images, (0, missing[1], 0, missing[0])) if padded else images
        maps, extras = features.read(self.encode(x))
        if layout.features_last:
            maps = features.all_channels_first(maps, layout.image_stages)
        embeddings: list[Tensor] = []
        class_logits: list[Tensor] = []
        if self.neck is not None:
            maps, embeddings, class_logits = self.neck(maps)
        if layout.decoder_last:
            maps = features.all_channels_last(maps, layout.image_stages)
        logits = self.decoder(maps, *extras)
        if self.head is not None:
            logits = self.head(logits)
        resize = layout.resize or not self.pad
        if not torch.compiler.is_compiling():
            resize = logits.shape[2:] != x.shape[2:]
        if resize:
            logits = F.interpolate(logits, x.shape[2:], mode="bilinear")
        if padded:
            logits = F.pad(logits, (0, -missing[1], 0, -missing[0]))
        return CFIIOutput(logits, embeddings, class_logits) if return_aux else logits


class CFIIWrapper(Codec):
    r"""Attach class-embedding interaction to an encoder and a decoder.

    $$\text{logits} = \text{head}(\text{decoder}(\text{neck}(\text{encoder}(\text{images}))))$$

    Args:
        encoder: a module that maps images (B, in_channels, H, W) to a list, tuple or dict of feature maps,
            from shallow to deep, (B, C, H, W) or (B, H, W, C): an SMP encoder, timm's `features_only`, any
            other. Widths, strides and layout are found by a dry run.
        decoder: one of two.
            A **built module**, made for the encoder's own widths, such as a trained one: the neck re-joins
            $[F_1; F'_2]$ and every stage comes back at its width.
            A **callable that is not a module instance** (a class, a partial, a lambda): it is called with the
            list of halved widths, as in the paper (and `strides=`, if it has a parameter of that name), and
            returns the module.
            Either is called with one list of maps.
        num_classes: the number of output channels, background included. One (a sigmoid) is valid.
        head: what follows the decoder; by default nothing if the decoder gives `num_classes` channels, else
            a 1×1 convolution.
        in_channels: of the images; by default the encoder's attribute or its first convolution's.
        image_size: (height, width) for the dry run, where an encoder takes one size only and does not declare
            it. By default its own, else 224, 256 or 512.
        stages: indices of the encoder's stages that take part; by default those that the decoder reads. The
            raw image in SMP's lists, zero-channel placeholders and stages of fewer than 3 channels never do.
        pad: pad images, at the right and the bottom, to the next size that encoder and decoder take, mostly a
            multiple of the largest stride, and crop the logits.
        start: how the neck starts, see `CFIINeck`; by default "identity", which leaves a trained decoder's masks
            as they are.
        **neck_options: `embeddings`, `update_embeddings`, `update_features`, `num_heads`, `ffn_ratio` and
            `sit_min_stride` of `CFIINeck`.

    Shapes:
        images (B, in_channels, H, W) -> logits (B, num_classes, H, W), at the images' size whatever it is;
        with `return_aux=True` a `CFIIOutput`.

    Attributes:
        encoder (Module): as given.
        neck (CFIINeck): what stands between encoder and decoder.
        decoder (Module): as given, or built for the halved widths.
        head (Module | None): what follows the decoder.
        stages (list[int]): indices of the encoder's stages that take part.
        num_classes (int): the number of output channels.

    Raises:
        TypeError, ValueError: the parts do not fit each other; the message names the part and the mend.

    Source: CFII-Net, section 3 and Table 5 ("any codec can be easily integrated").

    Examples:
        >>> import segmentation_models_pytorch as smp
        >>> model = CFIIWrapper.from_smp(smp.Unet("resnet34", encoder_weights=None, classes=9))
        >>> logits = model(torch.randn(2, 3, 224, 224))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module | Callable[..., nn.Module],
        num_classes: int,
        head: nn.Module | None = None,
        *,
        in_channels: int | None = None,
        image_size: tuple[int, int] | None = None,
        stages: Sequence[int] | None = None,
        pad: bool = True,
        start: Literal["identity", "default"] | None = None,
        **neck_options: Any,
    ) -> None:
        super().__init__()
        neck_options["start"] = start
        self.assemble(encoder, decoder, num_classes, head, in_channels, image_size, stages, pad, neck_options)

    @classmethod
    def from_smp(cls, smp_model: nn.Module, **options: Any) -> CFIIWrapper:
        """Wrap a segmentation-models-pytorch model; its encoder, decoder and head are shared, not copied.

        Args:
            smp_model: any SMP architecture, trained or not.
            **options: `stages`, `pad` and the neck's options.
        """
        encoder, decoder, head = features.smp_parts(smp_model)
        num_classes = [m.out_channels for m in head.modules() if isinstance(m, nn.Conv2d)][-1]
        return cls(encoder, decoder, num_classes, head, **options)


def uncompiled(module: Any) -> Any:
    """The module inside a `torch.compile` wrapper; compile the whole network afterwards instead."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TypeError(
            f"encoder, decoder and head: expected bare modules, got a {type(module).__name__}; wrap the whole "
            "network in it afterwards"
        )
    return getattr(module, "_orig_mod", module)


def build_head(channels: int, num_classes: int) -> nn.Module:
    """A 1×1 convolution whose weights start, for each class, with a mean of 0 over the channels.

    Decoders end with a ReLU, and features that are never negative can only speak for the classes that their
    weights favour. Of few channels, drawn at random, all may favour the same class: no pixel then gets more than
    the bias for another, and training stays there (seen with 8 channels and 2 classes, a Dice of 0).
    """
    head = nn.Conv2d(channels, num_classes, kernel_size=1)
    if channels > 1:
        with torch.no_grad():
            head.weight -= head.weight.mean(1, keepdim=True)
    return head


def require_codec(model: Any) -> Codec:
    """The network inside `torch.compile`, DataParallel and DDP; raise if it is none of cfii's."""
    found = model
    while hasattr(found, "_orig_mod") or isinstance(
        found, (nn.DataParallel, nn.parallel.DistributedDataParallel)
    ):
        found = found._orig_mod if hasattr(found, "_orig_mod") else found.module
    if not isinstance(found, Codec):
        raise TypeError(
            f"model: expected a CFIIWrapper or a network of create_model, got {describe(found)}; attach CFII "
            "to a network of your own with CFIIWrapper(encoder, decoder, num_classes)"
        )
    return found


def build_decoder(factory: object, widths: list[int], strides: list[int]) -> nn.Module:
    """Call the factory with the widths that the decoder will be given."""
    forms = (
        "expected a built torch.nn.Module, or a callable that takes the list of widths (and strides=, if it has "
        "such a parameter) and returns one"
    )
    if not callable(factory):
        raise TypeError(f"decoder: {forms}; got {describe(factory)}")
    try:
        takes_strides = "strides" in inspect.signature(factory).parameters
    except ValueError:  # a builtin without a signature
        takes_strides = False
    try:
        decoder = factory(list(widths), strides=list(strides)) if takes_strides else factory(list(widths))
    except Exception as error:  # a callable may raise anything
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"decoder: {forms}; called with the widths {list(widths)} it failed with {type(error).__name__}: "
            f"{error}"
        ) from error
    if not isinstance(decoder, nn.Module):
        raise TypeError(f"decoder: {forms}; the callable returned {describe(decoder)}")
    return decoder
