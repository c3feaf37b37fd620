"""The capacity experiment: counts, interventions that must change nothing, turns, lines and verdicts by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save

from trmlib import stats
from trmlib.data.tokens import TokensConfig
from trmlib.errors import TrmError
from trmlib.experiments import capacity
from trmlib.experiments import capacity_report as report
from trmlib.runs import TrainConfig
from trmlib.train import Weights, train

EXPERIMENTS = ("capacity",)


def smoke(arm, **changes):
    """The first smoke spec of an arm, some of its training fields replaced."""
    spec = next(r.spec for r in capacity.grid("smoke") if r.arm == arm)
    return replace(spec, train=replace(spec.train, **changes))


def run(spec, store):
    return train(capacity.Task(spec), [spec], store)[0]


def test_parameters_of_the_earlier_run_and_of_the_sizes():
    assert capacity.parameters(capacity.EARLIER, TokensConfig(vocab=50_258)) == report.CLAIMED["parameters"]
    counts = [capacity.parameters(replace(capacity.EARLIER, d=d), TokensConfig()) for d in capacity.SIZES.values()]
    assert counts == [93_440, 310_016, 929_792, 2_915_840, 6_902_016]


@pytest.mark.parametrize("arm", ["TRM 0.1M", "leaking 0.1M (unused rows)", "causal WikiText-2"])
def test_parameters_are_those_of_the_built_model(arm):
    spec = smoke(arm)
    assert capacity.parameters(spec.model, spec.data) == sum(p.numel() for p in capacity.build(spec).parameters())


def test_each_size_sees_four_times_its_parameters():
    for r in capacity.grid("full"):
        if r.arm in [f"TRM {s}" for s in capacity.SIZES]:
            t, n = r.spec.train, capacity.parameters(r.spec.model, r.spec.data)
            assert 4 * n <= t.steps * t.batch <= 4.2 * n and t.steps % t.eval_every == 0 and t.steps // t.eval_every >= 40


def test_cpu_runs_are_full_runs_up_to_a_third_of_a_million():
    full = {r.spec.hash for r in capacity.grid("full")}
    cut = {r.arm for r in capacity.grid("cpu") if r.spec.hash not in full}
    assert all("WikiText-2" in arm or arm == "as it was" for arm in cut) and cut


def test_hashes_of_a_grid_are_distinct():
    for profile in ("smoke", "cpu", "full"):
        runs = capacity.grid(profile)
        assert len({r.spec.hash for r in runs}) == len(runs)


def test_unused_rows_change_the_parameters_and_nothing_else(store):
    plain, padded = smoke("TRM 0.1M"), smoke("TRM 0.1M (unused rows)")
    a, b = (run(replace(s, train=replace(s.train, steps=10)), store) for s in (plain, padded))
    assert b["parameters"] - a["parameters"] == padded.data.unused_rows * plain.model.d
    assert b["train_flops"] == a["train_flops"]
    np.testing.assert_allclose(b["curve"]["nll"], a["curve"]["nll"], atol=1e-5)
    with pytest.raises(TrmError, match="^unused_rows needs tied_head"):
        capacity.build(replace(padded, model=replace(padded.model, tied_head=False)))


def test_a_leaking_model_is_scored_from_other_starts_too(store):
    record = run(smoke("leaking 0.1M", steps=10), store)
    assert {"nll", "nll_last", "nll_constant"} <= record["curve"].keys()
    assert {"nll_last_b", "nll_constant_b"} <= record["metrics"].keys()
    assert "nll_last" not in run(smoke("TRM 0.1M", steps=10), store)["curve"]


def test_metrics_by_hand():
    """A model whose logits are all equal: log V nats a token, and bits per byte of the very text that is scored."""
    spec = smoke("TRM 0.1M")
    task = capacity.Task(spec)
    model = task.model()
    torch.nn.init.zeros_(model.norm.weight), torch.nn.init.zeros_(model.norm.bias)
    m, log_v = task.final(model)["metrics"], math.log(spec.data.vocab)
    assert m["nll_a"] == pytest.approx(log_v) and m["nll_all"] == pytest.approx(log_v)
    targets = task.fixed.tokens[task.in_b][:, -2:]
    if (targets == 1).any():  # the toy language's rare words are <UNK> at this vocabulary
        assert m["bits_b"] is None
    else:
        assert m["bits_b"] == pytest.approx(log_v / math.log(2) * targets.size / task.tokeniser.bytes[targets].sum())


def test_batches_follow_from_the_step():
    task = capacity.Task(smoke("TRM 0.1M"))
    whole = [b["tokens"] for block in (0, 1) for b in task.batches(0, block, 2)]
    assert torch.equal(torch.stack(whole[2:]), torch.stack([b["tokens"] for b in task.batches(0, 1, 2)]))
    starts = torch.stack(whole).flatten(0, 1)
    assert len({tuple(w.tolist()) for w in starts}) > 0.9 * len(starts)


class OneStep:
    """A task of one weight with gradient 1."""

    def model(self):
        return torch.nn.Linear(1, 1, bias=False)


def test_rounded_weights_lose_small_steps():
    weights = Weights([OneStep().model()], torch.device("cpu"))
    optimizer = torch.optim.AdamW([weights.w], lr=1e-4, weight_decay=0.0)
    weights.w.data.fill_(1.0)
    for _ in range(3):
        weights.w.grad.fill_(1.0)
        weights.update(optimizer, "bf16")
    assert weights.w.item() == 1.0  # 1 − 1e-4 rounds back to 1 in bf16
    weights.w.grad.fill_(1.0)
    weights.update(optimizer)
    assert weights.w.item() == pytest.approx(1 - 1e-4)


def test_forgetting_the_optimiser_starts_its_moments_again(store, monkeypatch):
    """After every `forget_every` steps the first update is again the learning rate times the sign of the gradient."""
    spec = smoke("TRM 0.1M", steps=10, eval_every=5, forget_every=4, weight_decay=0.0)
    sizes, before = [], []
    original = Weights.update

    def watched(self, optimizer, rounding="fp32"):
        before.append(self.w.detach().clone())
        original(self, optimizer, rounding)
        sizes.append(float((self.w.detach() - before[-1]).abs().max() / spec.train.lr))
        before[-1] = float(optimizer.state[self.w]["step"])

    monkeypatch.setattr(Weights, "update", watched)
    run(spec, store)
    assert before == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert sizes[0] == pytest.approx(1, rel=1e-3) and sizes[4] == pytest.approx(1, rel=1e-3)


def test_new_fields_change_no_hash():
    assert smoke("TRM 0.1M").as_dict()["train"].keys().isdisjoint({"forget_every", "weights"})
    assert TrainConfig().forget_every == 0 and TrainConfig().weights == "fp32"


# ---------------------------------------------------------------- turns and lines

FALL, NOISE = np.linspace(6, 5, 20), 0.001 * (-1.0) ** np.arange(40)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (np.r_[FALL, np.linspace(5, 4.5, 20)], None),  # falls to the end
        (np.r_[FALL, np.linspace(5, 5.5, 20)], 19),  # turns
        (np.r_[FALL, np.full(20, 5.01)], None),  # within the margin
        (np.r_[FALL, np.linspace(5, 5.5, 10), np.linspace(5.5, 4.9, 10)], None),  # a bump made good
    ],
)
def test_turn(curve, expected):
    found = stats.turn(curve + NOISE)
    assert found is None if expected is None else abs(found - expected) <= 2


def test_turn_needs_more_than_noise():
    rng = np.random.default_rng(0)
    assert stats.turn(np.r_[FALL, np.linspace(5, 5.03, 20)] + rng.normal(0, 0.05, 40)) is None
    with pytest.raises(TrmError, match="too short to say where it turns"):
        stats.turn([1, 2, 3])


def test_censored_line_without_censoring_is_least_squares():
    x, y = np.array([1.0, 2, 3, 4, 5, 6]), np.array([1.1, 1.9, 3.2, 3.8, 5.1, 5.9])
    slope, level = stats.censored_line(x, y, np.zeros(6, bool))
    b, _ = np.polyfit(x, y, 1)
    assert slope.estimate == pytest.approx(b, abs=1e-4) and level.estimate == pytest.approx(y.mean(), abs=1e-4)
    assert slope.low < b < slope.high and not slope.excludes(1)


def test_censored_points_push_the_line_up():
    x = np.array([1.0, 1, 2, 2, 3, 3])
    y = np.array([1.0, 1.1, 2.0, 2.1, 2.2, 2.2])
    seen = stats.censored_line(x, y, np.zeros(6, bool))[0].estimate
    assert stats.censored_line(x, y, np.array([0, 0, 0, 0, 1, 1]))[0].estimate > seen + 0.2
    assert stats.censored_line(x, y, np.ones(6)) is None


# ---------------------------------------------------------------- the report


def row(arm, seed, nll, curve, parameters, profile="full", **others):
    record = {"curve": {"step": list(range(1, len(curve) + 1)), "nll": list(curve), **others}, "profile": profile, "experiment": "capacity",
              "spec": {"train": {"batch": 10}}, "data": {"windows": 1}, "digest": f"{arm}{seed}"}  # fmt: skip
    return {"arm": arm, "seed": seed, "key": f"{arm}.{seed}", "status": "recorded", "nll_b": nll, "parameters": parameters, "device": "cpu", "precision": "fp32",
            "train_flops": 1, "serial_depth": 1, "seconds": 1.0, "record": record}  # fmt: skip


def curve_with_turn(at, k=40):
    """Falls to 5 at index `at`, then rises to 6."""
    return np.interp(np.arange(k), [0, at, k - 1], [7, 5, 6]) if at is not None else np.linspace(7, 5, k)


def law_frame(turn_at, sizes=(("0.1M", 100), ("0.3M", 100))):
    """Five seeds at each size; 40 points of 10 examples each: 4 examples a parameter at 100 parameters."""
    rows = []
    for size, n in sizes:
        for seed in range(5):
            rows.append(row(f"TRM {size}", seed, 5.0, curve_with_turn(turn_at(n, seed)), n))
    return pd.DataFrame(rows)


def test_no_turn_refutes_the_law():
    word, why = report.law_verdict(law_frame(lambda n, s: None))
    assert word == "not reproduced" and "no curve of 10 runs at 2 sizes turned, up to 4.0 windows a parameter" in why
    assert report.law_verdict(law_frame(lambda n, s: None, (("0.1M", 100),)))[0] == "open"


def test_turns_at_the_claimed_place_reproduce_the_law():
    df = law_frame(lambda n, s: n // 10 - 1 + s % 2, (("0.1M", 100), ("0.3M", 200)))
    word, _ = report.law_verdict(df)
    table, (slope, ratio) = report.law(df)
    assert word == "reproduced" and not table.censored.any()
    assert slope.estimate == pytest.approx(1, abs=0.1) and ratio.estimate == pytest.approx(0, abs=0.05)


def test_turns_at_the_same_example_whatever_the_size_refute_the_law():
    word, _ = report.law_verdict(law_frame(lambda n, s: 14 + s % 2, (("0.1M", 100), ("0.3M", 200))))
    assert word == "not reproduced"


def test_the_published_number_stays_open_and_a_shape_makes_a_candidate():
    assert report.ppl_verdict(law_frame(lambda n, s: None)) == ("open", [], [])
    rows = [
        row("leaking 0.1M", s, 0.1, np.linspace(1, 0, 40), 100, nll_last=list(curve_with_turn(9)), nll_constant=list(curve_with_turn(None)))
        for s in range(5)
    ]
    word, tested, names = report.ppl_verdict(pd.DataFrame(rows))
    assert word == "open, with a candidate" and tested == ["start mismatch"] and names == ["leaking 0.1M scored from last"]


def test_the_write_ups_own_examples():
    table = report.examples_table()
    assert table.agree.tolist() == [False, False, True, True, True]


def test_crossing_by_hand():
    x, y = (0.0, 1.0, 2.0), (5.0, 4.0, 3.5)
    assert report.crossing(x, y, 4.5) == (0.5, False) and report.crossing(x, y, 3.75) == (1.5, False)
    assert report.crossing(x, y, 5.5) == (-0.5, True) and report.crossing(x, y, 3.0) == (3.0, True)


def test_efficiency_by_hand():
    """The causal model gains 1 nat with every doubling; the TRM stands where the causal model of twice its size does."""
    rows = []
    for seed in range(5):
        for name, n in (("d=12", 50), ("0.1M", 100), ("d=40", 400)):
            rows.append(row(f"causal {name}", seed, 10 + 0.1 * seed - math.log2(n), [], n))
        rows.append(row("tuned 0.1M", seed, 10 + 0.1 * seed - math.log2(200) + 0.001 * (-1) ** seed, [], 100))
    e, outside = report.efficiency(pd.DataFrame(rows))
    assert e.estimate == pytest.approx(2, rel=0.01) and e.low < e.estimate < e.high and not outside
    assert report.efficiency_verdict(pd.DataFrame(rows))[0] == "reproduced"
    assert report.efficiency_verdict(pd.DataFrame(rows[:3])) == ("open", None, False)


def test_runs_under_way_are_read_from_their_checkpoints(store):
    spec = smoke("TRM 0.1M")
    path = store.checkpoint(f"{spec.hash}.cpu.fp32")
    path.parent.mkdir(parents=True)
    meta = {"done": 10, "curves": [[{"step": 5, "nll": 4.5}, {"step": 10, "nll": 4.25}]]}
    path.write_bytes(save({"w": torch.zeros(1)}, {"trm": json.dumps(meta)}))
    path.with_name(f"{'0' * 16}.cpu.fp32.safetensors").write_bytes(b"broken")
    (found,) = report.under_way(store, "smoke").to_dict("records")
    assert (found["arm"], found["seed"], found["done"], found["steps"], found["nll"]) == ("TRM 0.1M", 0, 10, 20, [4.5, 4.25])


def test_everything_is_empty_without_records(store):
    df = pd.DataFrame(columns=["arm", "seed", "key", "device", "precision", "status", "record"])
    assert not len(report.turns(df)) and report.law_verdict(df)[0] == "open" and report.ppl_verdict(df)[0] == "open"
    assert report.law_curves(df, "TRM") == {} and not len(report.rates(df)) and report.wikitext2(df) == {}
    assert report.arms(df).seeds.sum() == 0 and all(r["effect"] is None for r in report.ablations(df))
