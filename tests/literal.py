"""The paper's equations as printed, on the library's parameters: the oracle of the exact rewrites.

Nothing here is fast or clever. Each function takes a module of the library for its parameters and its
inputs, and computes what the equation says with convolutions, copies and plain matrix products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def conv(phi, x):
    """A 1×1 convolution, as the convolution it is printed as."""
    return F.conv2d(x, phi.weight, phi.bias)


def csa(module, f):
    """Equations 2-3: F''."""
    gate = torch.sigmoid(module.mlp(f.mean((2, 3))) + module.mlp(f.amax((2, 3))))  # M_c
    f_star = gate[:, :, None, None] * f
    pooled = torch.cat([f_star.mean(1, keepdim=True), f_star.amax(1, keepdim=True)], 1)
    return torch.sigmoid(module.conv(pooled)) * f_star


def eceg(module, features):
    """Equations 1-8."""
    f = conv(module.phi, features)  # (1)
    x = conv(module.project, torch.cat([f, csa(module.csa, f)], 1))  # (2-4)
    y = conv(module.phi2, conv(module.phi1, x))  # (5)
    embeddings = []
    for n in range(y.shape[1]):
        gate = torch.sigmoid(y[:, n : n + 1])
        z = conv(module.phi3, torch.cat([x * gate, x * (1 - gate)], 1))  # (6)
        embeddings.append(z.mean((2, 3)))  # (7)
    return torch.stack(embeddings, 1), y  # (8)


def tokens(features):
    return features.flatten(2).transpose(1, 2)  # (B, HW, C)


def unflatten(x, like):
    return x.transpose(1, 2).reshape(like.shape)


def heads(x, num_heads):
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)  # (B, heads, tokens, C/heads)


def ffn(module, x):
    return module.fc2(F.gelu(module.fc1(module.norm(x))))


def sit(module, embeddings, features):
    """Equations 9-13."""
    g = torch.cat([embeddings, tokens(features)], 1)
    h = module.norm(g)
    q, k, v = (heads(phi(h), module.num_heads) for phi in (module.q, module.k, module.v))  # (9)
    attention = torch.softmax(q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5, -1)
    g = module.out((attention @ v).transpose(1, 2).flatten(2)) + g  # (10)
    g = ffn(module.ffn, g) + g  # (11)
    n = embeddings.shape[1]
    return g[:, :n], unflatten(g[:, n:], features)  # (12, 13)


def cit(module, embeddings, features):
    """Equation 14, the rest as in SIT; the embeddings through the transposed attention map."""
    f = tokens(features)
    h, e = module.norm(f), module.norm_embeddings(embeddings)
    q = heads(module.q(h), module.num_heads)
    k, v = (heads(phi(e), module.num_heads) for phi in (module.k, module.v))  # (14)
    attention = torch.softmax(q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5, -1)  # (B, heads, HW, N)
    f = module.out((attention @ v).transpose(1, 2).flatten(2)) + f
    f = ffn(module.ffn, f) + f
    weights = attention.transpose(-2, -1)  # (B, heads, N, HW)
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
    return embeddings + (weights @ q).transpose(1, 2).flatten(2), unflatten(f, features)


def ceu(module, deep_embeddings, embeddings):
    """Equations 15-16."""
    first, second = module.phi4(deep_embeddings).chunk(2, -1)
    e = module.phi6(module.norm_gate(torch.cat([first, module.phi5(embeddings)], -1)))  # (15)
    return module.psi(torch.sigmoid(e) * module.norm_update(second) + embeddings)  # (16)


def feu(module, deep_features, features):
    """Equations 17-19."""
    deep = F.interpolate(conv(module.reduce, deep_features), features.shape[2:], mode="bilinear")
    a, b = conv(module.phi_deep, deep), conv(module.phi, features)
    a_s, a_c = torch.cat([a, b], 1), a + b  # (17)
    pooled = torch.cat([a_s.amax(1, keepdim=True), a_s.mean(1, keepdim=True)], 1)
    a_spa = torch.sigmoid(conv(module.spatial, pooled))  # (18)
    a_cpa = torch.sigmoid(module.channel(a_c.amax((2, 3)) + a_c.mean((2, 3))))
    return a_spa * features + a_cpa[:, :, None, None] * deep  # (19)


def iterate(iterator, features, embeddings):
    """Section 3.2: from the deepest stage to the shallowest."""
    from cfii import SIT

    features, embeddings = list(features), list(embeddings)
    for i in reversed(range(len(features))):
        if i + 1 < len(features):
            if iterator.ceu is not None:
                embeddings[i] = ceu(iterator.ceu[i], embeddings[i + 1], embeddings[i])
            if iterator.feu is not None:
                features[i] = feu(iterator.feu[i], features[i + 1], features[i])
        interact = sit if isinstance(iterator.interaction[i], SIT) else cit
        embeddings[i], features[i] = interact(iterator.interaction[i], embeddings[i], features[i])
    return features, embeddings


def neck(module, maps):
    """Section 3: chunk, ECEG, iterate, hand on (all stages take part)."""
    halves = [(f[:, : (f.shape[1] + 1) // 2], f[:, f.shape[1] // 2 :]) for f in maps]
    pairs = [eceg(block, first) for block, (first, _) in zip(module.eceg, halves, strict=True)]
    out, embeddings = iterate(module.iterator, [second for _, second in halves], [e for e, _ in pairs])
    if module.rejoin:
        out = [torch.cat([f[:, : f.shape[1] // 2], new], 1) for f, new in zip(maps, out, strict=True)]
    return out, embeddings, [y for _, y in pairs]
