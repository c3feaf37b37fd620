"""New measures of trained capacity models: evaluations of old weights, each a record of its own."""

import numpy as np
import torch

from trmlib.evaluate import score_chunks
from trmlib.models.chunk import slot_nll
from trmlib.probe import by_refinement, dependency


def leak_probe(task, model, windows=256):
    """The dependency matrix of the chunk: how the prediction of slot i moves when the target of slot j is another token."""
    rows = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))][:windows]
    context, targets = rows[:, : task.config.context], rows[:, task.config.context :]
    model.eval()
    predict = lambda targets: model(torch.cat([context, targets], 1), passes=task.passes)[0]  # noqa: E731
    return {"as trained": dependency(predict, targets, model.embedding.num_embeddings)}


def references(task, models, prior=1000, part=1 << 20):
    """What counting alone reaches on the targets of part B, NLL in nats: `unigram` knows how often each token comes in the training
    text, `bigram` how often after the token before it, `last` how often so far after the last token that was read, which is all that
    slots named at once can know of pairs. A pair's share is drawn to the token's own as if that had been seen `prior` times more
    (a Dirichlet prior). The models are not asked."""
    c, text = task.config, task.train.ids
    rows = task.fixed.tokens[task.in_b]
    single = sum(np.bincount(text[i : i + part], minlength=c.vocab) for i in range(0, len(text), part)) + 1.0
    single /= single.sum()
    ahead = np.arange(1, c.chunk + 1)

    def pairs(before, targets, far):  # NLL of targets (windows,) that come `far` tokens after `before`
        asked, at = np.unique(before * c.vocab + targets, return_inverse=True)
        seen, of = np.zeros(len(asked)), np.zeros(c.vocab)
        for i in range(0, len(text) - far, part):
            a = text[i : min(i + part, len(text) - far)].astype(np.int64)
            pair = a * c.vocab + text[i + far : i + far + len(a)]
            place = np.searchsorted(asked, pair).clip(max=len(asked) - 1)
            seen += np.bincount(place[asked[place] == pair], minlength=len(asked))
            of += np.bincount(a, minlength=c.vocab)
        return -np.log((seen[at] + prior * single[targets]) / (of[before] + prior)).mean()

    slot = [rows[:, c.context - 1 + k] for k in (0, *ahead)]
    return {"unigram": -np.log(single[rows[:, c.context :]]).mean(), "bigram": np.mean([pairs(slot[k - 1], slot[k], 1) for k in ahead]),
            "last": np.mean([pairs(slot[0], slot[k], k) for k in ahead])}  # fmt: skip


@torch.no_grad()
def slots(task, model, part=128):
    """NLL on part B of each slot before the first refinement and after each: (passes + 1, m). All models know the same of the first slot's target, the
    next token; of a TRM trained everywhere also what its encoder alone says of that: `encoder`, before anything is refined."""
    rows, t = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))], task.config.context
    result = {"nll": score_chunks(model, rows, every_pass=True)[0].mean(1)}
    if model.config.encode and model.config.everywhere:
        causal = torch.ones(t, t, dtype=torch.bool, device=rows.device).tril()
        read = lambda ids: slot_nll(model.read(model.question(ids[:, :t], causal)[:, -1:]), ids[:, : t + 1])  # noqa: E731
        result["encoder"] = torch.cat([read(ids) for ids in rows.split(part)]).mean().item()
    return result


def passes(task, model):
    """NLL on part B after 0 … TEST_PASSES refinements, more than were trained: (TEST_PASSES + 1,)."""
    rows = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))]
    return {"nll_b": score_chunks(model, rows, TEST_PASSES, every_pass=True)[0].mean((1, 2))}


def gradients(task, model, windows=256):
    """What each of TEST_PASSES refinements adds, to the weights that training began with and to the trained ones (`probe.by_refinement`)."""
    rows = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))][:windows]
    torch.manual_seed(task.spec.seed)  # as training does
    fresh = task.model().to(task.device).eval()
    return {name: by_refinement(m, rows, TEST_PASSES) for name, m in (("fresh", fresh), ("trained", model))}


def trained_gradients(task, model, windows=256):
    """The same of the refinements that were trained, of the trained weights alone: the gradient is that of the last trained read-out."""
    rows = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))][:windows]
    return by_refinement(model, rows, model.config.T)


TEST_PASSES = 8
SINGLE = {  # of one run
    "leak_probe": leak_probe, "slots": slots, "passes": passes, "gradients": gradients, "trained_gradients": trained_gradients,
}  # fmt: skip
GROUPED = {"references": references}  # of all seeds of an arm
OF_DATA = ("references",)
SLOTS = ("everywhere 0.1M", "everywhere 0.1M (n 0, T 1)", "causal 0.1M", "standard 0.1M")  # those compared slot by slot
SIZED = tuple(f"{SLOTS[0]} ({how})" for how in ("bounded", "normed"))  # the same TRM, its states or its blocks' sums brought to unit size
COUNTED = ("causal 0.1M", "TRM WikiText-2")  # the arms on whose targets tokens are counted
GROUP_SEEDS = (0, 1, 2, 3, 4)


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    single = (
        ["leak_probe"]
        if " (" not in arm and arm.split()[0] in ("TRM", "annealed", "everywhere", "leaking", "causal") and "=" not in arm
        else []
    )
    single += ["slots"] if arm in SLOTS else []
    single += ["passes", "gradients", "trained_gradients"] if arm in (SLOTS[0], *SIZED) else []
    return single + (["references"] if arm in COUNTED else [])


def load_model(task, tensors):
    """The model with saved weights."""
    model = task.model()
    model.load_state_dict(tensors)
    return model.to(task.device).eval()
