"""Masked language modelling: the grid of arms, and the task that trains and scores them."""

import math
from dataclasses import replace

import numpy as np
import torch

from trmlib.data import text
from trmlib.data.text import BlanksConfig
from trmlib.evaluate import score_blanks, summarise
from trmlib.experiments import masked_evaluations as evaluations  # noqa: F401, part of what an experiment offers
from trmlib.experiments.fill import fill_loss, some_blanks
from trmlib.models.masked import MaskedConfig, MaskedLM
from trmlib.runs import Run, Spec, TrainConfig

NAME = "masked"
SEEDS = (0, 1, 2, 3, 4)
HEADLINE_SEEDS = (5, 6, 7, 8, 9)  # five more for the two arms of the headline
TUNING_SEEDS = (100, 101, 102)
TEST_PASSES = 8  # tied models are scored after 0 … max(this, trained) passes

JOINT = MaskedConfig()
BASELINE = MaskedConfig(passes=0)
MODELS = {  # arm → model, in the order in which the queue takes them
    "baseline": BASELINE,
    "joint": JOINT,
    "self-only": replace(JOINT, sees="self"),
    "4-blocks": MaskedConfig(passes=0, context_blocks=4),
    "random-partner": replace(JOINT, sees="random"),
    "1-pass": replace(JOINT, passes=1),
    "every-pass": replace(JOINT, loss_passes="every"),
    "6-untied": replace(JOINT, tied=False),
    "context": replace(JOINT, sees="context"),
    "shared": replace(JOINT, shared=True),
    "2-passes": replace(JOINT, passes=2),
    "5-passes": replace(JOINT, passes=5),
    "8-passes": replace(JOINT, passes=8),
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first."""
    data, train, models = BlanksConfig(), TrainConfig(), MODELS
    if profile == "smoke":
        data = BlanksConfig(corpus="toy-language", vocab=90, curve_windows=64, noisy_batches=2)
        train = TrainConfig(steps=40, eval_every=20, lr=3e-3)
        models = {arm: replace(m, d=32, heads=2) for arm, m in MODELS.items()}
    elif profile == "cpu":
        train = TrainConfig(steps=2_000)
    seeds = SEEDS[:2] if profile == "smoke" else SEEDS
    runs = []

    def arm(name, model, tier, seeds=seeds, data=data, train=train):
        runs.extend(Run(Spec(NAME, model, data, train, s), name, profile, 1000 * tier + s) for s in seeds)

    for i, (name, model) in enumerate(models.items()):
        arm(name, model, i)
    if profile == "full":
        for name in ("baseline", "joint"):
            arm(name, models[name], 19, HEADLINE_SEEDS)
    for m in (3, 4, 5):
        for name in ("baseline", "joint", "self-only"):
            arm(f"{name} ({m} blanks)", models[name], 20 + m, data=replace(data, blanks=m))
    for name in ("baseline", "joint"):
        wide = replace(data, vocab=100 if profile == "smoke" else 10_000)
        arm(f"{name} ({wide.vocab:,} words)", models[name], 30, data=wide)
        for lr in RATES[: 2 if profile == "smoke" else None]:
            arm(f"{name} (lr {lr:g})", models[name], 32, TUNING_SEEDS[: len(seeds)], train=replace(train, lr=lr))
    ten, half = (seeds if profile == "smoke" else SEEDS + HEADLINE_SEEDS), replace(train, steps=train.steps // 2)  # for chapter 06
    for name, tier in {"baseline": 16, "joint": 16, "4 samples": 17, "16 samples": 33}.items():
        model = models[name] if name in models else replace(models["1-pass"], samples=int(name.split()[0]))
        arm(f"{name} (1–3 blanks)", model, tier, ten, replace(data, blanks=3, min_blanks=1), half)
    return sorted(runs, key=lambda r: r.priority)


def build(spec):
    """A fresh model."""
    return MaskedLM(spec.model, spec.data.vocab, spec.data.context)


class Task:
    """Training and scoring of one spec (`train.Task`)."""

    def __init__(self, spec, device="cpu"):
        self.spec, self.config = spec, spec.data
        self.vocab, self.train, self.validation = text.load(spec.data.corpus, spec.data.vocab)
        self.fixed = text.fixed_set(self.validation, spec.data)
        self.fixed_batch = {k: v.to(device) for k, v in self.fixed.batch.items()}
        self.unknown = [self.vocab[w] for w in ("<UNK>", "<unk>") if w in self.vocab]
        self.device = device
        self.data = {"name": spec.data.corpus, "train": self.train.fingerprint, "validation": self.validation.fingerprint}
        in_a = np.flatnonzero(~self.fixed.part_b[self.fixed.article])
        rows = np.random.default_rng(0).permutation(in_a)[: spec.data.curve_windows]
        self.curve_batch = {k: v[torch.from_numpy(rows)].to(device) for k, v in self.fixed.batch.items()}

    def model(self):
        return build(self.spec)

    def batches(self, seed, block, steps):
        c, size = self.config, self.spec.train.batch
        drawn = text.random_batches(self.train, c, size, steps, (seed, block))
        batches = [{k: v[i] for k, v in drawn.items()} for i in range(steps)]
        return some_blanks(batches, c, seed, block, size) if c.min_blanks else batches

    def loss(self, net, batch, carry):
        return fill_loss(self.spec.model, net, batch, carry, again=self.spec.train.n_sup > 1)

    def curve(self, model, spec, step):
        """Fixed windows of part A, and beside them the earlier rule: random batches, drawn anew for every arm."""
        nll, hit = score_blanks(model, self.curve_batch)
        seed = (int(spec.hash, 16), step)
        noisy = text.random_batches(self.validation, self.config, self.spec.train.batch, self.config.noisy_batches, seed)
        noisy = {k: v.flatten(0, 1).to(self.device) for k, v in noisy.items()}
        noisy_nll, noisy_hit = score_blanks(model, noisy)
        return {
            "nll": nll.mean(), "accuracy": hit.mean(), "noisy_nll": noisy_nll.mean(), "noisy_accuracy": noisy_hit.mean(),
        }  # fmt: skip

    def final(self, model):
        """Scores on every window of the validation text; figures are read from part B."""
        c = self.spec.model
        passes = max(TEST_PASSES, c.passes) if c.tied and c.passes else c.passes
        nll, hit = score_blanks(model, self.fixed_batch, passes=passes, every_pass=True)
        in_b = self.fixed.part_b[self.fixed.article]
        metrics, by_pass = {}, {}
        for part, rows in {"a": ~in_b, "b": in_b, "all": np.ones_like(in_b)}.items():
            subset = {"targets": self.fixed_batch["targets"][torch.from_numpy(rows)]}
            scores = summarise(nll[:, rows], hit[:, rows], subset, self.unknown)
            metrics |= {f"{k}_{part}": v[c.passes] for k, v in scores.items()}
            by_pass |= {f"{k}_{part}": v for k, v in scores.items()}
        articles = len(self.fixed.part_b)
        size = np.bincount(self.fixed.article, minlength=articles) * self.config.blanks
        total = np.bincount(self.fixed.article, nll[c.passes].sum(1), articles)
        by_article = {"nll": total / size, "blanks": size, "part_b": self.fixed.part_b.astype(int)}
        return {"metrics": metrics, "detail": {"by_pass": by_pass, "by_article": by_article}}

    def diverged(self):
        return {f"nll_{part}": math.log(self.config.vocab) for part in ("a", "b", "all")}
