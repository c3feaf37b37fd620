"""What chapter 06 shows: records of the two languages and of the masked experiment → frames, effects and the answer's figure."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from trmlib import compare, stats
from trmlib.data.synthetic import Dial, Hops
from trmlib.evaluate import orders_of
from trmlib.experiments import grid
from trmlib.experiments.fill_evaluations import OPENED
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


def may_go_on(profile):
    """Arms of hops whose models can be given more passes than in training."""
    return list(dict.fromkeys(r.arm for r in grid(profile) if r.spec.experiment == "hops" and r.spec.model.passes and r.spec.model.tied))


def whole(df, arm):
    """The records of an arm in the order of its seeds, or nothing before all seeds that were fixed beforehand are there."""
    g = df[(df.arm == arm) & (df.status == "recorded")].sort_values("seed") if len(df) else df
    return list(g.record) if len(g) >= compare.enough(df) else []


def interval(values):
    """(mean, low, high) over seeds."""
    return tuple(float(v[0]) for v in stats.band(np.asarray(values, float)[:, None]))


# ---------------------------------------------------------------- hops: depth or thinking

MASTERED = 0.9  # of the windows at trained lengths
ONE_SIZE = {  # arm whose states are brought to one size after each pass → the same without
    "TRM, bounded": "TRM", "TRM, full gradient, bounded": "TRM, full gradient", "4 passes, bounded": "4 passes",
    "TRM, normed": "TRM", "TRM, full gradient, normed": "TRM, full gradient", "4 passes, normed": "4 passes", "8 passes, normed": "8 passes",
}  # fmt: skip


def passes_of(record):
    """Passes after which a trained model is read, which are those that its FLOPs and depth count: all that a window gets in training
    over its supervision steps, on average where their number is random."""
    spec = record["spec"]
    return spec["model"].get("passes", 3) * spec.get("train", {}).get("n_sup", 1)


def trained_most(record):
    """The most passes in a row that a model was trained with. What is gained beyond them is thinking time; all else is trained depth."""
    return 2 * passes_of(record) - 1 if record["spec"]["model"].get("random_passes") else passes_of(record)


def longer(store, df):
    """The frame of hops, tied models with the scores after 0 … 32 passes (the evaluation `longer`) in place of the 0 … 16 of their
    records, once all seeds of an arm have been measured; less the last of them where an arm's states overflow (`held`)."""
    found = compare.evaluation_frame(store, df, "longer")
    at = [(r.arm, r.seed) for r in df.itertuples()]
    waiting = {arm for arm, seed in at if (arm, seed) not in found}
    most = {arm: held([found[key]["nll"] for key in at if key[0] == arm], language(df, arm).vocab) for arm, _ in at if arm not in waiting}
    scores = {key: {name: v[: most[key[0]] + 1] for name, v in found[key].items()} for key in at if key[0] in most}
    records = [r if key[0] in waiting else r | {"detail": r["detail"] | scores[key]} for key, r in zip(at, df.record, strict=True)]
    return df.assign(record=records)


def held(nll, vocab):
    """The most passes whose scores (seeds, passes + 1, k) mean something. States that grow at every pass leave fp32's range in the end; their norms
    then give zeros, and the read-out an even guess among all symbols at every length, which no trained model's answer is. These passes go, and
    those before them at which some windows have left already, back to where the scores stand still."""
    nll = np.array(nll)
    even = (np.abs(nll - math.log(vocab)) < 0.05).all(2).any(0)  # (passes + 1,) in any seed
    last = p = nll.shape[1] - 1
    while p > 0 and even[p]:
        p -= 1
    while 0 < p < last and np.abs(nll[:, p] - nll[:, p - 1]).max() > 0.01:
        p -= 1
    return p


def cube(df, arm, what="accuracy"):
    """(seeds, passes + 1, k): a score of every seed, after every pass, at every number of hops; None before all seeds."""
    rows = whole(df, arm)
    return np.array([r["detail"][what] for r in rows]) if rows else None


def guess(df):
    """The accuracy of a reader who names one of the ends."""
    return 1 / language(df).chains


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
    """A row an arm: accuracy at trained, in-between and longer k, read as trained and with the most passes tested; and the effect on
    the longer k, paired within seeds: what the most passes tested add to the most trained with, or to a guess ("thinking"), with its
    false-discovery rate over the arms ("q"); and whether they cost accuracy ("lost"): that, and less than as trained as well."""
    rows = []
    for arm in arms("hops", profile):
        c = cube(df, arm)
        if c is None:
            rows.append({"arm": arm, "seeds": int((df.arm == arm).sum()) if len(df) else 0, "thinking": None})
            continue
        record, k = whole(df, arm)[0], kinds(df, arm)
        read, trained = passes_of(record), trained_most(record)
        row = {
            "arm": arm, "seeds": len(c), "read_at": read, "most_trained": trained, "most": c.shape[1] - 1, "parameters": record["parameters"],
            "mflop": record["inference_flops"] / 1e6, "depth": record["serial_depth"], "thinking": None,
        }  # fmt: skip
        for name, at in k.items():
            row[name] = c[:, read, at].mean() if len(at) else float("nan")
            row[f"{name}_most"] = c[:, -1, at].mean() if len(at) else float("nan")
        long = k["beyond"]
        if c.shape[1] - 1 > trained and len(long):  # a model that has lost its way could have guessed
            most, own = c[:, -1, long].mean(1), c[:, trained, long].mean(1)
            row["thinking"] = stats.paired(most, np.maximum(own, guess(df)))
            row["lost"] = row["thinking"].high < 0 and stats.paired(most, own).high < 0
        rows.append(row)
    found = [r for r in rows if r["thinking"]]
    for r, q in zip(found, stats.benjamini_hochberg([r["thinking"].p for r in found]), strict=True):
        r["q"] = float(q)
    return pd.DataFrame(rows)


def mastered(df, arm):
    """Of the seeds that solve MASTERED of the windows at the lengths of their training: accuracy on longer chains with the most passes of training
    and with the most tested, (those seeds, 2); None before all seeds."""
    c = cube(df, arm)
    if c is None:
        return None
    own, k = trained_most(whole(df, arm)[0]), kinds(df, arm)
    learnt = c[:, own, k["trained"]].mean(1) >= MASTERED
    return np.stack([c[learnt][:, p, k["beyond"]].mean(1) for p in (own, -1)], 1)


def pointers_read(store, df):
    """{arm: {way: {"k", "passes", "new" (passes made before the exchange, k), "solved", "accuracy", "agrees" (seeds,)}}} of the evaluation `pointers`, of the
    arms whose seeds have all been measured. "new": of the questions that a model solves in both windows, the share, over all seeds, whose answer is the new end;
    "solved": what share these are of all; "accuracy" without an exchange; "agrees": the share of answers, over exchanges at every hop while hops are left, that name the
    end which a reader of one pointer a pass would."""
    found, out = compare.evaluation_frame(store, df, "pointers"), {}
    for arm in OPENED:
        results = [r for (of, _), r in sorted(found.items()) if of == arm]
        if not results or len(results) < compare.enough(df):
            continue
        out[arm] = {}
        for way, one in results[0].items():
            old, new, solved = (np.array([r[way][name] for r in results], float) for name in ("old", "new", "solved"))
            before, hop = np.indices(old.shape[1:])
            right = np.where(hop + 1 > before, new, old)[:, : one["k"]]  # after k passes nothing is left to be read
            cells, asked = right.shape[1], one["asked"]
            out[arm][way] = {
                "k": one["k"], "passes": one["passes"], "new": new.sum(0) / np.maximum(1, solved.sum(0)), "solved": solved.mean(1) / asked,
                "accuracy": np.array([r[way]["right"] for r in results]) / asked, "agrees": right.sum((1, 2)) / np.maximum(1, cells * solved.sum(1)),
            }  # fmt: skip
    return out


def climbing(df, arm):
    """Seeds that have not mastered the lengths of their training and gained more than SAME in its last quarter, over the quarter before, on
    the fixed windows of the curve."""
    c, rows = cube(df, arm), whole(df, arm)
    own, k = trained_most(rows[0]), kinds(df, arm)
    curves = np.array([r["curve"]["accuracy"] for r in rows])
    quarter = curves.shape[1] // 4
    gained = curves[:, -quarter:].mean(1) - curves[:, -2 * quarter : -quarter].mean(1)
    return int(((c[:, own, k["trained"]].mean(1) < MASTERED) & (gained > compare.SAME)).sum())


def one_size(df):
    """A row for each arm of ONE_SIZE that is complete, as its namesake: what keeping states to one size changes at trained lengths and between them
    (Effects, paired by seed), how many seeds of both have mastered these lengths, and how many others of both were still `climbing`."""
    rows = []
    for arm, free in ONE_SIZE.items():
        a, b = cube(df, arm), cube(df, free)
        if a is None or b is None:
            continue
        own, k = trained_most(whole(df, arm)[0]), kinds(df, arm)
        change = {kind: stats.paired(*(c[:, own, k[kind]].mean(1) for c in (a, b))) for kind in ("trained", "between") if len(k[kind])}
        rows.append(
            {
                "arm": arm,
                "free": free,
                **change,
                "seeds": len(a),
                "mastered": mastered(df, arm),
                "mastered_free": mastered(df, free),
                "climbing": climbing(df, arm),
                "climbing_free": climbing(df, free),
            }
        )
    return rows


WHOLE_GRADIENT = {  # arm whose gradient does not reach all of its passes → the same, or without those that it does not reach, where it does
    "TRM": "TRM, full gradient", "TRM, bounded": "TRM, full gradient, bounded", "TRM, normed": "TRM, full gradient, normed",
    "TRM, normed × 4 supervised": "TRM, full gradient, normed", "2 passes × 4 supervised": "2 passes",
}  # fmt: skip
UNDETACHED = {
    "TRM": "1 pass, n = 2",
    "TRM, normed": "1 pass, n = 2, normed",
}  # … → the same gradient and none of the passes that it does not reach
FEWER = ("1 pass", "2 passes", "4 passes", "8 passes")


def reads(record):
    """(times that training reads the window for one answer, how many of these the gradient of a loss goes through)."""
    model = record["spec"]["model"]
    once = max(1, model.get("n", 0))  # a pass of two states reads it with every update of z, and not for y
    return once * passes_of(record), once * (model.get("with_grad") or model.get("passes", 3))


def as_trained(df, arm):
    """(seeds, k): accuracy of a complete arm after the most passes of its training."""
    return cube(df, arm)[:, trained_most(whole(df, arm)[0])]


def gradient_reach(df):
    """A row an arm that is complete: its `reads`, and its accuracy at each k as trained, over seeds; of those in WHOLE_GRADIENT also the Effect on
    the lengths within reach of its gradient, against the arm named there, paired by seed, and of those in UNDETACHED that against the arm there
    ("without": (arm, Effect))."""
    rows = []
    rivals = [*WHOLE_GRADIENT.values(), *UNDETACHED.values()]
    for arm in (*FEWER, *WHOLE_GRADIENT, *dict.fromkeys(v for v in rivals if v not in FEWER)):
        if cube(df, arm) is None:
            continue
        all_of_them, reach = reads(whole(df, arm)[0])
        row = {"arm": arm, "reads": all_of_them, "reach": reach, "accuracy": as_trained(df, arm).mean(0), "against": None, "without": None}
        lost = {of: stats.paired(as_trained(df, arm)[:, :reach].mean(1), as_trained(df, of)[:, :reach].mean(1))
                for named in (WHOLE_GRADIENT, UNDETACHED) if (of := named.get(arm)) and cube(df, of) is not None}  # fmt: skip
        if (of := WHOLE_GRADIENT.get(arm)) in lost:
            row |= {"against": of, "effect": lost[of]}
        if (of := UNDETACHED.get(arm)) in lost:
            row["without"] = of, lost[of]
        rows.append(row)
    return rows


def nll_by_length(df, arm, passes):
    """{passes: (k, mean, low, high, optimum)}: NLL in nats after so many passes at test time, and the lowest expected one of a reader who
    follows one pointer a pass; empty before all seeds."""
    c = cube(df, arm, "nll")
    if c is None:
        return {}
    lang = language(df, arm)
    at = {p: [lang.optimum(g, p)["blank"] for g in range(len(lang.groups))] for p in passes if p < c.shape[1]}
    return {p: (np.array(lang.groups), *stats.band(c[:, p]), np.array(best)) for p, best in at.items()}


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
    """{arm: (k, mean, low, high)} of the asymptotic alignment after 16 passes, of the arms that read the question again at each. The others
    hold their start in the state alone: whoever starts them from another window's state has taken the question away."""
    asks = {r.arm for r in df.itertuples() if r.record["spec"]["model"].get("rereads")}
    found = {}
    for (arm, _), result in sorted(compare.evaluation_frame(store, df, "alignment").items()):
        if arm in asks:
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
    """As `recovered`, on WikiText-2: blanks that are "neighbours" or "distant". Filling is the mean over the orders, which costs what one
    order does. With three blanks, where the marginals of a filled window are not known, it is the gain in joint NLL over naming
    all at once."""
    results = compare.evaluation_frame(store, df, "coordination") if len(df) else {}
    out = {}
    for way, (names, scores, flops) in ways.items():
        for arm in names:
            rows = [r[f"{blanks} {where}"] for (a, _), r in sorted(results.items()) if a == arm]
            if len(rows) >= (2 if len(df) and df.record.iloc[0]["profile"] == "smoke" else 10):
                if blanks > 2 and way == "filling":
                    values = [r["parallel"] - np.mean([r[order] for order in orders_of(blanks)]) for r in rows]
                else:
                    values = np.mean([[r[s] for r in rows] for s in scores], 0)
                out.setdefault(way, []).append((arm, rows[0]["flops"][flops], *interval(values)))
    return out


def nats(point):
    """Mean and interval of an (arm, FLOPs, mean, low, high) as text."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(round(v, 2) + 0.0 for v in point[2:])).replace("-", "−")  # no −0


# ---------------------------------------------------------------- the comparisons

PRIMARY = [  # Holm-corrected together: (what, against what, what it separates); a share of solved windows or of shared nats
    ("8 passes", "1 pass", "trained depth, on lengths of training"),
    ("8 passes, most tested", "8 passes, as trained", "thinking time, on longer chains"),
    ("4 passes, within reach", "4 passes", "what training asked for: most passes tested, chains longer than any in either's training"),
    ("dial, 8 passes", "dial, no pass", "passes and agreement: share of the nats, full dose"),
    ("dial, one by one", "dial, no pass", "writing down and agreement: share of the nats, full dose"),
]


def primary(hops, dial):
    """`compare.primary` of PRIMARY. The five were written down after all ten seeds of the dial, and of the arms of hops that they name,
    had been trained and looked at: Holm's correction is for choosing five, and nobody predicted them. All else is exploratory, at a false-discovery
    rate of 10 %."""
    rows = []

    def take(name, df, arm, score):
        records = whole(df, arm)
        rows.extend({"arm": name, "seed": i, "accuracy": float(score(r)), "record": r} for i, r in enumerate(records))

    def solved(passes, lengths):
        return lambda r: np.array(r["detail"]["accuracy"])[passes(r), lengths].mean()

    def most(r):
        return len(r["detail"]["accuracy"]) - 1

    if len(hops):
        seen, long = (kinds(hops, "8 passes")[k] if whole(hops, "8 passes") else [] for k in ("trained", "beyond"))
        for arm in ("8 passes", "1 pass"):
            take(arm, hops, arm, solved(passes_of, seen))
        take("8 passes, most tested", hops, "8 passes", solved(most, long))
        take("8 passes, as trained", hops, "8 passes", lambda r: max(guess(hops), solved(trained_most, long)(r)))
        for arm in ("4 passes", "4 passes, within reach"):
            take(arm, hops, arm, solved(most, long))
    if len(dial):
        lang, last = language(dial), len(language(dial).groups) - 1
        apart = 2 * lang.optimum(last)["blank"]  # joint NLL of two blanks that know nothing of each other
        share = lambda *names: lambda r: (apart - np.mean([r["detail"]["joint"][n][last] for n in names])) / lang.groups[last]  # noqa: E731
        take("dial, no pass", dial, "parallel", share("parallel"))
        take("dial, 8 passes", dial, "8 passes", share("parallel"))
        take("dial, one by one", dial, "parallel", share("ab", "ba"))
    columns = ["arm", "seed", "accuracy", "record"]
    return compare.primary(pd.DataFrame(rows, columns=columns), PRIMARY, "accuracy")


# ---------------------------------------------------------------- the answer

CHAPTERS = {  # experiment → its name in the answer
    "hops": "hops", "dial": "dial", "masked": "two blanks", "shakespeare": "Shakespeare", "autoregressive": "left to right",
    "capacity": "capacity", "sudoku": "Sudoku",
}  # fmt: skip
TEXT = {  # experiment → its recursive arm, the same without, {passes beyond a plain reading: arm}, those of the recursive arm
    "masked": ("joint", "baseline", {0: "baseline", 1: "1-pass", 2: "2-passes"}, 3),
    "shakespeare": ("mask", "parallel", {0: "parallel", 1: "T-1", 2: "T-2"}, 3),
    "autoregressive": ("TRM", "baseline", {0: "baseline", 1: "2-passes"}, 2),  # there the reading itself is the first of three
    "capacity": (
        "everywhere 0.1M",
        "everywhere 0.1M (n 0, T 1)",
        {0: "everywhere 0.1M (n 0, T 1)", 1: "everywhere 0.1M (T 1)"},
        2,
    ),  # the standard model names tokens one by one
}
ENOUGH = 10  # seeds; fewer are thin evidence
TOY = "one synthetic language"


def gain(effect, falls=False):
    """An Effect of which more is better; `falls`: of NLLs in nats, as the fall of perplexity."""
    e = effect.relative() if falls else effect
    return replace(e, estimate=-e.estimate, low=-e.high, high=-e.low) if falls else e


def task(name, depth, coordination, trained, thinking, unit, thin=(), shared="known"):
    """A task of the report: serial steps that it needs (None: not known), nats that its answers must share (None: see `shared`,
    "pending" or "never measured"), gain from trained depth and from thinking time (Effects, the second may be None) in points of
    accuracy or % of perplexity, and why the evidence is thin."""
    thin = [*thin, *([f"{trained.n} seeds"] if trained.n < ENOUGH else [])]
    return {
        "task": name, "depth": depth, "coordination": coordination, "shared": shared, "trained": trained, "thinking": thinking, "unit": unit,
        "n": trained.n, "thin": thin,
    }  # fmt: skip


def loses(t):
    """Do passes beyond training take away from a task, with an interval below zero, a point or % or more?"""
    e = t["thinking"]
    return bool(e) and e.high < 0 and e.estimate <= -0.01


def hops_answer(df):
    """At k = 2, 4, 8, 16: trained depth, 8 passes against 1, and thinking time, the most passes tested against the 8; who does worse than
    a guess counts as guessing."""
    many, one = cube(df, "8 passes"), cube(df, "1 pass")
    if many is None or one is None:
        return []
    least, own = guess(df), trained_most(whole(df, "8 passes")[0])
    many, one = np.maximum(many, least), np.maximum(one, least)
    found = []
    for k in (k - 1 for k in (2, 4, 8, 16) if k <= many.shape[2]):
        depth, time = stats.paired(many[:, own, k], one[:, 1, k]), stats.paired(many[:, -1, k], many[:, own, k])
        found.append(task(f"hops, k = {k + 1}", k + 1, 0.0, gain(depth), gain(time), "points", [TOY]))
    return found


def dial_answer(df):
    """At every dose, joint perplexity a blank: trained depth, 8 passes against none, and thinking time, the most passes tested against 8
    (parallel blanks: the joint NLL is the sum of the blanks')."""
    rows, without = whole(df, "8 passes"), whole(df, "parallel")
    if not rows or not without:
        return []
    found = []
    for g, dose in enumerate(language(df).groups):
        joint, none = (np.array([r["detail"]["joint"]["parallel"][g] / 2 for r in x]) for x in (rows, without))
        nll = np.array([r["detail"]["nll"] for r in rows])[:, :, g]
        depth, time = stats.paired(joint, none), stats.paired(nll[:, -1], nll[:, trained_most(rows[0])])
        found.append(task(f"dial, {dose:.2f} nats", 1, dose, gain(depth, True), gain(time, True), "%", [TOY]))
    return found


def steps_needed(df, arm, ladder, own):
    """The fewest passes beyond a plain reading, {passes: arm} of the `ladder`, with which perplexity is no more than 2 % above that of `arm`,
    which has `own`; None where an arm that decides is pending, or is neither that good nor shown to be worse."""
    for passes, other in ladder.items():
        seeds, a, b = compare.pairs(df, other, arm)
        if not compare.complete(df, other) or len(seeds) < compare.enough(df):
            return None
        if stats.equivalent(a, b)[0].high < stats.MARGIN:
            return passes
        if stats.paired(a, b).low <= 0:
            return None
    return own


def passed(store, experiment, df, arm):
    """(most passes tested, trained): of each the number, and NLLs of an arm over its seeds on part B; None where only the trained number was tested."""
    rows, reading = whole(df, arm), TEXT[experiment][3] + (experiment == "autoregressive")
    nll = [r["detail"]["by_pass"]["nll_b"] for r in rows]
    if experiment in ("autoregressive", "capacity"):
        found = compare.evaluation_frame(store, df, "passes")
        nll = [r["nll_b"] for (a, _), r in sorted(found.items()) if a == arm]
    if not rows or len(nll) < len(rows) or len(nll[0]) <= reading + 1:
        return None
    return [(p, np.array(nll)[:, p]) for p in (len(nll[0]) - 1, reading)]


def text_answer(store, experiment, df):
    """Fall of perplexity: what recursion brings to a model of text, and what more passes than in training do. Left to right no slot needs
    another that is not there yet; of two blanks the coordination of neighbours is measured, of the others nothing measures it."""
    arm, rival, ladder, own = TEXT[experiment]
    if compare.effect(df, arm, rival) is None or {arm, rival} <= set(compare.unlearnt(df, compare.references(store, df))):
        return []
    _, a, b = compare.pairs(df, arm, rival)
    more = passed(store, experiment, df, arm)
    nats, shared = (0.0, "known") if experiment == "autoregressive" else (None, "never measured")
    if experiment == "masked":
        found = language_coordination(store, df, "neighbours").get("filling")
        nats, shared = (found[0][2], "known") if found else (None, "pending")
    time = gain(stats.paired(*(nll for _, nll in more)), True) if more else None
    return [task(CHAPTERS[experiment], steps_needed(df, arm, ladder, own), nats, gain(stats.paired(a, b), True), time, "%", (), shared)]


def sudoku_answer(store, df):
    """Puzzles solved: the trained number of supervision steps against the first, and the most steps tested against the trained number. Depth
    is the rounds of deductions that a puzzle needs; a puzzle has one solution, so that the givens leave nothing to share."""
    from trmlib.experiments import sudoku_report

    placed = sudoku_report.answer(store, df)
    rows = [r["detail"]["by_step"][sudoku_report.METRIC] for r in whole(df, "TRM")]
    if not placed or not rows:
        return []
    steps, (_, time) = np.array(rows), sudoku_report.longer_gain(store, df)
    depth = stats.paired(steps[:, sudoku_report.trained_steps(df, "TRM") - 1], steps[:, 0])
    return [task(CHAPTERS["sudoku"], placed[0]["depth"], placed[0]["coordination"], depth, time, "points")]


def answer(store, frames, profile):
    """(tasks, missing): every task of the report (`task`) that has records; names of what has none yet."""
    from trmlib.tables import shown

    found, missing = [], []
    for experiment, name in CHAPTERS.items():
        compared = TEXT[experiment][:2] if experiment in TEXT else ()
        df, used = (frames[experiment], profile) if experiment in frames else shown(store, experiment, profile, compared)
        if experiment in TEXT:
            tasks = text_answer(store, experiment, df)
        else:
            tasks = sudoku_answer(store, df) if experiment == "sudoku" else {"hops": hops_answer, "dial": dial_answer}[experiment](df)
        found += tasks if used == profile else [t | {"thin": ["cut profile", *t["thin"]]} for t in tasks]
        if not tasks:
            missing.append(name)
    return [{"number": i + 1} | t for i, t in enumerate(found)], missing


def answer_table(tasks):
    """The tasks of the answer as a frame of strings: the key of its figure."""

    def said(e, unit):
        if e is None:
            return "not tested"
        return points(e).replace(" points", "") + " pt" if unit == "points" else percent(e).replace(" %", "") + " %"

    def seeds(t):
        return f"{t['n']}" + (" †" if set(t["thin"]) - {TOY} else "") + (" cut" if "cut profile" in t["thin"] else "")

    return pd.DataFrame([
        {"task": f"{t['number']:>2}  {t['task']}", "trained depth": said(t["trained"], t["unit"]), "thinking time": said(t["thinking"], t["unit"]),
         "seeds": seeds(t)} for t in tasks
    ])  # fmt: skip


# ---------------------------------------------------------------- advice

ADVISED = {  # named before the records are read, so that none is picked for having done best
    "depth": "8 passes", "time": "8 passes", "asked too much": "4 passes", "passes": "8 passes", "samples": "16 samples", "filling": "parallel",
    "puzzle": "random starts",
}  # fmt: skip
READ = {  # the same for real text, whose arms are of models trained on one to three blanks
    "passes": "joint (1–3 blanks)", "samples": "4 samples (1–3 blanks)", "filling": "baseline (1–3 blanks)",
}  # fmt: skip
HEADINGS = {  # experiment of an advice → the heading that shows its records
    "depth": "06_when.ipynb#Depth-or-thinking", "time": "06_when.ipynb#Which-ingredient-makes-passes-beyond-training-pay?",
    "dial": "06_when.ipynb#Three-ways-to-spend-the-same-compute", "masked": "02_masked.ipynb#The-comparisons-fixed-beforehand",
    "language": "06_when.ipynb#Back-to-language", "sudoku": "05_sudoku.ipynb#Try-again",
}  # fmt: skip


def advice(store, frames, profile="full"):
    """The practitioners' table: your task looks like this → spend compute on that → expect this much, at this cost; the evidence, where it
    is thin, and the records (experiment: arms) with the heading that shows them. A frame of strings; what has no records says so."""
    from trmlib.tables import shown

    hops, dial, masked = frames["hops"], frames["dial"], frames["masked"]
    sudoku, used = shown(store, "sudoku", profile)
    rows = []

    def row(looks, spend, records, where, expect=None, cost="–", n=0, thin=(), profile=profile):
        reasons = [*thin, *(["few seeds"] if n < ENOUGH else []), *(["cut profile"] if profile == "cpu" else [])]
        evidence = f"{n} seeds" + (f"; thin: {', '.join(reasons)}" if reasons else "")
        rows.append({
            "your task": looks, "spend on": spend, "expect": expect or "not recorded yet", "cost": cost if expect else "–",
            "evidence": evidence if expect else "–", "records": records, "where": HEADINGS[where],
        })  # fmt: skip

    deep, one = ADVISED["depth"], "1 pass"
    many, single, g = cube(hops, deep), cube(hops, one), growth(hops, deep) if len(hops) else None
    found = None
    if many is not None and single is not None:
        at = kinds(hops, deep)["trained"]
        found = stats.paired(many[:, passes_of(whole(hops, deep)[0]), at].mean(1), single[:, 1, at].mean(1))
    row("many serial steps, as in training", "trained passes", f"hops: {deep}, {one}", "depth", found and f"{points(found)} solved",
        f"{g['per_hop']:.1f} passes a step" if g else "–", found.n if found else 0, [TOY])  # fmt: skip
    table = thinking(hops, profile).set_index("arm")
    for what, looks, spend in (
        ("time", "more steps than in training", "more passes than in training"),
        ("asked too much", "the same, but training asked for more steps than it had passes", "not on more passes"),
    ):
        arm = ADVISED[what]
        r = table.loc[arm] if arm in table.index else None
        e = r.thinking if r is not None else None
        row(
            looks,
            spend,
            f"hops: {arm}",
            "time",
            e and f"{points(e)} solved",
            e and f"× {r.most / r.read_at:.0f} the passes",
            e.n if e else 0,
            [TOY],
        )
    for spend, times, e in sudoku_ways(store, sudoku):
        row(
            "a puzzle with one solution",
            spend,
            f"sudoku: {ADVISED['puzzle']}",
            "sudoku",
            e and f"{points(e)} solved",
            f"× {times}",
            e.n if e else 0,
            profile=used,
        )
    last = len(language(dial).groups) - 1 if len(dial) else 0
    ways = recovered(dial, last) if len(dial) else {}
    for way, spend in {"passes": "not on passes", "samples": "samples", "filling": "filling one by one"}.items():
        arm, expect, cost = ADVISED[way], None, "–"
        tried = [p for p in ways.get(way, ()) if p[0] == arm]
        if tried:
            _, flops, *share = tried[0]
            expect = "{:.0%} [{:.0%}, {:.0%}] of the shared nats".format(*(v / language(dial).groups[last] for v in share))
            cost = f"× {flops / ways['passes'][0][1]:.1f}"
        row("answers must agree", spend, f"dial: {arm}", "dial", expect, cost, compare.enough(dial), [TOY])
    for where, looks, way in (
        ("neighbours", "neighbouring words must agree", "filling"),
        ("neighbours", "neighbouring words must agree", "samples"),
        ("distant", "words far apart must agree", "filling"),
    ):
        arm, ways = READ[way], language_coordination(store, masked, where)
        found = next((p for p in ways.get(way, ()) if p[0] == arm), None)
        spend = "filling one by one" if way == "filling" else f"samples ({arm.split()[0]})"
        none = found and all(
            round(low, 2) <= 0 for tried in ways.values() for *_, low, _ in tried
        )  # by no way, to the digits that are shown
        row(
            looks,
            "nothing to recover" if none else spend,
            f"masked: {arm}",
            "language",
            found and f"{nats(found)} nats of a pair" + (f" by {spend}" if none else ""),
            found and f"× {found[1] / ways['passes'][0][1]:.1f}",
            masked[masked.arm == arm].seed.nunique() if found else 0,
        )
    e = text_time(store, "masked", masked)
    arm, *_, own = TEXT["masked"]
    most = e and len(whole(masked, arm)[0]["detail"]["by_pass"]["nll_b"]) - 1
    row("words in running text", "not on more passes than in training", f"masked: {arm}", "masked", e and f"{percent(e)} perplexity",
        e and f"× {most / own:.1f} the passes", e.n if e else 0)  # fmt: skip
    for arm, spend in {"joint": "not on trained passes (3)", "4-blocks": "plain depth (2 more blocks)"}.items():
        e, cost = compare.effect(masked, arm, "baseline"), "–"
        if e:
            flops = [masked[masked.arm == a].inference_flops.iloc[0] for a in (arm, "baseline")]
            cost = f"× {flops[0] / flops[1]:.1f}"
        row("words in running text", spend, f"masked: {arm}, baseline", "masked", e and f"{percent(e)} perplexity", cost, e.n if e else 0)
    return pd.DataFrame(rows)


def sudoku_ways(store, df):
    """[(what compute is spent on, times the compute, Effect in shares or None)] of the model trained from random starts: many of them, of which it
    keeps the answer that it is surest of, or one and more steps than in training."""
    from trmlib.experiments import sudoku_report

    b = sudoku_report.budgets(store, df, ADVISED["puzzle"]) if len(df) else None
    if not b:
        return [("random starts, the surest kept", 1, None), ("not on more steps than in training", 1, None)]
    own = sudoku_report.trained_steps(df, ADVISED["puzzle"])
    k, most = sudoku_report.shared(b, own), max(b["steps"])
    return [("random starts, the surest kept", k, sudoku_report.against(b, (own, k), (own, 1))),
            ("not on more steps than in training", most // own, sudoku_report.against(b, (most, 1), (own, 1)))]  # fmt: skip


def text_time(store, experiment, df):
    """Relative change of perplexity with the most passes tested against those of training (Effect), or None."""
    arm = TEXT[experiment][0]
    more = passed(store, experiment, df, arm) if compare.complete(df, arm) else None
    return more and stats.paired(*(nll for _, nll in more)).relative()


def advice_links(table):
    """The advice as a Markdown table, its records linked to the heading that shows them."""
    names = ["your task", "spend on", "expect", "cost", "evidence", "records"]
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    lines += [f"| {' | '.join(r[names[:-1]])} | [{r['records']}](../notebooks/{r['where']}) |" for _, r in table.iterrows()]
    return "\n".join(lines)


def points(effect, digits=0):
    """A difference of accuracies as percentage points with its interval."""
    values = (round(100 * v, digits) + 0.0 for v in (effect.estimate, effect.low, effect.high))  # no −0
    return "{:+.{d}f} points [{:+.{d}f}, {:+.{d}f}]".format(*values, d=digits).replace("-", "−")


# ---------------------------------------------------------------- what was learned


def learned(store, hops, dial, masked, tasks, profile):
    """The exploratory findings as a Markdown list, by rule; what is pending is named."""
    lines, table = [], thinking(hops, profile)
    found = [r for r in table.itertuples() if r.thinking]
    for what, keep in (
        ("paid", lambda r: r.q <= 0.1 and r.thinking.estimate > 0),
        ("cost accuracy", lambda r: r.q <= 0.1 and r.lost),
        ("end below a guess", lambda r: r.q <= 0.1 and r.thinking.estimate < 0 and not r.lost and r.beyond_most < guess(hops)),
        ("made no difference that can be told", lambda r: r.q > 0.1),
    ):
        of = [f"*{r.arm}* ({points(r.thinking, 1)}, {r.most:.0f} passes against {r.most_trained:.0f})" for r in found if keep(r)]
        if of:
            lines.append(f"Beyond training, passes **{what}** for {'; '.join(of)}.")
    g = growth(hops, ADVISED["depth"]) if len(hops) else None
    if g:
        like = "k" if g["difference"].low > 0 else "log k" if g["difference"].high < 0 else "k or log k, which cannot be told"
        lines.append(f"The passes that *{ADVISED['depth']}* needs grow like **{like}**: {g['per_hop']:.2f} a hop.")
    same = [
        f"*{arm}* ({'{:.1%} [{:.1%}, {:.1%}]'.format(*interval(ways['longest']['agrees']))} of answers)"
        for arm, ways in (pointers_read(store, hops) if len(hops) else {}).items()
        if interval(ways["longest"]["agrees"])[1] > LEVEL
    ]
    if same:
        lines.append(
            f"With chains exchanged between their passes, on the longest, these answer as a reader of **one pointer a pass** would: {'; '.join(same)}."
        )
    reach = gradient_reach(hops)
    cut = [f"*{r['arm']}* ({points(r['effect'])})" for r in reach if r["against"] and r["effect"].high < 0]
    if cut:
        lines.append(f"With a gradient that does **not reach all passes**, models lose even what it does reach: {'; '.join(cut)}.")
    alone = [
        f"*{r['arm']}* against *{r['without'][0]}* ({points(r['without'][1])})" for r in reach if r["without"] and r["without"][1].high < 0
    ]
    if alone:
        lines.append(
            f"At least part of it they lose **to the detached passes**, for the last pass alone, with the same gradient, learns more: {'; '.join(alone)}."
        )
    waiting = [r.arm for r in table.itertuples() if r.seeds < compare.enough(hops)]
    if len(dial):
        lang, last = language(dial), len(language(dial).groups) - 1
        for way, ways in recovered(dial, last).items():
            arm, flops, mean, low, high = next((p for p in ways if p[0] == ADVISED[way]), ways[-1])
            share = "{:.0%} [{:.0%}, {:.0%}]".format(*(v / lang.groups[last] for v in (mean, low, high)))
            lines.append(
                f"Of {lang.groups[last]:.2f} nats that two answers share, *{way}* ({arm}) recover **{share}** with {flops / 1e6:.2f} MFLOP a window."
            )
    for t in tasks:
        if t["unit"] == "%" and t["thinking"] and TOY not in t["thin"]:
            e = t["thinking"]
            word = "lower" if e.low > 0 else "raise" if e.high < 0 else "do not change, as far as can be told,"
            lines.append(
                f"*{t['task']}*: passes beyond training **{word}** perplexity ({percent(e)} of gain{', cut profile' if 'cut profile' in t['thin'] else ''})."
            )
    for where in ("neighbours", "distant"):
        for way, tried in language_coordination(store, masked, where).items():
            lines += [f"WikiText-2, two {where}: *{way}* ({p[0]}) recover {nats(p)} nats." for p in tried if p[0] == READ[way]]
    if waiting:
        lines.append(f"Pending on hops: {', '.join(waiting)}.")
    if not language_coordination(store, masked, "neighbours"):
        lines.append("Pending on WikiText-2: how many nats its words share, and which way recovers them.")
    return "\n".join(f"- {line}" for line in lines)
