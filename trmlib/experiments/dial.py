"""Marginals or joint: two blanks that share a dialled number of nats, and three ways to spend compute on them."""

from dataclasses import replace

from trmlib.data.synthetic import Dial
from trmlib.experiments import fill_evaluations as evaluations  # noqa: F401
from trmlib.experiments.fill import FillTask
from trmlib.models.masked import MaskedConfig
from trmlib.runs import Run, Spec, TrainConfig

NAME = "dial"
SEEDS = tuple(range(10))
Task = FillTask

PASSES = MaskedConfig(d=32, dropout=0.0, refine_blocks=1, passes=1)
MODELS = {
    "parallel": replace(PASSES, passes=0),
    "1 pass": PASSES,
    "3 passes": replace(PASSES, passes=3),
    "8 passes": replace(PASSES, passes=8),
    "2 samples": replace(PASSES, samples=2),
    "4 samples": replace(PASSES, samples=4),
    "8 samples": replace(PASSES, samples=8),
    "16 samples": replace(PASSES, samples=16),
}


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first. cpu and full are the same runs."""
    data, train, models = Dial(), TrainConfig(steps=4_000, batch=128, lr=3e-3, eval_every=200), MODELS
    if profile == "smoke":
        data, train = Dial(symbols=4, shifts=2), TrainConfig(steps=40, batch=16, eval_every=20, lr=3e-3)
        models = {arm: replace(m, d=16, heads=2) for arm, m in MODELS.items()}
    elif profile == "cpu":
        return []
    seeds = SEEDS[: 2 if profile == "smoke" else None]
    return [
        Run(Spec(NAME, m, data, train, s), arm, profile, 1000 * (35 + i) + s) for i, (arm, m) in enumerate(models.items()) for s in seeds
    ]


def build(spec):
    """A fresh model."""
    return FillTask(spec).model()
