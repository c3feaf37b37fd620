"""Sudoku boards, the solver, the symmetries and the splits."""

import csv
import gzip
import hashlib
from itertools import product

import numpy as np
import pytest
import torch

from trmlib.data import solver, sources, sudoku
from trmlib.data.sources import Corpus
from trmlib.data.sudoku import Puzzles, SudokuConfig, generate, load, parse, read_file, solution
from trmlib.errors import TrmError

EASY = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
EASY_SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."  # singles fill nothing
TINY, TINY_SOLVED = "1.....3..4.....2", "1324423124133142"


def error(function, *args):
    """The one line of a TrmError."""
    with pytest.raises(TrmError) as e:
        function(*args)
    assert "\n" not in str(e.value)
    return str(e.value)


def digits(text):
    return np.array([int(c) for c in text.replace(".", "0")])


def sets(n):
    """All rows, columns and boxes as lists of cells, written out."""
    h, w = {4: (2, 2), 6: (2, 3), 9: (3, 3)}[n]
    rows = [[r * n + c for c in range(n)] for r in range(n)]
    boxes = [[(r + i) * n + c + j for i in range(h) for j in range(w)] for r in range(0, n, h) for c in range(0, n, w)]
    return rows + [list(column) for column in zip(*rows)] + boxes


def obeys(board):
    """Does each row, column and box hold 1 … N?"""
    n = int(len(board) ** 0.5)
    return all(sorted(int(board[c]) for c in unit) == list(range(1, n + 1)) for unit in sets(n))


@pytest.fixture(scope="module")
def four_grids():
    """All complete 4×4 boards, by trying every row under every row."""
    rows = [r for r in product(range(1, 5), repeat=4) if len(set(r)) == 4]
    pairs = [a + b for a in rows for b in rows if len({*a[:2], *b[:2]}) == 4 and len({*a[2:], *b[2:]}) == 4]
    return np.array([p + q for p in pairs for q in pairs if all(len({p[c], p[4 + c], q[c], q[4 + c]}) == 4 for c in range(4))])


@pytest.fixture(scope="module")
def made():
    """Generated puzzles of each size."""
    return {n: generate(n, givens, 0, count) for n, count, givens in ((4, 40, (5, 8)), (6, 20, (11, 14)), (9, 8, (36, 40)))}


# ---------------------------------------------------------------- solver


@pytest.mark.parametrize("n", (4, 6, 9))
def test_units_and_peers(n):
    assert solver.units(n).tolist() == sets(n)
    h, w = solver.BOXES[n]
    assert solver.peers(n).shape == (n * n, 2 * (n - 1) + (h - 1) * (w - 1))
    assert set(solver.peers(n)[0]) == {c for unit in sets(n) if 0 in unit for c in unit} - {0}


def test_the_search_finds_all_288_boards_of_4x4(four_grids):
    found, guesses = solver.solve(np.zeros(16, int), limit=1000)
    assert len(four_grids) == len(found) == 288 and guesses > 0
    assert {tuple(b) for b in found} == {tuple(b) for b in four_grids}


def test_known_puzzles_are_solved():
    found, guesses = solver.solve(digits(EASY))
    assert found.tolist() == [digits(EASY_SOLVED).tolist()] and guesses == 0
    found, guesses = solver.solve(digits(HARD))
    assert len(found) == 1 and obeys(found[0]) and guesses > 0
    assert all(g in (0, s) for g, s in zip(digits(HARD), found[0]))


def test_uniqueness_agrees_with_brute_force(four_grids):
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(200):
        puzzle = np.where(rng.random(16) < rng.uniform(0.2, 0.5), four_grids[rng.integers(288)], 0)
        if rng.random() < 0.3:
            puzzle[rng.integers(16)] = rng.integers(1, 5)  # often wrong
        fitting = [tuple(b) for b in four_grids if all((puzzle == 0) | (puzzle == b))]
        found, _ = solver.solve(puzzle, limit=300)
        assert sorted(map(tuple, found.tolist())) == sorted(fitting)
        assert len(solver.solve(puzzle, limit=2)[0]) == min(2, len(fitting))
        counts.add(min(2, len(fitting)))
    assert counts == {0, 1, 2}


def test_random_order_finds_the_same_solutions(four_grids):
    rng = np.random.default_rng(0)
    a, b = (solver.solve(np.zeros(16, int), 288, rng)[0] for _ in range(2))
    assert not (a == b).all() and {tuple(x) for x in a} == {tuple(x) for x in b} == {tuple(x) for x in four_grids}


def test_the_search_can_give_up():
    with pytest.raises(TimeoutError, match="after 3 guesses"):
        solver.solve(digits(HARD), most=3)


def test_rounds_by_hand():
    full = digits(TINY_SOLVED)
    one_blank = full.copy()
    one_blank[5] = 0
    assert solver.rounds(one_blank, full).tolist() == [0] * 5 + [1] + [0] * 10
    puzzle = full.copy()
    puzzle[:3] = 0
    assert solver.rounds(puzzle, full).tolist() == [1] * 3 + [0] * 13
    assert (
        error(solver.rounds, puzzle, digits("4132" + TINY_SOLVED[4:]))
        == f"the answer 4132{TINY_SOLVED[4:]} is not the puzzle's one solution"
    )


@pytest.mark.parametrize("puzzle", (EASY, HARD, TINY))
def test_milestones_grow_and_end_in_the_solution(puzzle):
    x = parse(puzzle)
    y, guesses = solution(x)
    boards = solver.milestones(x)
    filled = boards > 0
    assert (boards[-1] == y).all() and (boards == np.where(filled, y, 0)).all()
    assert filled[0][x > 0].all() and (np.diff(np.r_[(x > 0).sum(), filled.sum(1)]) > 0).all()
    assert (filled[1:] >= filled[:-1]).all()
    when = solver.rounds(x, y)
    assert ((when == 0) == (x > 0)).all() and sorted(set(when)) == list(range(len(boards) + 1))
    if guesses:  # singles stall: the round that then writes one cell is there
        assert 1 in np.diff(filled.sum(1))


def test_a_round_writes_every_single_of_its_board():
    x, y = digits(EASY), digits(EASY_SOLVED)
    first = solver.milestones(x, y)[0]
    expected = x.copy()
    for c in range(81):
        seen = {int(x[p]) for unit in sets(9) if c in unit for p in unit}
        naked = len(set(range(1, 10)) - seen) == 1
        hidden = any(
            all(p == c or x[p] or y[c] in {x[q] for other in sets(9) if p in other for q in other} for p in unit)
            for unit in sets(9) if c in unit
        )  # fmt: skip
        if x[c] == 0 and (naked or hidden):
            expected[c] = y[c]
    assert first.tolist() == expected.tolist() and (first > 0).sum() > (x > 0).sum()


# ---------------------------------------------------------------- reading


def test_parse_reads_digits_and_blanks():
    assert parse(EASY).tolist() == parse(EASY.replace("0", ".")).tolist() == digits(EASY).tolist()
    assert parse("1... ..3.\n.4.. ...2\n").tolist() == digits(TINY).tolist()
    assert len(parse("." * 36)) == 36


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (EASY[:-1], "it has 80 cells, expected 81 (9×9), 36 (6×6) or 16 (4×4)"),
        ("", "it has 0 cells, expected 81 (9×9), 36 (6×6) or 16 (4×4)"),
        ("." * 25, "it has 25 cells, expected 81 (9×9), 36 (6×6) or 16 (4×4)"),
        (EASY[:12] + "x" + EASY[13:], "it has 'x' at row 2, column 4; use 1 … 9, and . or 0 for a blank"),
        ("5" + "." * 15, "it has '5' at row 1, column 1; use 1 … 4, and . or 0 for a blank"),
        ("٣" + "." * 80, "it has '٣' at row 1, column 1; use 1 … 9, and . or 0 for a blank"),
        ("." * 9 + "7.......7" + "." * 63, "it breaks a rule: 7 stands 2 times in row 2"),
        ("..4......" * 3 + "." * 54, "it breaks a rule: 4 stands 3 times in column 3"),
        ("." * 66 + "3" + "." * 10 + "3...", "it breaks a rule: 3 stands 2 times in box 8"),
    ],
)
def test_parse_says_what_is_wrong(text, line):
    assert error(parse, text, "it") == line


def test_solution_says_what_is_wrong():
    assert solution(parse(EASY))[0].tolist() == digits(EASY_SOLVED).tolist()
    assert error(solution, parse("12345678." + "........9" + "." * 63)) == "the puzzle has no solution"
    line = error(solution, parse(".2.4.4.221434321"))  # a rectangle of two digits
    assert line == "the puzzle has more than one solution: row 1, column 1 can be 1 or 3"


def test_a_hopeless_search_ends(monkeypatch):
    monkeypatch.setattr(sudoku, "PATIENCE", 50)
    impossible = ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."
    assert error(solution, parse(impossible)).startswith("the puzzle is not decided within 50 guesses")


def test_a_file_of_puzzles(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(f"# two puzzles\n\n{EASY}\n  {HARD}\n")
    p = read_file(path)
    assert (len(p), p.x.dtype, p.rating[0], p.rating[1] > 0) == (2, torch.uint8, 0, True)
    assert p.x[0].tolist() == digits(EASY).tolist() and p.y[0].tolist() == digits(EASY_SOLVED).tolist()
    with gzip.open(tmp_path / "mine.csv.gz", "wt") as f:
        f.write(f"source,question,answer,rating\nme,{EASY},{EASY_SOLVED},7\n")
    assert read_file(tmp_path / "mine.csv.gz").rating.tolist() == [7]
    (tmp_path / "short.csv").write_text(f"question\n{TINY}\n")
    assert read_file(tmp_path / "short.csv").y.tolist() == [digits(TINY_SOLVED).tolist()]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{EASY}\n{EASY[:-1]}x\n", "{path}, line 2 has 'x' at row 9, column 9; use 1 … 9, and . or 0 for a blank"),
        (f"# first\n\n{EASY}\n{TINY}\n", "{path}, line 4 has 16 cells, but the puzzles before it have 81"),
        (f"{EASY}\n{'.' * 81}\n", "{path}, line 2 has more than one solution: "),
        (f"{'12345678.' + '........9' + '.' * 63}\n", "{path}, line 1 has no solution"),
        (f"55{EASY[2:]}\n", "{path}, line 1 breaks a rule: 5 stands 2 times in row 1"),
        (f"{EASY},{EASY}\n", "{path}, line 1 has 2 columns, expected 1 (question)"),
        (f"question,answer\n{EASY},{EASY}\n", "{path}, line 2: the answer is not a complete board that keeps the puzzle's givens"),
        (f"question,answer\n{EASY},{EASY_SOLVED[:-1]}\n", "{path}, line 2: the answer has 80 cells, expected "),
        (f"question,rating\n{EASY},hard\n", "{path}, line 2 has the rating 'hard', expected a whole number"),
        ("# nothing\n", "{path} holds no puzzle"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, line):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    assert error(read_file, path).startswith(line.format(path=path))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    assert error(read_file, tmp_path / "no.txt") == f"cannot read {tmp_path / 'no.txt'}: No such file or directory"
    for damaged in (gzip.compress(EASY.encode())[:-12], EASY.encode()):
        (tmp_path / "a.csv.gz").write_bytes(damaged)
        assert error(read_file, tmp_path / "a.csv.gz").startswith(f"{tmp_path / 'a.csv.gz'} is truncated or corrupt (")


def test_a_board_is_drawn():
    board = digits(TINY_SOLVED)
    assert sudoku.show(board) == " 1 3 │ 2 4\n 4 2 │ 3 1\n─────┼─────\n 2 4 │ 1 3\n 3 1 │ 4 2"
    wrong = board.copy()
    wrong[1] = 2  # twice in row 1, twice in box 1, twice in column 2
    wrong[15] = 0  # a given
    assert sudoku.show(wrong, digits(TINY)) == " 1 2!│ 2!4'\n 4'2!│ 3 1'\n─────┼─────\n 2'4 │ 1'3'\n 3'1'│ 4'.!"
    six = sudoku.show(np.zeros(36, int)).splitlines()
    assert six[0] == " . . . │ . . ." and [i for i, line in enumerate(six) if "┼" in line] == [2, 5]


# ---------------------------------------------------------------- rules


def test_valid_agrees_with_the_rules(four_grids, made):
    assert sudoku.valid(torch.from_numpy(four_grids)).all()
    for n, p in made.items():
        assert sudoku.valid(p.y).all() and all(map(obeys, p.y))
        assert not sudoku.valid(p.x).any()  # blanks
        broken = p.y.clone()
        rows = torch.arange(len(broken))
        cell = torch.from_numpy(np.random.default_rng(0).integers(n * n, size=len(broken)))
        broken[rows, cell] = broken[rows, cell] % n + 1
        assert not sudoku.valid(broken).any()
    latin = torch.tensor([[(r + c) % 9 + 1 for r in range(9) for c in range(9)]])  # rows and columns right, boxes wrong
    assert not sudoku.valid(latin).any()
    random = torch.randint(5, (3000, 16), generator=torch.Generator().manual_seed(0))
    assert sudoku.valid(random).tolist() == [obeys(b) for b in random]
    assert sudoku.valid(torch.from_numpy(four_grids).view(2, 144, 16)).shape == (2, 144)


def test_conflicts_mark_both_cells():
    board = torch.tensor(digits(EASY_SOLVED))
    assert not sudoku.conflicts(board).any()
    board[0] = 3  # EASY_SOLVED has 3 next to it, and in column 1 of row 9
    assert sudoku.conflicts(board).nonzero().ravel().tolist() == [0, 1, 72]
    assert not sudoku.conflicts(torch.zeros(81, dtype=torch.uint8)).any()


def test_givens_are_kept_or_not():
    x, y = torch.tensor(digits(EASY)), torch.tensor(digits(EASY_SOLVED))
    changed = y.clone()
    changed[0] = 1
    other = y.clone()
    other[2] = 1  # blank in the puzzle
    assert sudoku.keeps_givens(torch.stack([y, changed, other]), x).tolist() == [True, False, True]


# ---------------------------------------------------------------- symmetries


@pytest.mark.parametrize("n", (4, 6, 9))
def test_symmetries_keep_validity_and_solutions(made, n):
    p = made[n]
    x, y = (torch.cat([t] * 4) for t in (p.x, p.y))
    new_x, new_y, moved = sudoku.augment(x, y, torch.Generator().manual_seed(0), y * 2)
    assert new_x.dtype == x.dtype and sudoku.valid(new_y).all() and sudoku.keeps_givens(new_y, new_x).all()
    assert ((new_x > 0).sum(1) == (x > 0).sum(1)).all() and (new_x != x).any(1).float().mean() > 0.9
    for a, b in zip(new_x.numpy(), new_y.numpy()):
        found, _ = solver.solve(a)
        assert found.tolist() == [b.tolist()]
    for a, b in zip(new_y, moved):  # the same places, other names
        assert len({(int(i), int(j)) for i, j in zip(a, b)}) == n
    assert (sudoku.signature(new_x) == sudoku.signature(x)).all()


def test_symmetries_are_drawn_for_each_board_and_from_the_generator(made):
    x, y = made[9].x[:1].expand(64, -1), made[9].y[:1].expand(64, -1)
    first, again, other = (sudoku.augment(x, y, torch.Generator().manual_seed(s))[0] for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any(1).all()
    assert len({tuple(b) for b in first.tolist()}) == 64


def test_every_symmetry_of_4x4_is_drawn_equally_often():
    count = 60_000
    y = torch.arange(16).expand(count, 16)  # cells, where digits would stand: what is moved only
    puzzle = torch.tensor(digits(TINY_SOLVED)).expand(count, 16)
    generator = torch.Generator().manual_seed(0)
    renamed, _, places = sudoku.augment(puzzle, puzzle, generator, y)
    _, times = places.unique(dim=0, return_counts=True)
    assert len(times) == 8 * 8 * 2  # rows, columns, transposed or not
    assert ((times - count / 128) ** 2 / (count / 128)).sum() < 200  # χ² with 127 degrees of freedom: mean 127, sd 16
    names = torch.zeros(count, 5, dtype=torch.long).scatter_(1, puzzle.gather(1, places), renamed)
    _, times = names.unique(dim=0, return_counts=True)
    assert len(times) == 24 and (times - count / 24).abs().max() < 250
    assert set(names[:, 0].tolist()) == {0}


def test_6x6_is_never_transposed():
    cells = torch.arange(36).expand(5000, 36)
    zero = torch.zeros_like(cells)
    _, _, places = sudoku.augment(zero, zero, torch.Generator().manual_seed(0), cells)
    assert ((places[:, :6] // 6).amin(1) == (places[:, :6] // 6).amax(1)).all()  # a row stays a row
    assert len(sudoku.line_orders(6, 2, cells.device)) == 48 and len(sudoku.line_orders(6, 3, cells.device)) == 72
    assert len(sudoku.line_orders(9, 3, cells.device)) == 1296


def test_signatures_tell_4x4_puzzles_apart(four_grids):
    rng = np.random.default_rng(1)
    puzzles = np.where(rng.random((150, 16)) < 0.35, four_grids[rng.integers(288, size=150)], 0)
    lines = sudoku.line_orders(4, 2, torch.device("cpu")).numpy()

    def canonical(board):
        best = None
        for grid in (board.reshape(4, 4), board.reshape(4, 4).T):
            for r, c in product(lines, lines):
                names, out = {0: 0}, []
                for v in grid[np.ix_(r, c)].ravel().tolist():
                    out.append(names.setdefault(v, len(names)))
                best = out if best is None or out < best else best
        return tuple(best)

    forms, marks = [canonical(p) for p in puzzles], sudoku.signature(puzzles).tolist()
    assert len({(f, m) for f, m in zip(forms, marks)}) == len(set(forms))  # equivalent: the same signature
    assert len(set(marks)) > 0.9 * len(set(forms))  # and few others share one


# ---------------------------------------------------------------- generator


def test_generated_puzzles_have_one_solution_and_the_wanted_givens(made, four_grids):
    for p, (low, high) in zip(made.values(), ((5, 8), (11, 14), (36, 40))):
        for x, y, rating in zip(p.x.numpy(), p.y.numpy(), p.rating):
            found, guesses = solver.solve(x)
            assert found.tolist() == [y.tolist()] and guesses == rating == 0
        assert low <= (p.x > 0).sum(1).min() and (p.x > 0).sum(1).float().mean() < high + 2
    for x, y in zip(made[4].x.numpy(), made[4].y.numpy()):  # brute force
        assert [tuple(b) for b in four_grids if ((x == 0) | (x == b)).all()] == [tuple(y)]


def test_generated_puzzles_depend_on_their_number_alone(made):
    assert generate(4, (5, 8), 0, 3, first=2).x.tolist() == made[4].x[2:5].tolist()
    assert generate(4, (5, 8), 1, 3, first=2).x.tolist() != made[4].x[2:5].tolist()


def test_with_guesses_fewer_givens_are_left():
    singles, guessed = (generate(9, (17, 17), 3, 2, guesses=g) for g in (False, True))
    assert (singles.rating == 0).all() and (guessed.x > 0).sum() <= (singles.x > 0).sum() < 2 * 32
    for x in guessed.x.numpy():  # minimal: without any given there is a second solution
        for c in np.flatnonzero(x)[:3]:
            assert len(solver.solve(np.where(np.arange(81) == c, 0, x))[0]) == 2


def test_wrong_sizes_are_refused():
    assert error(generate, 5, (5, 8), 0, 1) == "boards of 5×5 with 5 … 8 givens cannot be made; sizes are 4, 6, 9"
    assert error(generate, 4, (9, 8), 0, 1) == "boards of 4×4 with 9 … 8 givens cannot be made; sizes are 4, 6, 9"


# ---------------------------------------------------------------- splits


def write_csv(path, p, first=0):
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["source", "question", "answer", "rating"])
        for i, (x, y) in enumerate(zip(p.x, p.y), first):
            rows.writerow(["made", sudoku.show_line(x), sudoku.show_line(y), i])
    return path


@pytest.fixture(scope="module")
def sixty():
    return generate(9, (38, 40), 5, 60)


@pytest.fixture
def corpus(tmp_path, monkeypatch, sixty):
    """A data root with the corpora `tiny` and, on no disk but on a hub of the same layout, `far`: 60 + 30 puzzles, 30 of the first
    equivalent to the last."""
    p = sixty
    turned = Puzzles(*sudoku.augment(p.x[:30], p.y[:30], torch.Generator().manual_seed(0)), p.rating[:30])
    folder = tmp_path / "root" / "tiny"
    folder.mkdir(parents=True)
    paths = {"train": write_csv(folder / "train.csv.gz", p), "test": write_csv(folder / "test.csv.gz", turned, 100)}
    hub = tmp_path / "hub"
    hub.mkdir()
    for split, path in paths.items():
        (hub / f"{split}.csv").write_bytes(gzip.decompress(path.read_bytes()))
    known = {split: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() for split, path in paths.items()}
    table = {"splits": {s: s for s in paths}, "columns": sources.PUZZLES}
    monkeypatch.setitem(sources.CORPORA, "tiny", Corpus("tiny", "tiny", None, "1 kB", "CC0", sha256=known, **table))
    monkeypatch.setitem(sources.CORPORA, "far", Corpus("far", "far", (str(hub),), "1 kB", "CC0", **table))
    monkeypatch.setenv("TRM_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    load.cache_clear()
    yield folder
    load.cache_clear()


def boards(p):
    return {tuple(x) for x in p.x.tolist()}


def test_parts_are_disjoint_and_stay_when_others_grow(corpus):
    small, large = (load(SudokuConfig("tiny", train, 5, 10)) for train in (4, 12))
    for part in ("tune", "test"):
        assert getattr(small, part).fingerprint == getattr(large, part).fingerprint
    assert small.train.x.tolist() == large.train.x[:4].tolist()
    assert [len(large.train), len(large.tune), len(large.test)] == [12, 5, 10]
    marks = [set(sudoku.signature(getattr(large, part).x).tolist()) for part in ("train", "tune", "test")]
    assert sum(map(len, marks)) == 27 == len(set.union(*marks))
    assert (large.test.rating >= 100).all() and (large.train.rating < 60).all() and (large.tune.rating < 60).all()
    other = load(SudokuConfig("tiny", 12, 5, 10, choice=1))
    assert boards(other.train) != boards(large.train) and other.test.fingerprint == large.test.fingerprint


def test_what_is_equivalent_to_a_test_puzzle_is_not_trained_on(corpus):
    everything = load(SudokuConfig("tiny", 10, 5, 0))
    assert len(everything.test) == 30
    assert (everything.train.rating >= 30).all() and (everything.tune.rating >= 30).all()  # rows 0 … 29 are test puzzles, turned
    line = error(load, SudokuConfig("tiny", 50, 5, 0))
    assert line == "tiny train: 50 puzzles were asked for, 25 different ones are left for it"


def test_the_hub_gives_the_same_puzzles(corpus):
    disk, hub = (load(SudokuConfig(name, 8, 4, 6)) for name in ("tiny", "far"))
    assert disk.fingerprints == hub.fingerprints and disk.test.rating.tolist() == hub.test.rating.tolist()
    assert [r["state"] for r in sources.fetch("far")] == ["fetched, 60 puzzles", "fetched, 30 puzzles"]


def test_a_changed_file_is_refused(corpus):
    assert [(r["ok"], r["state"]) for r in sources.check("tiny")] == [(True, "whole, 60 puzzles"), (True, "whole, 30 puzzles")]
    text = gzip.decompress((corpus / "train.csv.gz").read_bytes())
    (corpus / "train.csv.gz").write_bytes(gzip.compress(text.replace(b"made", b"mine", 1)))
    line = error(load, SudokuConfig("tiny", 4, 4, 4))
    assert line.startswith(f"{corpus / 'train.csv.gz'} has sha256 ") and "for tiny train" in line
    assert [r["ok"] for r in sources.check("tiny")] == [False, True]


def test_a_bad_row_of_a_corpus_is_named(corpus, monkeypatch):
    import dataclasses

    monkeypatch.setitem(sources.CORPORA, "tiny", dataclasses.replace(sources.CORPORA["tiny"], sha256={}))
    (corpus / "test.csv.gz").write_bytes(gzip.compress(f"source,question,answer,rating\na,{TINY},{TINY},1\n".encode()))
    assert (
        error(load, SudokuConfig("tiny", 4, 4, 1)) == "tiny test, row 1: the answer is not a complete board that keeps the puzzle's givens"
    )
    (corpus / "test.csv.gz").write_bytes(gzip.compress(f"source,question,answer,rating\na,{TINY},{TINY}\n".encode()))
    line = f"{corpus / 'test.csv.gz'}, line 2 has 3 columns, expected source,question,answer,rating"
    assert error(load, SudokuConfig("tiny", 4, 4, 1)) == line
    (corpus / "test.csv.gz").write_bytes(gzip.compress(b""))
    assert error(load, SudokuConfig("tiny", 4, 4, 1)).startswith(f"{corpus / 'test.csv.gz'} begins with '', expected the columns ")
    (corpus / "test.csv.gz").write_bytes(gzip.compress(b"puzzle,solution\n1,2\n"))
    assert error(load, SudokuConfig("tiny", 4, 4, 1)) == (
        f"{corpus / 'test.csv.gz'} begins with 'puzzle,solution', expected the columns source,question,answer,rating"
    )


def test_the_stand_in_without_a_file_says_where_to_put_it():
    assert error(load, SudokuConfig()).startswith("corpus sudoku-hard (test) not found; put it at $TRM_DATA/sudoku/test.csv.gz (4.6 MB, ")


def test_impossible_configs_are_refused():
    assert error(SudokuConfig, "easy-4", 0) == "SudokuConfig: train=0 must be a whole number ≥ 1"
    assert error(SudokuConfig, "easy-4", 10, 10, 0) == "test=0 means all puzzles, and easy-4 has no end; say how many"
    assert error(load, SudokuConfig("sudoku-soft")).startswith("unknown corpus 'sudoku-soft'; known: ")


def test_embedded_puzzles_are_split_and_the_large_ones_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("TRM_CACHE", str(tmp_path))
    small = load(SudokuConfig("easy-4", 60, 20, 20))
    assert small.test.x[:4].tolist() == generate(4, (5, 8), (sudoku.EVALUATION, 0), 4).x.tolist()
    assert small.train.x[:4].tolist() == generate(4, (5, 8), (0, 2), 4).x.tolist()
    assert not list(tmp_path.iterdir()) and len(boards(small.train) | boards(small.tune) | boards(small.test)) == 100
    config = SudokuConfig("easy-9", 4, 2, 2)
    first = load(config)
    (path,) = (tmp_path / "sudoku").iterdir()
    load.cache_clear()
    assert load(config).fingerprints == first.fingerprints and sudoku.valid(first.train.y).all()
    path.write_bytes(path.read_bytes()[:-100])
    load.cache_clear()
    assert error(load, config).startswith(f"puzzles {path} are damaged (")


def test_rounds_of_a_set_are_its_milestones(made):
    p = made[9][[0, 1]]
    rounds = p.rounds()
    assert rounds.dtype == torch.uint8 and ((rounds == 0) == (p.x > 0)).all()
    for k, board in enumerate(solver.milestones(p.x[0].numpy()), 1):
        assert torch.where(rounds[0] <= k, p.y[0], 0).tolist() == board.tolist()


def test_rating_bands():
    assert sudoku.band(np.array([0, 1, 10, 11, 50, 51, 545])).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert list(sudoku.BANDS) == ["0", "1–10", "11–50", "> 50"]
