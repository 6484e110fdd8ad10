"""Self- and Cross-Interactive Transformer (paper, section 3.2, equations 9-14)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from cfii.arguments import require_count, require_embeddings, require_map, require_number, require_same
from cfii.blockwise import blockwise
from cfii.kernels import Interact, add_ffn
from cfii.pixels import add_linear, linear, pixel_sum, standardise, weighted_sum

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

    def folded(self) -> list[Tensor]:
        """The weights for `cfii.kernels.add_ffn`: LayerNorm's are folded into fc1's."""
        matrix = self.fc1.weight * self.norm.weight
        bias = F.linear(self.norm.bias, self.fc1.weight, self.fc1.bias)
        return [matrix, bias[:, None], self.fc2.weight, self.fc2.bias[:, None]]


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

    Examples:
        >>> embeddings, features = SIT(64)(torch.randn(2, 9, 64), torch.randn(2, 64, 28, 28))
    """

    def forward(self, embeddings: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        height, lengths = features.shape[2], (embeddings.shape[1], features[0, 0].numel())
        g = self.tokens(embeddings, features)
        x = self.norm(g)
        q, k, v = (self.split_heads(phi(x)) for phi in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        g = g + self.out(rearrange(attended, "b h t d -> b t (h d)"))
        g = g + self.ffn(g)
        embeddings, f = g.split(lengths, 1)
        return embeddings, rearrange(f, "b (h w) c -> b c h w", h=height)

    def tokens(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """G of equation 9, (B, N + HW, C)."""
        self.require(embeddings, features)
        return torch.cat([embeddings, rearrange(features, "b c h w -> b (h w) c")], 1)

    def attention(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """How each class's query spreads over the pixels, (B, heads, N, H, W), to be looked at.

        The classes' rows of equation 10's softmax, without what they give to the classes themselves: a map's sum
        is at most 1. `forward` leaves the softmax to PyTorch's fused attention, which does not hand it out.
        """
        n, x = embeddings.shape[1], self.norm(self.tokens(embeddings, features))
        q, k = self.split_heads(self.q(x[:, :n])), self.split_heads(self.k(x))
        scores = (q * (self.channels // self.num_heads) ** -0.5) @ k.mT  # (B, h, N, N + HW)
        return scores.softmax(3)[..., n:].unflatten(3, features.shape[2:])


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

    Examples:
        >>> embeddings, features = CIT(32)(torch.randn(2, 9, 32), torch.randn(2, 32, 224, 224))
    """

    def __init__(self, channels: int, num_heads: int = 1, ffn_ratio: float = 2.0) -> None:
        super().__init__(channels, num_heads, ffn_ratio)
        self.norm_embeddings = nn.LayerNorm(channels)
        self.recompute = False  # see CFIINeck.set_grad_checkpointing

    def forward(self, embeddings: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        self.require(embeddings, features)
        n, e = embeddings.shape[1], self.norm_embeddings(embeddings)
        k, v = self.keys(e), self.split_heads(self.v(e))  # (B, h, N, D)
        fold = (self.num_heads - 1) * n < self.channels
        if fold:
            kernel, samples, shared = Interact(self.num_heads), self.fold(k, v), []
        else:
            kernel, samples, shared = InteractInOrder(), [k, v.mT], self.in_order()
        shared += self.ffn.folded()
        f, pooled, total = blockwise(kernel, [features.flatten(2)], samples, shared, self.recompute)
        pooled, total = (x.sum(1).unflatten(1, (self.num_heads, n)) for x in (pooled, total[..., None]))
        clamped = total.clamp_min(UNATTENDED)  # (B, h, N, 1)
        # Mean queries (B, h, N, D), or mean pixels (B, h, N, C) if folded.
        pooled, share = (x.to(self.q.weight.dtype) for x in (pooled / clamped, total / clamped))
        if fold:
            pooled = self.project(pooled, share)
        pooled = rearrange(pooled, "b h n d -> b n (h d)")
        return embeddings + pooled, f.unflatten(2, features.shape[2:])

    def keys(self, e: Tensor) -> Tensor:
        """K of the normalised embeddings, divided by the square root of D: (B, h, N, D)."""
        # The softmax over the classes cannot see what all keys share, and explicit embeddings share much of
        # themselves: without it, the scores keep their precision. Scaled here, on N vectors, not HW·N scores.
        return self.split_heads(self.k(e - e.mean(1, keepdim=True))) * (self.channels // self.num_heads) ** -0.5

    def attention(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """A of equation 14, (B, heads, N, H, W), to be looked at: at each pixel the classes' weights sum to 1.

        `forward` uses it block by block and keeps none of it.
        """
        self.require(embeddings, features)
        k = self.keys(self.norm_embeddings(embeddings))
        _, attention = InteractInOrder.attend(features.flatten(2), k, *self.in_order()[:2])
        return attention.unflatten(3, features.shape[2:])

    def fold(self, k: Tensor, v: Tensor) -> list[Tensor]:
        """For `Interact`: φ_q and LayerNorm in the keys, the output projection in the values."""
        keys = k @ self.query_matrix()  # (B, h, N, C)
        bias = k @ rearrange(self.q.bias, "(h d) -> h d 1", h=self.num_heads) + keys @ self.norm.bias[:, None]
        values = v @ rearrange(self.out.weight, "c (h d) -> h d c", h=self.num_heads)
        values = values + self.out.bias / self.num_heads  # each head's weights sum to 1
        keys, bias = (rearrange(x, "b h n c -> b (h n) c") for x in (keys * self.norm.weight, bias))
        return [keys, bias, rearrange(values, "b h n c -> b c (h n)")]

    def project(self, pooled: Tensor, share: Tensor) -> Tensor:
        """Mean normalised pixels -> mean queries; the share is 1, or less where the sum was clamped."""
        pooled = pooled * self.norm.weight + share * self.norm.bias
        b_q = rearrange(self.q.bias, "(h d) -> h 1 d", h=self.num_heads)
        return pooled @ self.query_matrix().mT + share * b_q  # (B, h, N, D)

    def query_matrix(self) -> Tensor:
        """W_q by heads, (h, D, C)."""
        return rearrange(self.q.weight, "(h d) c -> h d c", h=self.num_heads)

    def in_order(self) -> list[Tensor]:
        """For `InteractInOrder`: φ_q, with LayerNorm in it, and the output projection."""
        bias_q = F.linear(self.norm.bias, self.q.weight, self.q.bias)
        return [self.q.weight * self.norm.weight, bias_q[:, None], self.out.weight, self.out.bias[:, None]]


class InteractInOrder:
    """`cfii.kernels.Interact`, with equation 14 in its own order, for many heads. Sums up queries, not pixels."""

    @staticmethod
    def forward(
        x: Tensor, k: Tensor, v: Tensor, w_q: Tensor, b_q: Tensor, w_out: Tensor, b_out: Tensor, *ffn: Tensor
    ) -> tuple[Tensor, ...]:
        q, attention = InteractInOrder.attend(x, k, w_q, b_q)
        y = add_ffn(add_linear(x, (v @ attention).flatten(1, 2), w_out, b_out), *ffn)
        pooled = weighted_sum(attention.flatten(0, 1), q.flatten(0, 1)).unflatten(0, k.shape[:2])
        return y, pooled.flatten(1, 2)[:, None], pixel_sum(attention.flatten(1, 2))[:, None]

    @staticmethod
    def attend(x: Tensor, k: Tensor, w_q: Tensor, b_q: Tensor) -> tuple[Tensor, Tensor]:
        """The queries (B, h, D, P) and the attention (B, h, N, P)."""
        q = linear(standardise(x), w_q, b_q).unflatten(1, (k.shape[1], -1))
        return q, torch.softmax(k @ q, 2)
