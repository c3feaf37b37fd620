"""New measures of trained Sudoku models: evaluations of old weights, each a record of its own.

Thinking longer (supervision steps) and trying again (random starts) on one axis of compute; calibration; what a step does;
alignment. All on puzzles of part B that no choice was made on. Outcomes are kept for every puzzle, so that a report can compare the
same puzzles and starts, and cross seeds with puzzles.
"""

import base64
import zlib
from functools import cache

import numpy as np
import torch

from trmlib.data import sudoku
from trmlib.data.solver import rounds
from trmlib.models.grid import log_softmax, steps
from trmlib.probe import alignment

# By corpus: random starts tried up to so many supervision steps; puzzles of each evaluation; steps of `longer`, and on its first
# puzzles ("far": how many, steps) still more. FULL is for the corpora of real puzzles.
FULL = {"starts": {64: 64}, "budget": 500, "longer": 1000, "steps": 64, "far": (250, 256), "noise": 250, "shown": 250}
SIZES = {
    "easy-9": {"starts": {8: 64, 64: 8}, "budget": 32, "longer": 250, "steps": 64, "far": (32, 256), "noise": 40, "shown": 250},
    "easy-4": {"starts": {4: 4, 16: 2}, "budget": 30, "longer": 30, "steps": 16, "far": (8, 32), "noise": 30, "shown": 30},
}
SETTLED = 1e-4  # a step that moves no entry of y and z further has reached a fixed point, but for rounding; entries are of order 1
HARDER = {"easy-9": "sparse-9"}  # corpus trained on → one of fewer givens
HARDER_PUZZLES, HARDER_STEPS, HARDER_TRIED = 32, 64, 12_000  # of each group; puzzles generated at most to find them
NOISE = (0.0, 0.1, 0.3, 1.0)  # standard deviation of what is added to y and z after every step
NOISE_STEPS = 32
FILMSTRIPS = 3  # solved boards kept as strips, and unsolved ones
BINS = 10
RULES = ("confidence", "cell vote", "puzzle vote", "residual", "any", "rules")


def sizes(task):
    return SIZES.get(task.spec.data.corpus, FULL)


def some(task, what):
    """Puzzles of part B: boards, targets (b, cells)."""
    part = task.puzzles.test[slice(sizes(task)[what])]
    return part.x.to(task.device).long(), part.y.to(task.device).long()


def counts(most):
    """1, 2, 4, … most."""
    return [2**i for i in range(most.bit_length())]


def seeded(task):
    """A generator of random starts, another for each seed of the runs."""
    return torch.Generator(task.device).manual_seed(task.spec.seed)


def packed(outcomes):
    """Outcomes (…, b) as text: a bit each."""
    return base64.b64encode(zlib.compress(np.packbits(outcomes.cpu().numpy().astype(bool)).tobytes(), 9)).decode()


def unpacked(text, *shape):
    """The bool array of this shape that was `packed`."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)


@torch.no_grad()
def answers(model, puzzles, at, states):
    """After each of the supervision steps `at`, rising: boards (b, cells), halting logits (b,), how far y moved in the last step (b,).
    A puzzle whose states have settled (SETTLED) keeps its answer; its further steps are not computed."""
    live = torch.arange(len(puzzles), device=puzzles.device)
    boards, sure, moved = torch.empty_like(puzzles), *(torch.empty(len(puzzles), device=puzzles.device) for _ in range(2))
    for step in range(1, at[-1] + 1):
        if len(live):
            logits, halting, new = model(puzzles[live], states)
            boards[live], sure[live], moved[live] = logits.argmax(-1), halting, (new[0] - states[0]).square().mean((0, 2))
            going = torch.stack([(a - b).abs().amax((0, 2)) for a, b in zip(new, states, strict=True)]).amax(0) > SETTLED
            live, states = (live, new) if going.all() else (live[going], tuple(s[:, going] for s in new))
        if step in at:
            yield boards.clone(), sure.clone(), moved.clone()


# ---------------------------------------------------------------- steps or starts


def choose(boards, sure, residual, puzzles, targets):
    """{rule: does a choice among k answers solve the puzzle? (b,)}: boards (k, b, cells), halting logits and residuals (k, b).

    confidence: the halting head's favourite; cell vote: the most frequent digit of each cell; puzzle vote: the most frequent board;
    both by confidence where there is a tie; residual: the answer whose state moved least in its last step. Ceilings: any right one
    among the k (pass@k); one that keeps the rules and the givens, which for puzzles with one solution comes to the same."""
    right = (boards == targets).all(-1)  # (k, b)
    legal = sudoku.valid(boards) & sudoku.keeps_givens(boards, puzzles)
    tie = sure.sigmoid() / 2  # below one vote
    votes = torch.stack([(boards == board).all(-1).sum(0) for board in boards]) + tie  # (k, b)
    cells = torch.stack([(boards == board).sum(0) for board in boards]) + tie[..., None]  # (k, b, cells): votes for each answer's digit
    voted = boards.gather(0, cells.argmax(0, keepdim=True))[0]
    take = lambda scores: right.gather(0, scores.argmax(0, keepdim=True))[0]  # noqa: E731
    return {
        "confidence": take(sure), "cell vote": (voted == targets).all(-1), "puzzle vote": take(votes),
        "residual": take(-residual), "any": right.any(0), "rules": legal.any(0),
    }  # fmt: skip


@torch.no_grad()
def budget(task, model):
    """What is solved over (supervision steps, random starts): {"steps", "starts", "puzzles": how many, rule: rows of steps, columns of
    k starts}, each entry the outcomes (groups, puzzles), `packed`: k starts are chosen from in as many disjoint groups as there are, the
    first starts first. None: not measured."""
    puzzles, targets = some(task, "budget")
    plan, generator = sizes(task)["starts"], seeded(task)
    at, rows = counts(max(plan)), {}
    for start in range(max(plan.values())):
        mine = [step for step in at if start < max(k for most, k in plan.items() if most >= step)]
        states = model.start(len(puzzles), noise=True, generator=generator)
        for step, answer in zip(mine, answers(model, puzzles, mine, states), strict=True):
            rows.setdefault(step, []).append(answer)
    ks = counts(max(plan.values()))
    found = {"steps": at, "starts": ks, "puzzles": len(puzzles)} | {rule: [[None] * len(ks) for _ in at] for rule in RULES}
    for i, step in enumerate(at):
        boards, sure, residual = (torch.stack(v) for v in zip(*rows[step], strict=True))
        for column, k in enumerate(ks):
            groups = [slice(g, g + k) for g in range(0, len(boards), k)] if k <= len(boards) else []
            chosen = [choose(boards[g], sure[g], residual[g], puzzles, targets) for g in groups]
            for rule in RULES if chosen else ():
                found[rule][i][column] = packed(torch.stack([c[rule] for c in chosen]))
    return found


@torch.no_grad()
def longer(task, model):
    """What is solved after 1 … steps from the model's own start: {"steps", "puzzles", "right": outcomes (steps, puzzles), `packed`,
    "cells", "surely": outcomes if each puzzle stops at the first step at which the halting head is sure, "spent": the steps that takes on
    average}, all cut at each number of steps; and of the first puzzles after still more: "far": {"steps", "puzzles", "right"}."""
    size = sizes(task)
    puzzles, targets = some(task, "longer")
    most, (few, last) = size["steps"], size["far"]
    states = model.start(len(puzzles), generator=seeded(task))
    boards, sure, _ = (torch.stack(v) for v in zip(*answers(model, puzzles, range(1, most + 1), states), strict=True))
    hit = boards == targets
    right, sure, at = hit.all(-1), sure > 0, counts(most)  # (steps, b)
    stop = torch.where(sure.any(0), sure.int().argmax(0), most)  # of each puzzle
    ends = [stop.clamp(max=s - 1) for s in at]
    rows = [s - 1 for s in at]
    beyond = [s for s in counts(last) if s > most]
    far = [b for b, *_ in answers(model, puzzles[:few], beyond, tuple(s[:, :few] for s in states))]
    return {
        "steps": at, "puzzles": len(puzzles), "right": packed(right[rows]), "cells": hit[rows].float().mean((1, 2)).tolist(),
        "surely": packed(torch.stack([right.gather(0, end[None])[0] for end in ends])), "spent": [mean(end + 1) for end in ends],
        "far": {"steps": beyond, "puzzles": len(puzzles[:few]), "right": packed(torch.stack([(b == targets[:few]).all(-1) for b in far]))},
    }  # fmt: skip


@torch.no_grad()
def noise(task, model):
    """Accuracy when noise is added to y and z after every step: {"steps", sigma: accuracy at each of these}."""
    puzzles, targets = some(task, "noise")
    most = min(NOISE_STEPS, sizes(task)["steps"])
    found = {"steps": counts(most)}
    for sigma in NOISE:
        generator = torch.Generator(task.device).manual_seed(0)
        states, row = model.start(len(puzzles), generator=generator), []
        for step in range(1, most + 1):
            logits, _, states = model(puzzles, states)
            states = tuple(s + sigma * torch.randn(s.shape, generator=generator, device=s.device) for s in states)
            if step in found["steps"]:
                row.append((logits.argmax(-1) == targets).all(-1).float().mean().item())
        found[f"{sigma:g}"] = row
    return found


@cache
def of_rounds(corpus, least, most, count):
    """Up to `count` generated puzzles of a corpus's givens that need least … most rounds of deduction, among HARDER_TRIED."""
    n, *givens = sudoku.GENERATED[corpus]
    parts, have, first = [], 0, 0
    while have < count and first < HARDER_TRIED:
        block, first = sudoku.generate(n, givens, (sudoku.EVALUATION, 3), 100, first), first + 100
        needed = block.rounds().max(1).values
        part = block[((needed >= least) & (needed <= most)).nonzero()[: count - have, 0].numpy()]
        parts, have = [*parts, part], have + len(part)
    return [torch.cat([getattr(p, k) for p in parts]) for k in ("x", "y")]


@torch.no_grad()
def harder(task, model):
    """What is solved of puzzles with the givens trained on or fewer, that need no more rounds of deduction than 99 in 100 puzzles trained
    on ("trained") or more: {"steps", "trained", "groups": [{"givens", "beyond", "puzzles", "rounds": mean, "right": outcomes (steps,
    puzzles), `packed`}]}."""
    corpora = task.spec.data.corpus, HARDER[task.spec.data.corpus]
    trained = int(task.puzzles.train.rounds().max(1).values.float().quantile(0.99))
    at, groups = counts(min(HARDER_STEPS, sizes(task)["steps"])), []
    for corpus in corpora:
        for beyond in (False, True):
            x, y = of_rounds(corpus, *((trained + 1, 255) if beyond else (1, trained)), HARDER_PUZZLES)
            if not len(x):
                continue
            needed = sudoku.Puzzles(x, y, None).rounds().max(1).values
            x, y = (v.to(task.device).long() for v in (x, y))
            right = [(b == y).all(-1) for b, *_ in answers(model, x, at, model.start(len(x), generator=seeded(task)))]
            groups.append({"givens": list(sudoku.GENERATED[corpus][1:]), "beyond": beyond, "puzzles": len(x), "rounds": mean(needed),
                           "right": packed(torch.stack(right))})  # fmt: skip
    return {"steps": at, "trained": trained, "groups": groups}


# ---------------------------------------------------------------- what a step does


@torch.no_grad()
def thinking(task, model):
    """What the trained supervision steps do to puzzles: {
    "changed"      share of the blank cells whose digit changed in a step (from step 2 on), "residual": how far y moved, of all and of the
                   puzzles solved in the end and the others
    "by_round"     (steps, rounds): share of cells that are right after a step, by the round of deductions in which a cell falls
    "difficulty"   for each number of rounds that a puzzle needs: puzzles, share solved, how many are solved at some step ("reached"),
                   mean first step that solved them
    "calibration"  after every step, the puzzles in ten bins of the halting head's probability: count, mean probability, share solved;
                   and "sure": each puzzle at the first step at which the head says more than a half, if there is one
    "strips"       some solved and unsolved puzzles: puzzle, target, digits and confidence after every step}"""
    puzzles, targets = some(task, "shown")
    states, out = model.start(len(puzzles), generator=seeded(task)), []
    for logits, halting, new in steps(model, puzzles, max(task.config.n_sup, 4), states):
        p = log_softmax(logits, task.config.loss).exp().max(-1)  # the probabilities that it was trained with
        out.append((p.indices, p.values, halting.sigmoid(), (new[0] - states[0]).square().mean((0, 2))))
        states = new
    boards, confidence, sure, moved = (torch.stack(v) for v in zip(*out, strict=True))  # (steps, b, …)
    blank, right = puzzles == 0, (boards == targets).all(-1)
    solved, first = right[-1], torch.where(right.any(0), right.int().argmax(0) + 1, 0)
    cell_rounds = torch.stack([torch.as_tensor(rounds(x, y)) for x, y in zip(puzzles.cpu().numpy(), targets.cpu().numpy(), strict=True)])
    cell_rounds = cell_rounds.to(boards.device)
    most = int(cell_rounds.max())
    hit = (boards == targets).float()
    by_round = [(hit * (cell_rounds == r)).sum((1, 2)) / (cell_rounds == r).sum() for r in range(1, most + 1)]
    needed = cell_rounds.max(1).values
    difficulty = [
        {"rounds": r, "puzzles": int(of.sum()), "solved": mean(solved[of]), "reached": int((of & (first > 0)).sum()), "first": mean(first[of & (first > 0)])}
        for r in range(1, most + 1) if (of := needed == r).any()
    ]  # fmt: skip
    changed = ((boards[1:] != boards[:-1]) & blank).sum((1, 2)) / blank.sum()
    slowest = torch.where(solved, first, 0).argsort(descending=True, stable=True)
    kept = [*slowest[: min(FILMSTRIPS, int(solved.sum()))].tolist(), *(~solved).nonzero()[:FILMSTRIPS, 0].tolist()]
    told = (sure > 0.5).any(0)
    when = (sure > 0.5).int().argmax(0, keepdim=True)
    return {
        "changed": changed.tolist(), "by_round": torch.stack(by_round, 1).tolist(), "difficulty": difficulty,
        "residual": {name: [mean(row[of]) for row in moved] for name, of in {"all": solved | True, "solved": solved, "unsolved": ~solved}.items()},
        "calibration": [reliability(p, r) for p, r in zip(sure, right, strict=True)],
        "sure": reliability(sure.gather(0, when)[0][told], right.gather(0, when)[0][told]),
        "strips": [{
            "solved": bool(solved[i]), "puzzle": sudoku.show_line(puzzles[i].cpu()), "target": sudoku.show_line(targets[i].cpu()),
            "digits": [sudoku.show_line(b[i].clamp(max=model.digits).cpu()) for b in boards], "confidence": [[round(v, 3) for v in c[i].tolist()] for c in confidence],
            "sure": sure[:, i].tolist(),
        } for i in kept],
    }  # fmt: skip


def mean(values):
    """The mean, or None of nothing."""
    return values.float().mean().item() if len(values) else None


def reliability(p, right):
    """Examples in BINS equal bins of the probability p (b,): {"count", "said": mean p, "solved": share right}, None for empty bins."""
    rows = (p * BINS).long().clamp(max=BINS - 1)
    members = [rows == i for i in range(BINS)]
    return {"count": [int(m.sum()) for m in members], "said": [mean(p[m]) for m in members], "solved": [mean(right[m]) for m in members]}


@torch.no_grad()
def alignments(task, model):
    """Asymptotic alignment after the trained number of steps (`probe.alignment`) of y, z and the prediction's probabilities, started
    again from another puzzle's end ("other") and from its own ("own", the earlier write-up's)."""
    puzzles, _ = some(task, "shown")
    generator = torch.Generator(task.device).manual_seed(0)
    own_start = model.start(len(puzzles), generator=generator)

    def solve(start):
        states = own_start if start is None else tuple(s.transpose(0, 1) for s in start[:2])
        for _ in range(task.config.n_sup):
            logits, _, states = model(puzzles, states)
        return (*(s.transpose(0, 1) for s in states), log_softmax(logits, task.config.loss).exp())

    return {form: dict(zip(("y", "z", "prediction"), alignment(solve, own=form == "own"), strict=True)) for form in ("other", "own")}


SINGLE = {"budget": budget, "longer": longer, "harder": harder, "noise": noise, "thinking": thinking, "alignment": alignments}  # of one run
GROUPED = {}
GROUP_SEEDS = ()
MAIN = ("TRM", "random starts")


def wanted(arm, spec):
    """Names of the evaluations that an arm wants."""
    names = list(SINGLE) if arm in MAIN else ["alignment", "thinking"]
    return [n for n in names if n != "harder" or spec.data.corpus in HARDER]


def load_model(task, tensors):
    """The task's model with saved weights."""
    model = task.model().to(task.device)
    model.load_state_dict(tensors)
    return model.eval()
