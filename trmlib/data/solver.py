"""Sudoku solved: singles as far as they go, then a guess in the cell with the fewest candidates.

A board is one integer a digit: bit c says whether the digit may still stand in cell c (cells row by row). Cells whose digit is
known are one more such mask. Naked singles of all cells at once are then a few additions with carry, a hidden single is a unit's
mask with one bit left. All functions take boards (cells,) of 0 (blank) and 1 … N.
"""

from functools import cache
from math import isqrt

import numpy as np

from trmlib.errors import TrmError

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}  # N → rows and columns of a box; the board has N rows, N columns, N boxes


@cache
def units(n):
    """The cells of each row, each column, each box (3 N, N)."""
    row, column = np.divmod(np.arange(n * n), n)
    h, w = BOXES[n]
    kinds = row, column, row // h * h + column // w
    return np.stack([np.flatnonzero(kind == i) for kind in kinds for i in range(n)])


@cache
def peers(n):
    """The other cells of a cell's row, column and box (cells, peers)."""
    shared = np.zeros((n * n, n * n), bool)
    for unit in units(n):
        shared[np.ix_(unit, unit)] = True
    return np.stack([np.flatnonzero(row) for row in shared & ~np.eye(n * n, dtype=bool)])


def mask(cells):
    return sum(1 << int(c) for c in cells)


@cache
def masks(n):
    """Units and peers as masks."""
    return [mask(u) for u in units(n)], [mask(p) for p in peers(n)]


def bits(cells):
    """Numbers of the bits that are set."""
    while cells:
        low = cells & -cells
        yield low.bit_length() - 1
        cells ^= low


def digit_masks(board):
    """The cells of each digit, and those of any."""
    board = np.asarray(board)
    by_digit = [mask(np.flatnonzero(board == d)) for d in range(1, isqrt(len(board)) + 1)]
    return by_digit, sum(by_digit)


def start(board):
    """(candidates, known cells) of a board. A given that breaks a rule leaves its cell without a candidate."""
    by_digit, known = digit_masks(board)
    around, blank = masks(len(by_digit))[1], (1 << len(board)) - 1 & ~known
    can = []
    for cells in by_digit:
        seen = 0
        for c in bits(cells):
            seen |= around[c]
        can.append((blank | cells) & ~seen)
    return can, known


def singles(can, known, all_kinds):
    """A mask a digit of the unknown cells that have it as their only candidate or are its only place in a unit; None at a
    contradiction. Hidden singles are looked for only where there are no naked ones, or with `all_kinds`."""
    n = len(can)
    once = twice = 0
    for p in can:
        twice |= once & p
        once |= p
    if once != (1 << n * n) - 1:
        return None
    naked = once & ~twice & ~known
    found = [p & naked for p in can]
    if naked and not all_kinds:
        return found
    for d, p in enumerate(can):
        for unit in masks(n)[0]:
            places = p & unit
            if not places & (places - 1):
                if not places:
                    return None
                found[d] |= places & ~known
    return found


def place(can, known, found):
    """Writes the found digits and strikes them from their peers; the new known cells."""
    around = masks(len(can))[1]
    new = 0
    for cells in found:
        new |= cells
    for d, cells in enumerate(found):
        can[d] &= ~new | cells  # another digit found for the same cell leaves it without a candidate
        for c in bits(cells):
            can[d] &= ~around[c]
    return known | new


def settle(can, known):
    """Writes singles until there are none; the known cells, or None at a contradiction."""
    while (found := singles(can, known, False)) is not None and any(found):
        known = place(can, known, found)
    return None if found is None else known


def fewest(can, known):
    """The unknown cell with the fewest candidates; of several the one with the most among its peers, the first of those."""
    level = [0] * (len(can) + 1)  # cells with more than i candidates
    for p in can:
        for i in range(len(can) - 1, 0, -1):
            level[i] |= level[i - 1] & p
        level[0] |= p
    cells = next(cells for i in range(1, len(can)) if (cells := level[i] & ~level[i + 1] & ~known))
    return max(bits(cells), key=lambda c: (cells & masks(len(can))[1][c]).bit_count())


def board_of(can):
    board = np.zeros(len(can) ** 2, np.int64)
    for d, cells in enumerate(can):
        board[list(bits(cells))] = d + 1
    return board


def solve(puzzle, limit=2, rng=None, most=None):
    """Up to `limit` solutions (k, cells), and the number of guesses that the search made, right or wrong. `rng` (a numpy Generator)
    tries them in random order. The search gives up after `most` guesses, with TimeoutError."""
    can, known = start(puzzle)
    n, stack, solutions, guesses = len(can), [(can, known)], [], -1
    while stack and len(solutions) < limit:
        can, known = stack.pop()
        guesses += 1
        if most is not None and guesses > most:
            raise TimeoutError(f"no decision after {most} guesses")
        if (known := settle(can, known)) is None:
            continue
        if known == (1 << n * n) - 1:
            solutions.append(board_of(can))
            continue
        cell = 1 << fewest(can, known)
        options = [d for d in range(n) if can[d] & cell]
        if rng is not None:
            rng.shuffle(options)
        for d in reversed(options):
            branch = list(can)
            stack.append((branch, place(branch, known, [cell if e == d else 0 for e in range(n)])))
    return np.array(solutions, np.int64).reshape(-1, n * n), guesses


def rounds(puzzle, answer):
    """When each cell falls (cells,): 0 for the givens, else the round of deduction that fills it. A round writes every naked and
    every hidden single of its board at once; where there is none, it writes one cell with the fewest candidates as the answer
    has it: the search's guess, made right."""
    can, known = start(puzzle)
    right, _ = digit_masks(answer)
    full, when = (1 << len(puzzle)) - 1, np.zeros(len(puzzle), np.int64)
    while known != full:
        found = singles(can, known, True)
        if found is None or any(f & ~r for f, r in zip(found, right)):
            raise TrmError(f"the answer {''.join(map(str, answer))} is not the puzzle's one solution")
        if not any(found):
            cell = 1 << fewest(can, known)
            found = [cell & r for r in right]
        when[list(bits(sum(found)))] = when.max() + 1
        known = place(can, known, found)
    return when


def milestones(puzzle, answer=None):
    """The boards after each round of deduction (m, cells): parts of the solution, each with more cells than the one before, the last
    complete. `answer` saves the search."""
    answer = solve(puzzle, 1)[0][0] if answer is None else np.asarray(answer)
    when = rounds(puzzle, answer)
    return np.where(when <= np.arange(1, when.max() + 1)[:, None], answer, 0)
