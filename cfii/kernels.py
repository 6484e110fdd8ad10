"""What ECEG, CIT and FEU do at every pixel, and the derivatives of it, on blocks of pixels.

A kernel's `forward` is the formula of its equations on maps (B, C, P) and on what all pixels share; it returns a
map and sums (or maxima) over the pixels, (B, 1, ...), see `cfii.blockwise`. Its `backward` computes the
intermediate results again, in place where it can, while the block is in the cache: about twice as fast as
autograd on the same block. Where several channels are the largest, they share the gradient equally.

Weights that all samples share come as (D, C) and (D, 1) and receive a gradient for each sample.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cfii.pixels import (
    add_linear,
    channel_max,
    channel_mean,
    linear,
    pixel_max,
    pixel_sum,
    product,
    softmax,
    standardise,
    standardise_backward,
    standardised,
    transform,
    weighted_sum,
)

Tensors = tuple[Tensor, ...]


class Compress:
    r"""Equation 1, $F' = \phi(F_1)$, and what the channel gate pools: its maximum and sum over the pixels."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensors:
        f = linear(x, matrix, bias)
        return f, pixel_max(f)[:, None], pixel_sum(f)[:, None]

    @staticmethod
    def backward(gradients: Tensors, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensors:
        g_f, g_max, g_sum = gradients
        g = add_at_maximum(g_f + g_sum.mT, linear(x, matrix, bias), g_max)
        return transform(matrix.mT, g), product(g, x.mT), pixel_sum(g)[..., None]


class Pool:
    """Equation 3: mean and maximum over the channels of what the channel gate (B, C, 1) leaves, (B, 2, P)."""

    @staticmethod
    def forward(f: Tensor, gate: Tensor) -> Tensors:
        gated = f * gate
        return (torch.cat([channel_mean(gated), channel_max(gated)], 1),)

    @staticmethod
    def backward(gradients: Tensors, f: Tensor, gate: Tensor) -> Tensors:
        g_mean, g_max = gradients[0].split(1, 1)
        gated = f * gate
        mask, share = largest(gated, g_max)
        g = mask.mul_(share).add_(g_mean / f.shape[1])
        return g * gate, pixel_sum(g.mul_(f))[..., None]


class Classify:
    r"""Equation 5, class maps $Y = A F' + B U + c$ with $U = M_s \otimes F'$, and the sums of equations 6 to 8.

    With $g = \sigma(Y)$: $\sum_p g F'$, $\sum_p g U$ (B, 1, N, C), $\sum_p g$ (B, 1, N), $\sum_p U$ (B, 1, C).
    """

    @staticmethod
    def forward(f: Tensor, gate: Tensor, b: Tensor, a: Tensor, c: Tensor) -> Tensors:
        u = f * gate
        y = add_linear(linear(f, a, c), u, b)
        g = torch.sigmoid(y)
        sums = weighted_sum(g, f), weighted_sum(g, u), pixel_sum(g), pixel_sum(u)
        return y, *(x[:, None] for x in sums)

    @staticmethod
    def backward(gradients: Tensors, f: Tensor, gate: Tensor, b: Tensor, a: Tensor, c: Tensor) -> Tensors:
        g_y, *sums = gradients
        g_plain, g_gated, g_gates, g_u = (x[:, 0] for x in sums)
        u = f * gate
        g = add_linear(linear(f, a, c), u, b).sigmoid_()
        g_gate = add_linear(linear(f, g_plain, g_gates[..., None]), u, g_gated)
        g_y = g_y + g_gate.mul_(g).mul_(1 - g)
        g_u = add_linear(linear(g, g_gated.mT, g_u[..., None]), g_y, b.mT)
        g_f = add_linear(transform(g_plain.mT, g), g_y, a.mT).addcmul_(g_u, gate)
        g_s = channel_mean(g_u.mul_(f)) * f.shape[1]
        return g_f, g_s, product(g_y, u.mT), product(g_y, f.mT), pixel_sum(g_y)[..., None]


class Select:
    r"""Equations 17 and 18: the spatial gate's logits (B, 1, P), and maximum and sum over the pixels of $A_c$.

    Maximum and mean over the channels of $A_s = [a; b]$, with $a = \phi(F'_i)$ and $b = \phi(F_{i-1})$, come from
    those of a and of b, so that the concatenation is never made; $A_c = a + b$. The weights are those of $\phi$
    for a, of $\phi$ for b, and of the gate, (w, c), each with its bias.
    """

    @staticmethod
    def forward(deep: Tensor, x: Tensor, *weights: Tensor) -> Tensors:
        phi_deep, bias_deep, phi, bias, w, c = weights
        a, b = linear(deep, phi_deep, bias_deep), linear(x, phi, bias)
        total = a + b
        w_max, w_mean = w.split(1, 1)  # (1, 1) each
        logits = w_max * torch.maximum(channel_max(a), channel_max(b)) + w_mean / 2 * channel_mean(total) + c
        return logits, pixel_max(total)[:, None], pixel_sum(total)[:, None]

    @staticmethod
    def backward(gradients: Tensors, deep: Tensor, x: Tensor, *weights: Tensor) -> Tensors:
        g, g_max, g_sum = gradients
        phi_deep, bias_deep, phi, bias, w, _ = weights
        a, b = linear(deep, phi_deep, bias_deep), linear(x, phi, bias)
        total, channels = a + b, x.shape[1]
        w_max, w_mean = w.split(1, 1)
        peak = torch.maximum(a.amax(1, keepdim=True), b.amax(1, keepdim=True))
        g_w = torch.cat([(g * peak).sum(2), (g * channel_mean(total)).sum(2) / 2], 1)[:, None]
        common = add_at_maximum(w_mean / (2 * channels) * g + g_sum.mT, total, g_max)
        mask_a, mask_b = (torch.eq(y, peak).to(y.dtype) for y in (a, b))
        share = w_max * g / (channels * (channel_mean(mask_a) + channel_mean(mask_b)))
        g_a, g_b = torch.addcmul(common, mask_a, share), common.addcmul_(mask_b, share)
        g_phi_deep = product(g_a, deep.mT), pixel_sum(g_a)[..., None]
        g_phi = product(g_b, x.mT), pixel_sum(g_b)[..., None]
        g_deep, g_x = transform(phi_deep.mT, g_a), transform(phi.mT, g_b)
        return g_deep, g_x, *g_phi_deep, *g_phi, g_w, g.sum(2, keepdim=True)


class Merge:
    """Equation 19: spatial gate (B, 1, P) on this stage's map, channel gate (B, C, 1) on the deeper stage's."""

    @staticmethod
    def forward(spatial: Tensor, x: Tensor, deep: Tensor, channel: Tensor) -> Tensors:
        return (torch.addcmul(spatial * x, channel, deep),)

    @staticmethod
    def backward(gradients: Tensors, spatial: Tensor, x: Tensor, deep: Tensor, channel: Tensor) -> Tensors:
        (g,) = gradients
        return channel_mean(g * x) * x.shape[1], g * spatial, g * channel, pixel_sum(g * deep)[..., None]


class Interact:
    """Equation 14 and CIT's FFN, with φ_q folded into the keys and the output projection into the values.

    The sums are, for each class, that of the normalised pixels by its attention (B, 1, h·N, C), and that of its
    attention (B, 1, h·N).
    """

    def __init__(self, num_heads: int) -> None:
        self.num_heads = num_heads

    def forward(self, x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, *ffn: Tensor) -> Tensors:
        n = standardise(x)
        attention = softmax(linear(n, keys, bias), self.num_heads)  # (B, h·N, P)
        y = add_ffn(add_linear(x, attention, values), *ffn)
        return y, weighted_sum(attention, n)[:, None], pixel_sum(attention)[:, None]

    def backward(
        self, gradients: Tensors, x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, *ffn: Tensor
    ) -> Tensors:
        g, g_pooled, g_total = gradients
        g_pooled, g_total = g_pooled[:, 0], g_total[:, 0, :, None]
        n, scale = standardised(x)
        attention = softmax(linear(n, keys, bias), self.num_heads)
        g, *g_ffn = add_ffn_backward(g, add_linear(x, attention, values), *ffn)
        g_values = product(g, attention.mT)
        g_attention = add_linear(transform(values.mT, g), n, g_pooled).add_(g_total)
        g_scores = self.softmax_backward(g_attention, attention)
        g_n = add_linear(transform(keys.mT, g_scores), attention, g_pooled.mT)
        g_keys, g_bias = product(g_scores, n.mT), pixel_sum(g_scores)[..., None]
        return standardise_backward(g_n, n, scale).add_(g), g_keys, g_bias, g_values, *g_ffn

    def softmax_backward(self, gradient: Tensor, attention: Tensor) -> Tensor:
        g, a = (x.unflatten(1, (self.num_heads, -1)) for x in (gradient.mul_(attention), attention))
        return g.addcmul_(a, g.sum(2, keepdim=True), value=-1).flatten(1, 2)


def add_ffn(x: Tensor, matrix1: Tensor, bias1: Tensor, matrix2: Tensor, bias2: Tensor) -> Tensor:
    """x + FFN(x), the weights as `FFN.folded` gives them."""
    return add_linear(x, F.gelu(linear(standardise(x), matrix1, bias1)), matrix2, bias2)


def add_ffn_backward(g: Tensor, x: Tensor, *weights: Tensor) -> Tensors:
    matrix1, bias1, matrix2, _ = weights
    n, scale = standardised(x)
    hidden = linear(n, matrix1, bias1)
    g_matrix2, g_bias2 = product(g, F.gelu(hidden).mT), pixel_sum(g)[..., None]
    g_hidden = torch.ops.aten.gelu_backward(transform(matrix2.mT, g), hidden)
    g_matrix1, g_bias1 = product(g_hidden, n.mT), pixel_sum(g_hidden)[..., None]
    g = standardise_backward(transform(matrix1.mT, g_hidden), n, scale).add_(g)
    return g, g_matrix1, g_bias1, g_matrix2, g_bias2


def largest(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Where x is its channels' maximum (1, else 0), and what such a place receives of the gradient (B, 1, P)."""
    mask = torch.eq(x, x.amax(1, keepdim=True)).to(x.dtype)
    return mask, gradient / (channel_mean(mask) * x.shape[1])


def add_at_maximum(total: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Add the gradient (B, 1, C) of each channel's maximum over the pixels of x, in place, where it stands."""
    place = x.argmax(2, keepdim=True)
    return total.scatter_(2, place, total.gather(2, place) + gradient.mT)  # deterministic, unlike scatter_add_
