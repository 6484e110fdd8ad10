"""Export to ONNX and to torch.export's .pt2: written beside its place, run against PyTorch, then renamed."""

from __future__ import annotations

import copy
import ctypes
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

import cfii
from cfii.arguments import describe, require_choice, require_size
from cfii.formats import AXES, ROUTES, Format, require_onnx
from cfii.training.files import writing
from cfii.wrapper import Codec

TOLERANCE = 1e-4  # of the largest logit
USUAL_SIZE = 224
PATIENCE = 300.0  # seconds of work for the attempt at any size


class Exported(NamedTuple):
    """What `export` wrote.

    Attributes:
        file: its path.
        dynamic_axes: of "batch", "height" and "width", those on which images may have any length.
        image_size: (height, width) of images, where these are not dynamic.
        difference: the largest from PyTorch's logits, relative to the largest logit.
    """

    file: Path
    dynamic_axes: tuple[str, ...]
    image_size: tuple[int, int] | None
    difference: float


class OutOfTimeError(BaseException):
    """Not an `Exception`, so that no library takes it for a failure of its own and goes on."""


def export(
    model: nn.Module,
    file: str | Path,
    format: Format | None = None,
    *,
    image_size: int | Sequence[int] | None = None,
) -> Exported:
    """Write a network, in eval mode, as a program that runs without its Python code.

    The file takes `images` (B, in_channels, H, W) in float32 and gives `logits` (B, num_classes, H, W). B, H and
    W are dynamic; where torch or the format allows only one image size, B alone is, and a warning says so. Before
    the file takes its place it is loaded and run (ONNX by onnxruntime) on other batches, one image alone among
    them, and on another size, off the network's grid: its logits may differ from PyTorch's by 1e-4 of the
    largest. It holds cfii's version, the numbers of classes and channels, and the dynamic axes.

    Args:
        model: of `create_model`, `CFIIWrapper` or `from_pretrained`; its mode and device stay as they are.
        file: ending in .onnx or .pt2.
        format: "onnx" (needs `pip install "cfii[export]"`) or "pt2" (for `torch.export.load`); by default by the
            file's ending.
        image_size: (height, width) or one number, of the example that is traced: the size of all images if the
            network exports for one size only. By default the encoder's, if it takes one size, else about 224.

    Raises:
        TypeError, ValueError: a wrong argument, or a network that cannot be exported; no file is left then.
        ImportError: a package for ONNX is missing.

    Examples:
        >>> cfii.export(model, "abdomen.onnx")
    """
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    if not isinstance(model, Codec):
        raise TypeError(
            f"model: expected a network of create_model, CFIIWrapper or from_pretrained, got {describe(model)}"
        )
    other = {str(x.dtype) for x in model.parameters() if x.is_floating_point()} - {"torch.float32"}
    if other:
        raise ValueError(
            f"model: expected parameters in torch.float32, got {', '.join(other)}; use model.float()"
        )
    file = Path(file)
    format = file.suffix[1:] if format is None else format
    require_choice("format", format, get_args(Format))
    if file.suffix != f".{format}":
        raise ValueError(f"file: expected a name that ends in .{format}, got {str(file)!r}")
    if format == "onnx":
        require_onnx(model)
    size = require_size("image_size", image_size) or usual_size(model)
    with writing(file) as temporary:
        try:
            with time_limit(PATIENCE):
                difference = attempt(model, temporary, format, tuple(AXES), size)
        except (Exception, OutOfTimeError) as error:  # torch documents no common type
            failure = error
        else:
            return Exported(file, tuple(AXES), None, difference)
        try:
            difference = attempt(model, temporary, format, ("batch",), size)
        except Exception as error:
            raise ValueError(
                f"model: expected a network that exports as {format}, but for images of {size} it failed with "
                f"{short(error)}"
            ) from error
    warnings.warn(
        f"export: {file} takes images of {size} only, as for any size it failed with {short(failure)}; for "
        "another size give image_size",
        stacklevel=2,
    )
    return Exported(file, ("batch",), size, difference)


def attempt(model: Codec, file: Path, format: Format, axes: tuple[str, ...], size: tuple[int, int]) -> float:
    """Trace with these axes dynamic, write, load, run; the largest relative difference of the logits.

    Raises:
        ValueError: the file's logits differ from PyTorch's.
    """
    # A copy: tracing leaves tensors without values in modules that keep some.
    network = copy.deepcopy(model).cpu().eval()
    height, width = size
    sizes = [size, size]
    if "height" in axes:
        width += network.layout.grid[1]  # equal extents would count as one
        more = (1, 1) if network.pad else network.layout.grid
        # A square one too: what a trace takes for granted of its example's size, ONNX does not check.
        sizes = [(height, width), (height + more[0], width + more[1]), size]
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.randn(batch, network.in_channels, *extents, generator=generator)
        for batch, extents in zip((1, 3, 2), sizes, strict=False)
    ]
    example = torch.randn(2, network.in_channels, height, width, generator=generator)
    with torch.no_grad():
        expected = [network(images) for images in batches]
        shapes = {"images": {AXES[axis]: dynamic(axis) for axis in axes}}
        program = torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
        write, load = ROUTES[format]
        write(program, file, about(network, axes, size))
        run = load(file)
        difference = max(
            ((run(images) - logits).abs().max() / logits.abs().max()).item()
            for images, logits in zip(batches, expected, strict=True)
        )
    if not difference <= TOLERANCE:
        raise ValueError(f"its logits differ from PyTorch's by {difference:.1e} of the largest")
    return difference


def dynamic(axis: str) -> Any:
    """An axis of any length: torch 2.6 finds out by itself what it must know of it."""
    return getattr(torch.export.Dim, "DYNAMIC", None) or torch.export.Dim(axis)


def usual_size(model: Codec) -> tuple[int, int]:
    """The encoder's own if it takes one size only, else the grid's first that is not below 224."""
    height, width = model.layout.grid
    if model.layout.fixed:
        return height, width
    return -(-USUAL_SIZE // height) * height, -(-USUAL_SIZE // width) * width


def about(network: Codec, axes: Sequence[str], size: tuple[int, int]) -> dict[str, str]:
    """What a file says of itself."""
    return {
        "cfii_version": cfii.__version__,
        "num_classes": str(network.num_classes),
        "in_channels": str(network.in_channels),
        "dynamic_axes": ",".join(axes),
        "image_size": "any" if "height" in axes else f"{size[0]},{size[1]}",
    }


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in this thread if the block has not ended by then.

    With windowed attention, torch's algebra on symbolic sizes does not come to an end, and has no limit itself.
    It is all Python, so the interpreter can raise between two of its instructions. Seconds are this thread's own
    on the CPU, where the system counts them, so that the outcome does not depend on what else the machine does.
    """
    thread, over = threading.get_ident(), threading.Event()
    raise_in = partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(thread))
    clock = time.monotonic
    if hasattr(time, "pthread_getcpuclockid"):
        clock = partial(time.clock_gettime, time.pthread_getcpuclockid(thread))
    start = clock()

    def watch() -> None:
        limit = seconds
        while not over.wait(min(1.0, seconds / 10)):
            if clock() - start >= limit:
                raise_in(ctypes.py_object(OutOfTimeError))
                # Then again, for Python swallows what is raised inside a destructor; not soon, as raised while
                # torch cleans up on its way out, it would leave torch's modes behind.
                limit = clock() - start + 2.0

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        raise_in(None)  # what was not raised yet


def short(error: BaseException) -> str:
    """The first line of a message that may have hundreds."""
    if isinstance(error, OutOfTimeError):
        return f"more than {PATIENCE:g} seconds of work"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0] if lines else ''}"
