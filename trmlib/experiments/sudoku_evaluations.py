"""New measures of trained Sudoku models: evaluations of old weights, each a record of its own.

Thinking longer (supervision steps) and trying again (random starts) on one axis of compute; calibration; what a step does;
alignment. All on puzzles of part B that no choice was made on.
"""

import torch

from trmlib.data import sudoku
from trmlib.data.solver import rounds
from trmlib.models.grid import log_softmax, steps
from trmlib.probe import alignment

STARTS = {8: 64, 16: 16, 64: 4, 256: 1}  # up to so many supervision steps, so many random starts
PUZZLES = {"budget": 32, "long": 40, "shown": 250}
HARDER = {"easy-9": "sparse-9"}  # corpus trained on → one that needs more deductions in a row
HARDER_PUZZLES, HARDER_STEPS = 80, 64  # of each corpus
NOISE = (0.0, 0.1, 0.3, 1.0)  # standard deviation of what is added to y and z after every step
NOISE_STEPS = 32
FILMSTRIPS = 3  # solved boards kept as strips, and unsolved ones
BINS = 10
RULES = ("confidence", "cell vote", "puzzle vote", "residual", "any", "rules")


def some(task, what):
    """Puzzles of part B: boards, targets (b, cells)."""
    part = task.puzzles.test[slice(PUZZLES[what])]
    return part.x.to(task.device).long(), part.y.to(task.device).long()


def counts(most):
    """1, 2, 4, … most."""
    return [2**i for i in range(most.bit_length())]


def restarts(config):
    """How the settings above shrink for models that think for a few steps only (profile smoke)."""
    return STARTS if config.d > 16 else {4: 4, 8: 2, 16: 1}


# ---------------------------------------------------------------- steps or starts


def choose(boards, sure, residual, puzzles, targets):
    """{rule: share of puzzles that a choice among k answers solves}: boards (k, b, cells), halting logits and residuals (k, b).

    confidence: the halting head's favourite; cell vote: the most frequent digit of each cell; puzzle vote: the most frequent board,
    by confidence where boards tie; residual: the answer whose state moved least in its last step. Ceilings: any right one among the k
    (pass@k); one that keeps the rules and the givens, which for puzzles with one solution comes to the same."""
    right = (boards == targets).all(-1)  # (k, b)
    legal = sudoku.valid(boards) & sudoku.keeps_givens(boards, puzzles)
    votes = torch.stack([(boards == board).all(-1).sum(0) for board in boards])  # (k, b)
    by_votes = votes + sure.sigmoid() / 2  # a tie-break below one vote
    take = lambda scores: right.gather(0, scores.argmax(0, keepdim=True))[0]  # noqa: E731
    found = {
        "confidence": take(sure), "cell vote": (boards.mode(0).values == targets).all(-1), "puzzle vote": take(by_votes),
        "residual": take(-residual), "any": right.any(0), "rules": legal.any(0),
    }  # fmt: skip
    return {rule: v.float().mean().item() for rule, v in found.items()}


@torch.no_grad()
def budget(task, model):
    """Accuracy over (supervision steps, random starts): {"steps", "starts", rule: rows of steps, columns of starts (None: not
    measured), "one": accuracy of a start on average}. k starts are chosen from in as many disjoint groups as there are, and averaged."""
    puzzles, targets = some(task, "budget")
    plan, b = restarts(task.config), len(puzzles)
    k = max(plan.values())
    generator = torch.Generator(task.device).manual_seed(0)
    states = [model.start(b, noise=True, generator=generator) for _ in range(k)]  # (y, z) of each start
    at, done = counts(max(plan)), 0
    found = {rule: [] for rule in RULES} | {"steps": at, "starts": counts(k), "one": []}
    for step in at:
        k = max(starts for most, starts in plan.items() if most >= step)
        answers = [last(model, puzzles, step - done, s) for s in states[:k]]
        done, states = step, [a[3] for a in answers]
        boards, sure, residual = (torch.stack([a[i] for a in answers]) for i in range(3))
        found["one"].append((boards == targets).all(-1).float().mean().item())
        for rule in RULES:
            found[rule].append([None] * len(found["starts"]))
        for column, size in enumerate(found["starts"]):
            groups = [slice(i, i + size) for i in range(0, k, size)] if size <= k else []
            chosen = [choose(boards[g], sure[g], residual[g], puzzles, targets) for g in groups]
            for rule in RULES if chosen else ():
                found[rule][-1][column] = sum(c[rule] for c in chosen) / len(chosen)
    return found


def last(model, puzzles, n, states):
    """n ≥ 1 more steps from states: (boards (b, cells), halting logits (b,), how far y moved in the last step (b,), states)."""
    for _ in range(n):
        logits, sure, new = model(puzzles, states)
        moved, states = (new[0] - states[0]).square().mean((0, 2)), new
    return logits.argmax(-1), sure, moved, states


@torch.no_grad()
def longer(task, model):
    """Accuracy after 1 … steps from the model's own start: {"steps", "accuracy", "cells", "surely": accuracy of stopping each puzzle at the
    first step at which the halting head is sure, "spent": the steps that takes on average}; all cut at each number of steps."""
    puzzles, targets = some(task, "long")
    most = max(restarts(task.config))
    generator = torch.Generator(task.device).manual_seed(0)
    states, right, cells, sure = model.start(len(puzzles), generator=generator), [], [], []
    for logits, halting, _ in steps(model, puzzles, most, states):
        hit = logits.argmax(-1) == targets
        right.append(hit.all(-1)), cells.append(hit.float().mean().item()), sure.append(halting > 0)
    right, sure = torch.stack(right), torch.stack(sure)  # (steps, b)
    at = counts(most)
    stop = torch.where(sure.any(0), sure.int().argmax(0), most)  # of each puzzle
    surely, spent = [], []
    for s in at:
        end = stop.clamp(max=s - 1)
        surely.append(right.gather(0, end[None])[0].float().mean().item())
        spent.append((end + 1).float().mean().item())
    return {"steps": at, "accuracy": [right[s - 1].float().mean().item() for s in at], "cells": [cells[s - 1] for s in at],
            "surely": surely, "spent": spent}  # fmt: skip


@torch.no_grad()
def noise(task, model):
    """Accuracy when noise is added to y and z after every step: {"steps", sigma: accuracy at each of these}."""
    puzzles, targets = some(task, "long")
    most = min(NOISE_STEPS, max(restarts(task.config)))
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


@torch.no_grad()
def harder(task, model):
    """Accuracy by the rounds of deduction that a puzzle needs, on puzzles that need more than any trained on, too: {"steps", "rounds",
    "puzzles": how many there are of each, "trained": rounds that 99 in 100 puzzles trained on stay within, "accuracy": rows of rounds,
    columns of steps}."""
    beyond = sudoku.load(sudoku.SudokuConfig(HARDER[task.spec.data.corpus], 1, 1, HARDER_PUZZLES)).test
    parts = [task.puzzles.test[slice(HARDER_PUZZLES)], beyond]
    x, y = (torch.cat([getattr(p, k) for p in parts]).to(task.device).long() for k in ("x", "y"))
    needed = torch.cat([p.rounds().max(1).values for p in parts])
    most = min(HARDER_STEPS, max(restarts(task.config)))
    at, generator = counts(most), torch.Generator(task.device).manual_seed(0)
    right = [(logits.argmax(-1) == y).all(-1).cpu() for logits, _, _ in steps(model, x, most, model.start(len(x), generator=generator))]
    rounds = needed.unique().tolist()
    return {
        "steps": at, "rounds": rounds, "puzzles": [int((needed == r).sum()) for r in rounds], "trained": int(task.puzzles.train.rounds().max(1).values.float().quantile(0.99)),
        "accuracy": [[right[s - 1][needed == r].float().mean().item() for s in at] for r in rounds],
    }  # fmt: skip


# ---------------------------------------------------------------- what a step does


@torch.no_grad()
def thinking(task, model):
    """What the trained supervision steps do to puzzles: {
    "changed"      share of the blank cells whose digit changed in a step (from step 2 on), "residual": how far y moved, of all and of the
                   puzzles solved in the end and the others
    "by_round"     (steps, rounds): share of cells that are right after a step, by the round of deductions in which a cell falls
    "difficulty"   for each number of rounds that a puzzle needs: puzzles, share solved, mean first step that solved it
    "calibration"  after every step, the puzzles in ten bins of the halting head's probability: count, mean probability, share solved
    "strips"       some solved and unsolved puzzles: puzzle, target, digits and confidence after every step}"""
    puzzles, targets = some(task, "shown")
    generator = torch.Generator(task.device).manual_seed(0)
    states, out = model.start(len(puzzles), generator=generator), []
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
        {"rounds": r, "puzzles": int(of.sum()), "solved": solved[of].float().mean().item(), "first": mean(first[of & (first > 0)])}
        for r in range(1, most + 1) if (of := needed == r).any()
    ]  # fmt: skip
    changed = ((boards[1:] != boards[:-1]) & blank).sum((1, 2)) / blank.sum()
    kept = [*solved.nonzero()[:FILMSTRIPS, 0].tolist(), *(~solved).nonzero()[:FILMSTRIPS, 0].tolist()]
    return {
        "changed": changed.tolist(), "by_round": torch.stack(by_round, 1).tolist(), "difficulty": difficulty,
        "residual": {name: [mean(row[of]) for row in moved] for name, of in {"all": solved | True, "solved": solved, "unsolved": ~solved}.items()},
        "calibration": [reliability(p, r) for p, r in zip(sure, right, strict=True)],
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
MAIN = ("TRM", "random starts", "TRM 9×9", "random starts 9×9")


def wanted(arm, spec):
    """Names of the evaluations that an arm wants."""
    names = list(SINGLE) if arm in MAIN else ["alignment", "thinking"]
    return [n for n in names if n != "harder" or spec.data.corpus in HARDER]


def load_model(task, tensors):
    """The task's model with saved weights."""
    model = task.model().to(task.device)
    model.load_state_dict(tensors)
    return model.eval()
