"""Explicit Class Embedding Generator (paper, section 3.1, equations 1-8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfii.arguments import require_count, require_map
from cfii.blockwise import blockwise
from cfii.kernels import Classify, Compress, Pool
from cfii.pixels import Conv1x1, pixel_max


class CSA(nn.Module):
    r"""Channel Spatial Attention, equations 2-3.

    $$F^* = M_c(F') \otimes F', \qquad F'' = M_s(F^*) \otimes F^*$$

    where

    - $M_c = \sigma(\mathrm{MLP}(\mathrm{mean}_p F') + \mathrm{MLP}(\max_p F'))$ is the channel gate, one MLP of
      two layers for both; its hidden width is `max(channels // 16, 4)`;
    - $M_s = \sigma(\mathrm{conv}_{7\times7}[\mathrm{mean}_c F^*; \max_c F^*])$ is the spatial gate.

    Left open by the paper, decided here: both gates follow CBAM (Woo et al. 2018), which it cites, without
    CBAM's batch norm, which the paper does not mention. The MLP's activation is GELU: with as few as four
    hidden units, ReLU would often be dead from the start.

    Shapes: features (B, C, H, W) -> channel gate (B, C), spatial gate (B, 1, H, W). The gates are returned
    rather than $F''$, because ECEG never needs $F''$ itself.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = require_count("channels", channels)
        hidden = max(channels // 16, 4)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)
        self.recompute = False  # see CFIINeck.set_grad_checkpointing

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        require_map(features, self.channels, "features")
        channel_gate = self.channel_gate(features.mean((2, 3)), pixel_max(features.flatten(2)))
        return channel_gate, self.spatial_gate(features, channel_gate)

    def channel_gate(self, mean: Tensor, peak: Tensor) -> Tensor:
        """M_c from each channel's mean and maximum over the pixels, (B, C) each."""
        return torch.sigmoid(self.mlp(mean) + self.mlp(peak))

    def spatial_gate(self, features: Tensor, channel_gate: Tensor) -> Tensor:
        """M_s, (B, 1, H, W)."""
        (pooled,) = blockwise(Pool, [features.flatten(2)], [channel_gate[..., None]], recompute=self.recompute)
        # channels_last, in which a CPU computes the gradient of so narrow a map five times as fast; made by hand,
        # as torch.func.vmap knows no memory formats.
        pooled = pooled.mT.contiguous().mT.unflatten(2, features.shape[2:])
        return torch.sigmoid(self.conv(pooled))


class ECEG(nn.Module):
    r"""Explicit Class Embedding Generator: one embedding per class from one stage's features.

    $$F' = \phi(F_1) \quad (1) \qquad F'' = \mathrm{CSA}(F') \quad (2, 3) \qquad X = P[F'; F''] \quad (4)$$
    $$Y = \phi_2(\phi_1(X)) \quad (5) \qquad
      Z^n = \phi_3[X \otimes g_n; X \otimes (1 - g_n)],\; g_n = \sigma(Y^n) \quad (6) \qquad
      E^n = \mathrm{mean}_p Z^n_p \quad (7, 8)$$

    where $\phi: C \to \lceil C/2 \rceil$, $P: 2\lceil C/2 \rceil \to C$, $\phi_1: C \to C$, $\phi_2: C \to N$
    and $\phi_3: 2C \to C$ are 1×1 convolutions without activation, p runs over the pixels and n over the
    classes.

    Left open by the paper, decided here: $P$ is linear; $\phi_3$ is one for all classes; the pooling is the
    mean over *all* pixels (it is not normalised by the class's area).

    Computed without the N copies of eq. 6 and without $F''$, $X$ or $\phi_1(X)$. Everything between $F'$ and
    $E$ except the gates is linear, so it moves past the mean (exact, not an approximation). With
    $\phi_3 = [W_a, W_b]$, $P = [P_a, P_b]$ and $U = M_s \otimes F'$, for which
    $X = P_a F' + P_b \mathrm{diag}(M_c)\, U + p$:

    $$Y = A F' + B U + c, \qquad A = \phi_2 \phi_1 P_a,\quad B = \phi_2 \phi_1 P_b\, \mathrm{diag}(M_c)$$
    $$\langle g_n X \rangle = P_a \langle g_n F' \rangle + P_b\, \mathrm{diag}(M_c) \langle g_n U \rangle
      + p \langle g_n \rangle$$
    $$E^n = W_a \langle g_n X \rangle + W_b (\langle X \rangle - \langle g_n X \rangle) + b$$

    where $\langle \cdot \rangle$ is the mean over the pixels, so that a pixel costs 2NC + C²/2
    multiply-accumulates instead of 2NC² + NC + 5C²/2.

    Args:
        channels: C, the width of the features.
        num_classes: N, background included.

    Shapes:
        features (B, C, H, W) -> embeddings (B, N, C), class_logits Y (B, N, H, W).

    Raises:
        ValueError: the features are not (B, C, H, W).

    Source: CFII-Net, section 3.1; the channel split follows GhostNet (Han et al. 2020).

    Examples:
        >>> embeddings, class_logits = ECEG(32, num_classes=9)(torch.randn(2, 32, 56, 56))
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        channels, num_classes = require_count("channels", channels), require_count("num_classes", num_classes)
        half = (channels + 1) // 2
        self.channels, self.num_classes, self.half = channels, num_classes, half
        self.phi = Conv1x1(channels, half)
        self.csa = CSA(half)
        self.project = Conv1x1(2 * half, channels)
        self.phi1 = Conv1x1(channels, channels)
        self.phi2 = Conv1x1(channels, num_classes)
        self.phi3 = Conv1x1(2 * channels, channels)
        self.recompute = False  # see CFIINeck.set_grad_checkpointing

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        require_map(features, self.channels, "features")
        size, count = features.shape[2:], features[0, 0].numel()
        f, peak, total = blockwise(Compress, [features.flatten(2)], [], self.phi.weights(), self.recompute)
        mean = total.sum(1) / count  # of F'  (B, C/2)
        channel_gate = self.csa.channel_gate(mean.to(f.dtype), peak.amax(1))
        spatial_gate = self.csa.spatial_gate(f.unflatten(2, size), channel_gate)

        project_plain, project_gated = self.project.matrix.split(self.half, 1)  # P_a, P_b  (C, C/2)
        project_gated = project_gated * channel_gate[:, None, :]  # P_b diag(M_c)  (B, C, C/2)

        # Equation 5: the coarse class maps, and the sums of equations 6-8.
        classify = self.phi2.matrix @ self.phi1.matrix  # (N, C)
        offset = self.phi2.matrix @ (self.phi1.matrix @ self.project.bias + self.phi1.bias) + self.phi2.bias
        a, b, c = classify @ project_plain, classify @ project_gated, offset[:, None]
        class_logits, *sums = blockwise(Classify, [f, spatial_gate.flatten(2)], [b], [a, c], self.recompute)
        means = [mean[:, None], *(x.sum(1) / count for x in sums)]
        mean, mean_plain, mean_gated, mean_gates, mean_u = (x.to(f.dtype) for x in means)

        def enhanced(plain: Tensor, gated: Tensor, weight: Tensor | float) -> Tensor:
            """X's mean from those of F' and U (equation 4, moved past the mean)."""
            linear = plain @ project_plain.mT + gated @ project_gated.mT
            return linear + weight * self.project.bias

        inside = enhanced(mean_plain, mean_gated, mean_gates[..., None])  # mean(g_n X)  (B, N, C)
        overall = enhanced(mean, mean_u[:, None], 1.0)  # mean(X)  (B, 1, C)
        embeddings = F.linear(torch.cat([inside, overall - inside], 2), self.phi3.matrix, self.phi3.bias)
        return embeddings, class_logits.unflatten(2, size)
