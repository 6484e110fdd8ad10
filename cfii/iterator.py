"""Interactive Iterator (paper, section 3.2): from the deepest stage to the shallowest."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cfii.arguments import require_count, require_counts, require_flag, require_stage_list
from cfii.interaction import CIT, SIT
from cfii.updaters import CEU, FEU

# The paper's SIT stages are i >= 3, a quarter of the image's resolution and below.
SIT_MIN_STRIDE = 4


class InteractiveIterator(nn.Module):
    r"""Features and class embeddings of all stages interact, the deepest stage first.

    For i from the deepest stage to the shallowest:

    $$\hat E_i = \mathrm{CEU}(E'_{i+1}, E_i), \quad \hat F_i = \mathrm{FEU}(F'_{i+1}, F_i), \quad
      (E'_i, F'_i) = \begin{cases}\mathrm{SIT}(\hat E_i, \hat F_i) & \text{stride} \ge 4 \\
      \mathrm{CIT}(\hat E_i, \hat F_i) & \text{otherwise}\end{cases}$$

    where the deepest stage, which has no deeper neighbour, enters SIT or CIT as it is.

    Args:
        channels: $C_i$ of each stage. Like every list here, from shallow to deep.
        strides: the image's size divided by each stage's; they must not decrease (equal ones are valid).
        update_embeddings: CEU between stages (Table 4); without it $\hat E_i = E_i$.
        update_features: FEU between stages (Table 4); without it $\hat F_i = F_i$.
        num_heads: heads of SIT and CIT, a divisor of every stage's channels.
        ffn_ratio: hidden width of their FFNs, in units of C_i.
        sit_min_stride: the smallest stride that is given SIT. SIT's cost grows with the square of a stage's
            pixels, so images much larger than 224 want 8 or 16.

    Shapes:
        features [(B, C_i, H_i, W_i)], embeddings [(B, N, C_i)] -> the same lists of shapes.

    Raises:
        ValueError: the lists differ in length, the strides decrease, a shape does not fit.

    Source: CFII-Net, section 3.2.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        update_embeddings: bool = True,
        update_features: bool = True,
        num_heads: int = 1,
        ffn_ratio: float = 2.0,
        sit_min_stride: int = SIT_MIN_STRIDE,
    ) -> None:
        super().__init__()
        channels, strides = require_counts("channels", channels), require_strides(strides, len(channels))
        require_count("sit_min_stride", sit_min_stride, least=0)
        require_flag("update_embeddings", update_embeddings)
        require_flag("update_features", update_features)
        self.channels, self.strides = channels, strides
        self.interaction = nn.ModuleList(
            (SIT if stride >= sit_min_stride else CIT)(width, num_heads, ffn_ratio)
            for width, stride in zip(channels, strides, strict=True)
        )
        pairs = list(zip(channels[1:], channels[:-1], strict=True))  # (deep, shallow)
        self.ceu = nn.ModuleList(CEU(*pair) for pair in pairs) if update_embeddings else None
        self.feu = nn.ModuleList(FEU(*pair) for pair in pairs) if update_features else None

    def forward(
        self, features: Sequence[Tensor], embeddings: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        features = require_stage_list("features", features, len(self.channels))
        embeddings = require_stage_list("embeddings", embeddings, len(self.channels))
        deepest = len(self.channels) - 1
        for i in range(deepest, -1, -1):
            if i < deepest and self.ceu is not None:
                embeddings[i] = self.ceu[i](embeddings[i + 1], embeddings[i])
            if i < deepest and self.feu is not None:
                features[i] = self.feu[i](features[i + 1], features[i])
            embeddings[i], features[i] = self.interaction[i](embeddings[i], features[i])
        return features, embeddings


def require_strides(strides: Sequence[int], count: int) -> list[int]:
    """`count` strides, one a stage, that run from shallow to deep."""
    strides = require_counts("strides", strides)
    if len(strides) != count:
        raise ValueError(f"strides: expected one for each of the {count} stages, got {len(strides)}")
    if sorted(strides) != strides:
        raise ValueError(f"strides: expected strides that do not decrease from shallow to deep, got {strides}")
    return strides
