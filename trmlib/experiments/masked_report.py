"""What chapter 02 shows: records → tidy frames and verdicts. No training, no plotting."""

import math

import numpy as np
import pandas as pd

from trmlib import stats
from trmlib.compare import arm_rows, effect, enough, evaluation_frame, pairs, primary, rival
from trmlib.experiments.masked_evaluations import BANDS
from trmlib.tables import frame

# What the write-ups say (documents 000 and 001 of the sources; curve points from 001).
CLAIMED = {
    "baseline_ppl": 96.75, "trm_ppl": 81.17, "change": -0.161, "baseline_accuracy": 0.236, "trm_accuracy": 0.249,
    "baseline_parameters": 1.68e6, "trm_parameters": 2.08e6, "time_ratio": 2.2,
    "baseline_curve": {1000: 306.10, 5000: 161.07, 10000: 120.25, 13750: 96.75},
    "trm_curve": {3000: 184.54, 8000: 116.62, 13500: 99.93, 16000: 89.66, 18250: 82.75, 20000: 81.17},
}  # fmt: skip
PRIMARY = [  # the comparisons fixed beforehand; Holm-corrected together: (arm, rival, what it separates)
    ("joint", "baseline", "the claim: joint refinement against none"),
    ("joint", "4-blocks", "same parameters, plain depth"),
    ("joint", "6-untied", "same depth, no recursion"),
    ("joint", "1-pass", "one pass in place of three"),
    ("joint", "self-only", "a blank cannot see the other"),
    ("joint", "random-partner", "another word in place of the other blank"),
    ("joint", "context", "blanks re-read the whole context"),
    ("joint", "shared", "separate refinement blocks or the encoder's own"),
]


def arms(df):
    """A row an arm (`compare.arm_rows`), with its change against its own baseline."""

    def more(arm, g):
        e = effect(df, arm, rival(arm)) if arm != rival(arm) else None
        return {"accuracy": g.accuracy_b.mean(), "ppl_known": math.exp(g.nll_known_b.mean()), "effect": e}

    return arm_rows(df, "masked", more)


def unequal_steps(df, arm, rival="baseline", stop=13_750, at=None):
    """Relative change of perplexity (fixed windows) from the rival as of step `stop`, the published baseline's best
    evaluation, whose weights it kept, to the arm at step `at` (none: its last): the cause restored. None before enough pairs reach so far."""
    seeds, last, early = sorted(set(df[df.arm == arm].seed) & set(df[df.arm == rival].seed)), [], []
    for seed in seeds:
        a, b = (df[(df.arm == name) & (df.seed == seed)].record.iloc[0]["curve"] for name in (arm, rival))
        if stop in b.get("step", ()) and at in (None, *a["step"]):
            last.append(a["nll"][-1 if at is None else a["step"].index(at)])
            early.append(b["nll"][b["step"].index(stop)])
    return stats.paired(np.array(last), np.array(early)).relative() if len(last) >= enough(df) else None


def verdict(df):
    """(verdict, effect at equal steps) on "16.1 % lower perplexity through joint refinement".

    *Artefact*: at equal steps the arms are the same within ±2 %, and the baseline as of the step whose weights were published
    brings an improvement back."""
    e, restored = effect(df, "joint", "baseline"), unequal_steps(df, "joint")
    if e is None:
        return "open", None
    _, a, b = pairs(df, "joint", "baseline")
    if restored is not None and restored.high < 0 and stats.artefact(stats.equivalent(a, b)[1], restored):
        return "artefact (of stopping at different steps)", e
    return stats.verdict(e, CLAIMED["change"]), e


# ---------------------------------------------------------------- noise and stopping


def noise(df):
    """Standard deviation of one noisy evaluation (nats): noisy minus fixed curve over the second half, each run centred. Only of runs that
    are asked what the baseline is: with other blanks or words, as in "joint (3 blanks)", it is another number."""
    gaps = []
    for r in df[(df.status == "recorded") & ~df.arm.str.contains(" (", regex=False)].record:
        fixed, noisy = np.array(r["curve"]["nll"]), np.array(r["curve"]["noisy_nll"])
        gap = (noisy - fixed)[len(fixed) // 2 :]
        gaps.append(gap - gap.mean())
    return float(np.sqrt(np.mean(np.concatenate(gaps) ** 2))) if gaps else float("nan")


def earlier_rule(df, names=("baseline", "joint")):
    """The earlier rule on the recorded noisy curves: a row a run with the step it stops at, what it reports (its best perplexity, but
    its last accuracy), and the run's perplexity at its last step."""
    rows = []
    for r in df[df.arm.isin(names) & (df.status == "recorded")].itertuples():
        curve = r.record["curve"]
        best, stop = (int(v) for v in stats.early_stopping(np.array(curve["noisy_nll"])))
        rows.append({"arm": r.arm, "seed": r.seed, "best_step": curve["step"][best], "stop_step": curve["step"][stop],
                     "reported_ppl": math.exp(curve["noisy_nll"][best]), "reported_accuracy": curve["noisy_accuracy"][stop], "last_ppl": math.exp(curve["nll"][-1]), "ppl_b": math.exp(r.nll_b)})  # fmt: skip
    return pd.DataFrame(rows)


def by_rule(df, arm="joint", rival="baseline"):
    """{seed: change of the perplexity that the earlier rule reports, from the rival's to the arm's}."""
    rows = earlier_rule(df, (arm, rival))
    reported = rows.pivot(index="seed", columns="arm", values="reported_ppl") if len(rows) else rows
    return (reported[arm] / reported[rival] - 1).dropna().to_dict() if {arm, rival} <= set(reported) else {}


def identical_models(df, arm="baseline"):
    """What the earlier rule reports as the improvement of a model over an identical one (`stats.simulate_stopping`)."""
    runs = [r["curve"]["nll"] for r in df[(df.arm == arm) & (df.status == "recorded")].record]
    return stats.simulate_stopping(np.array(runs), noise(df)) if len(runs) > 1 else None


def seems_better(improvements, share):
    """Of `improvements` 1 − b/a: does one of the two seem better than the other by at least `share`? Which of them does not matter: a lies so far
    below b where 1 − a/b ≥ share, that is 1 − b/a ≤ 1 − 1/(1 − share), which is further from 0 than −share."""
    return (improvements >= share) | (improvements <= 1 - 1 / (1 - share))


# ---------------------------------------------------------------- evaluations


def word_changes(store, df, arm="joint"):
    """Long frame of what a pass changes: (group, pass, seed) with nll, accuracy, changed, mended, broken, blanks."""
    rows = []
    for (a, seed), result in evaluation_frame(store, df, "refinement").items():
        if a == arm:
            for group, v in result.items():
                for k in range(1, len(v["nll"])):
                    rows.append({"group": group, "pass": k, "seed": seed, "blanks": v["blanks"], "nll": v["nll"][k], "accuracy": v["accuracy"][k],
                                 "changed": v["changed"][k - 1], "mended": v["mended"][k - 1], "broken": v["broken"][k - 1]})  # fmt: skip
    order = ["all", *BANDS, "function", "content", "number", "punctuation", "unknown"]
    changes = pd.DataFrame(rows, columns=["group", "pass", "seed", "blanks", "nll", "accuracy", "changed", "mended", "broken"])
    return changes.sort_values("group", key=lambda g: g.map(order.index), kind="stable")


def gains_by_group(store, df, arm="joint", rival="baseline"):
    """Change of NLL from the first to the last trained pass of an arm, by group of words: {group: Effect} (negative: better)."""
    changes, out = word_changes(store, df, arm), {}
    for group, g in changes.groupby("group", sort=False):
        table = g.pivot(index="seed", columns="pass", values="nll")
        if len(table) > 1 and 3 in table:
            out[group] = stats.paired(table[3].to_numpy(), table[1].to_numpy())
    return out


def lower_precision(store, profile="cpu"):
    """`compare.primary` of the cut runs that were trained in bf16 and in fp32."""
    full, low = (frame(store, "masked", profile, precision) for precision in ("fp32", "bf16"))
    low = low.assign(arm=low.arm + " in bf16")
    both = pd.concat([full, low], ignore_index=True) if len(full) and len(low) else full
    return primary(both, [(f"{arm} in bf16", arm, "rounding in the training pass") for arm in ("baseline", "joint")])


def adaptive_depth(store, df, arm):
    """{policy: (MFLOPs a window, perplexity mean, low, high)} of the adaptive-depth evaluation of an arm, or {}."""
    keys = set(df[df.arm == arm].key)
    for e in store.evaluations("masked", "adaptive"):
        if set(e["runs"]) <= keys:
            r = e["result"]
            return {p: (np.array(r["flops"][p]) / 1e6, *(np.exp(v) for v in stats.band(np.array(r["nll_b"][p])))) for p in r["nll_b"]}
    return {}
