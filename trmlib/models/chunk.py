"""Predicting a chunk of tokens from the context before it: recursive, parallel and causal models as one family.

The context x is embedded (and, with `encode`, read once by the causal stack). The chunk is a row of slots, an answer y
and a latent state z each, refined by the recursion: net(y + z) runs [x; y + z] through the stack and keeps the slots.
Three fields make the arms of the report:

TRM            encode, n > 0: the earlier chunk TRM starts its slots at the very tokens it is asked for (start="target")
parallel       encode, n = 0, T = 1: the slots read the encoded context once
causal         no encoder, causal, n = 0, T = 1, start="shifted": slot i holds the token before the one it predicts,
               which is a plain next-token transformer; with T > 1 the stack is applied to its own slots again
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from trmlib.errors import TrmError, check
from trmlib.layers import Block, rotary_angles, unit
from trmlib.recursion import latent_recursion, refine

STARTS = ("target", "mask", "last", "zeros", "noise", "shifted")
GRADIENTS = ("all", "last", "update")


@dataclass(frozen=True)
class ChunkConfig:
    """One model of the family."""

    d: int = 64  # width
    heads: int = 4  # attention heads
    blocks: int = 2  # blocks of the one stack that encodes and refines
    dropout: float = 0.2  # in attention, after GELU and after the MLP
    # Where slots start: the target (the leak), a mask embedding, the last token, zeros, noise, or shifted tokens. Where the gradient reaches
    # only the last of several refinements it does not reach the start: a mask and the slots' positions stay as they were drawn (as in the earlier code).
    start: str = "mask"
    noise: float = 0.1  # standard deviation of the noise start
    encode: bool = True  # the stack reads the context causally first; else refinements see its bare embedding
    causal: bool = False  # refinements run under the causal mask; else slots and context all see each other
    n: int = 6  # latent updates per answer update
    T: int = 3  # refinements (recursions), each n latent updates and one answer update
    bounded: bool = False  # y and z are brought to unit size (RMS) after every refinement; else these blocks let them grow about eightfold
    normed: bool = False  # so is each sum in the blocks, as in the paper's; else they are pre-norm blocks, as in the earlier code
    gradient: str = "last"  # reaches all refinements, the last, or only its last latent update and the answer update
    loss_passes: str = "last"  # "last": loss after the last refinement; "every": mean over all
    # Loss at every position of the window, else at the chunk. With `encode` the context's own next tokens are read from the encoder, which is causal,
    # and their mean NLL is added to that of the slots; without it, slots hold the whole window (start="shifted" only).
    everywhere: bool = False
    # With `everywhere` and without `encode`: a chunk is predicted as that trains, every position of the window a slot, refined as often as the chunk's.
    whole: bool = False
    positions: str = "learned"  # or rotary
    tied_head: bool = True  # the head is the embedding
    init: float = 0.02  # standard deviation of embeddings and linear layers; 0 for PyTorch's own rules

    def __post_init__(self):
        check(
            self, d="≥ 1", heads="≥ 1", blocks="≥ 1", dropout="from 0 to below 0.999", start=STARTS, noise="≥ 0", n="≥ 0", T="≥ 1", gradient=GRADIENTS, loss_passes=("last", "every"), positions=("learned", "rotary"), init="≥ 0",
        )  # fmt: skip
        if self.positions == "rotary" and self.d % (2 * self.heads):
            raise TrmError(f"width d={self.d} must be an even multiple of heads={self.heads} (rotary positions turn pairs)")
        if self.everywhere and not self.encode and self.start != "shifted":
            raise TrmError(f"everywhere needs encode or start='shifted', not {self.start!r}: other slots have no tokens to predict from")
        if self.whole and (self.encode or not self.everywhere):
            raise TrmError("whole needs everywhere without encode: only there are all positions of the window slots")
        if self.everywhere and self.encode and self.loss_passes == "every":
            raise TrmError("everywhere with encode reads one state out, the last: choose loss_passes='last'")

    @property
    def chain(self):
        """Does slot i see the earlier tokens of its chunk, so that the chunk's likelihood is a chain rule?"""
        return self.start == "shifted"


class ChunkLM(nn.Module):
    """forward(tokens (b, context + chunk)) → (logits (b, chunk, vocab), carry (y, z)); the chunk stands last in `tokens`.

    start       another start than the config's: a name, or tokens (b, chunk) whose embeddings the slots start from
    carry       (y, z) of an earlier call, in place of any start; the returned one is detached
    passes      refinements, in place of T
    every_pass  logits (passes + 1, b, chunk, vocab): before the first refinement and after each
    slots       how many of the last tokens are predicted, in place of the chunk (start="shifted" only)
    mean_nll    the mean NLL in nats of the predicted tokens () in place of the logits, plus that of the context's next tokens where the model
                encodes and is trained `everywhere`; unless told fused=False, logits of many positions are never in memory at once"""

    def __init__(self, config, vocab, context, chunk):
        super().__init__()
        if not 1 <= chunk <= context:
            raise TrmError(f"a chunk of {chunk} does not fit: it must lie in 1 … context={context}")
        self.config, self.context, self.chunk = config, context, chunk
        c = config
        self.embedding = nn.Embedding(vocab, c.d)
        self.position = nn.Embedding(context + chunk, c.d) if c.positions == "learned" else None
        self.mask = nn.Parameter(torch.zeros(c.d)) if c.start == "mask" else None
        self.blocks = nn.ModuleList(Block(c.d, c.heads, c.dropout, c.normed) for _ in range(c.blocks))
        self.norm = nn.LayerNorm(c.d)
        self.head = None if c.tied_head else nn.Linear(c.d, vocab, bias=False)
        if c.init:
            for name, p in self.named_parameters():
                if p.dim() > 1 and "qkv" not in name:  # these keep the rule of nn.MultiheadAttention, as in the earlier code
                    nn.init.normal_(p, std=c.init)
                elif name.endswith("bias"):
                    nn.init.zeros_(p)
        if self.mask is not None:
            nn.init.normal_(self.mask, std=c.init or 1.0)  # last, so that arms of one seed share all other weights

    def forward(self, tokens, start=None, carry=None, passes=None, every_pass=False, slots=None, mean_nll=False, fused=True):
        c, told = self.config, slots or self.chunk  # how many tokens are predicted, and of how many slots (all that follow the first token)
        m = tokens.shape[1] - 1 if c.whole else told
        if slots and not c.chain:
            raise TrmError(f"only start='shifted' predicts another number of slots than its chunk; this model has start={c.start!r}")
        if not told < tokens.shape[1] <= self.context + self.chunk:
            raise TrmError(f"{tokens.shape[1]} tokens do not fit a context of {self.context} and a chunk of {told}")
        targets, tokens = tokens[:, -told:], tokens[:, :-1] if c.chain else tokens
        t, length = tokens.shape[1] - m, tokens.shape[1]  # positions of the context; all positions
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        angles = rotary_angles(length, c.d // c.heads, tokens.device) if c.positions == "rotary" else None
        x = self.question(tokens[:, :t], causal[:t, :t], None if angles is None else angles[:t])  # (b, t, d)
        passes = c.T if passes is None else passes
        again = passes * (c.n + 1) > 1 and len(self.blocks) > 1  # then the first block projects the context once for all calls
        before = self.blocks[0].prepared(x) if again else None

        def net(*states):  # (x, y, z) → z and (y, z) → y: here both read the context
            return self.stack(x, states[-2] + states[-1], causal if c.causal else None, angles, before)

        def refinement(state, k):
            with_grad = torch.is_grad_enabled() and (c.gradient == "all" or k == passes - 1)
            with torch.set_grad_enabled(with_grad):
                state = latent_recursion(net, x, *state, c.n, with_grad=1 if c.gradient == "update" else None)
                return tuple(map(unit, state)) if c.bounded else state

        y = self.placed(self.begin(tokens, t, start), t) if carry is None else carry[0]
        z = torch.zeros_like(y) if carry is None else carry[1]
        states = refine(refinement, (y, z), passes)
        y, z = states[-1]
        if mean_nll:
            nll = read_nll(self.norm(y[:, -told:]).flatten(0, 1), self.rows, targets.flatten(), fused)
            if c.encode and c.everywhere:
                nll = nll + read_nll(self.norm(x).flatten(0, 1), self.rows, tokens[:, 1 : t + 1].flatten(), fused)
            return nll, (y.detach(), z.detach())
        logits = self.read(torch.stack([s[0] for s in states])[:, :, -told:] if every_pass else y[:, -told:])
        return logits, (y.detach(), z.detach())

    def question(self, context, causal, angles=None):
        """What refinements read (b, t, d): the context (b, t) embedded and, with `encode`, read once by the causal stack."""
        x = self.placed(self.embedding(context), 0)
        if self.config.encode:
            for block in self.blocks:
                x = block(x, mask=causal, angles=angles)
        return x

    def placed(self, h, first):
        """h (b, t, d) at positions first, first + 1, …"""
        return h if self.position is None else h + self.position.weight[first : first + h.shape[1]]

    def begin(self, tokens, t, start=None):
        """Where the slots start, without positions: (b, m, d)."""
        start = self.config.start if start is None else start
        own = tokens[:, t:] if isinstance(start, str) else start
        if not isinstance(start, str) or start in ("target", "shifted"):
            return self.embedding(own)
        if start == "last":
            return self.embedding(tokens[:, t - 1 : t].expand_as(own))
        if start == "mask" and self.mask is None:
            raise TrmError(f"a model with start={self.config.start!r} has no mask embedding to start from")
        zeros = self.embedding.weight.new_zeros(*own.shape, self.config.d)
        if start == "mask":
            return zeros + self.mask
        if start == "noise":  # drawn anew in training, the same in every evaluation
            fixed = None if self.training else torch.Generator(zeros.device).manual_seed(0)
            return self.config.noise * torch.randn(zeros.shape, generator=fixed, device=zeros.device, dtype=zeros.dtype)
        if start != "zeros":
            raise TrmError(f"start={start!r} is unknown; choose one of {', '.join(STARTS)}")
        return zeros

    def stack(self, x, slots, mask=None, angles=None, before=None):
        """The blocks over [x; slots] → slots (b, m, d). In the last block only the slots are computed; `before` is
        what the first block prepared of x."""
        t, h = x.shape[1], slots if before else torch.cat([x, slots], 1)
        for block in self.blocks[:-1]:
            h, before = block(h, mask=mask, angles=angles, before=before), None
        at = slice(t, None) if t else None
        return self.blocks[-1](h, at=at, mask=None if mask is None else mask[t:], angles=angles)

    def read(self, y):
        """Logits (…, vocab) of states (…, d)."""
        return F.linear(self.norm(y), self.rows)

    @property
    def rows(self):
        """What the answer is read out by: (vocab, d)."""
        return self.embedding.weight if self.head is None else self.head.weight


def read_nll(h, rows, targets, fused=True, part=512):
    """Mean NLL in nats of targets (N,) that states h (N, d) are read out to by `rows` (V, d). Where it may be `fused`, on a CPU and where PyTorch
    can (2.13), no more than `part` at once: their logits fit in the cache, and the step of a model trained everywhere takes less than half the time."""
    if fused and len(h) > part and h.device.type == "cpu" and hasattr(nn, "LinearCrossEntropyOptions"):
        return F.linear_cross_entropy(h, rows, targets, options=nn.LinearCrossEntropyOptions(batch_chunk_size=part))
    return F.cross_entropy(F.linear(h, rows).float(), targets)


def slot_nll(logits, tokens):
    """NLL in nats of each predicted token: logits (…, b, m, vocab), tokens (b, ≥ m) whose last m are the targets → (…, b, m).

    Its sum over slots is −log q(chunk | context): by the chain rule where a slot saw the earlier tokens of its chunk (start="shifted"), as the
    product of the slots' own distributions where it did not. It is no likelihood at all where slots start at the target."""
    targets = tokens[:, -logits.shape[-2] :].expand(logits.shape[:-1])
    return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


@torch.no_grad()
def generate(model, tokens, length, temperature=1.0, top_k=0, seed=0):
    """Continue tokens (b, ≥ 1) by `length`, chunk by chunk: parallel slots are drawn at once, shifted ones one after the other.

    temperature 0 takes the likeliest token; top_k 0 allows all of them. The last `context` tokens are read."""
    if model.config.start == "target":
        raise TrmError("a model that starts at the target cannot generate: it needs the text that it is asked for")
    if temperature < 0 or top_k < 0:
        raise TrmError(f"temperature={temperature} and top_k={top_k} must not be negative")
    generator = torch.Generator(tokens.device).manual_seed(seed)
    training, m, out = model.training, model.chunk, tokens
    model.eval()
    while out.shape[1] < tokens.shape[1] + length:
        window = F.pad(out[:, -model.context :], (0, m))
        for slot in range(m) if model.config.chain else [slice(None)]:
            logits = model(window)[0][:, slot].reshape(len(out), -1, model.embedding.num_embeddings)
            window[:, -m:][:, slot] = draw(logits, temperature, top_k, generator).view_as(window[:, -m:][:, slot])
        out = torch.cat([out, window[:, -m:]], 1)
    model.train(training)
    return out[:, : tokens.shape[1] + length]


def draw(logits, temperature, top_k, generator):
    """One token for each row of logits (…, vocab)."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1]))[0][..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    p = logits.softmax(-1)
    return torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])


@torch.no_grad()
def strip(model, tokens, passes=None):
    """The passes of one chunk, to be read: for each pass (before the first, then after each refinement) and slot of the
    chunk that ends `tokens` (t,), the likeliest token, its probability and the target's: dict of arrays (passes + 1, m)."""
    training = model.training
    model.eval()
    p = model(tokens.unsqueeze(0), passes=passes, every_pass=True)[0][:, 0].softmax(-1)  # (passes + 1, m, vocab)
    model.train(training)
    best, token = p.max(-1)
    of_target = p.gather(-1, tokens[-p.shape[1] :].expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return {"token": token.cpu().numpy(), "probability": best.cpu().numpy(), "of_target": of_target.cpu().numpy()}
