"""Intervals, tests and verdicts over seeds.

`a` and `b` are scores of two arms, paired by position along the first axis (seeds); differences are a − b, so with
NLLs a negative estimate means that `a` is the better arm.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats
from scipy.optimize import brentq, minimize

from trmlib.errors import TrmError

MARGIN = math.log(1.02)  # "the same" is within ±2 % perplexity, as a difference of NLLs


@dataclass(frozen=True)
class Effect:
    """An estimate and what is needed to judge it."""

    estimate: float
    low: float
    high: float
    p: float  # two-sided, unless the function that made it says otherwise
    n: int  # pairs of seeds
    level: float  # coverage of [low, high]
    articles: int = 0  # articles (or puzzles) crossed with the seeds; 0 if there are none

    def excludes(self, value):
        return not self.low <= value <= self.high

    def relative(self):
        """A difference of NLLs in nats as the relative change of perplexity, exp(difference) − 1."""
        return replace(self, **{k: math.expm1(getattr(self, k)) for k in ("estimate", "low", "high")})

    def text(self, scale=1, unit="", digits=3):
        """One line, e.g. `-1.20 [-2.31, -0.09] %, 95 % interval, n = 5, p = 0.040` (scale=100, unit="%", digits=2)."""
        estimate, low, high = (f"{scale * v:+.{digits}f}" for v in (self.estimate, self.low, self.high))
        n = f"n = {self.n}" + (f" × {self.articles} articles" if self.articles else "")
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"{estimate} [{low}, {high}]{unit and ' ' + unit}, {100 * self.level:g} % interval, {n}, {p}"


def finite(values, name, ndim):
    """Values as a float array (n, …) of `ndim` axes with n ≥ 2, none of them NaN or infinite."""
    values = np.asarray(values, float)
    if values.ndim != ndim:
        raise TrmError(f"{name} has shape {values.shape}; expected {ndim} axes, seeds first")
    if len(values) < 2:
        raise TrmError(f"{name} has {len(values)} seed(s); an interval over seeds needs at least 2")
    if not np.isfinite(values).all():
        raise TrmError(f"{name} has non-finite values; score a run that diverged as log V first")
    return values


def differences(a, b):
    """a − b, paired by seed: (n,), (n,) → (n,)."""
    if np.shape(a) != np.shape(b):
        raise TrmError(f"a has shape {np.shape(a)} and b {np.shape(b)}; pairing by seed needs the same seeds in both")
    return finite(a, "a", 1) - finite(b, "b", 1)


def t_value(level, df):
    """Half width of a two-sided t interval, in standard errors."""
    if not 0 < level < 1:
        raise TrmError(f"level is {level}; expected a number between 0 and 1, such as 0.95")
    return stats.t.ppf((1 + level) / 2, df)


def t_effect(estimate, variance, df, n, level, articles=0):
    """Effect from an estimate, its variance and the t distribution; without variance the interval is a point."""
    error = math.sqrt(variance)
    half = t_value(level, df) * error
    p = 2 * stats.t.sf(abs(estimate) / error, df) if error else float(estimate == 0)
    return Effect(float(estimate), float(estimate - half), float(estimate + half), float(p), n, level, articles)


def paired(a, b, level=0.95):
    """Mean of a − b over seeds (n,) with the paired t interval."""
    d = differences(a, b)
    return t_effect(d.mean(), d.var(ddof=1) / len(d), len(d) - 1, len(d), level)


def ratio(a, b, level=0.95):
    """NLLs (n,) in nats → relative change of perplexity from b to a, exp(mean(a − b)) − 1; −0.1 is 10 % better."""
    return paired(a, b, level).relative()


def crossed(a, b, weights=None, level=0.95):
    """Mean of a − b (seeds, articles) when other seeds *and* other articles could have been drawn.

    Two-way crossed random effects: D_sa = μ + seed_s + article_a + interaction_sa, estimated by the mean over seeds of
    the mean over articles with `weights` w (articles,), such as counts of blanks, scaled to sum 1 (none: equal). An
    article of weight 0 is left out, whatever it holds. With R_s and C_a the means of a seed and of an article,

        V_S  = var(R_s) / S                                  seeds       + interaction
        V_A  = Σ_a w_a² (C_a − μ)² / h_a                     articles    + interaction
        V_SA = Σ_sa w_a² (D_sa − R_s − C_a + μ)² / (h_a S (S−1))           interaction
        V    = max(V_S + V_A − V_SA, V_S, V_A, V_SA)

    This is the two-way clustered variance (Cameron, Gelbach & Miller 2011), for equal weights the ANOVA one;
    h_a = 1 − 2w_a + Σw² undoes the loss from centring on a weighted mean. The maximum errs on the wide side (no less
    than either one-way interval), less so than the plain sum V_S + V_A of the pigeonhole bootstrap (Owen 2007).
    Degrees of freedom by Welch–Satterthwaite, with (Σw²)² / Σw⁴ − 1 for the articles and never fewer than the smaller
    of the two. Where few articles hold most of the weight they fall towards 1 and the interval is wide.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 2:
        raise TrmError(f"a has shape {np.shape(a)} and b {np.shape(b)}; expected the same (seeds, articles) in both")
    w = np.ones(np.shape(a)[1]) if weights is None else np.asarray(weights, float)
    if w.shape != np.shape(a)[1:] or not np.isfinite(w).all() or (w < 0).any() or (w > 0).sum() < 2:
        raise TrmError(f"weights must be {np.shape(a)[1]} non-negative numbers, one an article, at least 2 of them positive")
    used = w > 0
    d = finite(np.asarray(a, float)[:, used], "a", 2) - finite(np.asarray(b, float)[:, used], "b", 2)  # (S, A)
    w = w[used] / w[used].sum()
    seeds, by_seed, by_article = len(d), d @ w, d.mean(0)
    mean = by_seed.mean()
    scale = w**2 / (1 - 2 * w + (w**2).sum())
    rest = d - by_seed[:, None] - by_article + mean
    v_s = by_seed.var(ddof=1) / seeds
    v_a = scale @ (by_article - mean) ** 2
    v_sa = (rest**2 @ scale).sum() / (seeds * (seeds - 1))
    variance = max(v_s + v_a - v_sa, v_s, v_a, v_sa)
    df_s, df_a = seeds - 1, max((w**2).sum() ** 2 / (w**4).sum() - 1, 1)
    spread = v_s**2 / df_s + v_a**2 / df_a + v_sa**2 / (df_s * df_a)
    df = max(variance**2 / spread if spread else 0, min(df_s, df_a))
    return t_effect(mean, variance, df, seeds, level, len(w))


def p_values(p):
    p = np.asarray(p, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise TrmError(f"p-values must be a list of numbers from 0 to 1, not {p.tolist()}")
    return p


def holm(p):
    """Adjusted p-values (m,), in the order given: p ≤ α keeps the chance of any false positive below α (Holm 1979)."""
    p = p_values(p)
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def benjamini_hochberg(p):
    """Adjusted p-values (m,), in the order given: p ≤ q keeps the expected share of false discoveries below q."""
    p = p_values(p)
    return stats.false_discovery_control(p, method="bh") if len(p) else p


def equivalent(a, b, margin=MARGIN, level=0.95):
    """Two one-sided tests (TOST) that the mean of a − b (n,) lies within ±margin: (Effect, bool).

    With α = 1 − level the arms are equivalent if both tests reject at α, which is the same as the 1 − 2α interval
    (90 % for level 0.95) lying inside the margin. The Effect holds that interval, and as p the larger of the two
    one-sided p-values. Not equivalent does not mean different: with few seeds neither may be shown.
    """
    if not margin > 0 or not 0.5 < level < 1:
        raise TrmError(f"margin is {margin} and level {level}; expected a margin above 0 and a level between 0.5 and 1")
    effect = paired(a, b, 2 * level - 1)
    error = np.std(differences(a, b), ddof=1) / math.sqrt(effect.n)
    distance = margin - abs(effect.estimate)  # to the nearer bound, whose test has the larger p
    p = stats.t.sf(distance / error, effect.n - 1) if error else float(distance <= 0)
    return replace(effect, p=float(p)), -margin < effect.low and effect.high < margin


def smallest_detectable(a, b, power=0.8, level=0.95):
    """Smallest true difference that as many seeds would detect with this power, were the standard deviation of
    the differences a − b (n,) the observed one (two-sided paired t test, noncentral t)."""
    d = differences(a, b)
    df = len(d) - 1
    critical = t_value(level, df)
    if not 1 - level < power < 1:
        raise TrmError(f"power is {power}; expected more than {1 - level:g} (what chance alone detects) and less than 1")

    def missing(shift):  # shift in standard errors; scipy gives NaN for some far tails below 1e-15
        return stats.nct.sf(critical, df, shift) + np.nan_to_num(stats.nct.cdf(-critical, df, shift)) - power

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return float(brentq(missing, 0, high) * d.std(ddof=1) / math.sqrt(len(d)))


def verdict(effect, claimed):
    """What the interval says of a claimed value on the same scale."""
    if effect.excludes(claimed):
        return "not reproduced"
    return "reproduced" if effect.excludes(0) else "inconclusive"


def artefact(removed_equivalent, restored):
    """True if removing the cause makes the arms equivalent and restoring it brings the effect back."""
    return bool(removed_equivalent) and restored.excludes(0)


def early_stopping(nll, patience=10):
    """The earlier write-ups' rule on the NLL of each evaluation (…, k): indices of the best and of the last evaluation made.

    Training stops after `patience` evaluations in a row without a new best (strictly lower); the best so far is kept.
    """
    nll = np.nan_to_num(np.asarray(nll, float), nan=np.inf)  # a run that diverged sets no new best
    if patience < 1 or not nll.shape or not nll.shape[-1]:
        raise TrmError(f"patience is {patience} and nll has shape {nll.shape}; expected both at least 1")
    index = np.arange(nll.shape[-1])
    lowest = np.minimum.accumulate(nll, -1)
    new = np.concatenate([np.zeros_like(nll[..., :1], bool), nll[..., 1:] < lowest[..., :-1]], -1)
    best = np.maximum.accumulate(np.where(new, index, 0), -1)  # of the evaluations so far
    over = index - best >= patience
    stop = np.where(over.any(-1), over.argmax(-1), index[-1])
    return np.take_along_axis(best, stop[..., None], -1)[..., 0], stop


def simulate_stopping(curves, sd, seed=0, pairs=10_000, patience=10, same_curve=False):
    """How large an "improvement" identical models show when each is scored by its best noisy evaluation.

    `curves` (seeds, k) are the noise-free NLLs of one arm, `sd` (scalar or (k,)) the standard deviation of the mean NLL
    of one noisy evaluation. A pair is two seeds of the arm, or with `same_curve` one seed twice, so that only the
    noise of the evaluations is left. Returns the improvements of b over a, 1 − ppl_b / ppl_a, each (pairs,): `with_stopping` (the
    earlier rule), `equal_steps_best` (lowest evaluation, all steps run) and `equal_steps_last` (last evaluation).
    """
    curves, sd = np.asarray(curves, float), np.asarray(sd, float)
    if curves.ndim != 2 or not curves.size or not np.isfinite(curves).all():
        raise TrmError(f"curves of shape {curves.shape} must be (seeds, evaluations) and finite")
    if sd.shape not in ((), curves.shape[1:]) or not (np.isfinite(sd) & (sd >= 0)).all():
        raise TrmError(f"sd of shape {sd.shape} must be one number, or one an evaluation ({curves.shape[1]}), none negative")
    if not same_curve and len(curves) < 2:
        raise TrmError("pairs of different seeds need at least 2 curves; pass same_curve=True to pair a curve with itself")
    rng = np.random.default_rng(seed)
    a = rng.integers(len(curves), size=pairs)
    b = a if same_curve else (a + rng.integers(1, len(curves), size=pairs)) % len(curves)
    nll = curves[np.stack([a, b])] + sd * rng.standard_normal((2, pairs, curves.shape[1]))  # (2, pairs, k)
    kept = early_stopping(nll, patience)[0]
    scores = {
        "with_stopping": np.take_along_axis(nll, kept[..., None], -1)[..., 0],
        "equal_steps_best": nll.min(-1),
        "equal_steps_last": nll[..., -1],
    }
    return {k: -np.expm1(nll_b - nll_a) for k, (nll_a, nll_b) in scores.items()}


def band(values, level=0.95):
    """Mean over seeds of a learning curve (seeds, steps) and its pointwise t interval: mean, low, high, each (steps,)."""
    values = finite(values, "values", 2)
    n, mean = len(values), values.mean(0)
    half = t_value(level, n - 1) * values.std(0, ddof=1) / math.sqrt(n)
    return mean, mean - half, mean + half


def turn(nll, margin=MARGIN, window=5):
    """Where a learning curve (k,) turns for the worse for good: the index of its lowest point, or None if it does not. (Of the lowest of the smoothed
    curve; among its first points, where the median says little of place, of the lowest itself.)

    The curve is smoothed by the median of `window` points (fewer at its ends); its noise is the standard deviation of a
    point, from the differences of neighbours (1.4826 / √2 times their median absolute deviation). It turned if the smoothed curve *ends* above its lowest point by more than `margin` and more than
    four times the noise. A bump that is made good again is no turn, nor is a curve that is still falling.
    """
    nll = np.nan_to_num(np.asarray(nll, float), nan=np.inf, posinf=np.inf)
    if window < 1 or not np.isfinite(nll).any():
        raise TrmError(f"window={window} must be at least 1, and of {nll.size} points at least one be finite")
    if nll.ndim != 1 or len(nll) < 2 * window:
        raise TrmError(f"a curve of shape {nll.shape} is too short to say where it turns; expected at least {2 * window} points")
    half = window // 2
    ends = [[np.median(part[: i + half + 1]) for i in range(half)] for part in (nll, nll[::-1])]
    smooth = np.concatenate([ends[0], np.median(sliding_window_view(nll, 2 * half + 1), 1), ends[1][::-1]])
    jumps = np.diff(nll[np.isfinite(nll)])
    noise = 1.4826 / math.sqrt(2) * np.median(np.abs(jumps - np.median(jumps))) if len(jumps) else 0.0
    low = int(smooth.argmin())
    at = low if low >= half else int(nll[: low + half + 1].argmin())
    return at if smooth[-1] - smooth[low] > max(margin, 4 * noise) else None


def censored_line(x, y, censored, level=0.95, resolution=0.02):
    """y = c + b (x − mean x) where some y (n,) are only known to be larger than given (`censored`): b and c as Effects.

    Normal errors, maximum likelihood (Tobit); their standard deviation is no smaller than `resolution`. Intervals are Wald's with
    t quantiles of n − 2 degrees of freedom, the variance scaled by n / (n − 2): without censoring, those of least squares. None where fewer than two different x have an uncensored y: then there is no line.
    """
    x, y, censored = np.asarray(x, float), np.asarray(y, float), np.asarray(censored, bool)
    if not x.shape == y.shape == censored.shape or x.ndim != 1:
        raise TrmError(f"x, y and censored have shapes {x.shape}, {y.shape} and {censored.shape}; expected three lists of one length")
    if len(set(x[~censored])) < 2 or len(x) < 4:
        return None
    centred = x - x.mean()

    def loss(p):
        sd = max(math.exp(p[2]), resolution)
        z = (y - p[0] - p[1] * centred) / sd
        return -np.where(censored, stats.norm.logsf(z), stats.norm.logpdf(z) - math.log(sd)).sum()

    b, c = np.polyfit(centred, y, 1)
    p = minimize(loss, [c, b, math.log(max(np.std(y - c - b * centred), 2 * resolution))], method="Nelder-Mead",
                 options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 10_000}).x  # fmt: skip
    h = 1e-3
    steps, hessian = np.eye(2) * h, np.zeros((2, 2))  # of c and b, at the fitted spread
    at = lambda d: loss([p[0] + d[0], p[1] + d[1], p[2]])  # noqa: E731
    for i, j in np.ndindex(2, 2):
        u, v = steps[i], steps[j]
        hessian[i, j] = (at(u + v) - at(u - v) - at(v - u) + at(-u - v)) / (4 * h * h)
    variance = np.diag(np.linalg.inv(hessian)) * len(x) / (len(x) - 2)
    return tuple(t_effect(p[k], max(float(variance[k]), 0.0), len(x) - 2, len(x), level) for k in (1, 0))
