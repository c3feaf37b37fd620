"""Scores of a model on a fixed batch: per blank or slot and per pass, and of all blanks of a window together."""

import math
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from trmlib.data.text import UNK
from trmlib.models.chunk import slot_nll

LETTERS = "abc"


def mix(logp, dim=0):
    """Log of the mean over `dim` of probabilities given as logs."""
    return logp.logsumexp(dim) - math.log(logp.shape[dim])


def parts(model, batch, chunk):
    """The batch in chunks of about `chunk` windows (fewer, with K starts each)."""
    chunk = max(1, chunk // model.config.samples)
    for i in range(0, len(batch["tokens"]), chunk):
        yield {k: v[i : i + chunk] for k, v in batch.items()}


@torch.no_grad()
def score_blanks(model, batch, passes=None, every_pass=False, chunk=512):
    """NLL in nats and hit (0/1) of every blank: two arrays (passes + 1, windows, m), or (1, windows, m)
    for the last pass alone. With random starts: of the mixture's marginals."""
    training = model.training
    model.eval()
    nlls, hits = [], []
    for part in parts(model, batch, chunk):
        logits = model(part["tokens"], part["at"], part.get("partners"), passes=passes, every_pass=every_pass)
        logits = logits if every_pass else logits.unsqueeze(0)  # (passes + 1 or 1, [K,] b, m, vocab)
        if model.config.samples > 1:
            logits = mix(logits.float().log_softmax(-1), 1)
        targets = part["targets"].expand(logits.shape[:-1])
        nll = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
        nlls.append(nll.view(targets.shape).cpu())
        hits.append((logits.argmax(-1) == targets).cpu())
    model.train(training)
    return torch.cat(nlls, 1).numpy(), torch.cat(hits, 1).numpy()


def summarise(nll, hit, batch, unknown=(UNK,)):
    """Mean NLL and accuracy over all blanks (…, windows, m) → (…), and over those whose word is known
    (neither the vocabulary's <UNK> nor the corpus's own <unk>)."""
    known = ~np.isin(batch["targets"].cpu().numpy(), unknown)
    mean = lambda x, where=None: np.mean(x, axis=(-2, -1), where=True if where is None else where)  # noqa: E731
    return {
        "nll": mean(nll),
        "accuracy": mean(hit.astype(float)),
        "nll_known": mean(nll, known),
        "accuracy_known": mean(hit.astype(float), known),
    }


def fill(part, i, words):
    """The batch with blank number i of each window filled with `words` (b,), the other blanks left: (batch, their numbers)."""
    rest = [j for j in range(part["at"].shape[1]) if j != i]
    filled = part["tokens"].scatter(1, part["at"][:, [i]], words.unsqueeze(1))
    return {"tokens": filled, "at": part["at"][:, rest], "targets": part["targets"][:, rest]}


def weighed(logp, right, size, generator):
    """Words (b, n) and the logs of their weights, whose weighted sum of any function of a word is its expectation under `logp`
    (b, vocab): exact over all words, or with `size` = (M, S) unbiased, the `right` word and the M − 1 likeliest others being
    weighted by their probabilities and S words, drawn from the rest, evenly by its probability. (The right word may be what
    makes the other one likely; left to chance it would be missed.)"""
    vocab = logp.shape[-1]
    if size is None or size[0] >= vocab:
        return torch.arange(vocab, device=logp.device).expand(len(logp), -1), logp
    exactly, drawn = size
    words = logp.scatter(1, right.unsqueeze(1), math.inf).topk(exactly).indices
    rest = logp.scatter(1, words, -math.inf)
    tail = rest.softmax(-1).multinomial(drawn, True, generator=generator)
    even = rest.logsumexp(-1, keepdim=True) - math.log(drawn)
    return torch.cat([words, tail], 1), torch.cat([logp.gather(1, words), even.expand(-1, drawn)], 1)


@torch.no_grad()
def score_joint(model, batch, marginal_words=None, chunk=512, seed=0):
    """Likelihood of all blanks of a window together, by every way of spending compute on it: dict of arrays.

    blanks     (windows, m)  NLL of each blank by the model's parallel marginals
    parallel   (windows,)    joint NLL in one go: the product of the marginals, or with K random starts the exact mixture
                             -log 1/K Σ_k Π_i q_k(i)
    one by one ab, ba, abc, … (windows,): joint NLL filling in that order, each blank given the words before it
    filled     (windows,)    joint NLL of the even mixture of all orders
    coordination, coordination_ab, … (windows,): log q(all) - Σ_i log q(i), q's *own* marginals on both sides; for a filled pair
                             the second blank's marginal is Σ_w q(w) q(b | w), over the whole vocabulary or estimated. With
                             `marginal_words` = (M, S): the right word and the M − 1 likeliest others exactly, and for all the
                             rest S words drawn from it. That sum is unbiased; its logarithm is on average too low (Jensen), so
                             that what is left of the bias makes the coordination of filling too *high*, never too low
    right      (windows,)    1 where the likeliest word of each marginal is right at every blank
    right_own  (windows,)    1 where filling from the left with the model's own words is right at every blank"""
    training = model.training
    model.eval()
    m, out = batch["at"].shape[1], {}
    generator = torch.Generator(device=batch["tokens"].device).manual_seed(seed)

    def logp(part):  # (K, b, m, vocab)
        logits = model(part["tokens"], part["at"]).float().log_softmax(-1)
        return logits if model.config.samples > 1 else logits.unsqueeze(0)

    def of(p, words):  # log-probabilities of words (…, m)
        return p.gather(-1, words.expand(p.shape[:-1]).unsqueeze(-1)).squeeze(-1)

    def orders(part):  # {order: log q of it}, blank numbers within the part
        p = mix(logp(part))
        if part["at"].shape[1] == 1:
            return {(0,): of(p, part["targets"])[:, 0]}, p
        found = {}
        for i in range(part["at"].shape[1]):
            after, _ = orders(fill(part, i, part["targets"][:, i]))
            for order, value in after.items():
                found[i, *(j + (j >= i) for j in order)] = of(p, part["targets"])[:, i] + value
        return found, p

    def marginal(part, p, i):  # log Σ_w q(w at i) q(the other's target | w), for pairs
        words, weight = weighed(p[:, i], part["targets"][:, i], marginal_words, generator)
        terms = []
        for w in range(words.shape[1]):
            filled = fill(part, i, words[:, w])
            terms.append(weight[:, w] + of(mix(logp(filled)), filled["targets"])[:, 0])
        return torch.stack(terms).logsumexp(0)

    for part in parts(model, {k: batch[k] for k in ("tokens", "at", "targets")}, chunk):
        found, p = orders(part)
        members = of(logp(part), part["targets"])  # (K, b, m)
        blanks, together = mix(members), mix(members.sum(-1))
        scores = {"blanks": -blanks, "parallel": -together, "coordination": together - blanks.sum(-1)}
        scores |= {"".join(LETTERS[i] for i in order): -value for order, value in found.items()}
        scores["filled"] = -mix(torch.stack(list(found.values())))
        if m == 2:
            for i, name in enumerate(("ab", "ba")):
                scores[f"coordination_{name}"] = -scores[name] - blanks[:, i] - marginal(part, p, i)
        word, rest = p.argmax(-1), part
        scores["right"] = (word == part["targets"]).all(-1).double()
        own = torch.ones(len(word), dtype=torch.bool, device=word.device)
        for left in range(m, 0, -1):  # fill the leftmost blank with the model's own word
            word = mix(logp(rest))[:, 0].argmax(-1)
            own &= word == rest["targets"][:, 0]
            rest = fill(rest, 0, word) if left > 1 else rest
        scores["right_own"] = own.double()
        for name, value in scores.items():
            out.setdefault(name, []).append(value.cpu())
    model.train(training)
    return {name: torch.cat(values).numpy() for name, values in out.items()}


@torch.no_grad()
def likeliest(model, tokens, at, words, k=3):
    """The k likeliest words of every blank of one window, before any pass and after each: [pass][blank] → [(word, probability), …]."""
    model.eval()
    logits = model(tokens, at, every_pass=True)  # (passes + 1, 1, m, vocab)
    top = logits[:, 0].softmax(-1).topk(k)
    return [
        [[(words[w], p) for w, p in zip(ids, ps, strict=True)] for ids, ps in zip(*pair, strict=True)]
        for pair in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


@torch.no_grad()
def window_flops(model, batch, windows=32):
    """FLOPs a window of naming all blanks, counted: {"at once": …, "one by one": …}."""
    part = {k: v[:windows] for k, v in batch.items() if k in ("tokens", "at", "targets")}

    def count(part):
        with FlopCounterMode(display=False) as counter:
            model(part["tokens"], part["at"])
        return counter.get_total_flops() / len(part["tokens"])

    at_once = one_by_one = count(part)
    for _ in range(part["at"].shape[1] - 1):
        part = fill(part, 0, part["targets"][:, 0])
        one_by_one += count(part)
    return {"at once": at_once, "one by one": one_by_one}


def orders_of(m):
    """Names of the filling orders of m blanks: ["ab", "ba"], …"""
    return ["".join(p) for p in permutations(LETTERS[:m])]


@torch.no_grad()
def score_chunks(model, tokens, passes=None, every_pass=False, start=None, slots=None, chunk=128):
    """NLL in nats and hit (0/1) of every slot of windows `tokens` (windows, t): two arrays (passes + 1, windows, m), or
    (1, windows, m) for the last pass alone; `start` and `slots` as in `ChunkLM`, a start of tokens (windows, m) being split with them."""
    training, nlls = model.training, None
    model.eval()
    for i in range(0, len(tokens), chunk):
        part = tokens[i : i + chunk]
        own = start[i : i + chunk] if isinstance(start, torch.Tensor) else start
        logits, _ = model(part, start=own, passes=passes, every_pass=every_pass, slots=slots)
        logits = logits if every_pass else logits.unsqueeze(0)  # (passes + 1 or 1, b, m, vocab)
        nll = slot_nll(logits, part)
        if nlls is None:  # one array from the start: small ones kept between large freed ones make the heap grow with every part
            shape = len(nll), len(tokens), nll.shape[-1]
            nlls, hits = np.empty(shape, np.float32), np.empty(shape, bool)
        nlls[:, i : i + chunk] = nll.cpu()
        hits[:, i : i + chunk] = (logits.argmax(-1) == part[:, -logits.shape[-2] :]).cpu()
    model.train(training)
    return nlls, hits
