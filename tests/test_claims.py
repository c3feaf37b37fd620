"""The ledger: what it holds, and each rule's verdict from records made by hand."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from trmlib import claims, cli, compare, stats
from trmlib.claims import Finding, judge, load
from trmlib.errors import TrmError
from trmlib.experiments import autoregressive_report, capacity_report, masked_report, shakespeare_report, sudoku_report
from trmlib.tables import frame

EXPERIMENTS = ("shakespeare", "masked", "autoregressive", "capacity", "dial", "hops", "sudoku")
ROOT = Path(__file__).parents[1]
SOURCES, CLAIMS = load()
LEDGER = {c.id: c for c in CLAIMS}
STEPS = list(range(250, 20_001, 250))
JITTER = (0.0, 0.002, -0.002, 0.001, -0.001)  # of five seeds


def rows(experiment, profile="full", corpus=None, device="cpu", curve=None, **arms):
    """A frame as `tables.frame` gives it: five seeds an arm, {arm: fields}; a field may be a function of the seed."""
    corpus = corpus or {"capacity": "wiki-core", "sudoku": "sudoku-extreme"}.get(experiment, "wikitext-2")
    out = []
    for arm, fields in arms.items():
        for seed in range(5):
            f = {k: v(seed) if callable(v) else v for k, v in fields.items()}
            record = {"profile": profile, "experiment": experiment, "digest": f"{arm}{seed}", "hash": f"{arm}{seed}", "data": {"name": corpus}, "curve": f.pop("curve", {}),
                      "detail": f.pop("detail", {}), "spec": f.pop("spec", {"data": {}, "train": {}, "model": {}})}  # fmt: skip
            out.append({"arm": arm, "seed": seed, "key": f"{arm}.{seed}", "status": "recorded", "device": device, "precision": "fp32", "steps": 100,
                        "parameters": 10, "train_flops": 10, "inference_flops": 10, "serial_depth": 2, "seconds": 60.0, "nll_b": 4.0, **f, "record": record})  # fmt: skip
    return pd.DataFrame(out)


def nll(mean):
    return lambda seed: mean + JITTER[seed]


EMPTY = SimpleNamespace(evaluations=lambda *_: [], records=lambda *_: {})  # a store without records


def verdict(claim, df, profile="full"):
    f = judge(LEDGER[claim], df, EMPTY, profile)
    return f.verdict, f.why


# ---------------------------------------------------------------- the ledger


def test_every_claim_is_whole_and_every_write_up_is_there():
    assert len(CLAIMS) >= 60 and {s for c in CLAIMS for s in c.source} == set(SOURCES)
    assert {c.rule for c in CLAIMS} == set(claims.RULES)  # no rule without a claim either
    assert {c.chapter for c in CLAIMS} == {chapter for _, chapters in claims.GROUPS.values() for chapter in chapters}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_what_shows_a_claim_exists(claim):
    text = (ROOT / "notebooks" / f"{claim.shown['notebook']}.py").read_text()
    assert any(line.lstrip("# ") == claim.shown["heading"] for line in text.splitlines() if line.startswith("# #")), "heading"
    assert f'"{claim.shown.get("figure", "")}' in text


GOOD = {"id": "one", "chapter": "masked", "source": ["000"], "short": "s", "statement": "t", "rule": "change", "arms": ["joint", "baseline"],
        "args": {"metric": "nll_b"}, "value": -0.1, "unit": "%", "shown": {"notebook": "02_masked", "heading": "h"}}  # fmt: skip


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rule": "magic"}, "^claim one: unknown rule 'magic'; known: "),
        ({"arms": ["joint", "joint-2"]}, "^claim one: unknown run 'joint-2'; `trm list masked` names the runs of masked$"),
        ({"arms": []}, "^claim one: rule change reads records; name its runs in `arms`$"),
        ({"statement": None}, "^claim one: field 'statement' is missing; "),
        ({"verdict": "reproduced"}, "^claim one: unknown field 'verdict'; known: "),
        ({"source": ["009"]}, "^claim one: unknown source '009'; known: "),
        ({"chapter": "poems"}, "^claim one: unknown chapter 'poems'; known: "),
        ({"shown": {"notebook": "02_masked"}}, "^claim one: `shown` needs a notebook and a heading$"),
        ({"scope": {"size": 7}}, "^claim one: unknown scope 'size'; known: corpus, model, parameters, device$"),
    ],
)
def test_a_bad_ledger_is_one_line_that_names_the_claim(tmp_path, change, message):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"sources": SOURCES, "claims": [GOOD | change]}))
    with pytest.raises(TrmError, match=message):
        load(tmp_path / "claims.yaml")


def test_two_claims_of_one_id_are_refused(tmp_path):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"sources": SOURCES, "claims": [GOOD, GOOD]}))
    with pytest.raises(TrmError, match="^claim one: there are two"):
        load(tmp_path / "claims.yaml")


def test_the_ledger_and_the_reports_hold_the_same_numbers():
    value = lambda name: LEDGER[name].value  # noqa: E731
    c = masked_report.CLAIMED
    assert value("masked-change") == c["change"] and value("masked-time") == c["time_ratio"]
    assert (value("masked-baseline-perplexity"), value("masked-trm-perplexity")) == (c["baseline_ppl"], c["trm_ppl"])
    assert (value("masked-baseline-accuracy"), value("masked-trm-accuracy")) == (c["baseline_accuracy"], c["trm_accuracy"])
    assert (value("masked-baseline-parameters"), value("masked-trm-parameters")) == (c["baseline_parameters"], c["trm_parameters"])
    assert (value("masked-baseline-curve"), value("masked-trm-curve")) == (c["baseline_curve"], c["trm_curve"])
    c = shakespeare_report.CLAIMED
    assert value("shakespeare-change") == pytest.approx(c["change"], abs=1e-5) and value("shakespeare-baseline") == c["baseline_ppl"]
    assert all(
        abs(v - value("autoregressive-one")) < LEDGER["autoregressive-one"].tolerance for v in autoregressive_report.CLAIMED.values()
    )
    assert 1 + LEDGER["autoregressive-one"].tolerance == autoregressive_report.NEAR_ONE
    c = capacity_report.CLAIMED
    assert (value("capacity-parameters"), value("capacity-perplexity"), value("capacity-law")) == (c["parameters"], c["ppl"], c["ratio"])
    assert tuple(value("capacity-efficiency")) == c["efficiency"] and tuple(value("capacity-target")) == c["target"]
    c = sudoku_report.CLAIMED
    assert value("sudoku-longer-gain") == pytest.approx(c["longer"][1] - c["longer"][0]) and value("sudoku-halting") == c["halting"]
    assert value("sudoku-accuracy") == pytest.approx(c["TRM"], abs=0.005)
    c = capacity_report.CLAIMED
    assert value("capacity-curve") == c["curve"]
    read = [v for step, v in c["examples"].items() if step != 214_000]
    assert LEDGER["capacity-ratios"].args["expression"] == [f"{v / 1e6:g}e6 / 6.84e6" for v in read]


def test_a_claim_of_a_capacity_model_is_about_its_corpus_and_size():
    """Where a chapter has stand-ins, a claim without a scope would be refuted by them."""
    for c in CLAIMS:
        if c.chapter in ("capacity", "sudoku") and not claims.RULES[c.rule].computed:
            assert "corpus" in c.scope and (
                c.chapter == "sudoku" or c.scope["corpus"] == "wikitext-2" or c.scope["parameters"] == 6_838_528
            ), c.id


def test_every_observation_of_a_claim_is_a_row_of_the_report(store):
    known = set(sudoku_report.observations(store, frame(store, "sudoku", "full")).observation)
    assert {c.args["row"] for c in CLAIMS if "row" in c.args} == known
    assert {c.args["of"] for c in CLAIMS if c.rule == "both_forms"} == set(claims.FORMS)


# ---------------------------------------------------------------- pending, cut, stand-in


def test_without_records_everything_is_open_that_is_not_counted(store):
    found, _ = claims.judged(store)
    for c, f in found:
        if c.rule == "untested":
            assert (f.verdict, f.why, f.profile) == ("open", c.args["missing"], ""), c.id
        elif claims.RULES[c.rule].computed:
            counted = ("reproduced", "not reproduced")
            assert f.verdict in (counted if c.rule == "parameters" else claims.PAPER) and f.profile == "", c.id
        else:
            assert (f.verdict, f.why, f.n) == ("open", "pending: all runs of the chapter", 0), c.id


def test_a_missing_seed_makes_a_claim_open():
    df = rows("masked", joint={"nll_b": nll(4.0)}, **{"1-pass": {"nll_b": nll(4.2)}})
    assert verdict("masked-passes", df) == ("reproduced", f"against 1-pass: better; {INTERIM}")
    assert verdict("masked-passes", df[(df.arm == "joint") | (df.seed < 3)]) == ("open", "pending: 1-pass (3 of 5 seeds)")


@pytest.mark.parametrize("claim", [c for c in CLAIMS if not claims.RULES[c.rule].computed], ids=lambda c: c.id)
@pytest.mark.parametrize("said", ["not reproduced", "artefact", "reproduced", "inconclusive", "open"])
def test_a_cut_profile_shows_effects_and_nothing_else(claim, said, monkeypatch):
    rule = claims.RULES[claim.rule]
    monkeypatch.setitem(claims.RULES, claim.rule, claims.rule(lambda *_: Finding(said, "so"), level=rule.level, null=rule.null))
    monkeypatch.delitem(claims.RULES, "<lambda>")
    f = judge(claim, rows(claim.chapter, profile="cpu", **dict.fromkeys(claim.arms, {})), EMPTY, "cpu")
    if said == "open" or (rule.level and said != "inconclusive"):
        assert f.verdict == "open"
    else:
        shows = ("not reproduced",) if rule.null else ("reproduced", "artefact")
        assert f.verdict == (said if said in shows else "inconclusive")
    assert "profile cpu" in f.why


def test_a_cut_profile_can_refute_that_there_is_no_gain():
    better = {"baseline": {"nll_b": nll(4.0)}, "TRM": {"nll_b": nll(3.8)}}
    assert (
        claims.RULES["no_gain"].null
        and verdict("autoregressive-no-gain", rows("autoregressive", profile="cpu", **better), "cpu")[0] == "not reproduced"
    )
    same = {"baseline": {"nll_b": nll(4.0)}, "TRM": {"nll_b": nll(4.001)}}
    assert verdict("autoregressive-no-gain", rows("autoregressive", **same))[0] == "reproduced"
    assert verdict("autoregressive-no-gain", rows("autoregressive", profile="cpu", **same), "cpu")[0] == "inconclusive"


def test_a_cut_refutation_and_a_stand_in_are_told():
    better = {"milestones": {"accuracy_b": nll(0.6)}, "TRM": {"accuracy_b": nll(0.2)}}
    worse = {"milestones": {"accuracy_b": nll(0.3)}, "TRM": {"accuracy_b": lambda s: 0.6 - 2 * JITTER[s]}}
    name = "sudoku-milestones"
    assert verdict(name, rows("sudoku", **better)) == ("reproduced", "against TRM: better")
    word, why = verdict(name, rows("sudoku", corpus="sudoku-hard", **better))
    assert word == "reproduced" and why.endswith("shown with sudoku-hard in place of sudoku-extreme")
    assert verdict(name, rows("sudoku", **worse))[0] == "not reproduced"
    word, why = verdict(name, rows("sudoku", corpus="sudoku-hard", **worse))
    assert word == "inconclusive" and why.endswith("shows another effect, and says nothing of the claim's own setting")
    word, why = verdict(name, rows("sudoku", profile="cpu", **worse), "cpu")
    assert word == "inconclusive" and why.startswith("reads “not reproduced") and "profile cpu" in why
    assert verdict("sudoku-accuracy", rows("sudoku", corpus="sudoku-hard", TRM={"accuracy_b": nll(0.87)}))[0] == "open"
    assert verdict("sudoku-accuracy", rows("sudoku", TRM={"accuracy_b": nll(0.87)}))[0] == "reproduced"


def test_a_claim_about_another_model_is_never_refuted_by_ours():
    def both(own, less):
        def arm(first, last, n_sup):  # solved after the first of four steps, and after the last
            detail = lambda s: {"by_step": {"accuracy_b": [first + JITTER[s]] * 3 + [last + JITTER[s]]}}  # noqa: E731
            return {"accuracy_b": nll(first if n_sup == 1 else last), "detail": detail, "spec": {"model": {"n_sup": n_sup}}}

        return rows("sudoku", **{"TRM": arm(0.1, own, 4), "no deep supervision": arm(less, own - 0.05, 1)})

    word, why = verdict("sudoku-supervision", both(0.6, 0.2))
    assert (word, why) == (
        "reproduced",
        "each after its trained steps, without it 33% of the accuracy are left; both after 4, accuracy without it differs by −5.0 points [−5.0, −5.0]; "
        "shown with sudoku-extreme in place of ARC, TRM in place of HRM",
    )
    word, why = verdict("sudoku-supervision", both(0.6, 0.5))
    assert word == "inconclusive" and why.startswith("reads “not reproduced") and "TRM in place of HRM" in why


def test_a_model_of_less_than_half_the_size_shows_effects_and_refutes_nothing():
    def reads(n, ablated):
        fields = {
            "everywhere 0.1M (gradient last)": {"parameters": n, "nll_b": nll(4.0)},
            "everywhere 0.1M": {"parameters": 9e9, "nll_b": ablated},
        }
        f = judge(LEDGER["capacity-detached"], rows("capacity", corpus="wikitext-103", **fields), EMPTY, "full")
        return f.verdict, f.why, f.brief

    small = "a model of 0.09 M parameters in place of 6.8 M"
    assert reads(93_460, lambda s: 4.2 - JITTER[s]) == (
        "reproduced",
        f"against everywhere 0.1M: better; mask and slot positions are then untrained, too, and the published model starts at its targets; shown with {small}",
        small,
    )
    word, why, brief = reads(93_460, lambda s: 3.8 - JITTER[s])
    assert word == "inconclusive" and why.endswith(f"but {small} shows another effect, and says nothing of the claim's own setting")
    assert brief == f"reads “not reproduced”; {small}"
    word, why, _ = reads(93_460, lambda s: 4.0 - JITTER[s] / 10)
    assert word == "inconclusive" and why.endswith(f"but {small} can show an effect, never that there is none")
    assert [reads(n, lambda s: 3.8 - JITTER[s])[0] for n in (6_154_675, 6_154_676)] == ["inconclusive", "not reproduced"]  # nine tenths


# ---------------------------------------------------------------- rules, by hand


def test_counts_and_arithmetic():
    found = {c.id: claims.RULES[c.rule](c) for c in CLAIMS if claims.RULES[c.rule].computed}
    assert (found["masked-baseline-parameters"].measured, found["masked-trm-parameters"].measured) == (1_678_848, 2_075_392)
    assert found["masked-vocabulary"].verdict == "not reproduced" and found["masked-vocabulary"].measured == 2_958_848
    assert (found["shakespeare-parameters"].measured, found["capacity-parameters"].measured) == (108_480, 6_838_528)
    assert found["shakespeare-same-size"].verdict == found["sudoku-quarter"].verdict == "reproduced"
    assert found["masked-change-arithmetic"].measured == pytest.approx(-0.16103, abs=1e-5)
    of = lambda word: {k for k, f in found.items() if f.verdict == word}  # noqa: E731
    assert of("not reproduced") == {"masked-vocabulary"} and of("open") == {c.id for c in CLAIMS if c.rule == "untested"}
    assert of("reproduced") == {c.id for c in CLAIMS if c.rule == "parameters"} - {"masked-vocabulary"}
    assert of("does not add up") == {"masked-efficiency-percent", "masked-efficiency-unit", "masked-stopped", "capacity-examples", "capacity-words", "capacity-proper",
                                     "capacity-recovery", "capacity-estimates", "capacity-shakespeare-examples"}  # fmt: skip
    assert of("adds up") == {c.id for c in CLAIMS if c.rule in ("arithmetic", "table_agrees", "quoted")} - of("does not add up")
    sums = {"capacity-recovery": 782, "capacity-estimates": 50 / 35, "capacity-efficiency-wikitext2": 10 / 6.8, "capacity-fewer": -0.32, "capacity-lstm": 99.3,
            "capacity-five-times": 5.14, "capacity-layer-passes": 18, "capacity-reuse": 9, "capacity-overcapacity": 3.4, "masked-minutes": 13.5, "sudoku-hrm": 55 / 87.4,
            "masked-stopped": 22_500, "masked-positions": 640_000 / 182e6, "masked-accuracy-arithmetic": 13 / 236, "capacity-wikitext2-tokens": 2_088_628}  # fmt: skip
    assert {k: found[k].measured for k in sums} == pytest.approx(sums)
    f = found["capacity-worth"]
    assert f.interval == pytest.approx((13.6, 20.4)) and (f.text, f.why) == ("13.6–20.4 M parameters", "6.8 × 2 and 6.8 × 3")
    f = found["capacity-ratios"]  # four values are no interval
    assert (f.interval, f.text) == (None, "0.468, 1.54, 1.17, 2.13 a parameter")
    assert LEDGER["capacity-ratios"].claimed == "0.47, 1.54, 1.16, 2.13 a parameter"


def test_arithmetic_of_a_range_needs_both_ends_and_a_number_may_lie_anywhere_in_one():
    c = LEDGER["capacity-worth"]
    assert claims.arithmetic(claims.replace(c, args={"expression": ["6.8 * 2", "6.8 * 4"]})).verdict == "does not add up"
    c = LEDGER["capacity-efficiency-wikitext2"]
    reads = [claims.arithmetic(claims.replace(c, args={"expression": e})).verdict for e in ("1.3", "1.8", "1.29", "1.81")]
    assert reads == ["adds up", "adds up", "does not add up", "does not add up"]


def test_arithmetic_takes_nothing_but_numbers():
    c = LEDGER["capacity-passes"]
    with pytest.raises(TrmError, match="^claim capacity-passes: .* is no sum of numbers$"):
        claims.arithmetic(claims.replace(c, args={"expression": "open('x')"}))


def test_better_is_read_as_the_chapter_reads_it():
    def df(joint, **others):
        return rows("masked", joint={"nll_b": nll(joint)}, **{k: {"nll_b": lambda s, v=v: v + 2 * JITTER[s]} for k, v in others.items()})

    assert verdict("masked-coordination", df(4.0, **{"self-only": 4.1, "random-partner": 4.1}))[0] == "reproduced"
    word, why = verdict("masked-coordination", df(4.0, **{"self-only": 4.1, "random-partner": 4.001}))
    assert (word, why) == ("not reproduced", f"against self-only: better; against random-partner: the same within ±2 %; {INTERIM}")
    f = judge(LEDGER["masked-passes"], df(4.1, **{"1-pass": 4.0}), EMPTY, "full")
    assert f.verdict == "not reproduced" and f.measured == pytest.approx(math.expm1(0.1)) and f.n == 5 and f.unit == "%"
    wide = rows("masked", joint={"nll_b": 4.0}, **{"1-pass": {"nll_b": lambda s: 4.03 + 20 * JITTER[s]}})
    assert verdict("masked-passes", wide)[0] == "inconclusive"


def test_later_comparisons_are_read_with_those_that_were_fixed_beside_them():
    arms = {"everywhere 0.1M": {"nll_b": 4.0}} | {f"everywhere 0.1M ({a})": {"nll_b": lambda s: 4.021 + 9 * JITTER[s]} for a in ("n 0, T 1", "T 1", "gradient last")}  # fmt: skip
    df = rows("capacity", corpus="wikitext-103", **{a: f | {"parameters": 6_838_528} for a, f in arms.items()})
    alone = compare.primary(df, [capacity_report.RECURSION[0]])
    assert alone.p_holm[0] < 0.05 < 3 * alone.p_holm[0] and compare.reading(alone.iloc[0]) == "everywhere 0.1M is better"
    assert verdict("capacity-recursion", df) == ("inconclusive", "against everywhere 0.1M (n 0, T 1): inconclusive")


def test_gradients_are_measured_and_not_judged(monkeypatch):
    df = rows("capacity", corpus="wikitext-103", **{"everywhere 0.1M": {"parameters": 6_838_528}})
    assert verdict("capacity-gradients", df) == ("open", "the evaluation `trained_gradients` is pending")
    found = {("everywhere 0.1M", s): {"gradient": [5 * math.exp(JITTER[s]), 2.0, 1.0]} for s in range(5)}
    monkeypatch.setattr(compare, "evaluation_frame", lambda *_: found)
    f = judge(LEDGER["capacity-gradients"], df, EMPTY, "full")
    assert f.verdict == "open" and f.n == 5 and "the last of 3 refinements" in f.why and f.unit == "×"
    assert f.measured == pytest.approx(5) and f.interval[0] < 5 < f.interval[1]


def test_blocks_of_its_own_are_held_against_the_encoders_and_parameters_are_counted():
    arms = {"joint": (4.0, 2_075_392), "shared": (4.2, 1_678_848), "baseline": (4.0, 1_678_848)}
    df = rows("masked", **{a: {"nll_b": nll(v), "parameters": n} for a, (v, n) in arms.items()})
    f = judge(LEDGER["masked-separate"], df, EMPTY, "full")
    told = f"shared runs the encoder's again, with 19 % fewer parameters; against baseline: joint +0.0 % [+0.0, +0.0], shared +22.1 % [+22.1, +22.1]; {INTERIM}"
    assert (f.verdict, f.why, f.brief) == ("reproduced", f"against shared: better; {told}", told)
    assert f.measured == pytest.approx(math.expm1(-0.2))
    assert claims.qualifier(LEDGER["masked-separate"], f) == told
    df.loc[df.arm == "shared", "nll_b"] = 3.9 + np.array(JITTER)
    assert verdict("masked-separate", df)[0] == "not reproduced"


def test_a_baseline_whose_blanks_see_each_other_is_not_isolated(monkeypatch):
    for away, word in ((0.08, "not reproduced"), (0.0, "reproduced")):
        monkeypatch.setattr(
            compare, "leak_matrices", lambda *_, v=away: {"baseline": {"words left in": np.array([[0.3, v], [v / 2, 0.3]])}}
        )
        f = judge(LEDGER["masked-isolated"], rows("masked", baseline={}), EMPTY, "full")
        assert (f.verdict, f.measured) == (word, away)
    monkeypatch.setattr(compare, "leak_matrices", lambda *_: {})
    assert verdict("masked-isolated", rows("masked", baseline={})) == ("open", "the evaluation `leak_probe` is pending")


def test_change_holds_the_claimed_value():
    def df(gain):
        return rows("masked", joint={"accuracy_b": lambda s: 0.24 + gain + JITTER[s]}, baseline={"accuracy_b": 0.24})

    assert verdict("masked-accuracy-change", df(0.013))[0] == "reproduced"
    assert verdict("masked-accuracy-change", df(-0.01))[0] == "not reproduced"


INTERIM = "interim, 5 of 10 seeds"
PUBLISHED, REACHED = math.log(96.75), math.log(81.17)


def falling(seed, from_=6.0, at=PUBLISHED, last=REACHED):
    values = np.interp(STEPS, [0, 13_750, 20_000], [from_, at, last]) + JITTER[seed]
    return {"step": STEPS, "nll": values.tolist(), "noisy_nll": values.tolist(), "noisy_accuracy": [0.236] * len(STEPS)}


def test_artefact_of_unequal_steps():
    df = rows("masked", joint={"nll_b": nll(4.4), "curve": falling}, baseline={"nll_b": 4.4, "curve": lambda s: falling(-1 - s)})
    assert verdict("masked-change", df) == ("artefact", f"of stopping at different steps; {INTERIM}")
    assert verdict("masked-converged", df)[0] == "not reproduced" and verdict("masked-falling", df)[0] == "reproduced"
    assert verdict("masked-slower", df)[0] == "inconclusive"
    late = rows("masked", joint={"curve": lambda s: falling(s, 7.0)}, baseline={"curve": lambda s: falling(-1 - s)})
    assert verdict("masked-slower", late)[0] == "reproduced"
    flat = rows("masked", baseline={"curve": lambda s: falling(s, 4.4, 4.4, 4.4)}, joint={"curve": lambda s: falling(s, 4, 4.4, 4.8)})
    assert verdict("masked-converged", flat)[0] == "reproduced" and verdict("masked-falling", flat)[0] == "not reproduced"


def test_levels_lie_where_one_more_run_would():
    df = rows("masked", baseline={"curve": lambda s: falling(s, last=math.log(96.7))}, joint={"curve": falling})
    assert verdict("masked-baseline-perplexity", df)[0] == verdict("masked-trm-perplexity", df)[0] == "reproduced"
    assert verdict("masked-trm-accuracy", df)[0] == "not reproduced"  # 0.236 in every run
    f = judge(LEDGER["masked-repeatable"], df, EMPTY, "full")
    sd = np.std([math.exp(math.log(81.17) + j) for j in JITTER], ddof=1)
    assert f.verdict == "reproduced" and f.measured == pytest.approx(stats.t_value(0.95, 4) * sd * math.sqrt(1.2), rel=1e-3)
    noisy = rows("masked", **{a: {"curve": lambda s: falling(s, last=4.4 + 50 * JITTER[s])} for a in ("baseline", "joint")})
    assert verdict("masked-repeatable", noisy)[0] == "not reproduced"
    none = df.assign(status="failed")
    assert verdict("masked-baseline-perplexity", none) == ("open", "fewer than two runs of baseline finished")


def test_curve_points_by_hand():
    at = LEDGER["masked-baseline-curve"].value
    through = lambda seed: np.interp(STEPS, list(at), np.log(list(at.values()))) + JITTER[seed]  # noqa: E731
    late = lambda seed, by: through(seed) + by * (np.array(STEPS) > 12_000)  # noqa: E731
    noise = 0.0

    def arm(f):
        zigzag = noise * (-1) ** np.arange(len(STEPS))
        return {"curve": lambda s: {"step": STEPS, "noisy_nll": f(s).tolist(), "nll": (f(s) + zigzag).tolist()}}

    def judged(baseline, joint):
        return judge(LEDGER["masked-baseline-curve"], rows("masked", baseline=arm(baseline), joint=arm(joint)), EMPTY, "full")

    f = judged(through, lambda s: late(s, 0.1))
    assert (f.verdict, f.text) == ("reproduced", "4 of 4 points") and "in the intervals of joint lie 3 of them" in f.why
    f = judged(through, through)  # the rival would have made them as well
    assert (f.verdict, f.text) == ("inconclusive", "4 of 4 points") and "in the intervals of joint lie 4 of them" in f.why
    for joint in (through, lambda s: late(s, 0.1)):
        f = judged(lambda s: late(s, 0.1), joint)
        assert (f.verdict, f.text) == ("not reproduced", "3 of 4 points")
    noise = 0.05  # of one evaluation: these runs lie closer together than that, by chance, and the rival's interval widens
    f = judged(through, lambda s: late(s, 0.1))
    assert (f.verdict, f.text) == ("inconclusive", "4 of 4 points") and "in the intervals of joint lie 4 of them" in f.why
    alone = rows("masked", baseline=arm(through))
    assert verdict("masked-baseline-curve", alone) == ("open", "fewer than two runs of the rival finished")


def test_what_a_run_is_expected_to_show():
    def reads(claim, first, *rest):
        arms = {
            a: {"curve": lambda s, v=v: falling(s, v[s], v[s], v[s])}
            for a, v in zip(("joint", "baseline"), map(np.log, (first, *rest)), strict=False)
        }
        f = judge(LEDGER[claim], rows("masked", **arms), EMPTY, "full")
        return f.verdict, f.text

    assert reads("masked-expected-trm", [81] * 5) == ("reproduced", "5 of 5 (80.84 to 81.16)")
    assert reads("masked-expected-trm", [90] * 5)[0] == "not reproduced"  # none of five: 1 in 32
    assert reads("masked-expected-trm", [90, 81, 90, 90, 90])[0] == "inconclusive"  # one of five: 6 in 32
    assert reads("masked-expected-change", [84] * 5, [100] * 5)[0] == "reproduced"
    assert reads("masked-expected-change", [99] * 5, [100] * 5) == ("not reproduced", "0 of 5 (1.0 % to 1.0 %)")


def test_chance_is_what_identical_models_show(monkeypatch):
    df = rows("masked", baseline={})
    for shares, word in ((np.repeat([0.2, -0.2, 0.0], [10, 10, 80]), "not reproduced"), (np.repeat([0.2, 0.0], [4, 96]), "reproduced")):
        monkeypatch.setattr(masked_report, "identical_models", lambda df, arm, shares=shares: {"with_stopping": shares})
        assert verdict("masked-systematic", df)[0] == word


def test_of_two_alike_one_seems_better_whichever_comes_first():
    rng = np.random.default_rng(0)
    a, b = np.exp(rng.normal(4.4, 0.15, (2, 2_000)))
    seems = masked_report.seems_better(1 - b / a, 0.161)
    assert (seems == masked_report.seems_better(1 - a / b, 0.161)).all() and 0 < seems.mean() < 1
    assert (seems == (np.minimum(a, b) <= (1 - 0.161) * np.maximum(a, b))).all()
    by_hand = np.array([0.161, 0.16, -0.161, -0.19, -0.192])  # 1 − 1/(1 − 0.161) = −0.1919: b is 19.2 % above a, a 16.1 % below b
    assert masked_report.seems_better(by_hand, 0.161).tolist() == [True, False, False, False, True]


def test_costs():
    cost = {
        "joint": {"seconds": lambda s: 220.0 + s, "inference_flops": 15},
        "baseline": {"seconds": lambda s: 100.0 + s, "inference_flops": 10},
    }
    cost["joint"]["serial_depth"] = 8
    gpu = rows("masked", device="nvidia-h200", **cost)
    assert verdict("masked-time", gpu)[0] == "reproduced"
    assert verdict("masked-time", rows("masked", **cost)) == ("open", "only a CPU in place of a GPU, which says nothing of this number")
    f = judge(LEDGER["masked-inference"], gpu, EMPTY, "full")
    assert f.verdict == "inconclusive" and f.interval == (1.5, 4.0)
    assert f.why == "time was not measured; it lies between the two"  # a count: five seeds of ten are enough
    assert verdict("masked-inference", gpu.assign(serial_depth=2))[0] == "not reproduced"  # 1 to 1.5
    minutes = {"target": {"seconds": 60 * 40.0}, "baseline": {"seconds": 60 * 50.0}}
    assert verdict("shakespeare-minutes", rows("shakespeare", **minutes))[0] == "reproduced"  # 45, within 5 times 10
    assert verdict("shakespeare-minutes", rows("shakespeare", **minutes).assign(seconds=6000.0))[0] == "not reproduced"
    df = rows("masked", baseline={"detail": {"by_article": {"blanks": [13_000, 13_792]}}})
    f = judge(LEDGER["masked-validation-words"], df, EMPTY, "full")
    assert (f.measured, f.why) == (214_336, "counted by windows of 16")
    sudoku = {"curriculum": {"train_flops": 10, "accuracy_b": nll(0.8)}, "TRM": {"train_flops": 19, "accuracy_b": 0.8}}
    assert verdict("sudoku-curriculum", rows("sudoku", **sudoku))[0] == "reproduced"
    sudoku["curriculum"]["accuracy_b"] = nll(0.7)
    assert verdict("sudoku-curriculum", rows("sudoku", **sudoku))[0] == "not reproduced"


def test_shakespeare_leak_tables_and_skill(monkeypatch):
    curve = lambda s: {"step": [250, 500, 750], "nll": [2.8, 2.6, 2.4], "nll_split": [6.0, math.log(55.08) + 10 * JITTER[s], 4.5]}  # noqa: E731

    def arms(mask=1.5, target=0.01, mask_split=5.0, target_split=5.0, baseline_split=5.0):
        """`…_split` is the best of a curve; its last point, which nothing here may read, says the opposite of mask."""
        of = lambda best, split, last: lambda s: {"nll": [2.8, best + JITTER[s]], "nll_split": [split, last]}  # noqa: E731
        levels = {"mask": (mask, mask_split, 5.5), "target": (target, target_split, 9.0), "baseline": (1.4, baseline_split, 9.0)}
        fields = {a: {"nll_b": nll(v[0]) if a != "baseline" else 1.4, "nll_split_b": v[2], "curve": of(*v)} for a, v in levels.items()}
        fields["baseline"]["curve"] = lambda s: {"nll": [2.8, 1.4], "nll_split": [baseline_split + JITTER[s], 9.0]}
        return rows("shakespeare", **fields)

    leak, tables = "of starting at the target", "of two character tables"
    df = arms()
    f = judge(LEDGER["shakespeare-change"], df, EMPTY, "full")
    left = "one table of characters alone leaves −75.1 % [−75.1, −75.0], start at a mask embedding alone leaves +0.0 % [−0.2, +0.2]"
    assert (f.verdict, f.brief, f.why) == ("artefact", leak, f"{leak}; at the best evaluation, as published: {left}")
    assert f.measured == pytest.approx(math.expm1(0.1))
    found = [
        judge(LEDGER["shakespeare-change"], d, EMPTY, "full")
        for d in (arms(mask_split=4.5), arms(target=1.41, mask_split=4.5), arms(target=1.41))
    ]
    assert [(f.verdict, f.brief) for f in found] == [("artefact", f"{leak}, and {tables}"), ("artefact", tables), ("not reproduced", "")]
    assert verdict("shakespeare-change", arms(mask=1.2, mask_split=4.5))[0] == "not reproduced"  # a gain is left without both
    begun = lambda curve, **more: rows("shakespeare", **more, **{"baseline (begun)": {"nll_b": 1.4, "curve": curve}})  # noqa: E731
    f = judge(LEDGER["shakespeare-baseline"], begun(curve), EMPTY, "full")
    read = "with two tables it depends on when it is read: 55.1 at its best evaluation, 90 at its last, step 750"
    seen = "seen over 750 of 39,210 steps"
    assert (f.verdict, f.brief, f.why) == (
        "artefact",
        f"{tables}; {seen}",
        f"{tables}; {read}; {seen}",
    ) and f.text == "55.1 with two tables, 13.5 with one"
    assert verdict("shakespeare-baseline", df) == ("open", "pending: baseline (begun) (0 of 5 seeds)")
    far = begun(lambda s: {"step": [250, 500], "nll": [2.8, 2.6], "nll_split": [3.0 + JITTER[s], math.log(30)]}, profile="cpu")
    told = "with two tables it depends on when it is read: 20.1 at its first evaluation, 30 at its last, step 500; seen over 500 of 39,210 steps"
    assert verdict("shakespeare-baseline", far) == ("open", told)
    assert verdict("shakespeare-baseline", far, "cpu") == ("open", f"{told}; profile cpu, which says nothing of this number")
    for start, word in ((3.0, "artefact"), (1.0, "reproduced")):
        found = {("target", s): dict.fromkeys(("last", "zeros", "noise", "wrong"), [9.0, start + JITTER[s]]) for s in range(5)}
        monkeypatch.setattr(compare, "evaluation_frame", lambda store, df, name, found=found: found)
        assert verdict("shakespeare-skill", df)[0] == verdict("shakespeare-warm-start", df)[0] == word
    monkeypatch.setattr(compare, "evaluation_frame", lambda *_: {})
    assert verdict("shakespeare-skill", df) == ("open", "the evaluation `starts` is pending")


def test_training_loss_and_refinements_of_shakespeare():
    def passes(last, profile="full", loss=0.0):
        at = lambda s: {"by_pass": {"nll_b": [4.0, 2.5, 2.4, last + JITTER[s], 1.0]}}  # noqa: E731, the start, three that are trained, one that is not
        arms = {"mask": {"detail": at}, "target": {"curve": lambda s: {"train_loss": [1.0, loss + 1e-5 * s]}}}
        return rows("shakespeare", profile=profile, **arms)

    assert verdict("shakespeare-progressive", passes(2.3)) == ("reproduced", "from the first refinement to the last")
    assert judge(LEDGER["shakespeare-progressive"], passes(2.3), EMPTY, "full").measured == pytest.approx(math.expm1(-0.2))
    assert [verdict("shakespeare-progressive", passes(v))[0] for v in (2.49, 2.7)] == [
        "not reproduced"
    ] * 2  # the same within 2 %, or worse
    assert [verdict("shakespeare-training-loss", passes(2.3, loss=v))[0] for v in (0.0, 0.01)] == ["reproduced", "not reproduced"]
    assert verdict("shakespeare-training-loss", passes(2.3, "cpu"), "cpu")[0] == "open"


def test_left_to_right():
    arms = {"baseline, no shift": 0.04, "TRM, no shift": 0.05, "baseline": 4.0, "TRM": 4.0}
    df = lambda arms: rows("autoregressive", **{a: {"nll_b": nll(v)} for a, v in arms.items()})  # noqa: E731
    f = judge(LEDGER["autoregressive-one"], df(arms), EMPTY, "full")
    assert (f.verdict, f.why) == ("artefact", "of a missing shift") and f.text == "1.051 without the shift, 54.6 with it"
    assert verdict("autoregressive-one", df(arms | {"TRM": 0.05}))[0] == "inconclusive"
    both = lambda trm: rows("autoregressive", TRM={"nll_b": nll(trm)}, baseline={"nll_b": 4.0})  # noqa: E731
    assert verdict("autoregressive-no-gain", both(4.0))[0] == "reproduced"
    assert verdict("autoregressive-no-gain", both(3.9))[0] == "not reproduced"
    assert verdict("autoregressive-no-gain", both(3.981))[0] == "inconclusive"
    assert [verdict("autoregressive-hurts", both(v))[0] for v in (4.1, 4.0, 3.9)] == ["reproduced", "not reproduced", "not reproduced"]
    settings = {f"{a} ({s})": v for a, v in arms.items() for s in autoregressive_report.SETTINGS}
    assert verdict("autoregressive-settings", df(settings)) == ("artefact", "of a missing shift")
    assert verdict("autoregressive-settings", df(settings | {"TRM (dropout 0.5)": 0.05}))[0] == "inconclusive"
    some = {a: v for a, v in settings.items() if "context 8" in a}
    assert verdict("autoregressive-settings", df(some)) == ("open", "1 of 6 settings recorded")


def turning(ratio, parameters, points=400, batch=32):
    """A curve that falls up to `ratio` windows a parameter and rises after, of a model of so many parameters; to 4 windows."""
    step = np.linspace(0, 4 * parameters / batch, points + 1)[1:]
    seen = step * batch / parameters
    return {"step": step.astype(int).tolist(), "nll": (6 - np.minimum(seen, ratio) + np.maximum(seen - ratio, 0)).tolist()}


def test_capacity(monkeypatch):
    sizes = {"steady 0.04M": 40_000, "steady 0.1M": 100_000}
    counted = {"unigram": 20.0, "bigram": 19.0, "last": 19.0}
    monkeypatch.setattr(compare, "references", lambda *_: counted)

    def df(ratio):
        of = lambda p: {"parameters": p, "curve": lambda s: turning(ratio * (1 + 4 * JITTER[s]), p)}  # noqa: E731
        return rows("capacity", **{a: of(p) for a, p in sizes.items()})

    short = "wiki-core in place of wikitext-103, a causal model in place of the TRM, a model of 0.1 M parameters in place of 6.8 M"
    for name, models, turned in (
        ("capacity-law", "0.04 M, 0.1 M", "no curve of 10 runs at 2 sizes turned, up to 4.0 windows a parameter"),
        ("capacity-zones", "0.1 M", "0 of 5 curves turn up to 4.0 examples a parameter"),
    ):
        f = judge(LEDGER[name], df(9.0), EMPTY, "full")
        rests = (
            f"rests on causal models of {models} parameters on wiki-core; of the TRM itself open: 0 of the sizes complete; two are needed"
        )
        assert f.why == f"reads “not reproduced ({turned}; {rests})”, but {short} can show an effect, never that there is none"
        assert (f.verdict, f.brief) == ("inconclusive", f"reads “not reproduced”; {short}")
        assert f.measured == 0 and f.unit == "curves"
    assert verdict("capacity-law", df(1.0))[0] == verdict("capacity-zones", df(1.0))[0] == "reproduced"
    sizes["steady 7M"] = 6_838_528  # a size that the claim does not ask for, and the law is read off as well
    assert [judge(LEDGER[f"capacity-{name}"], df(9.0), EMPTY, "full").brief for name in ("law", "zones")] == [
        f"reads “not reproduced”; {short.removesuffix(', a model of 0.1 M parameters in place of 6.8 M')}", f"reads “not reproduced”; {short}"
    ]  # fmt: skip
    del sizes["steady 7M"]
    assert judge(LEDGER["capacity-zones"], df(9.0), EMPTY, "full").text == "0 of 5 curves turn"
    assert verdict("capacity-law", df(2.5))[0] == "inconclusive"
    unscoped = claims.replace(LEDGER["capacity-law"], scope={})
    assert [judge(unscoped, df(v), EMPTY, "full").verdict for v in (9.0, 2.5)] == ["not reproduced"] * 2
    counted["unigram"] = counted["bigram"] = 2.1  # the models have not learnt as much: no curve falls below 2
    assert verdict("capacity-law", df(9.0))[0] == verdict("capacity-zones", df(9.0))[0] == "open"
    monkeypatch.setattr(compare, "references", lambda *_: None)
    of = lambda n: rows("capacity", "full", "wikitext-103", **{"everywhere 0.1M": {"parameters": n}, "standard 0.1M": {"parameters": n}})  # noqa: E731
    standard = of(6_838_528)
    for e, bound, word in (
        (stats.Effect(2.4, 2.1, 2.8, 0.0, 5, 0.95), "", "reproduced"),
        (stats.Effect(0.9, 0.8, 1.1, 0.1, 5, 0.95), "", "not reproduced"),
        (stats.Effect(2.4, 2.1, 2.8, 0.0, 5, 0.95), "at least", "inconclusive"),
        (stats.Effect(0.9, 0.8, 1.1, 0.1, 5, 0.95), "at most", "not reproduced"),
    ):
        monkeypatch.setattr(capacity_report, "efficiency", lambda *_, e=e, bound=bound: (e, bound))
        assert verdict("capacity-efficiency", standard)[0] == word
    monkeypatch.setattr(compare, "references", lambda *_: {"unigram": 4.1, "bigram": 3.0, "last": 3.0})  # 4.0: nobody has learnt much
    cut = of(93_460)
    cut.loc[cut.arm == "standard 0.1M", "nll_b"] = 3.1
    word, why = verdict("capacity-efficiency", cut)
    assert (
        word == "inconclusive"
        and "0.09 M parameters in place of 6.8 M" in why
        and "everywhere 0.1M has learnt little more than token frequencies" in why
    )
    for claim, arm in (("capacity-perplexity", "leaking 0.1M"), ("capacity-curve", "as it was")):
        assert verdict(claim, rows("capacity", corpus="wikitext-103", **{arm: {}}))[0] == "open"
    monkeypatch.setattr(compare, "references", lambda *_: None)  # nothing is counted at its vocabulary
    was = rows("capacity", corpus="wikitext-103", **{"as it was": {"parameters": 6_838_528, "curve": lambda s: turning(1.0, 6_838_528)}})
    assert verdict("capacity-curve", was)[1].startswith("of its shape: as it was scored from its own start; what counting")
    words = lambda ppl: rows("capacity", corpus="wikitext-2", **{"TRM WikiText-2": {"nll_b": nll(math.log(ppl))}})  # noqa: E731
    assert verdict("capacity-target", words(80))[0] == "reproduced" and verdict("capacity-target", words(140))[0] == "not reproduced"


def test_few_examples_read_again_and_again_are_not_safe(monkeypatch):
    counted = {"unigram": 20.0, "bigram": 19.0}
    monkeypatch.setattr(compare, "references", lambda *_: counted)

    def df(ratio, windows):
        out = rows("capacity", **{"steady 0.04M (text of N/16)": {"parameters": 40_000, "curve": lambda s: turning(ratio(s), 40_000)}})
        for record in out.record:
            record["data"]["windows"] = windows
        return out

    f = judge(LEDGER["capacity-safe"], df(lambda s: 0.5, 2_000), EMPTY, "full")
    assert (f.verdict, f.text, f.measured) == ("inconclusive", "5 of 5 curves turn", 5)
    told = "5 of 5 curves turn, and end 32.1 times as high, with 0.05 unique examples a parameter, each read 80 times"
    told = f"reads “not reproduced ({told}; causal models of 0.04 M parameters on wiki-core"
    short = "wiki-core in place of wikitext-103, a causal model in place of the TRM, a model of 0.04 M parameters in place of 6.8 M"
    assert (
        f.why == f"{told})”, but {short} can show an effect, never that there is none"
    )  # the last five points' median is 3.47 nats above the lowest
    word, why = verdict("capacity-safe", df(lambda s: 9, 2_000))
    assert word == "reproduced" and why.startswith("0 of 5 curves turn with 0.05 unique examples a parameter, each read 80 times; ")
    assert verdict("capacity-safe", df(lambda s: 9 if s else 0.5, 2_000))[0] == "inconclusive"
    assert verdict("capacity-safe", df(lambda s: 0.5, 20_000)) == ("open", f"its windows are 0.50 a parameter; {short}")
    counted["unigram"] = 5.6  # the curve is lowest at 5.5: little was known
    word, why = verdict("capacity-safe", df(lambda s: 0.5, 2_000))
    assert word == "inconclusive" and why.startswith(f"{told}; unstable rather than forgetful (steady 0.04M (text of N/16)")
    counted["unigram"] = 2.1
    assert verdict("capacity-safe", df(lambda s: 9, 2_000))[0] == "open"  # nothing to forget, so nothing was kept either


def test_a_capacity_claim_on_wikitext2_reads_the_cut_runs_and_says_so(store, monkeypatch):
    words = rows("capacity", profile="cpu", corpus="wikitext-2", **{"TRM WikiText-2": {"nll_b": nll(math.log(300))}})
    monkeypatch.setattr(capacity_report, "section", lambda store, name, profile: (words, "cpu"))
    f = {c.id: f for c, f in claims.judged(store, "full", ["capacity"])[0]}
    assert (f["capacity-target"].verdict, f["capacity-target"].profile) == ("open", "cpu")
    assert f["capacity-target"].measured == pytest.approx(300, rel=0.01) and "profile cpu" in f["capacity-target"].why
    assert f["capacity-target-baseline"].why.startswith("pending: standard WikiText-2") and f["capacity-parameters"].verdict == "reproduced"
    assert f["capacity-law"].why == "pending: all runs of the chapter"


def test_sudoku_observations_and_longer(monkeypatch):
    df = rows("sudoku", **{"TRM": {"spec": {"model": {"n_sup": 16}}}, "random starts": {}})
    e = stats.Effect(0.05, 0.04, 0.06, 0.0, 5, 0.95)
    for reading, word in {"seen": "reproduced", "not seen": "not reproduced", "the opposite": "not reproduced", "inconclusive": "inconclusive", "open": "open"}.items():  # fmt: skip
        row = pd.DataFrame({"observation": ["steps pay more than starts"], "measured": ["+5 points"], "reading": [reading], "effect": [e]})
        monkeypatch.setattr(sudoku_report, "observations", lambda store, df, row=row: row)
        f = judge(LEDGER["sudoku-steps-or-starts"], df, EMPTY, "full")
        assert f.verdict == word and f.interval == (None if word == "open" else (0.04, 0.06))
    for gain, word in ((0.09, "reproduced"), (0.02, "not reproduced")):
        e = stats.paired(np.array(JITTER) + gain, np.zeros(5))
        monkeypatch.setattr(sudoku_report, "longer_gain", lambda *_, e=e: (64, e))
        assert verdict("sudoku-longer-gain", df)[0] == word


def test_both_forms_of_the_alignment_must_agree(monkeypatch):
    df = rows("sudoku", **{"TRM": {}, "random starts": {}})
    up, down, none = (stats.paired(np.array(JITTER) + v, np.zeros(5)) for v in (0.015, -0.015, 0.0))
    cases = {("seen", up): "reproduced", ("seen", none): "inconclusive", ("seen", down): "inconclusive", ("the opposite", down): "not reproduced",
             ("inconclusive", none): "inconclusive", ("inconclusive", up): "inconclusive", ("open", up): "open", ("seen", None): "open"}  # fmt: skip
    monkeypatch.setattr(sudoku_report, "alignments", lambda store, df, form: pd.DataFrame({"arm": ["TRM"] * 5, "form": form}))
    for (reading, own), word in cases.items():
        row = pd.DataFrame({"observation": ["z is more path independent than y"], "measured": ["+0.015 and so"], "reading": [reading], "effect": [None if reading == "open" else up]})  # fmt: skip
        monkeypatch.setattr(sudoku_report, "observations", lambda store, df, row=row: row)
        monkeypatch.setattr(sudoku_report, "latents", lambda table, own=own: own if set(table.form) == {"own"} else None)
        f = judge(LEDGER["sudoku-latents"], df, EMPTY, "full")
        assert f.verdict == word
        apart = (reading, own) in {("seen", none), ("seen", down), ("inconclusive", up)}
        assert f.brief == ("the two forms of the score disagree" if apart else "")
    row = pd.DataFrame(
        {"observation": ["random starts lower path independence"], "measured": ["−0.015"], "reading": ["seen"], "effect": [down]}
    )
    monkeypatch.setattr(sudoku_report, "observations", lambda store, df: row)
    for own, word in ((down, "reproduced"), (up, "inconclusive")):  # here less is what is claimed
        monkeypatch.setattr(sudoku_report, "starts_alignment", lambda table, own=own: own)
        assert verdict("sudoku-starts-path", df)[0] == word


def test_a_pooled_correlation_counts_seeds_and_says_its_runs(monkeypatch):
    e = stats.Effect(0.3, -0.1, 0.6, 0.2, 10, 0.95)
    row = pd.DataFrame(
        {"observation": ["path independence goes with accuracy"], "measured": ["r = +0.30"], "reading": ["inconclusive"], "effect": [e]}
    )
    monkeypatch.setattr(sudoku_report, "observations", lambda store, df: row)
    monkeypatch.setattr(sudoku_report, "alignments", lambda store, df, form: pd.DataFrame({"arm": ["TRM"] * 5 + ["random starts"] * 5}))
    monkeypatch.setattr(sudoku_report, "correlations", lambda table: {"prediction": e})
    f = judge(LEDGER["sudoku-path"], rows("sudoku", **{"TRM": {}, "random starts": {}}), EMPTY, "full")
    assert (f.verdict, f.n, f.why) == ("inconclusive", 5, "r = +0.30; 10 runs of 2 arms")


def test_stopping_early_and_choosing_by_confidence(monkeypatch):
    df, spent = rows("sudoku", **{"TRM": {}, "random starts": {}}), stats.paired(np.array(JITTER) + 1.8, np.zeros(5))
    for lost, word in ((-0.2, "reproduced"), (0.2, "not reproduced"), (0.0, "inconclusive")):
        e = stats.paired(np.array(JITTER) + lost, np.zeros(5))
        monkeypatch.setattr(sudoku_report, "stopping", lambda *_, e=e: (e, spent))
        f = judge(LEDGER["sudoku-early"], df, EMPTY, "full")
        assert (f.verdict, f.why) == (word, "stopped after 1.8 steps on average, in place of 16") and f.measured == pytest.approx(
            lost, abs=1e-9
        )
    monkeypatch.setattr(sudoku_report, "stopping", lambda *_: None)
    assert verdict("sudoku-early", df) == ("open", "the evaluation `longer` is pending")
    solved = np.zeros((5, 1, 100))
    solved[..., :50] = 1
    for own, vote, word in ((solved, 0 * solved, "reproduced"), (0 * solved, solved, "not reproduced"), (solved, solved, "inconclusive")):
        b = {"steps": [16], "starts": [8], "most": [8], "puzzles": 100, "any": [[own]], "confidence": [[own]], "puzzle vote": [[vote]]}
        monkeypatch.setattr(sudoku_report, "budgets", lambda *_, b=b: b)
        f = judge(LEDGER["sudoku-puzzle-vote"], df, EMPTY, "full")
        assert (f.verdict, f.why) == (word, "8 starts; 5 seeds × 100 puzzles") and f.measured == pytest.approx(own.mean() - vote.mean())
    monkeypatch.setattr(sudoku_report, "budgets", lambda *_: None)
    assert verdict("sudoku-puzzle-vote", df) == ("open", "the evaluation `budget` is pending")


def test_alignment_that_is_consistent_and_that_makes_more_steps_pay(monkeypatch):
    def table(scatter, toward=1.0, arms=("TRM", "random starts", "n ± 1")):  # scatter of the predictions, of 1 that y and z have
        rng = np.random.default_rng(0)
        of = [{"arm": a, "seed": s, "y": JITTER[s], "z": -JITTER[s], "prediction": scatter * (1 + 0.01 * i) * toward * JITTER[s], "accuracy": rng.random()}
              for i, a in enumerate(arms) for s in range(5)]  # fmt: skip
        return pd.DataFrame(of, columns=["arm", "seed", "y", "z", "prediction", "accuracy"])

    df = rows(
        "sudoku",
        **{a: {"detail": lambda s: {"by_step": {"accuracy_b": [0.5] * 16 + [0.6 + JITTER[s]]}}} for a in ("TRM", "random starts", "n ± 1")},
    )

    def reads(claim, own, other):
        monkeypatch.setattr(sudoku_report, "alignments", lambda store, df, form: own if form == "own" else other)
        return judge(LEDGER[claim], df, EMPTY, "full")

    f = reads("sudoku-consistent", table(0.5), table(0.6))
    assert f.verdict == "reproduced" and f.measured == pytest.approx(0.6 * (1.01 * 1.02) ** (1 / 3) - 1) and f.n == 5
    assert f.why.startswith("than y, from its own end −49.5 % [") and f.why.endswith("; 3 arms")
    words = [reads("sudoku-consistent", table(a), table(b)).verdict for a, b in ((2, 2), (0.5, 2))]
    assert words == ["not reproduced", "inconclusive"]
    assert reads("sudoku-consistent", table(1, arms=()), table(1, arms=())).verdict == "open"
    f = reads("sudoku-extra-steps", table(0.5), table(0.5))  # runs that align more gain more
    assert (f.verdict, f.n) == ("reproduced", 5) and f.measured == pytest.approx(1) and f.why.endswith("; 15 runs of 3 arms")
    words = [reads("sudoku-extra-steps", table(1, a), table(1, b)).verdict for a, b in ((-1, -1), (1, -1))]
    assert words == ["not reproduced", "inconclusive"]
    for r in df.record:
        r["detail"]["by_step"]["accuracy_b"] = r["detail"]["by_step"]["accuracy_b"][:16]
    assert reads("sudoku-extra-steps", table(1), table(1)).verdict == "open"


def test_where_random_starts_gain_most(monkeypatch):
    df = rows("sudoku", **{"random starts": {"spec": {"model": {"n_sup": 16}}}})
    rng = np.random.default_rng(0)

    def budgets(gains):  # {steps: gain of eight starts}: of 400 puzzles one start solves none
        one, best = np.zeros((5, 8, 400)), lambda g: (rng.random((5, 1, 400)) < g).astype(float)
        return {"steps": list(gains), "starts": [1, 8], "most": [8] * len(gains), "confidence": [[one, best(g)] for g in gains.values()]}

    for gains, word in (
        ({1: 0.1, 8: 0.4, 16: 0.3, 64: 0.1}, "reproduced"),
        ({1: 0.4, 8: 0.1, 16: 0.2, 64: 0.1}, "not reproduced"),
        ({1: 0.3, 8: 0.1, 16: 0.3, 64: 0.1}, "inconclusive"),
        ({8: 0.1, 16: 0.2}, "open"),  # nothing to hold it against
    ):
        found = budgets(gains)
        monkeypatch.setattr(sudoku_report, "budgets", lambda *_, found=found: found)
        f = judge(LEDGER["sudoku-near"], df, EMPTY, "full")
        assert f.verdict == word
        if word == "not reproduced":
            assert (
                "after 16 steps less that after 1, trained with 16; points that 8 starts gain: 38.8 after 1" in f.why
                and f.measured == pytest.approx(-0.2, abs=0.03)
            )
    monkeypatch.setattr(sudoku_report, "budgets", lambda *_: None)
    assert verdict("sudoku-near", df)[0] == "open"


def test_blips_and_scatter():
    def blip(own):
        arms = {"N_sup ± 4": own, "TRM": 0.8, "N_sup ± 8": 0.84}
        return judge(
            LEDGER["sudoku-blip"],
            rows("sudoku", **{a: {"accuracy_b": lambda s, v=v, w=w: v + w * JITTER[s]} for w, (a, v) in enumerate(arms.items())}),
            EMPTY,
            "full",
        )

    assert blip(0.7).verdict == blip(0.9).verdict == "reproduced" and blip(0.7).measured == pytest.approx(-0.12)
    assert blip(0.82).verdict == "not reproduced"
    scatter = lambda by: judge(LEDGER["sudoku-variance"], rows("sudoku", TRM={"accuracy_b": lambda s: 0.8 + by * JITTER[s]}), EMPTY, "full")  # noqa: E731
    sd = np.std(JITTER, ddof=1)
    f = scatter(50)
    assert f.verdict == "reproduced" and f.measured == pytest.approx(50 * sd)
    assert f.interval == pytest.approx(
        (50 * sd * math.sqrt(4 / 11.1433), 50 * sd * math.sqrt(4 / 0.484419)), rel=1e-4
    )  # χ² of 4 degrees of freedom
    assert [scatter(by).verdict for by in (2, 15)] == ["not reproduced", "inconclusive"]


# ---------------------------------------------------------------- what is printed


def test_numbers_as_text():
    assert [claims.number(v, u) for v, u in ((-0.161, "%"), (0.236, "share"), (2.2, "×"), ((2, 3), "×"), (223.62, "perplexity"), (None, ""), ((0.14, 0.18), "share"))] == [
        "−16.1 %", "23.6 %", "2.2×", "2–3×", "223.62", "–", "14.0–18.0 %"]  # fmt: skip
    assert claims.measured(Finding("open", measured=-0.004, interval=(-0.022, 0.014)), "%") == "−0.4 % [−2.2, +1.4]"
    assert claims.measured(Finding("open", measured=1079.648, interval=(1065.003, 1094.494)), "perplexity") == "1,080 [1,065, 1,094]"
    assert LEDGER["masked-converged"].claimed == "within ±2 %" and LEDGER["masked-trm-curve"].claimed == "6 points"


def test_the_readme_table_is_between_its_markers_and_a_second_filling_changes_nothing(store):
    found, _ = claims.judged(store)
    text = claims.fill_readme(f"before\n{claims.START}\nold\n{claims.END}\nafter\n", found)
    assert text.startswith(f"before\n{claims.START}\n") and text.endswith(f"{claims.END}\nafter\n") and "old" not in text
    assert text.count("| **open** (runs pending) |") + text.count("| **not reproduced** (counted) |") == sum(c.headline for c in CLAIMS)
    assert claims.fill_readme(text, found) == text
    with pytest.raises(TrmError, match="^README.md needs the lines"):
        claims.fill_readme("no markers", found)


def test_a_chapter_opens_with_its_headline_claims(store):
    table = claims.in_short(store, "masked").splitlines()
    assert len(table) == 4 + sum(c.headline for c in CLAIMS if c.chapter == "masked")
    assert (
        "| 16.1 % lower perplexity | −16.1 % | – | [**open**](02_masked.ipynb#The-comparisons-fixed-beforehand) (runs pending) |" in table
    )
    assert (
        "| 1.68 M parameters at 10,000 words | 1,680,000 | 2,958,848 | [**not reproduced**](02_masked.ipynb#The-two-models) (counted) |"
        in table
    )


def test_verdicts_are_told_by_what_they_rest_on():
    found = [(LEDGER[k], f) for k, f in (
        ("masked-change", Finding("artefact")), ("capacity-one-rule", claims.untested(LEDGER["capacity-one-rule"])),
        ("masked-vocabulary", claims.parameters(LEDGER["masked-vocabulary"])), ("capacity-worth", claims.arithmetic(LEDGER["capacity-worth"])),
        ("capacity-lstm", claims.quoted(LEDGER["capacity-lstm"])), ("capacity-examples", claims.table_agrees(LEDGER["capacity-examples"])))]  # fmt: skip
    assert claims.tally(found) == "measured: 1 artefact, 1 open; counted: 1 not reproduced; checked on paper: 2 add up, 1 does not add up"
    assert claims.tally(found[5:] * 2) == "checked on paper: 2 do not add up" and claims.tally(found[3:4]) == "checked on paper: 1 adds up"
    assert [claims.kind(*r) for r in found] == ["measured", "measured", "counted"] + 3 * ["checked on paper"]
    assert claims.qualifier(*found[3]) == "checked on paper" and claims.qualifier(*found[1]) == LEDGER["capacity-one-rule"].args["missing"]


def test_the_page_of_the_ledger_has_the_verdict_second():
    head, _, row = claims.linked([(LEDGER["masked-vocabulary"], claims.parameters(LEDGER["masked-vocabulary"]))]).split("\n")
    cells = row.strip("| ").split(" | ")
    assert head == "| claim | verdict | claimed | measured | seeds | source |"
    assert cells[1] == "[**not reproduced**](02_masked.ipynb#The-two-models): counted" and cells[3:] == ["2,958,848", "–", "000, 001"]


def test_a_verdict_is_qualified_in_a_few_words():
    def said(claim, df, profile="full"):
        return claims.qualifier(LEDGER[claim], judge(LEDGER[claim], df, EMPTY, profile))

    arms = {"joint": {"nll_b": nll(4.0)}, "1-pass": {"nll_b": nll(4.2)}}
    assert said("masked-passes", rows("masked", **arms)) == INTERIM
    assert said("masked-passes", rows("masked", profile="cpu", **arms), "cpu") == "profile cpu"
    assert said("masked-passes", rows("masked", joint={})) == "runs pending"
    df = rows("masked", joint={"nll_b": nll(4.4), "curve": falling}, baseline={"nll_b": 4.4, "curve": lambda s: falling(-1 - s)})
    assert said("masked-change", df) == f"of stopping at different steps; {INTERIM}"
    starts = {"milestones": {"accuracy_b": nll(0.3)}, "TRM": {"accuracy_b": nll(0.6)}}
    assert said("sudoku-milestones", rows("sudoku", profile="cpu", corpus="easy-9", **starts), "cpu") == (
        "reads “not reproduced”; profile cpu, easy-9 in place of sudoku-extreme"
    )
    assert said("sudoku-milestones", rows("sudoku", **starts)) == "5 seeds"
    solved = rows("sudoku", corpus="easy-9", TRM={"accuracy_b": nll(0.87)})
    assert said("sudoku-accuracy", solved) == "only easy-9 in place of sudoku-extreme"
    assert claims.qualifier(LEDGER["masked-vocabulary"], claims.parameters(LEDGER["masked-vocabulary"])) == "counted"


def test_numbers_for_a_machine():
    effect, count = LEDGER["masked-passes"], LEDGER["capacity-worth"]
    found = [(effect, judge(effect, rows("masked", joint={"nll_b": nll(4.1)}, **{"1-pass": {"nll_b": 4.0}}), EMPTY, "full")),
             (count, claims.arithmetic(count)), (effect, Finding("open", "pending"))]  # fmt: skip
    table = claims.everything(found, digits=True)
    assert list(table.n) == [5, 0, 0] and list(table.unit) == ["%", "M parameters", ""] and table.measured[1] == "13.6–20.4 M parameters"
    assert table.value[0] == pytest.approx(math.expm1(0.1)) and table.low[0] < table.value[0] < table.high[0]
    assert (
        np.isnan(table.value[1])
        and (table.low[1], table.high[1]) == pytest.approx((13.6, 20.4))
        and table[["value", "low", "high"]].loc[2].isna().all()
    )
    assert all(table[c].dtype.kind in "fi" for c in ("value", "low", "high", "n"))
    assert "seeds" in claims.everything(found) and "value" not in claims.everything(found)
    m = claims.documents(found)[0]["measured"]
    assert (m["value"], m["low"], m["high"]) == tuple(table.loc[0, ["value", "low", "high"]])


def test_the_committed_readme_has_the_markers():
    claims.fill_readme((ROOT / "README.md").read_text(), [])


def test_trm_claims(store, monkeypatch, capsys):
    monkeypatch.setenv("TRM_RESULTS", str(store.root))
    assert cli.main(["claims", "--json", "capacity-pa*", "004"]) == 0
    found = {r["id"]: r for r in json.loads(capsys.readouterr().out)}
    assert {"capacity-parameters", "capacity-passes", "sudoku-longer"} <= found.keys() and "masked-change" not in found
    r = found["capacity-parameters"]
    assert (
        r["verdict"] == "reproduced"
        and r["measured"]["value"] == r["claimed"]["value"] == 6_838_528
        and r["shown"]["notebook"] == "04_capacity"
    )
    assert r["source"] == [{"key": "003", **SOURCES["003"]}] and found["sudoku-longer"]["verdict"] == "open"
    assert cli.main(["claims", "masked-vocabulary"]) == 0
    assert "2,958,848" in capsys.readouterr().out
    assert cli.main(["claims", "nothing"]) == 2
    assert "no claim matches 'nothing'" in capsys.readouterr().err


def test_what_else_was_compared_is_said_with_a_verdict(monkeypatch):
    """The baseline is as good at equal steps, and better at equal compute: both stand there."""
    arms = {"baseline": {"nll_b": nll(4.0)}, "TRM": {"nll_b": nll(4.0)}, "baseline-compute": {"nll_b": nll(3.8)}}
    word, why = verdict("autoregressive-hurts", rows("autoregressive", **arms))
    assert (word, why) == ("not reproduced", "against TRM: the same within ±2 %; TRM against baseline-compute: +22.1 % [+22.1, +22.1]")
    equal = {a: arms.pop(a) for a in ("TRM", "baseline")}
    assert verdict("autoregressive-hurts", rows("autoregressive", **equal))[1] == "against TRM: the same within ±2 %"
    cut = rows("autoregressive", "cpu", **equal, **arms)
    monkeypatch.setattr(claims, "frame", lambda store, chapter, profile: {"cpu": cut}[profile])
    word, why = verdict("autoregressive-hurts", rows("autoregressive", **equal))
    assert why.endswith("±2 %; TRM against baseline-compute: +22.1 % [+22.1, +22.1] (profile cpu)")
