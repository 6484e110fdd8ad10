"""What a computation has to do, and how long that takes at best on this machine: operations, bytes, ceilings.

Multiply-accumulates of a network's forward alone: `cfii.summary` and `cfii.cost`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def attention_backward(grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any) -> int:
    return sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)


def convolution_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> int:
    """The forward's operations for each of the gradients of the input and of the weight that is asked for."""
    transposed, mask = rest[4], rest[7]
    outputs = x if transposed else grad  # each element of these meets weight[0].numel() others
    return 2 * outputs.numel() * weight[0].numel() * (mask[0] + mask[1])


# torch counts attention for its CUDA kernels only, and the backward of grouped convolutions many times over.
FLOPS = {
    "aten::_scaled_dot_product_flash_attention_for_cpu": attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": attention_backward,
    "aten::convolution_backward": convolution_backward,
}
# They allocate and move nothing.
ALLOCATIONS = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"}


class Call(NamedTuple):
    """One call of an operator: its name, floating-point operations (2 a multiply-accumulate) and bytes moved."""

    name: str
    flops: int
    bytes: int


class Counter(TorchDispatchMode):
    """Every call of an operator while the context lasts, backward included.

    The bytes of a call are those of its inputs, read once, and of its outputs, written once; an expanded input
    counts as what lies in memory. Views move nothing. This is the least that operators run one after the other
    must move; a compiler that fuses them moves less, a cache too small for their inputs more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = func._schema.name
        inputs, outputs = tensors((args, kwargs)), tensors(output)
        memory = {x.untyped_storage()._cdata for x in inputs}
        view = not func._schema.is_mutable and any(x.untyped_storage()._cdata in memory for x in outputs)
        if view or name in ALLOCATIONS:
            return output
        if name in FLOPS:
            flops = FLOPS[name](*args)
        else:
            count = flop_registry.get(func.overloadpacket)
            flops = count(*args, **kwargs, out_val=output) if count else 0
        self.calls.append(Call(name, int(flops), sum(map(bytes_in_memory, [*inputs, *outputs]))))
        return output

    @property
    def flops(self) -> int:
        return sum(call.flops for call in self.calls)

    @property
    def bytes(self) -> int:
        return sum(call.bytes for call in self.calls)


def tensors(tree: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def bytes_in_memory(x: torch.Tensor) -> int:
    """Bytes of the elements that a tensor has of its own: an expanded dimension counts once."""
    own = math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride != 0)
    return own * x.element_size()


class Ceiling(NamedTuple):
    """What the machine reached in the same run: FLOP/s of a large matrix product, bytes/s of a large copy."""

    flops_per_s: float
    bytes_per_s: float

    def bound(self, calls: list[Call]) -> float:
        """Seconds that the calls take at best, one after the other (the roofline of each)."""
        return sum(max(c.flops / self.flops_per_s, c.bytes / self.bytes_per_s) for c in calls)


class CeilingRuns:
    """The two runs that measure a `Ceiling`; they take turns with what is compared to it."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        cuda = device.startswith("cuda")
        side = 8192 if cuda else 2048
        self.flops = 2 * side**3
        self.bytes = 2 * (2**30 if cuda else 2**28)  # one read, one write; far beyond any cache
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        product = torch.empty_like(a)
        source = torch.ones(self.bytes // 8, device=device)  # float32; zeros might not be in memory at all
        target = torch.ones_like(source)
        self.runs: dict[str, Callable[[], object]] = {
            "matrix product": lambda: torch.mm(a, b, out=product),
            "copy": lambda: target.copy_(source),
        }

    def ceiling(self, times: dict[str, dict[str, float]]) -> Ceiling:
        product, copy = (times[name]["median_s"] for name in ("matrix product", "copy"))
        return Ceiling(self.flops / product, self.bytes / copy)
