"""Score against test-time compute, from the committed records."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trmlib import budget, explore, flops
from trmlib.experiments import capacity, dial, hops, masked, shakespeare, sudoku, when_report
from trmlib.runs import Store
from trmlib.tables import shown

EXPERIMENTS = ("masked", "dial", "hops")
STORE = Store(Path(__file__).parents[1] / "data" / "results")


@pytest.fixture(scope="module")
def curves():
    return budget.curves(STORE, "full")


@pytest.mark.parametrize(("experiment", "arms"), [
    (masked, ("baseline", "joint", "1-pass", "4-blocks", "random-partner")), (hops, ("8 passes", "2 passes", "8 passes, untied")), (dial, ("parallel", "4 samples")),
])  # fmt: skip
def test_what_is_counted_without_weights_is_what_the_records_counted(experiment, arms):
    specs = {r.arm: r.spec for r in experiment.grid("full") if r.spec.seed == 0}
    df, _ = shown(STORE, experiment.NAME, "full")
    for arm in (a for a in arms if a in set(df.arm)):
        record = df[df.arm == arm].record.iloc[0]
        assert flops.cost(specs[arm], specs[arm].model.passes) == (record["inference_flops"], record["serial_depth"])


def test_every_pass_after_the_first_costs_the_same():
    spec = next(r.spec for r in masked.grid("full") if r.arm == "joint")
    assert flops.cost(spec, 7) == flops.counted(spec, 7)


@pytest.mark.parametrize("arm", ["standard 0.1M", "causal 0.1M", "everywhere 0.1M"])
def test_a_model_trained_everywhere_is_counted_at_every_position(arm):
    """A third of the counted training is forward."""
    spec = next(r.spec for r in capacity.grid("full") if r.arm == arm)
    model, d = capacity.build(spec), spec.data
    ids = torch.zeros(1, d.context + d.chunk, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        options = {"standard": {"slots": d.context + d.chunk - 1}, "everywhere": {"mean_nll": True, "fused": False}}
        model(ids, **options.get(arm.split()[0], {}))[0].sum().backward()
    assert 3 * flops.forward(spec) / spec.train.batch == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("change", [{}, {"mixer": "attention"}, {"single": True}, {"padding": 0, "blocks": 4}])
def test_a_board_is_counted_without_running_all_recursions(change):
    spec = next(r.spec for r in sudoku.grid("cpu") if r.arm == "TRM")
    spec = replace(spec, model=replace(spec.model, n=5, T=4, **change))
    model, calls = sudoku.build(spec), []
    for block in model.blocks:
        block.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 81))
    assert flops.counted(spec) == (counter.get_total_flops(), len(calls))


def test_curves_are_those_of_the_records(curves):
    table, used = curves
    df, profile = used["two blanks"]
    joint = table[(table.task == "two blanks") & (table.line == "joint") & (table.score == "perplexity")]
    nll = np.array([r["detail"]["by_pass"]["nll_b"] for r in df[df.arm == "joint"].record])
    assert joint["mean"].tolist() == pytest.approx(np.exp(nll.mean(0)).tolist()) and joint["at"].iloc[1] == "1 pass"
    assert (joint.flops.diff().dropna() > 0).all() and (joint.depth.diff().dropna() == 2).all() and set(joint.seeds) == {len(nll)}
    few = table[(table.task == "hops") & (table.line == "8 passes") & (table["at"] == "16 passes")].iloc[0]
    df, _ = used["hops"]
    at = when_report.kinds(df, "8 passes")["trained"]
    assert few["mean"] == pytest.approx(when_report.cube(df, "8 passes")[:, 16][:, at].mean())
    filling = table[(table.task == "dial") & (table.line == "filling") & (table["at"] == "parallel")].iloc[0]
    assert filling.depth == 4  # twice the depth of the parallel model


def test_lines_are_chosen_or_those_of_the_report(curves):
    table, _ = curves
    assert set(budget.chosen(table, "two blanks", "perplexity").line) == set(budget.LINES["two blanks"])
    assert set(budget.chosen(table, "two blanks", "perplexity", ["joint"]).line) == {"joint"}
    assert not len(budget.chosen(table, "two blanks", "puzzles solved"))


def test_a_budget_is_drawn_on_either_axis_and_said(curves):
    rows = pd.DataFrame([
        ("t", "perplexity", "a", "0 passes", 1e6, 0, 9.0, 8.0, 10.0, 5), ("t", "perplexity", "a", "1 pass", 2e6, 2, 4.0, 3.0, 5.0, 5),
        ("t", "perplexity", "a", "2 passes", 3e6, 4, 6.0, 5.0, 7.0, 5), ("t", "perplexity", "b", "", 1e6, 2, 5.0, 4.0, 6.0, 5),
    ], columns=budget.COLUMNS)  # fmt: skip
    for x, first in ((explore.COMPUTE, 1), ("blocks one after the other", 2)):
        fig = explore.draw_budget({"one": rows, "none": rows[:0]}, x)
        assert fig.axes[0].get_xlabel() == x and fig.axes[0].lines[0].get_xdata()[0] == first  # depth 0 has no place on that axis
        assert "not recorded yet" in fig.axes[1].texts[0].get_text()
        plt.close(fig)
    assert budget.said({"one": rows}) == "- t, *a*, perplexity: 9.0 (0 passes) → 6.0 (2 passes), best **4.0 (1 pass)**."


def test_the_controls_follow_the_task(curves):
    task, _, lines, _, _ = explore.weigh_compute(curves[0]).children
    task.value = "dial"
    assert lines.options == ("passes", "samples", "filling")


def test_a_start_of_noise_costs_what_one_of_zeros_does():
    specs = {r.arm: r.spec for r in shakespeare.grid("full")}
    assert flops.counted(specs["noise"], 2) == flops.counted(specs["zeros"], 2) != flops.counted(specs["noise"], 1)


def test_no_more_lines_are_drawn_than_there_are_colours():
    rows = pd.DataFrame([("t", "perplexity", f"arm {i}", "", 1e6, 2, 5.0, 4.0, 6.0, 5) for i in range(12)], columns=budget.COLUMNS)
    assert list(budget.chosen(rows, "t", "perplexity").line) == [f"arm {i}" for i in range(8)]
    plt.close(explore.draw_budget({"t": budget.chosen(rows, "t", "perplexity")}))
