"""Chapter 01: its grid, its task on the toy language, its evaluations, and the report on records made by hand."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from trmlib import compare
from trmlib.data import sequences
from trmlib.evaluate import score_chunks
from trmlib.experiments import shakespeare
from trmlib.experiments import shakespeare_evaluations as evaluations
from trmlib.experiments import shakespeare_report as report
from trmlib.experiments.shakespeare import COMPUTE, Task
from trmlib.models.chunk import ChunkLM, slot_nll
from trmlib.runs import TrainConfig
from trmlib.train import Weights, costs, losses, rate, train

EXPERIMENTS = ("shakespeare",)


def smoke(arm, model=None, data=None, **changes):
    """The first smoke spec of an arm, with fields of its configs replaced."""
    s = next(r.spec for r in shakespeare.grid("smoke") if r.arm == arm)
    return replace(s, model=replace(s.model, **model or {}), data=replace(s.data, **data or {}), train=replace(s.train, **changes))


@pytest.mark.parametrize("profile", ["smoke", "cpu", "full"])
def test_every_run_of_the_grid_is_one_of_its_own(profile):
    runs = shakespeare.grid(profile)
    assert len({r.spec.hash for r in runs}) == len(runs)
    assert [r.arm for r in runs if r.spec.seed == 0][:3] == ["target", "baseline", "mask"]
    named = {arm for a, b, _ in report.PRIMARY for arm in (a, b)} | {arm for g in report.GRIDS.values() for arm in g.values()}
    assert profile == "smoke" or named <= {r.arm for r in runs}  # smoke trains each path once, not each grid


def test_full_scale_is_the_earlier_codes():
    runs = {r.arm: r.spec for r in shakespeare.grid("full") if r.spec.seed == 0}
    t = runs["target"].train
    assert t.steps == 5 * ((1_003_854 - 66) // 128) and (t.lr, t.weight_decay, t.clip, t.batch) == (3e-4, 0.1, 1.0, 128)
    assert runs["bounded-sup-4"].train.n_sup * runs["bounded-sup-4"].train.steps == pytest.approx(t.steps, abs=4)


@pytest.mark.parametrize("profile", ["cpu", "full"])
def test_the_sweep_comes_right_after_the_headline_arms_and_tries_their_own_rate(profile):
    arms = list(dict.fromkeys(r.arm for r in shakespeare.grid(profile)))
    sweep = [f"{name} (lr {lr:g})" for name in ("baseline", "mask") for lr in shakespeare.RATES]
    assert arms[:3] == ["target", "baseline", "mask"] and arms[3:13] == sweep and arms[13] == "baseline-compute"
    assert {r.spec.train.lr for r in shakespeare.grid(profile) if r.arm in arms[:3]} < set(shakespeare.RATES)


def test_recursion_never_trains_where_its_slots_start_and_one_reading_does():
    for arm, trained in (("mask", False), ("parallel", True)):
        task = Task(smoke(arm))
        torch.manual_seed(0)
        model, (batch,) = task.model(), task.batches(0, 0, 1)
        task.loss(model, batch, None)[0].backward()
        moved = lambda g: g is not None and g.abs().max().item() > 0  # noqa: E731
        context, slots = model.position.weight.grad.split([task.config.context, task.config.chunk])
        assert moved(model.mask.grad) == moved(slots) == trained and moved(context)


def test_equal_compute_is_counted():
    full = {r.arm: r.spec for r in shakespeare.grid("full")}

    def flops(arm):
        s = full[arm]
        s = replace(s, data=replace(s.data, corpus="toy-language", stretches=8), train=replace(s.train, batch=1))
        task = Task(s)
        return costs(task, s, Weights([task.model()], torch.device("cpu")), torch.device("cpu"))[0]

    assert flops("mask") / flops("baseline") == pytest.approx(COMPUTE, rel=0.05)


def test_loss_is_the_mean_over_the_chunk_or_over_every_position():
    for arm, slots in (("baseline", None), ("baseline-everywhere", 33)):
        task = Task(smoke(arm, {"dropout": 0.0}))
        torch.manual_seed(0)
        model, (batch,) = task.model(), task.batches(0, 0, 1)
        logits, _ = model(batch["tokens"], slots=slots)
        assert torch.equal(task.loss(model, batch, None)[0], slot_nll(logits, batch["tokens"]).mean())
        assert logits.shape[1] == (slots or 2)


def test_every_pass_means_each_refinement_and_not_the_start():
    for arm in ("every-pass", "mask"):
        task = Task(smoke(arm, {"dropout": 0.0, "loss_passes": "every", "gradient": "all", "T": 3}))
        torch.manual_seed(0)
        model, (batch,) = task.model(), task.batches(0, 0, 1)
        read = [slot_nll(model(batch["tokens"], passes=k)[0], batch["tokens"]).mean() for k in (1, 2, 3)]
        torch.testing.assert_close(task.loss(model, batch, None)[0], torch.stack(read).mean())


def test_only_with_a_gradient_through_all_do_passes_train_more_than_their_read_out():
    grads = []
    for gradient in ("all", "last"):
        task = Task(smoke("every-pass", {"dropout": 0.0, "gradient": gradient, "T": 2}))
        torch.manual_seed(0)
        model, (batch,) = task.model(), task.batches(0, 0, 1)
        logits, _ = model(batch["tokens"], every_pass=True)
        of = slot_nll(logits[1], batch["tokens"]).mean()  # the first of two refinements
        grads.append(torch.autograd.grad(of, model.blocks[0].attention.qkv.weight, materialize_grads=True)[0].abs().max().item())
    assert grads[0] > 0 == grads[1]


def test_the_calibration_estimates_on_random_batches_of_every_position():
    task = Task(smoke("calibration", {"dropout": 0.0}))
    torch.manual_seed(0)
    model, c = task.model(), task.config
    tokens = sequences.random_windows(task.text.validation, c.window, task.spec.train.batch, c.noisy_batches, 3)
    expected = [slot_nll(model(t, slots=c.window - 1)[0], t).mean().item() for t in tokens]
    assert task.estimate(model, 3).tolist() == pytest.approx(expected, rel=1e-5)


def test_other_starts_are_what_they_say():
    task = Task(smoke("target", {"dropout": 0.0}))
    torch.manual_seed(0)
    model = task.model()
    found, rows = evaluations.starts(task, model), task.tokens[torch.from_numpy(task.in_b)]
    targets = rows[:, task.config.context :]
    for name, start in (
        ("another", targets.roll(1, 0)),
        ("last", rows[:, [task.config.context - 1]].expand_as(targets)),
        ("target", targets),
    ):
        model.eval()
        nll = slot_nll(model(rows, start=start)[0], rows).mean().item()
        assert found[name][-1] == pytest.approx(nll, rel=1e-5), name


def test_inference_costs_what_scoring_a_chunk_does():
    """Whatever positions are trained: only the chunk is read out."""
    cost = lambda arm: costs(t := Task(smoke(arm)), t.spec, Weights([t.model()], torch.device("cpu")), torch.device("cpu"))  # noqa: E731
    assert cost("baseline-everywhere")[1:] == cost("baseline")[1:] and cost("baseline-everywhere")[0] > cost("baseline")[0]


def test_supervision_steps_carry_the_state_on():
    task = Task(smoke("bounded-sup-4", {"dropout": 0.0}))
    torch.manual_seed(0)
    weights, (batch,) = Weights([task.model()], torch.device("cpu")), task.batches(0, 0, 1)
    _, carry = losses(task, weights, batch, None)
    second, _ = losses(task, weights, batch, carry)
    logits, _ = weights.model(batch["tokens"], passes=6)
    torch.testing.assert_close(second[0], slot_nll(logits, batch["tokens"]).mean())
    assert task.passes == 12


def test_states_stay_bounded_over_sixteen_rounds_and_overflow_without():
    task = Task(smoke("bounded-sup-16", {"dropout": 0.0}))
    torch.manual_seed(0)
    model, (batch,) = task.model(), task.batches(0, 0, 1)
    assert torch.isfinite(model(batch["tokens"], passes=48)[0]).all() and task.passes == 48
    free = ChunkLM(replace(task.spec.model, bounded=False), len(task.text.table), task.config.context, task.config.chunk)
    free.load_state_dict(model.state_dict())
    assert not torch.isfinite(free(batch["tokens"], passes=48)[0]).all()


def test_seeds_together_as_one_by_one():
    specs = [replace(smoke("mask", {"dropout": 0.0}), seed=s) for s in (0, 1)]
    task, models = Task(specs[0]), []
    for s in specs:
        torch.manual_seed(s.seed)
        models.append(task.model())
    (batch,) = task.batches(0, 0, 1)
    alone = [losses(task, Weights([m], torch.device("cpu")), batch, None)[0].item() for m in models]
    together, _ = losses(task, Weights(models, torch.device("cpu")), {"tokens": torch.stack([batch["tokens"]] * 2)}, None)
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_scores_by_hand(tmp_path, store):
    spec = smoke("baseline", steps=8)
    task = Task(spec)
    (record,) = train(task, [spec], store)
    torch.manual_seed(0)
    model = task.model()
    result = task.final(model)
    nll = score_chunks(model, task.tokens)[0][0]
    rows = task.in_b
    assert result["metrics"]["nll_b"] == pytest.approx(nll[rows].mean()) and result["metrics"]["joint_b"] == pytest.approx(
        2 * nll[rows].mean()
    )
    own = score_chunks(model, task.tokens_own)[0][0]
    assert result["metrics"]["nll_split_b"] == pytest.approx(own[rows].mean()) and not np.allclose(own, nll)
    assert result["metrics"]["nll_a"] == pytest.approx(nll[~rows].mean()) and result["metrics"]["nll_all"] == pytest.approx(nll.mean())
    assert len(task.curve_rows) and not rows[task.curve_rows].any()  # choices are made on part A
    assert task.curve(model, spec, 0)["nll"] == pytest.approx(nll[task.curve_rows].mean())
    by = result["detail"]["by_article"]
    assert np.allclose(by["nll"], [nll[task.fixed.article == k].mean() for k in range(len(by["nll"]))])
    weights = by["characters"] * by["part_b"]
    assert (by["nll"] * weights).sum() / weights.sum() == pytest.approx(nll[rows].mean())
    assert set(record["curve"]) == {"step", "train_loss", "nll", "accuracy", "nll_split"} and record["curve"]["step"] == [8]


def test_a_leak_is_learnt_and_seen_and_does_not_survive_another_start(store):
    spec = smoke("target", {"n": 1, "T": 1, "dropout": 0.0, "d": 32}, steps=150, lr=1e-2, batch=32, eval_every=150)
    task = Task(spec)
    (record,) = train(task, [spec], store)
    assert record["metrics"]["nll_b"] < 0.1
    model = evaluations.load_model(task, {k: v for k, v in weights_of(store, spec).items()})
    matrix = evaluations.leak_probe(task, model)["as trained"]
    assert matrix.diagonal().min() > 0.5
    starts = evaluations.starts(task, model)
    assert (
        starts["target"][-1] == pytest.approx(record["metrics"]["nll_b"], abs=1e-5) and starts["wrong"][-1] > 3 and starts["zeros"][-1] > 1
    )


def weights_of(store, spec):
    from safetensors.torch import load_file

    return load_file(store.weights(f"{spec.hash}.cpu.fp32"))


def test_samples_are_text_and_strips_name_their_chunk():
    task = Task(smoke("mask"))
    torch.manual_seed(0)
    out = evaluations.samples(task, task.model(), chunks=2, length=6)
    assert len(out["strips"]) == 2 and len(out["text"]) == 8 + 6
    text = evaluations.sample(task, task.model(), "the", 10, temperature=0)
    assert text.startswith("the") and len(text) == 13 and set(text) <= set(task.text.table)
    strip = evaluations.passes_strip(task, task.model(), task.tokens[0])
    assert strip["context"] + strip["target"] == task.text.decode(task.tokens[0].tolist())
    cells = report.strip_cells(strip)
    assert list(cells.iloc[:, 0]) == ["start", "pass 1", "pass 2", "pass 3", "target"] and cells.shape == (5, 3)


def test_cosine_ends_at_its_share_and_the_default_is_constant():
    t = TrainConfig(steps=11, lr=1.0, warmup=2, decay_to=0.1)
    rates = [rate(t, done) for done in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[10] == pytest.approx(0.1) and rates[6] == pytest.approx(0.55)
    assert [rate(TrainConfig(lr=3e-4, warmup=4), done) for done in (0, 1, 3, 4, 9)] == [3e-4 * 0.25, 3e-4 * 0.5, 3e-4, 3e-4, 3e-4]


def test_counting_characters_and_pairs_by_hand():
    """Of the text 0 1 0 1 … 0 1, then 2 0: every count plus one, of three characters."""
    ids = np.array([0, 1] * 10 + [2, 0])
    text = SimpleNamespace(train=ids, table="abc")
    task = SimpleNamespace(text=text, config=SimpleNamespace(context=2), tokens=torch.tensor([[2, 0, 1, 0], [2, 1, 2, 0], [0, 0, 0, 0]]),
                           in_b=np.array([True, True, False]))  # fmt: skip
    after = lambda a, b, far: (sum((ids[:-far] == a) & (ids[far:] == b)) + 1) / (sum(ids[:-far] == a) + 3)  # noqa: E731
    p = (np.bincount(ids[1:], minlength=3) + 3) / (len(ids) - 1 + 9)
    expected = {
        "unigram": -np.log([p[1], p[0], p[2], p[0]]).mean(),
        "bigram": -np.log([after(0, 1, 1), after(1, 0, 1), after(1, 2, 1), after(2, 0, 1)]).mean(),
        "last": -np.log([after(0, 1, 1), after(0, 0, 2), after(1, 2, 1), after(1, 0, 2)]).mean(),
    }
    assert evaluations.references(task, []) == pytest.approx(expected)


# ---------------------------------------------------------------- the report, on records made by hand

STEPS = [250, 500]


def row(arm, seed, nll, split=4.0, **more):
    detail = {"by_article": {"nll": [nll, nll, nll], "characters": [10, 30, 20], "part_b": [0, 1, 1]}, "by_pass": {"nll_b": [nll + 1, nll]}}
    record = {"curve": {"step": STEPS, "nll": [nll + 1, nll], "nll_split": [split, split + 1]}, "detail": detail, "profile": "full",
              "experiment": "shakespeare", "digest": f"{arm}{seed}"}  # fmt: skip
    return {"arm": arm, "seed": seed, "key": f"{arm}.{seed}", "status": "recorded", "steps": 500, "nll_b": nll, "joint_b": 2 * nll, "nll_split_b": split + 1,
            "parameters": 10, "train_flops": 10**15, "inference_flops": 10**6, "serial_depth": 2, "seconds": 60.0, "device": "cpu", "precision": "fp32",
            "record": record, **more}  # fmt: skip


def frame(**arms):
    return pd.DataFrame([row(arm, s, v) for arm, values in arms.items() for s, v in enumerate(values)])


BASE = np.array([1.80, 1.82, 1.78, 1.81, 1.79])
JITTER = np.array([0.001, -0.001, 0.002, 0.0, -0.002])


def test_verdicts():
    leak = JITTER + 0.01
    assert report.verdict(frame(baseline=BASE, target=leak))[0] == "open"
    word, effect = report.verdict(frame(baseline=BASE, target=leak, mask=BASE + 0.05 + JITTER))
    assert word == "artefact (of starting at the target)" and effect.estimate == pytest.approx(math.expm1(0.05), abs=1e-4)
    assert report.verdict(frame(baseline=BASE, target=leak, mask=BASE - 0.2 + JITTER))[0] == "not reproduced"  # better, but not by 98 %
    same = frame(baseline=BASE, target=BASE + JITTER, mask=BASE + JITTER)
    assert report.verdict(same)[0] == "not reproduced"  # without an effect to restore there is no artefact


def test_ladder_changes_one_thing_at_a_time():
    df = frame(baseline=BASE, target=JITTER + 0.01, mask=BASE + 0.05 + JITTER)
    steps = report.ladder(df, best=False)
    assert steps.baseline.tolist() == pytest.approx([math.exp(5), math.exp(1.8), math.exp(5), math.exp(1.8)])
    assert steps.trm.tolist() == pytest.approx([math.exp(5), math.exp(0.01), math.exp(5), math.exp(1.85)])
    best = report.ladder(df)  # the curves under two tables stand at 4 first and end at 5
    assert best.baseline.tolist() == pytest.approx([math.exp(4), math.exp(1.8), math.exp(4), math.exp(1.8)])
    failed = df.assign(status=np.where((df.arm == "mask") & (df.seed == 0), "failed", "recorded"), record=df.record.where(df.arm != "mask"))
    failed.loc[failed.status == "recorded", "record"] = df.record
    assert report.ladder(failed).trm.iloc[2] == pytest.approx(math.exp((5 + 4 * 4) / 5))  # no curve: its metric stands for it
    assert report.ladder(frame(baseline=BASE)).effect.isna().all()


def test_two_tables_explain_the_number_only_where_it_lies():
    df = pd.DataFrame(
        [row(shakespeare.BEGUN, s, v, split=math.log(55.08) + j) for s, (v, j) in enumerate(zip(BASE, 5 * JITTER, strict=True))]
    )
    found = report.two_tables(df)
    assert (
        found["verdict"] == "explained by the two tables"
        and found["best"] == pytest.approx(55.08)
        and found["one"] == pytest.approx(math.exp(1.8))
    )
    assert found["first"] and found["last"] == pytest.approx(math.e * 55.08)  # its best evaluation is its first, and it ends higher
    assert found["then"] == pytest.approx(math.exp(2.8)) and [found["step"], found["steps"]] == [
        STEPS[0],
        STEPS[-1],
    ]  # with one table, at that first evaluation
    half = 2.776445 * np.std(5 * JITTER, ddof=1) * math.sqrt(1.2)
    assert found["high"] == pytest.approx(55.08 * math.exp(half), rel=1e-5)
    assert (
        report.two_tables(
            pd.DataFrame([row(shakespeare.BEGUN, s, v, split=3.0 + j) for s, (v, j) in enumerate(zip(BASE, JITTER, strict=True))])
        )["verdict"]
        == "open"
    )


def test_calibration_is_reached_when_the_published_loss_is_not_below_the_interval():
    estimates = 1.90 + 10 * JITTER
    df = pd.DataFrame([row("calibration", s, 1.9, estimate=e, estimate_sd=0.02) for s, e in enumerate(estimates)])
    found = report.calibration(df)
    assert found["mean"] == pytest.approx(1.9) and found["reached"]
    assert not report.calibration(df.assign(estimate=2.1 + JITTER))["reached"]
    assert report.calibration(frame(baseline=BASE)) is None


def test_curves_over_compute_and_grids():
    df = frame(mask=BASE, **{"n-1": BASE + 0.1})
    flops, mean, *_ = report.flops_bands(df, ["mask"])["mask"]
    assert flops.tolist() == [500, 1000] and mean[1] == pytest.approx(math.exp(1.8))
    values, mean, low, high = compare.series(df, report.GRIDS["latent updates n"])
    assert (
        values == [1, 6] and mean.tolist() == pytest.approx([math.exp(1.9), math.exp(1.8)]) and (low < mean).all() and (mean < high).all()
    )
    assert report.chunk_series(df) == {}


def test_slots_are_compared_one_by_one_and_a_run_that_diverged_knows_nothing_at_either():
    df = frame(baseline=BASE, parallel=BASE, mask=BASE[:4])
    for r in df.itertuples():
        r.record["detail"]["by_slot"] = {"nll_b": [r.nll_b, r.nll_b + (0.5 if r.arm == "parallel" else 0)]}
    df.loc[(df.arm == "parallel") & (df.seed == 2), ["status", "nll_b", "joint_b"]] = ["failed", math.log(65), 2 * math.log(65)]
    found = report.by_slot(df.sample(frac=1, random_state=0), ("baseline", "parallel", "mask"))
    assert list(found) == ["baseline", "parallel"]  # one seed of mask is missing
    assert found["baseline"].tolist() == [[v, v] for v in BASE]
    assert found["parallel"].tolist() == [[v, v + 0.5] for v in BASE[:2]] + [[math.log(65)] * 2] + [[v, v + 0.5] for v in BASE[3:]]


def test_crossed_effect_weighs_characters_of_part_b():
    df = frame(baseline=BASE, mask=BASE + 0.1)
    assert compare.crossed_effect(df, "mask", "baseline", of="characters").estimate == pytest.approx(math.expm1(0.1))


def test_toy_windows_are_shared_by_all_arms():
    seen = Counter(tuple(Task(smoke(arm)).batches(0, 0, 1)[0]["tokens"].flatten().tolist()) for arm in ("mask", "baseline", "zeros"))
    assert len(seen) == 1 and sequences.load("toy-language") is sequences.load("toy-language")
