"""Capacity: does a model forget once it has seen more windows than it has parameters? The grid of arms, and their task."""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trmlib.data import tokens
from trmlib.data.tokens import PAD, TokensConfig
from trmlib.errors import TrmError
from trmlib.evaluate import score_chunks
from trmlib.experiments import capacity_evaluations as evaluations  # noqa: F401, part of what an experiment offers
from trmlib.models.chunk import ChunkConfig, ChunkLM, slot_nll
from trmlib.runs import Run, Spec, TrainConfig

NAME = "capacity"
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEEDS = (100, 101, 102)
CORPUS = "wiki-core"  # "wikitext-103" where it is at hand: the one setting to change
TIMES = 4  # unique windows seen by the models that test the law, in parameters of the model
BRIEF = 2  # by those of comparisons
COMPUTE = {  # steps of a rival that cost as much as one of the TRM of its setting (counted: tests/test_capacity.py)
    "standard 0.1M": 0.63, "causal 0.1M": 4.5, "standard WikiText-2": 0.505, "causal WikiText-2": 4.02, "everywhere WikiText-2": 0.335,
}  # fmt: skip

SIZES = {"0.04M": 8, "0.1M": 20, "0.3M": 56, "1M": 128, "3M": 272, "7M": 456}  # name → width at 4,096 pieces
CPU_SIZES = ("0.04M", "0.1M", "0.3M")
BASE = "0.1M"  # the size of comparisons and ablations
SMALL = "0.04M"  # the size of interventions on the law
WIDTHS = (2, 4, 8, 12, 28, 56)  # of the rivals that the parameter efficiency is read off, all seeing the same windows; the TRM lies below 4
EARLIER = ChunkConfig(d=128, dropout=0.1, start="target", n=3, T=2)  # the WikiText-103 run of the write-up
TRM = replace(EARLIER, start="mask")
CAUSAL = ChunkConfig(d=128, dropout=0.1, start="shifted", encode=False, causal=True, n=0, T=1)
WHOLE = replace(
    TRM, everywhere=True, gradient="all"
)  # the TRM whose encoder learns from the context's own tokens, as a standard model does
STANDARD = replace(CAUSAL, everywhere=True)  # trained at every position of its windows, as such models usually are
RIVALS = {"standard": STANDARD, "causal": CAUSAL}  # of a TRM
ABLATIONS = {  # one field of the TRM changed at a time
    "n 0, T 1": {"n": 0, "T": 1},  # no recursion at all
    "bounded": {"bounded": True},  # each refinement starts from states of one size, so that it can do as much as the one before
    "normed": {"normed": True},  # the paper's blocks, which bring each of their sums to one size
    **{f"gradient {through}": {"gradient": through} for through in ("last", "all", "update")},
    **{f"T {T}": {"T": T} for T in (1, 4)},
    **{f"n {n}": {"n": n} for n in (0, 1, 6)},
}
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # the last was added when the best lay on the edge
RATE = {"annealed": 1e-3, "standard": 1e-2, "causal": 3e-3, "everywhere": 1e-2}  # the best of them, by the first tuning seed
STARTS = ("last", "constant")  # a leaking model is scored from these, too


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first. `cpu` is the part of `full` up to
    0.3 M parameters, the same runs, and cut versions of what is larger."""
    data, sizes, widths = TokensConfig(corpus=CORPUS), dict(SIZES), WIDTHS
    smoke, cpu = profile == "smoke", profile == "cpu"
    if smoke:
        data = TokensConfig(corpus="toy-language", tokeniser="words", vocab=90, context=8, chunk=2, curve_windows=32)
        sizes, widths = {SMALL: 6, BASE: 8}, (4, 12)
    elif cpu:
        sizes = {s: SIZES[s] for s in CPU_SIZES}
    seeds, runs = SEEDS[:2] if smoke else SEEDS, []
    small = lambda m: replace(m, heads=2) if smoke else m  # noqa: E731

    def arm(name, model, tier, train, data=data, seeds=seeds, **changes):
        train = replace(train, **changes)
        runs.extend(Run(Spec(NAME, small(model), data, train, s), name, profile, 1000 * tier + s) for s in seeds)

    def annealed(train, lr=1e-3):
        return replace(train, lr=lr, warmup=min(500, train.steps // 10), decay_to=0.1)

    def rivals(setting, model, tier, plan, rate=rate, kinds=RIVALS, **others):
        """The rivals of a TRM: as many parameters and steps, and a tier later as many parameters and FLOPs."""
        for kind, of in kinds.items():
            times, rival = COMPUTE.get(f"{kind} {setting}"), replace(of, d=model.d, heads=model.heads, dropout=model.dropout)
            train = annealed(plan, rate(kind, model.d))
            arm(f"{kind} {setting}", rival, tier, train=train, **others)
            if times:
                steps, block = round(times * train.steps), round(times * train.eval_every)
                arm(f"{kind} {setting} (equal compute)", rival, tier + 1, train=replace(train, steps=steps, eval_every=block), **others)

    def steady(train, d):
        """At the causal model's rate, which does not decay: the law's fairest test, for a falling rate lowers any curve at its end."""
        return replace(annealed(train, rate("causal", d)), decay_to=1.0)

    for i, (size, d) in enumerate(sizes.items()):
        honest, leaking, plain = (wide_as(m, d) for m in (TRM, EARLIER, CAUSAL))
        long, brief = (length(honest, data, smoke, times) for times in (TIMES, BRIEF))
        later = max(0, i - 1)  # the two smallest first: the law needs two sizes
        arm(f"steady {size}", plain, 5 * later, train=steady(long, d))
        arm(f"TRM {size}", honest, 5 * later, train=long)
        arm(f"leaking {size}", leaking, 10 * later, train=long)
        arm(f"annealed {size}", honest, 10 * later, train=annealed(brief, rate("annealed", d)))
        whole = wide_as(WHOLE, d)
        arm(f"everywhere {size}", whole, 10 * later + 1, train=annealed(brief, rate("everywhere", d)))
        arm(f"steady everywhere {size}", whole, 10 * later + 2, train=replace(annealed(long, rate("everywhere", d)), decay_to=1.0))
        rivals(size, honest, 10 * later, brief)

    size, d = BASE, sizes[BASE]
    honest = wide_as(TRM, d)
    long, brief = (length(honest, data, smoke, times) for times in (TIMES, BRIEF))
    for width in widths:
        for kind, model in (("standard", STANDARD), ("causal", CAUSAL)):
            arm(f"{kind} d={width}", replace(model, d=width, heads=honest.heads), 4, train=annealed(brief, rate(kind, width)))
    many = data if smoke else replace(data, vocab=50_258)
    was = long if smoke else TrainConfig(steps=6_250 if cpu else 456_000, lr=1e-4, eval_every=250 if cpu else 2_000)
    for name, model in (("as it was", EARLIER), ("as it was, honest", TRM)):
        arm(name, replace(model, d=10 if smoke else 128), 6, data=many, train=was)
    short = long if smoke else replace(long, steps=3_000)
    for kind, model in (("annealed", TRM), ("standard", STANDARD), ("causal", CAUSAL), ("everywhere", WHOLE)):
        for lr in RATES[: 1 if smoke else None]:
            arm(
                f"{kind} {size} (lr {lr:g})",
                wide_as(model, d),
                6,
                seeds=TUNING_SEEDS[: len(seeds)],
                train=annealed(short, lr),
            )
    for kind, model, first in (("everywhere", wide_as(WHOLE, d), 1), ("annealed", honest, 7)):  # the first learns, and comes first
        changed = {name: replace(model, **fields) for name, fields in ABLATIONS.items()}
        names = [name for name, other in changed.items() if other != model][: 2 if smoke else None]
        for i, name in enumerate(names):
            arm(f"{kind} {size} ({name})", changed[name], first if i < 4 else 7, train=annealed(brief, rate(kind, d)))
    # What may get it going, where not recursion keeps it: slots that hold the last token read
    arm(f"annealed {size} (start last, n 0, T 1)", replace(honest, start="last", n=0, T=1), 7, train=annealed(brief, rate("annealed", d)))

    d = sizes[SMALL]
    leaking, plain = (wide_as(m, d) for m in (EARLIER, CAUSAL))
    long, n = length(leaking, data, smoke), parameters(leaking, data)
    # A text that holds as many windows at stride 64 as the model has parameters, and 64 times as many at stride 1
    text = replace(data, tokens=1_000 if smoke else 64 * (n + 2))
    quarter = long.steps // 4
    for name, model, train, tier in ((f"steady {SMALL}", plain, steady(long, d), 2), (f"leaking {SMALL}", leaking, long, 5)):
        arm(f"{name} (stride 1)", model, tier, data=text, train=train)
        arm(f"{name} (stride 64)", model, tier, data=replace(text, stride=4 if smoke else 64), train=train)
        arm(f"{name} (unused rows)", model, tier, data=replace(data, unused_rows=math.ceil(n / d)), train=train)
        arm(f"{name} (sampling restarts)", model, tier, data=replace(data, restart=quarter), train=train)
        arm(f"{name} (optimiser forgotten)", model, tier, train=train, forget_every=quarter)
        arm(f"{name} (sequential)", model, tier, data=replace(data, order="sequential"), train=train)
        arm(f"{name} (fp16 weights)", model, tier, train=train, weights="fp16")
        arm(f"{name} (bf16 weights)", model, tier, train=train, weights="bf16")
        for part, text_of in ((1, "N"), (16, "N/16")):  # as many windows as parameters, or a sixteenth, again and again
            arm(f"{name} (text of {text_of})", model, tier, data=replace(data, tokens=(800 if smoke else n) // part), train=train)
    arm(f"steady {SMALL} (decay)", plain, 2, train=replace(steady(long, d), decay_to=0.1))
    for lr in ("3e-4", "1e-3"):
        arm(f"leaking {SMALL} (lr {lr})", leaking, 5, train=replace(steady(long, d), lr=float(lr)))

    wide = data if smoke else TokensConfig("wikitext-2", "words", 33_280)
    words = replace(TRM, d=8 if smoke else 180, dropout=0.2)
    train = annealed(long) if smoke else annealed(TrainConfig(steps=2_000 if cpu else 130_000, eval_every=250 if cpu else 1_000))
    arm("TRM WikiText-2", words, 8, data=wide, train=train)
    rivals("WikiText-2", words, 8, train, lambda *_: train.lr, kinds=RIVALS | {"everywhere": WHOLE}, data=wide)
    return sorted(runs, key=lambda r: r.priority)


def rate(kind, d):
    """The learning rate of a kind of model at width d: the best of the sweep at d = 20, but no more than 0.2 / d, for wider models need smaller steps."""
    return min(RATE[kind], 0.2 / d)


def parameters(model, data):
    """Parameters of a model with tied head and learned positions, in closed form (`grid` needs it often; a test counts them)."""
    rows = data.vocab + data.unused_rows + data.context + data.chunk + 2 + (model.start == "mask")
    return rows * model.d + model.blocks * (12 * model.d**2 + 13 * model.d)


def wide_as(model, d):
    """A model of another width; the narrowest have two heads, for four of 5 dimensions each would cost twice the time."""
    return replace(model, d=d, heads=4 if d >= 56 else 2)


def length(model, data, smoke=False, times=TIMES):
    """The earlier run's training at a constant rate, until the model has seen so many times as many windows as it has parameters."""
    if smoke:
        return TrainConfig(steps=5 * times, batch=8, lr=1e-3, eval_every=2)
    steps = times * parameters(model, data) / 32
    block = 250 * max(1, int(steps // 25_000)) if steps > 10_000 else 100  # 40 points or more, about a hundred for the larger ones
    return TrainConfig(steps=math.ceil(steps / block) * block, lr=1e-4, eval_every=block)


class WithUnusedRows(ChunkLM):
    """A `ChunkLM` with embedding rows that no token names: more parameters, the same function and the same training."""

    def __init__(self, config, vocab, context, chunk, rows):
        if not config.tied_head:
            raise TrmError("unused_rows needs tied_head: a head of its own has no rows that no token names")
        super().__init__(config, vocab, context, chunk)
        self.used = vocab
        self.embedding.weight = nn.Parameter(F.pad(self.embedding.weight.detach(), (0, 0, 0, rows)))

    @property
    def rows(self):
        return self.embedding.weight[: self.used]


def build(spec):
    """A fresh model."""
    c = spec.data
    sizes = c.vocab, c.context, c.chunk
    return WithUnusedRows(spec.model, *sizes, c.unused_rows) if c.unused_rows else ChunkLM(spec.model, *sizes)


class Task:
    """Training and scoring of one spec (`train.Task`)."""

    def __init__(self, spec, device="cpu"):
        self.spec, self.config, self.device = spec, spec.data, device
        c, kind = spec.data, (spec.data.tokeniser, spec.data.vocab)
        self.tokeniser = tokens.tokeniser(c.corpus, *kind)
        self.train, self.validation = (tokens.load(c.corpus, split, *kind) for split in ("train", "validation"))
        self.fixed = tokens.fixed_windows(self.validation, c)
        self.tokens = torch.from_numpy(self.fixed.tokens).to(device)
        self.data = {"name": c.corpus, "train": self.train.fingerprint, "validation": self.validation.fingerprint,
                     "windows": tokens.seen(self.train, c, spec.train.batch, spec.train.steps)}  # fmt: skip
        in_a = np.flatnonzero(~self.in_b)
        self.curve_rows = torch.from_numpy(np.random.default_rng(0).permutation(in_a)[: c.curve_windows])

    @property
    def in_b(self):
        """Of each fixed window: does it lie in part B?"""
        return self.fixed.part_b[self.fixed.article]

    @property
    def passes(self):
        """Refinements of the trained model: those of all supervision steps."""
        return self.spec.model.T * self.spec.train.n_sup

    def model(self):
        return build(self.spec)

    def batches(self, seed, block, steps):
        t = self.spec.train
        return [
            {"tokens": torch.from_numpy(w)} for w in tokens.batches(self.train, self.config, t.batch, block * t.eval_every, steps, seed)
        ]

    def loss(self, net, batch, carry):
        c, ids = self.spec.model, batch["tokens"]
        if c.everywhere:  # several seeds at once call a function, over which PyTorch cannot map the fused read-out
            slots = None if c.encode else ids.shape[1] - 1
            loss, carry = net(ids, carry=carry, slots=slots, mean_nll=True, fused=isinstance(net, nn.Module))
            return loss, carry if self.spec.train.n_sup > 1 else None
        every = c.loss_passes == "every"
        logits, carry = net(ids, carry=carry, every_pass=every)
        return slot_nll(logits[1:] if every else logits, ids).mean(), carry if self.spec.train.n_sup > 1 else None

    def starts(self, ids):
        """What a leaking model is scored from besides the target: {name: start}; nothing for others. "last" repeats the last
        token (as the earlier code does to generate), "constant" is one token everywhere (as its sibling script validates)."""
        constant = ids.new_full((len(ids), self.config.chunk), PAD)
        return dict(zip(STARTS, ("last", constant), strict=True)) if self.spec.model.start == "target" else {}

    def curve(self, model, spec, step):
        """Fixed windows of part A."""
        ids = self.tokens[self.curve_rows]
        nll, hit = score_chunks(model, ids, self.passes)
        others = {f"nll_{name}": score_chunks(model, ids, self.passes, start=start)[0].mean() for name, start in self.starts(ids).items()}
        return {"nll": nll.mean(), "accuracy": hit.mean(), **others}

    def final(self, model):
        """Scores on the fixed windows of the validation text, which predict all its tokens but the first `context` once, or with a
        `test_stride` some of them; figures are read from part B. Bits per byte are None where a target is the vocabulary's <UNK>, of which nobody knows the bytes."""
        nll, hit = score_chunks(model, self.tokens, self.passes, every_pass=True)
        parts, metrics = {"a": ~self.in_b, "b": self.in_b, "all": np.ones_like(self.in_b)}, {}
        targets = self.fixed.tokens[:, -self.config.chunk :]
        for part, rows in parts.items():
            size = tokens.text_bytes(self.tokeniser, targets[rows])
            metrics |= {f"nll_{part}": nll[-1, rows].mean(), f"accuracy_{part}": hit[-1, rows].mean(),
                        f"bits_{part}": float(nll[-1, rows].sum()) / math.log(2) / size if size else None}  # fmt: skip
        for name, start in self.starts(self.tokens).items():
            other = score_chunks(model, self.tokens, self.passes, start=start)[0][0]
            metrics |= {f"nll_{name}_{part}": other[rows].mean() for part, rows in parts.items()}
        articles = len(self.fixed.part_b)
        size = np.bincount(self.fixed.article, minlength=articles) * self.config.chunk
        total = np.bincount(self.fixed.article, nll[-1].sum(1), articles)
        by_article = {"nll": total / np.maximum(size, 1), "tokens": size, "part_b": self.fixed.part_b.astype(int)}
        by_pass = {f"nll_{part}": nll[:, rows].mean((1, 2)) for part, rows in parts.items()}
        return {"metrics": metrics, "detail": {"by_pass": by_pass, "by_article": by_article}}

    def diverged(self):
        names = ["nll", *(f"nll_{s}" for s in STARTS if self.spec.model.start == "target")]
        return {f"{name}_{part}": math.log(self.config.vocab) for name in names for part in ("a", "b", "all")}
