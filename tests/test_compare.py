"""Comparisons of arms, by hand."""

import math

import pandas as pd
import pytest

from trmlib import compare

EXPERIMENTS = ("autoregressive",)


def swept(**ppls):
    """Two tuning seeds of each arm "model (lr rate)"."""
    rows = [
        {"arm": f"{model} (lr {lr:g})", "seed": 100 + s, "status": "recorded", "nll_a": math.log(ppl) + 0.01 * s}
        for model, of in ppls.items() for lr, ppl in of.items() for s in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_best_rate_is_named_and_so_is_an_edge():
    rates = (3e-4, 1e-3, 3e-3)
    df = swept(inner=dict(zip(rates, (9, 7, 8))), edge=dict(zip(rates, (9, 8, 7))), begun={3e-4: 5})
    said = compare.best_rates(df, ("inner", "edge", "begun", "none"), rates)
    assert said == (
        "Best learning rate on part A: inner: 0.001 (2 seeds); edge: 0.003 (2 seeds, on the edge of the grid: extend it); "
        "begun: 1 of 3 rates recorded; none: 0 of 3 rates recorded."
    )
    one = df[df.seed == 100]
    assert compare.best_rates(one, ("inner",), rates) == "Best learning rate on part A: inner: 0.001 (1 seed)."
    tried, mean, low, high = compare.tuning(one, ("inner",), rates)["inner"]
    assert tried == list(rates) and list(mean) == list(low) == list(high) == pytest.approx([9, 7, 8])
    assert compare.best_rates(df[:0], ("inner",), rates) == "Best learning rate on part A: inner: 0 of 3 rates recorded."


def test_how_an_arm_is_trained_is_said_from_its_spec():
    assert compare.setting("autoregressive", "TRM", "full") == "16 tokens of context, 2 to name, 20,000 steps of 32 windows, learning rate 0.0003, dropout 0.2"
    cut = compare.setting("autoregressive", "TRM (chunk 4)", "cpu")
    assert cut.startswith("16 tokens of context, 4 to name, 2,500 steps of 32 windows, learning rate 0.003") and cut.endswith(
        "; scored on every 4th chunk of the validation text"
    )
