"""The report's frames, verdicts and figures, on records made by hand."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trmlib import compare, export, figures, plots, stats
from trmlib.errors import TrmError
from trmlib.experiments import masked_report as report

STEPS = list(range(250, 20_001, 250))


def row(arm, seed, nll, curve=None, status="recorded"):
    """A row of `tables.frame` with three articles, the last two of part B."""
    curve = {
        "step": STEPS,
        "nll": curve if curve is not None else [nll] * len(STEPS),
        "noisy_nll": [nll] * len(STEPS),
        "noisy_accuracy": [0.25] * len(STEPS),
    }
    detail = {
        "by_article": {"nll": [nll + 1, nll, nll], "blanks": [10, 30, 20], "part_b": [0, 1, 1]},
        "by_pass": {"nll_b": [nll + 0.5, nll]},
    }
    record = {"curve": curve, "detail": detail, "profile": "full", "experiment": "masked", "digest": f"{arm}{seed}"}
    return {"arm": arm, "seed": seed, "key": f"{arm}.{seed}", "status": status, "nll_b": nll, "nll_known_b": nll, "accuracy_b": 0.25, "parameters": 10,
            "train_flops": 10**15, "inference_flops": 10**6, "serial_depth": 2, "seconds": 60.0, "device": "cpu", "precision": "fp32", "record": record}  # fmt: skip


def frame(base, joint, **curves):
    rows = [row("baseline", s, v, curves.get("baseline")) for s, v in enumerate(base)]
    return pd.DataFrame(rows + [row("joint", s, v, curves.get("joint")) for s, v in enumerate(joint)])


BASE = [4.50, 4.52, 4.48, 4.51, 4.49]


def test_effect_is_the_paired_change_of_perplexity():
    e = compare.effect(frame(BASE, [v + d for v, d in zip(BASE, (-0.1, -0.2, -0.1, -0.2, -0.15))]), "joint", "baseline")
    assert e.estimate == pytest.approx(math.exp(-0.15) - 1) and e.n == 5 and e.high < 0


def test_pairs_are_the_common_seeds_only():
    df = frame(BASE, BASE[:3])
    assert compare.pairs(df, "joint", "baseline")[0] == [0, 1, 2]
    assert compare.effect(df, "joint", "baseline") is None  # three of five seeds: nothing is said yet


def test_verdict_is_open_until_all_seeds_are_there():
    assert report.verdict(frame(BASE, BASE[:4]))[0] == "open"
    assert report.verdict(frame(BASE, []))[0] == "open"


def test_verdict_artefact_needs_equivalence_and_the_restored_cause():
    falling = np.interp(STEPS, [0, 13_750, 20_000], [6.0, math.log(96.75), math.log(81.17)]).tolist()
    small = [v + d for v, d in zip(BASE, (0.002, -0.001, 0.001, -0.002, 0.001))]
    jitter = lambda k: [v + 0.001 * k for v in falling]  # noqa: E731, restored differences need some spread
    df = frame(BASE, small)
    for i, r in enumerate(df.itertuples()):
        r.record["curve"]["nll"] = jitter(i % 3)
    word, e = report.verdict(df)
    assert word.startswith("artefact") and abs(e.estimate) < 0.01
    assert report.unequal_steps(df, "joint").estimate == pytest.approx(81.17 / 96.75 - 1, abs=0.003)
    flat = frame(BASE, small)  # nothing comes back when training longer changes nothing
    assert report.verdict(flat)[0] == "not reproduced"


def test_verdict_reproduced_and_not():
    shift = lambda d: [v + d + 0.01 * (-1) ** i for i, v in enumerate(BASE)]  # noqa: E731
    assert report.verdict(frame(BASE, shift(math.log(1 - 0.161))))[0] == "reproduced"
    assert report.verdict(frame(BASE, shift(-0.05)))[0] == "not reproduced"


def test_crossed_effect_weighs_part_b_only():
    df = frame(BASE, [v - 0.1 for v in BASE])
    for r in df.itertuples():
        r.record["detail"]["by_article"]["nll"][0] += 100 * r.seed  # part A, must not count
    e = compare.crossed_effect(df, "joint", "baseline")
    assert e.estimate == pytest.approx(math.exp(-0.1) - 1) and e.articles == 2


def test_primary_marks_what_is_pending_and_corrects_what_is_there():
    df = frame(BASE, [v - 0.1 - 0.01 * s for s, v in enumerate(BASE)])
    table = compare.primary(df, report.PRIMARY)
    done, waiting = table[table.rival == "baseline"].iloc[0], table[table.rival == "4-blocks"].iloc[0]
    assert compare.reading(done) == "joint is better" and compare.reading(waiting) == "pending"
    assert done.p_holm == pytest.approx(len(table) * done.effect.p)  # what is pending counts, too


def test_earlier_rule_by_hand():
    df = frame(BASE[:1], [])
    noisy = [5.0, 4.0] + [4.5] * 78  # best at the second evaluation, ten without a new best: stops at the twelfth
    df.iloc[0].record["curve"]["noisy_nll"] = noisy
    out = report.earlier_rule(df).iloc[0]
    assert (out.best_step, out.stop_step) == (500, 3000) and out.reported_ppl == pytest.approx(math.exp(4))


def test_the_earlier_rule_compares_what_it_reports_seed_by_seed():
    df = frame(BASE[:2], BASE[:2])
    for arm, reported in (("baseline", [4.0, 4.2]), ("joint", [3.9, 4.3])):
        for r, v in zip(df[df.arm == arm].record, reported, strict=True):
            r["curve"]["noisy_nll"] = [5.0, v] + [5.0] * 78
    assert report.by_rule(df) == pytest.approx({0: math.expm1(-0.1), 1: math.expm1(0.1)}) and report.by_rule(df[:0]) == {}


def test_equal_compute_is_read_off_curves_of_constant_rate():
    df = frame(BASE, BASE)
    for arm, r in zip(df.arm, df.record, strict=True):
        r.update(steps=STEPS[-1], train_flops=(300 if arm == "joint" else 100) * STEPS[-1])  # a step of joint costs three of the baseline
        r.setdefault("spec", {"train": {}})
        r["curve"]["nll"] = [6 - s / 10_000 for s in STEPS]
    steps, rival, e = compare.at_equal_compute(df, "joint", "baseline")
    assert (steps, rival) == (6_500, 19_500) and e.estimate == pytest.approx(math.expm1(1.3)) and e.n == 5
    assert compare.at_equal_compute(df[df.seed < 3], "joint", "baseline") is None
    df.record.iloc[0]["spec"]["train"] = {"decay_to": 0.1}
    with pytest.raises(TrmError, match="falling learning rate"):
        compare.at_equal_compute(df, "joint", "baseline")


def test_noise_is_the_spread_of_the_noisy_curve_about_the_fixed_one():
    df = frame(BASE[:1], [])
    df.iloc[0].record["curve"]["noisy_nll"] = [4.5 + 0.3 + 0.05 * (-1) ** i for i in range(len(STEPS))]
    assert report.noise(df) == pytest.approx(0.05)  # the constant gap of 0.3 is no noise
    other = frame(BASE[:1], []).assign(arm="baseline (1–3 blanks)")
    other.iloc[0].record["curve"]["noisy_nll"] = [4.5 + 0.3 + 0.2 * (-1) ** i for i in range(len(STEPS))]
    assert report.noise(pd.concat([df, other])) == pytest.approx(0.05)  # another question


def test_lower_precision_is_compared_with_full_precision_seed_by_seed(monkeypatch):
    low = [v + d for v, d in zip(BASE, (0.010, 0.012, 0.008, 0.011, 0.009), strict=True)]
    found = {"fp32": frame(BASE, BASE), "bf16": frame(low, BASE[:3])}
    monkeypatch.setattr(report, "frame", lambda store, experiment, profile, precision: found[precision])
    baseline, joint = (r for _, r in report.lower_precision(None).iterrows())
    assert baseline.effect.estimate == pytest.approx(math.expm1(0.010)) and compare.reading(baseline) == "the same within ±2 %"
    assert joint.effect is None and compare.reading(joint) == "pending"  # three of five seeds


def test_arms_compare_with_the_baseline_of_their_own_setting():
    assert compare.rival("joint (3 blanks)") == "baseline (3 blanks)" and compare.rival("4-blocks") == "baseline"
    table = report.arms(frame(BASE, BASE)).set_index("arm")
    assert table.seeds["joint"] == 5 and table.seeds["8-passes"] == 0 and table.ppl["baseline"] == pytest.approx(math.exp(4.5))


def test_percent():
    assert export.percent(stats.Effect(-0.1612, -0.2, -0.1, 0, 5, 0.95)) == "−16.1 % [−20.0, −10.0]"
    assert export.percent(None) == "–"


def test_a_figure_is_rebuilt_byte_for_byte_and_readable(tmp_path):
    for folder in ("one", "two"):
        plots.style()
        fig, ax = plt.subplots()
        plots.lines({"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3], [3.5, 2.5], [4.5, 3.5])}, ax, "x", "y")
        plots.save(fig, "figure", tmp_path / folder, "A caption", "Two lines", "0123", "02_masked")
        plt.close(fig)
    for ending in ("png", "svg", "json"):
        assert (tmp_path / "one" / f"figure.{ending}").read_bytes() == (tmp_path / "two" / f"figure.{ending}").read_bytes()
    picture = Image.open(tmp_path / "one" / "figure.png")
    assert picture.width == 1400 and picture.text["Source"] == "02_masked, records 0123"
    assert json.loads((tmp_path / "one" / "figure.json").read_text())["alt"] == "Two lines"


def test_pending_effects_leave_the_forest_drawable():
    fig, ax = plt.subplots()
    plots.forest([{"name": "a", "effect": None}, {"name": "b", "effect": stats.Effect(-0.1, -0.2, 0.0, 0.05, 5, 0.95)}], ax, zone=0.02)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"] and any(t.get_text() == "pending" for t in ax.texts)
    low, high = ax.get_xlim()
    assert low < -20 and 2 < high < 5 and not plots.empty(fig)  # no more of the empty side than a zone needs
    fig.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()][1:-1] == ["−20 %", "−15 %", "−10 %", "−5 %", "0 %"]  # the outermost lie outside
    plt.close(fig)


def test_a_figure_in_which_all_is_pending_says_so(tmp_path):
    rows = [{"name": "a", "effect": None}]
    for draw in (lambda ax: plots.forest(rows, ax), lambda ax: plots.tuning({}, ax), lambda ax: plots.pending(ax, "lines")):
        fig, axes = plt.subplots(1, 2)
        for ax in axes:
            draw(ax)
        plots.save(
            fig, "one", tmp_path, "Effects (grey: ±2 %) over 5 seeds (cut training, profile cpu, 5 seeds, CPU, fp32)", "", "", "05_sudoku"
        )
        about = json.loads((tmp_path / "one.json").read_text())
        assert about["caption"] == "Effects (grey: ±2 %) over 5 seeds (no records yet)" and figures.waiting(about)
        plots.lines({"a": ([1], [2])}, axes[1])  # one panel is enough
        plots.save(fig, "one", tmp_path, "Effects (5 seeds)", "", "", "05_sudoku")
        assert not figures.waiting(json.loads((tmp_path / "one.json").read_text()))
        plt.close(fig)


def test_a_figure_that_waits_says_what_trains_its_runs(monkeypatch):
    said, fig = [], plt.figure()
    monkeypatch.setattr(export, "say", said.append)
    export.waits(fig, "one", "cpu", "shakespeare", ("n-*", "T-*"))
    assert said == ['`one` waits for its runs: `trm run --profile cpu "shakespeare/n-*" "shakespeare/T-*"`.'] and not plt.fignum_exists(
        fig.number
    )


def test_a_shown_table_is_whole(monkeypatch):
    shown = []
    monkeypatch.setattr(export, "display", lambda data, raw: shown.append(data))
    long = "what it separates " * 9 + "& the end"
    export.show_table(pd.DataFrame({"why": [long] * 70, "n": range(100, 170)}))
    (data,) = shown
    assert data["text/html"].count(long.replace("&", "&amp;")) == data["text/plain"].count(long) == 70
    assert data["text/html"].count("<td>") == 2 * 70  # no column of row numbers


def test_a_wide_table_is_broken_between_words_and_stays_readable():
    df = pd.DataFrame(
        {"claim": ["a long claim that goes on and on until it no longer fits"] * 2, "change": ["−0.4 % [−2.2, +1.4]", "–"], "n": ["5", "5"]}
    )
    broken = plots.wrapped(df, 40)
    assert "\n" in broken.claim[0] and broken.claim[0].replace("\n", " ") == df.claim[0] and broken.n.tolist() == ["5", "5"]
    assert "[−2.2,\u00a0+1.4]" in broken.change[0]  # never within an interval
    width = [max(len(line) for v in broken[name] for line in v.split("\n")) for name in broken]
    assert sum(width) + 2 * len(width) <= 40 and plots.lines_of(broken) == [1, broken.claim[0].count("\n") + 1] + [
        broken.claim[1].count("\n") + 1
    ]
    assert plots.wrapped(df, 200).replace("\u00a0", " ", regex=True).equals(df)
    fig, ax = plots.table_figure(df)
    assert ax.tables[0][1, 0].get_fontsize() == 10
    plt.close(fig)


def test_clip_paths_are_named_in_order_and_by_their_figure():
    svg = '<g clip-path="url(#pb)"/><use href="#pa"/><g clip-path="url(#pa)"/><clipPath id="pb"/><clipPath id="pa"/><g fill="url(#hatch)"/>'
    assert plots.name_clips(svg, "f") == (
        '<g clip-path="url(#f-clip-1)"/><use href="#pa"/><g clip-path="url(#f-clip-2)"/><clipPath id="f-clip-1"/><clipPath id="f-clip-2"/>'
        '<g fill="url(#hatch)"/>'
    )
