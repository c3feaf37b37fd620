"""The capacity experiment: counts, interventions that must change nothing, turns, lines and verdicts by hand."""

import json
import math
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save
from scipy import stats as scipy_stats
from scipy.stats import linregress

from trmlib import compare, flops, stats
from trmlib.data.tokens import PAD, TokensConfig
from trmlib.errors import TrmError
from trmlib.evaluate import score_chunks
from trmlib.experiments import autoregressive, capacity, shakespeare
from trmlib.experiments import capacity_evaluations as evaluations
from trmlib.experiments import capacity_report as report
from trmlib.runs import Store, TrainConfig
from trmlib.train import Weights, count, train

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
    assert counts == [35_072, 93_440, 310_016, 929_792, 2_915_840, 6_902_016]


@pytest.mark.parametrize("arm", ["TRM 0.1M", "leaking 0.04M (unused rows)", "causal WikiText-2"])
def test_parameters_are_those_of_the_built_model(arm):
    spec = smoke(arm)
    assert capacity.parameters(spec.model, spec.data) == sum(p.numel() for p in capacity.build(spec).parameters())


def test_each_size_sees_four_times_its_parameters():
    for r in capacity.grid("full"):
        if r.arm in [f"{kind} {s}" for s in capacity.SIZES for kind in ("TRM", "leaking", "steady")]:
            t, n = r.spec.train, capacity.parameters(r.spec.model, r.spec.data)
            assert 4 * n <= t.steps * t.batch <= 4.2 * n and t.steps % t.eval_every == 0 and t.steps // t.eval_every >= 40


def test_cpu_runs_are_full_runs_up_to_a_third_of_a_million():
    full = {r.spec.hash for r in capacity.grid("full")}
    cut = {r.arm for r in capacity.grid("cpu") if r.spec.hash not in full}
    assert all(any(section in arm for section in report.SECTIONS) for arm in cut) and cut


@cache
def step_flops(arm, windows=1):
    """Counted training FLOPs of a step of a full run on so many windows; this takes no corpus."""
    spec = next(r.spec for r in capacity.grid("full") if r.arm == arm)
    task = SimpleNamespace(loss=partial(capacity.Task.loss, SimpleNamespace(spec=spec)))
    batch = {"tokens": torch.zeros(windows, spec.data.context + spec.data.chunk, dtype=torch.long)}
    return count(task, spec, capacity.build(spec), batch)[0]


@pytest.mark.parametrize("arm", ["standard 0.1M", "causal 0.1M", "annealed 0.1M"])
def test_a_step_costs_as_much_as_its_windows(arm):
    """Also where a whole batch is read out by the fused cross-entropy, which PyTorch's counter does not know."""
    assert step_flops(arm, 32) == 32 * step_flops(arm)


def test_records_whose_read_out_was_not_counted_are_read_with_it():
    store, steps = Store(), {r.spec.hash: r.spec.train.steps for r in capacity.grid("full") if r.arm == "standard 0.1M"}
    found = [r for r in store.records("capacity").values() if r["hash"] in steps]
    assert len(found) == 5 and all(r["train_flops"] == 32 * step_flops("standard 0.1M") * steps[r["hash"]] for r in found)
    assert store.corrections.keys() <= store.records().keys()


def test_records_cost_at_inference_what_scoring_their_chunk_does():
    """Of all that are trained on more than they are scored on."""
    specs = {r.spec.hash: r.spec for p in ("cpu", "full") for r in (*capacity.grid(p), *autoregressive.grid(p), *shakespeare.grid(p))}
    specs = {k: s for k, s in specs.items() if s.model.everywhere or s.model.loss_passes == "every" or s.train.n_sup > 1}
    records = [r for name in ("capacity", "autoregressive", "shakespeare") for r in Store().records(name).values() if r["hash"] in specs]
    assert len(records) > 100
    for r in records:
        spec = specs[r["hash"]]
        assert (r["inference_flops"], r["serial_depth"]) == flops.counted(spec, spec.model.T * spec.train.n_sup), r["hash"]


@pytest.mark.parametrize("rival", capacity.COMPUTE)
def test_equal_compute_is_counted(rival):
    setting = rival.split()[1]
    assert step_flops(report.OWN[setting]) / step_flops(rival) == pytest.approx(capacity.COMPUTE[rival], rel=0.01)
    steps = {r.arm: r.spec.train.steps for r in capacity.grid("full")}
    assert steps[f"{rival} (equal compute)"] == round(capacity.COMPUTE[rival] * steps[report.OWN[setting]])


def test_the_comparisons_fixed_beforehand_are_in_every_grid_and_not_more_than_ten():
    assert len(report.PRIMARY) + len(report.WORDS) <= 10
    named = {arm for a, b, _ in (*report.PRIMARY, *report.ADDED, *report.WORDS, *report.WORDS_ADDED) for arm in (a, b)}
    named |= {*capacity.COMPUTE, *report.GOING}
    for profile in ("cpu", "full"):
        assert named <= {r.arm for r in capacity.grid(profile)}


def test_one_thing_at_a_time():
    train = {r.arm: r.spec.train for r in capacity.grid("cpu")}
    assert replace(train["steady 0.04M"], decay_to=0.1) == train["steady 0.04M (decay)"]
    assert train["causal 0.1M"].steps == train["annealed 0.1M"].steps == train["standard 0.1M"].steps
    specs = {r.arm: r.spec for r in capacity.grid("cpu") if r.spec.seed == 0}
    for kind, arms in (("steady", 11), ("leaking", 12)):
        base = specs[f"{kind} 0.04M"]
        changed = [c for arm, c in specs.items() if arm.startswith(f"{kind} 0.04M (")]
        assert len(changed) == arms and all(c.model == base.model for c in changed)
        assert all((c.data == base.data) != (c.train == base.train) for c in changed)
    twins = [r.spec for r in capacity.grid("full") if r.arm.startswith("as it was") and r.spec.seed == 0]
    assert replace(twins[0].model, start="mask") == twins[1].model and twins[0].train == twins[1].train and twins[0].data == twins[1].data


def test_hashes_of_a_grid_are_distinct():
    for profile in ("smoke", "cpu", "full"):
        runs = capacity.grid(profile)
        assert len({r.spec.hash for r in runs}) == len(runs)


def test_unused_rows_change_the_parameters_and_nothing_else(store):
    plain, padded = smoke("leaking 0.04M"), smoke("leaking 0.04M (unused rows)")
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


def test_choices_are_made_on_part_a_and_figures_read_from_part_b():
    task = capacity.Task(smoke("leaking 0.04M"))
    torch.manual_seed(0)
    model = task.model().eval()
    read = lambda start: score_chunks(model, task.tokens, start=start)[0][0]  # noqa: E731
    own, constant = read(None), read(torch.full((len(task.tokens), task.config.chunk), PAD))
    result, point = task.final(model), task.curve(model, task.spec, 0)
    assert len(task.curve_rows) and not task.in_b[task.curve_rows].any()
    for name, nll in (("nll", own), ("nll_constant", constant), ("nll_last", read("last"))):
        assert point[name] == pytest.approx(nll[task.curve_rows].mean(), rel=1e-5)
        for part, rows in (("a", ~task.in_b), ("b", task.in_b)):
            assert result["metrics"][f"{name}_{part}"] == pytest.approx(nll[rows].mean(), rel=1e-5)
    by = result["detail"]["by_article"]
    assert all(v == pytest.approx(own[task.fixed.article == k].mean(), rel=1e-5) for k, v in enumerate(by["nll"]) if by["tokens"][k])


def test_supervision_steps_count_as_refinements_in_every_score():
    task = capacity.Task(smoke("TRM 0.1M", n_sup=3))
    torch.manual_seed(0)
    model = task.model().eval()
    expected = score_chunks(model, task.tokens, 3 * task.spec.model.T)[0][0, task.in_b].mean()
    assert task.final(model)["metrics"]["nll_b"] == pytest.approx(expected, rel=1e-6)
    (batch,) = task.batches(0, 0, 1)
    assert task.loss(model, batch, None)[1] is not None  # handed on from step to step


def test_counting_tokens_and_pairs_by_hand():
    """Of a text of two tokens, 0 1 0 1 …, and a rare 2: counts plus one, pairs drawn to them by a prior of 4."""
    ids = np.array([0, 1] * 50 + [2, 0])
    fixed = SimpleNamespace(tokens=np.array([[9, 0, 1, 0], [9, 1, 2, 0]]))
    task = SimpleNamespace(config=TokensConfig("toy-language", "words", 10, 2, 2), train=SimpleNamespace(ids=ids.astype(np.uint16)), fixed=fixed,
                           in_b=np.array([True, True]))  # fmt: skip
    p = (np.bincount(ids, minlength=10) + 1) / 112
    after = lambda a, b, far: (sum((ids[:-far] == a) & (ids[far:] == b)) + 4 * p[b]) / (sum(ids[:-far] == a) + 4)  # noqa: E731
    expected = {
        "unigram": -np.log([p[1], p[0], p[2], p[0]]).mean(),
        "bigram": -np.log([after(0, 1, 1), after(1, 0, 1), after(1, 2, 1), after(2, 0, 1)]).mean(),
        "last": -np.log([after(0, 1, 1), after(0, 0, 2), after(1, 2, 1), after(1, 0, 2)]).mean(),
    }
    for part in (7, 1 << 20):  # of the text at once
        found = evaluations.references(task, [], prior=4, part=part)
        assert found == pytest.approx(expected)


def test_slots_are_scored_one_by_one_and_the_encoder_before_them():
    """The chunk's mean is the record's figure; the encoder's word on the next token is what its training reads last in the context."""
    task = capacity.Task(smoke("everywhere 0.1M"))
    torch.manual_seed(0)
    model = task.model().eval()
    found = evaluations.slots(task, model, part=3)
    nll = score_chunks(model, task.tokens, every_pass=True)[0][:, task.in_b]
    assert np.allclose(found["nll"], nll.mean(1)) and found["nll"].shape == (1 + model.config.T, task.config.chunk)
    rows, t = task.tokens[task.in_b], task.config.context
    x = model.embedding(rows[:, :t]) + model.position.weight[:t]
    for block in model.blocks:
        x = block(x, mask=torch.ones(t, t, dtype=torch.bool).tril())
    expected = F.cross_entropy(model.norm(x)[:, -1] @ model.embedding.weight.T, rows[:, t])
    assert found["encoder"] == pytest.approx(expected.item(), rel=1e-5)
    assert "encoder" not in evaluations.slots(task, capacity.build(smoke("causal 0.1M")).eval())


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


def test_a_turn_among_the_first_points_is_at_the_lowest_itself():
    """The median of its first three points would put it at the first, which is far above."""
    assert stats.turn(np.r_[9, 5, 5.2, np.linspace(5.3, 8, 37)]) == 1


def test_turn_needs_more_than_noise():
    rng = np.random.default_rng(0)
    assert stats.turn(np.r_[FALL, np.linspace(5, 5.03, 20)] + rng.normal(0, 0.05, 40)) is None
    with pytest.raises(TrmError, match="too short to say where it turns"):
        stats.turn([1, 2, 3])
    for curve, window in ((FALL, 0), (FALL, -1), ([math.nan] * 20, 5)):
        with pytest.raises(TrmError, match=f"^window={window} must be at least 1, and of .* points at least one be finite$"):
            stats.turn(curve, window=window)


def test_censored_line_without_censoring_is_least_squares():
    x, y = np.array([1.0, 2, 3, 4, 5, 6]), np.array([1.1, 1.9, 3.2, 3.8, 5.1, 5.9])
    slope, level = stats.censored_line(x, y, np.zeros(6, bool))
    b, _ = np.polyfit(x, y, 1)
    assert slope.estimate == pytest.approx(b, abs=1e-4) and level.estimate == pytest.approx(y.mean(), abs=1e-4)
    assert slope.low < b < slope.high and not slope.excludes(1)
    theirs = linregress(x, y)
    half = scipy_stats.t.ppf(0.975, 4) * np.array([theirs.stderr, theirs.stderr * np.sqrt(np.mean((x - x.mean()) ** 2))])
    assert [(e.high - e.low) / 2 for e in (slope, level)] == pytest.approx(half, rel=1e-3)


def test_censored_points_push_the_line_up():
    x = np.array([1.0, 1, 2, 2, 3, 3])
    y = np.array([1.0, 1.1, 2.0, 2.1, 2.2, 2.2])
    seen = stats.censored_line(x, y, np.zeros(6, bool))[0].estimate
    assert stats.censored_line(x, y, np.array([0, 0, 0, 0, 1, 1]))[0].estimate > seen + 0.2
    assert stats.censored_line(x, y, np.ones(6)) is None


# ---------------------------------------------------------------- the report


COUNTED = {"unigram": 7.0, "bigram": 6.0, "last": 6.6}  # half way: 6.5, and 6.8 for slots named at once


def row(arm, seed, nll, curve, parameters, profile="full", status="recorded", d=64, start="mask", **others):
    record = {"curve": {"step": list(range(1, len(curve) + 1)), "nll": list(curve), **others}, "profile": profile, "experiment": "capacity",
              "spec": {"train": {"batch": 10, "steps": 40, "eval_every": 1}, "model": {"d": d, "start": start}, "data": {}},
              "data": {"windows": 1}, "digest": f"{arm}{seed}"}  # fmt: skip
    return {"arm": arm, "seed": seed, "key": f"{arm}.{seed}", "status": status, "nll_b": nll, "parameters": parameters, "device": "cpu", "precision": "fp32",
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
    word, why = report.law_verdict(law_frame(lambda n, s: None), COUNTED)
    assert word == "not reproduced" and "no curve of 10 runs at 2 sizes turned, up to 4.0 windows a parameter" in why
    assert report.law_verdict(law_frame(lambda n, s: None, (("0.1M", 100),)), COUNTED)[0] == "open"


def test_a_model_that_has_learnt_nothing_says_nothing_of_the_law():
    """Their curves end at 5 nats, or turn there; 10 × 0.02 below token frequencies is far enough."""
    for at, told in ((None, "not reproduced"), (9, "inconclusive")):
        df = law_frame(lambda n, s: at)  # noqa: B023
        assert report.law_verdict(df, None)[0] == "open"
        word, why = report.law_verdict(df, COUNTED | {"unigram": 5.19})
        assert word == "open" and why.startswith("TRM 0.1M, TRM 0.3M never got far below")
        assert report.law_verdict(df, COUNTED | {"unigram": 5.21})[0] == told


def test_what_a_leaking_model_knows_depends_on_where_it_is_scored_from():
    rows = [
        row(f"leaking {size}", s, 0.1, np.linspace(7, 0, 40), 100, nll_last=list(curve_with_turn(9) + 1.9))
        for size in ("0.1M", "0.3M")
        for s in range(5)
    ]
    df = pd.DataFrame(rows)
    assert report.law_verdict(df, COUNTED, "leaking")[0] == "not reproduced"
    assert report.law_verdict(df, COUNTED, "leaking", "last")[0] == "open" and not len(report.shape(df, COUNTED))
    assert len(report.alike(df)) == 2  # the shape without the level
    assert len(report.shape(df, COUNTED | {"unigram": 7.2})) == 2


def test_arms_that_have_learnt_too_little_to_be_compared():
    """Half way to pairs is 6.5 for a model that sees the token before, 6.8 for slots named at once."""
    rows = [row(arm, s, nll, [], 100, start=start) for arm, nll, start in (
        ("a", 6.45, "shifted"), ("b", 6.55, "shifted"), ("c", 6.75, "mask"), ("d", 6.85, "mask"), ("causal 0.1M", 6, "shifted")) for s in range(5)]  # fmt: skip
    df = pd.DataFrame(rows)
    assert compare.unlearnt(df, COUNTED) == ["b", "d"] and compare.unlearnt(df, None) == []
    first = compare.primary(df, [("d", "b", "two of them"), ("d", "a", "one")], unlearnt=["b", "d"])
    assert [compare.reading(r) for _, r in first.iterrows()][0] == "neither has learnt enough to compare them" and not first.unlearnt[1]


def test_what_gets_the_annealed_model_going():
    """Half way to the last token read is 6.8; an arm with a seed missing is not told."""
    trm, plain, last = report.GOING
    df = pd.DataFrame([row(arm, s, nll, [], 100) for arm, nll in ((last, 6.75), (trm, 6.9), (plain, 6.85)) for s in range(5)])
    told = {
        trm: (pytest.approx(math.exp(6.9)), False),
        plain: (pytest.approx(math.exp(6.85)), False),
        last: (pytest.approx(math.exp(6.75)), True),
    }
    assert report.going(df, COUNTED) == told and report.going(df, None) == {}
    assert list(report.going(df[1:], COUNTED)) == [trm, plain]


def test_arms_of_another_vocabulary_are_counted_on_their_own_targets():
    """Each frame by the counted arm that it holds, and no arm by another vocabulary's counts."""
    small, words = ([row(arm, s, nll, [], 100, start="shifted") for arm, nll in arms for s in range(5)] for arms in (
        (("causal 0.1M", 6), ("b", 6.9)), (("TRM WikiText-2", 6), ("w", 6.9))))  # fmt: skip
    for r in words:
        r["record"]["spec"]["data"]["vocab"] = 33_280
    assert compare.counting(pd.DataFrame(words)) == "TRM WikiText-2" and compare.counting(pd.DataFrame(small + words)) == "causal 0.1M"
    assert compare.unlearnt(pd.DataFrame(small + words), COUNTED) == ["b"] and compare.unlearnt(pd.DataFrame(words), COUNTED) == ["w"]


def test_turns_at_the_claimed_place_reproduce_the_law():
    df = law_frame(lambda n, s: n // 10 - 1 + s % 2, (("0.1M", 100), ("0.3M", 200)))
    word, _ = report.law_verdict(df, COUNTED)
    table, (slope, ratio) = report.law(df)
    assert word == "reproduced" and not table.censored.any()
    assert slope.estimate == pytest.approx(1, abs=0.1) and ratio.estimate == pytest.approx(0, abs=0.05)


def test_turns_at_the_same_example_whatever_the_size_refute_the_law():
    word, _ = report.law_verdict(law_frame(lambda n, s: 14 + s % 2, (("0.1M", 100), ("0.3M", 200))), COUNTED)
    assert word == "not reproduced"


def test_the_published_number_stays_open_and_a_shape_makes_a_candidate():
    assert report.ppl_verdict(law_frame(lambda n, s: None), COUNTED) == ("open", [], [])
    rows = [
        row("leaking 0.1M", s, 0.1, np.linspace(1, 0, 40), 100, nll_last=list(curve_with_turn(9)), nll_constant=list(curve_with_turn(None)))
        for s in range(5)
    ]
    word, tested, names = report.ppl_verdict(pd.DataFrame(rows), COUNTED)
    assert (
        word == "open, with a candidate" and tested == ["on a leaking model start mismatch"] and names == ["leaking 0.1M scored from last"]
    )


def test_a_run_that_diverged_stands_at_log_v_and_is_counted():
    """Of five seeds that fall for 40 points, one stops at its 20th, and one has no curve at all."""
    arm, fall = "TRM 0.1M", np.linspace(7, 5, 40)
    rows = [row(arm, s, 5.0, fall, 100) for s in range(3)] + [row(arm, 3, math.log(4096), fall[:20], 100, status="failed")]
    df = pd.DataFrame([*rows, row(arm, 4, math.log(4096), [], 100, status="failed")])
    df.loc[4, "record"]["curve"].clear()
    steps, nll = report.curve(df.iloc[3])
    assert steps == list(range(1, 41)) and nll[:20] == list(fall[:20]) and nll[20:] == [math.log(4096)] * 20
    (told,) = report.turned(df).to_dict("records")
    assert (told["seeds"], told["turned"], told["diverged"], told["reached"]) == (5, 1, 2, 4.0)
    assert told["rise"] == pytest.approx(math.exp(math.log(4096) - fall[17]))  # of the one that turned, at the lowest median of five
    assert not len(report.shape(df, COUNTED)) and report.diverged(df, arm) == " (2 of 5 diverged)"
    ((name, band),) = report.law_curves(df, "TRM").items()
    assert name == "0.1M (2 of 5 diverged)" and band[0][-1] == 4.0
    assert band[1][-1] == pytest.approx(math.exp((3 * 5 + 2 * math.log(4096)) / 5))
    assert report.curve(df.iloc[4], "last") is None  # it was never scored so


def test_a_size_whose_seeds_are_not_all_there_is_shown_without_a_band_and_not_counted():
    """Three seeds of one size: two fall to the end, the third turns at its 20th point of 40."""
    fall = np.linspace(7, 5, 40)
    curves = [fall, fall + 1, np.concatenate([fall[:20], fall[:20][::-1]])]
    df = pd.DataFrame([row("TRM 0.3M", s, 5.0, c, 100) for s, c in enumerate(curves)])
    ((name, (_, mean, low, high)),) = report.law_curves(df, "TRM").items()
    assert (
        name == "0.3M (3 of 5 seeds)"
        and mean[-1] == pytest.approx(math.exp((5 + 6 + 7) / 3))
        and (low == mean).all()
        and (high == mean).all()
    )
    assert report.not_counted(df, "TRM") == "TRM 0.3M, 3 of 5 seeds: 1 turned, up to 4.0 windows a parameter"
    assert report.law_verdict(df, COUNTED) == ("open", "0 of the sizes complete; two are needed")
    whole = pd.DataFrame([row("TRM 0.3M", s, 5.0, fall, 100) for s in range(5)])
    assert report.not_counted(whole, "TRM") == ""


def test_divergences_are_told_with_the_verdict_on_the_law():
    df = law_frame(lambda n, s: n // 10 - 1 + s % 2, (("0.1M", 100), ("0.3M", 200)))
    assert "diverged" not in report.law_verdict(df, COUNTED)[1]
    df.loc[0, "status"] = "failed"
    assert report.law_verdict(df, COUNTED)[1].endswith("; 1 of 10 runs diverged")


def test_texts_that_are_read_again_and_again():
    arms = {"steady 0.04M": 200, "steady 0.04M (text of N)": 100, "steady 0.04M (text of N/16)": 6}
    rows = [row(a, s, 5.0, curve_with_turn(9), 100) for a in arms for s in range(5)]
    for r in rows:
        r["record"]["data"] = {"windows": arms[r["arm"]]}
    found = report.repeats(pd.DataFrame(rows))
    assert list(found) == ["2.00, whole text", "1.00, N tokens", "0.06, N/16 tokens"] and found["0.06, N/16 tokens"][0][-1] == 4.0
    assert found["1.00, N tokens"][1].min() == pytest.approx(math.exp(5)) and not report.repeats(pd.DataFrame(rows[:3]))


def test_a_start_that_validation_does_not_share():
    """Every rate's own curve falls to the end, and from the last token each turns at another place."""
    rows = [
        row(arm, s, 1.0, np.linspace(7, 1, 40), 100, nll_last=list(curve_with_turn(at)))
        for arm, at in zip(report.MISMATCH.values(), (29, 19, 9), strict=True)
        for s in range(5)
    ]
    df = pd.DataFrame(rows)
    last = report.by_windows(df, report.MISMATCH, "last")
    assert list(last) == list(report.MISMATCH) and [b[0][b[1].argmin()] for b in last.values()] == pytest.approx([3, 2, 1])
    assert all(b[1].argmin() == 39 for b in report.by_windows(df, report.MISMATCH).values())
    assert report.law(df, "leaking", "last")[0].ratio.median() == pytest.approx(3, abs=0.2)  # the arm at 1e-4 alone


def test_the_earlier_setting_beside_its_twin():
    rows = [row("as it was", s, 0.1, np.zeros(40), 100, nll_last=[1.0] * 40) for s in range(5)]
    bands = report.earlier(pd.DataFrame(rows + [row("as it was, honest", s, 5.0, np.linspace(7, 5, 40), 100) for s in range(5)]))
    assert list(bands) == ["as trained, from the target", "from the last token", "honest twin"]
    near = report.near(bands, 1_000)
    assert near["as trained, from the target"] == (40, 1.0) and near["honest twin"] == (40, pytest.approx(math.exp(5)))
    one = report.earlier(pd.DataFrame(rows[:2]))  # a mean of two seeds has no band
    steps, mean, low, high = one["from the last token (2 of 5 seeds)"]
    assert len(one) == 2 and (mean == math.e).all() and (low == mean).all() and (high == mean).all() and len(steps) == 40


def test_the_write_ups_own_examples():
    table = report.examples_table()
    assert table.agree.tolist() == ["no", "no", "yes", "yes", "yes"]


def test_crossing_by_hand():
    x, y = (0.0, 1.0, 2.0), (5.0, 4.0, 3.5)
    assert report.crossing(x, y, 4.5) == (0.5, 0) and report.crossing(x, y, 3.75) == (1.5, 0)
    assert report.crossing(x, y, 5.0) == (0.0, 0) and report.crossing(x, y, 3.5) == (2.0, 0)
    assert report.crossing(x, y, 5.5) == (0.0, -1) and report.crossing(x, y, 3.0) == (2.0, 1)


@pytest.mark.parametrize("y", [(5.0, 5.0, 4.0), (5.0, 4.0, 4.0), (5.0, 5.0, 5.0)])
@pytest.mark.parametrize("target", [5.5, 5.0, 4.5, 4.0, 3.5])
def test_a_flat_end_gives_a_finite_crossing(y, target):
    at, _ = report.crossing((0.0, 1.0, 2.0), y, target)
    assert 0 <= at <= 2


def efficiency_frame(own, rival="standard"):
    """A rival gains 1 nat with every doubling from 50 to 400 thousand parameters, of which 41,640 are embeddings; the TRM of 100 thousand
    stands where one of `own` thousand would."""
    rows = []
    for seed in range(5):
        for arm, n in ((f"{rival} d=12", 50), (f"{rival} 0.1M", 100), (f"{rival} d=40", 400)):
            rows.append(row(arm, seed, 10 + 0.1 * seed - math.log2(n), [], 1000 * n, d=10))
        rows.append(row("everywhere 0.1M", seed, 10 + 0.1 * seed - math.log2(own) + 0.001 * (-1) ** seed, [], 100_000, d=10))
    return pd.DataFrame(rows)


def test_efficiency_by_hand():
    df = efficiency_frame(200)
    e, bound = report.efficiency(df)
    assert e.estimate == pytest.approx(2, rel=0.01) and e.low < e.estimate < e.high and not bound
    assert report.efficiency_verdict(df)[0] == "reproduced" and report.efficiency_verdict(df, "causal") == ("open", None, "")
    assert report.efficiency_verdict(efficiency_frame(200, "causal"), "causal")[0] == "reproduced"
    assert report.efficiency_verdict(efficiency_frame(130))[0] == "not reproduced"
    assert report.next_to(df, e) == (1, 4)  # the rivals of 100 and 400 thousand
    assert report.efficiency_verdict(df[df.seed < 3]) == ("open", None, "")
    under_way = df[df.arm.str.startswith("standard d=") & (df.seed < 2)].assign(arm="standard d=3", nll_b=99.0)
    assert report.efficiency(pd.concat([df, under_way]))[0] == e  # a width whose seeds are not all there is left out
    assert report.by_size(df, "parameters")["TRM"] == ((100,), (pytest.approx(math.exp(10.2 - math.log2(200) + 0.0002)),))
    assert report.by_size(df, "non_embedding")["standard"][0] == pytest.approx((8.36, 58.36, 358.36))
    outside = report.efficiency(efficiency_frame(399), count="non_embedding")[0]
    assert outside.estimate == pytest.approx((400_000 - 41_640) / (100_000 - 41_640), rel=0.01)


@pytest.mark.parametrize(
    ("own", "text", "verdict"),
    [
        (20, "at most 0.50", "not reproduced"),  # at most half of it: fewer than two times
        (800, "at least 4.00", "not reproduced"),  # more than three times
    ],
)
def test_beyond_the_trained_models_there_is_a_bound_and_no_extrapolation(own, text, verdict):
    word, e, bound = report.efficiency_verdict(efficiency_frame(own))
    assert (word, report.times(e, bound)) == (verdict, text)


def test_a_bound_that_leaves_the_claim_open_decides_nothing():
    large = efficiency_frame(800)
    word, e, bound = report.efficiency_verdict(large[~large.arm.str.endswith("d=40")])  # the largest has as many as the TRM
    assert (word, bound, e.estimate) == ("inconclusive", "at least", pytest.approx(1))
    small = efficiency_frame(20)
    small.loc[small.arm == "everywhere 0.1M", "parameters"] = 20_000
    assert report.efficiency_verdict(small)[::2] == ("inconclusive", "at most")  # at most 2.5 times


def test_parameters_outside_the_embeddings():
    spec = next(r.spec for r in capacity.grid("full") if r.arm == "leaking 0.04M (unused rows)")
    model = capacity.build(spec)
    inside = sum(p.numel() for name, p in model.named_parameters() if name.startswith(("embedding", "position")))
    r = SimpleNamespace(record={"spec": spec.as_dict()}, parameters=sum(p.numel() for p in model.parameters()))
    assert report.non_embedding(r) == r.parameters - inside


def test_sections_show_the_cut_runs_until_the_full_ones_are_there(monkeypatch):
    twins = ("as it was", "as it was, honest")
    frames = {
        "cpu": pd.DataFrame([row(a, s, 5.0, [], 100) for a in twins for s in range(5)] + [row("TRM 0.1M", 0, 5.0, [], 100)]),
        "full": pd.DataFrame([row(twins[0], s, 4.0, [], 100) for s in range(5)] + [row("TRM 0.1M", 0, 5.0, [], 100)]),
    }
    monkeypatch.setattr(report, "frame", lambda store, experiment, profile: frames[profile])
    df, profile = report.section(None, "as it was", "full")
    assert profile == "cpu" and set(df.arm) == set(twins)
    assert not len(report.section(None, "WikiText-2", "full")[0])
    frames["full"] = pd.concat([frames["full"], pd.DataFrame([row(twins[1], s, 4.0, [], 100) for s in range(5)])])
    df, profile = report.section(None, "as it was", "full")
    assert profile == "full" and df.nll_b.eq(4.0).all() and report.section(None, "as it was", "cpu")[1] == "cpu"


def test_runs_under_way_are_read_from_their_checkpoints(store):
    spec = smoke("TRM 0.1M")
    path = store.checkpoint(f"{spec.hash}.cpu.fp32")
    path.parent.mkdir(parents=True)
    meta = {"done": 10, "curves": [[{"step": 5, "nll": 4.5}, {"step": 10, "nll": 4.25}]]}
    path.write_bytes(save({"w": torch.zeros(1)}, {"trm": json.dumps(meta)}))
    path.with_name(f"{'0' * 16}.cpu.fp32.safetensors").write_bytes(b"broken")
    cut = next(r.spec for r in capacity.grid("cpu") if r.arm == "as it was")
    path.with_name(f"{cut.hash}.cpu.fp32.safetensors").write_bytes(path.read_bytes())
    assert list(report.under_way(store, "full").arm) == list(report.under_way(store, "cpu").arm) == ["as it was"]
    (found,) = report.under_way(store, "smoke").to_dict("records")
    assert (found["arm"], found["seed"], found["done"], found["steps"], found["nll"]) == ("TRM 0.1M", 0, 10, 20, [4.5, 4.25])


def test_everything_is_empty_without_records(store):
    df = pd.DataFrame(columns=["arm", "seed", "key", "device", "precision", "status", "record"])
    assert not len(report.turns(df)) and report.law_verdict(df, None)[0] == "open" and report.ppl_verdict(df, None)[0] == "open"
    assert report.law_curves(df, "TRM") == report.earlier(df) == {} and report.efficiency_verdict(df)[0] == "open"
    assert report.rivals(df, "0.1M").interval.isna().all() and report.diverged(df, "TRM 0.1M") == ""
    assert report.arms(df).seeds.sum() == 0 and all(r["effect"] is None for r in report.ablations(df) + report.causes(df))


def test_what_counting_reaches_is_read_while_seeds_are_pending(monkeypatch):
    """It is an evaluation of all seeds of an arm, whose targets are the same: one recorded seed is enough, another arm's is not."""
    df = pd.DataFrame([row("TRM WikiText-2", s, 7.0, [], 100) for s in range(2)])
    df["key"] = ["a", "b"]
    df["record"] = [{"experiment": "capacity"}] * 2
    store = lambda runs: SimpleNamespace(evaluations=lambda *_: [{"runs": runs, "result": COUNTED}])  # noqa: E731
    assert compare.references(store(["b", "c"]), df) == COUNTED
    assert compare.references(store(["c", "d"]), df) is None
