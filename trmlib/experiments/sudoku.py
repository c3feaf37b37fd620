"""Sudoku: TRM as published and its variants, the grid of arms, and the task that trains and scores them.

A training step is one supervision step of a batch of slots. A slot keeps its puzzle and its states from step to step until the
halting head is sure, or until its steps are used up; then the next puzzle takes the slot.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from trmlib.data import sudoku
from trmlib.data.sudoku import GENERATED, SudokuConfig, augment
from trmlib.experiments import sudoku_evaluations as evaluations  # noqa: F401, part of what an experiment offers
from trmlib.models.grid import GridConfig, GridTRM, cell_nll, steps
from trmlib.runs import Run, Spec, TrainConfig

NAME = "sudoku"
SEEDS = (0, 1, 2, 3, 4)
CORPUS = "sudoku-hard"  # "sudoku-extreme" where it is at hand: the one setting to change
NEEDS_GPU = ("full",)  # profiles that a CPU takes up only where their arms are named
CURVE = 128  # puzzles of part A scored during training
TEST_STEPS = 16  # a finished model is scored after 1 … max(this, trained) supervision steps

SMOKE = GridConfig(d=16, heads=2, multiple=8, padding=0, n=2, T=2, n_sup=4)
SMALL = GridConfig(d=64, heads=4, multiple=16, padding=0, n=2, T=3, n_sup=8)
SHORT = TrainConfig(
    steps=1800, batch=32, lr=3e-3, warmup=50, weight_decay=0.1, beta2=0.95, ema=0.99, eval_every=200, optimizer="muon"
)  # about nine minutes on one core
PAPER = GridConfig(padding=0)  # as published, without the padding (with it: the arm "padded")
FULL = TrainConfig(steps=65_000, batch=768, lr=1e-4, warmup=2000, weight_decay=1.0, beta2=0.95, clip=0.0, ema=0.999, eval_every=500)


def ablations(base):
    """Arm → fields of the model: the paper's table, and what else it holds fixed."""
    return {
        "attention": {"mixer": "attention"},
        "one-step gradient": {"one_step": True},
        "single latent": {"single": True},
        "4 layers": {"blocks": 4, "n": max(1, base.n // 2)},
        "no deep supervision": {"n_sup": 1},
        "softmax": {"loss": "softmax"},
        "T = 1": {"T": 1},
        "n = 1": {"n": 1},
        "T = n = 2": {"T": 2, "n": 2},
        "twice n": {"n": 2 * base.n},
        "twice T": {"T": 2 * base.T},
        "no exploration": {"explore": 0.0},
        "curriculum": {"curriculum": True},
        "milestones": {"milestones": 1},
    }


def widths(middle):
    """Up to three half widths of a uniform around `middle` that keep it above 0."""
    most = middle - 1
    return sorted({-(-most // 4), -(-most // 2), most} - {0})


def randomised(base):
    """Arm → fields of the model: uniforms for n, T and N_sup, starts, two at once."""
    starts = {"random starts": {"start": "random"}, "half the examples": {"start": "examples"}, "half the entries": {"start": "entries"}}
    n, T, n_sup = (widths(getattr(base, k)) for k in ("n", "T", "n_sup"))
    one = {
        f"{name} ± {w}": {f"{field}_width": w} for field, name, ws in (("T", "T", T), ("n_sup", "N_sup", n_sup), ("n", "n", n)) for w in ws
    }
    return starts | one | {
        "T and n": {"T_width": T[-1], "n_width": n[-1]},
        "T and N_sup": {"T_width": T[-1], "n_sup_width": n_sup[-1]},
        "T and random starts": {"T_width": T[-1], "start": "random"},
        "T and half the examples": {"T_width": T[-1], "start": "examples"},
    }  # fmt: skip


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first.

    full: the paper's recipe on hard puzzles. cpu: a small, short one on generated 9×9 puzzles that need no guess. smoke: 4×4 boards."""
    seeds, runs = SEEDS[:2] if profile == "smoke" else SEEDS, []
    base, data, train, others = PAPER, SudokuConfig(CORPUS), FULL, (256, 128)
    if profile == "smoke":
        base, data = SMOKE, SudokuConfig("easy-4", 40, 30, 30)
        train, others = replace(SHORT, steps=20, batch=8, eval_every=10, warmup=5), (24,)
    elif profile == "cpu":
        base, data, train, others = SMALL, SudokuConfig("easy-9", 1000, 200, 500), SHORT, (96, 32)
    later = 70 if profile == "full" else 0

    def arm(name, tier, model=None, seeds=seeds, data=data, train=train, **fields):
        spec = lambda s: Spec(NAME, replace(model or base, **fields), data, train, s)  # noqa: E731
        runs.extend(Run(spec(s), name, profile, 1000 * (tier + later) + s) for s in seeds)

    arm("TRM", 20)
    arm("random starts", 21, start="random")
    arm("attention", 22, mixer="attention")
    if profile == "full":
        arm("padded", 22, padding=16)
        arm("attention, padded", 23, padding=16, mixer="attention")
        muon = replace(train, optimizer="muon", lr=1e-3, weight_decay=0.1)
        arm("fast", 21, train=replace(muon, steps=24_000), curriculum=True)  # aims at the published accuracy within half an hour of an H200
        arm("Muon", 21, train=muon, curriculum=True)
    else:
        arm("AdamW", 23, train=replace(train, optimizer="adamw", lr=1e-3))  # neither rate was tuned
    arm("no EMA", 24, train=replace(train, ema=0.0))
    one, two = ablations(base), randomised(base)
    if profile == "smoke":  # each path once
        one = {k: one[k] for k in ("one-step gradient", "single latent", "curriculum", "milestones")}
        two = {k: two[k] for k in ("half the entries", "T and N_sup")}
    for tier, arms in ((25, one), (26, two)):
        for name, fields in arms.items():
            if name not in {r.arm for r in runs}:
                arm(name, tier, **fields)
    for d in others:
        for name, fields in {"TRM": {}, **two}.items() if profile != "smoke" else [("TRM", {})]:
            arm(f"{name} (d={d})", 27, d=d, **fields)
    return sorted(runs, key=lambda r: r.priority)


def build(spec):
    """A fresh model."""
    n = GENERATED[spec.data.corpus][0] if spec.data.corpus in GENERATED else 9
    return GridTRM(spec.model, n * n, n)


def step_flops(spec, n=9):
    """FLOPs of a training step on boards of n × n as `train.costs` counts them, for mixing by an MLP and without reading a corpus: the matrix
    products of the net, T (n + 1) calls forward and two more for the gradient of the last n + 1, and of the heads."""
    c, t = spec.model, n * n + spec.model.padding
    call = c.blocks * 3 * 2 * t * c.d * (c.hidden(t) + c.hidden(c.d))
    calls = sum((T + 2) * (n + 1) for n, T in phases(c)) / len(phases(c))
    heads = 3 * 2 * c.d * (n * n * (n + 1 + (c.padding > 0)) + 1)
    return round(spec.train.batch * (calls * call + heads))


def phases(c):
    """(n, T) of equal parts of the training."""
    return [(-(-c.n * k // 3), -(-c.T * k // 3)) for k in ((1, 2, 3) if c.curriculum else (3,))]


class Task:
    """Training and scoring of one spec (`train.Task`)."""

    persists = True

    def __init__(self, spec, device="cpu"):
        self.spec, self.config, self.device = spec, spec.model, torch.device(device)
        self.puzzles = sudoku.load(spec.data)
        self.data = {"name": spec.data.corpus, **self.puzzles.fingerprints}
        train = self.puzzles.train
        more = [train.rounds()] if self.config.milestones else []
        self.train = [t.to(device) for t in (train.x, train.y, *more)]
        self.inference_steps = self.config.n_sup

    def model(self):
        return build(self.spec)

    @property
    def phases(self):
        return phases(self.config)

    @property
    def work(self):
        """What costs a typical step: uniforms at their centre, each phase of a curriculum for its share."""
        return [(1 / len(self.phases), {"n": n, "T": T}) for n, T in self.phases]

    def batches(self, seed, block, steps):
        """Of each step: for every slot a puzzle under a random symmetry, should the slot be free, the number of supervision steps
        it may take, and the number it must take if it explores; and n and T, which are the same for all seeds."""
        c, t = self.config, self.spec.train
        count, first = steps * t.batch, block * t.eval_every * t.batch
        generator = torch.Generator(self.device).manual_seed(int(np.random.SeedSequence([seed, block]).generate_state(1)[0]))
        rows = torch.from_numpy(shuffled(len(self.train[0]), seed, first, count)).to(self.device)
        drawn = dict(
            zip(("boards", "targets", "rounds"), augment(*(v[rows] for v in self.train[:2]), generator, *(v[rows] for v in self.train[2:])))
        )
        uniform = lambda low, high: torch.randint(low, high + 1, (count,), generator=generator, device=self.device)  # noqa: E731
        drawn["limit"] = uniform(c.n_sup - c.n_sup_width, c.n_sup + c.n_sup_width)
        explores = torch.rand(count, generator=generator, device=self.device) < c.explore
        drawn["least"] = explores * uniform(min(2, c.n_sup), c.n_sup)
        rng = np.random.default_rng((block, 2))
        offsets = [rng.integers(-w, w + 1, steps) for w in (c.n_width, c.T_width)]
        batches = []
        for i in range(steps):
            phase = (block * t.eval_every + i) * len(self.phases) // t.steps
            n, T = (int(v + o[i]) for v, o in zip(self.phases[phase], offsets, strict=True))
            batches.append({k: v[i * t.batch : (i + 1) * t.batch] for k, v in drawn.items()} | {"n": n, "T": T})
        return batches

    def loss(self, net, batch, carry):
        """The public code's loss: mean NLL of all cells, the givens among them, plus the halting head's cross-entropy."""
        c, fresh = self.config, None if carry is None else carry["halted"]
        kept = {k: v for k, v in batch.items() if k in ("boards", "targets", "rounds", "limit")}
        if carry is None:
            taken, states = torch.zeros_like(batch["limit"]), None
            counts = torch.zeros(4, device=taken.device)
        else:
            kept = {k: torch.where(fresh if v.dim() == 1 else fresh[:, None], v, carry[k]) for k, v in kept.items()}
            taken, states, counts = torch.where(fresh, 0, carry["taken"]), (carry["y"], carry["z"]), carry["counts"]
        logits, halting, (y, z) = net(kept["boards"], states, fresh, n=batch["n"], T=batch["T"])
        taken, limit, targets = taken + 1, kept["limit"], kept["targets"].long()
        nll = cell_nll(logits, targets, c.loss)  # (b, cells)
        if c.milestones:
            asked = (kept["rounds"] <= (taken * c.milestones)[:, None]) | (taken >= limit)[:, None]
            nll = (nll * asked).sum(1) / asked.sum(1)
        right = (logits.argmax(-1) == targets).all(-1)
        loss = nll.mean() + c.halting * F.binary_cross_entropy_with_logits(halting.float(), right.float())
        halted = ((halting > 0) | (taken >= limit)) & (taken >= torch.minimum(batch["least"], limit))
        told = torch.stack([halted, halted * taken, halted & right, halted & (right == (halting > 0))]).float().sum(1)
        return loss, {**kept, "y": y, "z": z, "taken": taken, "halted": halted, "counts": counts + told}

    def progress(self, carry, i):
        """Of the puzzles of seed i that left their slots since the last call: the supervision steps that each took, the share that
        was solved and that for which the halting head was right."""
        counts = carry["counts"].view(-1, 4)[i]
        left, *sums = counts.tolist()
        counts.zero_()
        return {k: s / left if left else None for k, s in zip(("halting_steps", "train_accuracy", "halting_right"), sums, strict=True)}

    def curve(self, model, spec, step):
        """Some puzzles of part A after all supervision steps, without halting."""
        scores = score(model, self.puzzles.tune[slice(CURVE)], self.config.n_sup)
        return {k: v[-1].mean() for k, v in scores.items()}

    def final(self, model):
        """Scores after every supervision step on parts A and B; choices are made on A, figures show B. The metrics are those after
        the trained number of steps. Of B's puzzles: rating, first step that solved it (0: none), solved in the end?"""
        trained = self.config.n_sup
        parts = {"a": self.puzzles.tune, "b": self.puzzles.test}
        scores = {part: score(model, p, max(TEST_STEPS, trained)) for part, p in parts.items()}
        scores["all"] = {k: np.concatenate([scores["a"][k], scores["b"][k]], 1) for k in scores["a"]}
        by_step = {f"{k}_{part}": v.mean(1) for part, s in scores.items() for k, v in s.items()}
        solved = scores["b"]["accuracy"] > 0  # (steps, puzzles)
        first = np.where(solved.any(0), solved.argmax(0) + 1, 0)
        by_puzzle = {"rating": self.puzzles.test.rating, "first": first, "solved": solved[trained - 1].astype(int)}
        return {"metrics": {k: v[trained - 1] for k, v in by_step.items()}, "detail": {"by_step": by_step, "by_puzzle": by_puzzle}}

    def diverged(self):
        log_n = math.log(math.isqrt(self.train[0].shape[1]))
        return {f"{k}_{part}": v for part in ("a", "b", "all") for k, v in (("nll", log_n), ("accuracy", 0.0))}


def shuffled(size, seed, first, count):
    """Numbers first … first + count - 1 of an endless sequence of permutations of 0 … size - 1."""
    epochs = range(first // size, (first + count - 1) // size + 1)
    order = np.concatenate([np.random.default_rng((seed, 1, e)).permutation(size) for e in epochs])
    return order[first % size :][:count]


@torch.no_grad()
def score(model, puzzles, n_sup, chunk=256):
    """After each of n_sup supervision steps, arrays (n_sup, puzzles): NLL a cell in nats, share of cells that are right, are all
    (accuracy)?, and the halting head's cross-entropy. Random starts are the same in every evaluation."""
    model.eval()
    device, generator, parts = model.fixed.device, torch.Generator(model.fixed.device).manual_seed(0), []
    for i in range(0, len(puzzles), chunk):
        boards, targets = (v[i : i + chunk].to(device).long() for v in (puzzles.x, puzzles.y))
        rows = []
        for logits, halting, _ in steps(model, boards, n_sup, model.start(len(boards), generator=generator)):
            hit = logits.argmax(-1) == targets
            bce = F.binary_cross_entropy_with_logits(halting.float(), hit.all(-1).float(), reduction="none")
            rows.append(torch.stack([cell_nll(logits, targets, model.config.loss).mean(1), hit.float().mean(1), hit.all(-1).float(), bce]))
        parts.append(torch.stack(rows).cpu())  # (n_sup, 4, b)
    return dict(zip(("nll", "cells", "accuracy", "halting"), torch.cat(parts, 2).transpose(0, 1).numpy(), strict=True))
