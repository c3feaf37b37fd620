"""Left to right on WikiText-2: the earlier system without its shift, the corrected one, and what passes are worth to a causal model."""

from dataclasses import replace

from trmlib.data.tokens import TokensConfig
from trmlib.experiments import autoregressive_evaluations as evaluations  # noqa: F401, part of what an experiment offers
from trmlib.experiments import capacity
from trmlib.models.chunk import ChunkConfig
from trmlib.runs import Run, Spec, TrainConfig

NAME = "autoregressive"
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEEDS = (100, 101, 102)

BASELINE = ChunkConfig(  # the earlier stack and its initial values, with the shift it lacked
    d=128, start="shifted", encode=False, causal=True, n=0, T=1, gradient="all", tied_head=False, init=0
)
TRM = replace(BASELINE, T=3)  # the same stack again on its own slots, the context embedded again each time
UNSHIFTED = {"baseline, no shift": replace(BASELINE, start="target"), "TRM, no shift": replace(TRM, start="target")}  # as it was
COMPUTE = 2.278  # baseline steps that cost as much as one of the TRM (counted: tests/test_autoregressive.py)
EVERYWHERE = 1.7715  # the same where both train at every position
LONGER = {
    "baseline-compute": COMPUTE,
    "baseline-longer": 3,
    "baseline-everywhere-compute": EVERYWHERE,
}  # arm → its steps, in those of the others; the second stood in for the first once
MODELS = {  # arm → model, in the order in which the queue takes them
    **UNSHIFTED,
    "baseline": BASELINE,
    "TRM": TRM,
    "baseline-compute": BASELINE,
    "6-blocks": replace(BASELINE, blocks=6),
    "baseline-everywhere": replace(BASELINE, everywhere=True),
    "TRM-everywhere": replace(TRM, everywhere=True, whole=True),
    "every-pass": replace(TRM, loss_passes="every"),
    "recursion": replace(TRM, n=2, gradient="last"),
    **{f"{T}-passes": replace(BASELINE, T=T) for T in (2, 5, 8)},
    "baseline-longer": BASELINE,
    "baseline-everywhere-compute": replace(BASELINE, everywhere=True),
    "TRM-everywhere, chunk alone": replace(TRM, everywhere=True),  # the same training, read out by other slots than it trained
}
SETTINGS = {  # what was tried then, one at a time: name → (fields of the data, fields of the model)
    "context 32": ({"context": 32}, {}),
    "context 8": ({"context": 8}, {}),
    "chunk 4": ({"chunk": 4}, {}),
    "10,000 words": ({"vocab": 10_000}, {}),
    "dropout 0.3": ({}, {"dropout": 0.3}),
    "dropout 0.5": ({}, {"dropout": 0.5}),
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
PUBLISHED = 3e-4  # learning rate of the earlier code, at which its own systems run in full
CUT = 2_500  # steps of the cut profile
FAST = 3e-3  # learning rate of the cut settings: a large vocabulary takes longer to fall to 1.04


def grid(profile):
    """Every run of the experiment at a profile (smoke, cpu, full), the most wanted first."""
    smoke = profile == "smoke"
    data = TokensConfig(corpus="wikitext-2", tokeniser="lower", vocab=5_000, context=16, chunk=2)
    train = TrainConfig(steps=20_000, lr=1e-3)
    if profile == "cpu":  # an eighth of the validation words: all of them would take longer than the training
        data, train = replace(data, test_stride=16), replace(train, steps=CUT)
    if smoke:
        data = replace(data, corpus="toy-language", vocab=60, context=8, curve_windows=32)
        train = TrainConfig(steps=20, batch=8, lr=3e-3, eval_every=10)
    published = replace(train, lr=PUBLISHED) if profile == "full" else train
    seeds, runs = SEEDS[: 2 if smoke else None], []

    def arm(name, model, tier, data=data, train=train, seeds=seeds):
        model = replace(model, d=16, heads=2) if smoke else model
        runs.extend(Run(Spec(NAME, model, data, train, s), name, profile, 1000 * tier + s) for s in seeds)

    for i, (name, model) in enumerate(MODELS.items()):
        times = LONGER.get(name, 1)
        of_arm = published if name in UNSHIFTED else train
        arm(name, model, i, train=replace(of_arm, steps=round(times * train.steps), eval_every=round(times * train.eval_every)))
    tried = replace(train, lr=FAST) if profile == "cpu" else published
    for setting, (of_data, of_model) in list(SETTINGS.items())[2 : 3 if smoke else None] if smoke else SETTINGS.items():
        for name in (*UNSHIFTED, "baseline", "TRM"):
            arm(f"{name} ({setting})", replace(MODELS[name], **of_model), 20, replace(data, **of_data), tried)
    for name in ("baseline", "TRM"):
        for lr in RATES[: 1 if smoke else None]:
            arm(f"{name} (lr {lr:g})", MODELS[name], 3, train=replace(train, lr=lr), seeds=TUNING_SEEDS[: len(seeds)])  # right after TRM
        if profile == "full":
            arm(f"{name} (published rate)", MODELS[name], 20, train=published)
    return sorted(runs, key=lambda r: r.priority)


build = capacity.build
Task = capacity.Task  # windows of token ids, a chunk of them predicted; figures from part B
