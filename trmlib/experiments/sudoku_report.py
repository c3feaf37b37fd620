"""What chapter 05 shows: records → tidy frames and verdicts. No training, no plotting."""

import math

import numpy as np
import pandas as pd

from trmlib import stats
from trmlib.compare import arm_rows, change, complete, effect, enough, evaluation_frame, scores
from trmlib.data.sudoku import BANDS, band
from trmlib.experiments import grid
from trmlib.experiments.sudoku_evaluations import BINS, unpacked
from trmlib.models.grid import GridConfig
from trmlib.stats import Effect
from trmlib.stats import band as interval

# What the write-up (document 004 of the sources) and the paper (arXiv 2510.04871, its tables 1 to 3) say; shares of Sudoku-Extreme.
CLAIMED = {
    "TRM": 0.874, "attention": 0.747, "no EMA": 0.799, "one-step gradient": 0.565, "single latent": 0.719, "4 layers": 0.795,
    "longer": (0.87, 0.96), "halting": 2, "halting_of": 16,
}  # fmt: skip
METRIC = "accuracy_b"
SINGLE_STEP = "no deep supervision"  # the arm that is trained for a single supervision step
FALSE_DISCOVERIES = 0.1  # among the observations
PRIMARY = [  # the comparisons fixed beforehand; Holm-corrected together: (arm, rival, what it separates)
    ("TRM", "no deep supervision", "several supervised steps or one"),
    ("TRM", "one-step gradient", "gradient through the whole last recursion or its last step"),
    ("TRM", "single latent", "an answer and a latent or one state"),
    ("TRM", "no EMA", "averaged weights or the last"),
    ("TRM", "4 layers", "two layers or four at half the updates"),
    ("TRM", "attention", "mixing by an MLP or by attention"),
    ("random starts", "TRM", "starts drawn anew or fixed"),
    ("half the examples", "TRM", "half of the examples start at noise, as in the path-independence paper"),
    ("T ± 2", "TRM", "the number of recursions drawn anew or fixed"),
    ("N_sup ± 4", "TRM", "the number of supervision steps drawn anew or fixed"),
]
NUMBERS = {"n": "n", "T": "T", "N_sup": "n_sup"}  # that can be drawn anew in training, and their fields
RULES = {
    "confidence": "the halting head's favourite", "puzzle vote": "the most frequent board", "cell vote": "the most frequent digits",
    "residual": "the calmest state", "any": "any of them (ceiling)", "rules": "one that keeps the rules",
}  # fmt: skip


def arms(df, profile="full"):
    """A row an arm (`compare.arm_rows`), with its difference from the TRM of its own width."""

    def more(arm, g):
        rival = "TRM" + arm[arm.find(" (") :] if " (" in arm else "TRM"
        e = effect(df, arm, rival, METRIC) if arm != rival else None
        return {"accuracy": g[METRIC].mean(), "cells": g.cells_b.mean(), "effect": e}

    return arm_rows(df, "sudoku", more, profile)


def ablations(df, profile="full"):
    """Rows for a forest: every arm of the TRM's width against the TRM, each after its trained number of steps; the arm trained without
    deep supervision, for a single step, also after as many steps as the TRM."""
    names = dict.fromkeys(r.arm for r in grid(profile) if r.spec.experiment == "sudoku")
    rows = [{"name": a, "effect": effect(df, a, "TRM", METRIC)} for a in names if a != "TRM" and "(d=" not in a]
    one = next((i for i, r in enumerate(rows) if r["name"] == SINGLE_STEP), None)
    if one is not None:
        rows.insert(one + 1, {"name": "… after the TRM's steps", "effect": unsupervised(df)})
    return rows


def unsupervised(df, arm=SINGLE_STEP):
    """Effect of an arm over the TRM, both after the TRM's trained number of steps; None before all seeds."""
    if not (complete(df, "TRM") and complete(df, arm)):
        return None
    steps = trained_steps(df, "TRM")
    a, b = (of_step(df, name, steps) for name in (arm, "TRM"))
    seeds = sorted(a.keys() & b.keys())
    return stats.paired(*(np.array([v[s] for s in seeds]) for v in (a, b))) if len(seeds) > 1 else None


def of_step(df, arm, step):
    """{seed: puzzles solved after a supervision step}."""
    return {r.seed: r.record["detail"]["by_step"][METRIC][step - 1] for r in df[df.arm == arm].itertuples() if r.status == "recorded"}


def single_step(df, arm=SINGLE_STEP):
    """(puzzles solved after the single step that an arm was trained for, after the TRM's number of steps, that number, Effect between
    them): thinking time; None before all seeds."""
    if not (complete(df, "TRM") and complete(df, arm)):
        return None
    steps = trained_steps(df, "TRM")
    first, last = (np.array(list(of_step(df, arm, k).values())) for k in (trained_steps(df, arm), steps))
    return first.mean(), last.mean(), steps, stats.paired(last, first)


def shares(values):
    """(mean, low, high) over seeds of shares (seeds, …): an interval of these ends at 0 and 1."""
    return tuple(np.clip(v, 0, 1) for v in interval(values))


def by_step(df, names, metric=METRIC):
    """{arm: (supervision steps, mean, low, high)} of a share after each step."""
    out = {}
    for arm in names:
        rows = [r["detail"]["by_step"][metric] for r in df[(df.arm == arm) & (df.status == "recorded")].record] if len(df) else []
        if len(rows) >= enough(df):
            out[arm] = (np.arange(1, len(rows[0]) + 1), *shares(np.array(rows)))
    return out


def halting_steps(df, arm="TRM"):
    """(Effect of the mean supervision steps a puzzle takes over the whole training, of the last quarter alone, at most): how long the
    halting head keeps a puzzle. A block of training has the same number of slots and steps as any other, so more puzzles go through it
    the shorter they stay: the mean over puzzles is the harmonic mean of the blocks'. None before all seeds."""
    if not complete(df, arm):
        return None
    g = df[(df.arm == arm) & (df.status == "recorded")]
    rows = [[v for v in r["curve"]["halting_steps"] if v is not None] for r in g.record]
    mean = lambda row: len(row) / sum(1 / v for v in row)  # noqa: E731
    whole, late = (np.array([mean(row[int(share * len(row)) :]) for row in rows]) for share in (0, 0.75))
    most = g.record.iloc[0]["spec"]["model"].get("n_sup", 16)
    return stats.paired(whole, np.zeros(len(whole))), stats.paired(late, np.zeros(len(late))), most


# ---------------------------------------------------------------- more steps or more starts


def flops(df, arm):
    """FLOPs of one supervision step on one puzzle."""
    r = df[df.arm == arm].record.iloc[0]
    return r["inference_flops"] / r["spec"]["model"].get("n_sup", 16)


def singles(store, df, name, arm):
    """The results of a single-run evaluation of an arm, in the order of its seeds; nothing before all are there."""
    rows = [r for (a, _), r in sorted(evaluation_frame(store, df, name).items()) if a == arm]
    return rows if len(df) and len(rows) >= enough(df) else []


def budgets(store, df, arm):
    """{"steps", "starts", "puzzles": how many, "most": starts measured after each of the steps, rule: rows of steps, columns of k starts, each (seeds, groups
    of k, puzzles) or None} of an arm, or None before all seeds."""
    rows = singles(store, df, "budget", arm)
    if not rows:
        return None
    first = rows[0]
    most = [max(k for k, v in zip(first["starts"], row, strict=True) if v) for row in first["any"]]

    def outcomes(rule, i, c):
        k = first["starts"][c]
        return np.array([unpacked(r[rule][i][c], most[i] // k, r["puzzles"]) for r in rows]) if k <= most[i] else None

    columns = range(len(first["starts"]))
    return (
        {k: first[k] for k in ("steps", "starts", "puzzles")}
        | {"most": most}
        | {rule: [[outcomes(rule, i, c) for c in columns] for i in range(len(most))] for rule in RULES}
    )


def solves(b, steps, k=1, rule="confidence", among=None):
    """(seeds, puzzles): how often a choice among k starts solves a puzzle after so many steps; the mean over all groups of k among the
    first `among` starts (None: all that were measured)."""
    i = b["steps"].index(steps)
    return b[rule][i][b["starts"].index(k)][:, : (among or b["most"][i]) // k].mean(1)


def shared(b, *steps):
    """Starts that were measured after each of these steps."""
    return min(b["most"][b["steps"].index(s)] for s in steps)


def against(b, this, that):
    """Effect of `this` over `that`, each (steps, k, rule), on the starts that both have; seeds crossed with puzzles."""
    among = shared(b, this[0], that[0])
    return stats.crossed(*(solves(b, *x, among=among) for x in (this, that)))


def minutes(df, names):
    """{arm: (minutes, mean, low, high)}: accuracy on part A over the time of training, of complete arms whose records hold a clock."""
    out = {}
    for arm in names:
        rows = (
            [r for r in df[(df.arm == arm) & (df.status == "recorded")].record if all(r.get("curve_seconds") or [None])] if len(df) else []
        )
        if rows and len(rows) >= enough(df):
            clock = np.mean([r["curve_seconds"] for r in rows], 0) / 60
            out[arm] = (clock, *shares(np.array([r["curve"]["accuracy"] for r in rows])))
    return out


def trained_steps(df, arm):
    return df[df.arm == arm].record.iloc[0]["spec"]["model"].get("n_sup", 16)


def sample(b):
    """Seeds and puzzles that budgets (`budgets`) rest on, in words."""
    return f"{len(b['any'][0][0])} seeds × {b['puzzles']} puzzles"


def best_of(b, steps):
    """{rule: (starts, mean, low, high)} at a number of supervision steps, intervals over seeds."""
    ks = [k for k in b["starts"] if k <= shared(b, steps)]
    return {rule: (np.array(ks), *shares(np.stack([solves(b, steps, k, rule).mean(1) for k in ks], 1))) for rule in RULES}


def over_steps(b, rule="confidence", k=1):
    """(steps, mean, low, high) of a choice among k starts, all from the starts that were measured after every number of steps."""
    among = min(b["most"])
    return b["steps"], *shares(np.stack([solves(b, s, k, rule, among).mean(1) for s in b["steps"]], 1))


def ways(b, steps, per_step, own=None):
    """{way: [(arm, FLOPs a puzzle, mean, low, high)]} for `plots.ways`: one start and ever more steps (or `own`, of a model's own start,
    as `longer` gives it), or `steps` steps and ever more starts of which the halting head chooses."""
    longer = [("", s * per_step, *p) for s, *p in zip(*(own or over_steps(b)), strict=True)]
    wide = [("", steps * k * per_step, *p) for k, *p in zip(*best_of(b, steps)["confidence"], strict=True)]
    return {"more steps": longer, "more starts": wide}


def surface(b):
    """(steps, starts): mean share of puzzles that the halting head's favourite solves; NaN where not measured."""
    values = [[solves(b, s, k).mean() if k <= shared(b, s) else np.nan for k in b["starts"]] for s in b["steps"]]
    return np.array(values)


def gains(b, steps):
    """What more compute brings to a model that thinks for `steps` steps: Effects in shares, seeds crossed with puzzles. {name: Effect}"""
    k = shared(b, steps)
    found = {f"{k} starts, same steps": against(b, (steps, k), (steps, 1))}
    for times in (4, 8):
        if steps * times in b["steps"]:
            found[f"{times} times the steps"] = against(b, (steps * times, 1), (steps, 1))
            if times <= shared(b, steps, steps * times):
                found[f"{times} times the steps rather than {times} starts"] = against(b, (steps * times, 1), (steps, times))
    return found


def converging(b, steps):
    """(k, late, early gain, late gain, Effect of late less early, Effect of late less half of early): what k starts gain after `steps` steps
    and after the most at which at least four were measured, the same starts in both; None where there are no such."""
    late = max((s for s, k in zip(b["steps"], b["most"], strict=True) if k >= 4 and s > steps), default=None)
    if late is None:
        return None
    k = shared(b, steps, late)
    first, last = (solves(b, s, k, among=k) - solves(b, s, 1, among=k) for s in (steps, late))
    return k, late, first.mean(), last.mean(), stats.crossed(last, first), stats.crossed(last, first / 2)


def thought(store, df, arm):
    """Of the evaluation `longer`: {"steps", "right" and "surely" (stopped when the halting head is sure): outcomes (seeds, steps, puzzles),
    "spent": (seeds, steps), "far": {"steps", "right"}}; None before all seeds."""
    rows = singles(store, df, "longer", arm)
    if not rows:
        return None
    cube = lambda of, name: np.array([unpacked(r[name], len(r["steps"]), r["puzzles"]) for r in of], float)  # noqa: E731
    far = [r["far"] for r in rows]
    return {"steps": rows[0]["steps"], "right": cube(rows, "right"), "surely": cube(rows, "surely"),
            "spent": np.array([r["spent"] for r in rows]), "far": {"steps": far[0]["steps"], "right": cube(far, "right")}}  # fmt: skip


def longer(store, df, names, of="right", puzzles=None):
    """{arm: (steps, mean, low, high)}: accuracy of ever more steps from the model's own start, or ("surely") if a puzzle stops as soon as
    the halting head is sure; of the first `puzzles`, or all."""
    found = {arm: thought(store, df, arm) for arm in names}
    return {arm: (np.array(t["steps"]), *shares(t[of][..., :puzzles].mean(2))) for arm, t in found.items() if t}


def longer_gain(store, df, arm="TRM"):
    """(most steps, Effect of them over the trained number) from an arm's own start, seeds crossed with puzzles; (None, None) before all
    seeds."""
    t = thought(store, df, arm)
    return (t["steps"][-1], stats.crossed(t["right"][:, -1], at_trained(df, arm, t))) if t else (None, None)


def scored_gain(df, arm="TRM"):
    """(steps, Effect of them over the trained number) on all puzzles of part B, to the most steps that every run is scored with; (None, None) before
    all seeds, and where these are no more than were trained."""
    if not complete(df, arm):
        return None, None
    rows = np.array([r["detail"]["by_step"][METRIC] for r in df[(df.arm == arm) & (df.status == "recorded")].record])
    own = trained_steps(df, arm)
    return (rows.shape[1], stats.paired(rows[:, -1], rows[:, own - 1])) if rows.shape[1] > own else (None, None)


def far_gain(store, df, arm="TRM"):
    """As `longer_gain`, of the few puzzles that were given still more steps."""
    t = thought(store, df, arm)
    few = t["far"]["right"] if t else None  # (seeds, steps, puzzles)
    return (t["far"]["steps"][-1], stats.crossed(few[:, -1], at_trained(df, arm, t)[:, : few.shape[2]])) if t else (None, None)


def at_trained(df, arm, t, of="right"):
    """Outcomes (seeds, puzzles) after the trained number of steps."""
    return t[of][:, t["steps"].index(trained_steps(df, arm))]


def stopping(store, df, arm="TRM"):
    """(Effect of stopping each puzzle when the halting head is sure rather than after all trained steps, Effect of the steps that it
    takes on average); None before all seeds."""
    t = thought(store, df, arm)
    if not t:
        return None
    spent = t["spent"][:, t["steps"].index(trained_steps(df, arm))]
    return stats.crossed(at_trained(df, arm, t, "surely"), at_trained(df, arm, t)), stats.paired(spent, np.zeros(len(spent)))


def harder(store, df, arm="TRM"):
    """Puzzles with the givens trained on or fewer, within the rounds of deduction that 99 in 100 puzzles trained on need or beyond:
    ({group: (steps, mean, low, high)}, those rounds, {group: Effect of the most steps over the trained number}, that Effect of all groups
    beyond together). None before all seeds."""
    rows = singles(store, df, "harder", arm)
    if not rows:
        return None
    steps, lines, effects, beyond = rows[0]["steps"], {}, {}, []
    i = steps.index(max(s for s in steps if s <= trained_steps(df, arm)))
    for g, group in enumerate(rows[0]["groups"]):
        right = np.array([unpacked(r["groups"][g]["right"], len(steps), group["puzzles"]) for r in rows], float)
        fewest, most = group["givens"]
        name = f"{fewest}–{most} givens, {group['rounds']:.0f} rounds"
        lines[name] = (np.array(steps), *shares(right.mean(2)))
        effects[name] = stats.crossed(right[:, -1], right[:, i])
        beyond += [right[:, [i, -1]]] if group["beyond"] else []
    both = np.concatenate(beyond, 2) if beyond else None
    return lines, rows[0]["trained"], effects, both is not None and stats.crossed(both[:, 1], both[:, 0]) or None


def noise(store, df, arm):
    """{"σ = …": (steps, mean, low, high)}: accuracy with noise added between steps."""
    rows = singles(store, df, "noise", arm)
    if not rows:
        return {}
    return {f"σ = {s}": (np.array(rows[0]["steps"]), *shares(np.array([r[s] for r in rows]))) for s in rows[0] if s != "steps"}


def noise_effects(store, df, arm="TRM"):
    """(most steps, {"σ = …": Effect over no noise after so many}), paired by seed; None before all seeds."""
    rows = singles(store, df, "noise", arm)
    if not rows:
        return None
    last = {s: np.array([r[s][-1] for r in rows]) for s in rows[0] if s != "steps"}
    return rows[0]["steps"][-1], {f"σ = {s}": stats.paired(v, last["0"]) for s, v in last.items() if s != "0"}


# ---------------------------------------------------------------- what a step does


def calibration(store, df, arm):
    """{"after step 1", "after step …" (the trained), "when first sure": (frame, Effect)}: a row a bin of the halting head's probability, all
    seeds together (puzzles, said, solved), and the mean of what it says less what is solved, paired by seed."""
    rows = singles(store, df, "thinking", arm)
    if not rows:
        return {}
    n = trained_steps(df, arm)
    parts = {"after step 1": [r["calibration"][0] for r in rows], f"after step {n}": [r["calibration"][n - 1] for r in rows],
             "when first sure": [r["sure"] for r in rows]}  # fmt: skip
    return {name: reliability(of) for name, of in parts.items()}


def reliability(rows):
    """(frame of bins over all seeds, Effect of said less solved) of one reliability a seed."""
    count, said, solved = (np.array([[v or 0 for v in r[k]] for r in rows], float) for k in ("count", "said", "solved"))  # (seeds, bins)
    total = count.sum(0)
    with np.errstate(invalid="ignore"):
        t = pd.DataFrame(
            {"bin": range(BINS), "puzzles": total, "said": (count * said).sum(0) / total, "solved": (count * solved).sum(0) / total}
        )
    mean = lambda v: (count * v).sum(1) / count.sum(1)  # noqa: E731, (seeds,)
    return t[t.puzzles > 0].reset_index(drop=True), stats.paired(mean(said), mean(solved)) if count.sum(1).all() else None


def order(store, df, arm):
    """(steps, rounds): share of cells that are right after a step, by the round of deductions in which they fall, mean over seeds."""
    rows = singles(store, df, "thinking", arm)
    width = min((len(r["by_round"][0]) for r in rows), default=0)
    return np.mean([[step[:width] for step in r["by_round"]] for r in rows], 0) if rows else None


def movement(store, df, arm):
    """Frames of a step: {"share of blanks that change": …, "movement of y, solved": …, "…, unsolved": …} → (steps, mean, low, high)."""
    rows = singles(store, df, "thinking", arm)
    if not rows:
        return {}
    out = {"changed": (np.arange(2, 2 + len(rows[0]["changed"])), *interval(np.array([r["changed"] for r in rows])))}
    for kind in ("solved", "unsolved"):
        values = np.array([r["residual"][kind] for r in rows], float)
        values = values[np.isfinite(values).all(1)]
        if len(values) > 1:
            out[kind] = (np.arange(1, values.shape[1] + 1), *interval(values))
    return out


def difficulty(store, df, arm, least=3, most=7):
    """A row for each number of deduction rounds that a puzzle needs, `least` and fewer together and `most` and more: puzzles a seed, share
    solved and mean first step that solved it, each with its interval over seeds (mean, low, high)."""
    rows = singles(store, df, "thinking", arm)
    out = []
    pool = lambda d: min(max(d["rounds"], least), most)  # noqa: E731
    for r in sorted({pool(d) for row in rows for d in row["difficulty"]}):
        of = [[d for d in row["difficulty"] if pool(d) == r] for row in rows]
        mean = lambda ds, k, by: sum(d[k] * d[by] for d in ds if d[by]) / sum(d[by] for d in ds)  # noqa: E731
        solved = [mean(ds, "solved", "puzzles") for ds in of]
        first = [mean(ds, "first", "reached") for ds in of if any(d["reached"] for d in ds)]
        out.append({"rounds": r, "puzzles": sum(d["puzzles"] for d in of[0]), "solved": band_of(solved), "first": band_of(first)})
    return pd.DataFrame(out, columns=["rounds", "puzzles", "solved", "first"])


def band_of(values):
    """(mean, low, high) over seeds, NaN with fewer than two."""
    return tuple(float(v[0]) for v in interval(np.array(values)[:, None])) if len(values) > 1 else (math.nan,) * 3


def by_rating(df, arm):
    """A row a rating band: puzzles, share solved after the trained steps, mean first step that solved them."""
    g = df[(df.arm == arm) & (df.status == "recorded")]
    rows = []
    for r in g.record:
        p = {k: np.array(v) for k, v in r["detail"]["by_puzzle"].items()}
        rows += [{"rating": name, "puzzles": int(of.sum()), "solved": p["solved"][of].mean(), "first": pd.Series(p["first"][of & (p["first"] > 0)]).mean()}
                 for i, name in enumerate(BANDS) if (of := band(p["rating"]) == i).any()]  # fmt: skip
    return pd.DataFrame(rows).groupby("rating", sort=False).mean().reset_index() if rows else pd.DataFrame()


def strips(store, df, arm):
    """Filmstrips of all seeds: the solved boards first, of these the ones that took longest."""

    def steps(strip):
        return strip["digits"].index(strip["target"]) if strip["solved"] and strip["target"] in strip["digits"] else -1

    return sorted(
        (s for r in singles(store, df, "thinking", arm) for s in r["strips"]), key=lambda s: (s["solved"], steps(s)), reverse=True
    )


# ---------------------------------------------------------------- randomised training


def randomised(store, df, profile):
    """A row for every width d of the model, number (n, T, N_sup) and half width of the uniform that it is drawn from in training (0: fixed):
    arm, seeds recorded, and of complete arms accuracy and alignment of y, z and the prediction, each (mean, low, high) over seeds."""
    rows, aligned = [], alignments(store, df)
    for arm, m in {r.arm: r.spec.model for r in grid(profile) if r.spec.experiment == "sudoku"}.items():
        drawn = {name: getattr(m, f"{field}_width") for name, field in NUMBERS.items() if getattr(m, f"{field}_width")}
        if arm.split(" (")[0] != "TRM" and (len(drawn) != 1 or m.start != "fixed"):
            continue
        row = {"d": m.d, "arm": arm, "seeds": len(scores(df, arm, METRIC)) if len(df) else 0}
        if complete(df, arm):
            row["accuracy"] = band_of(scores(df, arm, METRIC).to_numpy())
            of = aligned[aligned.arm == arm]
            row |= {k: band_of(of[k].to_numpy()) for k in ("y", "z", "prediction") if len(of)}
        rows += [{"number": name, "half": half, **row} for name, half in (drawn or dict.fromkeys(NUMBERS, 0)).items()]
    columns = ["number", "half", "d", "arm", "seeds", "accuracy", "y", "z", "prediction"]
    return pd.DataFrame(rows, columns=columns).sort_values(["d", "number", "half"], kind="stable")


# ---------------------------------------------------------------- path independence


def alignments(store, df, form="other"):
    """Frame (arm, seed, y, z, prediction, accuracy): asymptotic alignment and accuracy of every run that has both."""
    rows = []
    for (arm, seed), r in sorted(evaluation_frame(store, df, "alignment").items()):
        accuracy = df[(df.arm == arm) & (df.seed == seed)][METRIC].iloc[0]
        rows.append({"arm": arm, "seed": seed, **{k: v["alignment"] for k, v in r[form].items()}, "accuracy": accuracy})
    table = pd.DataFrame(rows, columns=["arm", "seed", "y", "z", "prediction", "accuracy"])
    return table[table.groupby("arm").seed.transform("nunique") >= enough(df)] if len(table) else table


def within(table):
    """The frame of `alignments` with every number centred on its arm and scaled by its scatter (standard deviation over seeds)."""
    numbers = table.drop(columns="seed").groupby("arm", sort=False).transform(lambda v: (v - v.mean()) / v.std())
    return numbers.assign(arm=table.arm)


def correlations(table):
    """{y, z, prediction: Effect}: correlation of alignment with accuracy *within* a configuration (`within`), so that every arm counts
    alike, with Fisher's interval; an arm costs a degree of freedom. Empty where too little is recorded."""
    if not len(table):
        return {}
    centred, out = within(table), {}
    for name in ("y", "z", "prediction"):
        told = centred[np.isfinite(centred[[name, "accuracy"]]).all(axis=1)]  # an arm whose seeds all read the same tells nothing
        n = len(told)
        free = n - told.arm.nunique() - 2
        if free < 2:
            continue
        r = told[name].corr(told.accuracy)
        z, half = math.atanh(min(max(r, -0.999999), 0.999999)), 1.959964 / math.sqrt(free)
        p = math.erfc(abs(z) * math.sqrt(free / 2))
        out[name] = Effect(r, math.tanh(z - half), math.tanh(z + half), p, n, 0.95)
    return out


# ---------------------------------------------------------------- the write-up's observations


def observations(store, df):
    """What the write-up (004) observed, measured again: a row an observation, `measured` in words, a reading by rule and the `effect` that it
    rests on; what has no records reads "open". An effect is seen if its 95 % interval lies on the claimed side of 0 and the observation
    is among the discoveries of Benjamini and Hochberg's procedure over all recorded rows, FALSE_DISCOVERIES of them false."""
    rows, points = [], lambda e: e and change(e, METRIC)

    def row(claim, effect=None, measured=None, sign=1, no="the opposite", judged=None):
        rows.append({"observation": claim, "measured": measured or "not recorded yet", "effect": effect, "judged": judged or effect,
                     "sign": sign, "no": no})  # fmt: skip

    h = halting_steps(df)
    claim = f"fewer than {CLAIMED['halting']} supervision steps a puzzle in training, of {CLAIMED['halting_of']}"
    row(claim, h and h[0], h and f"{h[0].estimate:.1f} [{h[0].low:.1f}, {h[0].high:.1f}] of {h[2]} over the training, {h[1].estimate:.1f} at its end",
        -1, "not seen", h and distance(h[0], CLAIMED["halting"]))  # fmt: skip
    t, b = thought(store, df, "TRM"), budgets(store, df, "random starts")
    steps = trained_steps(df, "random starts") if b else None
    found, more = (gains(b, steps), more_of_starts(b, steps)) if b else ({}, dict.fromkeys(MORE_OF_STARTS))
    e = longer_gain(store, df)[1]
    row("more supervision steps at test time raise accuracy", e, points(e))
    for claim, part in {"random starts chosen by confidence bring a gain": "starts, same steps", "steps pay more than starts": "rather than 4"}.items():  # fmt: skip
        e = next((e for name, e in found.items() if part in name), None)
        row(claim, e, points(e))
    c = converging(b, steps) if b else None  # they converge if at least half of the gain goes
    told = (
        c
        and f"from {steps} to {c[1]} steps the gain of {c[0]} starts goes from {100 * c[2]:.1f} to {100 * c[3]:.1f}: {points(c[4])} (seen where at least half of it goes)"
    )
    row("methods converge at large budgets", c and c[4], told, -1, "not seen", c and c[5])
    for claim, e in more.items():
        row(claim, e, points(e))
    e = less_and_less(t, trained_steps(df, "TRM")) if t else None
    row("more steps pay less and less", e, points(e))
    other, own = (alignments(store, df, form) for form in ("other", "own"))
    both = lambda f, say: (f(other), f(other) and f"{say(f(other))}; in the write-up's form {say(f(own))}" if f(own) else None)  # noqa: E731
    row("z is more path independent than y", *both(latents, lambda e: f"alignment of z less that of y: {e.text()}"))
    row(
        "path independence goes with accuracy",
        *both(lambda a: correlations(a).get("prediction"), lambda e: f"within configurations r = {e.text(digits=2)}"),
    )
    e = effect(df, "random starts", "TRM", METRIC)
    row("random starts lower accuracy", e, points(e), -1)
    row("random starts lower path independence", *both(starts_alignment, lambda e: f"alignment of predictions: {e.text()}"), -1)
    e = T_brings_most(df)
    row("of the randomised numbers, T brings the most", e, e and f"T less the best of the others, or of none: {points(e)}")
    e = wider(df)
    row("wider ranges raise accuracy", e, e and f"widest less narrowest: {points(e)}")
    return read(rows)


def distance(e, value):
    """The Effect of a t interval as its distance from a value."""
    return stats.t_effect(e.estimate - value, ((e.high - e.low) / 2 / stats.t_value(e.level, e.n - 1)) ** 2, e.n - 1, e.n, e.level)


def read(rows):
    """The frame of `observations`, with a reading of each row."""
    done = [r for r in rows if r["judged"]]
    for r, q in zip(done, stats.benjamini_hochberg([r["judged"].p for r in done]), strict=True):
        low, high = sorted(r["sign"] * v for v in (r["judged"].low, r["judged"].high))
        found = q <= FALSE_DISCOVERIES
        r["reading"] = "seen" if found and low > 0 else r["no"] if found and high < 0 else "inconclusive"
    rows = [{"reading": "open"} | r for r in rows]
    return pd.DataFrame(rows, columns=["observation", "measured", "reading", "effect"])


MORE_OF_STARTS = (
    "random starts lead to different answers",
    "confidence chooses better than a vote per cell",
    "more starts pay less and less",
)


def more_of_starts(b, steps):
    """{observation of MORE_OF_STARTS: Effect, positive where it is seen} at the trained number of steps, with the most starts measured there:
    that one of them is right less than a single one is; confidence less vote; the first doubling's gain less the last's."""
    k = shared(b, steps)
    doubled = lambda k: solves(b, steps, k) - solves(b, steps, k // 2)  # noqa: E731
    found = (
        against(b, (steps, k, "any"), (steps, 1)),
        against(b, (steps, k), (steps, k, "cell vote")),
        stats.crossed(doubled(2), doubled(k)) if k > 2 else None,
    )
    return dict(zip(MORE_OF_STARTS, found, strict=True))


def less_and_less(t, steps):
    """What the first doubling of the trained steps brings less what the last does (`thought`), seeds crossed with puzzles."""
    right, i = t["right"], t["steps"].index(steps)
    return stats.crossed(right[:, i + 1] - right[:, i], right[:, -1] - right[:, -2]) if len(t["steps"]) > i + 2 else None


def latents(table):
    """Alignment of z less that of y (TRM)."""
    trm = table[table.arm == "TRM"]
    return stats.paired(trm.z.to_numpy(), trm.y.to_numpy()) if len(trm) > 1 else None


def starts_alignment(table):
    """Alignment of the predictions of random starts less that of the TRM."""
    a, b = (table[table.arm == arm].set_index("seed").prediction for arm in ("random starts", "TRM"))
    seeds = sorted(set(a.index) & set(b.index))
    return stats.paired(a[seeds].to_numpy(), b[seeds].to_numpy()) if len(seeds) > 1 else None


def half_widths(df):
    """{number: {half width: arm}} of the complete arms of the TRM's width that draw one number anew in training, such as "T ± 1"."""
    found = {name: {} for name in NUMBERS}
    for arm in dict.fromkeys(df.arm):
        name, _, width = arm.partition(" ± ")
        if name in found and width.isdigit() and complete(df, arm):
            found[name][int(width)] = arm
    return {name: dict(sorted(v.items())) for name, v in found.items()}


def T_brings_most(df):
    """Accuracy with T drawn anew less that of the rival that comes closest: n or N_sup drawn anew, from uniforms as wide for what each number
    allows, half of that and all of it (n = 2 allows 1, which is all), or none of them. Mean over the widths that both have, paired by seed; None
    before every such arm of at least one width."""
    if not complete(df, "TRM"):
        return None
    arms, gaps = half_widths(df), {}
    model = df[df.arm == "TRM"].record.iloc[0]["spec"]["model"]
    most = {name: model.get(field, getattr(GridConfig, field)) - 1 for name, field in NUMBERS.items()}
    for share in (2, 1):
        widths = {name: -(-m // share) for name, m in most.items() if share == 1 or m > 1}
        if len(widths) > 1 and all(w in arms[name] for name, w in widths.items()):
            of = {name: scores(df, arms[name][w], METRIC) for name, w in widths.items()}
            T = of.pop("T")
            for rival, accuracy in (of | {"none": scores(df, "TRM", METRIC)}).items():
                gaps.setdefault(rival, []).append(T - accuracy)
    found = [e for e in map(mean_gap, gaps.values()) if e]
    return min(found, key=lambda e: e.estimate, default=None)


def wider(df):
    """Accuracy at the widest less that at the narrowest range of each number that is drawn from several, mean over the numbers: an
    Effect paired by seed, or None before two ranges of a number are there."""
    arms = [list(v.values()) for v in half_widths(df).values() if len(v) > 1]
    return mean_gap([scores(df, v[-1], METRIC) - scores(df, v[0], METRIC) for v in arms])


def mean_gap(gaps):
    """The Effect of the mean of several differences {seed: …}, at the seeds that all have."""
    gap = pd.concat(gaps, axis=1).dropna().mean(axis=1).to_numpy() if gaps else ()
    return stats.paired(gap, np.zeros(len(gap))) if len(gap) > 1 else None


def answer(store, df):
    """This task's place in the answer of chapter 06: its depth is the rounds of deductions that its puzzles need; a puzzle has one
    solution, so its blanks share nothing that the givens leave open (coordination 0)."""
    found, rounds = by_step(df, ["TRM"]).get("TRM"), difficulty(store, df, "TRM", 1, 99) if len(df) else ()
    if not found or not len(rounds):
        return []
    steps = trained_steps(df, "TRM")
    first, last = found[1][0], found[1][steps - 1]
    depth = float(np.average(rounds.rounds, weights=rounds.puzzles))
    return [
        {
            "task": "Sudoku",
            "depth": depth,
            "coordination": 0.0,
            "gain": float((last - first) / (1 - first)),
            "evidence": f"{enough(df)} seeds",
        }
    ]
