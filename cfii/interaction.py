"""Self- and Cross-Interactive Transformer (paper, section 3.2, equations 9-14)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from cfii.arguments import require_count, require_embeddings, require_map, require_number, require_same
from cfii.pixels import weighted_mean

# Below this sum over the pixels a class counts as unattended and keeps its embedding.
UNATTENDED = 1e-6


class FFN(nn.Module):
    """Pre-norm feed-forward network: LayerNorm, Linear C -> ratio·C, GELU, Linear -> C."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = round(channels * require_number("ffn_ratio", ratio))
        if hidden < 1:
            raise ValueError(f"ffn_ratio: expected at least one hidden unit, got {ratio} of {channels} channels")
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Interaction(nn.Module):
    """What SIT and CIT share: the projections of an attention block, and its FFN."""

    def __init__(self, channels: int, num_heads: int = 1, ffn_ratio: float = 2.0) -> None:
        super().__init__()
        channels = require_count("channels", channels, least=2)  # LayerNorm of one channel is a constant
        if channels % require_count("num_heads", num_heads):
            fitting = [h for h in range(1, channels + 1) if channels % h == 0][:8]
            raise ValueError(
                f"num_heads: expected a divisor of the {channels} channels ({fitting} …), got {num_heads}"
            )
        self.channels, self.num_heads = channels, num_heads
        self.norm = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels)
        # No bias: it adds the same to every score of a query, which the softmax cannot see.
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.ffn = FFN(channels, ffn_ratio)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, num_heads={self.num_heads}"

    def require(self, embeddings: Tensor, features: Tensor) -> None:
        require_embeddings(embeddings, self.channels, "embeddings")
        require_map(features, self.channels, "features")
        require_same("features", features.shape[:1], "embeddings", embeddings.shape[:1])

    def split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (h d) -> b h t d", h=self.num_heads)


class SIT(Interaction):
    r"""Self-Interactive Transformer: class embeddings and pixels attend to each other as one sequence.

    $$G = [E; \tilde F], \quad Q, K, V = \phi_q(G), \phi_k(G), \phi_v(G) \quad (9)$$
    $$G' = \mathrm{Softmax}(QK^T/\sqrt{D})\,V + G \quad (10) \qquad G'' = \mathrm{FFN}(G') + G' \quad (11)$$
    $$E', \tilde F' = \mathrm{Split}(G'') \quad (12) \qquad F' = \mathrm{Reshape}(\tilde F') \quad (13)$$

    where $\tilde F$ (HW, C) are the pixels of F as tokens and D is the width of a key.

    Left open by the paper, decided here: LayerNorm before attention and before the FFN; an output projection;
    one head by default; "split along the channel dimension" (12) can only mean along the tokens.

    Args:
        channels: C.
        num_heads: heads of the attention, a divisor of C.
        ffn_ratio: hidden width of the FFN, in units of C.

    Shapes:
        embeddings (B, N, C), features (B, C, H, W) -> the same two shapes.

    Raises:
        ValueError: a shape or `num_heads` does not fit.

    Source: CFII-Net, section 3.2.

    Example:
        >>> embeddings, features = SIT(64)(torch.randn(2, 9, 64), torch.randn(2, 64, 28, 28))
    """

    def forward(self, embeddings: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        self.require(embeddings, features)
        n, height = embeddings.shape[1], features.shape[2]
        g = torch.cat([embeddings, rearrange(features, "b c h w -> b (h w) c")], 1)  # (B, N + HW, C)
        x = self.norm(g)
        q, k, v = (self.split_heads(phi(x)) for phi in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        g = g + self.out(rearrange(attended, "b h t d -> b t (h d)"))
        g = g + self.ffn(g)
        return g[:, :n], rearrange(g[:, n:], "b (h w) c -> b c h w", h=height)


class CIT(Interaction):
    r"""Cross-Interactive Transformer: every pixel attends to the N class embeddings.

    $$Q = \phi_q(\tilde F),\; K = \phi_k(E),\; V = \phi_v(E) \quad (14) \qquad
      A = \mathrm{Softmax}(QK^T/\sqrt{D}) \in \mathbb{R}^{HW\times N}$$
    $$\tilde F' = AV + \tilde F, \quad \tilde F'' = \mathrm{FFN}(\tilde F') + \tilde F' \qquad
      E' = E + \hat A^T Q$$

    where $\hat A$ is A with each class's weights normalised to sum to 1 over the pixels.

    Left open by the paper, decided here: norms, output projection and FFN as in SIT, one LayerNorm for the
    pixels and one for the embeddings. The paper takes E' "through matrix multiplication by the attention map
    associated with the query": un-normalised, that would grow with the image, so each class takes a weighted
    mean of the queries. The sum it divides by is clamped below, so a class that no pixel attends to keeps
    $E' = E$. E' passes no FFN.

    Queries only ever meet N keys, so $\phi_q$ is folded into the keys and the output projection into the
    values: $QK^T = \tilde F (K W_q)^T + b_q K^T$, and $\hat A^T Q = (\hat A^T \tilde F) W_q^T + \ldots$ Exact,
    and a pixel costs O(CN) as the paper claims, instead of O(C²). With h heads the folded keys are h·N
    vectors of width C; beyond (h - 1)·N = C the plain order is the cheaper one and is used.

    Arguments, shapes, errors: as `SIT`.

    Example:
        >>> embeddings, features = CIT(32)(torch.randn(2, 9, 32), torch.randn(2, 32, 224, 224))
    """

    def __init__(self, channels: int, num_heads: int = 1, ffn_ratio: float = 2.0) -> None:
        super().__init__(channels, num_heads, ffn_ratio)
        self.norm_embeddings = nn.LayerNorm(channels)

    def forward(self, embeddings: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        self.require(embeddings, features)
        height = features.shape[2]
        f = rearrange(features, "b c h w -> b (h w) c")
        x, e = self.norm(f), self.norm_embeddings(embeddings)
        # The softmax over the classes cannot see what all keys share, and explicit embeddings share much of
        # themselves: without it, the scores keep their precision. Scaled here, on N vectors, not HW·N scores.
        k = self.split_heads(self.k(e - e.mean(1, keepdim=True))) * (self.channels // self.num_heads) ** -0.5
        v = self.split_heads(self.v(e))  # (B, h, N, D)
        fold = (self.num_heads - 1) * embeddings.shape[1] < self.channels
        attended, pooled = self.folded(x, k, v) if fold else self.plain(x, k, v)
        f = f + attended
        f = f + self.ffn(f)
        return embeddings + pooled, rearrange(f, "b (h w) c -> b c h w", h=height)

    def plain(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Equation 14 in its own order: what the pixels and what the classes receive."""
        q = self.split_heads(self.q(x))  # (B, h, P, D)
        attention = torch.softmax(k @ q.mT, 2)  # (B, h, N, P)
        attended = self.out(rearrange(attention.mT @ v, "b h p d -> b p (h d)"))
        attention = attention.flatten(0, 1)  # (B·h, N, P)
        pooled = weighted_mean(attention, q.flatten(0, 1), pixel_total(attention).clamp_min(UNATTENDED))
        return attended, rearrange(pooled, "(b h) n d -> b n (h d)", h=self.num_heads)

    def folded(self, x: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The same with φ_q folded into the keys and the output projection into the values."""
        n = k.shape[2]
        w_q = rearrange(self.q.weight, "(h d) c -> h d c", h=self.num_heads)
        b_q = rearrange(self.q.bias, "(h d) -> h d 1", h=self.num_heads)
        w_out = rearrange(self.out.weight, "c (h d) -> h d c", h=self.num_heads)
        keys = rearrange(k @ w_q, "b h n c -> b (h n) c")
        bias = rearrange(k @ b_q, "b h n 1 -> b (h n) 1")
        values = rearrange(v @ w_out, "b h n c -> b (h n) c")
        scores = torch.baddbmm(bias, keys, x.mT)  # (B, h·N, P)
        attention = torch.softmax(scores.unflatten(1, (self.num_heads, n)), 2).flatten(1, 2)
        attended = torch.baddbmm(self.out.bias, attention.mT, values)
        total = pixel_total(attention)
        clamped = total.clamp_min(UNATTENDED)
        pooled = weighted_mean(attention, x, clamped).unflatten(1, (self.num_heads, n))  # (B, h, N, C)
        share = (total / clamped).to(pooled.dtype).unflatten(1, (self.num_heads, n))  # 1, or less if clamped
        pooled = pooled @ w_q.mT + share * b_q.mT  # (B, h, N, D)
        return attended, rearrange(pooled, "b h n d -> b n (h d)")


def pixel_total(attention: Tensor) -> Tensor:
    """The sum of each class's weights over the pixels: (B, N, P) -> (B, N, 1), in float32 or better."""
    return attention.sum(2, keepdim=True, dtype=torch.promote_types(attention.dtype, torch.float32))
