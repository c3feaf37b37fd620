"""Filling blanks: a context encoder and a refinement of the blanks, every arm a field of one config.

The encoder reads the whole window; the vectors at the blanks are then refined for a number of passes.
What a blank may look at while it is refined is the experiment:

joint    the blanks of the window see one another (the earlier write-ups' TRM)
self     a blank sees only itself
random   a blank sees itself and, in place of the other blanks, as many random visible positions
context  a blank sees the blanks and the whole encoded context
"""

from dataclasses import dataclass

import torch
from torch import nn

from trmlib.errors import TrmError
from trmlib.layers import Block, gather
from trmlib.recursion import refine

SEES = ("joint", "self", "random", "context")


@dataclass(frozen=True)
class MaskedConfig:
    """One arm of the masked experiment."""

    d: int = 128  # width
    heads: int = 4  # attention heads
    dropout: float = 0.2  # in attention, after GELU and after the MLP
    context_blocks: int = 2  # blocks that read the window
    refine_blocks: int = 2  # blocks a refinement pass
    passes: int = 3  # refinement passes; 0 is the baseline
    sees: str = "joint"  # what a blank sees while refined, one of SEES
    tied: bool = True  # all passes share their blocks (recursion) or each has its own (plain depth)
    shared: bool = False  # passes use the context blocks themselves
    loss_passes: str = "last"  # "last": loss after the last pass; "every": mean over all passes

    def __post_init__(self):
        if self.sees not in SEES:
            raise TrmError(f"sees={self.sees!r} is unknown; choose one of {', '.join(SEES)}")
        if self.loss_passes not in ("last", "every"):
            raise TrmError(f"loss_passes={self.loss_passes!r} is unknown; choose last or every")
        if self.passes < 0 or self.context_blocks < 1:
            raise TrmError(f"passes={self.passes} must be ≥ 0 and context_blocks={self.context_blocks} ≥ 1")


class MaskedLM(nn.Module):
    """forward(tokens (b, t), at (b, m), partners (b, m, m-1)) → logits (b, m, vocab).

    With `every_pass=True`: (passes + 1, b, m, vocab), the read-out before any pass and after each;
    `passes` overrides the number of passes of a tied model at test time."""

    def __init__(self, config, vocab, context):
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(vocab, c.d)
        self.position = nn.Embedding(context, c.d)
        self.context_blocks = nn.ModuleList(Block(c.d, c.heads, c.dropout) for _ in range(c.context_blocks))
        own = 0 if c.shared or not c.passes else c.refine_blocks * (1 if c.tied else c.passes)
        self.refine_blocks = nn.ModuleList(Block(c.d, c.heads, c.dropout) for _ in range(own))
        self.norm = nn.LayerNorm(c.d)
        self.head = nn.Linear(c.d, vocab, bias=False)

    def forward(self, tokens, at, partners=None, passes=None, every_pass=False):
        c = self.config
        passes = c.passes if passes is None else passes
        if passes > c.passes and not (c.tied and c.passes):
            raise TrmError(f"this model has blocks for {c.passes} passes, {passes} were asked for")
        h = self.encode(tokens, at)
        states = refine(lambda y, k: self.step(y, k, h, at), self.slots(h, at, partners), passes)
        y = torch.stack(states) if every_pass else states[-1]
        if c.sees in ("self", "random") and c.passes:
            y = y[..., 0, :].unflatten(-2, at.shape)  # slot 0 of each set is the blank itself
        return self.head(self.norm(y))

    def encode(self, tokens, at):
        """Encoder states: of all positions (b, t, d) where a refinement looks at them, else of the blanks (b, m, d)."""
        h = self.embedding(tokens) + self.position.weight
        for block in self.context_blocks[:-1]:
            h = block(h)
        everywhere = self.config.passes and self.config.sees in ("random", "context")
        return self.context_blocks[-1](h, at=None if everywhere else at)

    def slots(self, h, at, partners):
        """The sets of vectors that are refined together, (sets, slots, d)."""
        c = self.config
        if not c.passes or c.sees == "joint":
            return h
        if c.sees == "context":
            return gather(h, at)
        if c.sees == "self":  # every blank a set of its own
            return h.flatten(0, 1).unsqueeze(1)
        seen = gather(h, partners.flatten(1)).unflatten(1, partners.shape[1:])  # (b, m, m-1, d)
        return torch.cat([gather(h, at).unsqueeze(2), seen], 2).flatten(0, 1)

    def step(self, y, k, h, at):
        """Pass number k over the sets y."""
        c = self.config
        if c.shared:
            blocks = self.context_blocks
        else:
            blocks = self.refine_blocks if c.tied else self.refine_blocks[k * c.refine_blocks : (k + 1) * c.refine_blocks]
        for block in blocks:
            if c.sees == "context":  # the blanks are written into the encoded window, which is read again
                y = block(h.scatter(1, at.unsqueeze(-1).expand_as(y), y), at=at)
            else:
                y = block(y)
        return y
