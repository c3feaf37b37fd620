"""Scores of a model on a fixed batch, per blank or slot and per pass."""

import numpy as np
import torch
import torch.nn.functional as F

from trmlib.data.text import UNK
from trmlib.models.chunk import slot_nll


@torch.no_grad()
def score_blanks(model, batch, passes=None, every_pass=False, chunk=512):
    """NLL in nats and hit (0/1) of every blank: two arrays (passes + 1, windows, m), or (1, windows, m)
    for the last pass alone."""
    model.eval()
    nlls, hits = [], []
    for i in range(0, len(batch["tokens"]), chunk):
        part = {k: v[i : i + chunk] for k, v in batch.items()}
        logits = model(part["tokens"], part["at"], part["partners"], passes=passes, every_pass=every_pass)
        logits = logits if every_pass else logits.unsqueeze(0)  # (passes + 1 or 1, b, m, vocab)
        targets = part["targets"].expand(logits.shape[:-1])
        nll = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
        nlls.append(nll.view(targets.shape).cpu())
        hits.append((logits.argmax(-1) == targets).cpu())
    model.train()
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


@torch.no_grad()
def score_chunks(model, tokens, passes=None, every_pass=False, start=None, slots=None, chunk=128):
    """NLL in nats and hit (0/1) of every slot of windows `tokens` (windows, t): two arrays (passes + 1, windows, m), or
    (1, windows, m) for the last pass alone; `start` and `slots` as in `ChunkLM`, a start of tokens (windows, m) being split with them."""
    training = model.training
    model.eval()
    nlls, hits = [], []
    for i in range(0, len(tokens), chunk):
        part = tokens[i : i + chunk]
        own = start[i : i + chunk] if isinstance(start, torch.Tensor) else start
        logits, _ = model(part, start=own, passes=passes, every_pass=every_pass, slots=slots)
        logits = logits if every_pass else logits.unsqueeze(0)  # (passes + 1 or 1, b, m, vocab)
        nlls.append(slot_nll(logits, part).cpu())
        hits.append((logits.argmax(-1) == part[:, -logits.shape[-2] :]).cpu())
    model.train(training)
    return torch.cat(nlls, 1).numpy(), torch.cat(hits, 1).numpy()
