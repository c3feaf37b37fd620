"""Shakespeare, character by character: the grid of arms, and the task that trains and scores them."""

import math
from dataclasses import replace

import numpy as np
import torch

from trmlib.data import sequences
from trmlib.data.sequences import SequenceConfig
from trmlib.evaluate import score_chunks
from trmlib.experiments import shakespeare_evaluations as evaluations  # noqa: F401, part of what an experiment offers
from trmlib.models.chunk import ChunkConfig, ChunkLM, slot_nll
from trmlib.runs import Run, Spec, TrainConfig

NAME = "shakespeare"
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEEDS = (100, 101, 102)
TEST_PASSES = 6  # recursive models are read out after 0 … max(this, trained) refinements
COMPUTE = 12  # baseline steps that cost about as much as one of the TRM (counted: tests/test_shakespeare.py)

TRM = ChunkConfig()  # starts at a mask embedding
TARGET = replace(TRM, start="target")
CAUSAL = ChunkConfig(start="shifted", encode=False, causal=True, n=0, T=1)
EVERYWHERE = replace(CAUSAL, everywhere=True)
PARALLEL = replace(TRM, n=0, T=1)
MODELS = {  # arm → model, in the order in which the queue takes them
    "target": TARGET,
    "baseline": CAUSAL,
    "mask": TRM,
    "baseline-compute": CAUSAL,
    "parallel": PARALLEL,
    "baseline-everywhere": EVERYWHERE,
    "last": replace(TRM, start="last"),
    "zeros": replace(TRM, start="zeros"),
    "noise": replace(TRM, start="noise"),
}
AS_IT_WAS = ("target", "baseline", "mask")  # scored with the earlier code's two tables, too
BEGUN = "baseline (begun)"  # the full profile's baseline, its first 4,000 steps: the best evaluation with two tables comes early
CALIBRATION = replace(EVERYWHERE, d=128, blocks=4, dropout=0.0)
FACTORS = {  # one field of the TRM changed at a time
    "gradient-all": replace(TRM, gradient="all"),
    "gradient-update": replace(TRM, gradient="update"),
    "every-pass": replace(TRM, loss_passes="every", gradient="all"),
    "every-read-out": replace(TRM, loss_passes="every"),  # of refinements that no gradient reaches, it trains the read-out alone
    "causal-slots": replace(TRM, causal=True),
    "bounded": replace(TRM, bounded=True),
    "normed": replace(TRM, normed=True),
    "rotary": replace(TRM, positions="rotary"),
    **{f"n-{n}": replace(TRM, n=n) for n in (0, 1, 2, 12)},
    **{f"T-{T}": replace(TRM, T=T) for T in (1, 2, 6)},
}
CHUNKS = (4, 8, 16, 32)
SUPERVISION = (4, 16)
RATES = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3)  # the cut profile runs at 2e-3, the full one at 3e-4


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first."""
    data = SequenceConfig()
    train = TrainConfig(steps=39_210, batch=128, weight_decay=0.1)  # 5 epochs of the earlier code
    calibrated = TrainConfig(steps=2000, batch=12, lr=1e-3, warmup=100, weight_decay=0.1, beta2=0.99, decay_to=0.1)
    small = lambda m: m  # noqa: E731
    if profile == "smoke":
        data = SequenceConfig(corpus="toy-language", context=32, stretches=8, stride=96, curve_windows=32)
        train = TrainConfig(steps=24, batch=8, lr=3e-3, weight_decay=0.1, eval_every=8)
        calibrated = replace(calibrated, steps=40, warmup=10, eval_every=20)
        small = lambda m: replace(m, d=16, heads=2)  # noqa: E731
    elif profile == "cpu":  # a short context, for attention finds the last character among 16 long before it does among 64
        data = replace(data, context=16, stride=32, curve_windows=256)
        train = TrainConfig(steps=2000, batch=64, lr=2e-3, warmup=100, weight_decay=0.1, decay_to=0.1, eval_every=100)
        small = lambda m: replace(m, dropout=0.0)  # noqa: E731, too short a training to overfit
    seeds, runs = SEEDS[:2] if profile == "smoke" else SEEDS, []

    def arm(name, model, tier, seeds=seeds, data=data, train=train):
        runs.extend(Run(Spec(NAME, small(model), data, train, s), name, profile, 1000 * tier + s) for s in seeds)

    for i, (name, model) in enumerate(MODELS.items()):
        times = COMPUTE if name == "baseline-compute" else 1
        longer = replace(train, steps=times * train.steps, eval_every=times * train.eval_every)
        arm(name, model, i, data=replace(data, split_tables=name in AS_IT_WAS), train=longer)
    if profile == "full":
        arm(BEGUN, CAUSAL, 9, data=replace(data, split_tables=True), train=replace(train, steps=4000))
    calibration = replace(data, context=data.context if profile == "smoke" else 64, chunk=1, noisy_batches=20)
    arm("calibration", CALIBRATION, 9, data=calibration, train=calibrated)
    for k in SUPERVISION:  # as many optimiser steps, on a k-th of the batches
        steps = replace(train, n_sup=k, steps=max(1, train.steps // k), eval_every=max(1, train.eval_every // k))
        arm(f"bounded-sup-{k}", replace(TRM, bounded=True), 10, train=steps)  # sixteen rounds would end at infinity otherwise
    factors = (
        {k: FACTORS[k] for k in ("gradient-update", "every-pass", "normed", "rotary")} if profile == "smoke" else FACTORS
    )  # each path once
    for i, (name, model) in enumerate(factors.items()):
        arm(name, model, 11 + i)
    arm("baseline-rotary", replace(CAUSAL, positions="rotary"), 15)
    for chunk in [c for c in CHUNKS if c <= data.context][: 1 if profile == "smoke" else None]:
        longer = replace(data, chunk=chunk)
        for name in ("baseline", "mask", "parallel"):
            arm(f"{name} (chunk {chunk})", MODELS[name], 30, data=longer)
    for name in ("baseline", "mask"):
        for lr in RATES[: 1 if profile == "smoke" else None]:
            arm(f"{name} (lr {lr:g})", MODELS[name], 2, TUNING_SEEDS[: len(seeds)], train=replace(train, lr=lr))  # right after mask
    return sorted(runs, key=lambda r: r.priority)


def build(spec):
    """A fresh model."""
    return ChunkLM(spec.model, len(sequences.load(spec.data.corpus).table), spec.data.context, spec.data.chunk)


class Task:
    """Training and scoring of one spec (`train.Task`)."""

    def __init__(self, spec, device="cpu"):
        self.spec, self.config, self.device = spec, spec.data, device
        self.text = sequences.load(spec.data.corpus)
        self.fixed = sequences.fixed_set(self.text.validation, spec.data)
        self.tokens = self.fixed.batch["tokens"].to(device)
        self.tokens_own = sequences.fixed_set(self.text.validation_own, spec.data).batch["tokens"].to(device)
        self.data = {"name": spec.data.corpus, **self.text.fingerprints}
        in_a = np.flatnonzero(~self.in_b)
        self.curve_rows = torch.from_numpy(np.random.default_rng(0).permutation(in_a)[: spec.data.curve_windows])

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
        drawn = sequences.random_windows(self.text.train, self.config.window, self.spec.train.batch, steps, (seed, block))
        return [{"tokens": tokens} for tokens in drawn]

    def loss(self, net, batch, carry):
        c, tokens = self.spec.model, batch["tokens"]
        every = c.loss_passes == "every"
        slots = tokens.shape[1] - 1 if c.everywhere else None
        logits, carry = net(tokens, carry=carry, every_pass=every, slots=slots)
        return slot_nll(logits[1:] if every else logits, tokens).mean(), carry

    def curve(self, model, spec, step):
        """Fixed windows of part A; with two tables, the same windows by the validation text's own; random batches."""
        nll, hit = score_chunks(model, self.tokens[self.curve_rows], self.passes)
        point = {"nll": nll.mean(), "accuracy": hit.mean()}
        if self.config.split_tables:
            point["nll_split"] = score_chunks(model, self.tokens_own[self.curve_rows], self.passes)[0].mean()
        if self.config.noisy_batches:
            point["noisy_nll"] = self.estimate(model, (int(spec.hash, 16), step)).mean()
        return point

    def estimate(self, model, seed):
        """NLL of random validation batches (noisy_batches,), over every position of the window where the model is trained on all."""
        c, size = self.config, self.spec.train.batch
        tokens = sequences.random_windows(self.text.validation, c.window, size, c.noisy_batches, seed).flatten(0, 1).to(self.device)
        slots = c.window - 1 if self.spec.model.everywhere else None
        return score_chunks(model, tokens, self.passes, slots=slots)[0].reshape(c.noisy_batches, -1).mean(1)

    def final(self, model):
        """Scores on the fixed windows; figures are read from part B. NLL is a character's; a chunk's joint NLL is `chunk` times that."""
        trained = self.passes
        passes = max(TEST_PASSES, trained) if self.spec.model.n else trained
        nll, hit = score_chunks(model, self.tokens, passes, every_pass=True)
        parts = {"a": ~self.in_b, "b": self.in_b, "all": np.ones_like(self.in_b)}
        metrics = {f"nll_{part}": nll[trained][rows].mean() for part, rows in parts.items()}
        metrics |= {f"accuracy_{part}": hit[trained][rows].mean() for part, rows in parts.items()}
        metrics["joint_b"] = nll[trained][self.in_b].sum(1).mean()
        if self.config.split_tables:
            split = score_chunks(model, self.tokens_own, trained)[0][0]
            metrics |= {f"nll_split_{part}": split[rows].mean() for part, rows in parts.items()}
        if self.config.noisy_batches:
            batches = self.estimate(model, (int(self.spec.hash, 16), self.spec.seed))
            metrics |= {"estimate": batches.mean(), "estimate_sd": batches.std(ddof=1) / math.sqrt(len(batches))}
        stretches = len(self.fixed.part_b)
        characters = np.bincount(self.fixed.article, minlength=stretches) * self.config.chunk
        by_article = {"nll": np.bincount(self.fixed.article, nll[trained].sum(1), stretches) / characters, "characters": characters,
                      "part_b": self.fixed.part_b.astype(int)}  # fmt: skip
        by_pass = {f"nll_{part}": nll[:, rows].mean((1, 2)) for part, rows in parts.items()}
        detail = {"by_pass": by_pass, "by_slot": {"nll_b": nll[trained][self.in_b].mean(0)}, "by_article": by_article}
        return {"metrics": metrics, "detail": detail}

    def diverged(self):
        log_v = math.log(len(self.text.table))
        metrics = {f"nll_{part}": log_v for part in ("a", "b", "all")} | {"joint_b": self.config.chunk * log_v}
        return metrics | ({f"nll_split_{part}": log_v for part in ("a", "b", "all")} if self.config.split_tables else {})
