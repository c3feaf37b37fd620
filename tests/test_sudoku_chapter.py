"""Chapter 05: choices among answers, budgets of steps and starts, what a step does, the write-up's observations, `trm solve`."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from trmlib import checkpoints, cli, compare, solve, stats
from trmlib.data import sudoku
from trmlib.errors import TrmError
from trmlib.experiments import sudoku as experiment
from trmlib.experiments import sudoku_evaluations as evaluations
from trmlib.experiments import sudoku_report as report
from trmlib.experiments import sudoku_words as words
from trmlib.experiments import when_report
from trmlib.models.grid import GridConfig, log_softmax
from trmlib.runs import Store, write_atomically

EXPERIMENTS = ("sudoku",)
SMALL = {"starts": {16: 4, 32: 2, 64: 1}, "budget": 20, "longer": 20, "steps": 64, "far": (5, 128), "noise": 20, "shown": 20}


class Scripted:
    """A model that answers rightly from its step `when` on, at each start another: y counts the steps, z holds when. Before that one
    cell, or with `spoil` the whole board, is another digit. It is sure from the step before."""

    config = SimpleNamespace(d=64, n_sup=8, loss="softmax")
    digits = 4

    def __init__(self, targets, own=5):
        self.targets, self.own, self.asked = targets, own, 0

    def start(self, b, noise=None, generator=None):
        when = torch.randint(3, 40, (1, b, 1), generator=generator).float() if noise else torch.full((1, b, 1), float(self.own))
        return torch.zeros(1, b, 1), when

    def __call__(self, boards, states):
        y, z = states
        self.asked += len(boards)
        y = y + 1
        right = (y >= z)[0]  # (b, 1)
        answer = self.targets[: len(boards)].clone()
        answer[:, :1] = torch.where(right, answer[:, :1], answer[:, :1] % 4 + 1)
        logits = 5.0 * torch.nn.functional.one_hot(answer, 5)
        return logits, (2 * (y + 1 >= z).float() - 1)[0, :, 0], (y, z)


@pytest.fixture
def scripted(monkeypatch):
    data = sudoku.load(sudoku.SudokuConfig("easy-4", 8, 4, 20))
    spec = SimpleNamespace(seed=3, data=SimpleNamespace(corpus="easy-4"))
    task = SimpleNamespace(puzzles=data, device=torch.device("cpu"), config=Scripted.config, spec=spec)
    monkeypatch.setattr(evaluations, "SIZES", {"easy-4": SMALL})
    return task, Scripted(data.test.y.long())


def test_choices_among_answers_by_hand():
    target = sudoku.load(sudoku.SudokuConfig("easy-4", 8, 4, 4)).test
    x, y = target.x.long()[:1], target.y.long()[:1]
    wrong, other = y.clone(), y.clone()
    wrong[0, 0], other[0, 5] = y[0, 0] % 4 + 1, y[0, 5] % 4 + 1
    moved, sure = torch.tensor([[3.0], [2.0], [1.0], [4.0]]), torch.tensor([[0.0], [1.0], [2.0], [0.5]])
    boards = torch.stack([y, y, wrong, other])
    choose = lambda rows: {k: v.item() for k, v in evaluations.choose(boards[rows], sure[rows], moved[rows], x, y).items()}  # noqa: E731
    assert choose([0, 1, 2, 3]) == {
        "confidence": False, "cell vote": True, "puzzle vote": True, "residual": False, "any": True, "rules": True,
    }  # fmt: skip
    assert not choose([1, 2])["puzzle vote"]  # one vote each: the surer one, which is wrong
    for rows in ([1, 2], [0, 3], [2, 3]):  # so in each cell: of two boards a vote per cell takes the surer, whatever its digits
        assert choose(rows)["cell vote"] == choose(rows)["confidence"] == bool((boards[rows][sure[rows, 0].argmax()] == y).all())
    none = choose([2, 3])
    assert not none["any"] and not none["rules"]


def test_outcomes_are_packed_into_bits():
    outcomes = torch.rand(3, 7, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert np.array_equal(evaluations.unpacked(evaluations.packed(outcomes), 3, 7, 5), outcomes.numpy())


def test_a_budget_is_what_its_starts_solve(scripted):
    task, model = scripted
    found = evaluations.budget(task, model)
    b = len(task.puzzles.test)
    generator = torch.Generator().manual_seed(3)  # the run's seed
    when = torch.stack([model.start(b, noise=True, generator=generator)[1][0, :, 0] for _ in range(4)])  # (k, b)
    assert found["steps"] == [1, 2, 4, 8, 16, 32, 64] and found["starts"] == [1, 2, 4] and found["puzzles"] == b
    for i, step in enumerate(found["steps"]):
        k = 4 if step <= 16 else 2 if step <= 32 else 1
        right = when[:k] <= step
        for column, size in enumerate(found["starts"]):
            if size > k:
                assert found["any"][i][column] is None
                continue
            got = lambda rule: evaluations.unpacked(found[rule][i][column], k // size, b)  # noqa: B023, E731
            groups = right.view(k // size, size, b)
            assert np.array_equal(got("any"), groups.any(1)) and np.array_equal(got("rules"), groups.any(1))
            sure = (when[:k].view(k // size, size, b) <= step + 1).float()
            first = sure.argmax(1, keepdim=True)  # the first of the surest
            assert np.array_equal(got("confidence"), groups.gather(1, first)[:, 0])
    assert model.asked == b * (4 * 16 + 2 * 16 + 1 * 32)
    task.spec.seed = 4
    assert evaluations.budget(task, model)["any"] != found["any"]


def test_a_settled_puzzle_keeps_its_answer():
    """Puzzle i moves for i + 1 steps; then it is not asked again."""

    class Settles(Scripted):
        def __call__(self, boards, states):
            y, z = states
            self.asked += len(boards)
            y = torch.minimum(y + 1, z)
            return torch.nn.functional.one_hot(y[0].long(), 9).float(), y[0, :, 0], (y, z)

    model, z = Settles(None), torch.arange(1.0, 5.0).view(1, 4, 1)
    rows = list(evaluations.answers(model, torch.zeros(4, 1, dtype=torch.long), (1, 3, 8), (torch.zeros(1, 4, 1), z)))
    assert [r[0][:, 0].tolist() for r in rows] == [[1, 1, 1, 1], [1, 2, 3, 3], [1, 2, 3, 4]]
    assert rows[-1][1].tolist() == [1, 2, 3, 4] and rows[-1][2].tolist() == [0, 0, 0, 0]
    assert model.asked == sum(when + 1 for when in (1, 2, 3, 4))  # a step more, to see that it rests


def test_longer_thinking_and_stopping_when_sure(scripted):
    task, model = scripted
    found = evaluations.longer(task, model)
    right, surely = (evaluations.unpacked(found[k], 7, 20) for k in ("right", "surely"))
    assert right.mean(1).tolist() == [0, 0, 0, 1, 1, 1, 1] and found["steps"] == [1, 2, 4, 8, 16, 32, 64]  # right from step 5 on
    assert not surely.any()  # sure a step too early, at step 4
    assert found["spent"] == [1, 2, 4, 4, 4, 4, 4]
    far = found["far"]
    assert far["steps"] == [128] and evaluations.unpacked(far["right"], 1, far["puzzles"]).all() and far["puzzles"] == 5


def test_harder_puzzles_are_told_apart_by_givens_and_rounds(scripted, monkeypatch):
    task, _ = scripted
    monkeypatch.setattr(evaluations, "HARDER", {"easy-4": "easy-6"})
    monkeypatch.setattr(evaluations, "HARDER_PUZZLES", 6)
    monkeypatch.setattr(evaluations, "HARDER_TRIED", 300)
    evaluations.of_rounds.cache_clear()
    trained = int(np.quantile(task.puzzles.train.rounds().amax(1), 0.99))
    model, asked = Scripted(None), []

    def answers(model, x, at, states):
        asked.append(x)
        yield from ((x * 0 + 1, None, None) for _ in at)

    monkeypatch.setattr(evaluations, "answers", answers)
    found = evaluations.harder(task, model)
    assert found["steps"] == [1, 2, 4, 8, 16, 32, 64] and found["trained"] == trained
    assert [(g["givens"], g["beyond"]) for g in found["groups"]][-2:] == [([11, 16], False), ([11, 16], True)]
    for g, x in zip(found["groups"], asked, strict=True):
        y = torch.stack([torch.as_tensor(sudoku.solution(b.numpy())[0]) for b in x])
        needed = sudoku.Puzzles(x.to(torch.uint8), y.to(torch.uint8), None).rounds().amax(1)
        assert len(x) == g["puzzles"] <= 6 and g["rounds"] == pytest.approx(needed.float().mean().item())
        assert (needed > trained).all() if g["beyond"] else (needed <= trained).all()
    evaluations.of_rounds.cache_clear()


def outcomes(*rows):
    """Rows of 0 and 1 as evaluations keep them."""
    return evaluations.packed(torch.tensor(np.array(rows)))


def test_harder_puzzles_and_more_steps_over_seeds(monkeypatch):
    def groups(last):
        few = {"givens": [36, 40], "beyond": False, "puzzles": 2, "rounds": 4.0, "right": outcomes([1, 0], [1, 1], [1, 1])}
        return [few, {"givens": [36, 40], "beyond": True, "puzzles": 4, "rounds": 9.2, "right": outcomes([0] * 4, [1, 0, 0, 0], last)}]

    rows = [{"steps": [4, 8, 16], "trained": 8, "groups": groups(last)} for last in ([1, 1, 0, 0], [1, 1, 1, 0])]
    monkeypatch.setattr(report, "singles", lambda *_: rows)
    monkeypatch.setattr(report, "trained_steps", lambda *_: 8)
    lines, trained, effects, gain = report.harder(None, None)
    assert list(lines) == list(effects) == ["36–40 givens, 4 rounds", "36–40 givens, 9 rounds"] and trained == 8
    assert lines["36–40 givens, 9 rounds"][1] == pytest.approx([0, 0.25, 0.625])
    assert gain.estimate == pytest.approx(0.375) and (gain.n, gain.articles) == (2, 4) and effects["36–40 givens, 4 rounds"].estimate == 0
    monkeypatch.setattr(report, "singles", lambda *_: [])
    assert report.harder(None, None) is None


def test_the_slowest_solved_board_comes_first(monkeypatch):
    strip = lambda name, *digits: {"name": name, "solved": digits[-1] == "b", "target": "b", "digits": list(digits)}  # noqa: E731
    seeds = [[strip("fast", "b", "b", "b"), strip("never", "a", "a", "a")], [strip("slow", "a", "a", "b"), strip("middle", "a", "b", "b")]]
    monkeypatch.setattr(report, "singles", lambda *_: [{"strips": s} for s in seeds])
    assert [s["name"] for s in report.strips(None, None, "TRM")] == ["slow", "middle", "fast", "never"]


def test_noise_reaches_both_states(scripted):
    task, model = scripted
    found = evaluations.noise(task, model)
    assert found["0"] == [0, 0, 0, 1, 1, 1] and found["1"] != found["0"]  # up to NOISE_STEPS


def test_what_a_step_does_by_hand(scripted):
    task, model = scripted
    found = evaluations.thinking(task, model)
    x, y = task.puzzles.test.x, task.puzzles.test.y
    blank_first = (x[:, 0] == 0).sum().item() / (x == 0).sum().item()
    assert found["changed"] == pytest.approx([0, 0, 0, blank_first, 0, 0, 0], abs=1e-6)  # from step 4 to step 5
    assert found["residual"]["all"] == [1] * 8 and found["residual"]["unsolved"] == [None] * 8
    rounds = task.puzzles.test.rounds()
    ones = (rounds == 1).sum().item()
    assert found["by_round"][0][0] == pytest.approx(1 - (rounds[:, 0] == 1).sum().item() / ones) and found["by_round"][4][0] == 1
    assert sum(d["puzzles"] for d in found["difficulty"]) == 20 and {d["first"] for d in found["difficulty"]} == {5}
    assert {d["reached"] - d["puzzles"] for d in found["difficulty"]} == {0}
    assert found["sure"] == found["calibration"][3]  # the first step at which it is sure, of all puzzles
    step4, step1 = found["calibration"][3], found["calibration"][0]
    p = torch.tensor(1.0).sigmoid().item()
    assert step4["count"][7] == 20 and step4["said"][7] == pytest.approx(p) and step4["solved"][7] == 0
    assert step1["count"][2] == 20 and step1["said"][2] == pytest.approx(1 - p)
    strip = found["strips"][0]
    assert strip["solved"] and strip["digits"][4] == strip["target"] == sudoku.show_line(y[0]) and strip["digits"][3] != strip["target"]
    json.dumps(found)


def test_alignment_of_a_model_that_keeps_its_start(scripted):
    task, model = scripted

    class Keeps(Scripted):
        def start(self, b, noise=None, generator=None):
            return tuple(torch.randn(1, b, 6, generator=generator) for _ in range(2))

        def __call__(self, boards, states):
            return torch.nn.functional.one_hot(self.targets, 5).float(), torch.zeros(len(boards)), states

    found = evaluations.alignments(task, Keeps(model.targets))
    assert found["own"]["y"]["same"] == pytest.approx(1, abs=1e-5) and found["other"]["y"]["between"] == pytest.approx(1, abs=1e-5)
    assert found["other"]["z"]["alignment"] < -0.5 and found["other"]["prediction"]["same"] == pytest.approx(1, abs=1e-5)


# Report


def row(arm, seed, accuracy, halting=(4, 3, 2, 1), status="recorded"):
    record = {
        "experiment": "sudoku", "profile": "cpu", "spec": {"model": {"n_sup": 8}}, "inference_flops": 8_000, "seed": seed,
        "curve": {"step": [1, 2, 3, 4], "halting_steps": list(halting)},
        "detail": {"by_step": {"accuracy_b": [accuracy / 2, accuracy]},
                   "by_puzzle": {"rating": [0, 5, 5, 60], "first": [1, 2, 0, 0], "solved": [1, 1, 0, 0]}},
    }  # fmt: skip
    return {
        "arm": arm,
        "seed": seed,
        "key": f"{arm}{seed}",
        "status": status,
        "accuracy_b": accuracy,
        "nll_b": 0.1,
        "cells_b": 0.9,
        "record": record,
    }


ACCURACY = [0.80, 0.82, 0.78, 0.81, 0.79]


def frame(**arms):
    return pd.DataFrame([row(arm.replace("_", " "), s, a) for arm, values in arms.items() for s, a in enumerate(values)])


def test_shares_are_compared_in_points():
    df = frame(TRM=ACCURACY, random_starts=[a - 0.1 - 0.001 * i for i, a in enumerate(ACCURACY)])
    e = compare.effect(df, "random starts", "TRM", "accuracy_b")
    assert e.estimate == pytest.approx(-0.102) and compare.change(e, "accuracy_b").startswith("−10.2 points [")
    table = compare.primary(df, [("random starts", "TRM", "starts"), ("TRM", "no EMA", "averages")], "accuracy_b")
    assert compare.reading(table.iloc[0]) == "random starts is worse" and compare.reading(table.iloc[1]) == "pending"
    same = compare.primary(frame(TRM=ACCURACY, random_starts=[a + 0.004 + 0.001 * i for i, a in enumerate(ACCURACY)]),
                           [("random starts", "TRM", "starts")], "accuracy_b")  # fmt: skip
    assert compare.reading(same.iloc[0]) == "the same within ±2 points"


def test_halting_steps_over_the_whole_training_and_at_its_end():
    df = pd.DataFrame([row("TRM", s, 0.8, halting=(None, 6, 4, 2 + s / 10)) for s in range(5)])
    whole, late, most = report.halting_steps(df)
    # 12 slot-steps a block: 2, 3 and 12 / (2 + s / 10) puzzles go through the blocks, 36 steps in all
    by_hand = [36 / (2 + 3 + 12 / (2 + s / 10)) for s in range(5)]
    assert whole.estimate == pytest.approx(np.mean(by_hand)) and late.estimate == pytest.approx(2.2) and most == 8
    assert report.halting_steps(df[df.seed < 4]) is None


def recorded(answers):
    """Evaluations `budget` and `longer` of two seeds with 2 puzzles: (steps, starts, puzzles) of answers that are right, NaN: not measured;
    the halting head is always right about them."""
    answers = np.array(answers, float)
    steps, starts = [8, 16, 32][: len(answers)], [2**i for i in range(answers.shape[1].bit_length())]

    def rows(row, rule):
        k = int(np.isfinite(row[:, 0]).sum())
        pick = (lambda g: g[0]) if rule == "residual" else lambda g: g.max(0)  # residual: always the first
        return [outcomes(*[pick(row[i : i + size]) for i in range(0, k, size)]) if size <= k else None for size in starts]

    return {"steps": steps, "starts": starts, "puzzles": 2} | {rule: [rows(r, rule) for r in answers] for rule in evaluations.RULES}


NAN = [float("nan")] * 2
EIGHT = [[1, 0], [0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [1, 1], [1, 1]]  # eight starts after 8 steps; the last four solve all
LATER = [[1, 0], [1, 0], [0, 1], [0, 1], *[NAN] * 4]  # the first four after 16 steps


def test_rows_are_compared_on_the_starts_that_both_have(monkeypatch):
    """The last four starts of the first row have no part in a difference from a row that lacks them."""
    rows = {("random starts", seed): recorded([EIGHT, LATER, [[1, 1], *[NAN] * 7]]) for seed in range(5)}
    monkeypatch.setattr(report, "evaluation_frame", lambda store, df, name: rows if name == "budget" else {})
    df = frame(random_starts=ACCURACY, TRM=ACCURACY)
    b = report.budgets(None, df, "random starts")
    assert (b["steps"], b["starts"], b["most"], b["puzzles"]) == ([8, 16, 32], [1, 2, 4, 8], [8, 4, 1], 2)
    assert report.solves(b, 8).mean() == pytest.approx(10 / 16) and report.solves(b, 8, among=4).mean() == pytest.approx(2 / 8)
    e = report.against(b, (16, 1), (8, 1))
    assert e.estimate == pytest.approx(4 / 8 - 2 / 8) and (e.n, e.articles) == (5, 2)  # not 4 / 8 less 10 / 16
    assert report.gains(b, 8)["8 starts, same steps"].estimate == pytest.approx(1 - 10 / 16)
    assert report.gains(b, 8)["4 times the steps"].estimate == pytest.approx(1 - 1 / 2)  # the one start that the last row has
    assert "4 times the steps rather than 4 starts" not in report.gains(b, 8)  # it has no four
    k, late, early, last, e, half = report.converging(b, 8)  # the last row with four starts: all of these four in both rows
    assert (k, late, early, last) == pytest.approx((4, 16, 1 - 2 / 8, 1 - 4 / 8)) and e.estimate == pytest.approx(last - early)
    assert half.estimate == pytest.approx(last - early / 2)
    assert report.converging(b, 16) is None
    starts, steps = when_report.sudoku_ways(None, df)  # the advice of chapter 06
    assert (starts[1], starts[2].estimate) == (8, pytest.approx(1 - 10 / 16)) and (steps[1], steps[2].estimate) == (4, pytest.approx(1 - 1 / 2))
    found = report.more_of_starts(b, 8)
    assert [e.estimate for e in found.values()] == pytest.approx([1 - 10 / 16, 0, (6 / 8 - 10 / 16) - 0])
    k, mean, low, high = report.best_of(b, 8)["confidence"]
    assert k.tolist() == [1, 2, 4, 8] and mean == pytest.approx([10 / 16, 6 / 8, 1, 1]) and (low <= mean).all() and (mean <= high).all()
    assert report.sample(b) == "5 seeds × 2 puzzles"
    assert report.best_of(b, 8)["residual"][1] == pytest.approx([10 / 16, 5 / 8, 3 / 4, 1 / 2])
    ways = report.ways(b, 8, 1000.0)
    assert [p[1] for p in ways["more steps"]] == [8e3, 16e3, 32e3] and [p[2] for p in ways["more steps"]] == pytest.approx(
        [1 / 2, 1 / 2, 1]
    )
    assert [p[1] for p in ways["more starts"]] == [8e3, 16e3, 32e3, 64e3]
    assert np.isnan(report.surface(b)).tolist() == [[False] * 4, [False, False, False, True], [False, True, True, True]]


def test_longer_thinking_is_judged_over_seeds_and_puzzles(monkeypatch):
    def row(seed):
        right = [[0, 0, 1, 1], [0, 1, 1, 1], [seed > 1, 1, 1, 1]]
        return {"steps": [4, 8, 16], "puzzles": 4, "right": outcomes(*right), "surely": outcomes([0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]),
                "spent": [2.0, 3.0, 3.0 + seed], "far": {"steps": [32], "puzzles": 2, "right": outcomes([1, 1])}}  # fmt: skip

    rows = {("TRM", seed): row(seed) for seed in range(5)}
    monkeypatch.setattr(report, "evaluation_frame", lambda store, df, name: rows if name == "longer" else {})
    df = frame(TRM=ACCURACY)
    steps, e = report.longer_gain(None, df)
    assert steps == 16 and e.estimate == pytest.approx(0.6 / 4) and (e.n, e.articles) == (5, 4)
    assert report.far_gain(None, df)[0] == 32 and report.far_gain(None, df)[1].estimate == pytest.approx(0.5)
    cost, spent = report.stopping(None, df)
    assert cost.estimate == pytest.approx(-0.25) and spent.estimate == 3
    assert report.longer(None, df, ["TRM"], puzzles=2)["TRM"][1] == pytest.approx([0, 0.5, 0.8])
    assert "stops too early" in words.stopping(None, df) or "open" in words.stopping(None, df)
    assert words.longer(None, df).startswith("TRM, 16 steps against the trained 8: +15.0 points")
    e = report.less_and_less(report.thought(None, df, "TRM"), 4)
    assert e.estimate == pytest.approx(0.25 - 0.15) and report.less_and_less(report.thought(None, df, "TRM"), 8) is None


def test_readings_count_false_discoveries():
    """Benjamini and Hochberg at 10 % over all rows that are recorded, and an interval on one side of 0."""
    e = lambda low, high, p: stats.Effect((low + high) / 2, low, high, p, 5, 0.95)  # noqa: E731

    def row(name, effect, sign=1, no="the opposite"):
        return {"observation": name, "measured": "", "effect": effect, "judged": effect, "sign": sign, "no": no}

    strong, weak = e(0.1, 0.3, 0.001), e(0.01, 0.4, 0.04)
    few = [row("strong", strong), row("weak", weak), row("down", strong, -1, "not seen"), row("waiting", None)]
    assert report.read(few).reading.tolist() == ["seen", "seen", "not seen", "open"]
    many = [row("weak", weak)] + [row(f"{i}", e(-1, 1, 0.9)) for i in range(4)]
    assert report.read(many).reading.tolist() == ["inconclusive"] * 5
    off = report.distance(stats.paired(np.array([2.5, 2.7, 2.6]), np.zeros(3)), 2)
    by_hand = stats.paired(np.array([2.5, 2.7, 2.6]), np.full(3, 2.0))
    assert (off.low, off.high, off.p) == pytest.approx((by_hand.low, by_hand.high, by_hand.p))


def test_calibration_counts_each_puzzle_once_a_line(monkeypatch):
    bins = lambda **at: {k: [at.get(f"b{i}", (0, None, None))[j] for i in range(10)] for j, k in enumerate(("count", "said", "solved"))}  # noqa: E731
    rows = [
        {"calibration": [bins(b1=(4, 0.1, 0.0))] * 7 + [bins(b9=(3, 0.9, 1.0), b5=(1, 0.5, 0.0))], "sure": bins(b6=(2, 0.6, 0.5 * s))}
        for s in (0, 1)
    ]
    monkeypatch.setattr(report, "singles", lambda *_: rows)
    monkeypatch.setattr(report, "trained_steps", lambda *_: 8)
    found = report.calibration(None, None, "TRM")
    assert list(found) == ["after step 1", "after step 8", "when first sure"]
    t, e = found["after step 8"]
    assert t.puzzles.tolist() == [2, 6] and t.solved.tolist() == [0, 1] and e.estimate == pytest.approx((2.7 + 0.5) / 4 - 0.75)
    assert found["when first sure"][1].estimate == pytest.approx(0.6 - 0.25)
    assert "after step 1 it says more than is true (+10.0 points" in words.calibration(None, None)


def test_puzzles_of_many_rounds_are_pooled(monkeypatch):
    of = lambda r, n, solved, reached, first: {"rounds": r, "puzzles": n, "solved": solved, "reached": reached, "first": first}  # noqa: E731
    rows = [
        {"difficulty": [of(2, 4, 1.0, 4, 1.0), of(3, 6, 1.0, 6, 1.5), of(7, 3, 1.0, 3, 4.0 + s), of(9, 1, 0.0, 0, None)]} for s in (0, 1)
    ]
    monkeypatch.setattr(report, "singles", lambda *_: rows)
    t = report.difficulty(None, None, "TRM")
    assert t.rounds.tolist() == [3, 7] and t.puzzles.tolist() == [10, 4]
    assert t.solved.iloc[1] == pytest.approx((0.75, 0.75, 0.75)) and t["first"].iloc[1][0] == pytest.approx(4.5)
    assert "3 rounds and fewer (10 puzzles): 100%" in words.difficulty(None, None)


def test_T_is_compared_with_the_other_numbers_at_the_same_share_of_their_widths():
    """At cpu T = 3, n = 2, N_sup = 8: half is T ± 1 and N_sup ± 4, all is T ± 2, n ± 1 and N_sup ± 7."""
    at = lambda v: [v + 0.001 * s for s in range(5)]  # noqa: E731
    arms = {
        "TRM": 0.8,
        "T ± 1": 0.85,
        "T ± 2": 0.9,
        "n ± 1": 0.7,
        "N_sup ± 2": 0.1,
        "N_sup ± 4": 0.8,
        "N_sup ± 7": 0.8,
        "T ± 2 (d=96)": 0.1,
    }
    df = pd.DataFrame([row(arm, s, a) for arm, v in arms.items() for s, a in enumerate(at(v))])
    for r in df.record:
        r["spec"]["model"] |= {"n": 2}
    assert report.T_brings_most(df).estimate == pytest.approx((0.05 + 0.1) / 2)  # N_sup comes closest, and none drawn
    worse = df.assign(accuracy_b=df.accuracy_b.where(df.arm != "TRM", df.accuracy_b + 0.15))
    assert report.T_brings_most(worse).estimate == pytest.approx((-0.1 - 0.05) / 2)  # the best number loses to none
    assert report.T_brings_most(df[df.arm != "n ± 1"]).estimate == pytest.approx(0.05)
    assert report.T_brings_most(df[df.arm == "TRM"]) is None
    assert report.wider(df).estimate == pytest.approx((0.05 + 0.7) / 2)  # n has one width
    drawn = report.randomised(None, df[:0], "cpu")
    assert drawn.accuracy.isna().all() and sorted(set(drawn.d)) == [32, 64, 96]
    assert drawn[(drawn.number == "T") & (drawn.d == 64)].half.tolist() == [0, 1, 2] and drawn[
        (drawn.number == "n") & (drawn.d == 96)
    ].half.tolist() == [0, 1]


def test_no_deep_supervision_is_scored_after_the_trms_steps_too():
    df = frame(TRM=ACCURACY, no_deep_supervision=[a - 0.2 for a in ACCURACY])
    for r, arm, s in zip(df.record, df.arm, df.seed, strict=True):
        r["detail"]["by_step"]["accuracy_b"] = [0.1] * 7 + [0.6 + s / 100 if arm == "TRM" else 0.5]
    rows = {r["name"]: r["effect"] for r in report.ablations(df, "cpu")}
    assert rows["no deep supervision"].estimate == pytest.approx(-0.2) and rows["… after the TRM's steps"].estimate == pytest.approx(-0.12)
    for r in df.record:
        r["spec"]["model"]["n_sup"] = 1 if r["detail"]["by_step"]["accuracy_b"][-1] == 0.5 else 8
    further, e = report.scored_gain(df, "no deep supervision")
    assert further == 8 and e.estimate == pytest.approx(0.4) and e.n == 5 and report.scored_gain(df[:0]) == (None, None)
    first, last, steps, e = report.single_step(df)
    assert (first, last, steps) == (pytest.approx(0.1), 0.5, 8) and e.estimate == pytest.approx(0.4)
    assert "10% after it, and with the TRM's 8 steps at test time, the same weights, 50%" in words.single_step(df)
    assert "still worse than the TRM" in words.single_step(df) and words.single_step(df[df.arm == "TRM"]) == ""


def test_speed_in_words(tmp_path):
    said = words.speed()
    assert "met for mixing over positions" in said and "missed for attention" in said
    (tmp_path / "b.md").write_text("## Chapter 05\n| attention | 1 s | 1 s | 1.9 (1.8) | 1 s | 2.0 (1.4) |\n")
    assert words.speed(tmp_path / "b.md").endswith("missed for attention (2.0×, medians 1.4×).")
    assert words.fast().startswith("The arm `fast` (d = 512") and "an estimate" in words.fast()
    df = frame(TRM=ACCURACY)
    assert report.minutes(df, ["TRM"]) == {}
    for r in df.record:
        r |= {"curve_seconds": [60.0, 120.0]}
        r["curve"]["accuracy"] = [0.5, 0.6 + r["seed"] / 100]
    clock, mean, *_ = report.minutes(df, ["TRM"])["TRM"]
    assert clock.tolist() == [1, 2] and mean == pytest.approx([0.5, 0.62])


def test_an_interval_of_shares_ends_at_zero_and_one():
    mean, low, high = report.shares(np.array([[0.0, 0.9, 0.5], [0.1, 1.0, 0.5]]))
    assert mean == pytest.approx([0.05, 0.95, 0.5]) and low[0] == 0 and high[1] == 1 and low[2] == high[2] == 0.5


def test_correlation_is_taken_within_configurations():
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    table = pd.DataFrame([
        {"arm": arm, "seed": s, "y": x[s], "z": -x[s], "prediction": x[s] + shift, "accuracy": x[s] + (0.01 if s % 2 else -0.01) - 5 * shift}
        for arm, shift in (("a", 0.0), ("b", 1.0)) for s in range(5)
    ])  # fmt: skip
    found, drawn = report.correlations(table), report.within(table)
    assert drawn.groupby("arm").y.mean().tolist() == pytest.approx([0, 0]) and drawn.groupby(
        "arm"
    ).accuracy.std().tolist() == pytest.approx([1, 1])
    assert found["y"].estimate == pytest.approx(drawn.y.corr(drawn.accuracy))  # of just the points that the figure shows
    centred = np.array([0.01 if s % 2 else -0.01 for s in range(5)])
    r = np.corrcoef(x, x + centred)[0, 1]
    assert found["prediction"].estimate == pytest.approx(r) == -found["z"].estimate  # between the arms it would be negative
    z, half = math.atanh(r), 1.959964 / math.sqrt(10 - 2 - 2)
    assert (found["y"].low, found["y"].high) == pytest.approx((math.tanh(z - half), math.tanh(z + half)))
    assert report.correlations(table[:4]) == {}
    wide = table.assign(
        accuracy=table.accuracy.where(table.arm == "a", 10 * table.accuracy)
    )  # an arm whose seeds scatter more counts no more
    assert report.correlations(wide)["y"].estimate == pytest.approx(r)


def test_rating_bands_and_pending_chapter():
    df = frame(TRM=ACCURACY)
    bands = report.by_rating(df, "TRM").set_index("rating")
    assert bands.solved.tolist() == [1.0, 0.5, 0.0] and bands["first"]["1–10"] == 2 and bands.index.tolist() == ["0", "1–10", "> 50"]
    nothing = df[:0]
    assert (
        report.halting_steps(nothing) is None
        and report.by_step(nothing, ["TRM"]) == {}
        and report.longer(Store("/nowhere"), nothing, ["TRM"]) == {}
    )


# trm keep, trm solve


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A kept, untrained model of the smoke profile."""
    run = next(r for r in experiment.grid("smoke") if r.arm == "TRM")
    model = experiment.build(run.spec)
    from safetensors.torch import save

    about = {"hash": run.spec.hash, "experiment": "sudoku", "arm": "TRM", "profile": "smoke", "seed": 0, "metrics": {}, "steps": 0}
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    write_atomically(
        tmp_path / "sudoku.safetensors", save({n: p.detach() for n, p in model.named_parameters()}, {"trm": json.dumps(about)})
    )
    return model


PUZZLE = sudoku.show_line(sudoku.load(sudoku.SudokuConfig("easy-4", 8, 4, 4)).test.x[0])


def test_solve_goes_pass_by_pass_as_the_model_does(kept, capsys):
    (name, puzzle, target), *_ = solve.boards_of(PUZZLE)
    found = solve.solve(puzzle, 3)
    states, board = kept.start(1), torch.as_tensor(puzzle)[None]
    for step in found:
        logits, halting, states = kept(board, states)
        assert step["digits"] == (logits[0, :, 1:5].argmax(-1) + 1).tolist() and step["sure"] == pytest.approx(halting.sigmoid().item())
        assert step["confidence"] == pytest.approx(log_softmax(logits[0, :, 1:5], "stablemax").exp().max(-1).values.tolist(), abs=1e-3)
    assert cli.main(["solve", PUZZLE, "--steps", "2"]) == 1
    text = capsys.readouterr().out
    assert "step 1 of 2: " in text and "% sure" in text and "not solved; the solution is" in text
    assert cli.main(["solve", PUZZLE, "--steps", "2", "--json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert len(result["steps"]) == 2 and not result["solved"]
    assert GridConfig().n_sup == 16 and len(solve.solve(puzzle)) == kept.config.n_sup


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("12", "the puzzle has 2 cells, expected 81 (9×9), 36 (6×6) or 16 (4×4)"),
        ("11" + "." * 14, "the puzzle breaks a rule: 1 stands 2 times in row 1"),
        ("." * 16, "the puzzle has more than one solution: "),
        ("x" + "." * 15, "the puzzle has 'x' at row 1, column 1; use 1 … 4"),
        ("puzzles/hard.csv", "there is no file 'puzzles/hard.csv', and a puzzle is 81 characters: digits, and . or 0 for a blank"),
        ("." * 36, "the puzzle has more than one solution: "),
    ],
)
def test_bad_puzzles_are_one_line(kept, capsys, argument, message):
    assert cli.main(["solve", argument]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_bad_checkpoints_are_one_line(kept, tmp_path):
    with pytest.raises(TrmError, match="no checkpoint .*; `trm keep RUN other` makes it"):
        checkpoints.load("other")
    with pytest.raises(TrmError, match="checkpoint 'sudoku' solves boards of 4×4"):
        solve.solve(np.zeros(81, int))
    path = tmp_path / "sudoku.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrmError, match="is damaged"):
        checkpoints.load("sudoku")
    with pytest.raises(TrmError, match="weights of run x are not in the cache"):
        checkpoints.keep(Store(tmp_path / "r"), "x", "y")
