"""Statistics against answers worked out by hand."""

import math

import numpy as np
import pytest
from scipy.stats import ncf, t, ttest_rel

from trmlib import stats
from trmlib.errors import TrmError
from trmlib.stats import Effect

T2 = 4.302652729911275  # 97.5 % point of t with 2 degrees of freedom, from a table
ONE_TO_THREE = [1.0, 2.0, 3.0]
ZEROS = [0.0, 0.0, 0.0]


def effect(low, high):
    return Effect((low + high) / 2, low, high, 0.01, 5, 0.95)


def test_paired_by_hand():
    # differences 1, 2, 3: mean 2, standard deviation 1, standard error 1/√3; t = 2√3 with 2 degrees of freedom,
    # for which the two-sided p is 1 − t / √(t² + 2) = 1 − √(12/14)
    e = stats.paired([4.0, 4.0, 4.0], ONE_TO_THREE[::-1])
    assert (e.estimate, e.n, e.level) == (2.0, 3, 0.95)
    assert e.low == pytest.approx(2 - T2 / math.sqrt(3)) and e.high == pytest.approx(2 + T2 / math.sqrt(3))
    assert e.p == pytest.approx(1 - math.sqrt(12 / 14))


def test_paired_agrees_with_scipy():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    e, reference = stats.paired(a, b, 0.9), ttest_rel(a, b)
    assert e.p == pytest.approx(reference.pvalue)
    assert (e.low, e.high) == pytest.approx(tuple(reference.confidence_interval(0.9)))
    mirrored = stats.paired(b, a, 0.9)
    assert (mirrored.low, mirrored.high, mirrored.p) == pytest.approx((-e.high, -e.low, e.p))
    assert stats.paired(a, b, 0.99).high > e.high


def test_paired_without_variance():
    assert stats.paired([3.0, 4.0], [1.0, 2.0]) == Effect(2.0, 2.0, 2.0, 0.0, 2, 0.95)
    assert stats.paired([1.0, 2.0], [1.0, 2.0]) == Effect(0.0, 0.0, 0.0, 1.0, 2, 0.95)


@pytest.mark.parametrize(
    "a, b, message",
    [
        ([1.0], [2.0], r"a has 1 seed\(s\); an interval over seeds needs at least 2"),
        ([1.0, 2.0], [1.0], r"a has shape \(2,\) and b \(1,\); pairing by seed needs the same seeds"),
        ([1.0, 2.0], [1.0, math.nan], "b has non-finite values; score a run that diverged as log V"),
        ([1.0, None], [1.0, 2.0], "a has non-finite values"),  # a record's way to say infinite
        ([[1.0], [2.0]], [[1.0], [2.0]], r"a has shape \(2, 1\); expected 1 axes"),
    ],
)
def test_bad_pairs_give_one_line(a, b, message):
    for function in (stats.paired, stats.ratio, stats.equivalent, stats.smallest_detectable):
        with pytest.raises(TrmError, match=message) as caught:
            function(a, b)
        assert "\n" not in str(caught.value)


def test_level_out_of_range():
    for call in (stats.paired, stats.ratio, stats.smallest_detectable):
        with pytest.raises(TrmError, match="level is 95; expected a number between 0 and 1"):
            call(ONE_TO_THREE, ZEROS, level=95)


def test_ratio_is_the_change_of_perplexity():
    # perplexities 90 against 100 and 180 against 200: 10 % lower in both
    e = stats.ratio(np.log([90, 180]), np.log([100, 200]))
    assert e.estimate == pytest.approx(-0.1)
    # differences 1, 2, 3 tenths: the bounds of the mean, (2 ± T2/√3) / 10, through exp(·) − 1; the p of the NLLs
    e = stats.ratio([0.1, 0.2, 0.3], ZEROS)
    assert e.estimate == pytest.approx(math.exp(0.2) - 1)
    assert e.low == pytest.approx(math.exp((2 - T2 / math.sqrt(3)) / 10) - 1)
    assert e.high == pytest.approx(math.exp((2 + T2 / math.sqrt(3)) / 10) - 1)
    assert e.p == pytest.approx(1 - math.sqrt(12 / 14))


def test_text_shows_effect_interval_and_n():
    e = Effect(-0.012, -0.0231, -0.0009, 0.04, 5, 0.95)
    assert e.text(100, "%", 2) == "-1.20 [-2.31, -0.09] %, 95 % interval, n = 5, p = 0.040"
    e = Effect(0.5, 0.25, 0.75, 1e-5, 10, 2 * 0.95 - 1, articles=30)
    assert e.text() == "+0.500 [+0.250, +0.750], 90 % interval, n = 10 × 30 articles, p < 0.001"


def test_crossed_by_hand():
    # seeds in rows. R = 1.5, 4.5; C = 2, 4; mean 3. V_S = 4.5/2 = 2.25; w² = 1/4, h = 1 − 1 + 1/2 = 1/2, so
    # V_A = (1/4 + 1/4) / (1/2) = 1; what is left is ±1/2, so V_SA = 4 · 1/4 · 1/4 / (1/2 · 2 · 1) = 1/4;
    # V = 2.25 + 1 − 0.25 = 3 (ANOVA: (MS_S + MS_A − MS_SA) / SA = (9 + 4 − 1) / 4);
    # df = 3² / (2.25² + 1² + 0.25²) = 9 / 6.125
    d = np.array([[1.0, 2.0], [3.0, 6.0]])
    e = stats.crossed(d + 7, np.full((2, 2), 7.0))
    assert (e.estimate, e.n, e.articles) == (3.0, 2, 2)
    assert e.high - e.estimate == pytest.approx(t.ppf(0.975, 9 / 6.125) * math.sqrt(3))
    assert e.p == pytest.approx(2 * t.sf(3 / math.sqrt(3), 9 / 6.125))


def test_crossed_weighted_by_hand():
    # no variance over seeds; weights 1/4 and 3/4 on 0 and 4: mean 3, Σw² = 5/8, h = 1 − 1/2 + 5/8 = 9/8 and
    # 1 − 3/2 + 5/8 = 1/8; V_A = 1/16 · 9 / (9/8) + 9/16 · 1 / (1/8) = 1/2 + 9/2 = 5;
    # df = (5/8)² / (82/256) − 1 < 1, so 1, whose 97.5 % point is tan(0.475 π)
    d = np.array([[0.0, 4.0], [0.0, 4.0], [0.0, 4.0]])
    e = stats.crossed(d, 0 * d, [10, 30])
    assert e.estimate == 3
    assert e.high - 3 == pytest.approx(math.tan(0.475 * math.pi) * math.sqrt(5))


def test_crossed_reduces_to_one_way():
    rng = np.random.default_rng(0)
    over_seeds, over_articles, zeros = rng.normal(size=5), rng.normal(size=8), np.zeros((5, 8))
    by_seed = stats.crossed(zeros + over_seeds[:, None], zeros)
    by_article = stats.crossed(zeros + over_articles, zeros)
    for e, reference in (by_seed, stats.paired(over_seeds, np.zeros(5))), (by_article, stats.paired(over_articles, np.zeros(8))):
        assert (e.estimate, e.low, e.high, e.p) == pytest.approx((reference.estimate, reference.low, reference.high, reference.p))


def test_crossed_only_interaction_is_not_certain():
    d = np.array([[1.0, -1.0], [-1.0, 1.0]])  # all means are 0, so V_S = V_A = 0; V_SA = 4 · 1/4 · 1 / (1/2 · 2) = 1
    assert stats.crossed(d, 0 * d).high == pytest.approx(math.tan(0.475 * math.pi))
    assert stats.crossed(d, d) == Effect(0.0, 0.0, 0.0, 1.0, 2, 0.95, 2)


def test_crossed_weights():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 6))
    w = np.array([1.0, 2, 3, 4, 5, 6])
    assert stats.crossed(a, b, w).estimate == pytest.approx(((a - b) @ w / 21).mean())  # 1 + … + 6 = 21
    assert stats.crossed(a, b, np.full(6, 9)) == stats.crossed(a, b)
    a_empty = np.hstack([a, np.full((4, 1), np.nan)])  # an article without blanks has no NLL
    assert stats.crossed(a_empty, np.hstack([b, np.ones((4, 1))]), [*w, 0]) == stats.crossed(a, b, w)


@pytest.mark.parametrize("seed_sd, article_sd, noise_sd", [(0.3, 0.1, 0.1), (0.1, 0.3, 0.3), (0.0, 1.0, 0.1), (0.0, 0.0, 1.0)])
def test_crossed_coverage(seed_sd, article_sd, noise_sd):
    rng = np.random.default_rng(0)
    w = rng.gamma(4, 50, 30)
    draw = lambda *shape: rng.normal(size=(400, *shape))  # noqa: E731
    d = 0.3 + seed_sd * draw(5, 1) + article_sd * draw(1, 30) + noise_sd * draw(5, 30)  # 400 studies of 5 seeds, 30 articles
    held = np.mean([not stats.crossed(x, 0 * x, w).excludes(0.3) for x in d])
    assert 0.9 <= held <= (0.99 if seed_sd or article_sd else 1)


def test_crossed_covers_where_seeds_alone_do_not():
    rng = np.random.default_rng(1)
    d = 0.5 * rng.normal(size=(200, 1, 10)) + 0.05 * rng.normal(size=(200, 5, 10))
    assert np.mean([stats.crossed(x, 0 * x).excludes(0) for x in d]) < 0.1
    assert np.mean([stats.paired(x.mean(1), np.zeros(5)).excludes(0) for x in d]) > 0.5


def test_crossed_errors():
    d = np.ones((3, 4))
    for a, b, w, message in [
        (d, d[:, :2], None, r"a has shape \(3, 4\) and b \(3, 2\); expected the same \(seeds, articles\)"),
        (d[0], d[0], None, r"a has shape \(4,\)"),
        (d[:1], d[:1], None, r"a has 1 seed\(s\)"),
        (d * np.nan, d, None, "a has non-finite values"),
        (d, d, [1, 1, 1], "weights must be 4 non-negative numbers"),
        (d, d, [1, 0, 0, 0], "at least 2 of them positive"),
        (d, d, [1, 1, 1, -1], "non-negative"),
        (d, d, [1, 1, 1, np.nan], "non-negative"),
    ]:
        with pytest.raises(TrmError, match=message):
            stats.crossed(a, b, w)


def test_holm_and_benjamini_hochberg_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    # Holm, sorted: 0.005·4 = 0.02, 0.01·3 = 0.03, 0.03·2 = 0.06, 0.04·1 = 0.04 → 0.06, no less than the one before
    assert stats.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # BH, sorted: 0.005·4/1 = 0.02, 0.01·4/2 = 0.02, 0.03·4/3 = 0.04, 0.04·4/4 = 0.04
    assert stats.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert stats.benjamini_hochberg([0.03, 0.02]) == pytest.approx([0.03, 0.03])  # 0.02·2/1 = 0.04 → 0.03, no more than the next
    assert stats.holm([0.6, 0.7]) == pytest.approx([1, 1])


def test_adjusted_p_edges():
    for adjust in (stats.holm, stats.benjamini_hochberg):
        assert adjust([0.2]) == pytest.approx([0.2]) and adjust([]).shape == (0,)
        p = np.random.default_rng(0).random(20)
        assert (adjust(p) >= p).all() and (adjust(p) <= 1).all()
        assert (np.diff(adjust(p)[p.argsort()]) >= 0).all()
        for bad in ([0.5, 1.5], [0.5, math.nan], [[0.5]]):
            with pytest.raises(TrmError, match="p-values must be a list of numbers from 0 to 1"):
                adjust(bad)
    assert (stats.holm(p) >= stats.benjamini_hochberg(p)).all()


def test_equivalent_by_hand():
    # differences 0.001, 0.002, 0.003: standard error 0.001/√3; the 95 % point of t with 2 degrees of freedom is
    # 2.919986, so the 90 % interval is 0.002 ± 0.0016858 = [0.000314, 0.003686]
    d = [0.001, 0.002, 0.003]
    e, same = stats.equivalent(d, ZEROS)
    assert same and e.level == pytest.approx(0.9)
    assert (e.low, e.high) == pytest.approx((0.002 - 2.919986 / math.sqrt(3e6), 0.002 + 2.919986 / math.sqrt(3e6)), rel=1e-5)
    # the nearer bound is log 1.02 = 0.0198026: t = (0.0198026 − 0.002) √3 / 0.001; one-sided p = ½ (1 − t / √(t² + 2))
    x = (math.log(1.02) - 0.002) * math.sqrt(3) / 0.001
    assert e.p == pytest.approx((1 - x / math.sqrt(x**2 + 2)) / 2)
    assert not stats.equivalent(d, ZEROS, margin=0.0036)[1] and stats.equivalent(d, ZEROS, margin=0.0037)[1]


def test_equivalent_edges():
    for margin in (0.1, 0.5, 0.9, 1.5, 5, 20):  # the two ways to put it agree, either sign
        for a, b in (ONE_TO_THREE, ZEROS), (ZEROS, ONE_TO_THREE):
            e, same = stats.equivalent(a, b, margin)
            assert same == (e.p < 0.05)
    assert not stats.equivalent([-10.0, 10.0], [0.0, 0.0])[1]  # the estimate is 0, but nothing is known
    assert stats.equivalent(ZEROS, ZEROS)[0].p == 0 and stats.equivalent(ZEROS, ZEROS)[1]
    assert stats.equivalent([1.0, 1.0], [0.0, 0.0]) == (Effect(1.0, 1.0, 1.0, 1.0, 2, 2 * 0.95 - 1), False)
    for bad in ({"margin": 0}, {"margin": -1}, {"level": 0.4}, {"margin": math.nan}):
        with pytest.raises(TrmError, match="expected a margin above 0 and a level between 0.5 and 1"):
            stats.equivalent(ZEROS, ZEROS, **bad)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_smallest_detectable_has_the_power(n):
    d = np.random.default_rng(n).normal(size=n)
    for power in (0.5, 0.8, 0.99):
        size = stats.smallest_detectable(d, np.zeros(n), power)
        # the other route: t² is noncentral F with 1 and n − 1 degrees of freedom
        shift = size * math.sqrt(n) / d.std(ddof=1)
        assert ncf.sf(t.ppf(0.975, n - 1) ** 2, 1, n - 1, shift**2) == pytest.approx(power, abs=1e-6)


def test_smallest_detectable_edges():
    # many seeds: (1.95996 + 0.84162) standard errors, here of sd 1 (half +1, half −1) and n = 10,000
    d = np.tile([1.0, -1.0], 5_000)
    assert stats.smallest_detectable(d, 0 * d) == pytest.approx(2.80158 / 100, rel=1e-3)
    assert stats.smallest_detectable(d[:6], 0 * d[:6]) > stats.smallest_detectable(d[:10], 0 * d[:10])
    assert stats.smallest_detectable(ONE_TO_THREE, ZEROS, 0.9) > stats.smallest_detectable(ONE_TO_THREE, ZEROS, 0.8)
    assert stats.smallest_detectable(ZEROS, ZEROS) == 0
    for power in (1, 0.04):
        with pytest.raises(TrmError, match=f"power is {power}; expected more than 0.05"):
            stats.smallest_detectable(ONE_TO_THREE, ZEROS, power)


def test_verdicts():
    assert stats.verdict(effect(-0.2, -0.1), -0.16) == "reproduced"
    assert stats.verdict(effect(-0.2, -0.1), -0.2) == "reproduced"  # the bounds belong to the interval
    assert stats.verdict(effect(-0.2, 0.1), -0.16) == "inconclusive"
    assert stats.verdict(effect(-0.2, 0.0), -0.16) == "inconclusive"
    assert stats.verdict(effect(-0.1, 0.1), -0.16) == "not reproduced"
    assert stats.verdict(effect(-0.5, -0.3), -0.16) == "not reproduced"  # an effect, but not the claimed one
    assert stats.artefact(True, effect(-0.2, -0.1)) is True
    assert stats.artefact(False, effect(-0.2, -0.1)) is False
    assert stats.artefact(True, effect(-0.2, 0.1)) is False


def test_early_stopping_by_hand():
    assert stats.early_stopping([5, 4, 4, 4.5, 3], patience=2) == (1, 3)  # an equal value is no new best; 3 is never seen
    assert stats.early_stopping([5, 4, 4.5, 3, 3.5], patience=2) == (3, 4)
    assert stats.early_stopping([5, 6, 7], patience=2) == (0, 2)
    assert stats.early_stopping([5, 4, 3], patience=1) == (2, 2)
    assert stats.early_stopping([5.0]) == (0, 0)
    assert stats.early_stopping([5, math.nan, 4, math.nan, math.nan, 1], patience=2) == (2, 4)
    assert stats.early_stopping([math.nan, 4, 5]) == (1, 2)
    for nll, patience in ([], 1), (1.0, 1), ([1.0], 0):
        with pytest.raises(TrmError, match="expected both at least 1"):
            stats.early_stopping(nll, patience)


def test_early_stopping_equals_the_loop():
    nll = np.random.default_rng(0).normal(size=(50, 4, 30)).round(1)  # rounded, for ties
    best, stop = stats.early_stopping(nll, 5)
    for where in np.ndindex(50, 4):
        lowest, kept, waited = math.inf, 0, 0
        for last, value in enumerate(nll[where]):
            lowest, kept, waited = (value, last, 0) if value < lowest else (lowest, kept, waited + 1)
            if waited == 5:
                break
        assert (best[where], stop[where]) == (kept, last)


def test_simulated_stopping_without_noise():
    # seed 0 stops after the second 4 and keeps 5 → 4; seed 1 falls to 2 and ends at 3
    curves = [[5.0, 4.0, 4.5, 4.5, 3.5], [5.0, 4.0, 3.0, 2.0, 3.0]]
    pairs = stats.simulate_stopping(curves, 0, pairs=100, patience=2)
    for name, a, b in ("with_stopping", 4, 2), ("equal_steps_best", 3.5, 2), ("equal_steps_last", 3.5, 3):
        assert np.unique(pairs[name]) == pytest.approx([1 - math.exp(a - b), 1 - math.exp(b - a)])  # b is one or the other
    for values in stats.simulate_stopping(curves, 0, pairs=100, same_curve=True).values():
        assert values.shape == (100,) and not values.any()


def test_simulated_stopping_noise():
    slow = 4.6 - 0.001 * np.arange(80)[None]  # falls by 0.08 in all, 0.001 an evaluation, under noise of 0.02
    pairs = stats.simulate_stopping(slow, 0.02, same_curve=True)
    spread = {k: v.std() for k, v in pairs.items()}
    assert all(abs(v.mean()) < 4 * v.std() / 100 for v in pairs.values())  # 10,000 pairs: neither arm is better
    assert spread["equal_steps_last"] == pytest.approx(0.02 * math.sqrt(2), rel=0.05)  # two independent evaluations
    assert spread["equal_steps_best"] < spread["equal_steps_last"] < 2 * spread["with_stopping"]
    assert spread["with_stopping"] > 1.5 * spread["equal_steps_best"]  # stopping at different steps adds its own
    again, other = (stats.simulate_stopping(slow, np.full(80, 0.02), s, same_curve=True) for s in (0, 1))
    assert all((pairs[k] == again[k]).all() and (pairs[k] != other[k]).any() for k in pairs)


def test_simulated_stopping_errors():
    for curves, sd, message in [
        ([[1.0, 2.0]], 0.1, "need at least 2 curves; pass same_curve=True"),
        ([1.0, 2.0], 0.1, r"curves of shape \(2,\) must be \(seeds, evaluations\)"),
        ([[1.0, math.nan]] * 2, 0.1, "must be .* finite"),
        ([[1.0, 2.0]] * 2, -0.1, "none negative"),
        ([[1.0, 2.0]] * 2, [0.1] * 3, r"sd of shape \(3,\) must be one number, or one an evaluation \(2\)"),
    ]:
        with pytest.raises(TrmError, match=message):
            stats.simulate_stopping(curves, sd)


def test_band_by_hand():
    # step 0: 1, 2, 3 → 2 ± T2/√3; step 1: all 5, so no width
    mean, low, high = stats.band([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    assert mean.tolist() == [2, 5]
    assert low == pytest.approx([2 - T2 / math.sqrt(3), 5]) and high == pytest.approx([2 + T2 / math.sqrt(3), 5])
    with pytest.raises(TrmError, match=r"values has 1 seed\(s\)"):
        stats.band([[1.0, 2.0]])
    with pytest.raises(TrmError, match="values has non-finite values"):
        stats.band([[1.0, math.nan]] * 2)
