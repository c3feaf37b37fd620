"""A small trained model solves a Sudoku before your eyes: `trm solve`."""

import math
from pathlib import Path

import torch

from trmlib import checkpoints
from trmlib.data import sudoku
from trmlib.errors import TrmError
from trmlib.models.grid import GridTRM, log_softmax, steps

CHECKPOINT = "sudoku"  # of 9×9 boards


def boards_of(text):
    """[(name, puzzle, solution)] of a puzzle as text, or of the file of that name; each is checked to have one solution."""
    if len(text) < 200 and Path(text).is_file():
        found = sudoku.read_file(text)
        return [(f"{text}, puzzle {i + 1}", x.numpy(), y.numpy()) for i, (x, y) in enumerate(zip(found.x, found.y, strict=True))]
    if sum(c.isalpha() or c == "/" for c in text) > 1:  # one may be a slip
        raise TrmError(f"there is no file {text!r}, and a puzzle is 81 characters: digits, and . or 0 for a blank")
    puzzle = sudoku.parse(text)
    return [("the puzzle", puzzle, sudoku.solution(puzzle)[0])]


@torch.no_grad()
def solve(puzzle, n_sup=None, checkpoint=CHECKPOINT, start=None):
    """One dict a supervision step, from the model's own start or from the random `start` of that number: digits (cells,), confidence of each cell, the halting head's probability that all is right
    (`sure`), and whether the rules hold and the givens stand (`legal`)."""
    model, spec, _ = checkpoints.load(checkpoint)
    if not isinstance(model, GridTRM):
        raise TrmError(f"checkpoint {checkpoint!r} is of experiment {spec.experiment} and solves no Sudoku; name one that does")
    board = torch.as_tensor(puzzle)[None]
    if board.shape[1] != model.cells:
        n = math.isqrt(model.cells)
        raise TrmError(f"the puzzle has {board.shape[1]} cells; checkpoint {checkpoint!r} solves boards of {n}×{n}")
    found = []
    states = model.start(1, noise=None if start is None else True, generator=torch.Generator().manual_seed(start or 0))
    for logits, halting, _ in steps(model, board, n_sup, states):
        p = log_softmax(logits[0, :, 1 : model.digits + 1], model.config.loss).exp().max(-1)
        digits = p.indices + 1
        legal = bool(sudoku.valid(digits) & sudoku.keeps_givens(digits, board[0]))
        found.append({"digits": digits.tolist(), "confidence": p.values.tolist(), "sure": halting.sigmoid().item(), "legal": legal})
    return found


def lines(puzzle, found):
    """The steps as text; a board that did not change is not drawn again."""
    before = None
    for i, step in enumerate(found, 1):
        rules = "all rules hold" if step["legal"] else f"{int(sudoku.conflicts(torch.tensor(step['digits'])).sum())} cells break a rule"
        yield f"step {i} of {len(found)}: {rules}; the model is {step['sure']:.0%} sure" + (
            ", no change" if step["digits"] == before else ""
        )
        if step["digits"] != before:
            yield sudoku.show(step["digits"], puzzle) + "\n"
        before = step["digits"]
