"""New measures of trained Shakespeare models: evaluations of old weights, each a record of its own."""

from itertools import pairwise

import numpy as np
import torch

from trmlib.errors import TrmError
from trmlib.evaluate import score_chunks
from trmlib.experiments.capacity_evaluations import leak_probe, load_model  # noqa: F401, the same here
from trmlib.models.chunk import generate, strip

PROMPT = "ROMEO:\n"
STARTS = ("target", "last", "zeros", "noise")  # starts that need no parameter of their own


def starts(task, model):
    """NLL on part B, after each refinement, from other starts than the trained one: {start: (passes + 1,)}.

    "wrong" starts at random characters that are not the targets, "another" at the targets of another window."""
    tokens = task.tokens[torch.from_numpy(np.flatnonzero(task.in_b))]
    targets, symbols = tokens[:, task.config.context :], len(task.text.table)
    shift = torch.randint(1, symbols, targets.shape, generator=torch.Generator().manual_seed(0)).to(targets.device)
    chosen = {name: name for name in STARTS} | {"wrong": (targets + shift) % symbols, "another": targets.roll(1, 0)}
    if model.mask is not None:
        chosen["mask"] = "mask"
    return {name: score_chunks(model, tokens, task.passes, every_pass=True, start=s)[0].mean((1, 2)) for name, s in chosen.items()}


def samples(task, model, chunks=3, length=160):
    """Text that the model writes at temperature 0.8, and the passes of some chunks of the validation text as strips of readable characters."""
    out = {"strips": []}
    known = set(PROMPT) <= set(task.text.table)
    prompt = PROMPT if known else task.text.decode(task.text.validation[:8])  # the toy language has no Romeo
    if model.config.start != "target":
        out["text"] = sample(task, model, prompt, length)
    for row in np.flatnonzero(task.in_b)[:: max(1, int(task.in_b.sum()) // chunks)][:chunks]:
        out["strips"].append(passes_strip(task, model, task.tokens[row]))
    return out


def passes_strip(task, model, tokens):
    """The passes of one chunk in characters: context, target, and for each pass the likeliest characters and their probabilities."""
    found, decode, split = strip(model, tokens, task.passes), task.text.decode, task.config.context
    return {
        "context": decode(tokens[:split].tolist()), "target": decode(tokens[split:].tolist()),
        "best": [decode(t) for t in found["token"]], "probability": found["probability"], "of_target": found["of_target"],
    }  # fmt: skip


def sample(task, model, prompt, length=240, temperature=0.8, top_k=0, seed=0):
    """A continuation of a prompt; what is missing of the context before it is filled from the validation text's beginning."""
    if not prompt:
        raise TrmError("the prompt is empty; give at least one character")
    ids = np.concatenate([task.text.validation[: task.config.context], task.text.encode(prompt)])
    out = generate(model, torch.from_numpy(ids)[None].to(task.device), length, temperature, top_k, seed)
    return task.text.decode(out[0, task.config.context :].tolist())


def references(task, models):
    """What counting alone reaches on the targets of part B, NLL in nats: `unigram` knows how often each character comes in the
    training text, `bigram` how often after the character before it, `last` how often so far after the last character that was read, which is
    all that slots named at once can know of pairs (each count plus one). The models are not asked."""
    text, symbols, split = task.text.train, len(task.text.table), task.config.context
    rows = task.tokens.cpu().numpy()[task.in_b]

    def pairs(before, targets, far):  # NLL of targets (windows,) that come `far` characters after `before`
        counts = np.ones((symbols, symbols))
        np.add.at(counts, (text[:-far], text[far:]), 1)
        return -np.log(counts[before, targets] / counts[before].sum(1)).mean()

    slot = [rows[:, k] for k in range(split - 1, rows.shape[1])]  # the last character read, then the targets
    single = np.bincount(text[1:], minlength=symbols) + symbols
    return {"unigram": -np.log(single / single.sum())[rows[:, split:]].mean(), "bigram": np.mean([pairs(a, b, 1) for a, b in pairwise(slot)]),
            "last": np.mean([pairs(slot[0], slot[k], k) for k in range(1, len(slot))])}  # fmt: skip


SINGLE = {"leak_probe": leak_probe, "starts": starts, "samples": samples}  # of one run
GROUPED = {"references": references}  # of all seeds of an arm
OF_DATA = ("references",)
COUNTED = ("baseline",)  # the arm on whose targets characters are counted
GROUP_SEEDS = (0, 1, 2, 3, 4)


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    single = [] if arm == "calibration" or "(lr" in arm else ["leak_probe"]
    if spec.model.n and " (" not in arm and arm in ("target", "mask", "last", "zeros", "noise"):
        single.append("starts")
    if arm in ("target", "mask", "baseline", "baseline-everywhere", "baseline-compute", "parallel", "calibration"):
        single.append("samples")
    return single + (["references"] if arm in COUNTED else [])
