"""Chapter 05: choices among answers, budgets of steps and starts, what a step does, the write-up's observations, `trm solve`."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from trmlib import checkpoints, cli, compare, solve
from trmlib.data import sudoku
from trmlib.errors import TrmError
from trmlib.experiments import sudoku as experiment
from trmlib.experiments import sudoku_evaluations as evaluations
from trmlib.experiments import sudoku_report as report
from trmlib.models.grid import GridConfig, log_softmax
from trmlib.runs import Store, write_atomically

EXPERIMENTS = ("sudoku",)
SMALL = {16: 4, 32: 2, 64: 1}  # steps → starts


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
        answer = self.targets.clone()
        answer[:, :1] = torch.where(right, answer[:, :1], answer[:, :1] % 4 + 1)
        logits = 5.0 * torch.nn.functional.one_hot(answer, 5)
        return logits, (2 * (y + 1 >= z).float() - 1)[0, :, 0], (y, z)


@pytest.fixture
def scripted(monkeypatch):
    data = sudoku.load(sudoku.SudokuConfig("easy-4", 8, 4, 20))
    task = SimpleNamespace(puzzles=data, device=torch.device("cpu"), config=Scripted.config)
    monkeypatch.setattr(evaluations, "STARTS", SMALL)
    return task, Scripted(data.test.y.long())


def test_choices_among_answers_by_hand():
    target = sudoku.load(sudoku.SudokuConfig("easy-4", 8, 4, 4)).test
    x, y = target.x.long()[:1], target.y.long()[:1]
    wrong, other = y.clone(), y.clone()
    wrong[0, 0], other[0, 5] = y[0, 0] % 4 + 1, y[0, 5] % 4 + 1
    moved, sure = torch.tensor([[3.0], [2.0], [1.0], [4.0]]), torch.tensor([[0.0], [1.0], [2.0], [0.5]])
    boards = torch.stack([y, y, wrong, other])
    assert evaluations.choose(boards, sure, moved, x, y) == {
        "confidence": 0.0, "cell vote": 1.0, "puzzle vote": 1.0, "residual": 0.0, "any": 1.0, "rules": 1.0,
    }  # fmt: skip
    tie = evaluations.choose(boards[1:3], sure[1:3], moved[1:3], x, y)
    assert tie["puzzle vote"] == 0.0  # one vote each: the surer one, which is wrong
    none = evaluations.choose(boards[2:], sure[2:], moved[2:], x, y)
    assert none["any"] == none["rules"] == 0.0 and none["cell vote"] in (0.0, 1.0)


def test_a_budget_is_what_its_starts_solve(scripted):
    task, model = scripted
    found = evaluations.budget(task, model)
    b = len(task.puzzles.test)
    generator = torch.Generator().manual_seed(0)
    when = torch.stack([model.start(b, noise=True, generator=generator)[1][0, :, 0] for _ in range(4)])  # (k, b)
    assert found["steps"] == [1, 2, 4, 8, 16, 32, 64] and found["starts"] == [1, 2, 4]
    for i, step in enumerate(found["steps"]):
        k = 4 if step <= 16 else 2 if step <= 32 else 1
        right = (when[:k] <= step).float()
        assert found["one"][i] == pytest.approx(right.mean().item())
        for column, size in enumerate(found["starts"]):
            if size > k:
                assert found["any"][i][column] is None
                continue
            groups = right.view(k // size, size, b)
            assert found["any"][i][column] == found["rules"][i][column] == pytest.approx(groups.amax(1).mean().item())
            sure = (when[:k].view(k // size, size, b) <= step + 1).float()
            first = sure.argmax(1, keepdim=True)  # the first of the surest
            assert found["confidence"][i][column] == pytest.approx(groups.gather(1, first).mean().item())
    assert model.asked == b * (4 * 16 + 2 * 16 + 1 * 32)


def test_longer_thinking_and_stopping_when_sure(scripted):
    task, model = scripted
    found = evaluations.longer(task, model)
    assert found["accuracy"] == [0, 0, 0, 1, 1, 1, 1] and found["steps"] == [1, 2, 4, 8, 16, 32, 64]  # right from step 5 on
    assert found["surely"] == [0] * 7  # sure a step too early, at step 4
    assert found["spent"] == [1, 2, 4, 4, 4, 4, 4]


def test_harder_puzzles_are_told_apart_by_rounds(scripted, monkeypatch):
    task, _ = scripted
    task.spec = SimpleNamespace(data=SimpleNamespace(corpus="easy-4"))
    monkeypatch.setattr(evaluations, "HARDER", {"easy-4": "easy-4"})
    monkeypatch.setattr(evaluations, "HARDER_PUZZLES", 12)
    beyond = sudoku.load(sudoku.SudokuConfig("easy-4", 1, 1, 12)).test
    needed = torch.cat([p.rounds().max(1).values for p in (task.puzzles.test[:12], beyond)])
    model = Scripted(torch.cat([task.puzzles.test.y[:12], beyond.y]).long())
    model.start = lambda b, generator: (torch.zeros(1, b, 1), 4.0 * needed[None, :, None])  # a puzzle of r rounds takes 4 r steps
    found = evaluations.harder(task, model)
    assert found["steps"] == [1, 2, 4, 8, 16, 32, 64] and found["trained"] == int(np.quantile(task.puzzles.train.rounds().amax(1), 0.99))
    assert found["rounds"] == sorted(set(needed.tolist())) and sum(found["puzzles"]) == 24
    assert found["accuracy"] == [[float(s >= 4 * r) for s in found["steps"]] for r in found["rounds"]]


def test_harder_puzzles_and_more_steps_over_seeds(monkeypatch):
    cells = lambda gain: [[0.9, 0.9, 0.9], [0.5, 0.6, 0.6 + gain], [0.1, 0.2, 0.2 + gain]]  # noqa: E731, rounds 3, 5, 6 by steps
    rows = [{"steps": [4, 8, 16], "rounds": [3, 5, 6], "puzzles": [9, 3, 1], "trained": 3, "accuracy": cells(g)} for g in (0.1, 0.2)]
    monkeypatch.setattr(report, "singles", lambda *_: rows)
    monkeypatch.setattr(report, "trained_steps", lambda *_: 8)
    rounds, steps, accuracy, trained, gain = report.harder(None, None)
    assert (rounds.tolist(), steps.tolist(), trained) == ([3, 5, 6], [4, 8, 16], 3)
    assert accuracy[2] == pytest.approx([0.1, 0.2, 0.35]) and gain.estimate == pytest.approx(0.15) and gain.n == 2
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
    assert whole.estimate == pytest.approx((6 + 4 + 2.2) / 3) and late.estimate == pytest.approx(2.2) and most == 8
    assert report.halting_steps(df[df.seed < 4]) is None


def test_more_steps_against_more_starts(monkeypatch):
    steps, starts = [1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4]
    rng = np.random.default_rng(0)
    results = {}
    for seed in range(5):
        one = [0.1 * (i + 1) + 0.001 * rng.normal() for i in range(8)]
        sure = [[v, v + 0.02, v + 0.03] if i < 5 else [v, None, None] for i, v in enumerate(one)]
        results["random starts", seed] = {"steps": steps, "starts": starts, "one": one, **dict.fromkeys(evaluations.RULES, sure)}
    monkeypatch.setattr(report, "evaluation_frame", lambda store, df, name: results if name == "budget" else {})
    df = frame(random_starts=ACCURACY, TRM=ACCURACY)
    b = report.budgets(None, df, "random starts")
    gains = report.gains(b, 8)
    assert gains["4 starts, same steps"].estimate == pytest.approx(0.03)
    assert gains["16 times the steps"].estimate == pytest.approx(0.4, abs=0.005)
    assert gains["4 times the steps rather than 4 starts"].estimate == pytest.approx(0.2 - 0.03, abs=0.005)
    k, mean, low, high = report.best_of(b, 8)["confidence"]
    assert k.tolist() == [1, 2, 4] and mean[2] == pytest.approx(0.43, abs=0.002) and (low < mean).all() and (mean < high).all()
    ways = report.ways(b, 8, 1000.0)
    assert [p[1] for p in ways["more steps"]] == [1000.0 * s for s in steps] and [p[1] for p in ways["more starts"]] == [8e3, 16e3, 32e3]
    seen = report.observations(None, df).set_index("observation").reading
    assert seen["steps pay more than starts"] == seen["more supervision steps at test time raise accuracy"] == "seen"
    assert seen["path independence goes with accuracy"] == "open" and seen["random starts lower accuracy"] == "inconclusive"


def test_correlation_is_taken_within_configurations():
    x = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    table = pd.DataFrame([
        {"arm": arm, "seed": s, "y": x[s], "z": -x[s], "prediction": x[s] + shift, "accuracy": x[s] + (0.01 if s % 2 else -0.01) - 5 * shift}
        for arm, shift in (("a", 0.0), ("b", 1.0)) for s in range(5)
    ])  # fmt: skip
    found = report.correlations(table)
    centred = np.array([0.01 if s % 2 else -0.01 for s in range(5)])
    r = np.corrcoef(x, x + centred)[0, 1]
    assert found["prediction"].estimate == pytest.approx(r) == -found["z"].estimate  # between the arms it would be negative
    z, half = math.atanh(r), 1.959964 / math.sqrt(10 - 2 - 2)
    assert (found["y"].low, found["y"].high) == pytest.approx((math.tanh(z - half), math.tanh(z + half)))
    assert report.correlations(table[:4]) == {}


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
