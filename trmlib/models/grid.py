"""TRM on grids (Sudoku) as published: one small net that refines a latent z and an answer y, read out after every step.

x, y, z and all hidden states have the positions first, (t, b, d): mixing over positions is then one matrix product, as is
mixing over channels, and nothing is ever transposed. One call is one supervision step: T recursions of n latent updates and
one answer update each, of which the last recursion carries gradient.

Source: Jolicoeur-Martineau, arXiv 2510.04871; where the paper is silent, its public code (SamsungSAILMontreal/
TinyRecursiveModels): tests/test_grid.py holds numbers that it gave.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from trmlib.errors import TrmError, check
from trmlib.layers import PostNormBlock, matrix, rotary_angles, truncated_normal
from trmlib.recursion import deep_recursion

CHOICES = {"mixer": ("mlp", "attention"), "start": ("fixed", "random", "examples", "entries"), "loss": ("stablemax", "softmax")}


@dataclass(frozen=True)
class GridConfig:
    """One model of the family, and how long it thinks."""

    d: int = 512  # width
    mixer: str = "mlp"  # positions exchange through an MLP over positions, or by attention with rotary positions
    heads: int = 8  # attention heads
    blocks: int = 2  # layers of the one net
    expansion: float = 4  # hidden width of the SwiGLUs: 2/3 of this, rounded up to …
    multiple: int = 256  # … multiples of this
    padding: int = (
        16  # positions before the cells: one learnt vector, read by the halting head, and zeros; and a symbol that no board holds
    )
    n: int = 6  # latent updates per answer update
    T: int = 3  # recursions per supervision step, the last with gradient
    n_sup: int = 16  # supervision steps a puzzle at most in training; always all of them in evaluation
    single: bool = False  # a single latent: y is z
    one_step: bool = False  # gradient through the last latent update and the answer update only
    start: str = (
        "fixed"  # y and z start at fixed vectors, at noise, or in training at noise for half of the examples or half of the entries
    )
    loss: str = "stablemax"  # or softmax
    halting: float = 0.5  # weight of the halting head's loss
    explore: float = 0.1  # share of examples that must take a random number of steps before they may halt
    n_width: int = 0  # in training n is drawn from n - width … n + width, for each step
    T_width: int = 0  # and T
    n_sup_width: int = 0  # and the supervision steps, for each puzzle
    curriculum: bool = False  # n and T at a third, then at two thirds, then whole, a third of the training each
    milestones: int = 0  # step s is asked for cells of the first s × milestones waves of deductions; 0: always for all cells

    def __post_init__(self):
        check(
            self, **CHOICES, d="≥ 1", heads="≥ 1", blocks="≥ 1", expansion="> 0", multiple="≥ 1", padding="≥ 0", n="≥ 1", T="≥ 1", n_sup="≥ 1",
            halting="≥ 0", explore="from 0 to 1", n_width="≥ 0", T_width="≥ 0", n_sup_width="≥ 0", milestones="≥ 0",
        )  # fmt: skip
        if self.mixer == "attention" and self.d % (2 * self.heads):
            raise TrmError(f"width d={self.d} must be an even multiple of heads={self.heads} (rotary positions turn pairs)")
        for name in ("n", "T", "n_sup"):
            if getattr(self, f"{name}_width") >= getattr(self, name):
                raise TrmError(f"{name}_width={getattr(self, f'{name}_width')} must lie in 0 … {name} - 1 = {getattr(self, name) - 1}")

    def hidden(self, width):
        """Hidden width of a SwiGLU."""
        return -(-round(self.expansion * width * 2 / 3) // self.multiple) * self.multiple


MIXING_5M = GridConfig()  # the published sizes
ATTENTION_7M = GridConfig(mixer="attention")


class GridTRM(nn.Module):
    """forward(boards (b, cells) of digits, 0 for blank) → (logits (b, cells, symbols), halting logits (b,), states (y, z)).

    One supervision step. Symbol s is digit s; digits end at `digits`, and with padding one more symbol follows. The returned
    states carry no gradient.

    states  (y, z), each (t, b, d), that an earlier step left; without them all examples begin, as by `start`
    fresh   (b,) bool: examples that begin although states are given
    n, T    in place of the config's"""

    def __init__(self, config, cells, digits):
        super().__init__()
        self.config, self.cells, self.digits = config, cells, digits
        c, symbols = config, digits + 1 + (config.padding > 0)
        self.embedding, self.head = matrix(symbols, c.d), matrix(symbols, c.d)
        self.first = nn.Parameter(torch.zeros(c.d)) if c.padding else None
        self.halting, self.bias = nn.Parameter(torch.zeros(c.d)), nn.Parameter(torch.tensor(-5.0))  # hardly ever halts at first
        t = c.padding + cells
        mixing = (t, c.hidden(t)) if c.mixer == "mlp" else (c.heads,)
        self.blocks = nn.ModuleList(PostNormBlock(c.d, c.hidden(c.d), *mixing) for _ in range(c.blocks))
        generator = torch.Generator().manual_seed(0)  # the same for every run
        self.register_buffer("fixed", truncated_normal(2, c.d, generator=generator), persistent=False)

    def hidden_matrices(self):
        """Names of the matrices that Muon takes: all of the net, not those that read and write symbols."""
        return [name for name, p in self.named_parameters() if name.startswith("blocks.") and p.dim() == 2]

    def start(self, b, noise=None, generator=None):
        """States (y, z) of b examples before the first step: fixed, or noise with `noise` (default: whether the config says so;
        "examples" and "entries" are noise in part, and only in training)."""
        c, shape = self.config, (self.config.padding + self.cells, b, self.config.d)
        fixed = [v.expand(shape) for v in self.fixed.to(self.embedding.dtype)]
        kind = c.start if noise is None and (self.training or c.start == "random") else "random" if noise else "fixed"
        if kind == "fixed":
            return tuple(fixed)
        options = {"generator": generator, "device": self.fixed.device, "dtype": self.embedding.dtype}
        drawn = [torch.randn(shape, **options) for _ in fixed]
        if kind == "random":
            return tuple(drawn)
        coin = torch.rand((1, b, 1) if kind == "examples" else (2, *shape), generator=generator, device=self.fixed.device) < 0.5
        return tuple(torch.where(coin if kind == "examples" else coin[i], drawn[i], fixed[i]) for i in range(2))

    def embed(self, boards):
        """x (t, b, d)."""
        c = self.config
        x = F.embedding(boards.T.long(), self.embedding)
        if c.padding:
            x = torch.cat([self.first.expand(1, len(boards), -1), x.new_zeros(c.padding - 1, len(boards), c.d), x])
        return math.sqrt(c.d) * x

    def forward(self, boards, states=None, fresh=None, n=None, T=None):
        c, x = self.config, self.embed(boards)
        if states is None or fresh is not None:
            begin = self.start(len(boards))
            states = begin if states is None else [torch.where(fresh[:, None], new, old) for new, old in zip(begin, states, strict=True)]
        angles = None
        if c.mixer == "attention":
            angles = rotary_angles(len(x), c.d // c.heads, x.device)[:, None, None].to(x.dtype)

        def net(*states):  # (x, y, z) → z and (y, z) → y; with a single latent (x, z) → z and z → z
            h = sum(states[:-2] + states[-1:]) if c.single else sum(states)
            for block in self.blocks:
                h = block(h, angles)
            return h

        y, z = deep_recursion(net, x, *states, n or c.n, T or c.T, single=c.single, updates=1 if c.one_step else None)
        halting = (y[0] if c.padding else y.mean(0)) @ self.halting + self.bias
        return F.linear(y[c.padding :].transpose(0, 1), self.head), halting, (y.detach(), z.detach())


def log_softmax(logits, kind):
    """Log-probabilities of logits (…, symbols) in fp32, by softmax or by stablemax: s(x) / Σ s(x), s(x) = x + 1 or 1 / (1 - x)."""
    logits = logits.float()
    if kind == "softmax":
        return logits.log_softmax(-1)
    log_s = torch.log1p(logits.clamp(min=0)) - torch.log1p(F.relu(-logits))  # of slope 1 at 0
    return log_s - log_s.logsumexp(-1, keepdim=True)


def cell_nll(logits, targets, kind):
    """NLL in nats of every cell: logits (b, cells, symbols), targets (b, cells) → (b, cells)."""
    return -log_softmax(logits, kind).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def steps(model, boards, n_sup=None, states=None, **options):
    """The supervision steps of a trained model on boards (b, cells), from its own start states or from given `states`: yields for
    every step the logits (b, cells, symbols), the halting logits (b,) and the states (y, z) after it. options: n, T."""
    for _ in range(n_sup or model.config.n_sup):
        logits, halting, states = model(boards, states, **options)
        yield logits, halting, states
