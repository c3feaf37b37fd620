"""New measures of trained masked models: evaluations of old weights, each a record of its own."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from trmlib.data import text
from trmlib.evaluate import likeliest, score_joint
from trmlib.evaluate import window_flops as blanks_flops
from trmlib.models.masked import MaskedLM
from trmlib.probe import dependency

BANDS = {"rank 1–10": (1, 10), "rank 11–100": (11, 100), "rank 101–1,000": (101, 1000), "rank 1,001 and on": (1001, 10**9)}
FUNCTION_WORDS = frozenset(
    """
    a about above after against all along also although am among an and another any are around as at be because been before being below
    between both but by can could did do does down during each either few for from had has have he her here hers herself him himself his
    how however i if in into is it its itself may me might more most must my neither no nor not of off on once only onto or other our
    out over own per same shall she should since so some such than that the their them then there these they this those though through
    to too toward under until up upon us was we were what when where whether which while who whom whose why will with within without
    would yet you your 's
    """.split()  # noqa: SIM905, a text is read more easily than 137 literals
)
SENTENCES = (  # two blanks each: distant ones, neighbours, and a pair that must agree
    "the city was founded in the _ century and is the capital of the _",
    "he was born in _ _ and moved to london with his family in the 1920s",
    "the film was released in the united _ of america and in the united _",
)
FRACTIONS = np.linspace(0, 1, 21)


def word_classes(vocab, unknown):
    """Class of every word id: function, content, number, punctuation or unknown."""

    def kind(word, i):
        if i in unknown:
            return "unknown"
        if not any(c.isalnum() for c in word):
            return "punctuation"
        if any(c.isdigit() for c in word):
            return "number"
        return "function" if word in FUNCTION_WORDS else "content"

    return np.array([kind(w, i) for w, i in vocab.items()])


@torch.no_grad()
def read_outs(model, batch, passes, chunk=256):
    """Per blank and pass, arrays (passes + 1, windows, m): NLL, predicted word, entropy in nats; and the states (…, d)."""
    model.eval()
    parts = []
    for i in range(0, len(batch["tokens"]), chunk):
        part = {k: v[i : i + chunk] for k, v in batch.items()}
        states = []
        hook = model.norm.register_forward_hook(lambda _, __, out, states=states: states.append(out))
        logp = model(part["tokens"], part["at"], part["partners"], passes=passes, every_pass=True).log_softmax(-1)
        hook.remove()
        target = part["targets"].expand(logp.shape[:-1]).unsqueeze(-1)
        parts.append((-logp.gather(-1, target).squeeze(-1), logp.argmax(-1), -(logp.exp() * logp).sum(-1), states[0]))
    return tuple(torch.cat(p, 1).cpu().numpy() for p in zip(*parts, strict=True))


def refinement(task, model):
    """What a pass changes, on part B: for all blanks, by frequency band and by word class, per pass: NLL, accuracy,
    and the share of blanks whose predicted word changed, became right, became wrong."""
    rows = task.fixed.part_b[task.fixed.article]
    batch = {k: v[torch.from_numpy(rows)] for k, v in task.fixed_batch.items()}
    c = task.spec.model
    nll, word, _, _ = read_outs(model, batch, max(c.passes, 8) if c.tied else c.passes)
    target = batch["targets"].cpu().numpy()
    rank, kinds = target - text.UNK, word_classes(task.vocab, task.unknown)[target]
    groups = {"all": np.ones_like(target, bool)}
    groups |= {band: (rank >= lo) & (rank <= hi) for band, (lo, hi) in BANDS.items()}
    groups |= {kind: kinds == kind for kind in ("function", "content", "number", "punctuation", "unknown")}
    right, out = word == target, {}
    for name, g in groups.items():
        if g.any():
            share = lambda x, g=g: [float(p[g].mean()) for p in x]  # noqa: E731
            out[name] = {
                "blanks": int(g.sum()), "nll": share(nll), "accuracy": share(right),
                "changed": share(word[1:] != word[:-1]), "mended": share(right[1:] & ~right[:-1]), "broken": share(~right[1:] & right[:-1]),
            }  # fmt: skip
    return out


def leak_probe(task, model, windows=256):
    """The dependency matrix with the blanks masked, as trained, and, as a check that the probe can fire, with the words left in."""
    batch = {k: v[:windows] for k, v in task.fixed_batch.items()}
    model.eval()

    def predict(hidden):
        def f(targets):
            seen = torch.full_like(targets, text.MASK) if hidden else targets
            return model(batch["tokens"].scatter(1, batch["at"], seen), batch["at"], batch["partners"])

        return f

    return {
        name: dependency(predict(hidden), batch["targets"], task.config.vocab)
        for name, hidden in {"masked": True, "words left in": False}.items()
    }


def examples(task, model):
    """What the model says of the blanks of SENTENCES, pass by pass (`evaluate.likeliest`)."""
    words = list(task.vocab)
    return {s: likeliest(model, *(v.to(task.device) for v in text.question(s, words, task.config.context)), words) for s in SENTENCES}


def adaptive(task, models, first=1, last=None):
    """Adaptive depth: stop every window at pass `first`, and let a share of them go on to pass `last`.

    Who goes on is chosen by chance (fixed depth, mixed), by the entropy after pass `first`, by a ridge regression on the
    state after pass `first` (trained on part A), or by the true gain. A window's gain is the fall of its NLL, averaged over
    the *other* seeds. Result: for each policy, NLL on part B (seeds, shares) and FLOPs a window (shares,), all compute charged."""
    c = task.spec.model
    last = last or c.passes
    b = task.fixed.part_b[task.fixed.article]
    outs = [read_outs(m, task.fixed_batch, last) for m in models]
    nll = np.stack([o[0].mean(-1) for o in outs])  # (seeds, passes + 1, windows)
    gain = nll[:, first] - nll[:, last]
    others = (gain.sum(0) - gain) / (len(models) - 1)
    nlls = {p: [] for p in ("fixed", "entropy", "head", "true gain")}
    for s, (_, _, entropy, state) in enumerate(outs):
        x = np.concatenate([state[first].mean(1), state[first].std(1), np.ones((len(b), 1))], 1)  # (windows, 2d + 1)
        w = np.linalg.solve(x[~b].T @ x[~b] + 10 * np.eye(x.shape[1]), x[~b].T @ others[s, ~b])
        scores = {"entropy": entropy[first].mean(-1)[b], "head": x[b] @ w, "true gain": gain[s, b]}
        go_on, stop = nll[s, last, b], nll[s, first, b]
        nlls["fixed"].append([(1 - f) * stop.mean() + f * go_on.mean() for f in FRACTIONS])
        for name, score in scores.items():
            order = np.argsort(-score, kind="stable")
            gained = np.concatenate([[0], np.cumsum((go_on - stop)[order])]) / len(order)
            nlls[name].append([stop.mean() + gained[round(f * len(order))] for f in FRACTIONS])
    to_first, one_pass, head = window_flops(models[0], task)
    extra, choice = (last - first) * one_pass, 2 * (2 * c.d + 1)
    flops = {"fixed": to_first + first * one_pass + head + FRACTIONS * extra}
    flops |= {"true gain": flops["fixed"], "head": flops["fixed"] + choice, "entropy": flops["fixed"] + FRACTIONS * head}
    return {"first": first, "last": last, "share": FRACTIONS, "nll_b": nlls, "flops": flops}


def window_flops(model, task):
    """(encoder, one pass, read-out) in FLOPs a window, counted."""
    batch = {k: v[:32] for k, v in task.fixed_batch.items()}

    def count(passes):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(batch["tokens"], batch["at"], batch["partners"], passes=passes)
        return counter.get_total_flops() / len(batch["tokens"])

    head = 2 * model.head.weight.numel() * batch["at"].shape[1]
    return count(0) - head, count(1) - count(0), head


def spread(near, blanks, context):
    """Offsets of the blanks of a window from the first: neighbours, or as far apart as the window allows."""
    return np.arange(blanks) * (1 if near else (context - 3) // (blanks - 1))


def coordination(task, model, windows=1024, words=(24, 8)):
    """How much the blanks of a window have to say to one another, on `windows` windows of part B, for 2 … all blanks side by side
    ("2 neighbours", …) and far apart ("2 distant", …): means of all that `evaluate.score_joint` gives, in nats, marginals estimated
    from the likeliest words and a few others (`words`)."""
    c, found = task.config, {}
    rows = np.flatnonzero(task.fixed.part_b[task.fixed.article])
    rows = np.random.default_rng(1).permutation(rows)[:windows]
    shown = {k: v[torch.from_numpy(rows)].cpu() for k, v in task.fixed.batch.items()}
    tokens = shown["tokens"].scatter(1, shown["at"], shown["targets"])  # nothing hidden
    for blanks in range(2, c.blanks + 1):
        for name, near in {"neighbours": True, "distant": False}.items():
            offsets = spread(near, blanks, c.context)
            first = 1 + np.random.default_rng(2).integers(c.context - 2 - offsets[-1], size=len(tokens))
            at = torch.from_numpy(first[:, None] + offsets)
            batch = {"tokens": tokens.scatter(1, at, text.MASK), "at": at, "targets": tokens.gather(1, at)}
            scores = score_joint(model, {k: v.to(task.device) for k, v in batch.items()}, words)
            found[f"{blanks} {name}"] = {k: v.mean() for k, v in scores.items()} | {"flops": blanks_flops(model, batch)}
    return found


SINGLE = {"refinement": refinement, "leak_probe": leak_probe, "examples": examples, "coordination": coordination}  # of one run
GROUPED = {"adaptive": adaptive}  # of all seeds of an arm
GROUP_SEEDS = (0, 1, 2, 3, 4)
ADAPTIVE_ARMS = ("joint", "every-pass")


def wanted(arm, spec):
    """The names of the evaluations that an arm takes part in."""
    single = ["leak_probe"] if arm in ("baseline", "joint", "random-partner", "context") else []
    if spec.model.passes and " (" not in arm:
        single.append("refinement")
    if arm in ("baseline", "joint"):
        single.append("examples")
    if spec.data.min_blanks:
        single.append("coordination")
    return single + (["adaptive"] if arm in ADAPTIVE_ARMS else [])


def load_model(task, tensors):
    """The model with saved weights."""
    model = MaskedLM(task.spec.model, task.config.vocab, task.config.context)
    model.load_state_dict(tensors)
    return model.to(task.device).eval()
