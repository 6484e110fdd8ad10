"""Class Embeddings Updater and Feature Enhancement Updater (paper, section 3.2, equations 15-19)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cfii.arguments import require_count, require_embeddings, require_map, require_same
from cfii.blockwise import blockwise
from cfii.kernels import Merge, Select
from cfii.pixels import Conv1x1


class CEU(nn.Module):
    r"""Class Embeddings Updater: the deeper stage's interacted embeddings refresh this stage's.

    $$[U_1, U_2] = \mathrm{chunk}(\phi_4(E'_i)) \qquad
      \mathbf{E} = \phi_6(\mathrm{LN}\{U_1; \phi_5(E_{i-1})\}) \quad (15)$$
    $$\hat E_{i-1} = \Psi(\sigma(\mathbf{E}) \odot \mathrm{LN}(U_2) + E_{i-1}) \quad (16)$$

    where $\phi_4: C_i \to 2C_{i-1}$, $\phi_5: C_{i-1} \to C_{i-1}$, $\phi_6: 2C_{i-1} \to C_{i-1}$ are linear,
    $\{;\}$ concatenates class by class and $\Psi$ is Linear followed by LayerNorm.

    Left open by the paper, decided here: (15) and (16) use different halves of the chunk, as in K-Net's
    kernel updater (Zhang et al. 2021), which it cites.

    Args:
        deep_channels: $C_i$.
        channels: $C_{i-1}$.

    Shapes:
        deep_embeddings (B, N, C_i), embeddings (B, N, C_{i-1}) -> embeddings (B, N, C_{i-1}).

    Raises:
        ValueError: a shape does not fit.

    Source: CFII-Net, section 3.2.
    """

    def __init__(self, deep_channels: int, channels: int) -> None:
        super().__init__()
        deep_channels = require_count("deep_channels", deep_channels)
        channels = require_count("channels", channels)
        self.deep_channels, self.channels = deep_channels, channels
        self.phi4 = nn.Linear(deep_channels, 2 * channels)
        self.phi5 = nn.Linear(channels, channels)
        self.phi6 = nn.Linear(2 * channels, channels)
        self.norm_gate = nn.LayerNorm(2 * channels)
        self.norm_update = nn.LayerNorm(channels)
        self.psi = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))

    def forward(self, deep_embeddings: Tensor, embeddings: Tensor) -> Tensor:
        require_embeddings(deep_embeddings, self.deep_channels, "deep_embeddings")
        require_embeddings(embeddings, self.channels, "embeddings")
        require_same("embeddings", embeddings.shape[:2], "deep_embeddings", deep_embeddings.shape[:2])
        first, second = self.phi4(deep_embeddings).chunk(2, -1)
        gate = torch.sigmoid(self.phi6(self.norm_gate(torch.cat([first, self.phi5(embeddings)], -1))))
        return self.psi(gate * self.norm_update(second) + embeddings)


class FEU(nn.Module):
    r"""Feature Enhancement Updater: the deeper stage's interacted features join this stage's.

    $$A_s = [\phi(F'_i); \phi(F_{i-1})], \quad A_c = \phi(F'_i) + \phi(F_{i-1}) \quad (17)$$
    $$A_{spa} = \sigma(\phi[P_{max}(A_s); P_{avg}(A_s)]), \quad
      A_{cpa} = \sigma(\phi(P_{max}(A_c) + P_{avg}(A_c))) \quad (18)$$
    $$\hat F_{i-1} = A_{spa} \cdot F_{i-1} + A_{cpa} \cdot F'_i \quad (19)$$

    where $F'_i$ has been brought to $C_{i-1}$ channels by a 1×1 convolution (`reduce`) and to $F_{i-1}$'s size
    by bilinear interpolation. $P$ pools over channels for the spatial gate $A_{spa}$ (one value a pixel, from
    a 2 → 1 linear map) and over pixels for the channel gate $A_{cpa}$ (one value a channel).

    Left open by the paper, decided here: the two maps have a $\phi$ each; (18) prints $P_{max} + P_{max}$,
    read as $P_{max} + P_{avg}$; the sentence before (19) pairs gates and maps the other way round, (19) is
    followed; interpolation is to the *size* of $F_{i-1}$ (strides need not double), `align_corners=False`.

    Interpolation commutes with a 1×1 convolution, so `reduce` runs at the deep resolution and one map is
    interpolated; the maximum and mean of $A_s$ over channels come from those of its parts, so the concatenation
    is never made. $\phi$ of both maps and what is pooled of them are made block by block and not kept.

    Args:
        deep_channels: $C_i$.
        channels: $C_{i-1}$.

    Shapes:
        deep_features (B, C_i, h, w), features (B, C_{i-1}, H, W) -> features (B, C_{i-1}, H, W).

    Raises:
        ValueError: a shape does not fit.

    Source: CFII-Net, section 3.2; the selection follows SKNet (Li et al. 2019).
    """

    def __init__(self, deep_channels: int, channels: int) -> None:
        super().__init__()
        deep_channels = require_count("deep_channels", deep_channels)
        channels = require_count("channels", channels)
        self.deep_channels, self.channels = deep_channels, channels
        self.reduce = Conv1x1(deep_channels, channels)
        self.phi_deep = Conv1x1(channels, channels)
        self.phi = Conv1x1(channels, channels)
        self.spatial = Conv1x1(2, 1)
        self.channel = nn.Linear(channels, channels)
        self.recompute = False  # see CFIINeck.set_grad_checkpointing

    def forward(self, deep_features: Tensor, features: Tensor) -> Tensor:
        require_map(deep_features, self.deep_channels, "deep_features")
        require_map(features, self.channels, "features")
        require_same("features", features.shape[:1], "deep_features", deep_features.shape[:1])
        size, x = features.shape[2:], features.flatten(2)
        deep = F.interpolate(self.reduce(deep_features), size, mode="bilinear").flatten(2)  # (B, C, HW)
        weights = [w for phi in (self.phi_deep, self.phi, self.spatial) for w in phi.weights()]
        logits, peaks, sums = blockwise(Select, [deep, x], [], weights, self.recompute)
        pooled = peaks.amax(1) + (sums.sum(1) / x.shape[2]).to(peaks.dtype)  # P_max + P_avg of A_c  (B, C)
        channel_gate = torch.sigmoid(self.channel(pooled))[:, :, None]
        (merged,) = blockwise(Merge, [torch.sigmoid(logits), x, deep], [channel_gate], recompute=self.recompute)
        return merged.unflatten(2, size)
