"""Filling blanks: a context encoder and a refinement of the blanks, every arm a field of one config.

The encoder reads the whole window; the vectors at the blanks are then refined for a number of passes.
What a blank may look at while it is refined is the experiment:

joint    the blanks of the window see one another (the earlier write-ups' TRM)
self     a blank sees only itself
random   a blank sees itself and, in place of the other blanks, as many random visible positions
context  a blank sees the blanks and the whole encoded context, anew at every pass
window   a blank sees itself and the whole encoded context, anew at every pass, but no other blank; with n > 0 it does in the update of y, which reads no context
all      every position of the window is refined, not the blanks alone
"""

from dataclasses import dataclass

import torch
from torch import nn

from trmlib.errors import TrmError, check
from trmlib.layers import Block, gather, unit
from trmlib.recursion import latent_recursion, refine

SEES = ("joint", "self", "random", "context", "window", "all")
REREADS = ("context", "window")
STATES = ("latent", "tokens")
START = 4.0  # standard deviation of the random starts: at 1 they drown in the encoder's state and training ignores them


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
    random_passes: bool = False  # each training step draws its number of passes, 1 … 2·passes - 1
    rereads: bool = False  # with sees="all": the embedded window is added again at every pass
    state: str = "latent"  # what a pass hands on: its vectors, or the "tokens" it has committed to
    n: int = 0  # latent updates of z before each update of y, as in TRM; 0: y alone is refined
    with_grad: int = 0  # passes that carry gradient, the last ones (fewer than all: the encoder gets one only where they read it anew); 0: all
    bounded: bool = False  # y and z are brought to unit size (RMS) after every pass; else what a pass adds counts for less and less
    normed: bool = False  # so is each sum in the blocks, as in the paper's; else they are pre-norm blocks, as in the earlier code
    init: float = 1.0  # standard deviation of the initial embeddings
    samples: int = 1  # K random starts, drawn once and kept, trained on their joint log-mean-exp; 1: the encoder's own

    def __post_init__(self):
        least = "≥ 0" if self.passes and self.sees in (*REREADS, "all") else "≥ 1"  # such a refinement reads the words itself
        check(
            self, d="≥ 1", heads="≥ 1", dropout="from 0 to below 0.999", context_blocks=least, refine_blocks="≥ 1", passes="≥ 0", sees=SEES,
            loss_passes=("last", "every"), state=STATES, n="≥ 0", with_grad="≥ 0", init="≥ 0", samples="≥ 1",
        )  # fmt: skip
        if self.d % self.heads:
            raise TrmError(f"width d={self.d} must be a multiple of heads={self.heads}")
        if not self.passes and (self.samples > 1 or self.n or self.random_passes or self.loss_passes == "every"):
            raise TrmError("random starts, latent updates, random numbers of passes and a loss of every pass need passes ≥ 1")
        if (self.samples > 1 or self.n or self.state == "tokens") and self.sees in ("self", "random"):
            raise TrmError(f"sees={self.sees!r} goes with samples=1, n=0 and state='latent'")
        if (self.random_passes or self.n) and not self.tied:
            raise TrmError("latent updates and random numbers of passes need tied=True")
        if self.rereads and self.sees != "all":
            raise TrmError(f"rereads goes with sees='all', not {self.sees!r}")
        if not 0 <= self.with_grad <= self.passes:
            raise TrmError(f"with_grad={self.with_grad} must lie in 0 … passes={self.passes}")


class MaskedLM(nn.Module):
    """forward(tokens (b, t), at (b, m), partners (b, m, m-1)) → logits (b, m, vocab), or (K, b, m, vocab) from K random starts.

    With `every_pass=True`: one axis more in front, the read-out before any pass and after each; `passes` overrides the number
    of passes of a tied model; with `hand_on` also the last state (y, z), detached, which as `carry` replaces the start."""

    def __init__(self, config, vocab, context):
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(vocab, c.d)
        self.position = nn.Embedding(context, c.d)
        with torch.no_grad():
            for table in (self.embedding, self.position):
                table.weight.mul_(c.init)
        self.context_blocks = nn.ModuleList(Block(c.d, c.heads, c.dropout, c.normed) for _ in range(c.context_blocks))
        own = 0 if c.shared or not c.passes else c.refine_blocks * (1 if c.tied else c.passes)
        self.refine_blocks = nn.ModuleList(Block(c.d, c.heads, c.dropout, c.normed) for _ in range(own))
        self.norm = nn.LayerNorm(c.d)
        self.head = nn.Linear(c.d, vocab, bias=False)
        if c.samples > 1:  # the same in every model, so that saved parameters are all there is to know
            starts = START * torch.randn(c.samples, 1, 1, c.d, generator=torch.Generator().manual_seed(0))
            self.register_buffer("starts", starts, persistent=False)

    def forward(self, tokens, at, partners=None, passes=None, every_pass=False, carry=None, hand_on=False):
        c = self.config
        passes = c.passes if passes is None else passes
        if passes > c.passes and not (c.tied and c.passes):
            raise TrmError(f"this model has blocks for {c.passes} passes, {passes} were asked for")
        h = self.encode(tokens, at)
        y = self.slots(h, at, partners)
        if c.samples > 1:  # every window from K starts, which its blanks share
            y = (y + self.starts).flatten(0, 1)  # (K·b, m, d)
            h, at = (a.repeat(c.samples, *[1] * (a.ndim - 1)) for a in (h, at))
        read = self.reader(h, tokens, at)
        state = (y, torch.zeros_like(y)) if carry is None else (self.handed_on(carry[0]), carry[1])
        quiet = max(0, passes - c.with_grad) if c.with_grad else 0
        with torch.no_grad():
            states = refine(lambda s, k: self.step(*s, k, read), state, quiet)
        states += refine(lambda s, k: self.step(*s, quiet + k, read), states[-1], passes - quiet)[1:]
        y = torch.stack([y for y, _ in states]) if every_pass else states[-1][0]
        if c.sees in ("self", "random") and c.passes:
            y = y[..., 0, :].unflatten(-2, at.shape)  # slot 0 of each set is the blank itself
        if c.sees == "all" and c.passes:
            y = torch.stack([gather(v, at) for v in y]) if every_pass else gather(y, at)
        if c.samples > 1:
            y = y.unflatten(-3, (c.samples, -1))
        logits = self.head(self.norm(y))
        return (logits, tuple(s.detach() for s in states[-1])) if hand_on else logits

    def encode(self, tokens, at):
        """Encoder states: of all positions (b, t, d) where a refinement looks at them, else of the blanks (b, m, d)."""
        h = self.embed(tokens)
        everywhere = self.config.passes and self.config.sees in ("random", *REREADS, "all")
        for i, block in enumerate(self.context_blocks):
            last = i == len(self.context_blocks) - 1
            h = block(h, at=at if last and not everywhere else None)
        return h

    def embed(self, tokens):
        return self.embedding(tokens) + self.position.weight

    def slots(self, h, at, partners):
        """The sets of vectors that are refined together, (sets, slots, d)."""
        c = self.config
        if not c.passes or c.sees in ("joint", "all"):
            return h
        if c.sees in REREADS:
            return gather(h, at)
        if c.sees == "self":  # every blank a set of its own
            return h.flatten(0, 1).unsqueeze(1)
        seen = gather(h, partners.flatten(1)).unflatten(1, partners.shape[1:])  # (b, m, m-1, d)
        return torch.cat([gather(h, at).unsqueeze(2), seen], 2).flatten(0, 1)

    def blocks(self, k):
        """The blocks of pass number k."""
        c = self.config
        if c.shared:
            return self.context_blocks
        return self.refine_blocks if c.tied else self.refine_blocks[k * c.refine_blocks : (k + 1) * c.refine_blocks]

    def reader(self, h, tokens, at):
        """What every pass may read again, computed once: with sees="context" or "window" the keys and values of the window for
        each block, the blanks hidden (they are read in their newest state); with `rereads` the embedded window."""
        c = self.config
        if c.rereads:
            return self.embed(tokens).repeat(len(h) // len(tokens), 1, 1)
        if not c.passes or c.sees not in REREADS:
            return None
        hidden = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device).scatter(1, at, True)
        words = ~hidden[:, None, None].expand(-1, -1, at.shape[1], -1)  # (b, 1, m, t)
        blanks = torch.ones(at.shape[1], at.shape[1], dtype=torch.bool, device=h.device)
        blanks = torch.eye(at.shape[1], dtype=torch.bool, device=h.device) if c.sees == "window" else blanks
        visible = torch.cat([words, blanks.expand(len(h), 1, -1, -1)], -1)  # (b, 1, m, t + m)
        return visible, {
            block: block.prepared(h, read_only=True) for block in dict.fromkeys(b for k in range(c.passes) for b in self.blocks(k))
        }

    def step(self, y, z, k, read):
        """Pass number k: the new (y, z). With n = 0 only y is updated; else z n times, then y (TRM), which reads z alone."""
        y = self.handed_on(y) if k else y
        if self.config.n:
            net = lambda *s: self.think(s[1] + s[2], k, read) if len(s) == 3 else self.think(s[0] + s[1], k)  # noqa: E731
            y, z = latent_recursion(net, None, y, z, self.config.n)
        else:
            y = self.think(y, k, read)
        return (unit(y), unit(z)) if self.config.bounded else (y, z)

    def think(self, v, k, read=None):
        """The blocks of pass k on v, with what may be read again or without."""
        if read is None:
            visible = memories = None
        elif self.config.rereads:
            v, visible, memories = v + read, None, None
        else:
            visible, memories = read
        for block in self.blocks(k):
            v = block(v, mask=visible, before=memories and memories[block])
        return v

    def handed_on(self, y):
        """What a pass gets of the pass before it."""
        return self.commit(y) if self.config.state == "tokens" else y

    def commit(self, y):
        """The embedding of the likeliest token; the gradient is that of the expected embedding (straight-through)."""
        p = self.head(self.norm(y)).softmax(-1)
        hard = torch.zeros_like(p).scatter(-1, p.argmax(-1, keepdim=True), 1.0)
        return (hard + p - p.detach()) @ self.embedding.weight
