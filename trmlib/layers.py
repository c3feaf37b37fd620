"""Attention, MLP and the pre-norm block that every text model here is built from.

A block can compute only some of its positions (`queries`): the rest still serve as keys and
values, so the result at those positions is the same and the work on all others is saved.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch._C._functorch import is_batchedtensor


class Dropout(nn.Module):
    """nn.Dropout with its rate rounded to 1/65536 and, on a CPU, a fifth of its cost: one 64-bit draw
    serves four entries, where PyTorch's serial Bernoulli kernel draws for each."""

    def __init__(self, p=0.0):
        super().__init__()
        if not 0 <= p < 0.999:
            raise ValueError(f"dropout rate must lie in 0 … 0.999, got {p}")
        self.p = p

    def forward(self, x):
        if not self.training or self.p < 2**-17:
            return x
        if x.device.type != "cpu" or is_batchedtensor(x):
            return F.dropout(x, self.p)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        drop = round(self.p * 2**16) - 2**15  # values below are dropped
        keep = bits[: x.numel()].view(x.shape).clamp_(drop - 1, drop).sub_(drop - 1).to(x.dtype)  # 0 or 1
        return x * keep.mul_(1 / (1 - self.p))


class Attention(nn.Module):
    """Multi-head attention with one fused projection; same weights as `nn.MultiheadAttention`."""

    def __init__(self, d, heads, dropout=0.0):
        super().__init__()
        if d % heads:
            raise ValueError(f"width d={d} must be a multiple of heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.drop = Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)  # as nn.MultiheadAttention does
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, queries=None, mask=None, angles=None, before=None):
        """x (b, t, d); queries (b, q, d), by default x; mask (q, t) or (b or 1, 1, q, t), True where attending is allowed;
        angles (t, d / heads / 2) for rotary positions, the queries then being the last q of x;
        before (b, s, 3d): projections of positions that stand before x, which then counts s + t positions."""
        d = x.shape[-1]
        if queries is None:
            projected = self.qkv(x) if before is None else torch.cat([before, self.qkv(x)], 1)
            q, k, v = projected.chunk(3, dim=-1)
        else:
            (wq, wkv), (bq, bkv) = self.qkv.weight.split((d, 2 * d)), self.qkv.bias.split((d, 2 * d))
            q = F.linear(queries, wq, bq)
            k, v = F.linear(x, wkv, bkv).chunk(2, dim=-1)
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))  # (b, h, ·, d/h)
        if angles is not None:
            q, k = rotate(q, angles[-q.shape[2] :]), rotate(k, angles)
        weights = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)  # (b, h, q, t)
        if mask is not None:
            weights = weights.masked_fill(~mask, float("-inf"))
        y = self.drop(weights.softmax(-1)) @ v  # (b, h, q, d/h)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm x), then x + MLP(norm x)."""

    def __init__(self, d, heads, dropout=0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), Dropout(dropout), nn.Linear(4 * d, d), Dropout(dropout))

    def prepared(self, x):
        """What this block can compute once of positions x (b, s, d) that stay the same from call to call: `before`."""
        return x, self.attention.qkv(self.norm1(x))

    def forward(self, x, at=None, mask=None, angles=None, before=None):
        """x (b, t, d) → (b, t, d); with `at`, positions (b, q) or a slice, only those are computed → (b, q, d);
        with `before`, prepared positions stand before those of x → (b, s + t, d)."""
        h, projected = self.norm1(x), None
        if before is not None:
            x, projected = torch.cat([before[0], x], 1), before[1]
        if at is None:
            queries = None
        else:
            x, queries = gather(x, at), gather(h, at)
        x = x + self.attention(h, queries, mask, angles, projected)
        return x + self.mlp(self.norm2(x))


def gather(x, at):
    """Rows of x (b, t, d) at positions `at`, (b, q) or a slice → (b, q, d)."""
    if isinstance(at, slice):
        return x[:, at]
    return torch.gather(x, 1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def rotary_angles(t, d, device=None, base=10_000):
    """Angles (t, d / 2) of rotary positions 0 … t-1 in a head of width d (Su et al. 2021, arXiv 2104.09864)."""
    return torch.arange(t, device=device).unsqueeze(1) * base ** (-torch.arange(0, d, 2, device=device) / d)


def rotate(x, angles):
    """Turn the pairs (x_i, x_(i + d/2)) of x (…, t, d) by angles (t, d / 2)."""
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
