"""The training loop: same numbers every time, resumed or not, and the arithmetic of PyTorch's own optimiser."""

import copy
import json
import math
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import smoke_run
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from torch.nn.utils import clip_grad_norm_

from trmlib import experiments
from trmlib.errors import TrmError
from trmlib.experiments import module
from trmlib.experiments.masked import Task
from trmlib.runs import Spec, Store, TrainConfig, key_of
from trmlib.train import PRECISIONS, Weights, compiled_loss, costs, step, train

NUMBERS = ("metrics", "detail", "curve", "status", "steps", "train_flops", "inference_flops", "parameters", "serial_depth")
FAST = {"passes": 1, "refine_blocks": 1, "context_blocks": 1}


def numbers(records):
    return [{k: r[k] for k in NUMBERS} for r in records]


def until_done(task, specs, store, most=50, **options):
    """Train with a deadline that is always over: one block a call."""
    for calls in range(1, most):
        records = train(task, specs, store, deadline=0, **options)
        if records is not None:
            return calls, records
    raise AssertionError(f"not done after {most} calls")


def quick(arm="joint", steps=9, **train):
    """A short run of a smaller model, in blocks of 3 steps."""
    return smoke_run(arm, model=FAST, data={"noisy_batches": 1}, **{"steps": steps, "eval_every": 3, "batch": 8, **train}).spec


# A task that can be worked out by hand: mean squared error of a linear map.


@dataclass(frozen=True)
class Nothing:
    """No fields."""


class Linear:
    """A `train.Task`; batches with a number of its own for each seed."""

    data = {"name": "numbers"}

    def __init__(self, inputs=4, outputs=3, layers=1, poison=()):
        self.sizes, self.layers, self.poison, self.carries = (inputs, outputs), layers, poison, []

    def model(self):
        i, o = self.sizes
        return nn.Sequential(*[nn.Linear(i, i) for _ in range(self.layers - 1)], nn.Linear(i, o, bias=False))

    def batches(self, seed, block, steps):
        g = torch.Generator().manual_seed(1000 * seed + block)
        i, o = self.sizes
        drawn = [{"x": torch.randn(5, i, generator=g), "y": torch.randn(5, o, generator=g)} for _ in range(steps)]
        if (seed, block) in self.poison:
            drawn[-1]["x"] *= math.nan
        return drawn

    def loss(self, net, batch, carry):
        self.carries.append(carry)
        guess = net(batch["x"])
        if carry is not None:
            guess = guess + carry
        return (guess - batch["y"]).square().mean(), guess.detach()

    def curve(self, model, spec, step):
        return {"norm": sum(p.square().sum() for p in model.parameters()).item()}

    def final(self, model):
        return {"metrics": {"nll": self.curve(model, None, None)["norm"]}, "detail": {}}

    def diverged(self):
        return {"nll": math.log(7)}


def linear_spec(seed=0, **train):
    return Spec("numbers", Nothing(), Nothing(), TrainConfig(**{"steps": 6, "batch": 5, "lr": 0.05, "eval_every": 2, **train}), seed)


def models_and_weights(task, seeds, dtype=torch.float32):
    """Models, a copy of each for the reference, and their `Weights`."""
    models = []
    for s in seeds:
        torch.manual_seed(s)
        models.append(task.model())
    return copy.deepcopy(models), Weights(models, torch.device("cpu"), dtype)


def adamw(parameters, t):
    return torch.optim.AdamW(parameters, lr=t.lr, betas=(0.9, t.beta2), weight_decay=t.weight_decay)


def flat(model, grad=False):
    return torch.cat([(p.grad if grad else p.detach()).flatten() for p in model.parameters()])


def stack(batches):
    return {k: torch.stack([b[k] for b in batches]) for k in batches[0]} if len(batches) > 1 else batches[0]


# The same numbers


@pytest.mark.parametrize("arm", ["joint", "random-partner"])
def test_the_same_spec_gives_the_same_record(tmp_path, arm):
    spec = quick(arm)
    first, second = (train(Task(spec), [spec], Store(tmp_path / str(i) / "results")) for i in range(2))
    assert numbers(first) == numbers(second)
    assert first[0]["curve"]["step"] == [3, 6, 9]
    other = train(Task(replace(spec, seed=1)), [replace(spec, seed=1)], Store(tmp_path / "other" / "results"))
    assert other[0]["curve"]["train_loss"] != first[0]["curve"]["train_loss"]


@pytest.mark.parametrize(
    "settings", [{}, {"ema": 0.9, "warmup": 5}, {"steps": 8, "n_sup": 2, "beta2": 0.95}], ids=["plain", "ema and warmup", "n_sup"]
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, settings, seeds):
    """Dropout is on: the random numbers, too, go on where they stopped."""
    specs = [replace(quick(**settings), seed=s) for s in range(seeds)]
    whole = train(Task(specs[0]), specs, Store(tmp_path / "whole" / "results"))
    store = Store(tmp_path / "parts" / "results")
    assert train(Task(specs[0]), specs, store, deadline=0) is None
    assert len(list(store.cache.glob("checkpoints/*.safetensors"))) == 1
    calls, parts = until_done(Task(specs[0]), specs, store)
    assert calls == 2  # 3 blocks in all
    assert numbers(parts) == numbers(whole)


def test_interrupted_in_low_precision_equals_uninterrupted(tmp_path):
    spec = quick()
    whole = train(Task(spec), [spec], Store(tmp_path / "whole" / "results"), precision="bf16")
    _, parts = until_done(Task(spec), [spec], Store(tmp_path / "parts" / "results"), precision="bf16")
    assert numbers(parts) == numbers(whole)


def test_a_checkpoint_is_left_while_training(store):
    spec, seen = quick(), []

    def progress(done):
        seen.append((done, store.checkpoint(f"{spec.hash}.cpu.fp32").exists()))

    assert train(Task(spec), [spec], store, progress=progress, checkpoint_seconds=0)[0]["status"] == "recorded"
    assert seen == [(i, i > 3) for i in range(10)]


def test_what_fails_after_the_last_step_trains_nothing_anew(tmp_path, store, monkeypatch):
    """Scoring, or a record that cannot be written: the whole training lies in the checkpoint by then."""
    spec, seen = quick(), []
    whole = train(Task(spec), [spec], Store(tmp_path / "whole" / "results"))
    with monkeypatch.context() as m:
        m.setattr(Task, "final", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(Task(spec), [spec], store, checkpoint_seconds=0)
    assert numbers(train(Task(spec), [spec], store, progress=seen.append)) == numbers(whole) and seen == [9]


def test_progress_starts_where_the_checkpoint_stood(store):
    spec, seen = quick(), []
    train(Task(spec), [spec], store, deadline=0)
    train(Task(spec), [spec], store, progress=seen.append)
    assert seen == [3, 4, 5, 6, 7, 8, 9]


def test_a_distant_deadline_changes_nothing(tmp_path):
    spec = quick()
    plain = train(Task(spec), [spec], Store(tmp_path / "a" / "results"))
    late = train(Task(spec), [spec], Store(tmp_path / "b" / "results"), deadline=time.monotonic() + 3600)
    assert numbers(late) == numbers(plain)


OTHER_CONTENTS = {  # damage → (dtypes of tensors, fields) in place of the checkpoint's
    "moments of whole numbers": ({"m": torch.int64}, {}),
    "steps that are none": ({}, {"done": "some"}),
    "steps below zero": ({}, {"done": -3}),
    "curves of two runs": ({}, {"curves": [[], []]}),
    "points that are none": ({}, {"curves": [[1, 2]]}),
    "failures that are none": ({}, {"failed": [1]}),
}


@pytest.mark.parametrize("damage", ["cut off", "empty", "noise", "another model", "without moments", *OTHER_CONTENTS])
def test_a_damaged_checkpoint_is_one_line(tmp_path, store, damage):
    spec = linear_spec()
    assert train(Linear(), [spec], store, deadline=0) is None
    path = store.checkpoint(f"{spec.hash}.cpu.fp32")
    whole = path.read_bytes()
    if damage == "another model":
        bigger = Store(tmp_path / "bigger" / "results")
        assert train(Linear(inputs=9), [spec], bigger, deadline=0) is None
        path.write_bytes(bigger.checkpoint(path.stem).read_bytes())
    elif damage == "without moments":
        with safe_open(path, "pt") as f:
            path.write_bytes(save({"w": f.get_tensor("w")}, f.metadata()))
    elif damage in OTHER_CONTENTS:
        with safe_open(path, "pt") as f:
            tensors, meta = {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["trm"])
        kinds, fields = OTHER_CONTENTS[damage]
        path.write_bytes(save({k: v.to(kinds.get(k, v.dtype)) for k, v in tensors.items()}, {"trm": json.dumps(meta | fields)}))
    else:
        path.write_bytes({"cut off": whole[:-10], "empty": b"", "noise": bytes(300)}[damage])
    with pytest.raises(TrmError) as e:
        train(Linear(), [spec], store)
    assert str(e.value).startswith(f"checkpoint {path} is damaged (")
    assert str(e.value).endswith("; delete it to train this run from the start")
    path.unlink()
    assert train(Linear(), [spec], store)[0]["status"] == "recorded"


def test_a_checkpoint_without_the_state_of_a_task_that_has_one_is_refused(store):
    spec, task = linear_spec(), Linear()
    assert train(task, [spec], store, deadline=0) is None
    task.persists = True
    with pytest.raises(TrmError, match="is damaged \\(no state of the task\\); delete it to train this run from the start$"):
        train(task, [spec], store)


# Several seeds at once


@pytest.mark.parametrize("arm", ["joint", "random-partner", "context"])
def test_two_seeds_at_once_agree_with_each_alone(tmp_path, arm):
    run = smoke_run(arm, model={**FAST, "dropout": 0.0}, data={"noisy_batches": 1}, steps=12, eval_every=4, batch=8)
    specs = [replace(run.spec, seed=s) for s in (0, 1)]
    together = train(Task(specs[0]), specs, Store(tmp_path / "both" / "results"))
    for spec, record in zip(specs, together, strict=True):
        (alone,) = train(Task(spec), [spec], Store(tmp_path / str(spec.seed) / "results"))
        assert (record["hash"], record["seed"]) == (alone["hash"], alone["seed"]) == (spec.hash, spec.seed)
        assert record["mode"]["seeds_at_once"] == 2 and alone["mode"]["seeds_at_once"] == 1
        assert record["train_flops"] == alone["train_flops"] and record["parameters"] == alone["parameters"]
        for name, values in alone["curve"].items():
            if not name.endswith("accuracy"):
                assert record["curve"][name] == pytest.approx(values, abs=1e-4)
        nlls = {k: v for k, v in alone["metrics"].items() if k.startswith("nll")}
        assert {k: record["metrics"][k] for k in nlls} == pytest.approx(nlls, abs=1e-4)
    assert together[0]["curve"]["train_loss"] != together[1]["curve"]["train_loss"]


def test_dropout_differs_between_seeds_trained_at_once(store):
    """Two copies of one seed see the same batches and start alike; only their dropout differs."""
    spec = quick()
    task = Task(spec)
    task.batches = lambda seed, block, steps: Task.batches(task, 0, block, steps)
    task.model = lambda: torch.manual_seed(0) and Task.model(task)
    first, second = train(task, [spec, replace(spec, seed=1)], store)
    assert first["curve"]["train_loss"] != second["curve"]["train_loss"]
    assert first["curve"]["train_loss"] == pytest.approx(second["curve"]["train_loss"], abs=0.2)


def test_only_the_seed_may_differ(store):
    with pytest.raises(TrmError, match="^runs trained together may differ only in their seed$"):
        train(Linear(), [linear_spec(0), linear_spec(1, lr=0.1)], store)


# The optimiser


@pytest.mark.parametrize("settings", [{}, {"clip": 0.0}, {"clip": 0.02}, {"clip": 1e3, "weight_decay": 0.5, "beta2": 0.9}])
@pytest.mark.parametrize("seeds", [1, 2])
def test_steps_equal_torch_adamw_on_the_modules_own_parameters(settings, seeds):
    task, spec = Linear(layers=2), linear_spec(**settings)
    t = spec.train
    references, weights = models_and_weights(task, range(seeds))
    theirs = [adamw(m.parameters(), t) for m in references]
    ours = adamw([weights.w], t)
    for batches in zip(*(task.batches(s, 0, 5) for s in range(seeds)), strict=True):
        got, _ = step(task, spec, weights, ours, stack(batches), None)
        for i, (m, optimizer, batch) in enumerate(zip(references, theirs, batches, strict=True)):
            optimizer.zero_grad()
            loss, _ = task.loss(m, batch, None)
            loss.backward()
            if t.clip:
                clip_grad_norm_(m.parameters(), t.clip)
            optimizer.step()
            torch.testing.assert_close(got[i], loss.detach())
            torch.testing.assert_close(weights.w.grad[i], flat(m, grad=True), atol=1e-6, rtol=1e-4)
            torch.testing.assert_close(weights.w.detach()[i], flat(m), atol=1e-5, rtol=1e-4)


def test_each_seed_is_clipped_by_its_own_norm():
    task, spec = Linear(), linear_spec(clip=1.0)
    references, weights = models_and_weights(task, (0, 1))
    batches = [task.batches(s, 0, 1)[0] for s in (0, 1)]
    batches[0]["y"] *= 100  # a large gradient for the first seed, none to clip for the second
    batches[1]["y"] *= 0.1
    step(task, spec, weights, adamw([weights.w], spec.train), stack(batches), None)
    norms = []
    for i, (m, b) in enumerate(zip(references, batches, strict=True)):
        task.loss(m, b, None)[0].backward()
        norms.append(clip_grad_norm_(m.parameters(), 1.0).item())
        torch.testing.assert_close(weights.w.grad[i], flat(m, grad=True), atol=1e-6, rtol=1e-5)
    assert norms[0] > 10 and norms[1] < 1
    assert weights.w.grad[0].norm().item() == pytest.approx(1, abs=1e-4)
    assert weights.w.grad[1].norm().item() == pytest.approx(norms[1], abs=1e-5)


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_supervision_step_is_an_optimiser_step_and_passes_its_carry(seeds):
    task, spec = Linear(), linear_spec(n_sup=2)
    references, weights = models_and_weights(task, range(seeds))
    ours = adamw([weights.w], spec.train)
    batches = [task.batches(s, 0, 1)[0] for s in range(seeds)]
    got, _ = step(task, spec, weights, ours, stack(batches), None)
    assert ours.state[weights.w]["step"] == 2
    assert [c is None for c in task.carries] == [True, False]
    for i, (m, b) in enumerate(zip(references, batches, strict=True)):
        optimizer, carry = adamw(m.parameters(), spec.train), None
        for _ in range(2):
            optimizer.zero_grad()
            loss, carry = task.loss(m, b, carry)
            loss.backward()
            clip_grad_norm_(m.parameters(), 1.0)
            optimizer.step()
        torch.testing.assert_close(got[i], loss.detach())  # of the last supervision step
        torch.testing.assert_close(weights.w.detach()[i], flat(m), atol=1e-5, rtol=1e-4)


def test_averaged_weights_follow_every_optimiser_step():
    task, spec = Linear(), linear_spec(ema=0.75, n_sup=2)
    _, weights = models_and_weights(task, (0,))
    ema, expected, seen = weights.w.detach().clone(), weights.w.detach().clone(), []
    update = weights.update
    weights.update = lambda *a: (update(*a), seen.append(weights.w.detach().clone()))
    step(task, spec, weights, adamw([weights.w], spec.train), task.batches(0, 0, 1)[0], ema)
    for w in seen:
        expected = 0.75 * expected + 0.25 * w
    assert len(seen) == 2
    torch.testing.assert_close(ema, expected)
    torch.testing.assert_close(flat(weights.evaluated(0, ema)), expected[0])
    torch.testing.assert_close(flat(weights.evaluated(0, None)), weights.w.detach()[0])


def test_a_whole_run_equals_a_plain_loop_with_warmup_and_average(store):
    """Blocks, learning rates and the weights that are evaluated, against a loop written out."""
    spec, task = linear_spec(steps=7, eval_every=3, warmup=4, ema=0.5), Linear(layers=2)
    (record,) = train(task, [spec], store)
    torch.manual_seed(0)
    model = task.model()
    optimizer, average, losses, norms = adamw(model.parameters(), spec.train), flat(model), [], []
    for done, batch in enumerate([b for block, n in ((0, 3), (1, 3), (2, 1)) for b in task.batches(0, block, n)]):
        optimizer.param_groups[0]["lr"] = 0.05 * min(1, (done + 1) / 4)
        optimizer.zero_grad()
        loss, _ = task.loss(model, batch, None)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = 0.5 * average + 0.5 * flat(model)
        losses.append(loss.item())
        norms.append(average.square().sum().item())
    assert record["curve"]["step"] == [3, 6, 7]
    assert record["curve"]["train_loss"] == pytest.approx([np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]], rel=1e-5)
    assert record["curve"]["norm"] == pytest.approx([norms[2], norms[5], norms[6]], rel=1e-4)
    assert record["metrics"]["nll"] == record["curve"]["norm"][-1]
    with safe_open(store.weights(f"{spec.hash}.cpu.fp32"), "pt") as f:
        saved = {k: f.get_tensor(k) for k in f.keys()}
    torch.testing.assert_close(torch.cat([saved[n].flatten() for n, _ in model.named_parameters()]), average, atol=1e-5, rtol=1e-4)


# Runs that diverge


def test_a_run_that_diverges_is_recorded_as_failed(store):
    spec = quick(lr=1e30)
    (record,) = train(Task(spec), [spec], store)
    assert record["status"] == "failed"
    assert record["reason"].startswith("training loss became ") and record["reason"].endswith(" by step 3")
    assert record["metrics"] == {f"nll_{part}": pytest.approx(math.log(90), rel=1e-6) for part in ("a", "b", "all")}
    assert record["curve"] == {} and record["detail"] == {} and record["steps"] == 3
    assert not store.weights(key_of(record)).exists()


def test_a_run_whose_last_update_diverges_has_failed_too(store, monkeypatch):
    """The last loss is that before the update."""
    update, calls, spec = Weights.update, [], linear_spec()

    def last_is_nan(self, *args):
        update(self, *args)
        calls.append(1)
        if len(calls) == spec.train.steps:
            self.w.data[0, 0] = math.nan

    monkeypatch.setattr(Weights, "update", last_is_nan)
    (record,) = train(Linear(), [spec], store)
    assert (record["status"], record["reason"]) == ("failed", "weights are not finite after step 6, the last")
    assert record["metrics"]["nll"] == pytest.approx(math.log(7)) and not store.weights(key_of(record)).exists()


def test_the_curve_before_a_failure_is_kept(store, monkeypatch):
    spec, loss, calls = quick(), Task.loss, []

    def becomes_nan(self, *args):
        calls.append(1)
        value, carry = loss(self, *args)
        return (value if len(calls) <= 7 else value * math.nan), carry

    whole = train(Task(spec), [spec], Store(store.root.parent / "whole" / "results"))[0]["curve"]
    monkeypatch.setattr(Task, "loss", becomes_nan)
    (record,) = train(Task(spec), [spec], store)
    assert (record["status"], record["reason"]) == ("failed", "training loss became nan by step 9")
    assert record["metrics"]["nll_b"] == pytest.approx(math.log(90), rel=1e-6)
    assert record["curve"] == {k: v[:2] for k, v in whole.items()}


@pytest.mark.parametrize("interrupted", [False, True])
def test_one_seed_that_fails_leaves_the_other_alone(tmp_path, store, interrupted):
    specs = [linear_spec(0), linear_spec(1)]
    healthy = train(Linear(), specs, Store(tmp_path / "healthy" / "results"))
    task = Linear(poison={(1, 1)})
    good, bad = until_done(task, specs, store)[1] if interrupted else train(task, specs, store)
    assert numbers([good]) == numbers([healthy[0]])
    assert (bad["status"], bad["reason"], bad["steps"]) == ("failed", "training loss became nan by step 4", 6)
    assert bad["metrics"] == {"nll": pytest.approx(math.log(7), rel=1e-6)}
    assert bad["curve"] == {k: v[:1] for k, v in healthy[1]["curve"].items()}
    assert store.weights(key_of(good)).exists() and not store.weights(key_of(bad)).exists()


# Costs, precision, learning


@pytest.mark.parametrize("settings, passes", [({}, 1), ({"n_sup": 3}, 3)])
@pytest.mark.parametrize("seeds", [1, 2])
def test_flops_are_counted(store, settings, passes, seeds):
    specs = [linear_spec(s, **settings) for s in range(seeds)]
    for record in train(Linear(inputs=4, outputs=3), specs, store):
        forward = 2 * 5 * 4 * 3  # a multiply and an add for each of batch · inputs · outputs
        assert record["train_flops"] == 6 * passes * 2 * forward  # steps · supervision steps · (forward + gradient of the weights)
        assert record["inference_flops"] == passes * 2 * 4 * 3  # an example
        assert record["parameters"] == 12 and record["serial_depth"] == 0


class Uneven(Linear):
    """Batches of 2, 2 and 5 rows in turn, told to run some number of passes."""

    work = [(0.25, {"passes": 2}), (0.75, {"passes": 1})]

    def batches(self, seed, block, steps):
        rows = [(2, 2, 5)[i % 3] for i in range(steps)]
        return [{k: v[:r] for k, v in b.items()} | {"passes": 7} for b, r in zip(super().batches(seed, block, steps), rows, strict=True)]

    def loss(self, net, batch, carry):
        return super().loss(
            net, {"x": batch["x"].repeat(batch.get("passes", 1), 1), "y": batch["y"].repeat(batch.get("passes", 1), 1)}, carry
        )


def test_flops_of_uneven_batches_are_a_mean_and_a_largest():
    spec, task = linear_spec(eval_every=3), Uneven(inputs=4, outputs=3)
    flops, depth, inference = costs(task, spec, Weights([task.model()], torch.device("cpu")), torch.device("cpu"))
    assert flops == 1.25 * 2 * (2 * 3 * 4 * 3)  # forward and gradient, 3 rows at the mean, 1.25 passes at the mean, not the 7 drawn
    assert depth == 0 and inference == 5 * 2 * 4 * 3 // spec.train.batch


@pytest.mark.parametrize("arm, depth", [("baseline", 2), ("joint", 2 + 3 * 2), ("4-blocks", 4), ("shared", 2 + 3 * 2), ("8-passes", 18)])
def test_serial_depth_counts_blocks(store, arm, depth):
    spec = smoke_run(arm, data={"noisy_batches": 1}, steps=1, eval_every=1, batch=2).spec
    assert train(Task(spec), [spec], store)[0]["serial_depth"] == depth


def test_costs_leave_the_numbers_alone(tmp_path):
    """The record's metrics are those of the trained weights: the last point of the curve."""
    spec = smoke_run("baseline", data={"noisy_batches": 1, "curve_windows": 10**6}, steps=4, eval_every=4).spec
    (record,) = train(Task(spec), [spec], Store(tmp_path / "results"))
    assert record["metrics"]["nll_a"] == pytest.approx(record["curve"]["nll"][-1], rel=1e-5)


@pytest.mark.parametrize("seeds", [1, 2])
def test_low_precision_trains_and_says_so(store, seeds):
    specs = [replace(smoke_run("joint", model=FAST, data={"noisy_batches": 1}, steps=30, eval_every=10).spec, seed=s) for s in range(seeds)]
    full = train(Task(specs[0]), specs, store)
    low = train(Task(specs[0]), specs, store, precision="bf16")
    for spec, a, b in zip(specs, full, low, strict=True):
        assert (b["precision"], key_of(b)) == ("bf16", f"{spec.hash}.cpu.bf16")
        assert b["curve"]["train_loss"] != a["curve"]["train_loss"]
        assert b["curve"]["train_loss"] == pytest.approx(a["curve"]["train_loss"], abs=0.05)
        assert b["curve"]["train_loss"][-1] < b["curve"]["train_loss"][0] - 0.3
        with safe_open(store.weights(key_of(b)), "pt") as f:
            head = f.get_tensor("head.weight")
        assert head.dtype == torch.float32
        assert not torch.equal(head, head.bfloat16().float())  # the full-precision weights, not their rounded copy


def test_low_precision_reads_a_rounded_copy_of_full_weights():
    task, spec = Linear(), linear_spec()
    _, weights = models_and_weights(task, (0,), PRECISIONS["bf16"])
    task.loss = lambda net, batch, carry: ((net(batch["x"].bfloat16()).float() - batch["y"]).square().mean(), None)
    before = weights.w.detach().clone()
    step(task, spec, weights, adamw([weights.w], spec.train), task.batches(0, 0, 1)[0], None)
    assert weights.w.dtype == torch.float32 and not torch.equal(weights.w, before)
    assert torch.equal(weights.low, weights.w.detach().bfloat16())
    assert torch.equal(flat(weights.model), weights.low[0])


def test_the_joint_model_memorises_eight_windows(store):
    run = smoke_run("joint", model={"dropout": 0.0}, data={"noisy_batches": 1, "curve_windows": 4}, steps=250, eval_every=50, batch=8)
    task = Task(run.spec)
    windows = task.batches(0, 0, 1)[0]
    task.batches = lambda seed, block, steps: [windows] * steps
    (record,) = train(task, [run.spec], store)
    losses = record["curve"]["train_loss"]
    assert losses[0] > 1 and losses[-1] < 0.1


@pytest.mark.parametrize("experiment, arm", [("shakespeare", "mask"), ("sudoku", "TRM")])
def test_a_loss_compiled_for_a_gpu_is_the_same_loss(experiment, arm, monkeypatch):
    """Traced here without code of its own; on the first call a loop's length is a number, on later ones it must not become a symbol."""
    monkeypatch.setattr(experiments, "EXPERIMENTS", (experiment,))
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, mode, **how: compile(f, backend="eager", **how))
    run = next(r for r in module(experiment).grid("smoke") if r.arm == arm)
    task = module(experiment).Task(run.spec)
    model, batches = task.model().train(), task.batches(0, 0, 3)
    fast, gpu = compiled_loss(task, SimpleNamespace(type="cuda"), "yes"), []
    assert compiled_loss(task, torch.device("cpu"), "yes") is task
    for loss in (fast.loss, task.loss):
        carry, values = None, []
        torch.manual_seed(0)  # of the dropout
        for batch in batches:
            value, new = loss(model, batch, carry)
            carry = new if getattr(task, "persists", False) else None
            values.append(value.item())
        gpu.append(values)
    assert gpu[0] == pytest.approx(gpu[1], abs=1e-5)


@pytest.mark.parametrize("spoil", ["buffer", "frozen"])
def test_what_a_run_would_not_keep_is_refused(spoil):
    model = nn.Linear(2, 2)
    if spoil == "buffer":
        model.register_buffer("seen", torch.zeros(1))
        name = "seen"
    else:
        model.bias.requires_grad_(False)
        name = "bias"
    with pytest.raises(TrmError, match=rf"^Linear\.{name} is frozen or a saved buffer"):
        Weights([model], torch.device("cpu"))


def test_scored_models_are_in_evaluation_mode():
    weights = Weights([nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))], torch.device("cpu"))
    assert not weights.evaluated(0, None).training and weights.model.training
