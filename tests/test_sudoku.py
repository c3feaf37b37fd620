"""Sudoku: slots that halt and take the next puzzle, the loss, what is drawn, the optimiser, resuming, and learning."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trmlib import bench
from trmlib.bench import throughput
from trmlib.data.sources import CORPORA
from trmlib.data.sudoku import valid
from trmlib.errors import TrmError
from trmlib.experiments import affordable, sudoku
from trmlib.experiments.sudoku import Task, score, shuffled
from trmlib.models.grid import steps
from trmlib.optim import Muon, optimizer_of, orthogonalised
from trmlib.runs import Store, TrainConfig
from trmlib.train import Weights, costs, step, train

EXPERIMENTS = ("sudoku",)
NUMBERS = ("metrics", "detail", "curve", "status", "steps", "train_flops", "inference_flops", "parameters", "serial_depth")


def smoke(arm="TRM", data=None, model=None, seed=0, **fields):
    """The first smoke spec of an arm, some of its fields replaced."""
    s = next(r.spec for r in sudoku.grid("smoke") if r.arm == arm)
    return replace(
        s, data=replace(s.data, **data or {}), model=replace(s.model, **model or {}), train=replace(s.train, **fields), seed=seed
    )


def numbers(records):
    return [{k: r[k] for k in NUMBERS} for r in records]


# The grid


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full"])
def test_grid(profile):
    runs = sudoku.grid(profile)
    assert len({r.spec.hash for r in runs}) == len(runs)
    seeds = 2 if profile == "smoke" else 5
    assert all(sum(r.arm == arm for r in runs) == seeds for arm in {r.arm for r in runs})
    assert [r.priority for r in runs] == sorted(r.priority for r in runs)
    assert runs[0].arm.startswith("TRM")


def test_the_full_profile_is_the_papers():
    spec = next(r.spec for r in sudoku.grid("full") if r.arm == "padded")
    assert spec.model == sudoku.GridConfig() and (spec.data.corpus, spec.data.train) == ("sudoku-hard", 1000)
    t = spec.train
    assert (t.batch, t.lr, t.warmup, t.weight_decay, t.beta2, t.ema, t.clip, t.optimizer) == (
        768,
        1e-4,
        2000,
        1.0,
        0.95,
        0.999,
        0.0,
        "adamw",
    )
    assert t.steps * t.batch == pytest.approx(50_000 * 1000, rel=0.01)  # 50,000 epochs


def test_the_real_set_is_one_setting_away(monkeypatch):
    monkeypatch.setattr(sudoku, "CORPUS", "sudoku-extreme")
    assert {r.spec.data.corpus for r in sudoku.grid("full")} == {"sudoku-extreme"}
    assert "sudoku-extreme" in CORPORA and {r.spec.data.corpus for r in sudoku.grid("cpu")} == {"easy-9"}


def test_arms_have_the_same_names_in_every_profile():
    cpu, full = ({r.arm: r.spec.model for r in sudoku.grid(p)} for p in ("cpu", "full"))
    assert {"T = 1", "n = 1", "T = n = 2", "twice n", "twice T"} <= cpu.keys() & full.keys()
    assert (full["twice T"].T, full["twice T"].n, cpu["twice T"].T, cpu["twice T"].n) == (6, 6, 6, 2)


def test_flops_of_a_step_without_a_corpus():
    for fields in ({}, {"curriculum": True, "n": 4, "T": 3}, {"padding": 4, "blocks": 1}):
        spec = smoke(model=fields)
        task = Task(spec)
        counted = costs(task, spec, Weights([task.model()], "cpu"), "cpu")[0]
        assert sudoku.step_flops(spec, n=4) == pytest.approx(counted, rel=1e-3)


def test_widths_keep_the_uniforms_positive():
    assert [sudoku.widths(k) for k in (1, 2, 3, 6, 16)] == [[], [1], [1, 2], [2, 3, 5], [4, 8, 15]]


# Slots


class Scripted:
    """Stands for a model: calls give the logits that make `right` boards right and `halting` logits; notes what it was asked."""

    def __init__(self, task, right, halting):
        self.task, self.right, self.halting, self.asked = task, iter(right), iter(halting), []

    def __call__(self, boards, states, fresh, n, T):
        b = len(boards)
        self.asked.append((boards.clone(), None if fresh is None else fresh.tolist(), n, T))
        y = torch.full((16, b, 1), float(len(self.asked)))
        answers = torch.stack([self.task.answer[tuple(x.tolist())] for x in boards])
        wrong = torch.where(torch.tensor(next(self.right))[:, None], answers, answers % 4 + 1)
        return 9.0 * F.one_hot(wrong, 5).float(), torch.tensor(next(self.halting)), (y, 10 * y)


def batch(task, rows, limit=3, least=0):
    x, y = (v[rows].long() for v in task.train[:2])
    task.answer = getattr(task, "answer", {}) | {tuple(a.tolist()): b for a, b in zip(x, y, strict=True)}
    full = lambda v: torch.tensor(v).expand(len(rows)).clone()  # noqa: E731
    return {"boards": x, "targets": y, "limit": full(limit), "least": full(least), "n": 2, "T": 2}


def test_a_slot_keeps_its_puzzle_until_it_halts_and_then_takes_the_next():
    task = Task(smoke())
    batches = [batch(task, [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3], least=[0, 0, 0, 3]) for i in range(5)]
    net = Scripted(
        task,
        right=[[True, False, False, True]] * 5,
        halting=[[1.0, -1.0, 1.0, 1.0]] * 5,  # slot 2 halts although wrong, slot 3 must explore to its third step
    )
    carry, taken, kept = None, [], []
    for b in batches:
        _, carry = task.loss(net, b, carry)
        taken.append(carry["taken"].tolist())
        kept.append([next(i for i, other in enumerate(batches) if (other["boards"] == x).all(1).any()) for x in net.asked[-1][0]])
    assert taken == [[1, 1, 1, 1], [1, 2, 1, 2], [1, 3, 1, 3], [1, 1, 1, 1], [1, 2, 1, 2]]
    assert kept == [[0, 0, 0, 0], [1, 0, 1, 0], [2, 0, 2, 0], [3, 3, 3, 3], [4, 3, 4, 3]]
    assert [a[1] for a in net.asked] == [
        None,
        [True, False, True, False],
        [True, False, True, False],
        [True] * 4,
        [True, False, True, False],
    ]
    # left: slots 0 and 2 five times after 1 step, slots 1 and 3 once after 3; right: slots 0 and 3; the head is right there and in slot 1
    assert task.progress(carry, 0) == {"halting_steps": 16 / 12, "train_accuracy": 6 / 12, "halting_right": 7 / 12}
    assert task.progress(carry, 0) == {"halting_steps": None, "train_accuracy": None, "halting_right": None}
    assert carry["y"].unique().tolist() == [5.0] and carry["z"].unique().tolist() == [50.0]


def test_the_loss_by_hand():
    """Mean over all cells, the givens among them, plus half the halting head's cross-entropy against "all cells are right"."""
    task = Task(smoke())
    b = batch(task, [0, 1])
    net = Scripted(task, right=[[True, False]], halting=[[0.3, -0.2]])
    loss, _ = task.loss(net, b, None)
    s = {9: 10.0, 0: 1.0}  # stablemax
    right, wrong = -math.log(s[9] / 14), -math.log(s[0] / 14)
    halting = (math.log(1 + math.exp(-0.3)) + math.log(1 + math.exp(-0.2))) / 2
    assert loss.item() == pytest.approx((right + wrong) / 2 + 0.5 * halting, rel=1e-5)


def test_milestones_ask_for_the_cells_that_have_fallen():
    task = Task(smoke("milestones"))
    row = int(task.train[2].max(1)[0].argmax())  # the puzzle with the most rounds
    b = batch(task, [row]) | {"rounds": task.train[2][[row]].long()}
    asked = []

    def net(boards, states, fresh, n, T):
        logits = torch.zeros(1, 16, 5, requires_grad=True)
        asked.append(logits)
        return logits, torch.tensor([-1.0]), (torch.zeros(16, 1, 1), torch.zeros(16, 1, 1))

    carry = None
    for k in (1, 2, 3):
        loss, carry = task.loss(net, b, carry)
        cells = torch.autograd.grad(loss, asked[-1])[0][0].abs().sum(-1) > 0
        assert torch.equal(cells, b["rounds"][0] <= k if k < 3 else torch.ones(16, dtype=torch.bool))  # the last step: all
    assert (b["rounds"][0] == 0).equal(b["boards"][0] > 0) and b["rounds"].max() > 1


# What is drawn


def test_batches_are_symmetric_copies_of_the_training_puzzles_in_shuffled_order():
    task = Task(smoke(steps=20, eval_every=10))
    first, second = task.batches(3, 0, 10), task.batches(3, 1, 10)
    assert torch.equal(task.batches(3, 1, 10)[4]["boards"], second[4]["boards"])  # follows from (seed, block)
    assert not torch.equal(first[0]["boards"], second[0]["boards"]) and not torch.equal(
        task.batches(4, 0, 10)[0]["boards"], first[0]["boards"]
    )
    for b in (*first, *second):
        assert valid(b["targets"]).all() and ((b["boards"] == 0) | (b["boards"] == b["targets"])).all()
        assert (
            b["n"] == 2 and b["T"] == 2 and (b["limit"] == 4).all() and ((b["least"] == 0) | ((b["least"] >= 2) & (b["least"] <= 4))).all()
        )
    givens = lambda boards: sorted((boards > 0).sum(1).tolist())  # noqa: E731
    assert givens(torch.cat([b["boards"] for b in first[:5]])) == givens(task.train[0])  # 5 × 8: each puzzle once


def test_the_order_goes_on_across_blocks():
    whole = shuffled(7, 0, 0, 30)
    assert sorted(whole[:7]) == sorted(whole[7:14]) == list(range(7)) and list(whole[:7]) != list(whole[7:14])
    assert np.array_equal(np.concatenate([shuffled(7, 0, 0, 11), shuffled(7, 0, 11, 19)]), whole)


def test_uniforms_cover_their_width_and_are_the_same_for_all_seeds():
    task = Task(smoke(model={"n": 3, "n_width": 2, "T": 2, "T_width": 1, "n_sup_width": 3}, steps=400, eval_every=400))
    batches = task.batches(0, 0, 400)
    for name, values in {"n": {1, 2, 3, 4, 5}, "T": {1, 2, 3}}.items():
        drawn = [b[name] for b in batches]
        assert set(drawn) == values and np.mean(drawn) == pytest.approx(np.mean(list(values)), abs=0.2)
    limits = torch.cat([b["limit"] for b in batches])
    assert set(limits.tolist()) == set(range(1, 8)) and limits.float().mean().item() == pytest.approx(4, abs=0.2)
    other = task.batches(1, 0, 400)
    assert [(b["n"], b["T"]) for b in other] == [(b["n"], b["T"]) for b in batches]


def test_the_curriculum_takes_a_third_of_the_training_each():
    task = Task(smoke("curriculum", model={"n": 6, "T": 3}, steps=30, eval_every=10))
    got = [(b["n"], b["T"]) for block in range(3) for b in task.batches(0, block, 10)]
    assert got == [(2, 1)] * 10 + [(4, 2)] * 10 + [(6, 3)] * 10


def test_counted_costs():
    """A net call costs the same wherever it stands: T (n + 1) forward, and twice that backward for the last recursion."""
    spec = smoke()
    count = lambda **fields: costs(task := Task(smoke(model=fields)), task.spec, Weights([task.model()], "cpu"), "cpu")  # noqa: E731
    one, depth, inference = count(n=1, T=1)
    two, deeper, more = count(n=3, T=2)
    assert (depth, deeper) == (2 * 2 * 4, 2 * 8 * 4)  # blocks × calls × N_sup
    call = (count(n=1, T=2)[0] - one) / 2
    assert two == pytest.approx(one + call * (6 + 2 * 2), rel=1e-3)
    assert more == pytest.approx(inference + 4 * 6 * call / spec.train.batch, rel=1e-3)
    thirds = [count(n=n, T=T)[0] for n, T in ((1, 1), (2, 2), (3, 2))]
    assert count(n=3, T=2, curriculum=True)[0] == pytest.approx(sum(thirds) / 3, abs=1)
    assert count(n=3, T=2, n_width=2, T_width=1)[0] == two


# The optimiser


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_muon_equals_torchs_on_a_matrix_and_adamw_on_the_rest(shape):
    torch.manual_seed(0)
    matrix, vector = torch.nn.Parameter(torch.randn(shape)), torch.nn.Parameter(torch.randn(7))
    w = torch.nn.Parameter(torch.cat([matrix.detach().flatten(), vector.detach()])[None])
    views = lambda flat: {"m": flat[:, :60].view(-1, *shape), "v": flat[:, 60:]}  # noqa: E731
    ours = Muon(w, views, ["m"], lr=0.02, beta2=0.95, weight_decay=0.1)
    theirs = [torch.optim.Muon([matrix], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
              torch.optim.AdamW([vector], lr=0.02, betas=(0.9, 0.95), weight_decay=0.1)]  # fmt: skip
    for _ in range(4):
        w.grad = torch.randn_like(w)
        matrix.grad, vector.grad = w.grad[0, :60].view(shape).clone(), w.grad[0, 60:].clone()
        for o in (ours, *theirs):
            o.step()
        torch.testing.assert_close(w.detach()[0, 60:], vector.detach())
        torch.testing.assert_close(w.detach()[0, :60].view(shape), matrix.detach(), atol=2e-3, rtol=0)  # bf16; steps are 0.014


def test_orthogonalised_matrices_have_singular_values_near_one():
    x = torch.randn(2, 3, 20, 8, generator=torch.Generator().manual_seed(0))
    s = torch.linalg.svdvals(orthogonalised(x))
    assert s.shape == (2, 3, 8) and 0.6 < s.min() < s.max() < 1.3


def test_each_seed_is_updated_alone():
    task = Task(smoke())
    models = [task.model() for _ in range(2)]
    both, alone = Weights(models, "cpu"), Weights([models[1]], "cpu")
    for weights, rows in ((both, [0, 1]), (alone, [1])):
        weights.w.grad = torch.randn(2, both.w.shape[1], generator=torch.Generator().manual_seed(0))[rows]
        optimizer_of(task.spec.train, weights).step()
    torch.testing.assert_close(both.w[1], alone.w[0])


def test_a_model_that_muon_does_not_know_is_one_line():
    with pytest.raises(TrmError, match="^optimizer='muon' needs a model that names its hidden matrices; Linear does not$"):
        optimizer_of(TrainConfig(optimizer="muon"), Weights([torch.nn.Linear(2, 2)], "cpu"))


# Training


@pytest.mark.parametrize("arm", ["TRM", "half the entries", "T and N_sup", "AdamW"])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, arm):
    """Slots, their states and puzzles go on where they stopped."""
    spec = smoke(arm, steps=12, eval_every=4)
    whole = train(Task(spec), [spec], Store(tmp_path / "whole" / "results"))
    store, parts, calls = Store(tmp_path / "parts" / "results"), None, 0
    while parts is None:
        parts, calls = train(Task(spec), [spec], store, deadline=0), calls + 1
    assert calls == 3 and numbers(parts) == numbers(whole)
    clock = parts[0]["curve_seconds"]
    assert len(clock) == 3 and clock == sorted(clock) and clock[-1] <= parts[0]["seconds"]
    assert whole[0]["curve"]["halting_steps"][-1] is not None


@pytest.mark.parametrize("arm", ["TRM", "attention", "T and N_sup"])
def test_two_seeds_at_once_agree_with_each_alone(tmp_path, arm):
    specs = [smoke(arm, steps=8, eval_every=4, seed=s) for s in (0, 1)]
    together = train(Task(specs[0]), specs, Store(tmp_path / "both" / "results"))
    for spec, record in zip(specs, together, strict=True):
        (alone,) = train(Task(spec), [spec], Store(tmp_path / str(spec.seed) / "results"))
        assert record["hash"] == alone["hash"] == spec.hash and record["train_flops"] == alone["train_flops"]
        for name in ("train_loss", "nll", "halting_steps"):
            assert record["curve"][name] == pytest.approx(alone["curve"][name], rel=1e-2)


def test_it_learns_eight_boards_by_heart(store):
    spec = smoke(data={"train": 8}, model={"d": 32, "T": 1, "n_sup": 3}, steps=1)
    task = Task(spec)
    torch.manual_seed(0)
    weights = Weights([task.model()], "cpu")
    optimizer, carry = optimizer_of(replace(spec.train, lr=5e-3), weights), None
    fixed = {"boards": task.train[0], "targets": task.train[1], "limit": torch.full((8,), 3), "least": torch.full((8,), 3), "n": 2, "T": 1}
    for _ in range(150):
        _, carry = step(task, spec, weights, optimizer, fixed, None, carry)
    scores = score(weights.model, task.puzzles.train, 3)
    assert scores["accuracy"][-1].mean() == 1 and scores["halting"][-1].max() < 0.7
    assert list(scores) == ["nll", "cells", "accuracy", "halting"] and scores["nll"].shape == (3, 8)


def test_scores_by_hand_and_the_same_every_time():
    task = Task(smoke("random starts"))
    model, puzzles = task.model(), task.puzzles.tune
    got = score(model, puzzles, 2, chunk=100)
    assert np.array_equal(got["nll"], score(model, puzzles, 2, chunk=100)["nll"])
    states = model.start(len(puzzles), generator=torch.Generator().manual_seed(0))
    for k, (logits, _, _) in enumerate(steps(model, puzzles.x, 2, states)):
        hit = logits.argmax(-1) == puzzles.y
        np.testing.assert_allclose(got["cells"][k], hit.float().mean(1))
        np.testing.assert_array_equal(got["accuracy"][k], hit.all(1))


def test_record(store):
    spec = smoke(steps=4, eval_every=2)
    (record,) = train(Task(spec), [spec], store)
    assert set(record["metrics"]) == {f"{k}_{part}" for k in ("nll", "cells", "accuracy", "halting") for part in ("a", "b", "all")}
    assert record["metrics"]["nll_b"] == record["detail"]["by_step"]["nll_b"][spec.model.n_sup - 1]
    assert len(record["detail"]["by_step"]["accuracy_a"]) == sudoku.TEST_STEPS
    assert set(record["curve"]) == {
        "step",
        "train_loss",
        "halting_steps",
        "train_accuracy",
        "halting_right",
        "nll",
        "cells",
        "accuracy",
        "halting",
    }
    assert len(record["detail"]["by_puzzle"]["rating"]) == spec.data.test
    assert len(record["curve_seconds"]) == 2 and 0 < record["curve_seconds"][0] < record["curve_seconds"][1] <= record["seconds"]
    assert set(Task(spec).diverged()) <= set(record["metrics"])


def test_a_gpus_profile_is_left_alone_on_a_cpu():
    runs = sudoku.grid("full") + sudoku.grid("cpu")
    assert {r.profile for r in affordable(runs, torch.device("cpu"))} == {"cpu"}
    assert len(affordable(runs, torch.device("cuda"))) == len(runs)


def test_throughput_is_of_the_runs_own_optimiser_and_average(monkeypatch):
    seen = []
    monkeypatch.setattr(bench, "step", lambda task, spec, weights, optimizer, batch, ema: seen.append((type(optimizer), ema is not None)))
    for optimizer, ema in (("muon", 0.9), ("adamw", 0.0)):
        throughput(smoke(optimizer=optimizer, ema=ema), torch.device("cpu"), torch.float32, 1, 0.001)
    assert set(seen) == {(Muon, True), (torch.optim.AdamW, False)}


def test_throughput_of_a_task_that_persists():
    spec = smoke()
    steps_a_second, flops = throughput(spec, torch.device("cpu"), torch.float32, 1, 0.01)
    task = Task(spec)
    assert steps_a_second > 0 and flops == costs(task, spec, Weights([task.model()], "cpu"), torch.device("cpu"))[0]
