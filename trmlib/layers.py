"""Attention, MLP, the pre-norm block that every text model here is built from, and the post-norm block of grids.

A block can compute only some of its positions (`queries`): the rest still serve as keys and
values, so the result at those positions is the same and the work on all others is saved.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch._C._functorch import is_batchedtensor

from trmlib.errors import TrmError


class Dropout(nn.Module):
    """nn.Dropout with its rate rounded to 1/65536 and, on a CPU, a fifth of its cost: one 64-bit draw
    serves four entries, where PyTorch's serial Bernoulli kernel draws for each."""

    def __init__(self, p=0.0):
        super().__init__()
        if not 0 <= p < 0.999:
            raise TrmError(f"dropout rate must lie in 0 … 0.999, got {p}")
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
            raise TrmError(f"width d={d} must be a multiple of heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.drop = Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv.weight)  # as nn.MultiheadAttention does
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def split(self):
        """The fused projection as (weight, bias) of the queries and of keys and values."""
        d = self.out.in_features
        return tuple(zip(self.qkv.weight.split((d, 2 * d)), self.qkv.bias.split((d, 2 * d)), strict=True))

    def forward(self, x, queries=None, mask=None, angles=None, before=None):
        """x (b, t, d); queries (b, q, d), by default x; mask (q, t) or (b or 1, 1, q, t), True where attending is allowed;
        angles (t, d / heads / 2) for rotary positions, the queries then being the last q of x;
        before (b, s, 3d): projections of positions that stand before x, which then counts s + t positions; or (b, s, 2d):
        keys and values alone, of positions that are only attended to."""
        d = x.shape[-1]
        if queries is None:
            q, kv = self.qkv(x).split((d, 2 * d), dim=-1)
        else:
            query, key_value = self.split()
            q, kv = F.linear(queries, *query), F.linear(x, *key_value)
        if before is not None:
            kv = torch.cat([before[..., -2 * d :], kv], 1)
            q = torch.cat([before[..., :d], q], 1) if before.shape[-1] == 3 * d and queries is None else q
        k, v = kv.chunk(2, dim=-1)
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))  # (b, h, ·, d/h)
        if angles is not None:
            q, k = rotate(q, angles[-q.shape[2] :]), rotate(k, angles)
        weights = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)  # (b, h, q, t)
        if mask is not None:
            weights = weights.masked_fill(~mask, float("-inf"))
        y = self.drop(weights.softmax(-1)) @ v  # (b, h, q, d/h)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm x), then x + MLP(norm x); `normed`: both sums are brought to unit size."""

    def __init__(self, d, heads, dropout=0.0, normed=False):
        super().__init__()
        self.normed = normed
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), Dropout(dropout), nn.Linear(4 * d, d), Dropout(dropout))

    def prepared(self, x, read_only=False):
        """What this block can compute once of positions x (b, s, d) that stay the same from call to call: `before`. With
        `read_only` they are attended to, and their own results are not wanted."""
        h = self.norm1(x)
        return (None, F.linear(h, *self.attention.split()[1])) if read_only else (x, self.attention.qkv(h))

    def forward(self, x, at=None, mask=None, angles=None, before=None):
        """x (b, t, d) → (b, t, d); with `at`, positions (b, q) or a slice, only those are computed → (b, q, d);
        with `before`, prepared positions stand before those of x → (b, s + t, d), or (b, t, d) if they are read only."""
        h, projected = self.norm1(x), None
        if before is not None:
            x, projected = x if before[0] is None else torch.cat([before[0], x], 1), before[1]
        if at is None:
            queries = None
        else:
            x, queries = gather(x, at), gather(h, at)
        x = self.handed_on(x + self.attention(h, queries, mask, angles, projected))
        return self.handed_on(x + self.mlp(self.norm2(x)))

    def handed_on(self, x):
        return unit(x) if self.normed else x


def unit(x):
    """x (…, d) brought to unit size (RMS)."""
    return F.rms_norm(x, x.shape[-1:])


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
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # under autocast x is a half
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def truncated_normal(*shape, std=1.0, generator=None):
    """Numbers of standard deviation `std` from a normal that is cut at twice its own."""
    wide = std / 0.8796256610342398  # what the cut leaves of a unit normal's
    return nn.init.trunc_normal_(
        torch.empty(shape, device=generator and generator.device), std=wide, a=-2 * wide, b=2 * wide, generator=generator
    )


def matrix(*shape):
    """A weight (out, in) of standard deviation 1 / √in."""
    return nn.Parameter(truncated_normal(*shape, std=shape[-1] ** -0.5))


def rms_norm(x, dim):
    """x over its root mean square along `dim`, computed in fp32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(dim, keepdim=True) + 1e-5)).to(x.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate) · up) over channels: (…, width) → (…, width)."""

    def __init__(self, width, hidden):
        super().__init__()
        self.gate_up, self.down = matrix(2 * hidden, width), matrix(width, hidden)

    def forward(self, x):
        gate, up = F.linear(x, self.gate_up).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down)


class PositionMLP(SwiGLU):
    """The same over positions: (t, b, d) → (t, b, d)."""

    def forward(self, x, angles=None):
        gate, up = (self.gate_up @ x.flatten(1)).chunk(2)  # (hidden, b d)
        return (self.down @ (F.silu(gate) * up)).view_as(x)


class PlainAttention(nn.Module):
    """Every position attends to all: (t, b, d) → (t, b, d)."""

    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, matrix(3 * d, d), matrix(d, d)

    def forward(self, x, angles):
        """angles (t, 1, 1, d / heads / 2)."""
        h, p = self.heads, F.linear(x, self.qkv).unflatten(-1, (3 * self.heads, -1))  # (t, b, 3 h, d / h)
        turned = rotate(p[:, :, : 2 * h], angles)
        q, k, v = (a.permute(1, 2, 0, 3) for a in (turned[:, :, :h], turned[:, :, h:], p[:, :, 2 * h :]))  # (b, h, t, d / h)
        if x.is_cuda:
            y = F.scaled_dot_product_attention(q, k, v)
        else:  # the fused kernel for CPUs is hardly faster, and neither counted nor batched
            y = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v
        return F.linear(y.permute(2, 0, 1, 3).flatten(2), self.out)


class PostNormBlock(nn.Module):
    """TRM's layer: norm(x + mixing over positions), then norm(x + SwiGLU); positions stand first, (t, b, d).

    mixing: (heads,) for attention, (positions, hidden) for an MLP over positions, which is normed over positions, as in the
    public code."""

    def __init__(self, d, hidden, *mixing):
        super().__init__()
        self.mixer = PlainAttention(d, *mixing) if len(mixing) == 1 else PositionMLP(*mixing)
        self.over = -1 if len(mixing) == 1 else 0
        self.mlp = SwiGLU(d, hidden)

    def forward(self, x, angles=None):
        x = rms_norm(x + self.mixer(x, angles), self.over)
        return rms_norm(x + self.mlp(x), -1)
