"""Computations of pixels, block by block in memory that stays in the cache, keeping nothing but their inputs.

Interaction at full resolution is a chain of cheap passes over large maps: norms, gates, products with a few
vectors. On a CPU each pass would fetch its map from memory and write a new one. Here the chain runs on one block
of pixels after the other, whose intermediate results stay in the cache, and the backward computes them again,
block by block, instead of keeping them: less time, far less memory, the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from cfii.pixels import is_traced

# Numbers of a block's widest intermediate result, for each thread: 1 MiB of float32, as a core's own cache holds.
BLOCK = 2**18
# A map of fewer numbers (8 MiB of float32) stays in the cache by itself: not worth the many short calls.
LARGE = 2**21
PRECISE = ({torch.float32}, {torch.float64})


class Kernel(Protocol):
    """A computation that treats each pixel by itself.

    `forward` takes maps (B, C, P), then what all pixels of a sample share, (B, ...), then what all samples share.
    It returns a map, followed by what it sums up (or takes the maximum of) over the pixels, (B, 1, ...) each.

    A kernel may have a `backward(gradients, *tensors)`, which returns the gradients of all tensors. Without one,
    and for what it is not made for (autocast, half precision, gradients of gradients), autograd derives it.
    """

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]: ...


class Block(NamedTuple):
    samples: slice
    pixels: slice
    index: int  # of this range of pixels


class Inputs(NamedTuple):
    """How many tensors of a kernel are maps, how many belong to a sample each; all samples share the rest."""

    maps: int
    samples: int

    def part(self, i: int, x: Tensor, block: Block) -> Tensor:
        """What a block sees of the i-th tensor."""
        if i < self.maps:
            return x[block.samples, :, block.pixels]
        return x[block.samples] if i < self.maps + self.samples else x


def blockwise(
    kernel: Kernel,
    maps: Sequence[Tensor],
    samples: Sequence[Tensor] = (),
    shared: Sequence[Tensor] = (),
    recompute: bool = False,
) -> tuple[Tensor, ...]:
    """`kernel.forward(*maps, *samples, *shared)`; on a CPU block by block, if the maps are large.

    Args:
        kernel: the computation.
        maps: (B, C, P).
        samples: what all pixels of a sample share, (B, ...).
        shared: what all samples share.
        recompute: keep only the inputs for the backward, on any device.

    Returns:
        The map, and the summaries as (B, blocks, ...).
    """
    tensors, inputs = (*maps, *samples, *shared), Inputs(len(maps), len(samples))
    if is_traced():
        return kernel.forward(*tensors)  # the compiler fuses, and knows by itself what is cheap to compute again
    blocks = [Block(slice(None), slice(None), 0)]
    if maps[0].device.type == "cpu" and max(x.numel() for x in maps) >= LARGE:
        blocks = cut(maps[0], widest=max(x.shape[-2] for x in tensors))
        recompute = recompute or len(blocks) > 1
    if recompute and torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return Recomputed.apply(kernel, blocks, inputs, *tensors)
    return run(kernel, blocks, inputs, tensors)


def cut(x: Tensor, widest: int) -> list[Block]:
    """A sample, or a range of its pixels, for each thread; several samples where they fit."""
    count, _, pixels = x.shape
    size = max(BLOCK // widest, 1)  # in pixels
    step = max(size // pixels, 1) * torch.get_num_threads()  # in samples
    return [
        Block(slice(i, i + step), slice(j, j + size), index)
        for i in range(0, count, step)
        for index, j in enumerate(range(0, pixels, size))
    ]


def run(kernel: Kernel, blocks: list[Block], inputs: Inputs, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The kernel on all blocks, its results put together."""
    if len(blocks) == 1:
        return kernel.forward(*tensors)
    count, pixels = len(tensors[0]), tensors[0].shape[2]
    whole: list[Tensor] = []
    for block in blocks:
        result, *summaries = kernel.forward(*(inputs.part(i, x, block) for i, x in enumerate(tensors)))
        if not whole:
            channels = result.shape[1]
            if channels > 1 and result.stride(1) == 1:  # channels_last stays channels_last
                whole = [result.new_empty(count, pixels, channels).mT]
            else:
                whole = [result.new_empty(count, channels, pixels)]
            whole += [s.new_empty((count, blocks[-1].index + 1, *s.shape[2:])) for s in summaries]
        whole[0][block.samples, :, block.pixels] = result
        for total, summary in zip(whole[1:], summaries, strict=True):
            total[block.samples, block.index] = summary[:, 0]
    return tuple(whole)


class Recomputed(torch.autograd.Function):
    """`run`, which keeps its inputs only and computes each block again in the backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kernel: Kernel, blocks: list[Block], inputs: Inputs, *tensors: Tensor) -> tuple[Tensor, ...]:
        return run(kernel, blocks, inputs, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, results: tuple[Tensor, ...]) -> None:
        ctx.kernel, ctx.blocks, ctx.inputs, *tensors = inputs
        device = tensors[0].device.type
        ctx.autocast = {"device_type": device, "enabled": False}
        if torch.is_autocast_enabled(device):
            ctx.autocast |= {"enabled": True, "dtype": torch.get_autocast_dtype(device)}
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.shapes = [x.shape for x in results]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, tensors, needed = ctx.inputs, ctx.saved_tensors, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # gradients of gradients are asked for: all blocks in one graph
            # Views, for one input may be made from another: the derivative is by each alone.
            tensors = [x.view_as(x) for x in tensors]
            with torch.autocast(**ctx.autocast):
                results = run(ctx.kernel, ctx.blocks, inputs, tensors)
            return None, None, None, *differentiate(results, gradients, tensors, needed, create_graph=True)
        # Each pixel of a map belongs to one block; what pixels share receives from all of them.
        totals = [
            None if not need else torch.empty_like(x) if i < inputs.maps else torch.zeros_like(x)
            for i, (x, need) in enumerate(zip(tensors, needed, strict=True))
        ]
        for block in ctx.blocks:
            parts = [inputs.part(i, x, block).detach() for i, x in enumerate(tensors)]
            found = derive(ctx, parts, [part_of(g, block, i == 0) for i, g in enumerate(gradients)], needed)
            for i, (total, gradient) in enumerate(zip(totals, found, strict=True)):
                if total is None:
                    continue
                part = inputs.part(i, total, block)
                if i < inputs.maps:
                    part.copy_(part.new_zeros(()) if gradient is None else gradient)
                elif gradient is not None:
                    part.add_(gradient.sum_to_size(part.shape))  # shared: the sum over the samples
        return None, None, None, *totals


def part_of(gradient: Tensor | None, block: Block, is_map: bool) -> Tensor | None:
    """A block's part of the gradient of a result; of a summary (B, blocks, ...) its own (B, 1, ...)."""
    if gradient is None:
        return None
    return gradient[block.samples, :, block.pixels] if is_map else gradient[block.samples, block.index, None]


def derive(
    ctx: Any, parts: list[Tensor], gradients: list[Tensor | None], needed: Sequence[bool]
) -> Sequence[Tensor | None]:
    """The gradients of a block's inputs from those of its results."""
    kernel, dtypes = ctx.kernel, {x.dtype for x in parts}
    if hasattr(kernel, "backward") and not ctx.autocast["enabled"] and dtypes in PRECISE:
        samples, _, pixels = parts[0].shape
        shapes = [(samples, ctx.shapes[0][1], pixels), *((samples, 1, *shape[2:]) for shape in ctx.shapes[1:])]
        none = parts[0].new_zeros(())
        gradients = [none.expand(s) if g is None else g for g, s in zip(gradients, shapes, strict=True)]
        return kernel.backward(gradients, *parts)
    for x, need in zip(parts, needed, strict=True):
        x.requires_grad_(need)
    with torch.enable_grad(), torch.autocast(**ctx.autocast):
        results = kernel.forward(*parts)
    return differentiate(results, gradients, parts, needed)


def differentiate(
    results: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    create_graph: bool = False,
) -> list[Tensor | None]:
    """The gradients of those tensors that need one, None for the others."""
    pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None and r.requires_grad]
    if not pairs:
        return [None] * len(tensors)
    outputs, weights = zip(*pairs, strict=True)
    inputs = [x for x, need in zip(tensors, needed, strict=True) if need]
    found = iter(torch.autograd.grad(outputs, inputs, weights, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needed]
