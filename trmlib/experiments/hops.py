"""Depth or thinking: pointer chains of a known length, models trained with some passes and tested with more."""

from dataclasses import replace

from trmlib.data.synthetic import Hops
from trmlib.experiments import fill_evaluations as evaluations  # noqa: F401
from trmlib.experiments.fill import FillTask
from trmlib.models.masked import MaskedConfig
from trmlib.runs import Run, Spec, TrainConfig

NAME = "hops"
SEEDS = tuple(range(10))
Task = FillTask

READS = MaskedConfig(d=64, dropout=0.0, context_blocks=0, refine_blocks=1, passes=8, sees="window", init=0.1)
MODELS = {  # arm → model (and what differs in its training), in the order in which the queue takes them
    "8 passes": READS,
    "4 passes": replace(READS, passes=4),
    "2 passes": replace(READS, passes=2),
    "1 pass": replace(READS, passes=1),
    "4 passes, within reach": replace(READS, passes=4),
    "2 passes, within reach": replace(READS, passes=2),
    "8 passes, no curriculum": READS,
    "8 passes, random": replace(READS, random_passes=True),
    "8 passes, commits": replace(READS, state="tokens"),
    "8 passes, untied": replace(READS, tied=False),
    "8 passes, every": replace(READS, loss_passes="every"),
    "8 passes, blind": replace(READS, sees="self", context_blocks=1),
    "TRM": replace(READS, passes=4, n=2, with_grad=1),
    "TRM, full gradient": replace(READS, passes=4, n=2),
    "2 passes × 4 supervised": replace(READS, passes=2),
    "4 passes, whole window": replace(READS, sees="all", passes=4, rereads=True),
    "0 passes, 4 blocks": replace(READS, passes=0, context_blocks=4),
    # Added when all above were recorded, for chapter 04 had shown that states which nobody brings back to size dilute each pass
    "TRM, bounded": replace(READS, passes=4, n=2, with_grad=1, bounded=True),
    "TRM, full gradient, bounded": replace(READS, passes=4, n=2, bounded=True),
    "4 passes, bounded": replace(READS, passes=4, bounded=True),
    # Added when these were recorded: the paper brings every sum of its blocks to size, not the states alone
    "TRM, normed": replace(READS, passes=4, n=2, with_grad=1, normed=True),
    "TRM, full gradient, normed": replace(READS, passes=4, n=2, normed=True),
    "4 passes, normed": replace(READS, passes=4, normed=True),
    "8 passes, normed": replace(READS, normed=True),
    # TRM much as published: sums of its blocks brought to size, a gradient through the last pass alone, and supervision again and again from the state reached
    "TRM, normed × 4 supervised": replace(READS, passes=2, n=2, with_grad=1, normed=True),
    # Added when half of its namesake's seeds were seen to be still learning at the end
    "TRM, full gradient, bounded, longer": replace(READS, passes=4, n=2, bounded=True),
    # Added when all above were recorded: TRM without the passes that its gradient does not reach
    "1 pass, n = 2": replace(READS, passes=1, n=2),
    "1 pass, n = 2, normed": replace(READS, passes=1, n=2, normed=True),
}
LONGER = {"TRM, full gradient, bounded, longer": 4}  # times the steps
SUPERVISED = {"2 passes × 4 supervised": 4, "TRM, normed × 4 supervised": 4}
WITHIN = {k: {"trained": tuple(t for t in Hops().trained if t <= k)} for k in (2, 4)}  # never asked for more hops than there are passes
ASKED = {  # arm → fields of its language
    "4 passes, within reach": WITHIN[4],
    "2 passes, within reach": WITHIN[2],
    "8 passes, no curriculum": {"curriculum": 0.0},
}


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first. cpu and full are the same runs."""
    data, models, language = Hops(), MODELS, ASKED
    train = TrainConfig(steps=2_500, batch=32, lr=1e-3, warmup=200, beta2=0.98, eval_every=125)
    if profile == "smoke":
        data, train = Hops(length=3, starts=2, trained=(1, 2)), TrainConfig(steps=40, batch=16, eval_every=20, lr=3e-3)
        models = {arm: replace(m, d=16, heads=2) for arm, m in MODELS.items()}
        language = {arm: {"trained": (1,)} if "trained" in fields else fields for arm, fields in ASKED.items()}
    elif profile == "cpu":
        return []
    runs = []
    for i, (arm, model) in enumerate(models.items()):
        asked = replace(data, **language.get(arm, {}))
        times = LONGER.get(arm, 1)
        own = replace(train, n_sup=SUPERVISED.get(arm, 1), steps=times * train.steps, eval_every=times * train.eval_every)
        spec = lambda s, m=model, d=asked, t=own: Spec(NAME, m, d, t, s)  # noqa: E731
        runs += [Run(spec(s), arm, profile, 1000 * (40 + i) + s) for s in SEEDS[: 2 if profile == "smoke" else None]]
    return runs


def build(spec):
    """A fresh model."""
    return FillTask(spec).model()
