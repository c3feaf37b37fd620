"""Is it leaking, does it forget where it started, and what does each refinement add? Probes of trained models.

D[i, j] is how much the prediction of slot i moves when the *target* at slot j is another word. A model
that predicts all slots in parallel may depend on no target: D = 0. One that predicts left to right may
depend on strictly earlier slots: D is zero on and above the diagonal. Anything on the diagonal is a
leak: the model was shown what it is asked for.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import torch

from trmlib.errors import TrmError
from trmlib.models.chunk import slot_nll

TOLERANCE = 1e-6  # of a total variation distance: rounding


@torch.no_grad()
def dependency(predict, targets, vocab, trials=4, seed=0):
    """Dependency matrix (m, m) of a predictor.

    predict   function of target words (b, m) → logits (b, m, vocab); it puts the targets wherever the
              model under test would see them (inputs, warm starts) and must be deterministic
    targets   the true words (b, m)
    trials    replacement words tried for every slot, at least 1
    Entry [i, j]: mean over examples and trials of the total variation distance, in 0 … 1, between the
    predictions of slot i before and after the target of slot j was replaced."""
    if trials < 1 or vocab < 2:
        raise TrmError(f"trials={trials} must be at least 1, and vocab={vocab} at least 2: no word would be replaced by another")
    generator = torch.Generator().manual_seed(seed)
    before, m = predict(targets).softmax(-1), targets.shape[1]
    if (predict(targets).softmax(-1) - before).abs().max() > TOLERANCE:
        raise TrmError("two predictions for the same targets differ: call model.eval() first, or draw the same noise each time")
    matrix = np.zeros((m, m))
    for j in range(m):
        for _ in range(trials):
            changed = targets.clone()
            shift = torch.randint(1, vocab, (len(targets),), generator=generator).to(targets.device)
            changed[:, j] = (changed[:, j] + shift) % vocab  # always another word
            distance = (predict(changed).softmax(-1) - before).abs().sum(-1) / 2  # (b, m)
            matrix[:, j] += distance.mean(0).cpu().double().numpy() / trials
    return matrix


def leaks(matrix, kind="parallel", tolerance=TOLERANCE):
    """The entries [(i, j, value)] that a predictor of this kind (parallel, autoregressive) must not have."""
    matrix = np.asarray(matrix, float)
    if kind not in ("parallel", "autoregressive"):
        raise TrmError(f"kind={kind!r} is unknown; choose one of parallel, autoregressive")
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise TrmError(
            f"a dependency matrix of shape {matrix.shape} with {(~np.isfinite(matrix)).sum()} non-finite entries says nothing of leaks"
        )
    allowed = np.tril(np.ones_like(matrix), -1) if kind == "autoregressive" else np.zeros_like(matrix)
    return [(int(i), int(j), float(matrix[i, j])) for i, j in np.argwhere((matrix > tolerance) & (allowed == 0))]


@torch.no_grad()
def alignment(solve, seed=0, own=False):
    """Asymptotic alignment: does a recursion end in the same state wherever it starts (Anil et al. 2022, arXiv 2211.09961)?

    solve(start) → final states, a tuple of tensors (b, …); `start` is such a tuple, or None for the model's own start. Every example is
    solved, then solved again from *another* example's final state, never its own (with `own`: from its own). For each state:
    "same": mean cosine of an example's two final states; "between": of its second and the other example's first, where it began; states
    are centred on their mean over examples first. "alignment" = same − between: 1 if the start is forgotten, near 0 if all examples end
    alike, near −1 if the second solution stays with the other example."""
    first = solve(None)
    order = torch.randperm(len(first[0]), generator=torch.Generator().manual_seed(seed)).to(first[0].device)
    other = torch.empty_like(order).scatter(0, order, order.roll(1))
    second, found = solve(first if own else tuple(s[other] for s in first)), []
    for s, t in zip(first, second, strict=True):
        centre = s.flatten(1).mean(0)
        a, b = s.flatten(1) - centre, t.flatten(1) - centre
        same, between = (torch.cosine_similarity(x, b).mean().item() for x in (a, a[other]))
        found.append({"same": same, "between": between, "alignment": same - between})
    return found


def refinement_gradients(model, tokens, passes):
    """What each of `passes` refinements of a `ChunkLM` adds to the gradient of the chunk's mean NLL by the blocks: (passes, parameters of the
    blocks), the first refinement first. A row is the gradient through this refinement and those after it, less that through those after
    it alone, so that rows add up to the whole gradient, and the last is all that is left of it where earlier refinements are detached."""
    whole, rows, after = copy.copy(model), [], 0  # shares its weights with `model`
    whole.config = replace(model.config, gradient="all")
    for k in reversed(range(passes)):
        with torch.no_grad():
            carry = whole(tokens, passes=k)[1] if k else None
        nll = slot_nll(whole(tokens, carry=carry, passes=passes - k)[0], tokens).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(nll, list(whole.blocks.parameters()))])
        rows.append(gradient - after)
        after = gradient
    return torch.stack(rows[::-1])


def by_refinement(model, tokens, passes):
    """Of each of `passes` refinements: the norm of what it adds to the `gradient` (passes,), and the `size` of the answer y, its root mean square,
    before the first and after each (passes + 1,)."""
    with torch.no_grad():
        size = [model(tokens, passes=k)[1][0].square().mean().sqrt().item() for k in range(passes + 1)]
    return {"gradient": refinement_gradients(model, tokens, passes).norm(dim=1).tolist(), "size": size}


def residual_growth(n):
    """How many times as large the states of a recursion with n latent updates become with each refinement, if its net adds no more than a little
    to what it is given, y + z: the larger eigenvalue of (y, z) → ((n + 1) y + z, n y + z)."""
    return (n + 2 + math.sqrt(n * (n + 4))) / 2
