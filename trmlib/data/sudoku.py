"""Sudoku boards: read, checked, generated, turned by the symmetries of the game, and split for training.

A board is its cells row by row, 0 for a blank and 1 … N for the digits, N = 4, 6 or 9. Sets are drawn puzzle by puzzle from a
seeded order: part B (`test`, for figures) first, then part A (`tune`, for choices, from the corpus's training puzzles), then what is
trained on, so that none of them changes when a later one grows. A puzzle that may be equivalent to an earlier one is passed over
(`signature`). There are only 288 complete 4×4 boards, so the parts of `easy-4` share solutions, though no puzzle.
"""

import hashlib
import io
import zipfile
from csv import reader
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations, product
from math import isqrt
from pathlib import Path

import numpy as np
import torch

from trmlib.data import solver, sources
from trmlib.data.solver import BOXES, units
from trmlib.data.tokens import once
from trmlib.errors import TrmError, check
from trmlib.runs import Store, write_atomically

EVALUATION = 2025  # seed of parts A and B
BANDS = {"0": 0, "1–10": 10, "11–50": 50, "> 50": np.inf}  # rating band → its highest rating (guesses of a solver)
PATIENCE = 20_000  # guesses, some seconds
VERSION = 2  # of the generator: part of the name of cached sets; to be raised whenever it draws other puzzles


@dataclass(frozen=True)
class SudokuConfig:
    """Puzzles to train on, to choose by and to test on."""

    corpus: str = "sudoku-hard"  # name in `sources.CORPORA`, or in GENERATED (embedded)
    train: int = 1000  # training puzzles, before symmetries
    tune: int = 1000  # of part A
    test: int = 1000  # of part B; 0 for all there are
    choice: int = 0  # seed: which training puzzles

    def __post_init__(self):
        check(self, train="≥ 1", tune="≥ 1", test="≥ 0", choice="≥ 0")
        if self.corpus in GENERATED and not self.test:
            raise TrmError(f"test=0 means all puzzles, and {self.corpus} has no end; say how many")


@dataclass(frozen=True)
class Puzzles:
    """Puzzles with one solution each."""

    x: torch.Tensor  # (b, cells) uint8: the givens
    y: torch.Tensor  # (b, cells) uint8: the solution
    rating: np.ndarray  # (b,) int64: guesses that a solver made: tdoku for the corpora, ours for generated puzzles

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return Puzzles(self.x[rows], self.y[rows], self.rating[rows])

    @property
    def fingerprint(self):
        return hashlib.sha256(self.x.numpy().tobytes() + self.y.numpy().tobytes()).hexdigest()

    def rounds(self):
        """(b, cells) uint8: the round of deduction in which each cell falls, as `solver.rounds`; board k on the way to the solution
        is `where(rounds <= k, y, 0)`. Takes some milliseconds a puzzle."""
        return tensor([solver.rounds(x, y) for x, y in zip(self.x.numpy(), self.y.numpy())])


@dataclass(frozen=True)
class Sudoku:
    """A corpus split by puzzle."""

    train: Puzzles
    tune: Puzzles  # part A
    test: Puzzles  # part B

    @property
    def fingerprints(self):
        return {name: getattr(self, name).fingerprint for name in ("train", "tune", "test")}


def tensor(boards):
    return torch.from_numpy(np.asarray(boards, np.uint8))


def puzzles(x, y, rating):
    return Puzzles(tensor(x), tensor(y), np.asarray(rating, np.int64))


def band(rating):
    """Number of the rating band, by place in BANDS (same shape as rating)."""
    return np.searchsorted(list(BANDS.values()), rating)


# ---------------------------------------------------------------- rules, on tensors


def side(boards):
    """N of boards (..., N²)."""
    return isqrt(boards.shape[-1])


def valid(boards):
    """Does every row, column and box hold every digit once? (..., cells) → (...) bool"""
    n = side(boards)
    h, w = BOXES[n]
    powers = (1 << boards.long()).unflatten(-1, (n // h, h, n // w, w))  # N powers of two add up to N ones only if all differ
    sums = [powers.sum(d).flatten(-2) for d in ((-2, -1), (-4, -3), (-3, -1))]  # rows, columns, boxes (..., N)
    return (torch.cat(sums, -1) == 2 ** (n + 1) - 2).all(-1)


@cache
def neighbours(n, device):
    return torch.from_numpy(solver.peers(n)).to(device)


def conflicts(boards):
    """Does the cell's digit stand again in its row, column or box? (..., cells) → (..., cells) bool; blanks never conflict."""
    again = boards[..., neighbours(side(boards), boards.device)] == boards[..., None]  # (..., cells, peers)
    return again.any(-1) & (boards > 0)


def keeps_givens(boards, puzzles):
    """Does the board leave the puzzle's givens as they are? (..., cells) twice → (...) bool"""
    return ((puzzles == 0) | (boards == puzzles)).all(-1)


# ---------------------------------------------------------------- symmetries


@cache
def line_orders(n, group, device):
    """All orders of N lines that keep groups of neighbours together (orders, N): 1296 for three groups of three."""
    inner = list(permutations(range(group)))
    found = [[g * group + i for g in outer for i in order[g]] for outer in permutations(range(n // group)) for order in product(inner, repeat=n // group)]  # fmt: skip
    return torch.tensor(found, device=device)


def augment(x, y, generator, *more):
    """Each puzzle and its solution (b, cells) under a random symmetry of its own: digits renamed, bands and the rows within them
    reordered, stacks and columns too, and half of the boards transposed where boxes are square. `more` (b, cells) are values of
    cells that are not digits; they move along. The generator lives on the boards' device; nothing waits for it."""
    b, n, device = len(x), side(x), x.device
    h, w = BOXES[n]
    rows, columns = (
        orders[torch.randint(len(orders), (b,), generator=generator, device=device)]
        for orders in (line_orders(n, h, device), line_orders(n, w, device))
    )
    random = torch.rand(b, n + 1, generator=generator, device=device)
    place = rows[:, :, None] * n + columns[:, None, :]  # (b, n, n)
    if h == w:
        place = torch.where(random[:, :1, None] < 0.5, place, place.mT)
    place = place.flatten(1)
    names = torch.nn.functional.pad(random[:, 1:].argsort(1) + 1, (1, 0))  # (b, n + 1), a blank stays one
    renamed = [names.gather(1, board.gather(1, place).long()).to(board.dtype) for board in (x, y)]
    return *renamed, *(m.gather(1, place) for m in more)


def mixed(h):
    """A hash of each 64-bit number."""
    h = (h ^ (h >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    return (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def signature(boards):
    """A number (b,) uint64 that no symmetry changes: puzzles with different ones are not equivalent. Cells start as given or blank;
    four times each takes in what stands in its row and column (whichever is which), its box, and the cells of its digit."""
    boards = np.asarray(boards)
    n, h = side(boards), (boards > 0).astype(np.uint64)
    for _ in range(4):
        h = mixed(h + np.uint64(1))
        row, column, box, digit = (np.zeros_like(h) for _ in range(4))
        for i, sums in enumerate((row, column, box)):
            for unit in units(n)[i * n : (i + 1) * n]:
                sums[:, unit] = h[:, unit].sum(1, keepdims=True)
        for d in range(1, n + 1):
            digit += (boards == d) * (h * (boards == d)).sum(1, keepdims=True, dtype=np.uint64)
        h = h + mixed(mixed(row) + mixed(column)) + mixed(box) * np.uint64(3) + mixed(digit) * np.uint64(5)
    return mixed(h).sum(1, dtype=np.uint64)


# ---------------------------------------------------------------- text


def at(cell, n):
    return f"row {cell // n + 1}, column {cell % n + 1}"


def parse(text, name="the puzzle"):
    """The board (cells,) int64 of a text of N² characters: digits, and . or 0 for a blank; white space is ignored."""
    text = "".join(text.split())
    n = isqrt(len(text))
    if n not in BOXES or n * n != len(text):
        raise TrmError(f"{name} has {len(text)} cells, expected 81 (9×9), 36 (6×6) or 16 (4×4)")
    board = np.array([".123456789".find(c) for c in text.replace("0", ".")])
    if (wrong := np.flatnonzero((board < 0) | (board > n))).size:
        raise TrmError(f"{name} has {text[wrong[0]]!r} at {at(wrong[0], n)}; use 1 … {n}, and . or 0 for a blank")
    counts = (board[units(n)][..., None] == np.arange(1, n + 1)).sum(1)  # (3 n units, n digits)
    if (counts > 1).any():
        unit, d = np.argwhere(counts > 1)[0]
        raise TrmError(
            f"{name} breaks a rule: {d + 1} stands {counts[unit, d]} times in {('row', 'column', 'box')[unit // n]} {unit % n + 1}"
        )
    return board


def solution(puzzle, name="the puzzle"):
    """The puzzle's one solution (cells,) and the guesses that the solver made, to find it and that there is no other."""
    try:
        found, guesses = solver.solve(puzzle, most=PATIENCE)
    except TimeoutError:
        raise TrmError(
            f"{name} is not decided within {PATIENCE:,} guesses of the solver; hard puzzles with one solution need hundreds"
        ) from None
    if not len(found):
        raise TrmError(f"{name} has no solution")
    if len(found) > 1:
        cell = np.flatnonzero(found[0] != found[1])[0]
        raise TrmError(f"{name} has more than one solution: {at(cell, isqrt(len(puzzle)))} can be {found[0][cell]} or {found[1][cell]}")
    return found[0], guesses


def checked(question, answer, rating, name):
    """(puzzle, solution, rating) of a row of text whose answer is taken as the one solution once it obeys the rules."""
    x, y = parse(question, name), parse(answer, f"{name}: the answer")
    if len(x) != len(y) or not y.all() or ((x > 0) & (x != y)).any():
        raise TrmError(f"{name}: the answer is not a complete board that keeps the puzzle's givens")
    try:
        return x, y, int(rating)
    except ValueError:
        raise TrmError(f"{name} has the rating {rating!r}, expected a whole number") from None


def read_file(path):
    """`Puzzles` of a file, packed (.gz, .xz) or not: one a line, or rows under a header with the column `question` and, if it likes,
    `answer` and `rating`. Blank lines and lines that begin with # are skipped. Every puzzle is solved: it must have one solution."""
    header, found = None, []
    for number, line in enumerate(sources.file_lines(Path(path)), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [f.strip() for f in next(reader([line]))]
        if header is None:
            header = fields if "question" in fields else ["question"]
            if "question" in fields:
                continue
        name = f"{path}, line {number}"
        if len(fields) != len(header):
            raise TrmError(f"{name} has {len(fields)} columns, expected {len(header)} ({','.join(header)})")
        row = dict(zip(header, fields))
        x = parse(row["question"], name)
        if found and len(x) != len(found[0][0]):
            raise TrmError(f"{name} has {len(x)} cells, but the puzzles before it have {len(found[0][0])}")
        y, guesses = solution(x, name)
        claimed = checked(row["question"], row.get("answer", show_line(y)), row.get("rating", guesses), name)
        if (wrong := np.flatnonzero(claimed[1] != y)).size:
            raise TrmError(f"{name}: the answer is wrong at {at(wrong[0], isqrt(len(y)))}: {claimed[1][wrong[0]]}, expected {y[wrong[0]]}")
        found.append(claimed)
    if not found:
        raise TrmError(f"{path} holds no puzzle")
    return puzzles(*zip(*found))


def show_line(board):
    """A board as N² characters."""
    return "".join(".123456789"[d] for d in board)


def show(board, puzzle=None):
    """A board (cells,) drawn for a terminal. A digit that breaks a rule is followed by !, and with `puzzle` one that is not given
    by ' (or by ! where it stands in place of another given)."""
    board = torch.as_tensor(board)
    n = side(board)
    h, w = BOXES[n]
    wrong, own = conflicts(board), torch.zeros(len(board), dtype=torch.bool)
    if puzzle is not None:
        puzzle = torch.as_tensor(puzzle)
        wrong, own = wrong | ((puzzle > 0) & (board != puzzle)), (puzzle == 0) & (board > 0)
    cells = [".123456789"[d] + ("!" if bad else "'" if mine else " ") for d, bad, mine in zip(board, wrong, own)]
    lines = []
    for r in range(n):
        if r and r % h == 0:
            lines.append("┼".join(["─" * (2 * w + 1)] * (n // w)))
        row = cells[r * n : (r + 1) * n]
        lines.append("│".join(" " + "".join(row[c : c + w]) for c in range(0, n, w)).rstrip())
    return "\n".join(lines)


# ---------------------------------------------------------------- generator

GENERATED = {  # name → N, fewest and most givens
    "easy-4": (4, 5, 8),
    "easy-6": (6, 11, 16),
    "easy-9": (9, 36, 40),
    "sparse-9": (9, 24, 28),  # singles still solve it, in more rounds
}


def full_board(n, rng):
    """A random complete board (cells,): boxes that share no line are filled at random, the rest by a search in random order."""
    h, w = BOXES[n]
    while True:
        board = np.zeros((n, n), np.int64)
        for i in range(min(h, w)):
            board[i * h : (i + 1) * h, i * w : (i + 1) * w] = rng.permutation(n).reshape(h, w) + 1
        found, _ = solver.solve(board.ravel(), 1, rng)
        if len(found):
            return found[0]


def dig(answer, givens, rng, guesses=False):
    """A puzzle (cells,) with one solution: cells of a complete board are blanked in random order, down to `givens` if that can be.
    A cell goes only if singles still solve the puzzle (above all where one gives the cell back at once); with `guesses` also if
    the solver finds no second solution."""
    n = isqrt(len(answer))
    unit_masks, around = solver.masks(n)
    by_digit, known = solver.digit_masks(answer)

    def hidden(cell, places):
        return any(u & cell and places & u == cell for u in unit_masks)

    for c in rng.permutation(n * n).tolist():
        if known.bit_count() <= givens:
            break
        cell, d = 1 << c, answer[c] - 1
        rest, places = by_digit[d] & ~cell, ~known | cell
        for p in solver.bits(rest):
            places &= ~around[p]
        single = all(by_digit[e] & around[c] for e in range(n) if e != d) or hidden(cell, places)
        if single or solvable(shown(answer, known & ~cell), guesses):
            by_digit[d], known = rest, known & ~cell
    return shown(answer, known)


def solvable(puzzle, guesses):
    """Do singles solve the puzzle, or has it, if guesses are allowed, one solution?"""
    if guesses:
        return len(solver.solve(puzzle)[0]) == 1
    return solver.settle(*solver.start(puzzle)) == (1 << len(puzzle)) - 1


def shown(answer, cells):
    """The board with all but a mask of cells blank."""
    return np.where([cells >> i & 1 for i in range(len(answer))], answer, 0)


def generate(n, givens, seed, count, first=0, guesses=False):
    """`Puzzles` number first … first + count - 1 of a seed (one or several whole numbers), with about givens = (fewest, most) givens.
    Each is a function of its number and the other arguments alone, and the solver checks that it has one solution."""
    if n not in BOXES or not 0 < givens[0] <= givens[1] <= n * n:
        raise TrmError(f"boards of {n}×{n} with {givens[0]} … {givens[1]} givens cannot be made; sizes are {', '.join(map(str, BOXES))}")
    rows = []
    for i in range(first, first + count):
        rng = np.random.default_rng([*np.atleast_1d(seed), i])
        y = full_board(n, rng)
        x = dig(y, rng.integers(givens[0], givens[1] + 1), rng, guesses)
        rows.append((x, *solution(x, f"generated puzzle {i}")))
    return puzzles(*zip(*rows))


# ---------------------------------------------------------------- splits


def draw(source, count, seen, what, least=None):
    """The first `count` puzzles (`least`, if no more are left) of a source, a function of how many and the first's number; none
    with the signature of another or one in `seen`, which grows."""
    parts, have, first = [], 0, 0
    while have < count:
        size = min(count - have, 20_000)
        block, first = source(size, first), first + size
        if not len(block) or first > 20 * count + 1000:
            if have >= (count if least is None else least):
                break
            raise TrmError(f"{what}: {count:,} puzzles were asked for, {have:,} different ones are left for it")
        fresh = []
        for i, s in enumerate(signature(block.x).tolist()):
            if s not in seen:
                seen.add(s)
                fresh.append(i)
        parts.append(block[fresh])
        have += len(fresh)
    return Puzzles(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]), np.concatenate([p.rating for p in parts]))


@cache
def load(config):
    """The `Sudoku` of a config: read, or generated and (9×9) kept in the cache."""
    if config.corpus not in GENERATED:
        (total, test), (_, train) = opened(config.corpus, "test"), opened(config.corpus, "train")
        return split(config, partial(test, EVALUATION), partial(train, EVALUATION), partial(train, config.choice), total)
    n, *givens = GENERATED[config.corpus]

    def make():
        seeds = (EVALUATION, 0), (EVALUATION, 1), (config.choice, 2)
        return split(config, *(partial(generate, n, givens, seed) for seed in seeds))

    if n < 9:
        return make()
    name = "-".join(map(str, (config.train, config.tune, config.test, config.choice)))
    path = Store().cache / "sudoku" / f"{config.corpus}.{name}.v{VERSION}.npz"
    once(path, lambda: write(path, make()))
    return read(path)


def opened(corpus, part):
    """A split of a corpus: its number of puzzles, and `Puzzles` number first … first + count - 1 of a seed's order as a function."""
    total, take = sources.rows(corpus, part)

    def source(seed, count, first):
        numbers = np.random.default_rng(seed).permutation(total)[first : first + count]
        rows = [checked(*row[1:], f"{corpus} {part}, row {i + 1}") for i, row in zip(numbers, take(numbers))]
        return puzzles(*zip(*rows)) if rows else ()

    return total, source


def split(config, test, tune, train, total=None):
    """The parts, each from its source; `total` puzzles are there to test on."""
    seen = set()
    b = draw(test, config.test or total, seen, f"{config.corpus} test", least=config.test)
    a = draw(tune, config.tune, seen, f"{config.corpus} tune")
    return Sudoku(draw(train, config.train, seen, f"{config.corpus} train"), a, b)


def write(path, parts):
    file = io.BytesIO()
    arrays = {f"{name}.{k}": np.asarray(getattr(getattr(parts, name), k)) for name in parts.fingerprints for k in ("x", "y", "rating")}
    np.savez_compressed(file, **arrays)
    write_atomically(path, file.getvalue())


def read(path):
    try:
        with np.load(path) as f:
            found = {name: puzzles(*(f[f"{name}.{k}"] for k in ("x", "y", "rating"))) for name in ("train", "tune", "test")}
        if not all(bool((valid(p.y) & keeps_givens(p.y, p.x)).all()) for p in found.values()):
            raise ValueError("a board breaks the rules")
        return Sudoku(**found)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise TrmError(f"puzzles {path} are damaged ({type(e).__name__}); delete the file, they are made again") from None
