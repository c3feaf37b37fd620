"""What chapter 06 shows: records of the two languages and of the masked experiment → frames, effects and the answer's figure."""

import math

import numpy as np
import pandas as pd

from trmlib import compare, stats
from trmlib.data.synthetic import Dial, Hops
from trmlib.experiments import grid
from trmlib.experiments.fill import TEST_PASSES
from trmlib.export import percent

LEVEL = 0.9  # a length is reached when this share of its windows is solved
WAYS = {  # way of spending compute → (arms, score of a record, key of its FLOPs)
    "passes": (("parallel", "1 pass", "3 passes", "8 passes"), ("coordination",), "at once"),
    "samples": (("parallel", "2 samples", "4 samples", "8 samples", "16 samples"), ("coordination",), "at once"),
    "filling": (("parallel", "1 pass", "3 passes", "8 passes"), ("coordination_ab", "coordination_ba"), "one by one"),
}
LANGUAGE_WAYS = {  # the same on WikiText-2
    "passes": (("baseline (1–3 blanks)", "joint (1–3 blanks)"), ("coordination",), "at once"),
    "samples": (("baseline (1–3 blanks)", "4 samples (1–3 blanks)", "16 samples (1–3 blanks)"), ("coordination",), "at once"),
    "filling": (("baseline (1–3 blanks)", "joint (1–3 blanks)"), ("coordination_ab", "coordination_ba"), "one by one"),
}


def language(df, arm=None):
    """The language of a frame of records, or of an arm of it, as the records say."""
    record = (df if arm is None else df[df.arm == arm]).record.iloc[0]
    known, fields = {"hops": Hops, "dial": Dial}[record["experiment"]], record["spec"]["data"]
    return known(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def arms(experiment, profile):
    """Names of an experiment's arms, in the order of its grid."""
    return list(dict.fromkeys(r.arm for r in grid(profile) if r.spec.experiment == experiment))


def whole(df, arm):
    """The records of an arm in the order of its seeds, or nothing before all seeds that were fixed beforehand are there."""
    g = df[(df.arm == arm) & (df.status == "recorded")].sort_values("seed") if len(df) else df
    return list(g.record) if len(g) >= compare.enough(df) else []


def interval(values):
    """(mean, low, high) over seeds."""
    return tuple(float(v[0]) for v in stats.band(np.asarray(values, float)[:, None]))


# ---------------------------------------------------------------- hops: depth or thinking


def passes_of(record):
    """Passes that a model was trained with."""
    return record["spec"]["model"].get("passes", 3)


def cube(df, arm, what="accuracy"):
    """(seeds, passes + 1, k): a score of every seed, after every pass, at every number of hops; None before all seeds."""
    rows = whole(df, arm)
    return np.array([r["detail"][what] for r in rows]) if rows else None


def kinds(df, arm):
    """Index arrays into k = 1 … length: an arm's "trained", "between" (unseen, shorter than the longest trained), "beyond"."""
    lang = language(df, arm)
    k = np.array(lang.groups)
    seen = np.isin(k, lang.trained)
    return {
        "trained": np.flatnonzero(seen),
        "between": np.flatnonzero(~seen & (k < max(lang.trained))),
        "beyond": np.flatnonzero(k > max(lang.trained)),
    }


def thinking(df, profile):
    """A row an arm: accuracy at trained, in-between and longer k, with the trained passes and with the most; and the effect
    on the longer k, paired within seeds: what passes beyond the trained ones add to these or to a guess ("thinking")."""
    rows = []
    for arm in arms("hops", profile):
        c = cube(df, arm)
        if c is None:
            rows.append({"arm": arm, "seeds": int((df.arm == arm).sum()) if len(df) else 0, "thinking": None})
            continue
        record, k = whole(df, arm)[0], kinds(df, arm)
        p = passes_of(record)
        row = {
            "arm": arm,
            "seeds": len(c),
            "passes": p,
            "parameters": record["parameters"],
            "mflop": record["inference_flops"] / 1e6,
            "depth": record["serial_depth"],
        }
        for name, at in k.items():
            row[name] = c[:, p, at].mean() if len(at) else float("nan")
            row[f"{name}_most"] = c[:, -1, at].mean() if len(at) else float("nan")
        long = k["beyond"]
        tied = c.shape[1] - 1 > p and len(long)
        row["thinking"] = None
        if tied:  # a model that has lost its way could have guessed
            guess = 1 / language(df, arm).chains
            row["thinking"] = stats.paired(c[:, -1, long].mean(1), np.maximum(c[:, p, long].mean(1), guess))
        rows.append(row)
    return pd.DataFrame(rows)


def needed(df, arm, level=LEVEL):
    """(seeds, k): the fewest passes after which `level` of the windows are solved, NaN where none of the tested is enough."""
    c = cube(df, arm)
    if c is None:
        return None
    enough = c >= level
    return np.where(enough.any(1), enough.argmax(1), np.nan)


def growth(df, arm):
    """Does the number of passes needed grow like k or like log k? Least squares on each, seed by seed: Effect of the difference of
    R² (linear − logarithmic) and the mean slopes (passes a hop, passes a doubling); None where fewer than 4 lengths are reached."""
    table = needed(df, arm)
    if table is None:
        return None
    k, fits = np.arange(1, table.shape[1] + 1), []
    for row in table:
        ok = np.isfinite(row)
        if ok.sum() < 4 or np.ptp(row[ok]) == 0:
            return None
        both = []
        for x in (k[ok], np.log2(k[ok])):
            slope, start = np.polyfit(x, row[ok], 1)
            both.append((1 - np.var(row[ok] - start - slope * x) / np.var(row[ok]), slope))
        fits.append((*both[0], *both[1]))
    linear, per_hop, log, per_doubling = np.array(fits).T
    return {
        "difference": stats.paired(linear, log),
        "linear": linear.mean(),
        "log": log.mean(),
        "per_hop": per_hop.mean(),
        "per_doubling": per_doubling.mean(),
    }


def alignments(store, df):
    """{arm: (k, mean, low, high)} of the asymptotic alignment after 16 passes."""
    found = {}
    for (arm, _), result in sorted(compare.evaluation_frame(store, df, "alignment").items()):
        found.setdefault(arm, []).append(result["alignment"])
    return {
        arm: (np.array(language(df).groups), *stats.band(np.array(rows))) for arm, rows in found.items() if len(rows) >= compare.enough(df)
    }


# ---------------------------------------------------------------- dial: marginals or joint


def dose_response(df, arm, name="coordination"):
    """(doses, mean, low, high) in nats of a joint score of an arm (a tuple of names: their mean), or None."""
    rows, names = whole(df, arm), (name,) if isinstance(name, str) else name
    if not rows:
        return None
    values = np.mean([[r["detail"]["joint"][n] for r in rows] for n in names], 0)
    return np.array(language(df).groups), *stats.band(values)


def blank_nll(df, arm):
    """(doses, mean, low, high): NLL of a blank by the parallel marginals, after the trained passes."""
    rows = whole(df, arm)
    if not rows:
        return None
    values = np.array([r["detail"]["nll"][passes_of(r)] for r in rows])
    return np.array(language(df).groups), *stats.band(values)


def recovered(df, group, ways=WAYS):
    """{way: [(arm, FLOPs a window, mean, low, high)]}: coordination recovered at a dose (its index), in nats."""
    out = {}
    for way, (names, scores, flops) in ways.items():
        for arm in names:
            rows = whole(df, arm)
            if rows:
                values = np.mean([[r["detail"]["joint"][s][group] for r in rows] for s in scores], 0)
                out.setdefault(way, []).append((arm, rows[0]["detail"]["joint"]["flops"][flops], *interval(values)))
    return out


# ---------------------------------------------------------------- back to language


def language_coordination(store, df, where, blanks=2, ways=LANGUAGE_WAYS):
    """As `recovered`, on WikiText-2: blanks that are "neighbours" or "distant". With three blanks, where the marginals of a filled
    window are not known, filling is the gain in joint NLL over naming all at once."""
    results = compare.evaluation_frame(store, df, "coordination") if len(df) else {}
    out = {}
    for way, (names, scores, flops) in ways.items():
        for arm in names:
            rows = [r[f"{blanks} {where}"] for (a, _), r in sorted(results.items()) if a == arm]
            if len(rows) >= (2 if len(df) and df.record.iloc[0]["profile"] == "smoke" else 10):
                if blanks > 2 and way == "filling":
                    values = [r["parallel"] - r["filled"] for r in rows]
                else:
                    values = np.mean([[r[s] for r in rows] for s in scores], 0)
                out.setdefault(way, []).append((arm, rows[0]["flops"][flops], *interval(values)))
    return out


# ---------------------------------------------------------------- the answer

CHAPTERS = {  # experiment → its name in the answer
    "hops": "hops", "dial": "dial", "masked": "two blanks", "shakespeare": "Shakespeare", "autoregressive": "left to right",
    "capacity": "capacity", "sudoku": "Sudoku",
}  # fmt: skip


def hops_answer(df):
    """Gain of 8 trained passes, at test time as many as were tested, over 1 (share of the errors removed), at k = 2, 4, 8, 16."""
    many, one = cube(df, "8 passes"), cube(df, "1 pass")
    if many is None or one is None:
        return []
    points = []
    for k in (k for k in (2, 4, 8, 16) if k <= many.shape[2]):
        error, e = 1 - one[:, 1, k - 1].mean(), stats.paired(many[:, -1, k - 1], one[:, 1, k - 1])
        gain = e.estimate / error if error else 0.0
        points.append({"task": f"hops, k = {k}", "depth": k, "coordination": 0.0, "gain": gain, "evidence": f"{e.n} seeds"})
    return points


def dial_answer(df):
    """Gain of 8 passes over none (fall of the joint perplexity a blank) at every dose."""
    rows, without = whole(df, "8 passes"), whole(df, "parallel")
    if not rows or not without:
        return []
    points = []
    for g, dose in enumerate(language(df).groups):
        a, b = (np.array([r["detail"]["joint"]["parallel"][g] for r in x]) for x in (rows, without))
        e = stats.paired(a / 2, b / 2)
        points.append(
            {
                "task": f"dial, {dose:.2f} nats",
                "depth": 1,
                "coordination": dose,
                "gain": -math.expm1(e.estimate),
                "evidence": f"{e.n} seeds",
            }
        )
    return points


def masked_answer(store, df):
    """Gain of the recorded masked TRM over the baseline; the coordination of neighbouring blanks where it was measured."""
    e = compare.effect(df, "joint", "baseline")
    found = language_coordination(store, df, "neighbours").get("filling")
    if e is None:
        return []
    nats = found[0][2] if found else None
    return [{"task": "two blanks", "depth": passes_enough(df), "coordination": nats, "gain": -e.estimate, "evidence": f"{e.n} seeds"}]


def passes_enough(df, names=("baseline", "1-pass", "2-passes")):
    """The fewest trained passes whose arm is the same as joint (3 passes) within ±2 %."""
    for passes, arm in enumerate(names):
        seeds, a, b = compare.pairs(df, arm, "joint")
        if len(seeds) >= compare.enough(df) and stats.equivalent(a, b)[1]:
            return passes
    return 3


TEXT = {  # experiment → (with passes, the same without, nats that its answers share where that is known)
    "shakespeare": ("mask", "parallel", None),
    "autoregressive": ("TRM", "baseline", 0.0),  # no slot needs another that is not there yet
    "capacity": ("tuned 0.1M", "causal 0.1M", None),
}


def text_answer(experiment, df):
    """The fall of perplexity that recursion brings to a model of text."""
    arm, rival, nats = TEXT[experiment]
    e = compare.effect(df, arm, rival)
    if e is None:
        return []
    return [{"task": CHAPTERS[experiment], "depth": 1, "coordination": nats, "gain": -e.estimate, "evidence": f"{e.n} seeds"}]


def answer(store, frames, profile):
    """(points, missing): every task of the report with the serial depth and the coordination (nats) that it needs and the gain from
    thinking time (share of errors removed, or fall of perplexity), from whatever records exist; names of what has none yet. A task of
    which only cut runs are there says so."""
    from trmlib.experiments import sudoku_report
    from trmlib.tables import shown

    points, missing = [], []
    for experiment, name in CHAPTERS.items():
        df, used = (frames[experiment], profile) if experiment in frames else shown(store, experiment, profile)
        if experiment in TEXT:
            found = text_answer(experiment, df)
        elif experiment in ("hops", "dial"):
            found = {"hops": hops_answer, "dial": dial_answer}[experiment](df)
        else:
            found = {"masked": masked_answer, "sudoku": sudoku_report.answer}[experiment](store, df)
        points += [p if used == profile else p | {"task": f"{p['task']} ({used})"} for p in found]
        if not found:
            missing.append(name)
    return points, missing


def advice(frames, profile="full"):
    """The practitioners' table: your task looks like this → spend compute on that → expect this much, at this cost. A frame of
    strings; what has no records says so."""
    hops, dial, masked = frames["hops"], frames["dial"], frames["masked"]
    rows = []

    def row(task, spend, expect=None, cost="–", seeds=0):
        evidence = f"{seeds} seeds" if expect else "–"
        rows.append(
            {
                "your task": task,
                "spend on": spend,
                "expect": expect or "not recorded yet",
                "cost": cost if expect else "–",
                "evidence": evidence,
            }
        )

    many, one = cube(hops, "8 passes"), cube(hops, "1 pass")
    found, g = None, growth(hops, "8 passes") if len(hops) else None
    if many is not None and one is not None:
        at = kinds(hops, "8 passes")["trained"]
        found = stats.paired(many[:, passes_of(whole(hops, "8 passes")[0]), at].mean(1), one[:, 1, at].mean(1))
    row(
        "many serial steps, as in training",
        "trained passes",
        found and points(found),
        f"{g['per_hop']:.1f} passes a step" if g else "–",
        len(many) if found else 0,
    )
    table = thinking(hops, profile)
    best = max((r for r in table.itertuples() if r.thinking), key=lambda r: r.thinking.estimate, default=None)
    row("more steps than in training", f"more passes ({best.arm})" if best else "more passes", best and points(best.thinking),
        f"{TEST_PASSES / best.passes:.0f} × the passes" if best else "–", best.thinking.n if best else 0)  # fmt: skip
    last = len(language(dial).groups) - 1 if len(dial) else 0
    ways = recovered(dial, last) if len(dial) else {}
    for way, spend in {"passes": "not on passes", "samples": "samples", "filling": "filling one by one"}.items():
        tried = [p for p in ways.get(way, ()) if way == "filling" or p[0] != "parallel"]
        if tried:
            _, flops, *share = max(tried, key=lambda p: p[2])
            mean, low, high = (v / language(dial).groups[last] for v in share)
            row(
                "answers must agree",
                spend,
                f"{mean:.0%} [{low:.0%}, {high:.0%}] of the shared nats",
                f"× {flops / ways['passes'][0][1]:.1f}",
                compare.enough(dial),
            )
        else:
            row("answers must agree", spend)
    for arm, spend in {"joint": "not on passes (3)", "4-blocks": "plain depth (2 more blocks)"}.items():
        e = compare.effect(masked, arm, "baseline")
        cost = "–"
        if e:
            flops = [masked[masked.arm == a].inference_flops.iloc[0] for a in (arm, "baseline")]
            cost = f"× {flops[0] / flops[1]:.1f}"
        row("words in running text", spend, e and f"{percent(e)} perplexity", cost, e.n if e else 0)
    return pd.DataFrame(rows)


def points(effect):
    """A difference of accuracies as percentage points with its interval."""
    return "{:+.0f} points [{:+.0f}, {:+.0f}]".format(*(100 * v for v in (effect.estimate, effect.low, effect.high)))
