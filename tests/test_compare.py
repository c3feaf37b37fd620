"""Comparisons of arms, by hand."""

import math

import pandas as pd
import pytest

from trmlib import compare
from trmlib.experiments import autoregressive

EXPERIMENTS = ("autoregressive",)


def swept(seeds=2, **ppls):
    """Tuning seeds of each arm "model (lr rate)"."""
    rows = [
        {"arm": f"{model} (lr {lr:g})", "seed": 100 + s, "status": "recorded", "nll_a": math.log(ppl) + 0.01 * s}
        for model, of in ppls.items() for lr, ppl in of.items() for s in range(seeds)
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


def test_a_conclusion_says_whether_the_rate_was_swept_and_which_was_better():
    pending = (
        '- *{0}*, at 0.001: **learning rate not swept yet**, {1} of 12 runs pending (`trm run --profile cpu "autoregressive/{0} (lr *)"`).'
    )
    best = "- *baseline*, at 0.001: that is the best of 4 learning rates on part A (3 tuning seeds)."

    def said(profile="cpu", **ppls):
        df = swept(seeds=3 if profile == "cpu" else 2, **{name: dict(zip(autoregressive.RATES, of)) for name, of in ppls.items()})
        return df, compare.swept(df, "autoregressive", ("baseline", "TRM"), profile).split("\n")

    df, lines = said(baseline=(300, 250, 200, 220), TRM=(300, 250, 200, 180))
    assert lines == [
        best,
        "- *TRM*, at 0.001: 0.003 is the best of 4 learning rates on part A (3 tuning seeds, on their edge), and changes perplexity by −10.0 % [−10.0, −10.0].",
        "- *TRM* against *baseline*, each at its best of these: −10.0 % [−10.0, −10.0] (part A, not corrected).",
    ]
    lines = compare.swept(df[:-1], "autoregressive", ("baseline", "TRM"), "cpu").split("\n")
    assert lines == [best, pending.format("TRM", 1)]  # nothing is said of a sweep before all of it is there
    lines = compare.swept(df[:0], "autoregressive", ("baseline", "TRM"), "cpu").split("\n")
    assert lines == [pending.format("baseline", 12), pending.format("TRM", 12)]
    assert said("smoke", baseline=(60,), TRM=(60,))[1][1] == (  # the toy sweep has a single rate, and not the arms'
        "- *TRM*, at 0.003: 0.0001 is the best of 1 learning rates on part A (2 tuning seeds, on their edge), its own not among them."
    )


def test_how_an_arm_is_trained_is_said_from_its_spec():
    assert (
        compare.setting("autoregressive", "TRM", "full")
        == "16 tokens of context, 2 to name, 20,000 steps of 32 windows, learning rate 0.001, dropout 0.2"
    )
    cut = compare.setting("autoregressive", "TRM (chunk 4)", "cpu")
    assert cut.startswith("16 tokens of context, 4 to name, 2,500 steps of 32 windows, learning rate 0.003") and cut.endswith(
        "; scored on every 4th chunk of the validation text"
    )
