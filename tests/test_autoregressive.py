"""Chapter 03: its grid, what its arms may see, and its report on records made by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from trmlib import compare, tables
from trmlib.data import tokens
from trmlib.experiments import autoregressive
from trmlib.experiments import autoregressive_evaluations as evaluations
from trmlib.experiments import autoregressive_report as report
from trmlib.experiments.autoregressive import BASELINE, TRM, UNSHIFTED, Task
from trmlib.models.chunk import ChunkLM, slot_nll
from trmlib.train import Weights, costs, train

EXPERIMENTS = ("autoregressive",)


def smoke(arm, **changes):
    spec = next(r.spec for r in autoregressive.grid("smoke") if r.arm == arm)
    return replace(spec, train=replace(spec.train, **changes))


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full"])
def test_every_run_of_the_grid_is_one_of_its_own(profile):
    runs = autoregressive.grid(profile)
    assert len({r.spec.hash for r in runs}) == len(runs) == len({(r.arm, r.spec.seed) for r in runs})
    named = {arm for a, b, _ in report.PRIMARY for arm in (a, b)}
    assert named <= {r.arm for r in runs}
    arms, rates = list(dict.fromkeys(r.arm for r in runs)), autoregressive.RATES[: 1 if profile == "smoke" else None]
    assert arms[:4] == ["baseline, no shift", "TRM, no shift", "baseline", "TRM"]
    sweep = [f"{name} (lr {lr:g})" for name in ("baseline", "TRM") for lr in rates]
    assert arms[4 : 5 + len(sweep)] == [*sweep, "baseline-compute"]  # equal tuning right after the headline arms


def test_passes_cost_no_parameters_and_the_compute_is_counted():
    count = {name: sum(p.numel() for p in ChunkLM(m, 5000, 16, 2).parameters()) for name, m in autoregressive.MODELS.items()}
    assert len({count[a] for a in count if a != "6-blocks"}) == 1
    assert count["6-blocks"] - count["baseline"] == 4 * (12 * 128**2 + 13 * 128)
    flops = {}
    for arm in ("baseline", "TRM", "baseline-everywhere", "TRM-everywhere"):
        task = Task(replace(smoke(arm), model=autoregressive.MODELS[arm], data=replace(smoke(arm).data, context=16)))
        model = ChunkLM(task.spec.model, 5000, 16, 2)  # the read-out of all words is a large part
        flops[arm] = costs(task, task.spec, Weights([model], torch.device("cpu")), torch.device("cpu"))[0]
    assert flops["TRM"] / flops["baseline"] == pytest.approx(autoregressive.COMPUTE, rel=0.005)
    assert flops["TRM-everywhere"] / flops["baseline-everywhere"] == pytest.approx(autoregressive.EVERYWHERE, rel=0.005)
    for profile in ("cpu", "full"):
        steps = {r.arm: r.spec.train.steps for r in autoregressive.grid(profile)}
        assert steps["baseline-compute"] == round(autoregressive.COMPUTE * steps["TRM"]) and steps["baseline-longer"] == 3 * steps["TRM"]


def test_a_model_trained_everywhere_is_scored_as_it_is_trained():
    """Its passes refine every position in training; so they do in every score, and the same weights with slots for the chunk alone read otherwise."""
    task = Task(smoke("TRM-everywhere"))
    torch.manual_seed(0)
    model = task.model().eval()
    logits, _ = model(task.tokens, slots=task.tokens.shape[1] - 1)
    nll = slot_nll(logits, task.tokens)[:, -task.config.chunk :].detach().numpy()
    assert task.spec.model.T == 3 and task.final(model)["metrics"]["nll_b"] == pytest.approx(nll[task.in_b].mean(), rel=1e-5)
    assert task.curve(model, task.spec, 0)["nll"] == pytest.approx(nll[task.curve_rows].mean(), rel=1e-5)
    assert evaluations.passes(task, model)["nll_b"][3] == pytest.approx(nll[task.in_b].mean(), rel=1e-5)
    alone = Task(smoke("TRM-everywhere, chunk alone"))
    other = alone.model()
    other.load_state_dict(model.state_dict())
    assert abs(alone.final(other)["metrics"]["nll_b"] - nll[task.in_b].mean()) > 1e-4


def test_every_pass_means_each_and_not_the_start():
    task = Task(smoke("every-pass"))
    torch.manual_seed(0)
    model, (batch,) = task.model().eval(), task.batches(0, 0, 1)
    read = [slot_nll(model(batch["tokens"], passes=k)[0], batch["tokens"]).mean() for k in (1, 2, 3)]
    torch.testing.assert_close(task.loss(model, batch, None)[0], torch.stack(read).mean())


def test_targets_that_are_words_by_hand():
    task = Task(smoke("baseline"))
    torch.manual_seed(0)
    model, names = task.model().eval(), task.tokeniser.names
    rows = task.tokens[task.in_b]
    nll, targets = slot_nll(model(rows)[0], rows).detach().numpy(), rows[:, task.config.context :].numpy()
    words = np.array([[names[t] not in ("<UNK>", "<EOS>", "<unk>") for t in row] for row in targets])
    assert 0 < words.mean() < 1 and evaluations.known(task, model)["nll_b"] == pytest.approx(nll[words].mean(), rel=1e-5)


def test_without_the_shift_each_slot_sees_its_own_target_and_with_it_only_earlier_ones(store):
    for arm, leaks in (("baseline, no shift", True), ("TRM, no shift", True), ("baseline", False), ("TRM", False)):
        task = Task(smoke(arm))
        torch.manual_seed(0)
        matrix = evaluations.leak_probe(task, task.model())["as trained"]
        assert (np.diag(matrix).min() > 1e-4) == leaks and matrix[0, 1] == 0 and matrix[1, 0] > 0


def test_a_recursion_never_trains_where_its_slots_start_and_plain_passes_do():
    for arm, trained in (("recursion", False), ("TRM", True), ("baseline", True)):
        task = Task(smoke(arm))
        torch.manual_seed(0)
        model, (batch,) = task.model(), task.batches(0, 0, 1)
        task.loss(model, batch, None)[0].backward()
        first = task.config.context - 1  # the slots hold the last word read and those before the last one asked for
        context, slots = model.position.weight.grad[:first], model.position.weight.grad[first : first + task.config.chunk]
        assert bool(slots.any()) == trained and context.any()


def test_the_missing_shift_is_learnt_to_perplexity_one_and_the_honest_model_is_not(store):
    found = {}
    for arm in ("baseline, no shift", "baseline"):
        spec = smoke(arm, steps=300, eval_every=100)
        found[arm] = train(Task(spec), [spec], store)[0]["metrics"]["nll_b"]
    assert found["baseline, no shift"] < 0.3 < 0.5 * found["baseline"]


def test_passes_are_scored_beyond_the_trained_ones():
    task = Task(smoke("TRM"))
    torch.manual_seed(0)
    model = task.model()
    nll = evaluations.passes(task, model)["nll_b"]
    assert nll.shape == (9,) and nll[3] == pytest.approx(task.final(model)["metrics"]["nll_b"], abs=1e-5)


def test_words_may_be_lower_cased():
    t = tokens.learn("lower", 6, ["The the cat", "a The"])
    assert t.names[3:] == ("the", "a", "cat") and t.encode(["THE Dog"])[0].tolist() == [3, 1, 2]


# ---------------------------------------------------------------- report


def frame(**arms):
    rows = []
    for arm, ppls in arms.items():
        for s, ppl in enumerate(ppls):
            rows.append({"arm": arm, "seed": s, "key": f"{arm}{s}", "status": "recorded", "nll_b": math.log(ppl), "nll_a": math.log(ppl),
                         "record": {"profile": "smoke", "experiment": "autoregressive"}})  # fmt: skip
    return pd.DataFrame(rows)


FOUR = {"baseline, no shift": (1.04, 1.05), "TRM, no shift": (1.05, 1.06), "baseline": (200, 210), "TRM": (201, 209)}


def test_the_verdict_needs_the_leak_to_restore_the_claim_and_the_shift_to_remove_it():
    word, ppl = report.verdict(frame(**FOUR))
    assert word == "artefact (of a missing shift)" and ppl["baseline"] == pytest.approx(math.sqrt(200 * 210))
    assert report.verdict(frame(**FOUR | {"TRM, no shift": (1.05, 1.5)}))[0] == "inconclusive"
    assert report.verdict(frame(**FOUR | {"TRM": (1.05, 209)}))[0] == "inconclusive"
    assert report.verdict(frame(**{k: v for k, v in FOUR.items() if k != "TRM"})) == ("open", {})
    assert set(UNSHIFTED) < set(FOUR) and TRM.T == 3 and BASELINE.T == 1


def test_tables_of_settings_tuning_and_passes_by_hand():
    df = frame(**FOUR, **{"baseline (chunk 4)": (100, 100), "TRM (chunk 4)": (90, 90), "TRM (lr 0.001)": (8, 2), "8-passes": (400, 400)})
    row = report.settings(df).set_index("setting").loc["chunk 4"]
    assert row["baseline"] == pytest.approx(100) and row["effect"].estimate == pytest.approx(-0.1) and row["TRM, no shift"] is None
    rates, mean, *_ = compare.tuning(df, ["TRM"], autoregressive.RATES)["TRM"]
    assert rates == [0.001] and mean[0] == pytest.approx(4)
    passes, mean, *_ = report.trained_passes(df)
    assert passes == [1, 3, 8] and mean[2] == pytest.approx(400)
    assert report.trained_passes(frame(baseline=(2, 2))) is None


def test_the_headline_at_full_length_by_hand(monkeypatch):
    whole = frame(**{"TRM": (90, 95), "baseline": (100, 100), "TRM (published rate)": (90,), "baseline (published rate)": (100, 100)})
    for r, times in zip(whole.record, (0.5, 0.8, 1, 1, 1, 1, 1), strict=True):
        r["curve"] = {"step": [1_250, 2_500, 20_000], "nll": [1.0, math.log(300 * (1 if times < 1 else 2)), math.log(100 * times)]}
    monkeypatch.setattr(report, "frame", lambda store, experiment, profile: {"full": whole}[profile])
    tuned, published = report.at_length(None).values()
    assert list(report.at_length(None)) == [1e-3, autoregressive.PUBLISHED]
    assert tuned.effect.estimate == pytest.approx(math.sqrt(0.9 * 0.95) - 1) and tuned.seeds == 2
    assert tuned.ppl == pytest.approx((100, math.sqrt(90 * 95)))
    steps, mean, low, high = tuned.along
    assert list(steps) == [1_250, 2_500, 20_000] and mean == pytest.approx([0, -50, 100 * (math.sqrt(0.4) - 1)])
    assert low[2] < mean[2] < high[2]
    assert (tuned.early.estimate, tuned.late.estimate) == pytest.approx((-0.5, math.sqrt(0.4) - 1))  # 1,250 is in the first half
    assert tuned.grows.estimate == pytest.approx(2 * math.sqrt(0.4) - 1)
    assert (published.seeds, published.effect, published.along, published.grows) == (1, None, None, None)  # one pair


def test_the_full_profile_trains_both_models_at_the_published_rate_too():
    lr = {(r.arm, r.spec.seed): r.spec.train.lr for r in autoregressive.grid("full")}
    for name in ("baseline", "TRM"):
        assert {lr[name, s] for s in autoregressive.SEEDS} == {1e-3}
        assert {lr[f"{name} (published rate)", s] for s in autoregressive.SEEDS} == {lr[f"{name}, no shift", 0]} == {3e-4}


def test_a_rate_that_a_faster_learner_seems_to_have_by_hand():
    ppl = {
        "baseline": (400, 200, 100, 150),
        "TRM": (200, 141.42, 100, 200),
    }  # what the baseline reads at 3e-4; half way to 1e-3 in logarithms
    sweep = {f"{name} (lr {lr:g})": (v, v * 1.1) for name, of in ppl.items() for lr, v in zip(autoregressive.RATES, of, strict=True)}
    found = report.as_if_faster(frame(**sweep))
    assert list(found) == [1e-4, 3e-4] and found[1e-4] == pytest.approx((3, 3, 3))
    assert found[3e-4] == pytest.approx([math.sqrt(10 / 3)] * 3, rel=1e-4)
    assert report.as_if_faster(frame(**FOUR)) == {} and report.as_if_faster(frame(**{k: v[:1] for k, v in sweep.items()})) == {}
    assert 1e-4 not in report.as_if_faster(frame(**sweep | {"TRM (lr 0.0001)": (90, 90)}))  # better than the baseline at any rate


def test_runs_that_were_still_falling_by_hand():
    df = frame(**{"baseline, no shift (chunk 4)": (1.2, 1.2), "TRM, no shift (chunk 4)": (1.2, 1.2), "TRM (chunk 4)": (200, 200)})
    for r, nll in zip(df.record, ([3, 2, 1], [3, 1, 1], [3, 1, 2], [3, 1, 0.995], [3, 2, 1], [3, 2, 1]), strict=True):
        r["curve"] = {"nll": nll}
    assert report.falling(df, "chunk 4") == (1, 4)


def test_a_chapter_shows_the_cut_profile_where_it_has_more_than_the_full_one(monkeypatch):
    full, cut = frame(baseline=(1, 2))[:0], frame(**FOUR).assign(key=lambda df: "cut " + df.key)
    monkeypatch.setattr(tables, "frame", lambda store, experiment, profile: {"full": full, "cpu": cut, "smoke": full}[profile])
    assert tables.shown(None, "autoregressive", "full")[1] == "cpu" and len(tables.shown(None, "autoregressive", "full")[0]) == 8
    assert tables.shown(None, "autoregressive", "smoke")[1] == "smoke"
    full = frame(baseline=(2, 2))  # one run at full length must not blank the chapter
    assert tables.shown(None, "autoregressive", "full")[1] == "cpu"
    full = frame(**FOUR)
    assert tables.shown(None, "autoregressive", "full")[1] == "full"
    cut = frame(**FOUR, other=(1, 2))  # what both profiles train alike is not cut because something else is
    assert tables.shown(None, "autoregressive", "full") == (full, "full")
    full, cut = frame(TRM=(1, 1), baseline=(2, 2)), frame(**FOUR).assign(key=lambda df: "cut " + df.key)
    monkeypatch.setattr(tables, "arms_done", lambda df, experiment: int((df.groupby("arm").size() >= 2).sum()))
    assert tables.shown(None, "autoregressive", "full")[1] == "cpu"  # the chapter as a whole
    assert tables.shown(None, "autoregressive", "full", ("TRM", "baseline")) == (full, "full")  # what stands in full by itself
    assert tables.shown(None, "autoregressive", "full", ("TRM", "8-passes"))[1] == "cpu"
    full = full[:-1]
    assert tables.shown(None, "autoregressive", "full", ("TRM", "baseline"))[1] == "cpu"
