"""Linear algebra on pixels, in whichever memory layout the map arrives.

The parts of the paper that touch every pixel reduce to four operations: a linear map of the channels, a
maximum over channels, a weighted sum over pixels, and reading a map as tokens. They are kept here so that
the modules read like their equations.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1x1(nn.Conv2d):
    r"""The paper's $\phi$: a 1×1 convolution, $(B, C, H, W) \to (B, D, H, W)$, without activation.

    A `torch.nn.Conv2d` in its parameters and its initialisation. It is computed as the matrix product it is
    (on a CPU several times faster than the convolution), and a `channels_last` map stays `channels_last`.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    @property
    def matrix(self) -> Tensor:
        """The weight as a (D, C) matrix."""
        return self.weight.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return linear_map(x, self.matrix, self.bias)


def linear_map(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """`matrix` (D, C) applied to the channels of every pixel: (B, C, H, W) -> (B, D, H, W)."""
    if is_channels_last(x):
        return F.linear(x.permute(0, 2, 3, 1), matrix, bias).permute(0, 3, 1, 2)
    pixels, matrices = x.flatten(2), matrix.expand(x.shape[0], -1, -1)  # (B, C, HW), (B, D, C)
    y = torch.bmm(matrices, pixels) if bias is None else torch.baddbmm(bias[:, None], matrices, pixels)
    return y.unflatten(2, x.shape[2:])


def is_channels_last(x: Tensor) -> bool:
    # Not asked while compiling: the compiler chooses layouts itself, and the answer would tie an exported
    # program to the sizes of its example.
    if torch.compiler.is_compiling():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def channel_max(x: Tensor) -> Tensor:
    """Maximum over the channels: (B, C, H, W) -> (B, 1, H, W)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x.max(1, keepdim=True).values  # keeps one index a pixel for the backward, not the map
    return x.amax(1, keepdim=True)  # no index: many times faster on a CPU


def spatial_max(x: Tensor) -> Tensor:
    """Maximum over the pixels: (B, C, H, W) -> (B, C)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x.flatten(2).max(2).values
    return x.amax((2, 3))


def weighted_mean(weights: Tensor, values: Tensor, total: Tensor | float) -> Tensor:
    r"""$\sum_p w_{np} v_{pc} / t_n$ over the pixels p: (B, N, P), (B, P, C), t (B, N, 1) -> (B, N, C).

    float16 is summed in float32, autocast or not: a sum over a megapixel does not fit into float16, and the
    weights divided beforehand would vanish in it.
    """
    dtype = torch.float32 if values.dtype == torch.float16 else values.dtype
    with full_precision(values.device):
        return (torch.bmm(weights.to(dtype), values.to(dtype)) / total).to(values.dtype)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Autocast off; nothing on a device without autocast (meta)."""
    if device.type in ("cpu", "cuda", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
