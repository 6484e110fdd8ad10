"""Linear algebra on pixels, in whichever memory layout the map arrives.

The parts of the paper that touch every pixel reduce to a few operations on a map as a matrix of channels and
pixels, (B, C, P): a linear map of the channels, a norm or a maximum over them, a weighted sum over the pixels. A
map in PyTorch's usual layout has its pixels side by side in memory, a `channels_last` map its channels; each
operation works on either without a copy and answers in the same layout. They are kept here so that the modules
read like their equations.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5  # of LayerNorm


class Conv1x1(nn.Conv2d):
    r"""The paper's $\phi$: a 1×1 convolution, $(B, C, H, W) \to (B, D, H, W)$, without activation.

    A `torch.nn.Conv2d` in its parameters and its initialisation. It is computed as the matrix product it is
    (on a CPU several times faster than the convolution), and a `channels_last` map stays `channels_last`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    @property
    def matrix(self) -> Tensor:
        """The weight as a (D, C) matrix."""
        return self.weight.flatten(1)

    def weights(self) -> list[Tensor]:
        """The matrix (D, C) and the bias (D, 1), for `linear`."""
        return [self.matrix, self.bias[:, None]]

    def forward(self, x: Tensor) -> Tensor:
        return linear(x.flatten(2), *self.weights()).unflatten(2, x.shape[2:])


def is_traced() -> bool:
    """Whether what runs is made into a program, which a question about sizes would tie to its example's."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def channels_are_inner(x: Tensor) -> bool:
    """Whether a map (B, C, P) has a pixel's channels side by side in memory, as `channels_last` has."""
    return not is_traced() and x.stride(1) == 1 and x.stride(2) != 1


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b: (M, K) or (B, M, K), (B, K, L) -> (B, M, L)."""
    if not is_traced() and len(b) == 1:
        return torch.mm(a.reshape(a.shape[-2:]), b[0])[None]  # on several threads, unlike a batch of one
    return torch.bmm(for_each(a, b), b)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total + a b, the total like the product, or what broadcasts to it."""
    if not is_traced() and len(b) == 1:
        return torch.addmm(*(x.reshape(x.shape[-2:]) for x in (total, a, b)))[None]
    return torch.baddbmm(total, for_each(a, b), b)


def for_each(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix for each of x's samples."""
    return matrix if matrix.ndim == 3 else matrix.expand(x.shape[0], -1, -1)


def linear(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """matrix x + bias at every pixel: (B, C, P), (D, C), (D, 1) -> (B, D, P); or a matrix and bias a sample."""
    if not channels_are_inner(x):
        return add_product(bias, matrix, x)
    if matrix.ndim == bias.ndim == 2:
        return F.linear(x.mT, matrix, bias[:, 0]).mT
    return torch.baddbmm(bias.mT, x.mT, for_each(matrix, x).mT).mT


def add_linear(y: Tensor, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """y + matrix x + bias, the last two as in `linear`: (B, D, P), (B, C, P) -> (B, D, P)."""
    if not channels_are_inner(x):
        total = add_product(y, matrix, x)
        return total if bias is None else total.add_(bias)
    if matrix.ndim == 2:
        return y + F.linear(x.mT, matrix, None if bias is None else bias[:, 0]).mT
    total = torch.baddbmm(y.mT, x.mT, matrix.mT).mT
    return total if bias is None else total + bias


def transform(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix x, the matrix as in `linear`: (B, C, P) -> (B, D, P)."""
    if channels_are_inner(x):
        return torch.bmm(x.mT, for_each(matrix, x).mT).mT
    return product(matrix, x)


def channel_mean(x: Tensor) -> Tensor:
    """Mean over the channels: (B, C, P) -> (B, 1, P)."""
    if channels_are_inner(x):
        return x.mean(1, keepdim=True)
    # On a CPU, as a product, several times faster than a reduction over an outer dimension.
    return product(x.new_full((1, x.shape[1]), 1 / x.shape[1]), x)


def standardise(x: Tensor) -> Tensor:
    """LayerNorm over the channels of every pixel, without its weights: (B, C, P) -> (B, C, P)."""
    if channels_are_inner(x):
        return F.layer_norm(x.mT, x.shape[1:2], eps=EPSILON).mT
    with full_precision(x.device):
        x, dtype = x.to(torch.promote_types(x.dtype, torch.float32)), x.dtype
        centred = x - channel_mean(x)
        return (centred * torch.rsqrt(channel_mean(centred.square()) + EPSILON)).to(dtype)


def standardised(x: Tensor) -> tuple[Tensor, Tensor]:
    """What `standardise` gives, and by what it multiplied each pixel, (B, 1, P); not differentiable."""
    centred = x - channel_mean(x)
    scale = channel_mean(centred.square()).add_(EPSILON).rsqrt_()
    return centred.mul_(scale), scale


def standardise_backward(gradient: Tensor, standard: Tensor, scale: Tensor) -> Tensor:
    """The derivative of `standardise`, in the gradient's place, from what `standardised` gives."""
    slope, mean = channel_mean(gradient * standard), channel_mean(gradient)
    return gradient.sub_(mean).addcmul_(standard, slope, value=-1).mul_(scale)


def softmax(x: Tensor, groups: int = 1) -> Tensor:
    """Softmax over the channels of every pixel, in groups of equal size: (B, groups·N, P) -> the same."""
    if channels_are_inner(x):
        return x.mT.unflatten(2, (groups, -1)).softmax(3).flatten(2).mT
    return x.unflatten(1, (groups, -1)).softmax(2).flatten(1, 2)


def channel_max(x: Tensor) -> Tensor:
    """Maximum over the channels: (B, C, P) -> (B, 1, P)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x.max(1, keepdim=True).values  # keeps one index a pixel for the backward, not the map
    return x.amax(1, keepdim=True)  # no index: many times faster on a CPU


def pixel_max(x: Tensor) -> Tensor:
    """Maximum over the pixels: (B, C, P) -> (B, C)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return x.max(2).values
    return x.amax(2)


def pixel_sum(x: Tensor) -> Tensor:
    """Sum over the pixels, in float32 or better: (B, C, P) -> (B, C)."""
    return x.sum(2, dtype=torch.promote_types(x.dtype, torch.float32))


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    r"""$\sum_p w_{np} x_{cp}$, in float32 or better: (B, N, P), (B, C, P) -> (B, N, C).

    float16 is summed in float32, autocast or not: a sum over a megapixel does not fit into it. (bfloat16 is
    multiplied as it is: its products are summed in float32 anyway.)
    """
    dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
    with full_precision(x.device):
        total = product(weights.to(dtype), x.to(dtype).mT)
        return total.to(torch.promote_types(dtype, torch.float32))


def full_precision(device: torch.device) -> contextlib.AbstractContextManager:
    """Autocast off; nothing on a device without autocast (meta)."""
    if device.type in ("cpu", "cuda", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
