"""A dry run of encoder and decoder, once, when they are wrapped.

It finds what no attribute says reliably: widths, strides and layout of the features, which of them the
decoder reads, and the shape of what comes out. The dry run is on the meta device, in train and in eval mode,
on a copy that shares no tensor and no state with the module: shapes and gradients, no arithmetic. What cannot
run there is run once for real, in eval mode. Random state, buffers and modes are as before in either case.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cfii import features

SIZES = [(224, 224), (256, 256), (512, 512)]


@dataclass(frozen=True)
class Run:
    """One pass of the encoder: its maps as (B, C, H, W), and what else it gives the decoder."""

    maps: list[Tensor]
    extras: tuple


@dataclass(frozen=True)
class EncoderReport:
    """What an encoder returns for an image of the given number of channels and size."""

    in_channels: int
    image_size: tuple[int, int]
    widths: list[int]
    strides: list[int]
    image_stages: list[int]  # the stages that are the image itself, as in SMP
    channels_are_last: bool
    runs: list[Run]


@dataclass(frozen=True)
class DecoderReport:
    """What a decoder, and the head behind it, make of the features."""

    stages_read: list[int]
    out_channels: int
    out_size: tuple[int, int]
    channels_are_last: bool  # the layout in which it wants the features


def probe_encoder(
    encoder: nn.Module, in_channels: int | None, image_size: tuple[int, int] | None = None, real: bool = False
) -> EncoderReport:
    """Run it at the given size; else at its own if it declares one, at 224, 256, 512, or where its weights were
    trained, whichever works first."""
    candidates = features.possible_in_channels(encoder) if in_channels is None else [in_channels]
    if not candidates:
        raise ValueError(
            "in_channels: expected the number of image channels, as the encoder has neither such an attribute "
            "nor a convolution to read it from"
        )
    own, configured = features.declared_sizes(encoder)
    sizes = [image_size] if image_size else own + SIZES + configured
    failures = []
    for on_device in ("real",) if real else ("meta", "real"):
        for channels in candidates:
            for size in dict.fromkeys(sizes):
                try:
                    outputs = run_encoder(encoder, channels, size, on_device == "real")
                except Exception as error:  # a module may raise anything; reported below if nothing works
                    failures.append(f"{channels}x{size[0]}x{size[1]}: {type(error).__name__}: {error}")
                else:
                    return describe_encoder(encoder, channels, size, outputs)
    raise ValueError(
        "encoder: could not run it on an image; if the number of channels or the size below is wrong, pass "
        "in_channels or image_size. It failed with\n  " + "\n  ".join(dict.fromkeys(failures))
    )


def run_encoder(encoder: nn.Module, channels: int, size: tuple[int, int], real: bool) -> list[tuple]:
    device = device_of(encoder) if real else torch.device("meta")
    outputs = []
    for run in dry_runs(encoder, real):
        image = torch.zeros(2, channels, *size, device=device, dtype=dtype_of(encoder))
        with torch.no_grad():
            outputs.append((image, run(image)))
    return outputs


def describe_encoder(encoder: nn.Module, channels: int, size: tuple[int, int], outputs: list) -> EncoderReport:
    runs, shapes = [], []
    for image, output in outputs:
        maps, extras = features.read(output)
        image_stages = [i for i, x in enumerate(maps) if x is image]
        last = features.declares_channels_last(encoder)
        if last is None:
            last = guess_channels_last([x for x in maps if x is not image])
        if last:
            maps = features.all_channels_first(maps, image_stages)
        if any(len(x) != len(image) for x in maps):
            raise ValueError(
                f"encoder: expected maps of the {len(image)} images it was given, got "
                f"{[tuple(x.shape) for x in maps]}"
            )
        runs.append(Run([x.detach() for x in maps], extras))
        strides = [max(1, round(size[0] / max(1, x.shape[2]))) for x in maps]
        shapes.append(([x.shape[1] for x in maps], strides, image_stages, last))
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"encoder: expected the same maps in train and eval mode, got {shapes}")
    declared = features.declared_widths(encoder)
    if declared is not None and declared[1] != shapes[0][0]:
        raise ValueError(
            f"encoder: its {declared[0]} declares the widths {declared[1]}, but it returns {shapes[0][0]}"
        )
    return EncoderReport(channels, size, *shapes[0], runs)


def guess_channels_last(maps: Sequence[Tensor]) -> bool:
    """The two equal extents of a map of a square image are its height and width."""
    votes = [a == b for _, a, b, c in (x.shape for x in maps) if (a == b) != (b == c)]
    return sum(votes) > len(votes) / 2


def probe_decoder(
    decoder: nn.Module,
    head: nn.Module | None,
    encoder: nn.Module,
    report: EncoderReport,
    widths: Sequence[int],
    built: bool,
) -> DecoderReport:
    """Run it, and a head, on features of the given widths; a built one first in the encoder's own layout."""
    layouts = [True, False] if built and report.channels_are_last else [False]
    for real in (False, True):
        if real and report.runs[0].maps[0].is_meta:
            report = probe_encoder(encoder, report.in_channels, report.image_size, real=True)
        for channels_are_last in layouts:
            try:
                return run_decoder(decoder, head, report, widths, channels_are_last)
            except Exception as error:  # a module may raise anything; reported below if nothing works
                failure = error
    if isinstance(failure, HeadError):
        raise failure
    extras = f" and {len(report.runs[0].extras)} more" if report.runs[0].extras else ""
    mend = (
        "A built decoder must fit the encoder's own widths; to have one built for half of them, as in the "
        "paper, pass a callable that takes the list of widths and returns a module."
        if built
        else "The decoder that the callable returns must be built for the widths that the callable is given."
    )
    raise (TypeError if isinstance(failure, TypeError) else ValueError)(
        f"decoder: called as decoder(features) with one list of {len(widths)} feature maps of the widths "
        f"{list(widths)}{extras}, it failed with {type(failure).__name__}: {failure}. {mend}"
    ) from failure


class HeadError(ValueError):
    """A head that the decoder's output does not fit."""


def run_head(head: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    try:
        logits = head(y)
    except Exception as error:  # a module may raise anything
        raise HeadError(
            f"head: expected a module that takes the decoder's {y.shape[1]} channels, but called with a "
            "tensor of shape "
            f"{tuple(y.shape)} it failed with {type(error).__name__}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise HeadError(f"head: expected it to return logits (B, N, H, W), got {features.describe(logits)}")
    return logits


def run_decoder(
    decoder: nn.Module,
    head: nn.Module | None,
    report: EncoderReport,
    widths: Sequence[int],
    channels_are_last: bool,
) -> DecoderReport:
    real = not report.runs[0].maps[0].is_meta
    read: set[int] = set()
    heads = [None] * len(report.runs) if head is None else dry_runs(head, real)
    for run, decode, finish in zip(report.runs, dry_runs(decoder, real), heads, strict=True):
        # Leaves, so that gradients tell which maps the decoder read.
        leaves = [x[:, x.shape[1] - width :].clone() for x, width in zip(run.maps, widths, strict=True)]
        with torch.inference_mode(False), torch.enable_grad():
            maps = [x.requires_grad_() for x in leaves]
            if channels_are_last:
                maps = features.all_channels_last(maps, report.image_stages)
            y = decode(maps, *run.extras)
            if not isinstance(y, Tensor) or y.ndim != 4:
                raise TypeError(f"expected it to return one map (B, C, H, W), got {features.describe(y)}")
            y = y if finish is None else run_head(finish, y)
            gradients = torch.autograd.grad(y.sum(), leaves, allow_unused=True)
        read |= {i for i, gradient in enumerate(gradients) if gradient is not None}
    return DecoderReport(sorted(read), y.shape[1], tuple(y.shape[2:]), channels_are_last)


def find_grid(
    encoder: nn.Module,
    decoder: nn.Module,
    head: nn.Module | None,
    report: EncoderReport,
    widths: Sequence[int],
    seen: DecoderReport,
) -> tuple[tuple[int, int], bool]:
    """The height and width of which images must be multiples, and whether they must be just that.

    Multiples of the largest stride do for most. A decoder may halve the deepest map once more (DPT does); windows
    and position embeddings may ask for multiples of the size that the encoder is made for, or for that size. What
    is tried first are sizes of odd multiples, which no luck with an even one hides. Nothing is tried for networks
    that do not run on the meta device.
    """
    largest = max(report.strides)
    if not report.runs[0].maps[0].is_meta:
        return (largest, largest), False
    encode, decode = (dry_runs(module, real=False)[-1] for module in (encoder, decoder))
    finish = None if head is None else dry_runs(head, real=False)[-1]
    same_size = seen.out_size == report.image_size

    def fits(height: int, width: int) -> bool:
        image = torch.empty(2, report.in_channels, height, width, device="meta", dtype=dtype_of(encoder))
        try:
            with torch.no_grad():
                maps, extras = features.read(encode(image))
                if report.channels_are_last:
                    maps = features.all_channels_first(maps, report.image_stages)
                maps = [x[:, x.shape[1] - kept :] for x, kept in zip(maps, widths, strict=True)]
                if seen.channels_are_last:
                    maps = features.all_channels_last(maps, report.image_stages)
                y = decode(maps, *extras)
                y = y if finish is None else finish(y)
        except Exception:  # a module may raise anything; another size may do
            return False
        return not same_size or tuple(y.shape[2:]) == (height, width)

    grids = [largest, 2 * largest, 4 * largest]
    for factors in [((7, 5),), ((5, 5), (9, 9))]:  # some take squares only
        for grid in grids:
            if all(fits(a * grid, b * grid) for a, b in factors):
                return (grid, grid), False
    height, width = report.image_size
    return (height, width), not fits(2 * height, width)


def dry_runs(module: nn.Module, real: bool) -> list[Callable]:
    """Calls of the module: in train and in eval mode on the meta device, or one for real."""
    if real:
        return [partial(run_restored, module)]
    # A deep copy whose memo already holds the tensors: nothing of the weights is copied.
    memo: dict[int, object] = {}
    for x in module.parameters():
        memo[id(x)] = nn.Parameter(torch.empty_like(x, device="meta"), requires_grad=x.requires_grad)
    for x in module.buffers():
        memo[id(x)] = torch.empty_like(x, device="meta")
    shadow = copy.deepcopy(module, memo)

    def run_shadow(mode: bool, *inputs: object) -> object:
        with torch.random.fork_rng(devices=[]):
            return shadow.train(mode)(*inputs)

    return [partial(run_shadow, True), partial(run_shadow, False)]


def run_restored(module: nn.Module, *inputs: object) -> object:
    """Call the module in eval mode; its modes, its buffers and the random state stay as they are."""
    modes = [(m, m.training) for m in module.modules()]
    buffers = {name: x.detach().clone() for name, x in module.named_buffers()}
    device = device_of(module)
    module.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return torch.func.functional_call(module, buffers, inputs)
    finally:
        for m, training in modes:
            m.training = training


def device_of(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def dtype_of(module: nn.Module) -> torch.dtype:
    """The dtype of the first floating-point parameter."""
    return next((x.dtype for x in module.parameters() if x.is_floating_point()), torch.get_default_dtype())
