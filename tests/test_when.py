"""Chapter 06: its grids, and its numbers on records made by hand."""

import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from test_masked import SMALL

from trmlib import article, compare, plots, stats
from trmlib.data.synthetic import Dial, Hops
from trmlib.evaluate import orders_of
from trmlib.experiments import dial, fill_evaluations, hops
from trmlib.experiments import when_report as report
from trmlib.experiments.fill import FillTask
from trmlib.runs import Spec, TrainConfig, spec_hash

EXPERIMENTS = ("shakespeare", "masked", "autoregressive", "capacity", "dial", "hops", "sudoku")


def record(arm, seed, detail, **extra):
    spec = {"model": extra.pop("model", {}), "data": extra.pop("data", {}), "train": extra.pop("train", {})}
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
        "key": f"{spec_hash([arm, seed])}.cpu.fp32",
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
    assert row.beyond_most == pytest.approx(0.995) and (row.read_at, row.most_trained, row.most) == (2, 2, 16)
    assert e.p == pytest.approx(table.q["8 passes"] / 2)  # two arms have an effect
    lost = hops_frame()
    for i in lost[lost.arm == "8 passes"].index:
        lost.at[i, "record"]["detail"]["accuracy"][2] = 0.0  # after its trained passes it names an element on the way
    assert report.thinking(lost, "full").set_index("arm").thinking["8 passes"].estimate == pytest.approx(e.estimate)  # a guess is as cheap
    assert not any(r.lost for r in table.itertuples() if r.thinking)
    worse = hops_frame()
    for i in worse[worse.arm == "8 passes"].index:  # as trained it is a little below a guess, in the end a little less so
        accuracy, at = worse.at[i, "record"]["detail"]["accuracy"], report.kinds(worse, "8 passes")["beyond"]
        accuracy[2], accuracy[-1] = (np.where(np.isin(np.arange(len(accuracy[2])), at), v, 1.0).tolist() for v in (0.40, 0.45 + 0.001 * i))
    row = report.thinking(worse, "full").set_index("arm").loc["8 passes"]
    assert row.thinking.estimate == pytest.approx(-0.05, abs=0.01) and not row.lost
    assert table.thinking["8 passes, untied"] is None and table.thinking["TRM"] is None and table.thinking["1 pass"].estimate == 0


def test_passes_of_training_are_no_thinking_time():
    df = hops_frame()
    for r in df[df.arm == "8 passes"].record:
        r["spec"]["model"]["random_passes"] = True  # 1 … 3 passes
    e = report.thinking(df, "full").set_index("arm").thinking["8 passes"]
    assert e.estimate == pytest.approx(np.mean([0.5, 0.49]))
    for r in df[df.arm == "8 passes"].record:
        r["spec"]["model"]["passes"] = 3  # 1 … 5: k = 5 is solved in training already, k = 6 is left
    row = report.thinking(df, "full").set_index("arm").loc["8 passes"]
    assert row.thinking.estimate == pytest.approx(np.mean([0.5, 0.49]) / 2) and (row.read_at, row.most_trained) == (3, 5)
    supervised = {"spec": {"model": {"passes": 2}, "train": {"n_sup": 4}}}  # the state is carried on: as many as eight passes
    assert report.passes_of(supervised) == report.trained_most(supervised) == 8


def test_more_passes_are_read_once_all_seeds_of_an_arm_were_measured(store):
    df, more = hops_frame(), {"accuracy": np.ones((33, 6)), "nll": np.zeros((33, 6))}
    keys = {(r.arm, r.seed): r.key for r in df.itertuples()}
    for at in (("8 passes", 0), ("8 passes", 1), ("1 pass", 0)):
        store.add_evaluation({"experiment": "hops", "name": "longer", "runs": [keys[at]], "result": more})
    longer = report.longer(store, df)
    assert report.cube(longer, "8 passes").shape == (2, 33, 6) and report.cube(longer, "1 pass").shape == (2, 17, 6)
    assert report.cube(df, "8 passes").shape == (2, 17, 6)  # the records themselves are untouched
    assert report.thinking(longer, "full").set_index("arm").most["8 passes"] == 32
    assert len(report.longer(store, df[:0])) == 0


def test_more_passes_are_measured_on_the_windows_of_the_record():
    task = FillTask(Spec("hops", replace(SMALL, sees="window", passes=2), Hops(length=3, starts=2, trained=(1, 2)), TrainConfig(), 0))
    model = task.model().eval()
    found, detail = fill_evaluations.longer(task, model), task.final(model)["detail"]
    assert found["accuracy"].shape == found["nll"].shape == (33, 3)
    assert np.allclose(found["nll"][:17], detail["nll"]) and np.array_equal(found["accuracy"][:17], detail["accuracy"])


def test_what_is_measured_of_which_arm():
    wanted = {r.arm: fill_evaluations.wanted(r.arm, r.spec) for r in hops.grid("full")}
    assert (
        wanted["8 passes"] == ["longer", "pointers"]
        and wanted["TRM"] == ["longer"]
        and wanted["4 passes, whole window"] == ["longer", "alignment"]
    )
    assert wanted["8 passes, untied"] == wanted["0 passes, 4 blocks"] == []
    assert [a for a, names in wanted.items() if "longer" in names] == report.may_go_on("full")


class Reader:
    """A model of hops that follows `speed` pointers a pass; its state is where it stands."""

    def __init__(self, language, speed):
        self.language, self.speed = language, speed

    def __call__(self, tokens, at, passes, carry=None, hand_on=False):
        place = tokens[:, self.language.elements :] if carry is None else carry[0]
        for _ in range(self.speed * passes):
            place = tokens.gather(1, place - 1)
        logits = torch.nn.functional.one_hot(place, self.language.vocab)
        return (logits, (place, place)) if hand_on else logits


def test_which_pass_reads_which_pointer_of_a_reader_by_hand():
    lang = Hops(length=6, starts=3, trained=(1, 4))
    task = FillTask(Spec("hops", replace(SMALL, sees="window", passes=4), lang, TrainConfig(), 0))
    before, hop = np.indices((7, 6))
    for speed in (1, 2):
        found = fill_evaluations.pointers(task, Reader(lang, speed))
        ahead, (longest, trained) = 96 * (hop + 1 > speed * before), (found["longest"], found["trained"])
        assert (longest["new"] == ahead).all() and (longest["old"] == 96 - ahead).all() and (trained["new"] == ahead[:5, :4]).all()
        assert all(f["asked"] == f["right"] == 96 and (f["solved"] == 96).all() for f in found.values())
        assert (trained["k"], trained["passes"], longest["k"], longest["passes"]) == (4, 4, 6, 32)
    slow = replace(
        task.spec, model=replace(SMALL, sees="window", passes=2)
    )  # two passes for four hops: it ends in the middle, at neither end
    found = fill_evaluations.pointers(FillTask(slow), Reader(lang, 1))["trained"]
    assert (
        found["new"].shape == (3, 4) and not found["new"].any() and not found["old"].any() and found["right"] == found["solved"].sum() == 0
    )


def test_only_questions_solved_in_both_windows_are_counted():
    """A model that reads all at once and is wrong about one start in three, which one hangs on the window."""
    lang = Hops(length=3, starts=3, trained=(2,))
    task, reader = FillTask(Spec("hops", replace(SMALL, sees="window", passes=2), lang, TrainConfig(), 0)), Reader(lang, 3)

    def sloppy(tokens, at, passes, carry=None, hand_on=False):
        out = reader(tokens, at, passes, carry, hand_on)
        if not hand_on:
            out[torch.arange(len(out)), tokens[:, 0] % 3] = 0  # names token 0, no end
        return out

    found = fill_evaluations.pointers(task, sloppy)["longest"]
    assert found["right"] == 2 * found["asked"] / 3 and (found["solved"] <= found["right"]).all() and found["solved"].min() > 0
    assert (found["new"][0] == found["solved"]).all() and not found["new"][1:].any() and (found["old"][1:] == found["solved"]).all()


def test_agreement_with_a_reader_of_one_pointer_a_pass(store):
    lang, tiny = Hops(length=6, starts=3, trained=(1, 4)), replace(SMALL, sees="window", passes=4)
    task, rows = FillTask(Spec("hops", tiny, lang, TrainConfig(), 0)), [record(a, s, {}) for a in report.OPENED[:2] for s in range(2)]
    df = pd.DataFrame([*rows, record(report.OPENED[2], 0, {})])
    for r, speed in zip(df.itertuples(), (1, 2, 1, 1, 1), strict=True):
        found = fill_evaluations.pointers(task, Reader(lang, speed))
        store.add_evaluation({"experiment": "hops", "name": "pointers", "runs": [r.key], "result": found})
    found = report.pointers_read(store, df)
    assert list(found) == list(report.OPENED[:2])  # the third waits for a seed
    # Of the 6 × 6 exchanges, two pointers a pass are wrong where speed 1 is not through and speed 2 is: hops j + 1 … 2 j, or to 6: 0, 1, 2, 3, 2, 1
    assert found["8 passes"]["longest"]["agrees"] == pytest.approx([1, 1 - 9 / 36])
    assert found["8 passes"]["trained"]["agrees"] == pytest.approx([1, 1 - (0 + 1 + 2 + 1) / 16])
    longest = found["4 passes, within reach"]["longest"]
    assert (longest["agrees"] == 1).all() and (longest["solved"] == 1).all() and (longest["accuracy"] == 1).all()
    assert (longest["new"] == np.triu(np.ones((7, 6)))).all() and found["8 passes"]["longest"]["new"][1, 1] == 0.5
    assert report.pointers_read(store, df[:0]) == {}


def test_a_model_goes_on_from_the_state_that_it_had():
    """With nothing exchanged, some passes and then the rest are all passes."""
    task = FillTask(Spec("hops", replace(SMALL, sees="window", passes=2), Hops(length=3, starts=2, trained=(1, 2)), TrainConfig(), 0))
    model, (tokens, at, _) = task.model().eval(), task.curve_batch.values()
    state = model(tokens, at, passes=3, hand_on=True)[1]
    assert torch.equal(model(tokens, at, passes=2, carry=state), model(tokens, at, passes=5))


def test_alignment_is_shown_only_where_the_question_is_read_again(store):
    rows = [record(arm, s, {}, model=m) for arm, m in (("a", {"rereads": True}), ("b", {})) for s in range(2)]
    df = pd.DataFrame(rows)
    for r in df.itertuples():
        result = {"alignment": [0.1 * r.seed] * 16}
        store.add_evaluation({"experiment": "hops", "name": "alignment", "runs": [r.key], "result": result})
    found = report.alignments(store, df)
    assert list(found) == ["a"] and found["a"][1] == pytest.approx([0.05] * 16)


def test_the_optimum_of_a_reader_of_one_pointer_a_pass():
    df = hops_frame()
    for r in df[df.arm == "8 passes"].record:
        r["detail"]["nll"] = np.full((17, 6), 0.2)
    found = report.nll_by_length(df, "8 passes", (1, 4, 99))
    assert list(found) == [1, 4] and found[4][-1] == pytest.approx([0, 0, 0, 0, math.log(2), math.log(2)])
    assert found[1][1] == pytest.approx([0.2] * 6) and report.nll_by_length(df, "TRM", (1,)) == {}


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
            joint = {"coordination": [0, gain + 0.1 * s * bool(gain)], "coordination_ab": [0, 1.0], "coordination_ba": [0, 1.2], "parallel": [2.8, 2.8 - gain], "ab": [2.8, 1.7], "ba": [2.8, 1.5],
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


def test_three_blanks_are_charged_for_the_order_that_they_are_filled_in(monkeypatch):
    """Filling is the mean over the orders: it costs one order's FLOPs, which the mixture of all six would not."""
    names = orders_of(3)
    result = {"parallel": 9.0, "filled": 5.0, "coordination": 0.0, "flops": {"at once": 1, "one by one": 3}} | {
        o: 6.0 + i for i, o in enumerate(names)
    }
    arm = "baseline (1–3 blanks)"
    monkeypatch.setattr(compare, "evaluation_frame", lambda *_: {(arm, s): {"3 distant": result} for s in range(2)})
    found = report.language_coordination(None, dial_frame(), "distant", 3)
    assert found["filling"] == [(arm, 3, pytest.approx(9 - np.mean(range(6, 12))), pytest.approx(0.5), pytest.approx(0.5))]


def test_what_passes_beyond_training_do_to_text():
    """joint is trained with three passes; two more bring it from 4.0 to 4.1 or 4.2 nats."""
    df = pd.DataFrame(
        [record("joint", s, {"by_pass": {"nll_b": [5.0, 4.5, 4.2, 4.0, 4.3, 4.1 + s / 10]}}, experiment="masked") for s in (0, 1)]
    )
    e = report.text_time(None, "masked", df)
    assert e.estimate == pytest.approx(math.exp(0.15) - 1) and e.n == 2 and report.text_time(None, "masked", df.head(1)) is None
    losing = {"thinking": stats.Effect(-0.13, -0.16, -0.1, 0.01, 5, 0.95)}
    assert report.loses(losing) and not report.loses({"thinking": None})
    assert not report.loses({"thinking": stats.Effect(-0.001, -0.002, -0.0005, 0.01, 5, 0.95)})  # less than the figure can show
    assert not report.loses({"thinking": stats.Effect(-0.13, -0.3, 0.1, 0.4, 5, 0.95)})


def test_advice_on_words_that_must_agree(store, monkeypatch):
    """By the models named beforehand, at the cost against one reading of the baseline."""
    pair = lambda c, ab: {"coordination": c, "coordination_ab": ab, "coordination_ba": ab, "flops": {"at once": 10, "one by one": 19}}  # noqa: E731
    arms = {"baseline (1–3 blanks)": (0.0, 0.4), "joint (1–3 blanks)": (0.0, 0.5), "4 samples (1–3 blanks)": (-0.001, 0.6)}
    found = {(a, s): {"2 neighbours": pair(*v), "2 distant": pair(0.0, 0.001)} for a, v in arms.items() for s in range(2)}
    monkeypatch.setattr(compare, "evaluation_frame", lambda *_: found)
    masked = pd.DataFrame([record(a, s, {}, experiment="masked") | {"nll_b": 4.0} for a, s in found])
    empty = pd.DataFrame(columns=["arm", "seed", "status", "record"])
    table = report.advice(store, {"hops": empty, "dial": empty, "masked": masked}).iloc[-6:-3]
    assert table.expect.tolist() == [
        f"{v} [{v}, {v}] nats of a pair{by}" for v, by in (("0.40", ""), ("0.00", ""), ("0.00", " by filling one by one"))
    ]
    assert table["spend on"].tolist() == ["filling one by one", "samples (4)", "nothing to recover"]
    assert table.cost.tolist() == ["× 1.9", "× 1.0", "× 1.9"] and table.evidence.tolist() == ["2 seeds; thin: few seeds"] * 3


def test_the_comparisons_fixed_beforehand_by_hand():
    first = report.primary(hops_frame(), dial_frame()).set_index(["arm", "rival"])
    depth, time, asked, passes, filled = (first.loc[c[:2]] for c in report.PRIMARY)
    assert depth.effect.estimate == pytest.approx(np.mean([1, 1, 0.5, 0.99, 0.99, 0.5]) - 0.5)
    assert time.effect.estimate == pytest.approx(np.mean([0.5, 0.49])) and asked.effect is None  # those arms are not there
    assert passes.same and passes.effect.estimate == 0 and filled.effect.estimate == pytest.approx(1.2 / math.log(4))
    assert compare.reading(first.reset_index().iloc[2]) == "pending" and (first.p_holm.dropna() >= 0).all()
    empty = pd.DataFrame(columns=["arm", "seed", "status", "record"])
    assert report.primary(empty, empty).effect.isna().all()


def test_scores_end_before_states_overflow():
    grown, sound = np.full((2, 8, 3), 1.2), np.full((2, 8, 3), math.log(35))
    assert report.held(grown, 35) == 7
    sound[:, :3] = 0.7
    sound[:, 3] += 0.4  # bad, but no even guess
    sound[:, 4:] = 2.0
    assert report.held(sound, 35) == 7
    grown[1, 7] = math.log(35)
    grown[1, 6, 0] = 1.5  # some windows before others
    assert report.held(grown, 35) == 5
    longer = np.concatenate([grown, grown[:, 7:], grown[:, 7:]], 1)  # once left, for good
    assert report.held(longer, 35) == 5
    grown[1, 7, 0] = 1.2  # not at every length
    assert report.held(grown, 35) == 7


def test_steps_that_text_needs_are_read_from_arms_with_fewer_passes():
    def frame(**nll):
        rows = [record(a, s, {}, experiment="masked") | {"nll_b": v + 0.001 * s} for a, v in nll.items() for s in range(2)]
        return pd.DataFrame(rows)

    ladder = {0: "none", 1: "one"}
    assert report.steps_needed(frame(none=4.0, full=4.0), "full", ladder, 3) == 0
    assert report.steps_needed(frame(none=3.0, full=4.0), "full", ladder, 3) == 0  # better is as well as
    assert report.steps_needed(frame(none=5.0, one=4.0, full=4.0), "full", ladder, 3) == 1
    assert report.steps_needed(frame(none=5.0, one=5.0, full=4.0), "full", ladder, 3) == 3
    assert report.steps_needed(frame(none=5.0, full=4.0), "full", ladder, 3) is None  # one pass may have been enough
    unsure = frame(none=5.0, one=4.0, full=4.0)
    unsure.loc[(unsure.arm == "one") & (unsure.seed == 1), "nll_b"] += 0.2
    assert report.steps_needed(unsure, "full", ladder, 3) is None  # neither as good nor shown to be worse


def test_the_answer_places_what_is_recorded_and_names_what_is_not(store, monkeypatch):
    empty = pd.DataFrame(columns=["arm", "seed", "status", "record"])
    tasks, missing = report.answer(store, {"hops": empty, "dial": empty, "masked": empty}, "full")
    assert tasks == [] and {"hops", "dial", "two blanks", "Sudoku"} <= set(missing)
    frames = {"hops": hops_frame(), "dial": dial_frame(), "masked": empty}
    tasks, missing = report.answer(store, frames, "full")
    by_task = {t["task"]: t for t in tasks}
    near, far = by_task["hops, k = 2"], by_task["hops, k = 4"]  # trained with two passes
    assert near["trained"].estimate == pytest.approx(0.495) and near["thinking"].estimate == 0 and near["depth"] == 2
    assert far["trained"].estimate == 0 and far["thinking"].estimate == pytest.approx(0.495) and "hops, k = 8" not in by_task
    dose = by_task["dial, 1.39 nats"]
    assert dose["trained"].estimate == dose["thinking"].estimate == 0 and dose["coordination"] == pytest.approx(math.log(4))
    assert near["thin"] == ["one synthetic language", "2 seeds"] and "hops" not in missing and "two blanks" in missing
    key = report.answer_table(tasks)
    assert key.iloc[0].tolist() == [" 1  hops, k = 2", "+50 [+43, +56] pt", "+0 [+0, +0] pt", "2 †"]
    table = report.advice(store, frames).set_index("your task").loc["answers must agree"].reset_index().set_index("spend on")
    assert (
        table.expect["filling one by one"] == "79% [79%, 79%] of the shared nats"
        and table.records["filling one by one"] == "dial: parallel"
    )
    assert table.evidence["filling one by one"] == "2 seeds; thin: one synthetic language, few seeds"
    assert "[dial: parallel](../notebooks/06_when.ipynb#Three-ways" in report.advice_links(table.reset_index())
    nothing = {"hops": empty, "dial": empty, "masked": empty}
    assert (report.advice(store, nothing).expect == "not recorded yet").all()
    learned = report.learned(store, *frames.values(), tasks, "full")
    assert "passes **paid** for *8 passes* (+49.5 points" in learned and "Pending on hops: " in learned and "grow like" in learned
    assert (
        report.learned(store, *nothing.values(), [], "full").startswith("- Pending on hops: 8 passes, ") and "not reach all" not in learned
    )
    lost, kept = (
        {
            "arm": arm,
            "against": "2 passes",
            "effect": stats.Effect(*v, 0.01, 2, 0.95),
            "without": ("1 pass", stats.Effect(*v, 0.01, 2, 0.95)),
        }
        for arm, v in (("TRM", (-0.4, -0.5, -0.3)), ("b", (0.1, 0, 0.2)))
    )
    monkeypatch.setattr(report, "gradient_reach", lambda df: [lost, kept, {"arm": "c", "against": None, "without": None}])
    learned = report.learned(store, *frames.values(), tasks, "full")
    assert "**not reach all passes**, models lose even what it does reach: *TRM* (−40 points [−50, −30])." in learned
    assert learned.count("to the detached passes") == 1 and "learns more: *TRM* against *1 pass* (−40 points [−50, −30])." in learned


def test_advice_points_at_headings_that_exist():
    notebooks = Path(__file__).parent.parent / "notebooks"
    for where in report.HEADINGS.values():
        name, heading = where.split(".ipynb#")
        lines = (notebooks / f"{name}.py").read_text().splitlines()
        assert any(line.lstrip("# ").replace(" ", "-") == heading for line in lines if line.startswith("# #")), where


def test_a_caption_counts_only_the_arms_that_are_drawn():
    df = hops_frame()
    assert compare.label(df, "full") == "full training, profile full, 1–2 seeds, CPU, fp32"
    assert compare.label(df, "full", ["8 passes", "TRM"]) == "full training, profile full, 2 seeds, CPU, fp32"  # TRM is not complete
    assert compare.label(df, "full", ["TRM"]) == "full training, profile full, no records yet"


def test_tasks_at_one_place_stand_side_by_side_and_unmeasured_ones_on_the_strip():
    df = pd.DataFrame({
        "number": [1, 2, 3], "depth": [1, 1, np.nan], "coordination": [0.0, 0.0, np.nan], "unit": ["points", "%", "%"], "trained": [0.5, -0.1, 0.0],
        "thinking": [0.1, np.nan, -0.1], "thin": [False, True, False], "loses": [False, False, True],
    })  # fmt: skip
    ax = plots.tasks(df, plt.figure().subplots())
    x, y = np.array([t.xy for t in ax.texts]).T
    assert abs(x[0] - x[1]) == pytest.approx(0.5) and list(y) == [0, 0, -0.75]
    assert [t.get_text() for t in ax.get_xticklabels()][:3] == ["not known", "none", "1"]
    assert ax.get_yticklabels()[0].get_text() == "not\nmeasured" and len(ax.collections) == 5  # no disc where nothing was tested
    assert [c.get_facecolor().size > 0 and len(c.get_paths()[0].vertices) for c in ax.collections][3:4] == [4]  # the loss is a cross
    plt.close("all")


@pytest.mark.parametrize("experiment, arms", [(hops, 28), (dial, 8)])
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


def test_keeping_states_to_one_size_by_hand(monkeypatch):
    """Two seeds, passes 0 … 2 of which one was trained, k = 1 (trained), 2 (between), 3 (longer)."""
    first, second = [[0, 0, 0], [0.95, 0.7, 0.1], [0.9, 0.8, 0.6]], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.4]]
    cubes = {"TRM, bounded": np.array([first, second]), "TRM": np.array([second, second])}
    monkeypatch.setattr(report, "cube", lambda df, arm: cubes.get(arm))
    learning, done = ({"curve": {"accuracy": a}} for a in ([0.1, 0.2, 0.3, 0.4, 0.5, 0.52, 0.5, 0.55], [0.5] * 8))
    monkeypatch.setattr(report, "whole", lambda df, arm: [done, learning])
    monkeypatch.setattr(report, "trained_most", lambda record: 1)
    monkeypatch.setattr(report, "kinds", lambda df, arm: {"trained": np.array([0]), "between": np.array([1]), "beyond": np.array([2])})
    (row,) = report.one_size(None)
    assert (row["arm"], row["free"], row["seeds"]) == ("TRM, bounded", "TRM", 2)
    assert row["mastered"].tolist() == [[0.1, 0.6]] and row["mastered_free"].shape == (0, 2)
    assert row["climbing"] == 0  # 0.525 after 0.51
    learning["curve"]["accuracy"][-1] = 0.57
    assert report.climbing(None, "TRM, bounded") == 1 and report.climbing(None, "TRM") == 1
    monkeypatch.setattr(report, "whole", lambda df, arm: [learning, done])
    assert report.climbing(None, "TRM, bounded") == 0 and report.climbing(None, "TRM") == 1  # who has mastered it is not counted
    assert row["trained"].estimate == pytest.approx(0.225) and row["between"].estimate == pytest.approx(0.1)
    assert report.mastered(None, "4 passes") is None


def test_how_far_a_gradient_reaches_by_hand(monkeypatch):
    """Two seeds; passes 0 … 4 and k = 1 … 3. Detached rounds of two passes solve k = 1 half of the time after the four trained, two passes always."""
    record = lambda model, n_sup=1: {"spec": {"model": model, "train": {"n_sup": n_sup}}}  # noqa: E731
    known = {"2 passes": record({"passes": 2}), "2 passes × 4 supervised": record({"passes": 2}, 2)}
    known |= {"TRM": record({"passes": 4, "n": 2, "with_grad": 1}), "1 pass, n = 2": record({"passes": 1, "n": 2})}
    cubes = {arm: np.zeros((2, 5, 3)) for arm in known}
    cubes["TRM"][:, 4] = [0.5, 0.3, 1.0]
    cubes["1 pass, n = 2"][:, 1] = [1.0, 1.0, 0.0]
    cubes["2 passes"][:, 2] = [1.0, 0.5, 0.0]
    cubes["2 passes × 4 supervised"][:, 4] = [[0.4, 0.5, 1.0], [0.6, 0.5, 1.0]]
    monkeypatch.setattr(report, "cube", lambda df, arm: cubes.get(arm))
    monkeypatch.setattr(report, "whole", lambda df, arm: [known[arm]])
    plain, trm, rounds, alone = report.gradient_reach(None)
    assert (trm["reads"], trm["reach"], trm["against"], trm["without"][0]) == (8, 2, None, "1 pass, n = 2")
    assert trm["without"][1].estimate == pytest.approx(-0.6) and (alone["reads"], alone["reach"], alone["without"]) == (2, 2, None)
    assert (plain["arm"], plain["reads"], plain["reach"], plain["against"]) == ("2 passes", 2, 2, None)
    assert (rounds["reads"], rounds["reach"], rounds["against"]) == (4, 2, "2 passes") and rounds["accuracy"].tolist() == [0.5, 0.5, 1.0]
    assert rounds["effect"].estimate == pytest.approx(-0.25)  # (0.5 + 0.5) / 2 less (1.0 + 0.5) / 2: k = 3 is out of reach
    assert report.reads(record({"passes": 4, "n": 2, "with_grad": 1})) == (8, 2)
    assert report.reads(record({"passes": 2, "n": 2, "with_grad": 1}, 4)) == (16, 2) and report.reads(record({"passes": 4, "n": 2})) == (
        8,
        8,
    )


def test_the_article_says_that_a_detached_trm_guesses_only_when_every_kind_of_it_does(monkeypatch):
    rows = [{"arm": arm, "accuracy": np.array([0.49, 0.51, 0.9])} for arm in article.DETACHED]
    monkeypatch.setattr(report, "gradient_reach", lambda df: rows)
    monkeypatch.setattr(report, "kinds", lambda df, arm: {"trained": np.array([0, 1])})
    monkeypatch.setattr(report, "guess", lambda df: 0.5)
    assert len(rows) == 4 and article.detached([1]) and not article.detached([])
    rows[-1]["accuracy"] = np.array([0.45, 0.55, 0.9])  # a guess on average, and not at each length
    assert not article.detached([1])
    rows.pop()
    assert not article.detached([1])  # one is pending


def test_the_article_says_what_passes_read_only_where_nearly_all_is_so():
    opened = lambda *agrees: {"8 passes": {"longest": {"agrees": np.array(agrees)}}}  # noqa: E731
    assert article.one_pointer(opened(0.97, 0.98, 0.99)) == "98 %"
    assert article.one_pointer(opened(0.5, 0.99, 0.99)) is article.one_pointer(opened(0.9, 0.9, 0.9)) is article.one_pointer({}) is None
