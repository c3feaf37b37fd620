"""Chapter 06: its grids, and its numbers on records made by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from test_masked import SMALL

from trmlib.data.synthetic import Dial
from trmlib.experiments import dial, hops
from trmlib.experiments import when_report as report
from trmlib.experiments.fill import FillTask
from trmlib.runs import Spec, TrainConfig

EXPERIMENTS = ("masked", "dial", "hops")


def record(arm, seed, detail, **extra):
    spec = {"model": extra.pop("model", {}), "data": extra.pop("data", {})}
    full = {
        "experiment": extra.pop("experiment", "hops"),
        "profile": "smoke",
        "spec": spec,
        "detail": detail,
        "parameters": 9,
        "inference_flops": 10**6,
        "serial_depth": 4,
    }
    return {
        "arm": arm,
        "seed": seed,
        "status": "recorded",
        "key": f"{arm}{seed}",
        "device": "cpu",
        "precision": "fp32",
        "record": full | extra,
    }


def chase(passes, speed, seed=0.0):
    """Accuracy (passes + 1, k) of a predictor that follows `speed` hops a pass and otherwise guesses one of two ends."""
    reach = speed * np.arange(passes + 1)[:, None]
    return np.where(reach >= np.arange(1, 7), 1.0 - seed, 0.5)


def hops_frame():
    data = {"length": 6, "trained": [1, 2, 4]}
    rows = [record("8 passes", s, {"accuracy": chase(16, 1, 0.01 * s)}, data=data, model={"passes": 2}) for s in range(2)]
    rows += [record("1 pass", s, {"accuracy": np.full((17, 6), 0.5)}, data=data, model={"passes": 1}) for s in range(2)]
    rows += [record("8 passes, untied", s, {"accuracy": chase(2, 1)}, data=data, model={"passes": 2, "tied": False}) for s in range(2)]
    return pd.DataFrame(rows + [record("TRM", 0, {"accuracy": chase(16, 1)}, data=data)])  # one seed: not enough


def test_lengths_are_trained_between_or_beyond():
    assert {k: v.tolist() for k, v in report.kinds(hops_frame(), "8 passes").items()} == {
        "trained": [0, 1, 3],
        "between": [2],
        "beyond": [4, 5],
    }


def test_thinking_is_what_passes_beyond_the_trained_ones_add():
    table = report.thinking(hops_frame(), "full").set_index("arm")
    e = table.thinking["8 passes"]
    assert e.estimate == pytest.approx(np.mean([0.5, 0.49])) and e.n == 2  # from guessing to solved
    row = table.loc["8 passes"]
    assert (row["trained"], row["between"], row["beyond"]) == pytest.approx((np.mean([1, 1, 0.5, 0.99, 0.99, 0.5]), 0.5, 0.5))
    assert row.beyond_most == pytest.approx(0.995) and row.passes == 2
    lost = hops_frame()
    for i in lost[lost.arm == "8 passes"].index:
        lost.at[i, "record"]["detail"]["accuracy"][2] = 0.0  # after its trained passes it names an element on the way
    assert report.thinking(lost, "full").set_index("arm").thinking["8 passes"].estimate == pytest.approx(e.estimate)  # a guess is as cheap
    assert table.thinking["8 passes, untied"] is None and table.thinking["TRM"] is None and table.thinking["1 pass"].estimate == 0


@pytest.mark.parametrize("speed, slope", [(1, 1.0), (0.5, 2.0)])
def test_passes_needed_grow_like_k_when_one_hop_is_followed_at_a_time(speed, slope):
    df = hops_frame()
    for i in df[df.arm == "8 passes"].index:
        df.at[i, "record"]["detail"]["accuracy"] = chase(16, speed)
    assert report.needed(df, "8 passes") == pytest.approx(np.tile(np.arange(1, 7) / speed, (2, 1)))
    g = report.growth(df, "8 passes")
    assert g["linear"] == pytest.approx(1) and g["per_hop"] == pytest.approx(slope) and g["log"] < 0.97 and g["difference"].estimate > 0.03


def test_passes_needed_grow_like_log_k_when_reach_doubles():
    df = hops_frame()
    reach = np.concatenate([[0], 2.0 ** np.arange(16)])[:, None]
    for i in df[df.arm == "8 passes"].index:
        df.at[i, "record"]["detail"]["accuracy"] = np.where(reach >= np.arange(1, 7), 1.0, 0.5)
    g = report.growth(df, "8 passes")
    assert g["log"] > g["linear"] and g["per_doubling"] == pytest.approx(1, abs=0.25)
    assert report.growth(df, "1 pass") is None and report.growth(df, "TRM") is None


def dial_frame():
    rows = []
    for arm, gain, flops in (("parallel", 0.0, 100), ("8 passes", 0.0, 400), ("4 samples", 0.5, 300)):
        for s in range(2):
            joint = {"coordination": [0, gain + 0.1 * s * bool(gain)], "coordination_ab": [0, 1.0], "coordination_ba": [0, 1.2], "parallel": [4.0, 4.0 - gain],
                     "flops": {"at once": flops, "one by one": 2 * flops}}  # fmt: skip
            data = {"doses": [0.0, 1.0], "symbols": 4}
            rows.append(
                record(
                    arm,
                    s,
                    {"joint": joint, "nll": [[1.4, 1.4]] * 17},
                    experiment="dial",
                    data=data,
                    model={"passes": 0 if arm == "parallel" else 3},
                )
            )
    return pd.DataFrame(rows)


def test_coordination_recovered_by_each_way():
    found = report.recovered(dial_frame(), 1)
    assert [p[:3] for p in found["passes"]] == [("parallel", 100, 0.0), ("8 passes", 400, 0.0)]
    assert [p[:3] for p in found["samples"]][1] == ("4 samples", 300, pytest.approx(0.55))
    assert [p[:3] for p in found["filling"]] == [("parallel", 200, pytest.approx(1.1)), ("8 passes", 800, pytest.approx(1.1))]
    doses, mean, low, high = report.dose_response(dial_frame(), "4 samples")
    assert doses == pytest.approx([0, math.log(4)]) and mean == pytest.approx([0, 0.55]) and low[1] < 0.55 < high[1]
    assert report.dose_response(dial_frame(), "16 samples") is None
    assert report.blank_nll(dial_frame(), "parallel")[1] == pytest.approx([1.4, 1.4])


def test_the_answer_places_what_is_recorded_and_names_what_is_not(store):
    empty = pd.DataFrame(columns=["arm", "seed", "status", "record"])
    points, missing = report.answer(store, {"hops": empty, "dial": empty, "masked": empty}, "full")
    assert points == [] and {"hops", "dial", "two blanks", "Sudoku"} <= set(missing)
    points, missing = report.answer(store, {"hops": hops_frame(), "dial": dial_frame(), "masked": empty}, "full")
    by_task = {p["task"]: p for p in points}
    gains = [by_task[f"hops, k = {k}"]["gain"] for k in (2, 4)]  # with as many passes as were tested
    assert gains == pytest.approx([0.99, 0.99]) and by_task["hops, k = 2"]["depth"] == 2 and "hops, k = 8" not in by_task
    assert by_task["dial, 1.39 nats"]["gain"] == 0 and by_task["dial, 1.39 nats"]["coordination"] == pytest.approx(math.log(4))
    assert "hops" not in missing and "two blanks" in missing
    table = report.advice({"hops": hops_frame(), "dial": dial_frame(), "masked": empty})
    assert table.set_index("spend on").expect["filling one by one"] == "79% [79%, 79%] of the shared nats"
    assert (report.advice({"hops": empty, "dial": empty, "masked": empty}).expect == "not recorded yet").all()


@pytest.mark.parametrize("experiment, arms", [(hops, 17), (dial, 8)])
def test_every_arm_is_a_run_of_its_own_on_ten_seeds(experiment, arms):
    runs = experiment.grid("full")
    assert len({r.spec.hash for r in runs}) == len(runs) == 10 * arms == 10 * len(experiment.MODELS)
    assert len(experiment.grid("smoke")) == 2 * arms and experiment.grid("cpu") == []


def test_what_a_window_costs_by_hand():
    language = Dial(symbols=3, shifts=2)
    task = FillTask(Spec("dial", SMALL, language, TrainConfig(), 0))
    flops = task.final(task.model())["detail"]["joint"]["flops"]
    d, v, t = 16, language.vocab, 4
    block = lambda q, kv: 2 * (2 * q * d * d + 2 * kv * d * d + 2 * q * kv * d + 8 * q * d * d)  # noqa: E731, projections, attention, MLP
    once = lambda m: block(t, t) + block(m, t) + 3 * 2 * block(m, m) + 2 * m * d * v  # noqa: E731
    assert flops["at once"] == once(2) and flops["one by one"] == once(2) + once(1)
